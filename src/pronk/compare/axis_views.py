"""The sections on settings: a chart for each axis, and the table of two axes, as views for the template."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator, NullLocator

from pronk.compare import axes, charts, words
from pronk.compare.axes import Line, Run, same
from pronk.compare.items import run_folder
from pronk.compare.languages import Language
from pronk.compare.overfitting import read_validations
from pronk.compare.pairs import figure, lower_is_better
from pronk.compare.resampling import ratio_bootstrap_interval

View = dict[str, Any]
Bounds = tuple[float, float]
Figures = dict[str, tuple[float, Bounds | None]]  # of runs by name, with the 95% interval where there is one
SHIFT = 0.014  # of the axis' length, between lines, so that intervals stand beside each other
TABLES = 12  # of two settings, for the values of the others


def figures_of(runs: Sequence[Run], metric: str, intervals: dict[str, dict[str, list[float]]]) -> Figures:
    """The tuned runs' figures in a metric. intervals: of each run by metric, as compare/baseline.py has them."""
    found: Figures = {}
    for run in axes.measured(runs, metric):
        bounds = intervals.get(run["name"], {}).get(metric)
        value = figure(run, metric)
        assert value is not None  # `measured` says so
        found[run["name"]] = (value, (bounds[0], bounds[1]) if bounds else None)
    return found


def validation_losses(folder: Path, runs: Sequence[Run]) -> Figures:
    """The validation loss (nats per token) of the weights that each run ended with, with its bootstrap interval."""
    found: Figures = {}
    for run in runs:
        seen = None if run.get("baseline") else read_validations(run_folder(folder, run["name"]) / "validation.jsonl")
        if seen is None:
            continue
        steps = list(seen.steps)
        at = steps.index(run["adapter_step"]) if run.get("adapter_step") in steps else len(steps) - 1
        bounds = ratio_bootstrap_interval(seen.loss_TN[at], seen.tokens_N)
        found[run["name"]] = (float(seen.mean_T[at]), bounds)
    return found


def axis_views(
    folder: Path, runs: list[Run], comparisons: list[View], metric: str, figures: Figures, t: Language
) -> list[View]:
    """A view for each number that the study varies: charts, legend, and what they come to in words."""
    losses = validation_losses(folder, [run for run in runs if run["name"] in figures])
    views = []
    for place, (key, values) in enumerate(axes.numeric(runs).items()):
        found = axes.lines(runs, key, figures)
        if not found:
            continue
        chart = Chart(key, values, t.axis(key), f"axis-{place}")
        told = [axes.leader(line, comparisons, metric, lower_is_better(metric)) for line in found]
        drawn = [{"title": t.metric(metric), "svg": chart.svg(found, "", "a", told)}]
        beside = axes.lines(runs, key, losses)
        if beside:
            drawn.append({"title": t("axes.validation"), "svg": chart.svg(beside, t("curves.nats"), "b")})
        views.append(
            {
                "key": key,
                "title": t.axis(key),
                "charts": drawn,
                "legend": legend([line.label for line in found]) if len(found) > 1 else [],
                "said": _said(found, told, t),
                "validation": bool(beside),
                "seeds": any(len(line.points) > len(line.means) for line in found),
            }
        )
    return views


def legend(names: Sequence[str]) -> list[View]:
    """A line of colour and dashes for each series, in their order."""
    return [
        {"name": name, "colour": series % charts.COLOURS + 1, "dash": charts.dash(series)}
        for series, name in enumerate(names)
    ]


def _said(found: Sequence[Line], told: Sequence[axes.Leader], t: Language) -> list[Any]:
    """What the lines come to, a sentence for each; one for all where none of several has a best value."""
    if len(found) > 2 and not any(one.worse for one in told) and any(one.compared for one in told):
        return [t("axes.no-line", n=len(found))]
    sentences = []
    for line, one in zip(found, told, strict=True):
        worse, ties = (t.listed([words.setting(value) for value in values]) for values in (one.worse, one.ties))
        key = "one" if one.told else "not-compared" if not one.compared else "some" if one.worse else "none"
        said = t(f"axes.{key}", best=words.setting(one.value), worse=worse, ties=ties)
        sentences.append(t("axes.line", line=line.label, said=said) if line.label else said)
    return sentences


