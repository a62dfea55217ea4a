"""A few seconds of measurement that tell what a whole fleet will take on this GPU.

A model of the base's shape with one layer, then with two, and random weights gets the fleet's real adapters and
plays micro-batches as large as a quarter of the memory holds. model/memory/fit.py makes the planner's model of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pronk.doctor.workload import load_of
from pronk.model.adapter import attach
from pronk.model.forward import evaluation_losses, output_head, to_device, training_loss
from pronk.model.loss import target_losses, weighted_loss
from pronk.model.memory.costs import Costs, EvaluationLoad, Load
from pronk.model.memory.fit import Measurements, Played, Read, Resting
from pronk.model.memory.sizes import quick_release, release
from pronk.model.random_model import random_model
from pronk.model.recompute import Recompute
from pronk.recipe import Quantize
from pronk.tokens.pack import Member, MicroBatch, pack
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan

LAYERS = (1, 2)
# Tokens of a micro-batch that is measured: never fewer, and never more, even if there is room; and of the largest that
# is asked about this share, even if there is none.
LEAST_TOKENS, MOST_TOKENS, LEAST_SHARE = 64, 8192, 1 / 4
MEMORY_SHARE = 1 / 4  # of what may be reserved, for a measurement
LOSS_TARGETS = 512
SHORT = 32  # tokens of the examples with which a round is timed
REPEATS, ENOUGH_SECONDS = 3, 0.05  # a time is the shortest of so many, or of as many as take so long


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured: a base's configuration, how it is kept, and where. records: whether steps are recorded."""

    config: Any
    quantize: Quantize
    double: bool
    dtype: torch.dtype
    device: torch.device
    records: bool
    fp8_products: bool = False

    def model(self, layers: int) -> Any:
        """So many layers of the base, with random weights."""
        return random_model(self.config, layers, self.dtype, self.device, self.quantize, self.double, self.fp8_products)


