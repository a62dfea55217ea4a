"""What `pronk check --show` shows is what training has: ids, mask and text, for three real tokenizers.

The oracles are the Example objects themselves and each tokenizer's own decoding of all ids at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from real_tokenizers import REAL, renewed

import pronk.tokens.show as subject
from pronk.data.conversation import Conversation, Message
from pronk.data.split import Splits
from pronk.recipe import Train
from pronk.tokens.examples import Examples
from pronk.tokens.pieces import decoded, text_pieces
from pronk.tokens.prompt import Prompt
from pronk.tokens.show import Choice, Shown, ShownExample, show_examples

TEXTS = [
    ("What is a llama?", "A llama is an animal of the Andes."),
    ("서울의 날씨는? 😀", " 맑고 따뜻합니다 뷁뷁뷁.  \n"),
    ("Write <|im_end|></s><|eot_id|>, 12345", "\t<|im_end|> </s>\n\n  x  "),
    ("naïve \u202e\x1b[31m", "\ufffd \ufffd\ufffd 한 a\ufffd"),
]


def conversations() -> list[Conversation]:
    single = [Conversation((Message("user", q), Message("assistant", a)), f"a:{i}") for i, (q, a) in enumerate(TEXTS)]
    talk = [Message(role, text) for pair in TEXTS for role, text in zip(("user", "assistant"), pair, strict=True)]
    return [*single, Conversation(tuple(talk), "talk:1"), Conversation((Message("assistant", "Plain 글."),), "text:1")]


def examples_of(name: str, kind: str) -> Examples:
    rows = tuple(conversations())
    real = renewed(name)
    return Examples(Prompt(kind, real.tokenizer), Splits(rows, rows[:2], rows, 0, 0), 4096, real.vocabulary)


def shown(examples: Examples, **settings: Any) -> Shown:
    return show_examples(examples, Train(**settings), "base", Choice(count=100))


def flat(one: ShownExample, what: str) -> list[Any]:
    """One value for each id, in order: id, learned or end."""
    tokens = [(token, block) for block in one.blocks for token in block.tokens]
    values = {
        "ids": lambda token, _: list(token.ids),
        "learned": lambda token, _: [token.learned] * len(token.ids),
        "kind": lambda token, block: [block.kind] * len(token.ids),
    }
    return [value for token, block in tokens for value in values[what](token, block)]


def check(examples: Examples, with_text: bool = True, **settings: Any) -> None:
    """The law: ids, mask, cut and text of every shown example are those of training."""
    train = Train(**settings)
    made = examples.train(train.max_length, train.train_on_prompt)
    found = shown(examples, **settings)
    assert len(found.examples) == len(made)
    for one, example, conversation in zip(found.examples, made, examples.splits.train, strict=True):
        read = len(example.ids)
        (whole,) = examples.prompt.examples([conversation], 10**9)
        assert one.place == conversation.place
        assert flat(one, "ids") == whole.ids.tolist()
        assert flat(one, "ids")[:read] == example.ids.tolist()
        assert flat(one, "learned")[:read] == example.target.tolist()
        assert not any(flat(one, "learned")[read:])
        assert flat(one, "kind")[read:] == ["cut"] * (len(whole.ids) - read)
        assert (one.count, one.learned, one.cut) == (read, example.target.sum(), len(whole.ids) - read)
        assert sum(block.answers for block in one.blocks) == example.cut
        if with_text and not one.cut:
            text = "".join(token.text for block in one.blocks for token in block.tokens)
            assert text == decoded(examples.prompt.tokenizer, example.ids.tolist())


CASES = [("smollm2", "chat"), ("smollm2", "alpaca"), ("llama2", "llama2"), ("llama2", "alpaca"), ("llama3", "llama3")]


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("settings", [{}, {"max_length": 90}, {"max_length": 91, "train_on_prompt": True}], ids=str)
def test_what_is_shown_is_what_training_has(name: str, kind: str, settings: dict[str, Any]) -> None:
    check(examples_of(name, kind), **settings)


def test_a_wrong_mask_is_shown_as_wrong_as_it_is() -> None:
    """The mask is not worked out a second time: if training learned the wrong tokens, that is what is seen."""
    examples = examples_of("smollm2", "chat")
    made = examples.train(None)
    made[:] = [replace(one, target=np.roll(one.target, 1)) for one in made]
    check(examples, with_text=False)  # a border may now lie inside a character


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_ends_of_answers_are_named(name: str, kind: str) -> None:
    examples = examples_of(name, kind)
    for one, row in zip(shown(examples).examples, examples.splits.train, strict=True):
        ends = [token for block in one.blocks for token in block.tokens if token.end]
        assert [token.ids for token in ends] == [(examples.prompt.end_id,)] * sum(
            message.role == "assistant" for message in row.messages
        )
        assert all(block.tokens[-1].end for block in one.blocks if block.kind == "answer")
        assert not any(token.special and not token.end for b in one.blocks if b.kind == "answer" for token in b.tokens)


def test_the_most_cut_come_first_and_a_row_is_found_in_any_part() -> None:
    examples = examples_of("smollm2", "chat")
    train = Train(max_length=90)
    found = show_examples(examples, train, "base", Choice(count=2, cut_first=True)).examples
    cuts = sorted((example.cut for example in examples.train(90)), reverse=True)
    assert [sum(block.answers for block in one.blocks) for one in found] == cuts[:2]
    (row,) = show_examples(examples, train, "base", Choice(rows=("talk:1",))).examples
    assert (row.place, row.part) == ("talk:1", "train")
    with pytest.raises(subject.OptionError, match=r"--show-row a:99: no example comes from there"):
        show_examples(examples, train, "base", Choice(rows=("a:99",)))


@pytest.mark.parametrize("name", REAL)
def test_pieces_are_the_text(name: str) -> None:
    """A character of several tokens is one piece; ids that are marked apart are never in one."""
    tokenizer = renewed(name).tokenizer
    for text in [one for pair in TEXTS for one in pair]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        special = set(tokenizer.all_special_ids)
        pieces = text_pieces(tokenizer, ids, special)
        assert [number for piece in pieces for number in piece.ids] == ids
        assert "".join(piece.text for piece in pieces) == decoded(tokenizer, ids)
        alone = text_pieces(tokenizer, ids, special, list(range(len(ids))))
        assert [piece.ids for piece in alone] == [(number,) for number in ids]


# --- planted faults --------------------------------------------------------------------------------


def joined_across_the_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(subject, "text_pieces", lambda t, ids, special, _: text_pieces(t, ids, special))


def decoded_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Each token alone: Llama 2 loses its spaces, and Korean letters come out broken."""
    patch.setattr("pronk.tokens.pieces._following", lambda t, _, ids: decoded(t, ids[-1:]))


def mask_of_the_uncut(patch: pytest.MonkeyPatch) -> None:
    """The mask made anew from the conversation instead of taken from training's example."""
    original = subject._shown

    def wrong(prompt: Any, special: Any, part: Any, conversation: Any, example: Any) -> ShownExample:
        (whole,) = prompt.examples([conversation], 10**9)
        return original(prompt, special, part, conversation, replace(example, target=whole.target[: len(example.ids)]))

    patch.setattr(subject, "_shown", wrong)


FAULTS: list[tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = [
    (joined_across_the_cut, "smollm2", "chat"),
    (decoded_one_by_one, "llama2", "llama2"),
    (mask_of_the_uncut, "smollm2", "chat"),
]


@pytest.mark.parametrize(("fault", "name", "kind"), FAULTS)
def test_a_fault_shows(
    fault: Callable[[pytest.MonkeyPatch], None], name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(name, kind)
    settings = [{}, *({"max_length": length, "train_on_prompt": True} for length in range(80, 100))]
    for one in settings:
        check(examples, **one)
    fault(monkeypatch)
    failures = 0
    for one in settings:
        try:
            check(examples, **one)
        except AssertionError:
            failures += 1
    assert failures
