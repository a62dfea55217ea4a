"""Words for people: values as they call them, counts, lists, and the nearest known name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def described(value: Any) -> str:
    """A value of a file as people call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return f"a value of type {type(value).__name__}"


def is_whole(text: str) -> bool:
    """Whether a text can be written: without half a character, which JSON's escapes can spell."""
    return text.isascii() or _HALF_A_CHARACTER.search(text) is None


def enumerated(names: Iterable[str], last: str) -> str:
    """`a, b and c`, with the word before the last one given."""
    *others, end = [*names] or [""]
    return f"{', '.join(others)} {last} {end}" if others else end


def quoted(names: Iterable[str]) -> str:
    """`'a', 'b' and 'c'`."""
    return enumerated([repr(name) for name in names], "and") or "none"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean 'label'?` for the most similar name, case aside; empty where none is."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def counted(number: int, thing: str) -> str:
    """`1 row`, `5,000 rows`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
