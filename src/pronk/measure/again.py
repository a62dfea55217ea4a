"""`pronk eval STUDY`: a study's own runs and bases on its own test items, measured again or for the first time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.models import Form, Model, find_models
from pronk.compare.conclude import conclude_beside_others
from pronk.compare.items import run_folder
from pronk.compare.pairs import evaluated
from pronk.data.shots import choose_shots
from pronk.data.words import counted
from pronk.doctor.baseline import few_shot_rows
from pronk.doctor.ready import Ready
from pronk.errors import OptionError, StudyError
from pronk.measure.asked import Asked
from pronk.measure.items import Items, check_recorded, own_items
from pronk.measure.together import Column, Reader, Results, Wanted, measure_columns
from pronk.recipe import Recipe, read_recipe
from pronk.runs import StudyFolder
from pronk.study import Fleet, Run, Study, study_of
from pronk.train.interrupt import Interruption, listen
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

# What may be said anew of a study that is measured again, beside what is measured: where things lie.
PLACES = ("base", "data.source", "train.device")


@dataclass
class _Again:
    """A study that is measured again. summary: its study.json; study: as it was laid out; places: the runs' recipes
    with what was said anew."""

    folder: StudyFolder
    summary: dict[str, Any]
    study: Study
    places: dict[str, Recipe]
    console: Console
    stop: Interruption
    told: dict[str, Any] = field(default_factory=dict)  # of this evaluation, once something is measured


def measure_again(asked: Asked, console: Console) -> tuple[StudyFolder, bool]:
    """Measure what a study trained, its bases and their rows with examples in the prompt; also whether the user
    stopped it.

    What was measured before in other ways stays. Item results are written base by base, study.json and report in
    the end, whatever is measured by then. Raises PronkError where something is missing, before anything is loaded,
    and KeyboardInterrupt where it is stopped before anything is measured.
    """
    from pronk.model.determinism import deterministic

    started = time.perf_counter()
    folder = StudyFolder.open(Path(asked.targets[0]))
    with listen(lambda line: console.print(line, highlight=False)) as stop, folder.measuring():
        work = _opened(folder, asked, console, stop)
        with deterministic(work.study.recipe.train.deterministic):
            with console.status("reading the base and the data"):
                items = _items(work)
                columns = _columns(work, items, asked.of_models)
            _tell(work, items, columns)
            try:
                _measure(work, items, columns)
            except KeyboardInterrupt:
                stop.asked = stop.asked or 1
            finally:
                if work.told:
                    work.summary["evaluation"] = {**work.told, "seconds": time.perf_counter() - started}
                    own = {key: part for key, part in work.summary.items() if key in ("runs", "data", "evaluation")}
                    conclude_beside_others(folder, own)
    if not work.told:
        raise KeyboardInterrupt
    return folder, bool(stop.asked)


def _opened(folder: StudyFolder, asked: Asked, console: Console, stop: Interruption) -> _Again:
    """The study as it was laid out, from its runs' recipes, and what is wanted of it now."""
    summary = folder.read()
    if any("source" in entry for entry in summary["runs"]):
        raise StudyError(f"{folder.path}: its runs lie elsewhere (`pronk eval` wrote it); measure them with --out DIR")
    for override in asked.of_models:
        if (key := override.partition("=")[0].strip()) not in PLACES:
            raise OptionError(
                f"--set {key}: this study was measured otherwise, and its figures would not compare; "
                "add --out DIR to write elsewhere"
            )
    runs, places = [], {}
    for entry in summary["runs"]:
        if not entry.get("baseline"):
            file = run_folder(folder.path, entry["name"]) / "recipe.yaml"
            runs.append(Run(entry["name"], read_recipe(file), entry.get("settings") or {}))
            places[entry["name"]] = asked.measuring(read_recipe(file, asked.of_models))
    if not runs:
        raise StudyError(f"{folder.path}: this study has no runs")
    study = study_of(runs[0].recipe, runs)
    if len({fleet.base for fleet in study.fleets}) > 1 and any(one.startswith("base=") for one in asked.of_models):
        raise OptionError("--set base: this study has several bases, and each has its own place; add --out DIR")
    return _Again(folder, summary, study, places, console, stop)


