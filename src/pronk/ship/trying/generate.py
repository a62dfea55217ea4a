"""`pronk try generate`: a base goes on with a text, or answers in its own chat form where it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Answer, Answered, Ended, ask, cut, open_reader
from pronk.ask.models import Form, Model
from pronk.data.questions import Question
from pronk.errors import OptionError
from pronk.recipe import Generation, generation_settings
from pronk.ship.trying.models import (
    OURS,
    Pretrained,
    at_work,
    check_lengths,
    check_overrides,
    find_pretrained,
    load_pretrained,
    readable_length,
    refuse_other_task,
)

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 2048  # tokens of a text and its answer, of a model that does not say what it reads


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
    model = Model(found.name, found.recipe, Form("alpaca", plain=True) if plain else Form(prompt))
    if found.config.model_type in OURS:
        return ask([model], texts, checked, console)
    check_overrides(overrides)
    return _by_transformers(found, model, texts, checked, console)


def _by_transformers(
    found: Pretrained, model: Model, texts: Sequence[Question], settings: Generation, console: Console
) -> Answered:
    """The same by transformers' own `generate`, one text after another. Ctrl-C keeps what is written."""
    from pronk.train.interrupt import listen
    from pronk.train.progress import say, work

    reader = open_reader(0, model, partial(say, console), {})
    ids = reader.ids(texts)
    most = readable_length(found.config, reader.prompt.tokenizer) or LONGEST
    check_lengths(found.name, [one.place for one in texts], ids, most - 1)
    answers: list[Answer] = []
    with listen(lambda _: say(console, "stopping; what is answered is kept")) as stop:
        with console.status(f"loading {found.name}"):
            loaded = load_pretrained(found)
        with work(console, "answering", len(texts)) as bar, at_work(found.name, "answering"):
            for text, one in zip(texts, ids, strict=True):
                limit = min(settings.max_new_tokens, most - len(one))
                written = _written(loaded, one, limit, reader.prompt.end_id, settings, lambda: stop.asked)
                if stop.asked:
                    break
                answers.append(_answer(found.name, text, written, reader.prompt, settings))
                bar.advance()
    return Answered((found.name,), tuple(texts), settings, tuple(answers), bool(stop.asked))


def _written(
    model: Any, ids: Sequence[int], limit: int, end_id: int, settings: Generation, stopped: Callable[[], int]
) -> list[int]:
    """The ids behind a text, the end token among them if it comes."""
    import torch

    drawing: dict[str, Any] = {"do_sample": settings.draws, "num_beams": 1}
    if settings.draws:
        torch.manual_seed(settings.seed)
        drawing |= {"temperature": settings.temperature, "top_k": settings.top_k or 0, "top_p": settings.top_p}
    given = torch.tensor([list(ids)], device=model.device)
    made = model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=limit, eos_token_id=end_id, pad_token_id=end_id,
        stopping_criteria=[lambda rows, *_, **__: torch.full((len(rows),), bool(stopped()), device=rows.device)],
        **drawing,
    )  # fmt: skip
    return [int(token) for token in made[0, len(ids) :]]


def _answer(name: str, question: Question, ids: Sequence[int], prompt: Any, settings: Generation) -> Answer:
    at_end = bool(ids) and ids[-1] == prompt.end_id
    kept = list(ids[:-1] if at_end else ids)
    text, cut_off = cut(prompt.tokenizer.decode(kept, skip_special_tokens=True), settings.stop)
    ended: Ended = "stop" if cut_off else "end" if at_end else "length"
    return Answer(name, question, text if ended != "length" else text.rstrip("\ufffd"), ended, len(kept))
