"""What one training sees of the data, and how a finding is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from pronk.data.checks.private import masked
from pronk.data.conversation import Conversation, shortened
from pronk.data.finding import SHOWN, Finding, Row, Severity
from pronk.data.words import counted
from pronk.tokens.examples import Examples
from pronk.tokens.prompt import Example, Prompt, TooLong


@dataclass(frozen=True)
class View:
    """The examples of one base, cut to one length; on_prompt: what is asked is learned as well.

    max_length: as in the recipe. batch_size: examples of an optimizer step.
    """

    of: Examples
    max_length: int | None
    on_prompt: bool = False
    batch_size: int = 1

    @property
    def prompt(self) -> Prompt:
        """The prompt form on the base's tokenizer."""
        return self.of.prompt

    @property
    def length(self) -> int:
        """Tokens of the longest example that is allowed."""
        return self.of.length(self.max_length)

    @cached_property
    def train(self) -> list[tuple[Conversation, Example]]:
        """Training rows with their examples."""
        examples = self.of.train(self.max_length, self.on_prompt)
        return list(zip(self.of.kept("train", self.max_length), examples, strict=True))

    @cached_property
    def sizes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tokens of each training example that are read only, and that are learned."""
        learned = np.array([int(one.target.sum()) for _, one in self.train], dtype=np.int64)
        whole = np.array([len(one.ids) for _, one in self.train], dtype=np.int64)
        return whole - learned, learned

    @cached_property
    def rows(self) -> list[tuple[Conversation, Example]]:
        """Training and validation rows with their examples."""
        examples = self.of.validation(self.max_length, self.on_prompt)
        return [*self.train, *zip(self.of.kept("validation", self.max_length), examples, strict=True)]

    def left_out(self, part: str) -> list[TooLong]:
        """The rows of train or validation whose prompt leaves no room for the answer."""
        return self.of.left_out(part, self.max_length)

    @property
    def conversations(self) -> list[Conversation]:
        """All rows, those of the test included."""
        return [*self.of.splits.train, *self.of.splits.validation, *self.of.splits.test]


def spread(rows: Sequence[Conversation], most: int) -> Iterator[int]:
    """At most so many places, evenly spread over the rows."""
    return islice(range(0, len(rows), max(1, -(-len(rows) // most))), most)


def shown(rows: Iterable[tuple[Conversation, str]]) -> tuple[Row, ...]:
    """The rows that a finding shows, each with what of it matters; secrets and personal data are masked."""
    return tuple(Row(row.place, shortened(masked(text)[0], 160)) for row, text in islice(rows, SHOWN))


def finding(
    name: str, severity: Severity, message: str, remedy: str, rows: Sequence[tuple[Conversation, str]], total: int,
    unit: str = "rows", count: int | None = None,
) -> Finding:  # fmt: skip
    """A finding about rows, or about a part of each; count: how many where it is not one a row."""
    return Finding(name, severity, message, remedy, len(rows) if count is None else count, total, unit, shown(rows))


def around(text: str, start: int, end: int, letters: int = 60) -> str:
    """A place in a text with what stands around it."""
    before, after = text[max(0, start - letters) : start], text[end : end + letters]
    return (
        ("…" if start > letters else "") + before + text[start:end] + after + ("…" if end + letters < len(text) else "")
    )


def of_rows(count: int, total: int, unit: str = "row") -> str:
    """`all 5 rows`, `3 of 5 rows`."""
    return f"all {counted(total, unit)}" if count == total and total > 1 else f"{count:,} of {counted(total, unit)}"
