"""Verbs that ask a model, or look into one: generate, inspect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pronk.cli.shared import (
    Form,
    Json,
    MaxNewTokens,
    Models,
    Seed,
    Set,
    Stop,
    Temperature,
    TopK,
    TopP,
    console,
    only_given,
    print_table,
    say,
)


def generate(
    models: Models,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="A .txt file (a question a line), a .jsonl file (question, input), a text, or korean: six samples. "
            "Again for more.",
            show_default="six samples, in English",
        ),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Add the base of the runs.")] = False,
    temperature: Temperature = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The same as --temperature 0.")] = False,
    top_k: TopK = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    seed: Seed = None,
    prompt: Form = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Write the answers here.")] = None,
    as_json: Json = False,
) -> None:
    """Ask runs and bases the same questions, side by side in one batch."""
    from pronk import ask
    from pronk.errors import OptionError

    if greedy and temperature:
        raise OptionError(f"--greedy and --temperature {temperature:g} contradict each other: leave one of them out")
    settings = only_given(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens, stop=stop
    )
    try:
        answered = ask.generate(models, questions, base, prompt, overrides or [], settings, out, console())
    except KeyboardInterrupt:
        answered = None
    if answered is None or (answered.interrupted and not answered.answers):
        say("interrupted; nothing was answered")
        sys.exit(130)
    if as_json:
        print(ask.as_json(answered))
    else:
        ask.show(answered, console(stderr=False))
    if answered.interrupted:
        say(f"interrupted; {len(answered.answers)} answers are kept{f' in {out}' if out else ''}")
        sys.exit(130)


def inspect(
    target: Annotated[str, typer.Argument(metavar="BASE|RUN", help="A base, a run's folder, or a recipe.")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Modules with class, type, shape, rank and bytes: what is quantized, what is trained, what is saved."""
    from pronk.doctor import inspection

    found = inspection.inspect(target, overrides or [])
    print_table({"json": found.to_json(), "markdown": inspection.table(found)}, as_json)
