"""Short answers that are right or wrong: the reference's words or number, found in what a model answers freely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pronk.data.conversation import Conversation
from pronk.data.words import counted
from pronk.errors import RecipeError
from pronk.evaluate.answers import FreeAnswer
from pronk.evaluate.normal_text import last_number, normalised
from pronk.recipe import Exact

LONGEST_TEXT = 20_000  # characters, the last ones: a final answer stands at the end
# A pattern may take this long with a text, and so much in all when it is too slow; then it gets little for each text.
SECONDS, PATIENCE, HURRIED = 0.5, 20.0, 0.01


@dataclass(frozen=True, slots=True)
class ExactItem:
    """expected, found: what is compared, in its one form; found is None where an answer holds nothing of the kind.
    slow: the recipe's pattern was stopped, as it took too long with this answer."""

    answer: str
    ended: bool
    expected: str
    found: str | None
    slow: bool = False

    @property
    def right(self) -> bool:
        return self.found == self.expected


class Finder:
    """What of a text is compared, as the recipe's `exact` says."""

    def __init__(self, settings: Exact) -> None:
        import regex

        self._number = settings.compare == "number"
        # this module can be stopped while it looks: the standard library's may go on for years
        self._pattern: Any = None if settings.pattern is None else regex.compile(settings.pattern)
        self._patience = PATIENCE

    def find(self, text: str) -> str | None:
        """What is compared, in its one form; None where there is nothing. Raises TimeoutError for a slow pattern."""
        chosen = text if self._pattern is None else self._last_match(text[-LONGEST_TEXT:])
        if chosen is None:
            return None
        return last_number(chosen) if self._number else normalised(chosen) or None

    def _last_match(self, text: str) -> str | None:
        limit, start, last = SECONDS if self._patience > 0 else HURRIED, time.monotonic(), None
        try:
            for match in self._pattern.finditer(text, timeout=limit):
                last = match
                if time.monotonic() - start > limit:
                    raise TimeoutError
        except TimeoutError:
            self._patience -= time.monotonic() - start
            raise
        if last is None:
            return None
        groups = [group for group in last.groups() if group is not None]
        return str(groups[0] if groups else last.group())


def exact_items(answers: Sequence[FreeAnswer], references: Sequence[str], settings: Exact) -> list[ExactItem]:
    """Answers beside what is found in their references, which `check_references` has looked at."""
    finder, items = Finder(settings), []
    for one, reference in zip(answers, references, strict=True):
        found, slow = None, False
        try:
            found = finder.find(one.text)
        except TimeoutError:
            slow = True
        items.append(ExactItem(one.text, one.ended, finder.find(reference) or "", found, slow))
    return items


def check_references(rows: Sequence[Conversation], settings: Exact) -> None:
    """Raises RecipeError where a reference answer holds nothing that could be compared: no answer could be right."""
    finder, without = Finder(settings), []
    wanted = "a number" if settings.compare == "number" else "a word"
    if settings.pattern is not None:
        wanted += f" behind the pattern {settings.pattern!r}"
    for row in rows:
        try:
            if finder.find(row.answer) is None:
                without.append(row)
        except TimeoutError:
            raise RecipeError(
                f"exact.pattern: {settings.pattern!r} takes longer than {SECONDS} s with the reference answer of "
                f"{row.place}; expected one without repeats inside of repeats, such as (a+)+"
            ) from None
    if without:
        more = f" and {counted(len(without) - 1, 'more row')}" if len(without) > 1 else ""
        raise RecipeError(
            f"exact: the reference answer of {without[0].place}{more} has not {wanted}, so that no answer could be "
            f"right: {without[0].answer[-60:]!r}"
        )


def records(items: Sequence[ExactItem], ids: Sequence[str]) -> list[dict[str, Any]]:
    """One record an item, for the run folder."""
    return [{"id": name, "right": item.right, **asdict(item)} for name, item in zip(ids, items, strict=True)]
