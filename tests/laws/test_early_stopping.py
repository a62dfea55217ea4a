"""Early stopping: a run is what it was at its best, wherever and with whomever it trained.

Real fleets on the tiny model: few random examples learned by heart, so that validation loss falls, then rises.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import TIGHT, State, apart, farthest, make_examples, packed_model, peft_model, plain_model, start_fleet

from pronk.compare.overfitting import overfitting
from pronk.evaluate.evaluation import validation_losses
from pronk.model.adapter import AdapterShape
from pronk.runs import StudyFolder
from pronk.tokens.prompt import Example
from pronk.train import recorder as module
from pronk.train.checkpoint import AdapterFiles
from pronk.train.fleet import Fleet, RunPlan, Step
from pronk.train.progress import work
from pronk.train.recorder import Ending, Journal, Recorder
from pronk.train.stopping import early, never
from pronk.train.writer import Writer

BUDGET = 90
VALIDATION = make_examples(24, 77)


@dataclass
class Played:
    """A fleet that has trained. states: each slot's adapter after every step."""

    fleet: Fleet
    journals: list[Journal]
    states: dict[tuple[int, int], State]
    path: Path

    def end(self, slot: int = 0, number: int = -1) -> Ending:
        return self.journals[slot].endings[number]


def plan(name: str = "long", steps: int = 40, **changes: Any) -> RunPlan:
    return replace(RunPlan(name, make_examples(6, 5), AdapterShape(4, 8), steps, 3, 1e-2, seed=1), **changes)


def play(
    path: Path, plans: Sequence[RunPlan], patience: int | None = 2, every: int = 4, keep: int | None = None,
    prefixes: Sequence[int] = (), save_every: int = 4,
) -> Played:  # fmt: skip
    """Train and record; the first run also stands for shorter ones of `prefixes` steps. patience None: no stopping."""
    folder = StudyFolder(path)
    model = packed_model()
    fleet = start_fleet(model, plans, BUDGET)
    if plans[0].name.startswith("steps-"):  # a prefix starts where the longest starts
        long = start_fleet(packed_model(), [replace(plans[0], name="long")], BUDGET)
        fleet.adapter.load(0, long.adapter.state(0))
    rule = early(patience, 0.0) if patience else never()
    journals = []
    for slot, one in enumerate(plans):
        steps = [*(prefixes if slot == 0 else ()), one.steps]
        names = [*(f"steps-{length}" for length in steps[:-1]), one.name]
        endings = [Ending(length, folder.run(name)) for length, name in zip(steps, names, strict=True)]
        journals.append(
            Journal(
                endings, AdapterFiles(one.shape, "tiny"), every, save_every, lambda _: None, rule, bool(patience), keep
            )
        )
    rows = dict.fromkeys(range(len(plans)), VALIDATION)
    played = Played(fleet, journals, {}, path)
    with work(Console(file=io.StringIO()), "training", 1) as bar, Writer() as writer:
        validate = partial(validation_losses, model, fleet.adapter, examples=rows, token_budget=BUDGET)
        recorder = Recorder(fleet, journals, validate, bar, lambda *_: None, lambda _: None, writer)

        def after_round(steps: Sequence[Step]) -> None:
            for step in steps:
                played.states[step.slot, step.number] = fleet.adapter.state(step.slot)
            recorder.after_round(steps)

        fleet.train(after_round)
    return played


def records(played: Played, name: str, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (played.path / "runs" / name / file).read_text().splitlines()]


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("stopped"), [plan()])


def test_it_stops_before_its_end_and_after_its_best(stopped: Played) -> None:
    end = stopped.end()
    assert end.cost["steps"] < 40
    assert end.cost["steps"] == end.watch.best_step + 2 * 4
    losses = [row["loss"] for row in records(stopped, "long") if row["kind"] == "validation"]
    assert losses.index(min(losses)) == len(losses) - 3
    assert stopped.fleet.runs[0].step == end.cost["steps"]
    assert end.cost["train_tokens"] == sum(row["tokens"] for row in records(stopped, "long") if row["kind"] == "train")


def check_best(played: Played) -> None:
    """The adapter is that of the best step; its loss in PEFT, by plain cross-entropy, is the lowest recorded."""
    end = played.end()
    assert end.watch.best_step is not None
    assert end.adapter is not None
    assert equal(end.adapter, played.states[0, end.watch.best_step])
    model = peft_model(plain_model(), AdapterShape(4, 8), end.adapter)
    total, count = 0.0, 0
    for example in VALIDATION:
        ids = torch.from_numpy(example.ids)[None]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        target = torch.from_numpy(example.target[1:])
        total += float(torch.nn.functional.cross_entropy(logits[target], ids[0, 1:][target], reduction="sum"))
        count += int(target.sum())
    lowest = min(row["loss"] for row in records(played, "long") if row["kind"] == "validation")
    assert abs(total / count - lowest) < TIGHT
    best = json.loads((played.path / "runs" / "long" / "best.json").read_text())
    assert (best["step"], best["validation_loss"]) == (end.watch.best_step, lowest)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_it_becomes_what_it_was_at_its_best(stopped: Played) -> None:
    check_best(stopped)


