"""What every kind of file becomes before it is understood: a table of rows, read one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pronk.data.words import counted
from pronk.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """Values by column, and where they stand, for messages to people. problem: why there are no values."""

    values: dict[str, Any]
    place: str
    problem: RowError | None = None


@dataclass(frozen=True)
class Table:
    """A source, opened. rows can be gone through once; nothing holds more than a few of them at a time."""

    name: str  # as people know it
    rows: Iterator[Row]
    columns: tuple[str, ...] | None = None  # None where each row has columns of its own
    place: str = ""  # where the columns are named
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by column: what its numbers mean


EMPTY_ANSWER = "empty-answers"  # a kind of RowError that `pronk check` knows by this name


class RowError(Exception):
    """A row that makes no record. kind: what is counted together; the text says what is wrong. Never leaves the room:
    Problems turns it into a DataError with the row's place."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Problems:
    """Gathers what is wrong with rows, so that one message can also say how often."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str, message: str) -> None:
        """Note a problem of some row; those of one kind are counted together."""
        self._first.setdefault(kind, f"{place}: {message}")
        self._places.setdefault(kind, []).append(place)

    def raise_first(self, unit: str = "row") -> None:
        """Raise DataError with the first problem and how many more there are of its kind; nothing if there is none."""
        for kind, message in self._first.items():
            places = self._places[kind]
            more = len(places) - 1
            others = f" (and {counted(more, f'more {unit}')})" if more else ""
            raise DataError(message + others, kind if kind == EMPTY_ANSWER else "", len(places), places[:2])


def sound(rows: Iterable[Row], unit: str = "row") -> Iterator[Row]:
    """The rows that have values. Raises DataError, behind the last of them, with the first that has none."""
    problems = Problems()
    for row in rows:
        if row.problem is None:
            yield row
        else:
            problems.add(row.problem.kind, row.place, str(row.problem))
    problems.raise_first(unit)
