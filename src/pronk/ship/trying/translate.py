"""`pronk try translate`: encoder-decoder models, each family with its own way to name languages.

M2M100, NLLB and mBART have a token for each language: one before the text, one that the answer must begin with.
Marian models know one pair, or take the language to translate into as a token before the text. T5 reads it in words.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pronk.data.questions import Question
from pronk.data.words import counted
from pronk.errors import OptionError
from pronk.recipe import Generation
from pronk.ship.trying.models import (
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

    from pronk.train.interrupt import Interruption

BATCH_TOKENS = 4096  # of texts and translations together, over all beams
CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]+")  # en_XX, eng_Latn
PAIR = re.compile(r"translation_(\w+)_to_(\w+)")  # T5's tasks in config.json
FEW = 8  # codes that a message names
NO_POSITIONS = 10**9  # of a model that knows distances only, such as T5
# what a task of T5's may say of its search, beside its prefix
SEARCH = ("num_beams", "max_length", "early_stopping", "length_penalty", "no_repeat_ngram_size")


@dataclass(frozen=True)
class Translated:
    """A text in the other language. ended: whether the model ended it, or its limit did."""

    question: Question
    text: str
    ended: bool


@dataclass(frozen=True)
class Translation:
    """What was translated. beams: how many were searched. interrupted: some texts may be missing."""

    base: str
    source: str | None
    target: str | None
    beams: int
    results: tuple[Translated, ...]
    interrupted: bool = False


@dataclass(frozen=True)
class Direction:
    """How a model is told the languages. prefix: what stands before a text. source: as the tokenizer is told.
    begin: the id that a translation must begin with. search: of T5, whose tasks each have their own."""

    prefix: str = ""
    source: str | None = None
    begin: int | None = None
    search: Mapping[str, Any] = field(default_factory=dict)


def translate(
    name: str, texts: Sequence[Question], source: str | None, target: str | None, max_new_tokens: int | None,
    overrides: Sequence[str], console: Console,
) -> Translation:  # fmt: skip
    """Each text in the other language, by the beam search that the model comes with; nothing is drawn.

    source, target: the model's own codes of languages; None where it knows one pair. max_new_tokens: None for the
    model's own limit. Raises BaseModelError, OptionError or DataError; Ctrl-C keeps what is done.
    """
    from pronk.train.interrupt import listen
    from pronk.train.progress import say, work

    found = find_pretrained(name, overrides, partial(say, console))
    refuse_other_task(found, "translator")
    check_overrides(overrides)
    tokenizer, way = _told(found, source, target)
    rows = [tokenizer(way.prefix + one.text)["input_ids"] for one in texts]
    check_lengths(found.name, [one.place for one in texts], rows, readable_length(found.config, tokenizer))
    done: dict[int, Translated] = {}
    with listen(lambda _: say(console, "stopping; what is translated is kept")) as stop:
        with console.status(f"loading {found.name}"):
            model = load_pretrained(found)
        settings = _settings(model, way, max_new_tokens)
        with work(console, "translating", len(texts)) as bar:
            for places, answers in _batches(found.name, model, tokenizer, rows, settings, stop):
                done |= {place: Translated(texts[place], *one) for place, one in zip(places, answers, strict=True)}
                bar.advance(len(places))
    results = tuple(done[place] for place in sorted(done))
    return Translation(found.name, source, target, settings["num_beams"], results, bool(stop.asked))


def _told(found: Pretrained, source: str | None, target: str | None) -> tuple[Any, Direction]:
    """The tokenizer, told what language it reads, and the direction. No weights are loaded."""
    from pronk.model.load import load_tokenizer

    with warnings.catch_warnings():
        # Marian's tokenizer recommends a package that it calls nowhere while it reads a text
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        tokenizer = load_tokenizer(found.base)
    way = direction(found.name, tokenizer, found.config, source, target)
    if way.source is not None:
        tokenizer.src_lang = way.source
    return tokenizer, way


def direction(name: str, tokenizer: Any, config: Any, source: str | None, target: str | None) -> Direction:
    """How a model is told to translate. Raises OptionError for a language that it does not know, with those it does."""
    if codes := language_codes(tokenizer):
        _known(name, "--from", source, codes)
        _known(name, "--to", target, codes)
        return Direction(source=source, begin=codes[str(target)])
    if hasattr(tokenizer, "supported_language_codes"):
        return _marian(name, tokenizer, source, target)
    if tasks := _tasks(config):
        return _t5(name, tasks, source, target)
    if source is not None or target is not None:
        raise OptionError(
            f"--from, --to: {name} names no languages in its tokenizer or configuration; leave both out, and begin "
            "each text as it was trained, if it was: 'translate English to German: …'"
        )
    return Direction()


def language_codes(tokenizer: Any) -> dict[str, int]:
    """The ids of the languages for which a tokenizer has tokens; empty for one that has none."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    if own := getattr(tokenizer, "lang_code_to_id", None):  # M2M100, mBART-50
        return {str(code): int(number) for code, number in own.items()}
    codes = [token for token in tokenizer.all_special_tokens if CODE.fullmatch(token)]  # NLLB, mBART
    return dict(zip(codes, tokenizer.convert_tokens_to_ids(codes), strict=True))


