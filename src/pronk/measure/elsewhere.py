"""`pronk eval RUN … BASE … --data FILE`: any models on any items, compared in a folder of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.models import Model, find_models, study_around
from pronk.compare.conclude import conclude
from pronk.compare.pairs import EVALUATED
from pronk.data.words import counted
from pronk.errors import OptionError
from pronk.measure.asked import Asked
from pronk.measure.items import (
    Items,
    all_items,
    check_same,
    for_other_items,
    own_items,
    repeated,
    seen_in_training,
)  # fmt: skip
from pronk.measure.together import Column, Reader, Wanted, measure_columns
from pronk.recipe import Recipe
from pronk.runs import StudyFolder, disk_guard, new_study
from pronk.study import slug
from pronk.train.interrupt import Interruption, listen
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

# Of a run, as its own study.json has it; its figures there are on other items.
KEPT = (
    "status", "trainable_parameters", "steps", "train_tokens", "train_seconds", "tokens_per_second",
    "peak_memory_bytes", "best_step", "best_validation_loss", "adapter_step", "overfitting",
)  # fmt: skip
# What tells runs apart: these keys of their recipes, and all of these sections but what only says how it was done.
TELLING, SECTIONS = ("base", "quantize", "full", "prompt"), ("adapter", "train")
NOT_TELLING = ("train.device", "train.recompute", "train.keep", "train.trackers", "train.save_every")


@dataclass(frozen=True)
class _Work:
    """What is about to be measured. entries: of study.json, in the order of the columns, by name."""

    columns: dict[str, Column]
    entries: dict[str, dict[str, Any]]
    items: Items
    wanted: Wanted
    facts: dict[str, Any]
    deterministic: bool


def measure_elsewhere(asked: Asked, out: Path, console: Console) -> tuple[StudyFolder, bool]:
    """Measure models on the same items into a new folder that `pronk report` reads; also whether the user stopped it.

    What is wrong with any of it is found before a model is loaded, and then nothing is left behind. Raises
    PronkError, and KeyboardInterrupt where it is stopped before anything is measured.
    """
    from pronk.model.determinism import deterministic

    started = time.perf_counter()
    with listen(lambda line: console.print(line, highlight=False)) as stop, disk_guard(out):
        with console.status("reading the bases and the items"):
            work = _prepared(asked, partial(say, console))
        folder = StudyFolder.create(out)
        summary = new_study(out.name, work.items.labels, {"test": len(work.items.splits.test)}, 0)
        summary["data"] = {"test": len(work.items.splits.test), **work.facts}
        try:
            with deterministic(work.deterministic):
                _measure(work, folder, summary, console, stop)
        except KeyboardInterrupt:
            stop.asked = stop.asked or 1
        finally:
            if summary["runs"]:
                missing = {"status": "interrupted", "message": "not measured"}
                found = {entry["name"] for entry in summary["runs"]}
                summary["runs"] = [one if name in found else one | missing for name, one in work.entries.items()]
                summary["total_seconds"] = time.perf_counter() - started
                conclude(folder, summary)
            else:
                folder.discard_unless_trained()
    if not summary["runs"]:
        raise KeyboardInterrupt
    return folder, bool(stop.asked)


def _measure(work: _Work, folder: StudyFolder, summary: dict[str, Any], console: Console, stop: Interruption) -> None:
    models, count = counted(len(work.columns), "model"), counted(len(work.items.splits.test), "item")
    say(console, f"{models} on {count}: {', '.join(work.wanted.evaluations)}")
    folder.write_items(work.items.splits.test_items())
    ids = [str(number) for number in range(len(work.items.splits.test))]
    for results, environment in measure_columns(list(work.columns.values()), work.wanted, console, stop.check):
        for name, result in results:
            result.write_items(folder.run(name), ids)
            summary["runs"].append(work.entries[name])
        summary["environment"] = environment


def _prepared(asked: Asked, tell: Any) -> _Work:
    """Everything that can be found out without weights."""
    models = find_models(asked.targets, prompt=asked.prompt, overrides=asked.of_models)
    recipe, items = _items(asked, models, tell)
    facts = _facts(asked, models, items[0], tell)
    recipe = asked.measuring(recipe)
    reader = Reader(recipe, items[0].splits, tell)
    columns = [reader.column(one.name, one, own.splits, own.labels) for one, own in zip(models, items, strict=True)]
    named, entries = _listed(_rows(asked, columns, reader))
    return _Work(named, entries, items[0], Wanted.of(recipe), facts, recipe.train.deterministic)


def _items(asked: Asked, models: Sequence[Model], tell: Any) -> tuple[Recipe, list[Items]]:
    """The items as each model reads them, all the same, and the recipe that says what is measured."""
    first = next((model for model in models if model.run), None)
    if first is None and asked.data is None:
        raise OptionError("a base or an adapter has no items of its own: name a file of them with --data")
    read: dict[str, Items] = {}  # by what says how they are read
    recipes: list[Recipe] = []
    items: list[Items] = []
    for model in models:
        told = (lambda _: None) if items else tell  # of the others it would be the same again
        recipe = _recipe(asked, model, model if model.run else first, told)
        key = recipe.data.model_dump_json()
        if key not in read:
            read[key] = own_items(recipe, asked.part, told) if asked.data is None else all_items(recipe, told)
        recipes.append(recipe)
        items.append(read[key])
        check_same(models[0].name, items[0], model.name, items[-1])
    return recipes[0], items


def _recipe(asked: Asked, model: Model, leading: Model | None, tell: Any) -> Recipe:
    """How a model's items are read: as its own data, as that of the first run, or as their columns say."""
    recipe = (leading or model).recipe
    if asked.data is None:
        return recipe
    labels = study_around(leading.run).get("labels") or [] if leading and leading.run else []
    said = any(one.startswith("data.format=") for one in asked.of_models)
    return for_other_items(recipe, asked.data, [str(one) for one in labels], leading is not None or said, tell)


