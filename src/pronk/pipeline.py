"""The story: recipe → examples → fleet training → evaluation → comparison → report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.data.conversation import Conversation
from pronk.data.detect import with_found_formats
from pronk.data.shots import choose_shots
from pronk.data.split import Splits, read_splits
from pronk.data.words import counted
from pronk.doctor.ready import Ready, prepare
from pronk.errors import InputError, OutOfMemoryError
from pronk.measure.entries import as_on_disk, entries, not_trained
from pronk.measure.together import Wanted, measure
from pronk.recipe import Recipe
from pronk.runs import StudyFolder, disk_guard, new_study, write_text
from pronk.study import Fleet, Study, plan_study
from pronk.train.interrupt import Interruption, listen
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.doctor.planned import Fit
    from pronk.evaluate.evaluation import Evaluated
    from pronk.evaluate.likelihood import ItemLosses
    from pronk.model.adapter import AdapterShape
    from pronk.train.mirror import Mirror
    from pronk.train.session import Outcome, Watchers
    from pronk.train.trackers import Trackers
    from pronk.train.writer import Writer


@dataclass
class Work:
    """A study while it runs: its folder, study.json so far, and what it needs of the outside."""

    study: Study
    splits: Splits
    folder: StudyFolder
    summary: dict[str, Any]
    console: Console
    stop: Interruption
    clock: Clock
    mirror: Mirror | None = None
    shots: Sequence[Conversation] = ()  # examples for the base's prompt; fewer are the first of them
    writer: Writer | None = None  # of the fleet that is trained or evaluated

    def check(self) -> None:
        """Raise KeyboardInterrupt if the user wants to stop, and what has kept weights from being written."""
        self.stop.check()
        if self.writer is not None:
            self.writer.check()


@dataclass
class Clock:
    """Seconds of each phase, several laps of one phase summed."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, phase: str) -> None:
        """Count the time since the last lap to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now


def run_study(
    recipe: Recipe, out: Path, console: Console, copy_to: Path | None = None, gpu: int | None = None
) -> tuple[StudyFolder, bool]:
    """Run a whole study into a new folder; also whether it was interrupted (its state is then saved).

    copy_to: a folder, such as a mounted drive, into which the study is copied while it grows. gpu: bytes of the GPU
    that may be used; all that is free when absent.
    What can be wrong with recipe, data and base is found before anything is trained, and then nothing is left
    behind. Raises KeyboardInterrupt if the user stops it before there is anything to keep.
    """
    from pronk.compare.conclude import conclude_beside_others
    from pronk.doctor.checking import refused_by_name
    from pronk.model.determinism import deterministic
    from pronk.train.mirror import Mirror
    from pronk.train.trackers import check_installed

    clock = Clock()
    with (
        listen(lambda line: console.print(line, highlight=False)) as stop,
        disk_guard(out),
        deterministic(recipe.train.deterministic),
        refused_by_name(recipe),
    ):
        tell = partial(say, console)
        recipe = with_found_formats(recipe, tell)
        study = plan_study(recipe)
        check_installed(recipe.train.trackers)
        splits, labels = read_splits(recipe.data, tell)
        shots = choose_shots(splits, max(recipe.baseline.shots, default=0), labels, recipe.baseline.seed)
        ready = _prepare(study, splits, labels, gpu, console)
        stop.check()
        mirror = None if copy_to is None else Mirror(copy_to, out, tell)
        clock.lap("prepare")
        folder = StudyFolder.create(out)
        truncated = sum(one.examples.truncated() for one in ready if one.fleet.measures_base)
        work = Work(
            study,
            splits,
            folder,
            new_study(out.name, labels, splits.counts(), truncated),
            console,
            stop,
            clock,
            mirror,
            shots,
        )
        _tell_plan(work)
        folder.write_items(splits.test_items())
        for run in study.runs:
            write_text(folder.run(run.name).path / "recipe.yaml", run.recipe.to_yaml())
        with folder.measuring():
            interrupted = _run_fleets(ready, work)
        work.summary |= {"phases": clock.seconds, "total_seconds": sum(clock.seconds.values())}
        conclude_beside_others(folder, work.summary)
        if mirror is not None:
            mirror.copy_all(folder)
    return folder, interrupted


def plan(recipe: Recipe, gpu: int | None, console: Console) -> list[Fit]:
    """How the fleets of a recipe fit into this GPU, or into one with so many bytes; nothing is trained or written.

    Raises OptionError where there is no GPU and none is named.
    """
    from pronk.doctor.plan import here_or_named, plan_fleets
    from pronk.model.determinism import deterministic

    tell = partial(say, console)
    elsewhere = here_or_named(recipe, gpu)
    recipe = with_found_formats(recipe, tell)
    study = plan_study(recipe)
    splits, labels = read_splits(recipe.data, tell)
    with console.status("reading the base and the data, and measuring"), deterministic(recipe.train.deterministic):
        return plan_fleets(prepare(study, splits, labels, tell, elsewhere), recipe, gpu, tell)


def report(path: Path, language: str = "en") -> Path:
    """Compare a study's runs anew and write its report; needs neither torch nor the base model."""
    from pronk.compare.conclude import conclude

    folder = StudyFolder.open(path)
    with disk_guard(path):
        return conclude(folder, folder.read(), language)


