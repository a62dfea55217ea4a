"""Runs of several studies and dates in one table: what `pronk compare DIR…` finds, from files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pronk.compare.items import RunItems, read_items, read_lines, read_study
from pronk.compare.pairs import compare_runs, evaluated, figure, primary_metric
from pronk.compare.summary import run_metrics
from pronk.compare.words import setting
from pronk.data.words import counted
from pronk.errors import OptionError, StudyError
from pronk.recipe import Recipe

View = dict[str, Any]

ASKED = ("prompt", "data.instruction", "data.system")  # what an untouched base answers to
# what can differ without any effect on what a run becomes, or on its figures
WITHOUT_EFFECT = (
    "study", "evaluate", "allow", "baseline", "train.save_every", "train.keep", "train.trackers", "train.recompute",
    "train.device",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One study among those compared. recipes: dotted keys and values of each tuned run; runs: those that were named,
    with all untouched bases; created: as study.json has it."""

    label: str
    folder: Path
    study: View
    runs: tuple[View, ...]
    recipes: dict[str, View]

    @property
    def created(self) -> str:
        return str(self.study.get("created") or "")


def compare_across(folders: Sequence[Path]) -> View:
    """Compare the runs of several study or run folders, item by item; a JSON-ready record.

    `studies` (label, folder, created, device), `items` (how many), `runs` and `comparisons` as in study.json, where a
    run is named STUDY/RUN and has `study`, `run` and `created`, and its `settings` are the recipe keys that differ
    among all of them; the untouched base is one row, with `studies`. `differences` (kind, key, values by study) between
    the studies, and `notes`: bases whose figures were not the same in all studies. Verdicts are after Holm over all
    comparisons of the record.
    Raises OptionError for fewer than two folders, StudyError for one that is none, and where items differ.
    """
    sources = _sources(folders)
    if not _texts(sources[0].folder):
        raise StudyError(f"{sources[0].folder}: has no test items, so its runs cannot be compared with others")
    for other in sources[1:]:
        _check_items(sources[0], other)
    rows, items, notes = _rows(sources)
    return {
        "studies": [
            {
                "label": one.label,
                "folder": str(one.folder),
                "created": one.created,
                "device": str((one.study.get("environment") or {}).get("device") or ""),
            }
            for one in sources
        ],
        "items": len(_texts(sources[0].folder)),
        "runs": rows,
        "comparisons": compare_runs(rows, items),
        "differences": list(_differences(sources)),
        "notes": notes,
    }


def _sources(folders: Sequence[Path]) -> list[Source]:
    """The studies, each once, in the order in which they were named."""
    wanted: dict[Path, list[str] | None] = {}  # None: all runs
    for folder in folders:
        study, name = _study_of(folder)
        before = wanted.get(study, [])
        wanted[study] = None if name is None or before is None else [*before, name]
    if len(folders) < 2 or (len(wanted) == 1 and None in wanted.values()):
        raise OptionError(
            "pronk compare: name two or more study folders, or folders of runs (STUDY/runs/NAME); the runs of one "
            "study are compared by `pronk report STUDY`"
        )
    labels = _labels(list(wanted))
    return [_source(label, folder, names) for label, (folder, names) in zip(labels, wanted.items(), strict=True)]


def _study_of(folder: Path) -> tuple[Path, str | None]:
    """The study that a folder is, or the study and the name of the run that it is."""
    folder = folder.resolve()
    if (folder / "study.json").is_file():
        return folder, None
    if folder.is_dir() and folder.parent.name == "runs" and (folder.parents[1] / "study.json").is_file():
        return folder.parents[1], folder.name
    raise StudyError(f"{folder}: neither a study folder (with a study.json) nor the folder of a run (STUDY/runs/NAME)")


def _labels(folders: list[Path]) -> list[str]:
    """As much of the end of each path as tells it from the others."""
    length = 1
    while length < max(len(folder.parts) for folder in folders):
        if len({folder.parts[-length:] for folder in folders}) == len(folders):
            break
        length += 1
    return ["/".join(folder.parts[-length:]) for folder in folders]


