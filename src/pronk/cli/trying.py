"""The verbs that try a pretrained model before anything is tuned: try generate, try classify, try translate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from pronk.cli.shared import (
    Form,
    Json,
    MaxNewTokens,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    console,
    only_given,
    say,
)

trying = typer.Typer(
    help="A pretrained model first, as it is: writing, classifying, translating.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Texts = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT…", help="Texts; or --file, or lines piped in.", show_default=False)
]
Base = Annotated[str, typer.Option("--base", metavar="BASE", help="As in recipes: smollm2, a folder, a hub id.")]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="A .txt file, a text a line; or the column `text` of a .jsonl, …"),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Where and how it computes: train.device=cpu, train.dtype=bf16."),
]

Found = TypeVar("Found")


@trying.command()
def generate(
    base: Base,
    texts: Texts = None,
    file: File = None,
    plain: Annotated[bool, typer.Option("--plain", help="Go on with the text, without the chat template.")] = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    seed: Seed = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="How it is asked, as in recipes.", show_default="chat if it has a template, else --plain"),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """What a base writes: an answer, or how a text goes on."""
    from pronk import ask
    from pronk.ship.trying.generate import generate as write
    from pronk.ship.trying.texts import read_texts

    settings = only_given(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, max_new_tokens=max_new_tokens, stop=stop
    )
    read = read_texts(texts or [], file, sys.stdin)
    found = _heard(lambda: write(base, read, plain, prompt, settings, overrides or [], console()))
    print(ask.as_json(found)) if as_json else ask.show(found, console(stderr=False))
    _end(found.interrupted, len(found.answers), len(read))


@trying.command()
def classify(
    base: Base,
    texts: Texts = None,
    file: File = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Labels to choose from.", show_default="those a classifier was trained on"),
    ] = None,
    hypothesis: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What an NLI model is asked of a label.", show_default="This example is {}."),
    ] = None,
    prompt: Form = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Probabilities of labels, its own or yours.

    A classifier has labels of its own; an NLI model or a causal language model takes any.
    """
    from pronk.ship.trying import shown as try_shown
    from pronk.ship.trying.classify import classify as sort
    from pronk.ship.trying.texts import read_texts

    read = read_texts(texts or [], file, sys.stdin)
    given = try_shown.named(labels)
    found = _heard(lambda: sort(base, read, given, hypothesis, prompt, overrides or [], console()))
    if as_json:
        print(try_shown.classes_as_json(found))
    else:
        try_shown.show_classes(found, console(stderr=False))
    _end(found.interrupted, len(found.results), len(read))


@trying.command()
def translate(
    base: Base,
    texts: Texts = None,
    file: File = None,
    source: Annotated[str | None, typer.Option("--from", metavar="CODE", help="The texts' language.")] = None,
    target: Annotated[str | None, typer.Option("--to", metavar="CODE", help="The language wanted.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a translation.", show_default="the model's own limit")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Translations by Marian, M2M100, NLLB, mBART or T5.

    The languages are the model's own codes, and the beam search is its own.
    """
    from pronk.ship.trying import shown as try_shown
    from pronk.ship.trying.texts import read_texts
    from pronk.ship.trying.translate import translate as turn

    read = read_texts(texts or [], file, sys.stdin)
    found = _heard(lambda: turn(base, read, source, target, max_new_tokens, overrides or [], console()))
    if as_json:
        print(try_shown.translations_as_json(found))
    else:
        try_shown.show_translations(found, console(stderr=False))
    _end(found.interrupted, len(found.results), len(read))


def _heard(do: Callable[[], Found]) -> Found:
    """What is done; Ctrl-C before there is anything ends with 130."""
    try:
        return do()
    except KeyboardInterrupt:
        say("interrupted; nothing was done yet")
        sys.exit(130)


def _end(interrupted: Any, done: int, asked: int) -> None:
    if interrupted:
        say(f"interrupted; {done} of {asked} texts are done")
        sys.exit(130)
