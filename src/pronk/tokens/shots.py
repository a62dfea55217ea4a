"""Questions with examples before them, as one base model sees them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pronk.data.conversation import Conversation
from pronk.data.shots import after_shots
from pronk.tokens.example import Example
from pronk.tokens.examples import Examples


@dataclass(frozen=True, slots=True)
class ShotPrompts:
    """The test rows with examples before them. longest: tokens of the longest, its answer included; context: what
    the base reads. too_long: how many rows need more than that."""

    shots: int
    examples: list[Example]
    longest: int
    too_long: int
    context: int


def shot_prompts(examples: Examples, shots: Sequence[Conversation], answer_room: int = 0) -> ShotPrompts:
    """Every test row with these examples as earlier turns, whole; its own answers alone are measured.

    Without examples: the test rows as they are, cut as ever. answer_room: tokens that an answer may take.
    """
    rows, context = examples.splits.test, examples.context
    if not shots:
        return ShotPrompts(0, examples.test, max((len(one.ids) for one in examples.test), default=0), 0, context)
    made = examples.prompt.examples([after_shots(row, shots) for row in rows], sys.maxsize, every_answer=True)
    own = [_last_answers(one, _answers(row)) for one, row in zip(made, rows, strict=True)]
    needed = [max(len(one.ids), len(one.prompt_ids) + answer_room) for one in own]
    too_long = sum(length > context for length in needed)
    return ShotPrompts(len(shots), own, max(needed, default=0), too_long, context)


def _answers(row: Conversation) -> int:
    return sum(message.role == "assistant" for message in row.messages)


def _last_answers(example: Example, count: int) -> Example:
    """The same with its last `count` answers as targets."""
    begins_T = example.target & ~np.concatenate([[False], example.target[:-1]])
    start = np.flatnonzero(begins_T)[-count]
    return replace(example, target=example.target & (np.arange(len(example.ids)) >= start))
