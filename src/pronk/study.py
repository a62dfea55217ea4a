"""From a recipe to runs, and from runs to what is really trained.

grid        every combination of the values in `study`   → Run
prefixes    runs that differ only in `epochs`, under a schedule that does not look ahead,
            are one trained run with snapshots            → TrainedRun
fleets      all trained runs over one base in memory; a run that
            trains the base itself (full: true) has its own  → Fleet
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pronk.errors import RecipeError
from pronk.recipe import Quantize, Recipe

# Under these the learning rate at a step does not depend on how many steps will follow.
SCHEDULES_WITHOUT_HORIZON = ("constant", "constant_with_warmup")
BASELINE = "base"


@dataclass(frozen=True)
class Run:
    """One line of the study: a name, a full recipe, and the keys in which it differs from others."""

    name: str
    recipe: Recipe
    settings: dict[str, Any]


@dataclass(frozen=True)
class TrainedRun:
    """What is trained once for one or more runs: the longest of them, with snapshots for the rest."""

    runs: tuple[Run, ...]  # by rising epochs; the last is the longest

    @property
    def recipe(self) -> Recipe:
        return self.runs[-1].recipe

    @property
    def name(self) -> str:
        return self.runs[-1].name


@dataclass(frozen=True)
class Fleet:
    """The trained runs that share one base model in memory, quantized or not. measures_base: one fleet of each
    base does."""

    base: str
    quantize: Quantize
    double_quantization: bool
    dtype: str
    baseline: str
    trained: tuple[TrainedRun, ...]
    measures_base: bool = True
    fp8_products: bool = False

    def few_shot(self, shots: int) -> str:
        """The name of the base with so many examples in its prompt, as a row of the study."""
        return f"{self.baseline}_{shots}-shot"

    @property
    def full(self) -> bool:
        """Whether the base itself is trained: it must be measured before."""
        return self.trained[0].recipe.full

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the study that this fleet trains, in the order of their training."""
        return tuple(run for trained in self.trained for run in trained.runs)


@dataclass(frozen=True)
class Study:
    """All runs of a recipe and the fleets that train them."""

    recipe: Recipe
    runs: tuple[Run, ...]
    fleets: tuple[Fleet, ...]

    def baselines(self, fleet: Fleet, names: Sequence[str]) -> list[dict[str, Any]]:
        """The untouched base of a fleet as study.json lists it: of its possible rows, those that `names` holds."""
        kept = {"base": fleet.base, "quantize": fleet.quantize}
        varied = {key for key in kept if len({getattr(other, key) for other in self.fleets}) > 1}
        entry = {**kept, "baseline": True, "settings": {key: kept[key] for key in kept if key in varied}}
        entry["status"] = "finished"
        rows = {fleet.few_shot(count): {"shots": count} for count in self.recipe.baseline.shots if count}
        return [{"name": name, **entry, **rows.get(name, {})} for name in names]


def plan_study(recipe: Recipe) -> Study:
    """Lay out the runs and the fleets of a recipe."""
    return study_of(recipe, _grid(recipe))


def study_of(recipe: Recipe, runs: Sequence[Run]) -> Study:
    """Lay out the fleets of runs. recipe: all that they have in common, such as their data."""
    groups: dict[tuple[str, Quantize], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.recipe.base, run.recipe.quantize), []).append(run)
    fleets = [fleet for kept, members in groups.items() for fleet in _fleets(kept, members, list(groups))]
    measuring = [fleet for fleet in fleets if fleet.measures_base]
    names = [run.name for run in runs] + [fleet.baseline for fleet in measuring]
    names += [fleet.few_shot(shots) for fleet in measuring for shots in recipe.baseline.shots if shots]
    if len(set(names)) < len(names):
        raise RecipeError("study: two runs would get the same name: " + ", ".join(sorted(names)))
    return Study(recipe, tuple(runs), tuple(fleets))


def _fleets(kept: tuple[str, Quantize], members: list[Run], all_kept: list[tuple[str, Quantize]]) -> list[Fleet]:
    """The fleets of runs over one base; its baseline is named by what tells it from the other bases'."""
    telling = [slug(value) for at, value in enumerate(kept) if any(other[at] != value for other in all_kept)]
    recipe, baseline = members[0].recipe, "_".join([BASELINE, *telling])
    double, dtype = recipe.double_quantization is not False, recipe.train.dtype
    return [
        Fleet(*kept, double, dtype, baseline, company, number == 0, recipe.train.fp8_products)
        for number, company in enumerate(_companies(_share_prefixes(members)))
    ]


def _grid(recipe: Recipe) -> list[Run]:
    axes = recipe.study
    runs = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        # an axis of one value sets it; it tells no runs apart
        settings = {key: value for key, value in chosen.items() if len(axes[key]) > 1}
        name = "_".join(f"{key.rsplit('.', 1)[-1]}-{slug(value)}" for key, value in settings.items())
        if recipe.double_quantization is not None and chosen.get("quantize", recipe.quantize) != "nf4":
            chosen["double_quantization"] = None  # it speaks of the study's nf4 runs only
        full = recipe.with_values({"study": {}, **chosen})
        runs.append(Run(name or "tuned", full, settings))
    return runs


def slug(value: Any) -> str:
    """A value as part of a folder name."""
    if isinstance(value, list):
        return "+".join(slug(item) for item in value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, str) and ("/" in value or "\\" in value):
        value = PurePath(value).name
    return "".join(letter if letter.isalnum() or letter in "._+-" else "-" for letter in str(value)).strip(".")


def _share_prefixes(runs: list[Run]) -> list[TrainedRun]:
    """Group runs that are prefixes of one another; order follows the first run of each group."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_prefix_key(run), []).append(run)
    return [TrainedRun(tuple(sorted(group, key=lambda run: run.recipe.train.epochs))) for group in groups.values()]


def _companies(trained: list[TrainedRun]) -> list[tuple[TrainedRun, ...]]:
    """Trained runs that can share a model: all that leave it as it is, and each of the others by itself."""
    company = tuple(run for run in trained if not run.recipe.full)
    return [*([company] if company else []), *((run,) for run in trained if run.recipe.full)]


def _prefix_key(run: Run) -> str:
    """Equal for two runs exactly if the shorter is a prefix of the longer."""
    plain = run.recipe.model_dump()
    if run.recipe.train.schedule in SCHEDULES_WITHOUT_HORIZON and run.recipe.train.max_steps is None:
        del plain["train"]["epochs"]
    return json.dumps(plain, sort_keys=True)
