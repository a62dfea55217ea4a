"""The training loop. In a round every unfinished run makes one optimizer step over its own examples.

All runs' sequences of a round are packed together; each target token counts 1 / (target tokens of
its run's batch), so a run's loss is Σ / count over its own batch, however the round is cut.
No run can hurt another: a round in which a run's loss or gradient is not finite is thrown away and
played again without that run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from pronk.train.optimizer import RunOptimizer, allocate_gradients
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
    optimizer: RunOptimizer | None
    step: int = 0
    error: str = ""
    ended: bool = False

    @property
    def running(self) -> bool:
        return not self.error and not self.ended and self.step < self.plan.steps


@dataclass(slots=True)
class _Round:
    """Gradients of a round are in place; these are the losses and norms that came with them."""

    losses: dict[int, float]
    norms: dict[int, float]
    tokens: dict[int, int] = field(default_factory=dict)


class Fleet:
    """Runs that train together over one frozen base model, or one run that trains the model itself.

    recompute: how many layers, or none or all.
    """

    def __init__(self, model: Any, plans: Sequence[RunPlan], token_budget: int, recompute: int | str = "none") -> None:
        self.model, self.token_budget = model, token_budget
        self.adapter = _trainable(model, plans)
        self._gradients = allocate_gradients(self.adapter)
        self._largest = torch.finfo(next(model.parameters()).dtype).max  # more would be infinite in a product
        self._dropout = _dropout(plans, self._gradients.device)
        self._accumulate = GradientStep(model, self.adapter, self._dropout)
        self._recompute = Recompute(model, recompute)
        if self._recompute.layers:
            self._accumulate.records = False  # a recording would hold on to the memory that this is to save
        self.runs = []
        for slot, plan in enumerate(plans):
            self.adapter.initialize(slot, plan.seed)
            if plan.start is not None:
                self.adapter.load(slot, plan.start)
            optimizer = RunOptimizer(
                self.adapter, slot, plan.learning_rate, plan.weight_decay, plan.clip, plan.lora_plus_ratio,
                plan.optimizer,
            )  # fmt: skip
            self.runs.append(RunState(plan, optimizer))

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
        while active := [slot for slot, run in enumerate(self.runs) if run.running]:
            played = self._compute_gradients(active)
            broken = self._broken(active, played)
            if not broken:
                return self._update(active, played)
            for slot, reason in broken.items():
                self._take_out(slot, reason)
        return []

    def end(self, slot: int) -> None:
        """Let a run stop here, between two rounds: the others go on as if it had been planned so long."""
        self.runs[slot].ended = True

    def _compute_gradients(self, slots: Sequence[int]) -> _Round:
        self._gradients.zero_()
        device, precision = self._gradients.device, self._gradients.dtype
        losses_K = torch.zeros(len(self.runs), dtype=precision, device=device)
        batches, tokens = self._batches(slots)
        if self._dropout is not None:
            self._dropout.steps.copy_(torch.tensor([run.step for run in self.runs]))
        for batch in batches:
            with self._recompute:
                losses_N, weights_N = self._accumulate(batch)
            slots_N = torch.from_numpy(batch.slots_T[batch.rows_N]).to(device)
            own_KN = slots_N == torch.arange(len(self.runs), device=device)[:, None]
            # a sum along a row has an order; index_add on a GPU has none
            losses_K += torch.where(own_KN, losses_N * weights_N, 0).sum(1)
        norms = [self._optimizer(slot).gradient_norm() for slot in slots]
        # one wait for the device in a round: everything that must be known on the host
        numbers = torch.stack([*losses_K[list(slots)], *norms]).tolist()
        losses = dict(zip(slots, numbers[: len(slots)], strict=True))
        return _Round(losses, dict(zip(slots, numbers[len(slots) :], strict=True)), tokens)

    def _batches(self, slots: Sequence[int]) -> tuple[list[MicroBatch], dict[int, int]]:
        members, tokens = [], {}
        for slot in slots:
            run = self.runs[slot]
            plan = run.plan
            chosen = batch_indices(len(plan.examples), plan.batch_size, plan.seed, run.step)
            examples = [plan.examples[index] for index in chosen]
            weight = 1 / sum(int(example.target.sum()) for example in examples)
            keys = chosen if plan.dropout else [None] * len(chosen)
            members += [Member(example, slot, weight, key) for example, key in zip(examples, keys, strict=True)]
            tokens[slot] = sum(len(example.ids) for example in examples)
        return pack(members, self.token_budget), tokens

    def _broken(self, slots: Sequence[int], played: _Round) -> dict[int, str]:
        """The runs whose loss or gradient is not finite. Losses tell runs apart; gradients need not:
        in one product a single NaN reaches the rows of every run, so each is then tried alone."""
        broken = {
            slot: f"the loss became {played.losses[slot]} at step {self.runs[slot].step + 1}"
            for slot in slots
            if not math.isfinite(played.losses[slot])
        }
        if broken or all(math.isfinite(norm) for norm in played.norms.values()):
            return broken
        alone = {slot: self._compute_gradients([slot]).norms[slot] for slot in slots}
        broken = {
            slot: f"the gradient norm became {norm} at step {self.runs[slot].step + 1}"
            for slot, norm in alone.items()
            if not math.isfinite(norm)
        }
        return broken or dict.fromkeys(slots, "the gradient of the round was not finite, though each run's alone was")

    def _update(self, slots: Sequence[int], played: _Round) -> list[Step]:
        steps, largest = [], []
        for slot in slots:
            run, plan = self.runs[slot], self.runs[slot].plan
            optimizer = self._optimizer(slot)
            factor = rate_factor(plan.schedule, run.step, plan.steps, plan.warmup_steps)
            optimizer.step(factor, self._gradients.new_tensor(played.norms[slot]))
            largest.append(optimizer.largest_weight())
            self.adapter.settle(slot)
            run.step += 1
            rate = plan.learning_rate * factor
            steps.append(Step(slot, run.step, played.losses[slot], rate, played.norms[slot], played.tokens[slot]))
        for slot, weight in zip(slots, torch.stack(largest).tolist(), strict=True):
            if not weight <= self._largest:  # NaN too
                self._take_out(slot, f"the weights became {weight} at step {self.runs[slot].step}")
        return [step for step in steps if not self.runs[step.slot].error]

    def _optimizer(self, slot: int) -> RunOptimizer:
        optimizer = self.runs[slot].optimizer
        assert optimizer is not None, "a run that was taken out has no optimizer"
        return optimizer

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
