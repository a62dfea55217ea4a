"""What several verbs share: options, and how a result is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, e.g. train.epochs=3."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write; a new folder by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

Gpu = Annotated[
    str | None,
    typer.Option("--gpu", metavar="SIZE", envvar="PRONK_GPU_MEMORY", help="A GPU's memory, e.g. 24GB: use no more."),
]


def print_table(result: dict[str, Any], as_json: bool) -> None:
    """A table or JSON; why a bench's side has no ratio goes to stderr, and ends the command with 1."""
    import json

    print(json.dumps(result["json"], indent=2) if as_json else result["markdown"])
    problems = result.get("problems", ())
    for problem in problems:
        say(problem, style="red")
    if problems:
        sys.exit(1)


def say(line: str, style: str | None = None) -> None:
    """A line to stderr."""
    from pronk.train import progress

    progress.say(console(), line, style)


def console(stderr: bool = True) -> Console:
    """Progress and messages go to stderr, results to stdout."""
    from rich.console import Console

    return Console(stderr=stderr)