def _source(label: str, folder: Path, names: list[str] | None) -> Source:
    study = read_study(folder)
    runs = [run for run in study["runs"] if run.get("baseline") or names is None or run["name"] in names]
    for name in names or ():
        if not any(run["name"] == name for run in runs):
            raise StudyError(f"{folder / 'study.json'}: knows no run {name!r}")
    recipes = {run["name"]: _recipe(folder, run) for run in runs if not run.get("baseline")}
    return Source(label, folder, study, tuple(runs), recipes)


def _recipe(folder: Path, run: View) -> View:
    """The recipe of a run by dotted keys, with the defaults of keys that its version of pronk did not have."""
    file = folder / "runs" / run["name"] / "recipe.yaml"
    if not file.is_file():
        return dict(run.get("settings") or {})
    try:
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{file}: cannot be read ({error})") from None
    if not isinstance(plain, dict):
        raise StudyError(f"{file}: expected the keys of a recipe, found {str(plain)[:60]!r}")
    with suppress(ValueError):  # a recipe of another version of pronk is compared as it stands
        plain = Recipe.model_validate(plain).model_dump(mode="json")
    return dict(_flat(plain))


def _flat(plain: View, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, dict) and value and prefix + str(key) != "study":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_items(a: Source, b: Source) -> None:
    """Raises StudyError, naming the first difference, where two studies were tested on different items."""
    of_a, of_b = _texts(a.folder), _texts(b.folder)
    if of_a == of_b:
        return
    shared = sum((Counter(of_a.values()) & Counter(of_b.values())).values())
    key = next(key for key in (*of_a, *of_b) if of_a.get(key) != of_b.get(key))
    sides = [f"{_said(of.get(key))} in {one.label}" for of, one in ((of_a, a), (of_b, b))]
    raise StudyError(
        f"{a.folder} and {b.folder} cannot be compared: they were tested on different items. The first difference is "
        f"item {key!r}: {sides[0]}, {sides[1]}. {counted(shared, 'item')} of {len(of_a)} and {len(of_b)} "
        f"{'is' if shared == 1 else 'are'} in both. Evaluate both on one test set: the same data.source and "
        "data.split, its seed included"
    )


