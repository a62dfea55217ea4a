"""How long examples are in tokens: what max_length must be, and which rows a base cannot read."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pronk.data.conversation import Conversation
from pronk.doctor.new_recipe.bases import BaseFacts
from pronk.errors import PromptError

MOST_MEASURED = 20_000  # rows; of more, every n-th and the longest ones
ALWAYS_MEASURED = 500
BYTES_PER_TOKEN, FORM_TOKENS = 3, 64  # a guess on the safe side, where there is no tokenizer
SHARE = 99  # percent of rows, and of answers, that max_length keeps whole
ANSWER_ROOM = 32  # tokens of an answer that are kept at least, be its prompt as long as it may
STEP = 64


@dataclass(frozen=True)
class Lengths:
    """Tokens of each measured row. whole: all of it; first: before its first answer; last: before its last one.

    rows: which of the conversations. ends: where each answer ends, of all rows together; owners: the place in `rows`
    that it belongs to. guessed: from the number of
    bytes, without a tokenizer. prompt: the form in which they were measured.
    """

    rows: npt.NDArray[np.int64]
    whole: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    prompt: str
    guessed: bool = False
    text_bytes: int = 0

    @property
    def usual(self) -> int:
        """Tokens that 99% of the rows, and of the answers, end within."""
        return max(_percentile(self.whole), _percentile(self.ends))

    def of(self, conversations: Collection[int]) -> Lengths:
        """Of some of the conversations alone, by their numbers; of all if none of them was measured."""
        kept = np.isin(self.rows, list(conversations))
        if not kept.any():
            return self
        return replace(
            self, rows=self.rows[kept], whole=self.whole[kept], first=self.first[kept], last=self.last[kept],
            ends=self.ends[kept[self.owners]], owners=np.cumsum(kept)[self.owners[kept[self.owners]]] - 1,
        )  # fmt: skip

    def fitting(self, context: int) -> npt.NDArray[np.bool_]:
        """Which measured rows a base of this context can learn from and be tested on, uncut."""
        return self.whole <= context


def max_length(usual: int, longest_prompt: int) -> int:
    """Tokens rounded up to a multiple of 64, enough for the longest prompt and a part of its answer."""
    return -(-max(usual, longest_prompt + ANSWER_ROOM) // STEP) * STEP


def measure(conversations: Sequence[Conversation], base: BaseFacts, kinds: Sequence[str]) -> tuple[Lengths, str]:
    """Lengths in the first prompt form that writes these conversations; also why an earlier one did not.

    Raises PromptError where none does.
    """
    chosen = _chosen(conversations)
    if base.tokenizer is None:
        return _guessed(conversations, chosen, kinds[0]), ""
    why = ""
    for kind in kinds:
        try:
            return _measured(conversations, chosen, base, kind), why
        except PromptError as error:
            why = str(error)
    raise PromptError(why)


def _chosen(conversations: Sequence[Conversation]) -> npt.NDArray[np.int64]:
    count = len(conversations)
    if count <= MOST_MEASURED:
        return np.arange(count)
    letters = np.array([_bytes(one) for one in conversations])
    longest = np.argsort(letters)[-ALWAYS_MEASURED:]
    return np.unique(np.concatenate([np.arange(0, count, -(-count // MOST_MEASURED)), longest]))


def _measured(
    conversations: Sequence[Conversation], chosen: npt.NDArray[np.int64], base: BaseFacts, kind: str
) -> Lengths:
    from pronk.tokens.prompt import Prompt

    template = getattr(base.tokenizer, "chat_template", None)
    try:
        examples = Prompt(kind, base.tokenizer).examples([conversations[row] for row in chosen], sys.maxsize)
    finally:
        base.tokenizer.chat_template = template  # a prompt form puts its own there
    ends = [np.flatnonzero(np.diff([*one.target.astype(np.int8), 0]) == -1) + 1 for one in examples]
    return Lengths(
        chosen,
        np.array([len(one.ids) for one in examples]),
        np.array([int(np.argmax(one.target)) for one in examples]),
        np.array([len(one.prompt_ids) for one in examples]),
        np.concatenate(ends),
        np.repeat(np.arange(len(ends)), [len(one) for one in ends]),
        kind,
        text_bytes=sum(_bytes(conversations[row]) for row in chosen),
    )


def _guessed(conversations: Sequence[Conversation], chosen: npt.NDArray[np.int64], kind: str) -> Lengths:
    sizes = [(_bytes(conversations[row]), len(conversations[row].answer.encode())) for row in chosen]
    whole = np.array([size // BYTES_PER_TOKEN + FORM_TOKENS for size, _ in sizes])
    before = np.array([(size - answer) // BYTES_PER_TOKEN + FORM_TOKENS - 1 for size, answer in sizes])
    return Lengths(chosen, whole, before, before, whole, np.arange(len(chosen)), kind, guessed=True)


def _bytes(conversation: Conversation) -> int:
    return sum(len(one.content.encode()) + len(one.context.encode()) for one in conversation.messages)


def _percentile(values: npt.NDArray[np.int64]) -> int:
    return int(np.percentile(values, SHARE, method="higher"))
