"""The verb that measures afterwards: eval."""

from __future__ import annotations

import sys
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
    overrides: Set = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure what was trained, or any base: a study again, or several models on the same rows, all in one batch."""
    from pronk import measure

    names = None if measures is None else [name.strip() for name in measures.split(",") if name.strip()]
    part: Any = split or "test"
    asked = measure.Asked(models, data, part, names, prompt, overrides or [], base)
    try:
        folder, interrupted = measure.evaluate(asked, out, console())
    except KeyboardInterrupt:
        say("interrupted; nothing was measured, so nothing is kept")
        sys.exit(130)
    if interrupted:
        say(f"interrupted; what was measured is saved in {folder.path}")
        sys.exit(130)
    show_study(folder, folder.path / "report.html", as_json)
