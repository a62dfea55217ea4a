"""What happens beside training: metrics, validation, checkpoints, and the moments at which runs are done.

A trained run may stand for several runs of the study (its prefixes). Each of those is watched for itself:
what it would have seen alone is recorded for it, and it ends where it would have ended alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pronk.model.host import pin_ahead
from pronk.runs import RunFolder, remove_folder, write_folder
from pronk.train.checkpoint import WeightFiles, save_checkpoint
from pronk.train.fleet import Fleet, Step, optimizer_tensors
from pronk.train.order import steps_per_epoch
from pronk.train.progress import Work
from pronk.train.retention import superfluous
from pronk.train.stopping import Rule, Watch
from pronk.train.writer import Writer

Every = int | str  # steps, or "epoch"
CHECKPOINT_BYTES = 12  # of each weight: itself and two moments, in fp32 at most


class RowLosses(Protocol):
    """Validation row by row. loss: summed nats (rows,); tokens: target tokens (rows,)."""

    @property
    def loss(self) -> npt.NDArray[np.float64]: ...
    @property
    def tokens(self) -> npt.NDArray[np.int64]: ...


@dataclass(slots=True)
class Ending:
    """A run of the study: its trained run as it stands after so many steps, or where it stops before.

    watch: what its validation losses say. Once it is done: its adapter, the step that this is the adapter of,
    and what it has cost.
    """

    step: int
    folder: RunFolder
    watch: Watch = field(default_factory=Watch)
    adapter: dict[str, Tensor] | None = None
    adapter_step: int | None = None
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.adapter is not None


@dataclass(slots=True)
class Journal:
    """Plans for one trained run, and what it has used so far.

    rule: what to make of a validation loss; restore_best: whether a run ends as what it was at its best.
    keep: how many regular checkpoints stay. saved: steps with a checkpoint, and whether it was a regular one.
    """

    endings: Sequence[Ending]  # by rising step
    files: WeightFiles
    evaluate_every: Every
    save_every: Every
    save_extras: Callable[[Any], None]  # writes the tokenizer beside an adapter
    rule: Rule
    restore_best: bool
    keep: int | None
    tokens: int = 0
    seconds: float = 0.0
    saved: dict[int, bool] = field(default_factory=dict)

    def checkpoint(self, step: int) -> Path:
        """Checkpoints of a trained run lie with the longest of its runs."""
        return self.endings[-1].folder.checkpoint(step)

    def cost(self, steps: int) -> dict[str, float]:
        """What a run that ends now is charged with."""
        return {"steps": steps, "train_tokens": self.tokens, "train_seconds": self.seconds}


class Recorder:
    """Called after every round of a fleet.

    log: gets a run's name and each of its records, for trackers. mirror: gets the folders that have changed.
    writer: writes weights, and all that refers to them, while training goes on.
    """

    def __init__(
        self, fleet: Fleet, journals: Sequence[Journal],
        validate: Callable[[Sequence[int]], Mapping[int, RowLosses]] | None, work: Work,
        log: Callable[[str, Mapping[str, Any]], None], mirror: Callable[[Sequence[RunFolder]], None], writer: Writer,
    ) -> None:  # fmt: skip
        self.fleet, self.journals, self.work, self._writer = fleet, journals, work, writer
        self._validate, self._track, self._mirror = validate, log, mirror
        self._told: set[int] = set()
        self._clock = time.perf_counter()
        # beside the first rounds; not where rounds are recorded, as PyTorch gives pinned memory back for each recording
        if fleet.adapter.parameters[0].is_cuda and not fleet.accumulate.records:
            writer.later(partial(pin_ahead, self._buffers()))

    def after_round(self, steps: Sequence[Step]) -> None:
        """Record a round: its cost, its losses, and whatever is due at the steps reached."""
        seconds = time.perf_counter() - self._clock
        self._writer.check()
        everything = sum(step.tokens for step in steps)
        for step in steps:
            journal = self.journals[step.slot]
            journal.tokens += step.tokens
            journal.seconds += seconds * step.tokens / everything
            record = {"loss": step.loss, "learning_rate": step.learning_rate, "gradient_norm": step.gradient_norm}
            self._log(step, self._unfinished(step), {"kind": "train"}, {**record, "tokens": step.tokens})
        if steps:
            loss = sum(step.loss for step in steps) / len(steps)
            self.work.advance(len(steps), f"loss {loss:.3f}  {everything / seconds:,.0f} tokens/s")
        self._tell_failures()
        self._evaluate(steps)
        for step in steps:
            self._save(step)
        self._clock = time.perf_counter()

    def save_all(self) -> None:
        """Checkpoints of all unfinished runs, for an interruption."""
        for slot, run in enumerate(self.fleet.runs):
            if run.running and run.step:
                self._checkpoint(slot, run.step, regular=False)

    def _evaluate(self, steps: Sequence[Step]) -> None:
        """Validate the runs that are due: all of them in the same batches."""
        due = {step.slot: (step, ends) for step in steps if (ends := self._due_for_validation(step))}
        if not due or self._validate is None:
            return
        for slot, rows in self._validate(list(due)).items():
            (step, ends), journal = due[slot], self.journals[slot]
            tokens = int(rows.tokens.sum())
            loss, epoch = float(rows.loss.sum() / tokens), self._epoch(slot, step.number)
            self._log(step, ends, {"kind": "validation"}, {"loss": loss, "tokens": tokens})
            for end in ends:
                end.folder.log_validation(step.number, epoch, rows.tokens.tolist(), rows.loss.tolist())
                end.watch = journal.rule(end.watch, step.number, loss)
            name = self.fleet.runs[slot].plan.name
            self.work.say(f"  {name}: epoch {epoch:.2f}, validation loss {loss:.4f}")

    def _due_for_validation(self, step: Step) -> list[Ending]:
        """The runs that would be validated at this step if they were alone: at their own last step too."""
        every = self.journals[step.slot].evaluate_every
        return [end for end in self._unfinished(step) if self._due(step, every) or step.number == end.step]

    def _save(self, step: Step) -> None:
        """Checkpoints that are due, the best one included, and the runs that are done at this step."""
        journal, ends = self.journals[step.slot], self._unfinished(step)
        regular = self._due(step, journal.save_every) or step.number == journal.endings[-1].step
        best = [end for end in ends if end.watch.best_step == step.number]
        adapter = self._checkpoint(step.slot, step.number, regular) if regular or best else None
        for end in best:
            epoch, checkpoint = self._epoch(step.slot, step.number), journal.checkpoint(step.number)
            self._writer.later(partial(end.folder.write_best, step.number, epoch, end.watch.best_loss, checkpoint))
        self._prune(journal)
        done = [end for end in ends if end.watch.stop or end.step == step.number]
        for end in done:
            self._finish(end, step, adapter)
        if regular or best or done:
            self._writer.later(partial(self._mirror, [end.folder for end in journal.endings]))
        if all(end.done for end in journal.endings):
            self._end_early(step)

    def _finish(self, end: Ending, step: Step, adapter: dict[str, Tensor] | None) -> None:
        """A run is done: as it stands, or as it stood at its best. adapter: as it stands, if it was copied."""
        journal, best = self.journals[step.slot], end.watch.best_step
        if journal.restore_best and best is not None and best != step.number:
            self._writer.wait()
            end.adapter, end.adapter_step = journal.files.load(journal.checkpoint(best)), best
        else:
            end.adapter, end.adapter_step = adapter or self.fleet.adapter.state(step.slot), step.number
        end.cost = journal.cost(step.number)
        fill = partial(self._write_weights, journal, end.adapter)
        self._write(journal, partial(write_folder, end.folder.path / journal.files.place, fill))

    def _write(self, journal: Journal, task: Callable[[], None], size: int = 0) -> None:
        """Beside the training, where that does not touch what is being written."""
        self._writer.later(task, size)
        if not journal.files.beside_training:
            self._writer.wait()

    def _end_early(self, step: Step) -> None:
        """All that this training stands for is done; if there are steps left, they are not made."""
        run, journal = self.fleet.runs[step.slot], self.journals[step.slot]
        if not run.running:
            return
        self.fleet.end(step.slot)
        self.work.advance(run.plan.steps - step.number)
        watch = journal.endings[-1].watch
        best = "no validation loss was a number"
        if watch.best_step is not None:
            lowest = self._epoch(step.slot, watch.best_step)
            best = f"validation loss was lowest at epoch {lowest:.2f} ({watch.best_loss:.4f})"
        self.work.say(f"  {run.plan.name}: stopped at epoch {self._epoch(step.slot, step.number):.2f}; {best}")

    def _write_weights(self, journal: Journal, state: dict[str, Tensor], path: Path) -> None:
        journal.files.save(path, state)
        journal.save_extras(path)

    def _checkpoint(self, slot: int, step: int, regular: bool) -> dict[str, Tensor]:
        """Have a checkpoint written; also the weights that it holds."""
        journal, run = self.journals[slot], self.fleet.runs[slot]
        self._writer.make_room(CHECKPOINT_BYTES * self.fleet.adapter.size(slot))
        adapter, optimizer = self.fleet.adapter.state(slot), optimizer_tensors(run)
        size = sum(tensor.nbytes for tensor in (*adapter.values(), *optimizer.values()))
        fill = partial(save_checkpoint, files=journal.files, state=adapter, optimizer=optimizer)
        self._write(journal, partial(write_folder, journal.checkpoint(step), fill), size)
        journal.saved[step] = regular or journal.saved.get(step, False)
        return adapter

    def _buffers(self) -> list[int]:
        """Bytes of weights and of moments for a checkpoint of each run, as far as they may wait to be written. PyTorch
        pins powers of two."""
        sizes, left = list[int](), self._writer.room
        for slot, run in enumerate(self.fleet.runs):
            weights = self.fleet.adapter.size(slot)
            both = [CHECKPOINT_BYTES // 3 * weights, CHECKPOINT_BYTES * 2 // 3 * weights]
            left -= sum(1 << (size - 1).bit_length() for size in both)
            sizes += both if left >= 0 and run.plan.shape is not None else []
        return sizes

    def _prune(self, journal: Journal) -> None:
        """Only after new checkpoints are whole, and best.json names one that stays."""
        regular = [step for step, was_due in journal.saved.items() if was_due]
        best = [end.watch.best_step for end in journal.endings if end.watch.best_step is not None]
        for step in superfluous(sorted(journal.saved), regular, best, journal.keep):
            self._writer.later(partial(remove_folder, journal.checkpoint(step)))
            del journal.saved[step]

    def _unfinished(self, step: Step) -> list[Ending]:
        return [end for end in self.journals[step.slot].endings if not end.done]

    def _due(self, step: Step, every: Every) -> bool:
        plan = self.fleet.runs[step.slot].plan
        length = steps_per_epoch(len(plan.examples), plan.batch_size) if every == "epoch" else int(every)
        return step.number % length == 0

    def _epoch(self, slot: int, step: int) -> float:
        plan = self.fleet.runs[slot].plan
        return step / steps_per_epoch(len(plan.examples), plan.batch_size)

    def _log(self, step: Step, ends: Sequence[Ending], kind: dict[str, str], figures: dict[str, Any]) -> None:
        record = {**kind, "step": step.number, "epoch": self._epoch(step.slot, step.number), **figures}
        for end in ends:
            end.folder.log(record)
            self._track(end.folder.name, record)

    def _tell_failures(self) -> None:
        for slot, run in enumerate(self.fleet.runs):
            if run.error and slot not in self._told:
                self._told.add(slot)
                left = run.plan.steps - run.step
                self.work.advance(left)
                self.work.say(f"  {run.plan.name} was taken out: {run.error}")