class Chart:
    """One axis of a study as a chart: its values are its ticks. identifier keeps ids apart from other charts'."""

    def __init__(self, key: str, values: Sequence[float], label: str, identifier: str) -> None:
        self.values, self.label, self.identifier = values, label, identifier
        self.logarithmic = axes.logarithmic(key, values)

    def svg(self, found: Sequence[Line], label: str, part: str, told: Sequence[axes.Leader] = ()) -> str:
        """A line for each group of runs, intervals as whiskers, a ring where the best value is told from all others."""

        def draw(on: Any) -> None:
            for series, line in enumerate(found):
                self._line(on, line, series, len(found))
                if told and told[series].told:
                    means = {same(value): mean for value, mean in line.means}
                    best = told[series].value
                    charts.ring(on, self._shifted(best, series, len(found)), means[same(best)], series)
            on.set_xscale("log" if self.logarithmic else "linear")
            on.set_xticks(self.values, [words.setting(value) for value in self.values])
            on.xaxis.set_minor_locator(NullLocator())
            on.yaxis.set_major_locator(MaxNLocator(nbins=6))
            on.margins(x=0.06)

        return charts.drawn(draw, f"{self.identifier}-{part}", (self.label, label))

    def _line(self, on: Any, line: Line, series: int, of: int) -> None:
        (drawn,) = on.plot(
            [self._shifted(value, series, of) for value, _ in line.means], [mean for _, mean in line.means]
        )
        charts.styled(drawn, series)
        colour = charts.colour(series)
        for point in line.points:
            x = self._shifted(point.value, series, of)
            on.plot(x, point.figure, marker="o", markersize=4.0, color=colour)
            if point.interval is not None:
                on.plot([x, x], point.interval, color=colour, linewidth=1.0, alpha=0.6)

    def _shifted(self, value: float, series: int, of: int) -> float:
        """A value moved a little along the axis, so that no interval hides another."""
        move = SHIFT * (series - (of - 1) / 2)
        first, last = self.values[0], self.values[-1]
        if self.logarithmic:
            return float(value * math.exp(move * math.log(last / first)))
        return float(value + move * (last - first))


def grid_view(runs: list[Run], comparisons: list[View], metric: str, figures: Figures, t: Language) -> View | None:
    """The metric over two settings, a table for each choice of the others; None where fewer than two vary."""
    varied = axes.varied(runs)
    if len(varied) < 2 or len(figures) < 2:
        return None
    row, column, *others = sorted(varied, key=lambda key: -len(varied[key]))
    cells: dict[tuple[str, ...], list[Run]] = {}
    for run in axes.measured(runs, metric):
        cells.setdefault(_place(run, [row, column, *others]), []).append(run)
    means = {place: sum(figures[run["name"]][0] for run in of) / len(of) for place, of in cells.items()}
    scale = Scale(min(means.values()), max(means.values()), lower_is_better(metric))
    best = _framed(cells, means, metric, comparisons)
    tables: list[View] = []
    for rest in itertools.islice(itertools.product(*(varied[key] for key in others)), TABLES):
        rows: list[View] = [
            {
                "head": words.setting(down),
                "cells": [
                    {**_cell(cells.get(place), metric, figures, scale, t), "best": place == best}
                    for across in varied[column]
                    for place in [(same(down), same(across), *map(same, rest))]
                ],
            }
            for down in varied[row]
        ]
        caption = " · ".join(f"{t.axis(key)} {words.setting(value)}" for key, value in zip(others, rest, strict=True))
        if any(cell["value"] for one in rows for cell in one["cells"]):
            tables.append({"caption": caption, "rows": rows})
    heads = [words.setting(value) for value in varied[column]]
    named = {"row": t.axis(row), "column": t.axis(column)}
    return {"tables": tables, "heads": heads, "metric": t.metric(metric), "best": best is not None, **named}


class Scale:
    """How far a figure is from the worst of a table (0) to the best (1)."""

    def __init__(self, low: float, high: float, lower: bool) -> None:
        self.low, self.width, self.lower = low, high - low, lower

    def share(self, value: float) -> float:
        """Where a figure lies; all alike where they do not differ."""
        share = (value - self.low) / self.width if self.width > 0 else 0.5
        return 1.0 - share if self.lower else share


def _place(run: Run, keys: Sequence[str]) -> tuple[str, ...]:
    settings = run.get("settings") or {}
    return tuple(same(settings.get(key)) for key in keys)


def _framed(
    cells: dict[tuple[str, ...], list[Run]], means: dict[tuple[str, ...], float], metric: str, comparisons: list[View]
) -> tuple[str, ...] | None:
    """The best cell if it is better than every other, beyond chance."""
    best = (min if lower_is_better(metric) else max)(means, key=lambda place: means[place])
    better = axes.told_better(comparisons, metric)
    name = axes.compared_as(cells[best])
    others = [axes.compared_as(of) for place, of in cells.items() if place != best]
    return best if others and all(better.get((name, other)) for other in others) else None


def _cell(found: list[Run] | None, metric: str, figures: Figures, scale: Scale, t: Language) -> View:
    """One cell: the mean over its seeds, and the interval where there is one run."""
    if not found:
        return {"value": "", "below": "", "share": "0"}
    mean = sum(figures[run["name"]][0] for run in found) / len(found)
    bounds = figures[found[0]["name"]][1]
    digits = words.digits(metric)
    below = t.count("seed", len(found)) if len(found) > 1 else ""
    if len(found) == 1 and bounds:
        below = words.interval(bounds, t, digits, signed=False)
    return {
        "value": words.number(mean, digits),
        "below": below,
        "share": f"{scale.share(mean):.3f}",
    }
