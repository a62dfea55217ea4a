"""Examples as training sees them, for people: what is asked, what is learned, what was cut off.

The ids and the loss mask are those of the Example objects that training takes its batches from; nothing is worked
out a second time. show_terminal.py and show_page.py write what is chosen here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from pronk.data.conversation import Conversation
from pronk.errors import OptionError
from pronk.recipe import Train
from pronk.tokens.example import Example
from pronk.tokens.examples import USUAL_LENGTH, Examples
from pronk.tokens.pieces import text_pieces
from pronk.tokens.prompt import Prompt
from pronk.tokens.special import special_tokens

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Kind = Literal["prompt", "answer", "cut"]
USUAL_COUNT = 5  # examples, where nobody says how many


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text with its ids. learned: whether the loss counts them. end: the token that ends an answer."""

    text: str
    ids: tuple[int, ...]
    learned: bool
    special: bool
    end: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens between two borders: a prompt, an answer with its end token, or what was cut off.

    answers: of what was cut off, those of an answer.
    """

    kind: Kind
    tokens: tuple[Token, ...]
    answers: int = 0

    @property
    def count(self) -> int:
        """How many ids."""
        return sum(len(token.ids) for token in self.tokens)

    @property
    def learned(self) -> int:
        """How many ids the loss counts."""
        return sum(len(token.ids) for token in self.tokens if token.learned)


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One example. part: train, validation or test. The blocks hold its ids in order, then those that were cut off."""

    place: str
    part: Part
    blocks: tuple[Block, ...]

    @property
    def count(self) -> int:
        """How many ids are read."""
        return sum(block.count for block in self.blocks if block.kind != "cut")

    @property
    def learned(self) -> int:
        """How many ids the loss counts."""
        return sum(block.learned for block in self.blocks)

    @property
    def cut(self) -> int:
        """How many ids were cut off."""
        return sum(block.count for block in self.blocks if block.kind == "cut")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which examples to show: the first `count` of a part, or those of the named rows (FILE:LINE).

    cut_first: those that lost the most to max_length come first.
    """

    count: int = USUAL_COUNT
    part: Part = "train"
    rows: tuple[str, ...] = ()
    cut_first: bool = False


@dataclass(frozen=True)
class Shown:
    """Chosen examples, and what there is to know about all of them. of: how many the part has; cut_rows: how many
    of these lost tokens. end: the name of the end token."""

    examples: tuple[ShownExample, ...]
    base: str
    prompt: str
    max_length: int
    end: str
    end_id: int
    of: int
    cut_rows: int
    choice: Choice = field(default_factory=Choice)


def show_examples(examples: Examples, train: Train, base: str, choice: Choice) -> Shown:
    """The chosen examples of one base, as a run with the settings `train` learns or is measured on them.

    Raises OptionError for a row that is in no part, or a part that has no rows.
    """
    prompt = examples.prompt
    chosen = _of_rows(examples, train, choice) if choice.rows else _of_part(examples, train, choice)
    special = frozenset(special_tokens(prompt.tokenizer).values())
    shown = tuple(_shown(prompt, special, *one) for one in chosen)
    in_part = [example for _, example in _pairs(examples, train, choice.part)]
    length = min(USUAL_LENGTH, examples.context) if train.max_length is None else train.max_length
    return Shown(
        shown, base, prompt.kind, examples.context if choice.part == "test" else length,
        str(prompt.tokenizer.convert_ids_to_tokens(prompt.end_id)), prompt.end_id, len(in_part),
        sum(example.cut > 0 for example in in_part), choice,
    )  # fmt: skip


Chosen = tuple[Part, Conversation, Example]


def _pairs(examples: Examples, train: Train, part: Part) -> list[tuple[Conversation, Example]]:
    """Every row of a part beside the example that training, validation or test make of it."""
    if part == "test":
        return list(zip(examples.splits.test, examples.test, strict=True))
    make = examples.train if part == "train" else examples.validation
    made = make(train.max_length, train.train_on_prompt)
    return list(zip(examples.kept(part, train.max_length), made, strict=True))


def _of_part(examples: Examples, train: Train, choice: Choice) -> Iterator[Chosen]:
    pairs = _pairs(examples, train, choice.part)
    if not pairs:
        raise OptionError(f"--split {choice.part}: the recipe leaves no rows for it (data.split.{choice.part})")
    if choice.cut_first:
        pairs = sorted(pairs, key=lambda pair: -pair[1].cut)  # stable: the rest stay in their order
    for conversation, example in pairs[: choice.count]:
        yield choice.part, conversation, example


def _of_rows(examples: Examples, train: Train, choice: Choice) -> Iterator[Chosen]:
    found: dict[str, Chosen] = {}
    for part in PARTS:
        for conversation, example in _pairs(examples, train, part):
            found.setdefault(conversation.place, (part, conversation, example))
    for row in choice.rows:
        if row not in found:
            raise OptionError(
                f"--show-row {row}: no example comes from there; expected file and line such as {next(iter(found))}, "
                "and a row that is kept (data.where), drawn (data.split) and not the duplicate of an earlier one"
            )
        yield found[row]


def _shown(
    prompt: Prompt, special: frozenset[int], part: Part, conversation: Conversation, example: Example
) -> ShownExample:
    (whole,) = prompt.examples([conversation], sys.maxsize)  # the same, with nothing cut off
    read, ids = len(example.ids), whole.ids.tolist()
    answer = whole.target.tolist()
    if len(conversation.messages) == 1 and prompt.begin != ids[0]:
        answer[0] = True  # plain text: its first token is no target, since nothing stands before it, but no prompt
    ends = [answer[i] and answer[i + 1 : i + 2] != [True] and ids[i] == prompt.end_id for i in range(len(ids))]
    kinds: list[Kind] = ["cut" if i >= read else "answer" if answer[i] else "prompt" for i in range(len(ids))]
    learned = [*example.target.tolist(), *(False for _ in ids[read:])]
    pieces = text_pieces(prompt.tokenizer, ids, special, list(zip(kinds, learned, answer, strict=True)))
    blocks = []
    for kind, group in groupby(pieces, lambda piece: kinds[piece.start]):
        tokens = [Token(one.text, one.ids, learned[one.start], one.special, ends[one.start]) for one in group]
        blocks.append(Block(kind, tuple(tokens), example.cut if kind == "cut" else 0))
    return ShownExample(conversation.place, part, tuple(blocks))
