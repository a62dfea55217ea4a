"""The training loop. In a round every unfinished run makes one optimizer step over its own examples.

All runs' sequences of a round are packed together; each target token counts 1 / (target tokens of
its run's batch), so a run's loss is Σ / count over its own batch, however the round is cut.
No run can hurt another: a round in which a run's loss or gradient is not finite is thrown away and
played again without that run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pronk.model.adapter import AdapterShape, attach
from pronk.model.forward import SlotDropout
from pronk.model.recompute import Recompute
from pronk.model.step import GradientStep
from pronk.model.whole import Trainable, WholeModel
from pronk.tokens.pack import Member, MicroBatch, pack
from pronk.tokens.prompt import Example
from pronk.train.optimizer import FleetOptimizer, FusedRun, RunOptimizer, Settings
from pronk.train.order import batch_indices
from pronk.train.schedule import rate_factor


@dataclass(frozen=True, slots=True)
class RunPlan:
    """All that the fleet needs to know of a run, in plain values. shape: None trains the whole model."""

    name: str
    examples: Sequence[Example]
    shape: AdapterShape | None
    steps: int
    batch_size: int
    learning_rate: float
    optimizer: str = "adamw"
    schedule: str = "constant"
    warmup_steps: int = 0
    lora_plus_ratio: float = 1.0
    weight_decay: float = 0.0
    clip: float | None = 1.0
    dropout: float = 0.0
    seed: int = 42
    start: Mapping[str, Tensor] | None = None  # an adapter to go on with, in PEFT's names


@dataclass(frozen=True, slots=True)
class Step:
    """What one run did in a round. loss: nats per target token of its batch, before the update."""

    slot: int
    number: int  # from 1
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int


@dataclass(slots=True)
class RunState:
    """Where a run is. error: why it was taken out of the fleet; ended: it stopped before its last step."""

    plan: RunPlan
    optimizer: FusedRun | RunOptimizer | None
    step: int = 0
    error: str = ""
    ended: bool = False

    @property
    def running(self) -> bool:
        return not self.error and not self.ended and self.step < self.plan.steps


@dataclass(frozen=True, slots=True)
class _Round:
    """What a round's losses and gradient norms were, by slot, and the largest weights after its update."""

    losses: dict[int, float]
    norms: dict[int, float]
    largest: dict[int, float]

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, [*self.losses.values(), *self.norms.values()]))


@dataclass(frozen=True, slots=True)
class _Work:
    """A round's micro-batches, and how many tokens are each run's. steps: the step of each run, by slot."""

    steps: dict[int, int]
    batches: list[MicroBatch]
    tokens: dict[int, int]