def _prepare(study: Study, splits: Splits, labels: tuple[str, ...], gpu: int | None, console: Console) -> list[Ready]:
    """The fleets, checked as far as that goes without weights, and how each is to be trained so that it fits."""
    from pronk.doctor.checking import gate
    from pronk.doctor.plan import plan_run
    from pronk.doctor.planned import before_training
    from pronk.model.load import find_base
    from pronk.model.memory.sizes import limit_gpu
    from pronk.model.read_ahead import read_ahead

    with console.status("reading the base and the data"):
        read_ahead(find_base(study.fleets[0].base, partial(say, console)))
        ready = prepare(study, splits, labels, partial(say, console), leave_out=True)
    gate(ready, splits, labels, study.recipe, console)
    with console.status("planning"):
        limit_gpu(gpu, ready[0].device)
        ready = [replace(one, fit=plan_run(one, study.recipe, gpu)) for one in ready]
    for one in ready:
        if one.fit is not None:
            say(console, before_training(one.fit))
    return ready


def _run_fleets(ready: Sequence[Ready], work: Work) -> bool:
    """Train and evaluate fleet after fleet; true if the user stopped it. Runs that did not begin are listed."""
    done, why = 0, ""
    try:
        for one in ready:
            interrupted = _run_fleet(one, work, [other.fleet for other in ready[done + 1 :]])
            done += 1
            if interrupted:
                break
            work.stop.check()
    except (InputError, OutOfMemoryError, KeyboardInterrupt) as error:
        if not work.summary["runs"]:
            work.folder.discard_unless_trained()
            raise
        if not isinstance(error, KeyboardInterrupt):
            why = str(error)
            say(work.console, f"pronk: {why}", "red")
    for one in ready[done:]:
        work.summary["runs"] += not_trained(one.fleet, why)
        why = ""  # what went wrong is told of the fleet that met it
    return bool(work.stop.asked)


