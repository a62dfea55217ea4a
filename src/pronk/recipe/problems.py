"""What pydantic finds wrong with a recipe, in words for the person who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any


def explained(errors: Sequence[Any], known: Sequence[str]) -> list[str]:
    """A line for each problem; a key that may be of several types fails once for each, and one line says them all."""
    merged: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        subject, found, expected = _explain(error, known)
        merged.setdefault((subject, found), []).append(expected)
    return [subject + found + " or ".join(dict.fromkeys(expected)) for (subject, found), expected in merged.items()]


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "model_type": "a section with keys of its own",
    "list_type": "a list",
}


def _explain(problem: Any, known: Sequence[str]) -> tuple[str, str, str]:
    """One problem that pydantic found, as subject, what was found, and what is expected."""
    # in parentheses: the tags of recipe/data.py; a number: which item of a list of sources
    place = [str(part) for part in problem["loc"] if not str(part).startswith("(")]
    in_source = place[:2] == ["data", "source"]
    if in_source:
        place = [part for part in place if not part.isdigit()]
    kind = problem["type"]
    if kind == "extra_forbidden":
        return f"unknown key {'.'.join(place)}", suggestion(".".join(place), known), ""
    if kind == "missing":
        return f"{'.'.join(place)} is missing", "", ""
    # inside a union pydantic appends the names of the tried types; they are no part of the key
    while not in_source and len(place) > 1 and ".".join(place) not in known and (place[0] != "study" or len(place) > 2):
        place.pop()
    key = ".".join(place)
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{key}.{message}" if key else message, "", ""
    if kind == "literal_error":
        expected = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        expected = f"one of {expected}" if "," in expected else expected
    else:
        expected = _EXPECTED.get(kind) or problem["msg"].removeprefix("Input should be ")
    return f"{key}: ", f"found {problem['input']!r}, expected ", expected


def suggestion(key: str, known: Sequence[str]) -> str:
    """`; did you mean …?` for the known key of that name, else the most similar name, nearest first."""
    section, _, last = key.rpartition(".")
    same = [name for name in known if name.rpartition(".")[2] == last]
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(known)}  # the first of a name counts
    for names in (beside, anywhere):
        same += [names[near] for near in difflib.get_close_matches(last, list(names), n=1, cutoff=0.6)]
    return f"; did you mean {same[0]}?" if same else ""