def test_keeping_the_last_weights_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault of many trainers: it stops early and hands out the weights of its last step."""
    original = Recorder._finish

    def faulty(self: Recorder, end: Ending, step: Step, adapter: State | None) -> None:
        self.journals[step.slot].restore_best = False
        original(self, end, step, adapter)

    monkeypatch.setattr(Recorder, "_finish", faulty)
    with pytest.raises(AssertionError):
        check_best(play(tmp_path, [plan()]))


# lengths that end before the stop, on no evaluation, at the stop, and after it
PREFIXES = (6, 10, 16, 30)


def check_prefixes(path: Path) -> set[bool]:
    """Every prefix equals the same run alone, bit for bit; also which of them were stopped early."""
    shared = play(path / "shared", [plan()], prefixes=PREFIXES)
    early_ones = set()
    for number, steps in enumerate([*PREFIXES, 40]):
        name = f"steps-{steps}" if steps != 40 else "long"
        alone = play(path / name, [plan(name, steps)])
        ours, theirs = shared.end(0, number), alone.end()
        assert ours.watch == theirs.watch
        assert (ours.adapter_step, ours.cost["steps"]) == (theirs.adapter_step, theirs.cost["steps"])
        assert ours.cost["train_tokens"] == theirs.cost["train_tokens"]
        assert ours.adapter is not None
        assert theirs.adapter is not None
        assert equal(ours.adapter, theirs.adapter)
        assert records(shared, name) == records(alone, name)
        assert records(shared, name, "validation.jsonl") == records(alone, name, "validation.jsonl")
        early_ones.add(theirs.cost["steps"] < steps)
    return early_ones


def test_a_shared_prefix_equals_the_same_run_alone(tmp_path: Path) -> None:
    assert check_prefixes(tmp_path) == {True, False}


def _one_evaluation_for_all(patch: pytest.MonkeyPatch) -> None:
    """What is measured at a shorter run's end counts for the longer ones too."""
    original = Recorder._due_for_validation
    patch.setattr(
        Recorder, "_due_for_validation", lambda self, step: self._unfinished(step) if original(self, step) else []
    )


def _own_end_unmeasured(patch: pytest.MonkeyPatch) -> None:
    """A shorter run is measured at regular steps only, so its own end is missed."""
    patch.setattr(
        Recorder, "_due_for_validation",
        lambda self, step: self._unfinished(step) if self._due(step, self.journals[step.slot].evaluate_every) else [],
    )  # fmt: skip


