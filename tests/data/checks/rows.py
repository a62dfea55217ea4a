"""Rows to break, and the checks over a file of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pronk.data.checks import data_findings
from pronk.data.finding import Finding
from pronk.data.split import Splits, read_splits
from pronk.recipe import Data

Pairs = Sequence[tuple[str, str]]
THINGS = (
    "harbour", "lighthouse", "orchard", "railway", "library", "vineyard", "quarry", "windmill", "glacier", "meadow",
    "bakery", "cathedral", "reservoir", "museum", "stadium", "workshop", "monastery", "greenhouse", "observatory",
    "canal",
)  # fmt: skip
ASKED = ("Who was it that built the first {} of this valley?", "At what hour does every {} close down in winter?")
FACTS = [
    (asked.format(thing), f"{answer} {thing}, say those who live near the {other}.")
    for asked, answer in zip(ASKED, ("Farmers built the", "Sunset ends the day of a"), strict=True)
    for thing, other in zip(THINGS, THINGS[1:] + THINGS[:1], strict=True)
]
LABELLED = [
    (f"The {thing} {verb} last year.", label)
    for verb, label in (("was praised by all visitors", "good"), ("burned down to its stones", "bad"))
    for thing in THINGS
]


def many(question: str, answer: str) -> list[tuple[str, str]]:
    """A row for each thing."""
    return [(question.format(thing), answer.format(thing)) for thing in THINGS]


def split_of(write: Callable[[str, Any], str], rows: Pairs, **keys: Any) -> tuple[Splits, tuple[str, ...]]:
    """A file of questions and answers, read as a recipe's `data` section would be."""
    columns = ("text", "label") if keys.get("format") == "classify" else ("instruction", "output")
    path = write("rows.jsonl", [dict(zip(columns, row, strict=True)) for row in rows])
    return read_splits(Data(source=path, **{"format": "alpaca", **keys}))


def check(write: Callable[[str, Any], str], rows: Pairs, **keys: Any) -> list[Finding]:
    """What the checks find in a file of questions and answers."""
    return data_findings(*split_of(write, rows, **keys))