def _facts(asked: Asked, models: Sequence[Model], items: Items, tell: Any) -> dict[str, Any]:
    """What is to be known of the items, for study.json and the report."""
    if any(any(model.recipe.baseline.shots) for model in models if model.run):
        tell("bases with examples in their prompt are rows of their own study alone: pronk eval STUDY measures them")
    facts: dict[str, Any] = {"items": asked.data or f"the runs' own {asked.part} rows"}
    if asked.data is None:
        return facts
    if again := repeated(items):
        tell(f"warning: items that ask what another one asks: {again}; intervals take all for different ones")
        facts["repeated"] = again
    if seen := _seen(models, items, tell):
        facts["seen_in_training"] = seen
    return facts


def _seen(models: Sequence[Model], items: Items, tell: Any) -> str:
    """Which runs were trained on how many of the items, told and as text; runs of the same rows are asked once."""
    groups: dict[str, list[Model]] = {}
    for model in models:
        if model.run:
            groups.setdefault(model.recipe.data.model_dump_json(), []).append(model)
    said = []
    for group in groups.values():
        names = ", ".join(model.name for model in group)
        seen = seen_in_training(group[0].recipe, items)
        if seen is None:
            tell(f"the data of {names} is gone, so nobody knows whether these items were among it")
        elif seen:
            said.append(f"{seen} of {len(items.splits.test)} by {names}")
    if said:
        tell(f"warning: items that were trained on: {'; '.join(said)}")
    return "; ".join(said)


@dataclass(frozen=True)
class _Row:
    """A column and the name of its base, one for all columns over the same base. added: the base of runs, which
    nobody named."""

    column: Column
    base: str
    added: bool = False

    @property
    def kept(self) -> tuple[str, str]:
        """Which base lies in memory, and how."""
        return self.column.base.location, self.column.model.recipe.quantize


def _rows(asked: Asked, columns: Sequence[Column], reader: Reader) -> list[_Row]:
    """All that is measured. A base that is named is that of the runs over it, and asked as they are, unless --prompt
    says how."""
    if not asked.base:
        return [_Row(one, one.model.origin or one.base.name) for one in columns]
    rows = _with_bases(columns, reader)
    added = {row.kept for row in rows if row.added and asked.prompt is None}
    return [row for row in rows if row.column.model.origin or row.added or row.kept not in added]


