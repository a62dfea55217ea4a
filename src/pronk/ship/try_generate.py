"""`pronk try generate`: a base goes on with a text, or answers in its own chat form where it has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Answered, ask
from pronk.ask.models import Form, Model
from pronk.data.questions import Question
from pronk.errors import OptionError
from pronk.recipe import generation_settings
from pronk.ship.try_models import find_pretrained, refuse_other_task

if TYPE_CHECKING:
    from rich.console import Console


def generate(
    name: str, texts: Sequence[Question], plain: bool, prompt: str | None, settings: Mapping[str, Any],
    overrides: Sequence[str], console: Console,
) -> Answered:  # fmt: skip
    """What a pretrained model writes after each text.

    plain: the text is gone on with in no form, as it is for every model without a chat template. prompt: another form,
    as in recipes. settings: of recipe.Generation. Raises BaseModelError, OptionError or DataError before any weights
    are loaded where that can be.
    """
    from pronk.model.load import load_tokenizer
    from pronk.train.progress import say

    if plain and prompt is not None:
        raise OptionError(f"--plain and --prompt {prompt} contradict each other: leave one of them out")
    checked = generation_settings(settings)
    given = list(overrides) if prompt is None else [f"prompt={prompt}", *overrides]
    found = find_pretrained(name, given, partial(say, console))
    refuse_other_task(found, "causal")
    if not plain and prompt is None and not getattr(load_tokenizer(found.base), "chat_template", None):
        say(console, f"{found.name} has no chat template, so it goes on with the text as it stands")
        plain = True
    # alpaca writes nothing of its own around a plain text, and needs no template of the base
    form = Form("alpaca", plain=True) if plain else Form(prompt)
    model = Model(found.name, found.recipe, form)
    return ask([replace(model, recipe=found.recipe)], texts, checked, console)