def _marian(name: str, tokenizer: Any, source: str | None, target: str | None) -> Direction:
    """A pair of its own, or a target as a token before the text: >>fra<<."""
    targets = {code.strip("><"): 0 for code in tokenizer.supported_language_codes}
    _only("--from", source, tokenizer.source_lang, f"{name} translates from")
    if targets:
        _known(name, "--to", target, targets)
        return Direction(prefix=f">>{target}<< ")
    _only("--to", target, tokenizer.target_lang, f"{name} translates into")
    return Direction()


def _only(option: str, given: str | None, own: str | None, what: str) -> None:
    """Raise OptionError for another language than the one that a model knows on a side."""
    if given is not None and given != own:
        advice = f"{own} only; write {option} {own}" if own else "a language that it does not name; check its page"
        raise OptionError(f"{option} {given}: {what} {advice}, or leave it out")


def _tasks(config: Any) -> dict[tuple[str, str], Mapping[str, Any]]:
    """What T5's configuration says of each pair of languages: `prefix`, which stands before a text, and its search."""
    tasks = getattr(config, "task_specific_params", None)
    found = {}
    for task, settings in tasks.items() if isinstance(tasks, Mapping) else ():
        pair = PAIR.fullmatch(str(task))
        if pair and isinstance(settings, Mapping) and isinstance(settings.get("prefix"), str):
            found[pair[1], pair[2]] = settings
    return found


def _t5(name: str, tasks: Mapping[tuple[str, str], Any], source: str | None, target: str | None) -> Direction:
    if (task := tasks.get((str(source), str(target)))) is None:
        known = ", ".join(f"--from {one} --to {two}" for one, two in list(tasks)[:FEW])
        given = f"found {source or 'nothing'} and {target or 'nothing'}"
        raise OptionError(f"--from, --to: {given}; {name} was trained on {known}")
    return Direction(prefix=task["prefix"], search={key: task[key] for key in SEARCH if key in task})


def _known(name: str, option: str, code: str | None, codes: Mapping[str, int]) -> None:
    """Raise OptionError where a language is missing or unknown, with those that are meant perhaps."""
    if code is not None and code in codes:
        return
    near = [one for one in codes if code and one.lower().startswith(code.lower()[:2])]
    listed = ", ".join((near or list(codes))[:FEW])
    count = f"{name} knows {counted(len(codes), 'language')}"
    if code is None:
        raise OptionError(f"{option}: {count} and must be told which, such as {listed}")
    raise OptionError(f"{option} {code}: {count}, and not this one; {'near it' if near else 'such as'}: {listed}")


def _settings(model: Any, way: Direction, max_new_tokens: int | None) -> dict[str, Any]:
    """What `generate` is told beside the model's own settings."""
    own = model.generation_config
    settings: dict[str, Any] = {"do_sample": False, "num_beams": own.num_beams or 1, **way.search}
    if way.begin is not None:
        settings["forced_bos_token_id"] = way.begin
    says = own.max_new_tokens or own.max_length or way.search.get("max_length")
    if max_new_tokens is not None or not says:  # where nobody says, transformers cuts at 20 tokens
        positions = getattr(model.config, "max_position_embeddings", None) or NO_POSITIONS
        settings.pop("max_length", None)
        settings["max_new_tokens"] = min(max_new_tokens or Generation().max_new_tokens, positions - 1)
    return settings


def _batches(
    name: str,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    settings: Mapping[str, Any],
    stop: Interruption,
) -> Iterator[tuple[list[int], list[tuple[str, bool]]]]:
    """Places and translations, the longest texts first; with each whether the model ended it. None once it is to
    stop, which is heard at every token."""
    import torch

    from pronk.evaluate.batches import prompt_batches

    def stopped(ids: Any, *_: Any, **__: Any) -> Any:
        return torch.full((len(ids),), bool(stop.asked), device=ids.device)

    for batch in prompt_batches(rows, [0], max(1, BATCH_TOKENS // settings["num_beams"]), 0):
        places = [place for place, _ in batch]
        inputs = tokenizer.pad({"input_ids": [list(rows[place]) for place in places]}, return_tensors="pt")
        with at_work(name, "translating"):
            ids = model.generate(**inputs.to(model.device), **settings, stopping_criteria=[stopped])
        if stop.asked:
            return
        written = ids[:, 1:]  # without what the decoder begins with, which may be the same as the end
        if "forced_bos_token_id" in settings:  # the language: not every tokenizer knows it for a special token
            written = written[:, 1:]
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        ended = (written == tokenizer.eos_token_id).any(dim=1).tolist()
        yield places, list(zip((text.strip() for text in texts), ended, strict=True))