def _texts(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Input, reference and label of each test item, by id."""
    return {
        str(row.get("id")): (str(row.get("input")), str(row.get("reference")), str(row.get("label")))
        for _, row in read_lines(folder / "items.jsonl")
    }


def _said(item: tuple[str, str, str] | None) -> str:
    if item is None:
        return "none"
    text, answer = (part if len(part) <= 60 else f"{part[:60]}…" for part in item[:2])
    return f"{text!r} → {answer!r}"


def _rows(sources: list[Source]) -> tuple[list[View], dict[str, RunItems], list[View]]:
    """All rows with their items by name: every base once, and every tuned run."""
    keys = _varying([recipe for one in sources for recipe in one.recipes.values()])
    bases: dict[tuple[Any, ...], list[tuple[Source, View, RunItems]]] = {}
    tuned: list[tuple[Source, View, View]] = []
    items: dict[str, RunItems] = {}
    for one in sources:
        for run in one.runs:
            if run.get("baseline"):
                found = read_items(one.folder, run["name"]) if evaluated(run) else RunItems(run["name"])
                bases.setdefault(_identity(one, run), []).append((one, run, found))
            else:
                row = {**run, "name": f"{one.label}/{run['name']}", "run": run["name"], "study": one.label}
                row |= {"created": one.created, "base": _base_name(one, run, sources)}
                recipe = one.recipes[run["name"]]
                row["settings"] = {key: recipe[key] for key in keys if key in recipe}
                tuned.append((one, run, row))
    rows: list[View] = []
    notes: list[View] = []
    for measured in bases.values():
        row = _base_row(measured, sources)
        rows.append(row)
        items[row["name"]] = measured[0][2]
        notes += _note(row, measured)
    for one, run, row in tuned:
        if evaluated(run):
            items[row["name"]] = read_items(one.folder, run["name"])
            row["metrics"] = run_metrics(items[row["name"]]) or run.get("metrics") or {}
        rows.append(row)
    return rows, items, notes


def _varying(recipes: list[View]) -> list[str]:
    """The keys that differ among runs and have an effect."""
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    with_effect = (key for key in keys if not any(f"{key}.".startswith(f"{one}.") for one in WITHOUT_EFFECT))
    return [key for key in with_effect if any(recipe.get(key) != recipes[0].get(key) for recipe in recipes)]


def _asked(source: Source, run: View) -> tuple[str, ...]:
    """In which form a study asked a base: that of its tuned runs."""
    alike = [name for name in source.recipes if _tuned_from(source, name, run)]
    recipe = source.recipes[alike[0]] if alike else {}
    return tuple(str(recipe.get(key)) for key in ASKED)


def _tuned_from(source: Source, name: str, base: View) -> bool:
    run = next(one for one in source.runs if one["name"] == name)
    return run.get("base") == base.get("base") and (run.get("quantize") or "none") == (base.get("quantize") or "none")


def _identity(source: Source, run: View) -> tuple[Any, ...]:
    """Equal for rows of the same untouched base, asked alike. A model behind an interface is itself alone."""
    if run.get("served"):
        return (source.label, run["name"])
    return (run.get("base"), run.get("quantize") or "none", run.get("shots") or 0, *_asked(source, run))


def _base_name(source: Source, run: View, sources: list[Source]) -> str:
    """A base's name; with the study where studies ask it in different forms, so that each run meets its own."""
    name = str(run.get("base", ""))
    forms = {_asked(one, other): one.label for one in reversed(sources) for other in one.runs
             if other.get("baseline") and other.get("base") == run.get("base")}  # fmt: skip
    own = forms.get(_asked(source, run), source.label)
    return name if len(forms) < 2 else f"{name} (as asked in {own})"


def _base_row(measured: list[tuple[Source, View, RunItems]], sources: list[Source]) -> View:
    source, run, found = measured[0]
    base = _base_name(source, run, sources)
    kind = [str(run["quantize"])] if run.get("quantize") not in (None, "none") else []
    kind += [counted(run["shots"], "example")] if run.get("shots") else []
    name, shown = ", ".join([base, *kind]), ", ".join([str(run.get("base", "")), *kind])
    if run.get("served"):
        name, shown = f"{source.label}/{run['name']}", run["name"]
    row = {**run, "name": name, "run": shown, "study": source.label, "created": source.created, "base": base}
    labels = [one.label for one, _, _ in measured]
    return {**row, "studies": labels, "settings": {}, "metrics": run_metrics(found) or run.get("metrics") or {}}


def _note(row: View, measured: list[tuple[Source, View, RunItems]]) -> list[View]:
    """What to know where a base that was measured several times did not come to the same figures."""
    every = [{"metrics": run_metrics(found) or run.get("metrics") or {}} for _, run, found in measured]
    metric = primary_metric(every)
    values = [figure(one, metric) for one in every]
    if len({None if value is None else round(value, 9) for value in values}) < 2:
        return []
    figures = [[one.label, value] for value, (one, _, _) in zip(values, measured, strict=True)]
    return [{"row": row["name"], "study": row["study"], "metric": metric, "figures": figures}]


def _differences(sources: list[Source]) -> Iterator[View]:
    """Recipe keys, rows of data and versions in which the studies differ, each with a text per study."""
    recipes = [
        {
            key: sorted({setting(recipe.get(key)) for recipe in one.recipes.values()})
            for key in dict.fromkeys(key for recipe in one.recipes.values() for key in recipe)
        }
        for one in sources
    ]
    kinds = [("recipe", [{key: "; ".join(found) for key, found in one.items()} for one in recipes])]
    kinds += [
        (kind, [{key: setting(value) for key, value in (one.study.get(kind) or {}).items()} for one in sources])
        for kind in ("data", "environment")
    ]
    for kind, of_studies in kinds:
        for key in dict.fromkeys(key for one in of_studies for key in one):
            values = [one.get(key, "–") for one in of_studies]
            if len(set(values)) > 1 and not (kind == "recipe" and key.partition(".")[0] == "study"):
                yield {"kind": kind, "key": key, "values": values}
