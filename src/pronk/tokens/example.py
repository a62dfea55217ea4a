"""A conversation as the model sees it: ids, and which of them are learned."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Example:
    """ids: int64 (length); target: bool (length), true where the id is learned: each answer with its end token.

    cut: answer tokens lost to max_length. ends: of the answers that lost some, the length at which each is whole.
    asked: how many ids stand before the last answer; -1 if that is where the first target is.
    """

    ids: npt.NDArray[np.int64]
    target: npt.NDArray[np.bool_]
    cut: int = 0
    ends: tuple[int, ...] = ()
    asked: int = -1

    @property
    def cut_answers(self) -> int:
        """How many answers lost tokens to max_length."""
        return len(self.ends)

    @property
    def prompt_ids(self) -> npt.NDArray[np.int64]:
        """The ids before the last answer: what the model is asked with."""
        return self.ids[: int(np.argmax(self.target)) if self.asked < 0 else self.asked]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model is asked with, all that is new since the last answer, and its answer with the end token."""

    question: list[int]
    answer: list[int]


def make_example(turns: Sequence[Turn], max_length: int) -> Example:
    """Lay turns end to end and cut what is beyond max_length.

    An answer that is cut off entirely takes its question with it, so that no id is read for nothing.
    The first id is never a target: nothing stands before it that could predict it.
    """
    sizes = [(len(turn.question), len(turn.answer)) for turn in turns]
    length = sum(map(sum, sizes))
    ids = itertools.chain.from_iterable(part for turn in turns for part in (turn.question, turn.answer))
    ids_T = np.fromiter(ids, np.int64, length)
    target_T = np.repeat([False, True] * len(turns), np.array(sizes).ravel())
    target_T[0] = False
    ends = list(itertools.accumulate(map(sum, sizes)))
    starts = [end - size for end, (_, size) in zip(ends, sizes, strict=True)]
    stop = min(max_length, max(end for start, end in zip(starts, ends, strict=True) if start < max_length))
    return Example(
        ids_T[:stop], target_T[:stop],
        cut=int(target_T[stop:].sum()),
        ends=tuple(end for end in ends if end > max_length),
        asked=max(1, *(start for start in starts if start < stop)),
    )  # fmt: skip


def learned_whole(example: Example, begin: int | None) -> Example:
    """The same with every id learned but the first and those that begin a text."""
    target_T = example.ids != begin
    target_T[0] = False
    return replace(example, target=target_T)
