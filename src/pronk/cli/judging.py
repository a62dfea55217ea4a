"""The verb that has answers judged by a model: judge."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pronk.cli.shared import Json, console, say

OFF = "interrupted; what was judged is kept, and the same command goes on"


def judge(
    study: Annotated[Path, typer.Argument(help="A study folder.")],
    model: Annotated[
        str,
        typer.Option(help="The judge: a base, run or adapter of this machine; with --url, its name on that server."),
    ],
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An OpenAI-compatible server; its key comes from PRONK_API_KEY."),
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="As for generate; MT-bench's files too. Again for more.",
            show_default="the study's test items",
        ),
    ] = None,
    references: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Right answers to them, in MT-bench's form.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="Judge only so many questions.", show_default="all")] = None,
    pairs: Annotated[
        str | None,
        typer.Option(help="base: each run against its base; best: against the best run; all.", show_default="base"),
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="NAME", help="Only this run of the study. Again for more.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of an answer to --questions.", show_default="256")
    ] = None,
    verdict_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a verdict with its reason.", show_default="512")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for a verdict.", show_default="120")] = None,
    limit_tokens: Annotated[int | None, typer.Option(help="Ask no more than so many tokens allow.")] = None,
    limit_cost: Annotated[float | None, typer.Option(help="Ask no more than so much money allows.")] = None,
    price_in: Annotated[float | None, typer.Option(help="Of a million tokens read, in any currency.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Of a million tokens written.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Go on without asking where it is much.")] = False,
    as_json: Json = False,
) -> None:
    """Have a model judge the answers of runs, in both orders, and say how far to trust it."""
    from pronk import judge as room
    from pronk.compare.judged_shown import judged_table
    from pronk.data.terminal import plain_json
    from pronk.evaluate.spending import Limits

    limits = {"tokens": limit_tokens, "cost": limit_cost, "price_in": price_in, "price_out": price_out}
    more: dict[str, Any] = {
        "url": url, "questions": questions, "references": references, "items": items, "pairs": pairs,
        "runs": runs, "max_new_tokens": max_new_tokens, "verdict_tokens": verdict_tokens, "timeout": timeout,
        "limits": Limits(**_given(limits)), "yes": yes,
    }  # fmt: skip
    options = room.Options(model, **_given(more))
    there = sys.stdin.isatty() and sys.stderr.isatty()
    try:
        found = room.judge(study, options, console(), _confirm if there else None)
    except (KeyboardInterrupt, typer.Abort):
        say(OFF)
        sys.exit(130)
    if found.record is not None:
        print(plain_json(found.record, indent=2) if as_json else judged_table(found.record))
    if found.interrupted:
        say(OFF)
        sys.exit(130)
    if found.record is None:
        say("nothing was judged")
        sys.exit(1)


def _confirm(asked: str) -> bool:
    """Ask a person. Ctrl-C means no, at once: nothing is under way."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return typer.confirm(asked, err=True)
    finally:
        signal.signal(signal.SIGINT, before)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
