"""Verbs in which people judge: arena."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pronk.cli.shared import Json, Set, console, say


def arena(
    targets: Annotated[
        list[str], typer.Argument(metavar="STUDY|RUN…", help="A study's folder, or runs, PEFT adapters and bases.")
    ],
    questions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="What all are asked: .jsonl (question, or MT-bench's turns), .txt, a text; or test: the answers to "
            "the study's test items. Again for more.",
            show_default="the contest begun before, else test",
        ),
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--run", metavar="NAME", help="Only this run of the study. Again for more.")
    ] = None,
    base: Annotated[bool, typer.Option("--base/--no-base", help="Whether the untouched base takes part.")] = True,
    judge: Annotated[str, typer.Option(metavar="NAME", help="Who votes; the page asks.", show_default=False)] = "",
    result: Annotated[bool, typer.Option("--result", help="Print what the votes say; no page.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.", show_default="256")] = None,
    temperature: Annotated[float | None, typer.Option(help="Draw answers.", show_default="0.0")] = None,
    seed: Annotated[int, typer.Option(help="Of order and sides, together with the judge's name.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where votes are kept; the study by default.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    port: Annotated[int, typer.Option(help="Of the page; a free one by default.", show_default=False)] = 0,
    lang: Annotated[
        str | None, typer.Option(metavar="CODE", help="Of page and report: en or ko.", show_default="the report's")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Vote blind on pairs of answers in the browser: which run writes better ones? With statistics."""
    from pronk.compare.languages import language
    from pronk.compare.report import report_language
    from pronk.ui import blind_test
    from pronk.ui.arena import Arena, judge_name

    study = blind_test.home(targets, out)
    code = report_language(study) if lang is None else language(lang).code
    if result:
        _show(blind_test.conclude(study, code), as_json)
        return
    voter = judge_name(judge) if judge else ""  # before minutes of answering
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    settings = {key: value for key, value in given.items() if value is not None}
    try:
        contest = blind_test.find_contest(
            study, targets, runs or [], questions, base, settings, console(), overrides or []
        )  # fmt: skip
    except KeyboardInterrupt:
        contest = None
    if contest is None:
        say("interrupted; the answers that are whole are kept, and the same command goes on")
        sys.exit(130)
    from pronk.ui.local_page import serve

    blind_test.tell_size(contest, console())
    if not serve(Arena(study, contest, seed, voter, code).page(), say, open_browser, port):
        say(f"interrupted; all votes are kept: `pronk arena {study}` goes on, and with --result tells what they say")
        sys.exit(130)
    _show(blind_test.conclude(study, code), as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    from pronk.compare.arena_words import terminal_lines
    from pronk.data.terminal import plain, plain_json

    print(plain_json(result, indent=2) if as_json else plain("\n".join(terminal_lines(result))))
