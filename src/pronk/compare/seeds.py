"""Runs that differ in `train.seed` alone are one group: what the seed alone does, and groups compared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pronk.compare.crossed import Estimate, Side, crossed, least_variance
from pronk.compare.items import RunItems
from pronk.compare.measures import Measure, measures

SEED = "train.seed"

Run = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Two or more runs of one study that differ in their seed alone; the untouched base is a group of one, seedless.

    `settings` are the recipe keys that vary in the study, without the seed.
    """

    name: str
    runs: tuple[Run, ...]
    seeds: tuple[Any, ...]
    settings: dict[str, Any]

    def names(self) -> list[str]:
        """The names of its runs."""
        return [run["name"] for run in self.runs]


def groups(runs: Sequence[Run]) -> list[Group]:
    """The groups of a study, in the order of their first runs; runs without company are in none.

    Give only runs whose item results are complete. Of runs with the same seed, from several studies, the first counts.
    """
    kept: dict[str, list[Run]] = {}
    for run in runs:
        settings = run.get("settings") or {}
        if SEED in settings and not run.get("baseline"):
            alike = [run.get("base"), run.get("quantize") or "none", _without_seed(settings)]
            members = kept.setdefault(json.dumps(alike, sort_keys=True, default=str), [])
            if all(one["settings"][SEED] != settings[SEED] for one in members):
                members.append(run)
    return [_group(members) for members in kept.values() if len(members) > 1]


def alone(run: Run) -> Group:
    """A run that no seed has made: the untouched base."""
    return Group(run["name"], (run,), (), dict(run.get("settings") or {}))


def seed_noise(runs: Sequence[Run], items: dict[str, RunItems]) -> list[dict[str, Any]]:
    """What the seed alone does: an entry for each group and metric, in the order of the study; none without groups.

    runs: the runs of study.json. items: their item results by name; a run without any is left out. An entry has
    `group` (the name that comparisons have in `a` and `b`), `runs` and `seeds` (alike long), `settings` (without the
    seed), `metric` (as in comparisons), `values` (a figure of each run), `mean`, `deviation` (standard deviation over
    the seeds, on these very items), `lowest`, `highest`, `interval` (95%, of the mean, over seeds and items), and
    `seed_share` (the share of that interval's squared error that more items would not make smaller, and more seeds
    would). A single run's figure is `deviation` away from its group's mean by the seed alone; two single runs differ by
    1.4 times that.
    """
    found = []
    for group in groups([run for run in runs if run["name"] in items]):
        of_runs = [measures(items[name]) for name in group.names()]
        for metric in of_runs[0]:
            side = side_of([one.get(metric) for one in of_runs])
            if side is None:
                continue
            estimate = crossed(side, least=_least(of_runs[0][metric]))
            found.append(
                {
                    "group": group.name,
                    "runs": group.names(),
                    "seeds": list(group.seeds),
                    "settings": group.settings,
                    "metric": metric,
                    "values": side.values.tolist(),
                    "mean": estimate.value,
                    "deviation": float(np.std(side.values, ddof=1)),
                    "lowest": float(side.values.min()),
                    "highest": float(side.values.max()),
                    "interval": list(estimate.interval),
                    "seed_share": estimate.seed_share,
                }
            )
    return found


def side_of(of_runs: Sequence[Measure | None]) -> Side | None:
    """The runs of a group as one side of a comparison; None where one lacks the measure or has other items."""
    known = [one for one in of_runs if one is not None]
    if len(known) < len(of_runs) or any(not same_measure(known[0], one) for one in known):
        return None
    return Side(np.array([one.value for one in known]), np.array([one.parts for one in known]))


def same_measure(a: Measure, b: Measure) -> bool:
    """Whether two figures are of the same items, and per the same tokens."""
    if a.ids != b.ids or (a.weight is None) != (b.weight is None):
        return False
    return a.weight is None or b.weight is None or bool(np.array_equal(a.weight, b.weight))


def compare_groups(a: Group, b: Group, of_a: Sequence[Measure], of_b: Sequence[Measure]) -> Estimate | None:
    """b minus a in one metric, over seeds and items; None where the figures are not of the same items and tokens.

    Runs of the same seeds are paired: the seed decides about the order of the data and the adapter's beginning.
    """
    side_a, side_b = side_of(of_a), side_of(of_b)
    if side_a is None or side_b is None or not same_measure(of_a[0], of_b[0]):
        return None
    paired = len(a.runs) > 1 and a.seeds == b.seeds
    return crossed(side_b, side_a, paired, _least(of_a[0]))


def _least(measure: Measure) -> float:
    return least_variance(len(measure.ids)) if measure.counts else 0.0


def _group(members: list[Run]) -> Group:
    members = sorted(members, key=lambda run: str(run["settings"][SEED]))
    first = members[0]
    seed = re.escape(str(first["settings"][SEED]))
    study, _, name = first["name"].rpartition("/")  # runs of several studies are named STUDY/RUN
    stem = re.sub(rf"(^|_)seed-{seed}(?=_|$)", "", name).strip("_") or "tuned"
    if study and all(run["name"].startswith(f"{study}/") for run in members):
        stem = f"{study}/{stem}"
    seeds = tuple(run["settings"][SEED] for run in members)
    return Group(f"{stem} ({len(members)} seeds)", tuple(members), seeds, _without_seed(first["settings"]))


def _without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != SEED}