def _run_fleet(ready: Ready, work: Work, later: Sequence[Fleet]) -> bool:
    """Train and evaluate one fleet and add its runs to the summary. later: the fleets that come after it."""
    from pronk.doctor.environment import peak_memory
    from pronk.model.memory.guard import memory_guard
    from pronk.model.memory.sizes import release
    from pronk.train.session import train_fleet
    from pronk.train.writer import Writer

    fleet, device, model = ready.fleet, ready.device, _load(ready, work)
    trackers = _start_trackers(fleet, work)
    evaluated: list[tuple[str, Evaluated]] = []
    if fleet.full and fleet.measures_base and work.splits.test:
        evaluated = _evaluate(ready, model, [], work)  # before training changes the base
        work.clock.lap("evaluate")
    with Writer() as work.writer:
        with memory_guard("training"):
            outcomes, interrupted = train_fleet(
                model, ready.base.location, fleet.trained, ready.examples, work.folder, ready.token_budget,
                _watchers(ready, model, trackers, work), work.console, work.stop.check, work.writer, ready.recompute,
            )  # fmt: skip
        release(device)  # an evaluation needs memory in other sizes
        trained = entries(ready, work.study, outcomes, [], peak_memory(device))
        work.writer.later(partial(work.folder.write, _before_evaluation(work, trained, later)))
        work.clock.lap("train")
        if not interrupted and work.splits.test:
            try:
                evaluate = _evaluate_whole if fleet.full else _evaluate
                evaluated += evaluate(ready, model, outcomes, work)
            except KeyboardInterrupt:
                interrupted = True
            except OutOfMemoryError as error:  # what was trained stays
                say(work.console, f"pronk: {error}", "red")
        ids = [item["id"] for item in work.folder.read_items()]
        for name, results in evaluated:
            results.write_items(work.folder.run(name), ids)
        work.clock.lap("evaluate")
        interrupted |= not _all_written(work, work.writer)
    work.clock.lap("train")
    outcomes = [as_on_disk(one, work.folder) for one in outcomes]
    trackers.finish(_metrics(evaluated, work.folder))
    bases = [name for name, _ in evaluated if name not in {one.name for one in outcomes}]
    work.summary["runs"] += entries(ready, work.study, outcomes, bases, peak_memory(device))
    return interrupted


def _load(ready: Ready, work: Work) -> Any:
    """The model of a fleet; what computes here goes to the summary."""
    from pronk.doctor.environment import environment
    from pronk.model.load import load_for_fleet, resolve_dtype
    from pronk.model.memory.guard import memory_guard
    from pronk.model.memory.sizes import begin_peak

    fleet, device = ready.fleet, ready.device
    dtype = resolve_dtype(work.study.recipe.train.dtype, device)
    begin_peak(device)
    with work.console.status(f"loading {fleet.base}"), memory_guard(f"loading {fleet.base}"):
        model = load_for_fleet(fleet, ready.base, dtype, device)
    work.stop.check()
    told, facts = work.summary["environment"], environment(device, dtype, model)
    if device.type == "cuda" and facts["attention"] != told.get("attention"):
        say(work.console, f"attention: {facts['attention']}")
    work.summary["environment"] = facts
    work.clock.lap("load")
    return model


def _watchers(ready: Ready, model: Any, trackers: Trackers, work: Work) -> Watchers:
    """Who is told while a fleet trains."""
    from pronk.evaluate.evaluation import validation_losses
    from pronk.train.session import Watchers

    trains = [run.recipe.train for run in ready.fleet.trained]
    rows = {s: ready.examples.validation(one.max_length, one.train_on_prompt) for s, one in enumerate(trains)}

    def validate(adapter: Any, slots: Sequence[int]) -> dict[int, ItemLosses]:
        return validation_losses(model, adapter, slots, rows, ready.validation_tokens)

    mirror = work.mirror.copy_runs if work.mirror else lambda _: None
    return Watchers(validate if work.splits.validation else None, trackers.log, mirror)


def _all_written(work: Work, writer: Writer) -> bool:
    """Wait for the last weights; false if the user insists on stopping, and those not begun are left."""
    from pronk.doctor.checking import slowly
    from pronk.model.memory.guard import memory_guard

    try:
        work.stop.insist()
        with slowly(work.console, "writing the last checkpoints"), memory_guard("writing checkpoints"):
            writer.wait()
    except KeyboardInterrupt:
        writer.drop()
        return False
    return True


