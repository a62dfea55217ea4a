"""The sections `exact` and `forgetting`: how two of the evaluations measure."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from pronk.recipe.section import Section

LONGEST_PATTERN = 1000  # characters
MOST_REPEATS = 100_000  # what the counts in braces come to, multiplied: the pattern is spelled out so often
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


class Exact(Section):
    """evaluate: [exact]: short answers, right or wrong, compared with the reference after both are normalised."""

    compare: Literal["text", "number"] = Field(
        "text",
        description="text: the same words, but for case, punctuation, the articles a, an, the and spaces, as in SQuAD "
        "(Rajpurkar et al. 2016, arXiv:1606.05250); numbers keep their sign and point, 1,000 is 1000 and 2.50 is 2.5. "
        "number: the last number of the text, by its value: GSM8K as it is. "
        "Where nothing is found, an answer is wrong, and counted as unparsable.",
    )
    pattern: str | None = Field(
        None,
        description="A regular expression that finds what is compared, in answers and references alike: its last match "
        'there, of that its first group if it has one, e.g. "#### (.+)". The whole text when absent.',
    )

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.pattern is not None:
            check_pattern(self.pattern)
        return self


class Forgetting(Section):
    """evaluate: [forgetting]: the loss on general text that no run was trained on, of the base and of every run."""

    text: str | None = Field(
        None,
        description="A file of general text: .txt with a blank line between paragraphs, or .jsonl with a `text` on "
        "each line. Relative to the recipe. When absent: 62 short paragraphs of plain English and Korean prose on "
        "everyday subjects, written for pronk.",
    )

    @model_validator(mode="after")
    def _readable_kind(self) -> Self:
        if self.text is not None and not self.text.lower().endswith((".txt", ".jsonl")):
            raise ValueError(f"text: found {self.text!r}, expected a .txt or .jsonl file")
        return self


def check_pattern(pattern: str) -> None:
    """Raises ValueError for a regular expression that is none, finds nothing in particular, or is far too large."""
    import regex

    times = 1
    for least, most in _COUNT.findall(pattern):
        times *= max(int(least), int(most or 0), 1)
    if len(pattern) > LONGEST_PATTERN or times > MOST_REPEATS:
        raise ValueError(
            f"pattern: too large a regular expression; expected at most {LONGEST_PATTERN:,} characters, and counts in "
            f"braces that multiply to {MOST_REPEATS:,} at most"
        )
    try:
        found = regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"pattern: {pattern!r} is no regular expression: {error}") from None
    if found.match("") is not None:
        raise ValueError(
            f"pattern: {pattern!r} finds nothing as well as something; expected one that an empty text cannot fit"
        )
