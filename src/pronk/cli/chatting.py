"""The verb that talks with models: chat."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from pronk.cli.shared import Json, Set, console, say


def chat(
    models: Annotated[
        list[str],
        typer.Argument(metavar="RUN|BASE…", help="Run folders, study folders, PEFT adapters or bases, in any number."),
    ],
    base: Annotated[bool, typer.Option("--base", help="Add the base of the runs.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Talk in the browser instead: prints a local address.")] = False,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A system message.", show_default="what the runs were trained with"),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Draw tokens; 0 takes the likeliest one each time.", show_default="0.0")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many likeliest tokens.", show_default="all")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest of this probability together.", show_default="1.0")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.", show_default="256")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End an answer here. Again for more.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the drawing.", show_default="42")] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="How a base is asked, as in recipes.", show_default="chat if it has a template, else alpaca"),
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Talk with runs and bases, side by side; each sees its own answers. Piped lines are questions."""
    from pronk.ask.conversation import Conversation
    from pronk.ask.models import find_models
    from pronk.errors import OptionError
    from pronk.recipe import generation_settings
    from pronk.ui import chat as room

    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    given = {**drawing, "max_new_tokens": max_new_tokens, "stop": stop or None}
    settings = generation_settings({key: value for key, value in given.items() if value is not None})
    if web and as_json:
        raise OptionError("--web talks in the browser and --json prints answers: leave one of them out")
    try:
        found = find_models(models, base, prompt, overrides or [])
        conversation = Conversation(found, settings, console(), system)
        for line in room.introduction(conversation, found):
            say(line)
        if web:
            from pronk.ui.chat_page import serve_chat

            return serve_chat(conversation, found, say)
        typed = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        lines = room.typed_lines() if typed else room.piped_lines()
        tell = partial(say, style="dim") if typed else say
        code = room.Terminal(conversation, console(stderr=False), tell, typed, as_json).run(lines)
    except KeyboardInterrupt:
        code = 130
    if code:
        sys.exit(code)