class Fleet:
    """Runs that train together over one frozen base model, or one run that trains the model itself.

    recompute: how many layers, or none or all.
    """

    def __init__(self, model: Any, plans: Sequence[RunPlan], token_budget: int, recompute: int | str = "none") -> None:
        self.model, self.token_budget = model, token_budget
        self.adapter = _trainable(model, plans)
        self._optimizer = FleetOptimizer(self.adapter, [_settings(plan) for plan in plans])
        self._largest = torch.finfo(next(model.parameters()).dtype).max  # more would be infinite in a product
        self._dropout = _dropout(plans, self._optimizer.gradients.device)
        self._accumulate = GradientStep(model, self.adapter, self._dropout, len(plans))
        self._next: _Work | None = None
        self._recompute = Recompute(model, recompute)
        if self._recompute.layers:
            self._accumulate.records = False  # a recording would hold on to the memory that this is to save
        self.runs = []
        self.adapter.initialize({slot: plan.seed for slot, plan in enumerate(plans)})
        for slot, plan in enumerate(plans):
            if plan.start is not None:
                self.adapter.load(slot, plan.start)
            self.runs.append(RunState(plan, self._optimizer.runs[slot]))

    @property
    def accumulate(self) -> GradientStep:
        """Forward and backward of one micro-batch, as every round calls it; what a measurement looks at."""
        return self._accumulate

    def train(self, after_round: Callable[[list[Step]], None] = lambda _: None) -> None:
        """Play rounds until every run has ended or failed."""
        while any(run.running for run in self.runs):
            after_round(self.play_round())

    def play_round(self) -> list[Step]:
        """One optimizer step for every unfinished run; runs that break are taken out, with their reason."""
        while active := self._running():
            work, scale = self._work(active), self._accumulate.loss_scale
            played = self._play(work)
            while not played.finite and self._accumulate.loss_scale > 1:  # fp16 overflows: no run's fault yet
                self._accumulate.loss_scale /= 2
                played = self._play(work)
            broken = self._broken(active, played)
            if not broken:
                return self._stepped(work, played)
            self._accumulate.loss_scale = scale  # a smaller one did not help
            for slot, reason in broken.items():
                self._take_out(slot, reason)
        return []

    def end(self, slot: int) -> None:
        """Let a run stop here, between two rounds: the others go on as if it had been planned so long."""
        self.runs[slot].ended = True

    def _play(self, work: _Work) -> _Round:
        """Gradients, and an update if losses and norms are finite: decided on the device, told to the host once."""
        norms_K = self._compute_gradients(work)
        largest_K = self._optimizer.update(self._factors(work.steps), self._accumulate.losses_K, norms_K)
        self.adapter.settle()
        self._look_ahead(work.steps)  # while the device is at work
        # the one wait for the device in a round: everything that must be known on the host
        numbers = torch.stack([self._accumulate.losses_K, norms_K, largest_K]).tolist()
        return _Round(*({slot: row[slot] for slot in work.steps} for row in numbers))

    def _running(self) -> dict[int, int]:
        """The unfinished runs: their steps so far, by slot."""
        return {slot: run.step for slot, run in enumerate(self.runs) if run.running}

    def _factors(self, steps: Mapping[int, int]) -> dict[int, float]:
        """The share of its peak learning rate that each run's update takes."""
        plans = {slot: self.runs[slot].plan for slot in steps}
        return {
            slot: rate_factor(plan.schedule, steps[slot], plan.steps, plan.warmup_steps) for slot, plan in plans.items()
        }

    def _compute_gradients(self, work: _Work) -> Tensor:
        """Gradients and losses of a round, on the device; the gradient norms of all runs (K)."""
        self._optimizer.gradients.zero_()
        self._accumulate.losses_K.zero_()
        if self._dropout is not None:
            self._dropout.steps.copy_(torch.tensor([run.step for run in self.runs]))
        for batch in work.batches:
            with self._recompute:
                self._accumulate(batch)
        self._accumulate.take_out_scale(self._optimizer.gradients, self._accumulate.losses_K)
        return self._optimizer.norms()

    def _work(self, steps: dict[int, int]) -> _Work:
        """The micro-batches of a round: made ahead, or, where another round was expected, now."""
        made, self._next = self._next, None
        return made if made is not None and made.steps == steps else self._packed(steps)

    def _look_ahead(self, steps: Mapping[int, int]) -> None:
        """Pack the next round, as it will be if nothing happens to any run."""
        coming = {slot: step + 1 for slot, step in steps.items() if step + 1 < self.runs[slot].plan.steps}
        self._next = self._packed(coming) if coming else None

    def _packed(self, steps: dict[int, int]) -> _Work:
        members, tokens = [], {}
        for slot, step in steps.items():
            plan = self.runs[slot].plan
            chosen = batch_indices(len(plan.examples), plan.batch_size, plan.seed, step)
            examples = [plan.examples[index] for index in chosen]
            weight = 1 / sum(int(example.target.sum()) for example in examples)
            keys = chosen if plan.dropout else [None] * len(chosen)
            members += [Member(example, slot, weight, key) for example, key in zip(examples, keys, strict=True)]
            tokens[slot] = sum(len(example.ids) for example in examples)
        return _Work(steps, pack(members, self.token_budget), tokens)

    def _broken(self, steps: Mapping[int, int], played: _Round) -> dict[int, str]:
        """The runs whose loss or gradient is not finite. Losses tell runs apart; gradients need not:
        in one product a single NaN reaches the rows of every run, so each is then tried alone."""
        broken = {
            slot: f"the loss became {played.losses[slot]} at step {step + 1}"
            for slot, step in steps.items()
            if not math.isfinite(played.losses[slot])
        }
        if broken or all(math.isfinite(norm) for norm in played.norms.values()):
            return broken
        alone = {slot: self._compute_gradients(self._packed({slot: step}))[slot].item() for slot, step in steps.items()}
        broken = {
            slot: f"the gradient norm became {norm} at step {steps[slot] + 1}"
            for slot, norm in alone.items()
            if not math.isfinite(norm)
        }
        return broken or dict.fromkeys(steps, "the gradient of the round was not finite, though each run's alone was")

    def _stepped(self, work: _Work, played: _Round) -> list[Step]:
        """The round's update was made. Runs whose weights it broke are taken out."""
        self._optimizer.confirm(list(work.steps))
        steps = []
        for slot, factor in self._factors(work.steps).items():
            run, weight = self.runs[slot], played.largest[slot]
            run.step += 1
            if not weight <= self._largest:  # NaN too
                self._take_out(slot, f"the weights became {weight} at step {run.step}")
                continue
            rate = run.plan.learning_rate * factor
            steps.append(Step(slot, run.step, played.losses[slot], rate, played.norms[slot], work.tokens[slot]))
        return steps

    def _take_out(self, slot: int, reason: str) -> None:
        self.runs[slot].error = f"{reason}; a lower learning rate or clipping may help"
        self.runs[slot].optimizer = None
        self.adapter.clear(slot)


def _trainable(model: Any, plans: Sequence[RunPlan]) -> Trainable:
    shapes = [plan.shape for plan in plans if plan.shape is not None]
    if shapes:
        assert len(shapes) == len(plans), "a run that trains the whole model has a fleet of its own"
        return attach(model, shapes)
    assert len(plans) == 1, "a run that trains the whole model has a fleet of its own"
    return WholeModel(model)


def _settings(plan: RunPlan) -> Settings:
    return Settings(plan.learning_rate, plan.weight_decay, plan.clip, plan.lora_plus_ratio, plan.optimizer)


def _dropout(plans: Sequence[RunPlan], device: torch.device) -> SlotDropout | None:
    if not any(plan.dropout for plan in plans):
        return None
    seeds = torch.tensor([plan.seed for plan in plans], device=device)
    shares = torch.tensor([plan.dropout for plan in plans], device=device)
    return SlotDropout(seeds, torch.zeros_like(seeds), shares)


def optimizer_tensors(run: RunState) -> dict[str, Tensor]:
    """What a run needs besides its adapter to go on: moments, and the counters that all randomness hangs on."""
    assert run.optimizer is not None
    counters = {"random.seed": torch.tensor(run.plan.seed), "random.step": torch.tensor(run.step)}
    return {**run.optimizer.state(), **counters}
