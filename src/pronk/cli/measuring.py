"""The verb that measures afterwards: eval."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pronk.cli.shared import Json, Out, Set, console, say
from pronk.cli.studies import show_study


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="STUDY|RUN|BASE…", help="A study; or runs, studies, PEFT adapters and bases together."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Measure on these rows, read as the runs' own.", show_default="the runs' own"
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="PART", help="The runs' own rows: test or validation.", show_default="test")
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option("--evaluate", metavar="NAMES", help="e.g. likelihood,classify.", show_default="the recipe's"),
    ] = None,
    base: Annotated[bool, typer.Option("--base/--no-base", help="Measure the base of the runs beside them.")] = True,
    prompt: Annotated[
        str | None,
        typer.Option(help="How a base is asked, as in recipes.", show_default="as the runs over it"),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--lm-eval", metavar="TASKS", help="Run lm-eval's tasks instead, e.g. mmlu,gsm8k."),
    ] = None,
    include_path: Annotated[
        str | None, typer.Option(metavar="DIR", help="--lm-eval: a folder of tasks of your own.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(help="--lm-eval: items of each task, or a share.", show_default="all")
    ] = None,
    fewshot: Annotated[
        int | None, typer.Option(help="--lm-eval: examples in the prompt.", show_default="the task's own number")
    ] = None,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="--lm-eval: ask as in a chat.")] = False,
    overrides: Set = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure what was trained, or any base: a study again, or several models on the same rows, all in one batch."""
    from pronk import measure

    harness = {"include_path": include_path, "limit": limit, "fewshot": fewshot, "chat_template": chat_template}
    own = {"--data": data, "--split": split, "--evaluate": measures, "--prompt": prompt}
    _check_options(tasks, own, harness)
    if tasks is not None:
        _harness(models, tasks, harness, overrides or [], out, as_json)
        return
    names = None if measures is None else [name.strip() for name in measures.split(",") if name.strip()]
    part: Any = split or "test"
    asked = measure.Asked(models, data, part, names, prompt, overrides or [], base)
    try:
        folder, interrupted = measure.evaluate(asked, out, console())
    except KeyboardInterrupt:
        say("interrupted; nothing was measured, so nothing has changed")
        sys.exit(130)
    if interrupted:
        say(f"interrupted; what was measured is saved in {folder.path}")
        sys.exit(130)
    show_study(folder, folder.path / "report.html", as_json)


def _check_options(tasks: str | None, own: dict[str, Any], harness: dict[str, Any]) -> None:
    """Options of lm-eval go with --lm-eval, ours without it."""
    from pronk.errors import OptionError

    if tasks is None and (given := [key for key, value in harness.items() if value]):
        raise OptionError(f"--{given[0].replace('_', '-')} belongs to --lm-eval TASKS; add that, or leave it out")
    if tasks is not None and (given := [key for key, value in own.items() if value is not None]):
        raise OptionError(
            f"{given[0]}: the tasks of --lm-eval bring their own items and prompts; leave one of them out"
        )


def _harness(
    models: list[str], tasks: str, settings: dict[str, Any], overrides: list[str], out: Path | None, as_json: bool
) -> None:
    from pronk.data.terminal import plain_json
    from pronk.measure.harness import Tasks, as_lines, run_harness

    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    try:
        records = run_harness(models, Tasks(names, **settings), overrides, out, console())
    except KeyboardInterrupt:
        say("interrupted; models that lm-eval was done with are kept")
        sys.exit(130)
    if as_json:
        print(plain_json(records, indent=2))
        return
    print("\n".join([*as_lines(records), *(f"{record['name']}: {record['file']}" for record in records)]))
