"""The setting with the best predicted speed that fits, and the nearest one when none does.

More memory never makes the choice slower: it only adds settings to choose from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pronk.model.memory.costs import Costs, EvaluationLoad, Load
from pronk.model.rounding import Shape

# Tokens of a micro-batch that are tried; never below the longest example.
BUDGETS = (1024, 2048, 4096, 8192, 16384, 32768)
# The most exact first; where two are equally fast, the more exact is taken.
EXACTNESS = ("none", "fp8", "int8", "nf4")
# An evaluation may take as much as training, or this share of the memory: large batches answer sooner.
EVALUATION_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Workload:
    """A study's training under one token budget. largest: the micro-batches that may be the peak; batches, tokens,
    pairs: of all rounds, estimated from some of them. sequence: all micro-batches in their order, with the shapes that
    they would be recorded in; empty where there are too many to know."""

    budget: int
    largest: tuple[Load, ...]
    batches: float
    tokens: float
    pairs: float = 0.0
    sequence: tuple[tuple[Shape, Load], ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What a fleet has to do. examples_tokens: of all examples, as they are counted in tokens a second.

    evaluations, validations: tokens of a batch, by rising size, and the loads of the largest ones, of which an
    evaluation has one for each way that items go through the model; empty without rows.
    """

    trainings: tuple[Workload, ...]
    evaluations: tuple[tuple[int, tuple[EvaluationLoad, ...]], ...]
    rounds: int
    example_tokens: float
    validations: tuple[tuple[int, EvaluationLoad], ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """How a fleet may be trained, and what that is predicted to take. cost: seconds of training where `measured`,
    else FLOPs. evaluation_tokens, validation_tokens: of a batch; None where nothing is evaluated."""

    quantize: str
    budget: int
    recompute: int
    layers: int
    peak: int
    cost: float
    measured: bool
    tokens_per_second: float | None
    evaluation_tokens: int | None
    validation_tokens: int | None = None

    @property
    def rank(self) -> tuple[float, int, int, int]:
        """Smaller is better: fast, then exact, then small."""
        inexact = [number for number, name in enumerate(EXACTNESS) if self.quantize.startswith(name)]
        return self.cost, inexact[0] if inexact else len(EXACTNESS), self.peak, self.budget


def settings(costs: Mapping[str, Costs], work: Work, recompute: str | int, limit: int) -> list[Setting]:
    """Every setting that may be chosen, whether it fits or not.

    costs: by how the base is quantized. recompute: the recipe's; auto tries every number of layers. limit: bytes.
    """
    return [
        _setting(quantize, figures, workload, layers, work, limit)
        for quantize, figures in costs.items()
        for workload in work.trainings
        for layers in recomputed(recompute, figures.layers)
    ]


def recomputed(recompute: str | int, layers: int) -> Sequence[int]:
    """How many layers may be recomputed."""
    if recompute == "auto":
        return range(layers + 1)
    return [{"none": 0, "all": layers}[recompute] if isinstance(recompute, str) else min(recompute, layers)]


def fitting(among: Iterable[Setting], limit: int) -> list[Setting]:
    """The settings that fit into so many bytes."""
    return [setting for setting in among if setting.peak <= limit]


def best(among: Iterable[Setting], limit: int) -> Setting | None:
    """The fastest setting that fits; None if none does."""
    return min(fitting(among, limit), key=lambda setting: setting.rank, default=None)


def smallest(among: Iterable[Setting]) -> Setting:
    """The setting that takes the least memory, the fastest of them where several do."""
    return min(among, key=lambda setting: (setting.peak, *setting.rank))


def alternatives(among: Sequence[Setting], limit: int) -> list[Setting]:
    """Of each quantization and token budget the best that fits, or what comes nearest to fitting."""
    groups: dict[tuple[str, int], list[Setting]] = {}
    for setting in among:
        groups.setdefault((setting.quantize, setting.budget), []).append(setting)
    return [best(group, limit) or smallest(group) for group in groups.values()]


def _setting(quantize: str, costs: Costs, workload: Workload, recompute: int, work: Work, limit: int) -> Setting:
    training = max(costs.loading_peak(), costs.training_peak(workload.largest, recompute, workload.sequence))
    room = max(training, EVALUATION_SHARE * limit)
    evaluations = [(tokens, max(map(costs.evaluation_peak, loads))) for tokens, loads in work.evaluations]
    evaluation = _largest(evaluations, room)
    recordings = costs.recordings(workload.largest, recompute, workload.sequence)
    validations = [(tokens, costs.validation_peak(load, recordings)) for tokens, load in work.validations]
    validation = _largest(validations, room)
    cost = costs.batch_cost(workload.batches, workload.tokens, workload.pairs, recompute)
    cost += work.rounds * costs.times.update
    measured = costs.times.measured
    speed = work.example_tokens / cost if measured and cost else None
    peak = max(training, evaluation[1], validation[1])
    return Setting(
        quantize, workload.budget, recompute, costs.layers, peak, cost, measured, speed, evaluation[0], validation[0]
    )


def _largest(peaks: list[tuple[int, int]], room: float) -> tuple[int | None, int]:
    """The largest batch that stays within the room, or the smallest where none does: its tokens and its peak."""
    if not peaks:
        return None, 0
    return max((one for one in peaks if one[1] <= room), default=min(peaks))