def _with_bases(columns: Sequence[Column], reader: Reader) -> list[_Row]:
    """Each base before the first run over it, asked in that run's form."""
    rows: list[_Row] = []
    bases: dict[tuple[str, str], str] = {}
    for column in columns:
        model, examples = column.model, column.examples
        if model.origin is None:
            rows.append(_Row(column, column.base.name))
            continue
        untouched = Model("base", model.recipe.model_copy(update={"base": model.origin}), model.form)
        base = _Row(reader.column("base", untouched, examples.splits, examples.labels), model.origin, added=True)
        if base.kept not in bases:
            bases[base.kept] = model.origin
            rows.append(base)
        rows.append(_Row(column, bases[base.kept]))
    return rows


def _listed(rows: Sequence[_Row]) -> tuple[dict[str, Column], dict[str, dict[str, Any]]]:
    """The columns and their entries in study.json, under names that can be folders."""
    settings = _settings([row.column.model for row in rows if row.column.model.origin])
    several = [row for row in rows if row.added][1:]
    columns: dict[str, Column] = {}
    entries: dict[str, dict[str, Any]] = {}
    for row in rows:
        model, quantize = row.column.model, row.column.model.recipe.quantize
        kind = ["base", slug(row.base), quantize] if several else ["base"]
        name = _free("_".join(kind) if row.added else slug(row.column.name.replace("/", "_")), columns)
        columns[name] = replace(row.column, name=name)
        kept = {"base": row.base, "quantize": quantize, "baseline": model.origin is None}
        entries[name] = {"name": name, **kept, "settings": settings.get(id(model), {}), **_of_its_study(model)}
    return columns, entries


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, with a number behind it where it is taken."""
    name = name or "model"
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return next(one for one in (name, *numbered) if one not in taken)


def _settings(models: Sequence[Model]) -> dict[int, dict[str, Any]]:
    """The keys in which tuned models differ, by id of the model."""
    told = {id(model): _told(model) for model in models}
    keys = dict.fromkeys(key for one in told.values() for key in one)
    differing = [key for key in keys if len({json.dumps(one.get(key)) for one in told.values()}) > 1]
    return {which: {key: one[key] for key in differing if key in one} for which, one in told.items()}


def _told(model: Model) -> dict[str, Any]:
    """What is known of how a model was tuned."""
    if model.run is None and model.adapter:
        shape = model.adapter.shape
        targets = shape.targets if isinstance(shape.targets, str) else list(shape.targets)
        return {
            "base": model.origin,
            "adapter.rank": shape.rank,
            "adapter.alpha": shape.alpha,
            "adapter.targets": targets,
        }
    plain = model.recipe.model_dump(by_alias=True) | {"base": model.origin}
    told = {key: plain[key] for key in TELLING} | {"data.source": plain["data"]["source"]}
    for section in SECTIONS:
        if section != "adapter" or not model.recipe.full:
            told |= {f"{section}.{key}": value for key, value in plain[section].items()}
    return {key: value for key, value in told.items() if key not in NOT_TELLING}


def _of_its_study(model: Model) -> dict[str, Any]:
    """Where a model lies, and what its own study says of its training."""
    if model.origin is None:
        return {"status": "finished"}
    place = model.run or (model.adapter and model.adapter.folder)
    found: dict[str, Any] = {}
    if model.run is not None and (model.adapter is None or model.adapter.folder.name == "adapter"):  # no checkpoint
        entries = study_around(model.run).get("runs") or ()
        found = next((one for one in entries if isinstance(one, dict) and one.get("name") == model.run.name), {})
    kept = {key: found[key] for key in KEPT if found.get(key) is not None}
    status = kept.get("status") if kept.get("status") in EVALUATED else "finished"
    return {**kept, "status": status, "message": "", "source": str(place)}
