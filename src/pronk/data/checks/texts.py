"""Texts as they are compared: what a question says, without how it is written.

Two questions *say the same* where they differ only in case, white space, Unicode form, quotation marks, dashes,
punctuation between words, accents that were lost or the way a number is written (1,000 and 1000, 2.0 and 2).
Signs that carry meaning stay: brackets, + - * / % # $ and points inside numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pronk.data.conversation import Conversation

_MARKS = str.maketrans(
    dict.fromkeys("‐‑‒–—―−", "-")
    | dict.fromkeys("“”„‟«»〝〞「」『』", '"')
    | dict.fromkeys("‘’‚‛′´`", "'")
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad", None)  # invisible
    | {"。": ".", "、": ",", "·": " ", "…": " "}
)
_ACCENTS = re.compile("[\u0300-\u036f]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ZEROS = re.compile(r"(?<=\d)\.0+(?![\d.])")
_SILENT = re.compile(r"'|(?<!\d)[.,:](?!\d)|(?<=\d)[.,:](?!\d)|(?<!\d)[,:](?=\d)")
_BETWEEN_WORDS = str.maketrans('"!?;_', "     ", "`")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")


@dataclass(frozen=True, slots=True)
class Question:
    """A row's question, to be compared. fields: its messages' texts one by one as they were written; said: the same
    as normal() has them; part: train, validation or test."""

    row: Conversation
    part: str
    fields: tuple[str, ...]
    said: tuple[str, ...]

    @property
    def text(self) -> str:
        """All that is said, without white space: equal where two questions say the same."""
        return "\n".join(self.said).replace(" ", "")

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers, sorted."""
        return tuple(sorted(number for said in self.said for number in _NUMBER.findall(said)))


def normal(text: str) -> str:
    """What a text says, as lower-case words with one space between them."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_MARKS))
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    text = text.casefold().translate(_BETWEEN_WORDS)
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if ".0" in text:
        text = _ZEROS.sub("", text)
    return " ".join(_SILENT.sub("", text).split())


def questions_of(parts: Sequence[tuple[str, Sequence[Conversation]]]) -> list[Question]:
    """The questions of all rows, part by part: system message, user turns and what they are about.

    A text that more than half of all rows hold (the instruction of a classification, a system message) tells none
    apart and is left out. A row without a question (the format `text`) is its own question.
    """
    texts = [(row, part, _fields(row)) for part, rows in parts for row in rows]
    held = Counter(field for _, _, fields in texts for field in set(fields))
    common = {field for field, count in held.items() if count > max(len(texts) / 2, 2)}
    questions = []
    for row, part, fields in texts:
        own = tuple(field for field in fields if field not in common) or fields[-1:]
        questions.append(Question(row, part, own, tuple(normal(field) for field in own)))
    return questions


def _fields(row: Conversation) -> tuple[str, ...]:
    asked = [message for message in row.messages[:-1] if message.role != "assistant"] or row.messages
    return tuple(text for message in asked for text in (message.content, message.context) if text.strip())
