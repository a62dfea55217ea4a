"""Verbs that make or read a study: demo, run, report; and plan, whether it fits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pronk.cli.shared import Gpu, Json, Out, Set, console, print_table, say

Lang = Annotated[str, typer.Option("--lang", metavar="CODE", help="The report's language: en or ko.")]


def demo(out: Out = None, overrides: Set = None, as_json: Json = False, lang: Lang = "en") -> None:
    """Fine-tune the embedded model on the embedded headlines, and report."""
    from importlib.resources import as_file, files

    with as_file(files("pronk.data") / "samples") as samples:
        _run(samples / "demo.yaml", overrides, out, "demo", as_json, lang)


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Out = None,
    overrides: Set = None,
    as_json: Json = False,
    copy_to: Annotated[
        Path | None,
        typer.Option("--copy-to", metavar="DIR", help="Copy the study there as it grows, e.g. to a mounted drive."),
    ] = None,
    gpu: Gpu = None,
    lang: Lang = "en",
) -> None:
    """Train all runs of a recipe, evaluate them with their base, compare, and report."""
    _run(recipe, overrides, out, f"studies/{recipe.stem}", as_json, lang, copy_to, gpu)


def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    gpu: Gpu = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Will it fit? Memory, speed and the setting to train with, on this GPU or one of another size."""
    from pronk.model.memory.sizes import read_size
    from pronk.recipe import read_recipe

    size = None if gpu is None else read_size(gpu)
    checked = read_recipe(recipe, overrides or [])
    from pronk import pipeline
    from pronk.doctor.planned import as_json as plain
    from pronk.doctor.planned import table

    fits = pipeline.plan(checked, size, console())
    print_table({"json": plain(fits), "markdown": table(fits)}, as_json)
    if any(fit.chosen is None for fit in fits):
        sys.exit(1)


def report(
    study: Annotated[Path, typer.Argument(help="A study folder.")],
    as_json: Json = False,
    lang: Lang = "en",
) -> None:
    """Compare a study's runs anew and write its report.html. Needs neither torch nor the base model."""
    from pronk.compare.languages import language
    from pronk.runs import StudyFolder

    code = language(lang).code
    from pronk import pipeline

    folder = StudyFolder.open(study)
    with folder.changing():
        page = pipeline.report(study, code)
    show_study(folder, page, as_json)


def _run(
    recipe: Path, overrides: list[str] | None, out: Path | None, stem: str, as_json: bool, lang: str,
    copy_to: Path | None = None, gpu: str | None = None,
) -> None:  # fmt: skip
    from pronk.compare.languages import language
    from pronk.model.memory.sizes import read_size
    from pronk.recipe import read_recipe
    from pronk.runs import new_folder

    code = language(lang).code
    size = None if gpu is None else read_size(gpu)
    checked = read_recipe(recipe, overrides or [])
    from pronk import pipeline

    try:
        folder, interrupted = pipeline.run_study(checked, out or new_folder(stem), console(), copy_to, size)
    except KeyboardInterrupt:
        say("interrupted; nothing was trained, so nothing is kept")
        sys.exit(130)
    study = folder.read()
    if interrupted:
        say(f"interrupted; what was trained is saved in {folder.path}")
        if _unmeasured(study):
            say(f"this measures what came to its end: pronk eval {folder.path}")
        sys.exit(130)
    if code != "en":
        from pronk.compare.report import write_report

        write_report(folder.path, code)
    show_study(folder, folder.path / "report.html", as_json)
    problems = _problems(study, folder.path)
    for line in problems:
        say(line)
    if problems:
        sys.exit(1)


def _problems(study: dict[str, Any], path: Path) -> list[str]:
    """What is missing of a study that came to its end."""
    runs = [run for run in study["runs"] if not run["baseline"]]
    if all(run["status"] == "failed" for run in runs):
        return ["no run came to its end; the report says why"]
    lines = []
    # one run that diverges is a result; runs that were not trained at all are none
    if untrained := [run["name"] for run in runs if "trainable_parameters" not in run]:
        names = ", ".join(untrained)
        lines.append(f"{len(untrained)} of {len(runs)} runs were not trained; the report says why: {names}")
    if unmeasured := _unmeasured(study):
        count = f"{len(unmeasured)} of {len(runs)} runs are"
        lines.append(f"{count} trained but not measured; this measures what is missing: pronk eval {path}")
    return lines


def _unmeasured(study: dict[str, Any]) -> list[str]:
    """Runs that came to their end, and whose evaluation did not."""
    ended = [run for run in study["runs"] if not run["baseline"] and run["status"] in ("finished", "stopped_early")]
    return [run["name"] for run in ended if study["data"]["test"] and not run["metrics"]]


def show_study(folder: Any, page: Path, as_json: bool) -> None:
    """The ranking and the verdicts in the terminal, or all of study.json."""
    import json

    from pronk.compare.terminal import terminal_summary
    from pronk.data.terminal import width

    study = folder.read()
    if as_json:
        print(json.dumps(study, indent=2, ensure_ascii=False))
        return
    print(terminal_summary(study, width()))
    print(f"report: {page}")