def _items(work: _Again) -> Items:
    """The test items, which must be what they were."""
    recipe = next(iter(work.places.values()))
    items = own_items(recipe, "test", partial(say, work.console))
    check_recorded(items, work.folder.read_items(), work.summary.get("labels") or [], work.folder.path)
    return items


def _columns(work: _Again, items: Items, overrides: Sequence[str]) -> dict[str, Column]:
    """Every base and, after it, what was trained over it, fleet by fleet as `pronk run` measures them."""
    recipe = next(iter(work.places.values()))
    reader, columns = Reader(recipe, items.splits, partial(say, work.console)), []
    for fleet in work.study.fleets:
        if fleet.measures_base:
            recipe = work.places[fleet.runs[0].name]
            base = Model(fleet.baseline, recipe, Form(recipe.prompt))
            columns.append(reader.column(fleet.baseline, base, items.splits, items.labels))
        for name in _trained(work, fleet):
            (model,) = find_models([str(work.folder.run(name).path)], overrides=overrides)
            columns.append(reader.column(name, model, items.splits, items.labels))
    return {one.name: one for one in columns}


def _trained(work: _Again, fleet: Fleet) -> list[str]:
    """The runs of a fleet that came to their end. Raises StudyError for one whose weights are gone since."""
    statuses = {entry["name"]: entry for entry in work.summary["runs"]}
    names = [run.name for run in fleet.runs if evaluated(statuses[run.name])]
    for name in names:
        if work.folder.run(name).weights is None:
            raise StudyError(
                f"{work.folder.run(name).path}: this run came to its end, but its weights are gone (adapter/, model/); "
                "copy them back, or measure the other runs elsewhere: pronk eval RUN … --out DIR"
            )
    return names


def _measure(work: _Again, items: Items, columns: Mapping[str, Column]) -> None:
    """Measure, and write what is measured base by base."""
    recipe = next(iter(work.places.values()))
    shots = choose_shots(items.splits, max(recipe.baseline.shots, default=0), items.labels, recipe.baseline.seed)
    fleets = {fleet.baseline: fleet for fleet in work.study.fleets if fleet.measures_base}

    def beside(column: Column, model: Any) -> Results:
        if not shots or column.name not in fleets:
            return []
        ready = Ready(fleets[column.name], column.base, next(model.parameters()).device, column.examples)
        rows = few_shot_rows(ready, model, recipe, shots, work.console, work.stop.check)
        work.summary["data"] = {**(work.summary.get("data") or {}), **rows.facts}
        return rows.results

    ids = [item["id"] for item in work.folder.read_items()]
    wanted = Wanted.of(recipe)
    for results, environment in measure_columns(list(columns.values()), wanted, work.console, work.stop.check, beside):
        for name, result in results:
            result.write_items(work.folder.run(name), ids)
        for fleet in fleets.values():
            _list_bases(work, fleet, [name for name, _ in results])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        work.told = {"at": now, "evaluations": list(wanted.evaluations), "environment": environment}


def _list_bases(work: _Again, fleet: Fleet, measured: Sequence[str]) -> None:
    """List the rows of a fleet's base that study.json did not have, where `pronk run` lists them."""
    runs = work.summary["runs"]
    known = {entry["name"] for entry in runs}
    possible = [fleet.baseline, *(fleet.few_shot(count) for count in work.study.recipe.baseline.shots if count)]
    new = [name for name in possible if name in measured and name not in known]
    place = next(at for at, entry in enumerate(runs) if entry["name"] in {run.name for run in fleet.runs})
    runs[place:place] = work.study.baselines(fleet, new)


def _tell(work: _Again, items: Items, columns: Mapping[str, Column]) -> None:
    """What is about to happen, and what is not."""
    measured = ", ".join(Wanted.of(next(iter(work.places.values()))).evaluations)
    say(work.console, f"{counted(len(columns), 'model')} on {counted(len(items.splits.test), 'test item')}: {measured}")
    left = [run.name for run in work.study.runs if run.name not in columns]
    if left:
        say(work.console, f"not measured, as they did not come to their end: {', '.join(left)}", "yellow")
