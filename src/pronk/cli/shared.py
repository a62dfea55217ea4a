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

# how answers are written; the defaults are those of recipe.Generation
Models = Annotated[
    list[str],
    typer.Argument(metavar="RUN|BASE…", help="Run folders, study folders, PEFT adapters or bases, in any number."),
]
Temperature = Annotated[
    float | None, typer.Option(help="Draw tokens; 0 takes the likeliest one each time.", show_default="0.0")
]
TopK = Annotated[int | None, typer.Option(help="Draw from so many likeliest tokens.", show_default="all")]
TopP = Annotated[
    float | None, typer.Option(help="Draw from the likeliest of this probability together.", show_default="1.0")
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Most tokens of an answer.", show_default="256")]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End an answer here. Again for more.")]
Seed = Annotated[int | None, typer.Option(help="Of the drawing.", show_default="42")]
Form = Annotated[
    str | None,
    typer.Option(help="How a base is asked, as in recipes.", show_default="chat if it has a template, else alpaca"),
]

Gpu = Annotated[
    str | None,
    typer.Option("--gpu", metavar="SIZE", envvar="PRONK_GPU_MEMORY", help="A GPU's memory, e.g. 24GB: use no more."),
]


def only_given(**settings: Any) -> dict[str, Any]:
    """Of generation settings those that were given: the others have their defaults in the recipe's schema."""
    return {key: value for key, value in settings.items() if value is not None and value != []}


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
