"""A few seconds of measurement that tell what a whole fleet will take on this GPU.

A model of the base's shape with one layer, then with two, and random weights gets the fleet's real adapters and
plays real micro-batches of at most a quarter of the largest. model/memory/fit.py makes the planner's model of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pronk.doctor.workload import load_of
from pronk.model.forward import evaluation_losses, output_head, to_device, training_loss
from pronk.model.loss import weighted_loss
from pronk.model.memory.fit import Measurements, Played, Resting
from pronk.model.memory.sizes import release
from pronk.model.random_model import random_model
from pronk.model.recompute import Recompute
from pronk.recipe import Quantize
from pronk.tokens.pack import Member, MicroBatch, pack
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan

LAYERS = (1, 2)
MOST_TOKENS, LEAST_TOKENS = 4096, 64
LOSS_TARGETS = (128, 512)
SHORT = 32  # tokens of the examples with which a round is timed
REPEATS = 3


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
        found = []
        for _ in range(1 + REPEATS):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - started)
        return min(found[1:])

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.gpu:
            torch.cuda.synchronize(self.device)


def measure(bench: Bench, plans: Sequence[RunPlan], largest: int, meter: Meter | None = None) -> Measurements:
    """Measure one and two layers. largest: tokens of the largest micro-batch that will be asked about."""
    meter = meter or Meter(bench.device)
    tokens = max(LEAST_TOKENS, min(MOST_TOKENS, largest // 4))
    batches = samples(plans, tokens)
    resting, played, updates = [], [], []
    loss: list[tuple[int, int]] = []
    reading: list[tuple[int, int]] = []
    _warm(bench, plans, batches)
    floor = meter.settle()
    for layers in LAYERS:
        before = meter.settle()
        model = bench.model(layers)
        base = meter.settle() - before
        fleet = Fleet(model, [_brief(plan) for plan in plans], tokens)
        fleet.accumulate.records = False
        fleet.play_round()  # some optimizers make their moments with the first step
        resting.append(Resting(layers, base, meter.settle() - before))
        updates.append(_update(fleet, meter))
        for recompute in (0, layers):
            fleet.accumulate.records = bench.records and not recompute
            switched = Recompute(model, recompute)
            played += [_play(fleet, switched, batch, meter) for batch in batches]
        Recompute(model, 0)
        if layers == LAYERS[0]:
            loss = [_loss(model, count, meter) for count in LOSS_TARGETS]
            reading = [_read(fleet, batches[-1], meter)]
        del fleet, model, switched
    floor = max(floor, meter.settle())  # recordings leave workspaces of their own
    return Measurements(floor, resting, played, loss, reading, updates)


def _warm(bench: Bench, plans: Sequence[RunPlan], batches: Sequence[MicroBatch]) -> None:
    """Play everything once: what libraries then keep for themselves is no part of any layer."""
    fleet = Fleet(bench.model(1), [_brief(plan) for plan in plans], MOST_TOKENS)
    fleet.accumulate.records = False
    fleet.play_round()
    for batch in batches:
        fleet.accumulate(batch)


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


def _loss(model: Any, count: int, meter: Meter) -> tuple[int, int]:
    """Targets, and most bytes that their logits and all that comes of them take."""
    head_VD = output_head(model).detach()  # where it is trained, its gradient is no part of a target
    hidden_ND = torch.zeros(count, head_VD.shape[1], dtype=head_VD.dtype, device=head_VD.device, requires_grad=True)
    targets_N = torch.zeros(count, dtype=torch.int64, device=head_VD.device)
    weights_N = torch.ones(count, dtype=torch.promote_types(head_VD.dtype, torch.float32), device=head_VD.device)
    before = meter.settle()
    weighted_loss(hidden_ND, head_VD, targets_N, weights_N)
    return count, meter.peaks()[0] - before


def _read(fleet: Fleet, batch: MicroBatch, meter: Meter) -> tuple[int, int]:
    """Tokens, and most bytes of a forward pass that keeps nothing for a gradient."""
    step = fleet.accumulate
    before = meter.settle()
    evaluation_losses(step.model, step.adapter, batch)
    return len(batch.ids_T), meter.peaks()[0] - before