def _before_evaluation(work: Work, trained: Sequence[dict[str, Any]], later: Sequence[Fleet]) -> dict[str, Any]:
    """study.json once all weights are written: whatever may end the process from then on, even the system for lack of
    memory, `pronk eval` can complete it."""
    waiting = [entry for fleet in later for entry in not_trained(fleet, "")]
    return deepcopy({**work.summary, "runs": [*work.summary["runs"], *trained, *waiting]})


def _start_trackers(fleet: Fleet, work: Work) -> Trackers:
    """Begin every run of a fleet in the tools that the recipe names."""
    from pronk.train.trackers import Opening, Trackers, flat

    trackers = Trackers(work.study.recipe.train.trackers, partial(say, work.console, style="yellow"))
    for trained in fleet.trained:
        for run in trained.runs:
            path = work.folder.run(run.name).path
            trackers.start(Opening(work.folder.path.name, run.name, path, flat(run.recipe.model_dump()), run.settings))
    return trackers


def _metrics(evaluated: Sequence[tuple[str, Evaluated]], folder: StudyFolder) -> dict[str, dict[str, float]]:
    """The test metrics of runs whose items are written, by name."""
    from pronk.compare.items import read_items
    from pronk.compare.summary import run_metrics

    return {name: run_metrics(read_items(folder.path, name)) for name, _ in evaluated}


def _evaluate(ready: Ready, model: Any, outcomes: Sequence[Outcome], work: Work) -> list[tuple[str, Evaluated]]:
    """The base and every adapter that was trained, on all test items."""
    from pronk.doctor.baseline import few_shot_rows

    trained = {one.name: (one.shape, one.adapter) for one in outcomes if one.shape and one.adapter is not None}
    results = _measure(ready, model, list(trained.values()), work)
    evaluated = list(zip([ready.fleet.baseline, *trained], results, strict=True))
    if work.shots and ready.fleet.measures_base:
        rows = few_shot_rows(ready, model, work.study.recipe, work.shots, work.console, work.check)
        work.summary["data"] |= rows.facts
        evaluated += rows.results
    return evaluated


def _evaluate_whole(ready: Ready, model: Any, outcomes: Sequence[Outcome], work: Work) -> list[tuple[str, Evaluated]]:
    """Every model that was trained, one after another in the place of the base."""
    from pronk.model.whole import put_weights

    evaluated = []
    for one in outcomes:
        if one.adapter is not None:
            put_weights(model, one.adapter)
            evaluated.append((one.name, _measure(ready, model, [], work)[0]))
    return evaluated


def _measure(
    ready: Ready, model: Any, adapters: Sequence[tuple[AdapterShape, Mapping[str, Any]]], work: Work
) -> list[Evaluated]:
    """The model as it stands and the given adapters on all test items."""
    wanted = Wanted.of(work.study.recipe)
    return measure(model, adapters, ready.examples, wanted, work.console, work.check, ready.evaluation_tokens)


def _tell_plan(work: Work) -> None:
    """What is about to happen, in a few lines."""
    study, splits, data = work.study, work.splits, work.summary["data"]
    trained = sum(len(fleet.trained) for fleet in study.fleets)
    shared = f", {trained} of them trained (the others are earlier points)" if trained < len(study.runs) else ""
    duplicates, contradictory = splits.duplicates_removed, splits.contradictory_removed
    removed = [
        *([counted(duplicates, "duplicate")] if duplicates else []),
        *([f"{counted(contradictory, 'row')} of one text with different labels"] if contradictory else []),
    ]
    rows = counted(data["train"], "row")
    lines = [
        f"{counted(len(study.runs), 'run')}{shared}",
        f"{rows} to train on, {data['validation']} for validation, {data['test']} for the test",
    ]
    if removed:
        lines.append(f"left out: {', '.join(removed)}")
    if splits.same_opening:
        lines.append(f"{splits.same_opening} rows open as others do; those that open alike are in one part")
    for line in [*lines, f"writing to {work.folder.path}"]:
        say(work.console, line)
