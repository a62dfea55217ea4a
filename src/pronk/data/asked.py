"""Rows of which only the question is needed: what a model is asked with, by the format that it was trained on.

The messages are those of training, one by one, without the answer; a row that has its answer does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pronk.data.choices import choice_question, offered_choices
from pronk.data.conversation import Message
from pronk.data.formats import ANSWERS, FIELDS, OPTIONAL_FIELD, TURNS, check_whole, shown, text_value
from pronk.data.rows import Row, RowError
from pronk.data.turns import read_question
from pronk.data.words import did_you_mean, quoted
from pronk.errors import DataError
from pronk.recipe import Format
from pronk.recipe.data import ChoiceForm

ANSWERING = {*ANSWERS, "label", "answer"}
ASKED = {format: tuple(one for one in fields if one not in ANSWERING) for format, fields in FIELDS.items()}


class Asking:
    """What rows are asked with. columns: where a field has another name. column: in place of all that (--column): the
    one column with the question. system, instruction: what stands before each question, as in training."""

    def __init__(
        self, format: Format, columns: Mapping[str, str], column: str | None = None, system: str | None = None,
        instruction: str | None = None, choices: ChoiceForm = "listed",
    ) -> None:  # fmt: skip
        first, *others = ASKED[format]
        self.format, self.instruction, self.choices = format, instruction, choices
        self.system = [Message("system", system)] if system else []
        self.columns = {field: columns.get(field, field) for field in (first, *others)}
        if column is not None:
            self.columns = {first: column} | {field: self.columns[field] for field in others if field == "choices"}

    def check_columns(self, present: Collection[str], place: str) -> None:
        """Raises DataError for a column that is needed and not among those present."""
        if missing := self._missing(present):
            raise DataError(f"{place}: {missing}")

    def messages(self, row: Row) -> list[Message]:
        """A row as a conversation that an answer would end; plain text as the beginning of one. Raises RowError."""
        if row.problem:
            raise row.problem
        if missing := self._missing(row.values):
            raise RowError("column", missing)
        found = {field: self._value(row.values.get(column), field) for field, column in self.columns.items()}
        first, *_ = found.values()
        match self.format:
            case "text":
                return [Message("assistant", first)]
            case "messages" | "sharegpt":
                return [*([] if first[0].role == "system" else self.system), *first]
            case "alpaca":
                return [*self.system, Message("user", first, found.get(OPTIONAL_FIELD, ""))]
            case "choice":
                first = choice_question(self.choices, first, found["choices"])
        asked = (self.instruction, first) if self.instruction else (first,)
        return [*self.system, Message("user", *asked)]

    def offered(self, row: Row) -> tuple[str, ...]:
        """What a row's answer is chosen among; () of a format without choices. The row has passed `messages`."""
        return offered_choices(self.choices, row.values[self.columns["choices"]]) if self.format == "choice" else ()

    def _missing(self, present: Collection[str]) -> str:
        for field, column in self.columns.items():
            if column not in present and field != OPTIONAL_FIELD:
                named = "" if field == column else f" for {field}"
                hint = did_you_mean(column, present)
                return (
                    f"there is no column {column!r}{named}; the columns are {quoted(present)}{hint}; name the one to "
                    "read with --column NAME"
                )
        return ""

    def _value(self, value: Any, field: str) -> Any:
        column = self.columns[field]
        if field == "choices":
            return value
        if field not in TURNS:
            return text_value(value, field, column)
        name = shown(field, column)
        try:
            turns = read_question(value, self.format)
        except RowError as error:
            raise RowError(error.kind, f"{name}: {error}") from None
        check_whole(turns, name)
        return turns
