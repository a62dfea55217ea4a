"""The verb that talks with models: chat."""

from __future__ import annotations

import sys
from functools import partial
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
    say,
)


def chat(
    models: Models,
    base: Annotated[bool, typer.Option("--base", help="Add the base of the runs.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Talk in the browser instead: prints a local address.")] = False,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A system message.", show_default="what the runs were trained with"),
    ] = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    seed: Seed = None,
    prompt: Form = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Talk with runs and bases, side by side; each sees its own answers. Piped lines are questions."""
    from pronk.ask.conversation import Conversation
    from pronk.ask.models import find_models
    from pronk.errors import OptionError
    from pronk.recipe import generation_settings
    from pronk.ui import chat as room

    chosen = only_given(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens, stop=stop
    )
    settings = generation_settings(chosen)
    if web and as_json:
        raise OptionError("--web talks in the browser and --json prints answers: leave one of them out")
    try:
        found = find_models(models, base, prompt, overrides or [])
        conversation = Conversation(found, settings, console(), system)
        notes = room.notes(found)
        if web:
            from pronk.ui.chat_page import serve_chat

            return serve_chat(conversation, notes, say)
        for line in (room.greeting(conversation), *notes):
            say(line)
        typed = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        lines = room.typed_lines() if typed else room.piped_lines()
        tell = partial(say, style="dim") if typed else say
        code = room.Terminal(conversation, console(stderr=False), tell, typed, as_json).run(lines)
    except KeyboardInterrupt:
        code = 130
    if code:
        sys.exit(code)
