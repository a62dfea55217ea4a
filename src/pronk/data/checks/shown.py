"""Rows as findings show them: in one line, short, what is private masked."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pronk.data.checks.private import masked
from pronk.data.conversation import Conversation, shortened
from pronk.data.finding import SHOWN, Row

LETTERS = 100
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def line(text: str, at: int = 0) -> str:
    """A text in one line from a little before the letter `at`, shortened; secrets and personal data are masked,
    characters that a terminal would hide or obey are spelled out."""
    hidden, at = masked(text, at)  # before anything is cut: half a key is not recognised
    start = max(at - LETTERS // 3, 0)
    window = ("…" if start else "") + hidden[start : start + 2 * LETTERS]
    return shortened(_UNSEEN.sub(_spelled, " ".join(window.split())), LETTERS)


def question_row(row: Conversation, note: str = "") -> Row:
    """A row by its question, and a few words on it."""
    return Row(row.place, line(row.subject) + (f" ({note})" if note else ""))


def answer_row(row: Conversation) -> Row:
    """A row by its question and answer."""
    return Row(row.place, f"{shortened(line(row.subject), LETTERS // 2)} → {shortened(line(row.answer), LETTERS // 2)}")


def first_rows(rows: Iterable[Conversation], note: str = "") -> tuple[Row, ...]:
    """The first SHOWN rows by their questions."""
    return tuple(question_row(row, note) for row, _ in zip(rows, range(SHOWN), strict=False))


def _spelled(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"