@pytest.mark.parametrize("fault", [_one_evaluation_for_all, _own_end_unmeasured])
def test_a_fault_of_sharing_shows(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_alone = play

    def faulty_when_shared(path: Path, plans: Sequence[RunPlan], **options: Any) -> Played:
        if not options.get("prefixes"):
            return play_alone(path, plans, **options)
        with monkeypatch.context() as patch:
            fault(patch)
            return play_alone(path, plans, **options)

    monkeypatch.setitem(globals(), "play", faulty_when_shared)
    with pytest.raises(AssertionError):
        check_prefixes(tmp_path)


def others() -> list[RunPlan]:
    return [
        plan("steady", 30, examples=make_examples(13, 1), learning_rate=1e-3, dropout=0.1, seed=3),
        plan("wide", 34, examples=make_examples(9, 2), shape=AdapterShape(6, 3, ("q_proj", "up_proj")), batch_size=4),
    ]


def adapters(played: Played, slots: Sequence[int]) -> dict[str, State]:
    return {played.fleet.runs[slot].plan.name: played.fleet.adapter.state(slot) for slot in slots}


def test_a_run_that_stops_leaves_the_others_as_they_were(tmp_path: Path, stopped: Played) -> None:
    """Bit for bit as if it had been planned to end there; and as if it had not been there, within rounding."""
    length = stopped.fleet.runs[0].step
    mixed = play(tmp_path / "stops", [plan(), *others()], patience=2)
    ended = [run.step for run in mixed.fleet.runs]
    assert ended[0] == length
    planned = [replace(one, steps=steps) for one, steps in zip([plan(), *others()], ended, strict=True)]
    until = play(tmp_path / "planned", planned, patience=None)
    for slot in (1, 2):
        assert equal(mixed.fleet.adapter.state(slot), until.fleet.adapter.state(slot))
    without = play(tmp_path / "without", [replace(one, steps=run.step) for one, run in
                                          zip(others(), mixed.fleet.runs[1:], strict=True)], patience=None)  # fmt: skip
    assert farthest(adapters(mixed, (1, 2)), adapters(without, (0, 1)))[0] < TIGHT
    assert apart(mixed.end(0).adapter or {}, stopped.end().adapter or {}) < TIGHT


def test_ending_the_wrong_run_shows(tmp_path: Path, stopped: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Fleet.end
    monkeypatch.setattr(Fleet, "end", lambda self, slot: original(self, (slot + 1) % len(self.runs)))
    with pytest.raises(AssertionError):
        test_a_run_that_stops_leaves_the_others_as_they_were(tmp_path, stopped)


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize(("keep", "save_every"), [(1, 4), (2, 3), (None, 7)])
def test_the_checkpoints_that_stay(tmp_path: Path, keep: int | None, save_every: int, patience: int | None) -> None:
    played = play(tmp_path, [plan(steps=24)], patience=patience, keep=keep, save_every=save_every)
    there = {
        int(folder.name.removeprefix("step-")) for folder in (tmp_path / "runs" / "long" / "checkpoints").iterdir()
    }
    last, best = played.fleet.runs[0].step, played.end().watch.best_step
    due = [step for step in range(1, last + 1) if step % save_every == 0 or step == 24]
    assert there == {best, *(due if keep is None else due[-keep:])}


class CrashError(Exception):
    """Stands for a power cut."""


def crash_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Die just before the number-th time that something is written or deleted, or within a deletion."""
    calls = [0]

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                raise CrashError
            return function(*arguments, **options)

        return call

    for name in ("write_folder", "remove_folder"):
        patch.setattr(module, name, dying(getattr(module, name)))
    patch.setattr("pronk.runs.write_text", dying(module.RunFolder.write_best.__globals__["write_text"]))
    patch.setattr("pronk.runs.shutil.rmtree", dying(__import__("shutil").rmtree))


def check_after_a_crash(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whole checkpoints only, and best.json names one of them; whether anything crashed at all."""
    from pronk.train.checkpoint import load_adapter, load_optimizer

    with monkeypatch.context() as patch:
        crash_at(patch, number)
        try:
            play(path, [plan(steps=8)], patience=None, every=1, save_every=2, keep=1)
            crashed = False
        except CrashError:
            crashed = True
    run = path / "runs" / "long"
    for folder in (run / "checkpoints").glob("step-*"):
        assert load_adapter(folder)
        assert load_optimizer(folder)["random.step"] == int(folder.name.removeprefix("step-"))
    if (run / "best.json").exists():
        assert load_adapter(run / json.loads((run / "best.json").read_text())["checkpoint"])
    return crashed


def moments(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Crash at the first moment, at the second, and so on until none is left; how many there were."""
    number = 1
    while check_after_a_crash(path / str(number), number, monkeypatch):
        number += 1
    return number - 1


def test_a_crash_at_any_moment_leaves_the_best_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moments(tmp_path, monkeypatch) > 12


def test_deleting_before_saving_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Recorder._checkpoint

    def faulty(self: Recorder, slot: int, step: int, regular: bool) -> None:
        journal = self.journals[slot]
        for saved in list(journal.saved):
            module.remove_folder(journal.checkpoint(saved))
            del journal.saved[saved]
        original(self, slot, step, regular)

    monkeypatch.setattr(Recorder, "_checkpoint", faulty)
    with pytest.raises((AssertionError, OSError)):
        moments(tmp_path, monkeypatch)


def test_rows_learned_by_heart_are_overfitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model learns little: 150 rows show what the 24 of the other tests must call chance."""
    monkeypatch.setitem(globals(), "VALIDATION", make_examples(150, 78))
    played = play(tmp_path, [plan(steps=40, learning_rate=2e-2)], patience=None)
    found = overfitting(tmp_path, "long")
    assert found["verdict"] == "overfitting"
    assert found["step"] == played.end().watch.best_step
    assert found["interval"][0] > 0
    assert found["train_fall"] > 0.1
    assert found["rows"] == 150


def habit(count: int, seed: int) -> list[Example]:
    """Examples with something to learn: whatever was asked, the answer is 40, 41, 42 and the end token."""
    answers = np.array([40, 41, 42, 2])
    return [
        Example(np.concatenate([one.ids[:3], answers]), np.arange(7) >= 3) for one in make_examples(count, seed)
    ]  # fmt: skip


def test_a_habit_that_is_learned_is_not_overfitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "VALIDATION", habit(24, 9))
    play(tmp_path, [plan(steps=24, examples=habit(72, 8), learning_rate=2e-3)], patience=None)
    assert overfitting(tmp_path, "long")["verdict"] == "still improving"
