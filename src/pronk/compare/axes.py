"""What each setting does: the metric against learning rate, rank and other numbers, and two settings in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pronk.compare import words
from pronk.compare.pairs import evaluated, figure
from pronk.compare.seeds import SEED, groups

Run = dict[str, Any]
Comparison = dict[str, Any]

LOGARITHMIC = ("train.learning_rate", "adapter.rank", "adapter.alpha")
LOG_FROM = 8.0  # other settings are drawn logarithmically if the largest is so many times the smallest


@dataclass(frozen=True)
class Point:
    """A run on a line: its value on the axis, its figure, and that figure's 95% interval where there is one."""

    run: Run
    value: Any
    figure: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """Runs that share every setting but the one of the axis, and but the seed."""

    settings: dict[str, Any]
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """The settings that the runs share, as `rank 16 · targets all-linear`; empty where none varies."""
        return " · ".join(f"{key.rsplit('.', 1)[-1]} {words.setting(value)}" for key, value in self.settings.items())

    @property
    def means(self) -> list[tuple[Any, float]]:
        """Value and mean figure over the seeds, by value."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(same(point.value), []).append(point)
        return [(of[0].value, sum(one.figure for one in of) / len(of)) for of in found.values()]

    @property
    def runs(self) -> dict[str, list[Run]]:
        """The runs of each value, several where there are seeds."""
        found: dict[str, list[Run]] = {}
        for point in self.points:
            found.setdefault(same(point.value), []).append(point.run)
        return found


@dataclass(frozen=True)
class Leader:
    """The best value of a line, the values that it is better than beyond chance, and those that it is not."""

    value: Any
    worse: list[Any]
    ties: list[Any]
    compared: bool

    @property
    def told(self) -> bool:
        """Whether the best value is better than every other, beyond chance."""
        return bool(self.worse) and not self.ties


def same(value: Any) -> str:
    """A text that equal settings share, lists too."""
    return json.dumps(value, sort_keys=True)


def varied(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings that take several values over the tuned runs, seeds aside; numbers in order."""
    values: dict[str, dict[str, Any]] = {}
    for run in runs:
        for key, value in (run.get("settings") or {}).items():
            if not run.get("baseline") and key != SEED:
                values.setdefault(key, {})[same(value)] = value
    found = {key: list(of.values()) for key, of in values.items() if len(of) > 1}
    return {key: sorted(of) if all(map(is_number, of)) else of for key, of in found.items()}


def is_number(value: Any) -> bool:
    """Whether a setting can lie on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def numeric(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Those of the varied settings that can lie on an axis."""
    return {key: values for key, values in varied(runs).items() if all(map(is_number, values))}


def logarithmic(key: str, values: Sequence[float]) -> bool:
    """Whether an axis is drawn logarithmically."""
    return min(values) > 0 and (key in LOGARITHMIC or max(values) / min(values) >= LOG_FROM)


def lines(runs: Sequence[Run], key: str, figures: dict[str, tuple[float, Any]]) -> list[Line]:
    """The lines over an axis that have two values or more. figures: by name of the run, with interval or None."""
    groups: dict[str, tuple[dict[str, Any], list[Point]]] = {}
    axes = varied(runs)
    for run in runs:
        settings = run.get("settings") or {}
        if run.get("baseline") or key not in settings or run["name"] not in figures:
            continue
        rest = {other: settings[other] for other in axes if other in settings and other != key}
        value, interval = figures[run["name"]]
        groups.setdefault(same(rest), (rest, []))[1].append(Point(run, settings[key], value, interval))
    found = [Line(rest, tuple(sorted(points, key=lambda point: point.value))) for rest, points in groups.values()]
    return [line for line in found if len(line.means) > 1]


def leader(line: Line, comparisons: Sequence[Comparison], metric: str, lower: bool) -> Leader:
    """The best value of a line, and from which others the comparisons tell it."""
    best = min(line.means, key=lambda mean: mean[1] if lower else -mean[1])[0]
    better = told_better(comparisons, metric)
    name = {key: compared_as(runs) for key, runs in line.runs.items()}
    worse: list[Any] = []
    ties: list[Any] = []
    compared = False
    for value, _ in line.means:
        if same(value) != same(best):
            said = better.get((name[same(best)], name[same(value)]))
            compared = compared or said is not None
            (worse if said else ties).append(value)
    return Leader(best, worse, ties, compared)


def compared_as(runs: Sequence[Run]) -> str | None:
    """The name that comparisons have for runs that differ in their seed alone; None for runs that have none."""
    if len(runs) == 1:
        return str(runs[0]["name"])
    found = groups(runs)
    return found[0].name if len(found) == 1 and len(found[0].runs) == len(runs) else None


def told_better(comparisons: Sequence[Comparison], metric: str) -> dict[tuple[str | None, str | None], bool]:
    """Whether the first of two runs is better than the second beyond chance, both ways round, for those compared."""
    found: dict[tuple[str | None, str | None], bool] = {}
    for entry in comparisons:
        if entry["metric"] == metric:
            found[entry["b"], entry["a"]] = entry["verdict"] == "better"
            found[entry["a"], entry["b"]] = entry["verdict"] == "worse"
    return found


def measured(runs: Sequence[Run], metric: str) -> list[Run]:
    """The tuned runs that have results in a metric."""
    return [run for run in runs if not run.get("baseline") and evaluated(run) and figure(run, metric) is not None]
