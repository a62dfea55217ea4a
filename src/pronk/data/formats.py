"""What the columns of each format mean: a row's values to a conversation, checked on the way.

Texts are kept as they are in the file, spaces included; only labels are stripped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pronk.data.choices import choice_conversation
from pronk.data.conversation import Conversation, Message
from pronk.data.labels import LabelledText, label_text
from pronk.data.rows import EMPTY_ANSWER, Problems, Row, RowError, Table
from pronk.data.turns import read_turns
from pronk.data.words import described, did_you_mean, enumerated, is_whole, quoted
from pronk.errors import DataError
from pronk.recipe import Data, Format, Source

FIELDS: dict[Format, tuple[str, ...]] = {
    "classify": ("text", "label"),
    "choice": ("question", "choices", "answer"),
    "alpaca": ("instruction", "input", "output"),
    "pairs": ("prompt", "response"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "text": ("text",),
}
OPTIONAL_FIELD = "input"  # may be absent, empty or null
ANSWERS = {"output", "response"}
TURNS = {"messages", "conversations"}  # fields that hold a list of turns;
OF_CHOICE = {"choices", "answer"}  # what data/choices.py reads; all others hold a text

Record = Conversation | LabelledText


class Reader:
    """Turns the rows of one source into records; gathers what is wrong with them until `finish`.

    Raises DataError if the recipe's columns or texts cannot be.
    """

    def __init__(self, data: Data, source: Source, table: Table) -> None:
        if source.format is None:
            raise ValueError("the format has to be found out before rows are read")
        self.format: Format = source.format
        self.data, self.table = data, table
        self.named = source.columns or {}  # by the recipe
        self.columns = _checked_columns(self.format, self.named)
        self.system = (Message("system", data.system),) if data.system else ()
        self.unanswered: list[str] = []  # places of conversations whose last turn was left out
        self._optional_seen = False
        self._first: Row | None = None
        self._absent, self._problems = Problems(), Problems()
        for key, text in (("instruction", data.instruction), ("system", data.system)):
            if text is not None and not text.strip():
                raise DataError(f"data.{key} is empty; write a text or leave the key out")
        if table.columns:
            self._note_absent(table.columns, table.place)
            self._absent.raise_first()

    def read(self, row: Row) -> Record | None:
        """The record of a row; None for a row with a problem, which `finish` will raise."""
        self._first = self._first or row
        self._optional_seen |= self.columns.get(OPTIONAL_FIELD) in row.values
        if self.table.columns is None and self._note_absent(row.values, row.place):
            return None
        try:
            return self._record({field: self._value(row, field) for field in self.columns}, row.place)
        except RowError as error:
            self._problems.add(error.kind, row.place, str(error))
            return None

    def finish(self) -> None:
        """Raise DataError with the first problem of the rows that were read."""
        self._absent.raise_first()
        mapped = self.named.get(OPTIONAL_FIELD)
        if mapped is not None and self._first is not None and not self._optional_seen:
            place = self.table.place if self.table.columns else self._first.place
            raise DataError(f"{place}: {_absent(OPTIONAL_FIELD, mapped, self._first.values)}")
        self._problems.raise_first()

    def _note_absent(self, present: Collection[str], place: str) -> bool:
        absent = [field for field in self.columns if self.columns[field] not in present and field != OPTIONAL_FIELD]
        for field in absent:
            self._absent.add(self.columns[field], place, _absent(field, self.columns[field], present))
        return bool(absent)

    def _record(self, values: dict[str, Any], place: str) -> Record:
        match self.format:
            case "classify":
                return LabelledText(values["text"], values["label"], place)
            case "choice":
                return choice_conversation(self.data, self.system, **values, place=place)
            case "alpaca":
                return self._answered(Message("user", values["instruction"], values["input"]), values["output"], place)
            case "pairs":
                asked = (self.data.instruction, values["prompt"]) if self.data.instruction else (values["prompt"],)
                return self._answered(Message("user", *asked), values["response"], place)
            case "text":
                return Conversation((Message("assistant", values["text"]),), place)
        (turns,) = values.values()
        return Conversation((*(() if turns[0].role == "system" else self.system), *turns), place)

    def _answered(self, user: Message, answer: str, place: str) -> Conversation:
        return Conversation((*self.system, user, Message("assistant", answer)), place)

    def _value(self, row: Row, field: str) -> Any:
        """A field's text or turns, checked, or what choices.py will look at. Raises RowError."""
        column = self.columns[field]
        if field in TURNS:
            return self._turns(row.values.get(column), shown(field, column), row.place)
        if field in OF_CHOICE:
            return row.values.get(column)
        return text_value(row.values.get(column), field, column)

    def _turns(self, value: Any, name: str, place: str) -> list[Message]:
        try:
            turns, unanswered = read_turns(value, self.format)
        except RowError as error:
            raise RowError(error.kind, f"{name}: {error}") from None
        check_whole(turns, name)
        if unanswered:
            self.unanswered.append(place)
        return turns


def text_value(value: Any, field: str, column: str) -> str:
    """What a row has in a column, as the text of a field. Raises RowError."""
    name = shown(field, column)
    if field == OPTIONAL_FIELD and value is None:
        return ""
    if field == "label":
        value = label_text(value)
    if not isinstance(value, str):
        raise RowError(f"{field} type", f"{name} must be text; found {described(value)}")
    if not value.strip() and field != OPTIONAL_FIELD:
        raise RowError(EMPTY_ANSWER if field in ANSWERS else f"{field} empty", f"{name} is empty")
    if not is_whole(value):
        raise RowError(f"{field} half", f"{name} has half a character (a lone \\ud… escape)")
    return value


def check_whole(turns: Sequence[Message], name: str) -> None:
    """Raises RowError for a turn that could not be written."""
    if not all(is_whole(turn.content) for turn in turns):
        raise RowError("half", f"{name}: a turn has half a character (a lone \\ud… escape)")


def shown(field: str, column: str) -> str:
    """A field as people are told of it, by its column where that has another name."""
    return f"the {field}" if field == column else f"the {field} (column {column!r})"


def _checked_columns(format: Format, named: dict[str, str]) -> dict[str, str]:
    """The column of every field of a format."""
    fields = FIELDS[format]
    for field in named:
        if field not in fields:
            has = f"its fields are {enumerated(fields, 'and')}" if len(fields) > 1 else f"its one field is {fields[0]}"
            raise DataError(
                f"data.columns: the format {format} has no field {field!r}; {has}{did_you_mean(field, fields)}"
            )
    columns = {field: named.get(field, field) for field in fields}
    for field, column in columns.items():
        twice = [other for other in fields if columns[other] == column and other != field]
        if twice:
            raise DataError(f"data.columns: {field} and {twice[0]} are both read from the column {column!r}")
    return columns


def _absent(field: str, column: str, present: Collection[str]) -> str:
    hint = did_you_mean(column, present)
    return f"there is no column {column!r} for {field}; the columns are {quoted(present)}{hint or '; see data.columns'}"
