"""What happens beside training: metrics, validation, checkpoints and the snapshots that become runs.

A trained run may stand for several runs of the study (its prefixes); what it does at a step is
recorded for each of those that reach that far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pronk.runs import RunFolder, write_folder
from pronk.train.checkpoint import WeightFiles, save_checkpoint
from pronk.train.fleet import Fleet, Step, optimizer_tensors
from pronk.train.order import steps_per_epoch
from pronk.train.progress import Work
from pronk.train.trackers import TensorBoard

Every = int | str  # steps, or "epoch"


@dataclass(frozen=True, slots=True)
class Ending:
    """A run of the study: it is its trained run as it stands after so many steps."""

    step: int
    folder: RunFolder


@dataclass(slots=True)
class Journal:
    """Plans for one trained run, and what it has used so far."""

    endings: Sequence[Ending]  # by rising step
    files: WeightFiles
    evaluate_every: Every
    save_every: Every
    save_extras: Callable[[Any], None]  # writes the tokenizer beside an adapter
    tokens: int = 0
    seconds: float = 0.0
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    adapters: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Recorder:
    """Called after every round of a fleet."""

    def __init__(
        self, fleet: Fleet, journals: Sequence[Journal],
        validate: Callable[[Sequence[int]], dict[int, tuple[float, int]]] | None, work: Work,
    ) -> None:  # fmt: skip
        self.fleet, self.journals, self.work = fleet, journals, work
        self._validate = validate
        self._boards = {
            end.folder.name: TensorBoard(end.folder.path / "tensorboard") for j in journals for end in j.endings
        }
        self._told: set[int] = set()
        self._clock = time.perf_counter()

    def after_round(self, steps: Sequence[Step]) -> None:
        """Record a round: its cost, its losses, and whatever is due at the steps reached."""
        seconds = time.perf_counter() - self._clock
        everything = sum(step.tokens for step in steps)
        for step in steps:
            journal = self.journals[step.slot]
            journal.tokens += step.tokens
            journal.seconds += seconds * step.tokens / everything
            self._log(step.slot, step.number, kind="train", loss=step.loss, learning_rate=step.learning_rate,
                      gradient_norm=step.gradient_norm, tokens=step.tokens)  # fmt: skip
        if steps:
            loss = sum(step.loss for step in steps) / len(steps)
            self.work.advance(len(steps), f"loss {loss:.3f}  {everything / seconds:,.0f} tokens/s")
        self._tell_failures()
        self._evaluate([step for step in steps if self._due(step, self.journals[step.slot].evaluate_every)])
        for step in steps:
            self._save(step)
        self._clock = time.perf_counter()

    def save_all(self) -> None:
        """Checkpoints of all unfinished runs, for an interruption."""
        for slot, run in enumerate(self.fleet.runs):
            if run.running and run.step:
                self._checkpoint(slot, run.step)

    def close(self) -> None:
        for board in self._boards.values():
            board.close()

    def _evaluate(self, steps: Sequence[Step]) -> None:
        if not steps or self._validate is None:
            return
        for slot, (loss, tokens) in self._validate([step.slot for step in steps]).items():
            step = self.fleet.runs[slot].step
            self._log(slot, step, kind="validation", loss=loss, tokens=tokens)
            name = self.fleet.runs[slot].plan.name
            self.work.say(f"  {name}: epoch {self._epoch(slot, step):.2f}, validation loss {loss:.4f}")

    def _save(self, step: Step) -> None:
        journal = self.journals[step.slot]
        if self._due(step, journal.save_every):
            self._checkpoint(step.slot, step.number)
        for end in journal.endings:
            if end.step == step.number:
                state = self.fleet.adapter.state(step.slot)
                journal.adapters[end.folder.name] = state
                journal.costs[end.folder.name] = {
                    "steps": step.number, "train_tokens": journal.tokens, "train_seconds": journal.seconds,
                }  # fmt: skip
                write_folder(end.folder.path / journal.files.place, partial(self._write_weights, journal, state))

    def _write_weights(self, journal: Journal, state: dict[str, Tensor], path: Path) -> None:
        journal.files.save(path, state)
        journal.save_extras(path)

    def _checkpoint(self, slot: int, step: int) -> None:
        journal, run = self.journals[slot], self.fleet.runs[slot]
        adapter, optimizer = self.fleet.adapter.state(slot), optimizer_tensors(run)
        write_folder(
            journal.endings[-1].folder.checkpoint(step),
            lambda path: save_checkpoint(path, journal.files, adapter, optimizer),
        )

    def _due(self, step: Step, every: Every) -> bool:
        plan = self.fleet.runs[step.slot].plan
        length = steps_per_epoch(len(plan.examples), plan.batch_size) if every == "epoch" else int(every)
        return step.number % length == 0 or step.number == plan.steps

    def _epoch(self, slot: int, step: int) -> float:
        plan = self.fleet.runs[slot].plan
        return step / steps_per_epoch(len(plan.examples), plan.batch_size)

    def _log(self, slot: int, step: int, **record: Any) -> None:
        record = {"kind": record.pop("kind"), "step": step, "epoch": self._epoch(slot, step), **record}
        for end in self.journals[slot].endings:
            if step <= end.step:
                end.folder.log(record)
                self._boards[end.folder.name].log(record)

    def _tell_failures(self) -> None:
        for slot, run in enumerate(self.fleet.runs):
            if run.error and slot not in self._told:
                self._told.add(slot)
                left = run.plan.steps - run.step
                self.work.advance(left)
                self.work.say(f"  {run.plan.name} was taken out: {run.error}")