class Meter:
    """Memory of a device in bytes; zeros on a CPU, where only the time is measured."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.gpu = device, device.type == "cuda"

    def settle(self) -> int:
        """Give back what nothing uses, begin to count, and say what is in use."""
        self.wait()
        release(self.device)
        return self.begin()

    def begin(self) -> int:
        """Count the peak from here."""
        if not self.gpu:
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return int(torch.cuda.memory_allocated(self.device))

    def peaks(self) -> tuple[int, int]:
        """Most in use, and most reserved."""
        if not self.gpu:
            return 0, 0
        return int(torch.cuda.max_memory_allocated(self.device)), int(torch.cuda.max_memory_reserved(self.device))

    def in_use(self) -> int:
        """Bytes now."""
        return int(torch.cuda.memory_allocated(self.device)) if self.gpu else 0

    def seconds(self, work: Callable[[], Any]) -> float:
        """The shortest of some repeats, after one that is not counted."""
        work()
        found: list[float] = []
        while len(found) < REPEATS and sum(found) < ENOUGH_SECONDS:
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - started)
        return min(found)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.gpu:
            torch.cuda.synchronize(self.device)


def calibration_tokens(costs: Costs, load: Load, memory: int) -> int:
    """Tokens of the largest micro-batch to be measured: those of `load`, the largest that will be asked about, where
    two layers take no more than a share of so many bytes of memory by these costs, else fewer."""
    two = replace(costs, layers=2, trained=2 * costs.trained / costs.layers)
    tokens = max(LEAST_TOKENS, min(MOST_TOKENS, load.tokens))
    least = max(LEAST_TOKENS, min(MOST_TOKENS, int(LEAST_SHARE * load.tokens)))
    while tokens > least:
        share = tokens / load.tokens
        one = Load(tokens, int(share * load.targets), int(share * load.seen))
        if two.training_peak([one, one], 0) <= MEMORY_SHARE * memory:
            break
        tokens = max(least, tokens // 2)
    return tokens


def reading_tokens(costs: Costs, evaluations: Sequence[int], memory: int) -> int:
    """Tokens of the largest batch to be read for an evaluation: a share of the largest that is asked about, where two
    layers take no more than a share of so many bytes of memory by these costs. evaluations: tokens of their batches.

    Gaps grow with it, in pages: what is guessed from a small batch is guessed far too coarsely.
    """
    two = replace(costs, layers=2, adapters=2 * costs.adapters / costs.layers)
    tokens = int(LEAST_SHARE * max(evaluations, default=0))
    while tokens > LEAST_TOKENS and two.evaluation_peak(EvaluationLoad(tokens, 1)) > MEMORY_SHARE * memory:
        tokens //= 2
    return tokens


def measure(
    bench: Bench, plans: Sequence[RunPlan], tokens: int, reading: int, meter: Meter | None = None
) -> Measurements:
    """Measure one and two layers. tokens: of the largest micro-batch that is played; reading: of one that is only read,
    where that is larger."""
    meter = meter or Meter(bench.device)
    batches = samples(plans, tokens)
    readings = [_few_targets(one) for one in batches[:2]]
    if reading > tokens:
        readings.append(_few_targets(_sample(plans, reading)))
    found: list[_Measured] = []
    floor = 0
    with quick_release():
        for layers in LAYERS:
            found.append(_layers(bench, layers, plans, batches, readings, meter))
            floor = meter.settle()  # what libraries keep for themselves once they were used is no part of any layer
    first = found[0]
    return Measurements(
        floor,
        [Resting(one.layers, one.model, one.alive - floor, one.adapters) for one in found],
        [played for one in found for played in one.played],
        *first.losses, first.reading, [one.update for one in found],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Measured:
    """Of so many layers. model: bytes of the base; alive: bytes with all that training holds, and all else; adapters:
    bytes that an evaluation holds beside the base."""

    layers: int
    model: int
    alive: int
    adapters: int
    played: list[Played]
    update: float
    losses: tuple[tuple[int, int], tuple[int, int]]
    reading: list[Read]


def _layers(
    bench: Bench, layers: int, plans: Sequence[RunPlan], batches: Sequence[MicroBatch],
    readings: Sequence[MicroBatch], meter: Meter,
) -> _Measured:  # fmt: skip
    before = meter.settle()
    model = bench.model(layers)
    base = meter.settle() - before
    fleet = Fleet(model, [_brief(plan) for plan in plans], len(batches[0].ids_T))
    fleet.accumulate.records = False
    fleet.play_round()  # some optimizers make their moments with the first step
    update, played = _update(fleet, meter), []
    for recompute in (0, layers):
        fleet.accumulate.records = bench.records and not recompute
        switched = Recompute(model, recompute)
        played += [_play(fleet, switched, batch, meter) for batch in batches]
    alive, losses = meter.settle(), _losses(model, LOSS_TARGETS, meter)
    fleet.adapter.detach()
    del fleet, switched
    adapters, reading = _evaluation(model, plans, readings, meter)
    return _Measured(layers, base, alive, adapters, played, update, losses, reading)


def samples(plans: Sequence[RunPlan], tokens: int) -> list[MicroBatch]:
    """Micro-batches of the fleet's own examples, of half and all of so many tokens; and one of a single sequence,
    which tells what attention and beginnings in common cost."""
    vocabulary = max(int(plan.examples[0].ids.max()) for plan in plans) + 1
    ids = np.random.default_rng(0).integers(0, vocabulary, tokens + 1)
    single = Member(Example(ids, np.arange(tokens + 1) > tokens - 8), 0, key=0)
    return [_sample(plans, tokens // 2), _sample(plans, tokens), *pack([single], tokens)]


def _sample(plans: Sequence[RunPlan], tokens: int) -> MicroBatch:
    """One micro-batch: examples of all runs by turns, until there are so many tokens; long ones cut at the front."""
    members: list[Member] = []
    number, left = 0, tokens
    while left > 8 or not members:
        plan, slot = plans[number % len(plans)], number % len(plans)
        index = number // len(plans) % len(plan.examples)
        example = plan.examples[index]
        kept = min(len(example.ids), left + 1)
        cut = replace(example, ids=example.ids[-kept:], target=example.target[-kept:])
        members.append(Member(cut, slot, key=index if plan.dropout else None))
        left -= kept - 1
        number += 1
    (batch,) = pack(members, tokens)
    return batch


def _brief(plan: RunPlan) -> RunPlan:
    """A run whose steps are one short example each, that never ends while it is measured."""
    example = plan.examples[0]
    short = replace(example, ids=example.ids[-SHORT:], target=example.target[-SHORT:])
    return replace(plan, examples=[short], batch_size=1, steps=10**6, warmup_steps=0, start=None)


def _play(fleet: Fleet, recompute: Recompute, batch: MicroBatch, meter: Meter) -> Played:
    step = fleet.accumulate
    with recompute:
        moved = to_device(batch, step.device, step.precision)
        if step.records:
            step(batch)  # seen once; the next time it is recorded
        seconds = meter.seconds(lambda: step(batch))
        step.forget()
        resting = meter.settle()
        total, _ = training_loss(step.model, step.adapter, moved, step.dropout)
        stored = meter.in_use()
        forward, _ = meter.peaks()
        meter.begin()
        total.backward()
        backward, reserved = meter.peaks()
    peak = max(forward, backward)
    return Played(
        step.model.config.num_hidden_layers, len(recompute.layers), load_of(batch), stored - resting,
        backward - resting, peak - resting, reserved - resting, seconds,
    )  # fmt: skip


def _update(fleet: Fleet, meter: Meter) -> float:
    """Seconds of a round beside its micro-batch."""
    members = [Member(run.plan.examples[0], slot) for slot, run in enumerate(fleet.runs)]
    (batch,) = pack(members, sum(len(member.example.ids) for member in members))
    return max(meter.seconds(fleet.play_round) - meter.seconds(lambda: fleet.accumulate(batch)), 0.0)


def _losses(model: Any, count: int, meter: Meter) -> tuple[tuple[int, int], tuple[int, int]]:
    """Targets, and most bytes that their logits and all that comes of them take: with a gradient, and without."""
    head_VD = output_head(model).detach()  # where it is trained, its gradient is no part of a target
    hidden_ND = torch.zeros(count, head_VD.shape[1], dtype=head_VD.dtype, device=head_VD.device, requires_grad=True)
    targets_N = torch.zeros(count, dtype=torch.int64, device=head_VD.device)
    weights_N = torch.ones(count, dtype=torch.promote_types(head_VD.dtype, torch.float32), device=head_VD.device)
    before = meter.settle()
    weighted_loss(hidden_ND, head_VD, targets_N, weights_N)
    training = meter.peaks()[0] - before
    before = meter.settle()
    with torch.no_grad():
        target_losses(hidden_ND, head_VD, targets_N)
    return (count, training), (count, meter.peaks()[0] - before)


def _evaluation(
    model: Any, plans: Sequence[RunPlan], batches: Sequence[MicroBatch], meter: Meter
) -> tuple[int, list[Read]]:
    """What an evaluation holds beside the model, and its forward passes, by which nothing is kept for a gradient."""
    alone = meter.settle()
    adapter = attach(model, [plan.shape for plan in plans if plan.shape is not None])
    evaluation_losses(model, adapter, batches[0])  # what is there from the first time on
    held, found = meter.settle(), []
    for batch in batches:
        evaluation_losses(model, adapter, batch)
        meter.settle()  # of its own size, as the batch before it mostly is
        evaluation_losses(model, adapter, batch)
        peak, reserved = meter.peaks()
        found.append(Read(len(batch.ids_T), peak - held, reserved - held))
    adapter.detach()
    return held - alone, found


def _few_targets(batch: MicroBatch) -> MicroBatch:
    """The same tokens with as few targets as there can be, so that layers take the most and not the logits, of which no
    more than a chunk is ever there."""
    names = ("rows_N", "targets_N", "weights_N", "members_N")
    return replace(batch, **{name: getattr(batch, name)[:1] for name in names})
