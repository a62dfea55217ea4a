"""Files to conversations: every row is read, checked and given its place for messages to people.

file → rows        .jsonl and .csv, with the line each row starts on
rows → texts       the fields of the format, by `data.columns`; every value is text
texts → records    conversations; for classify with one of the labels as the answer

Texts are kept as they are in the file, spaces included; only labels are stripped.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pronk.data.conversation import Conversation, Message
from pronk.errors import DataError
from pronk.recipe import Data

FIELDS = {
    "classify": ("text", "label"),
    "alpaca": ("instruction", "input", "output"),
    "pairs": ("prompt", "response"),
}
OPTIONAL_FIELD = "input"  # may be absent, empty or null
MOST_FOUND_LABELS = 100  # more distinct values than this are texts or ids, not labels


@dataclass(frozen=True, slots=True)
class _Row:
    values: dict[str, Any]  # by column
    place: str


class _Problems:
    """Gathers what is wrong with rows, so that one message can also say how often."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, place: str, message: str) -> None:
        self._found.setdefault(kind, []).append(f"{place}: {message}")

    def raise_first(self, unit: str = "row") -> None:
        for messages in self._found.values():
            more = len(messages) - 1
            count = f" (and {more} more {unit}{'s' if more > 1 else ''})" if more else ""
            raise DataError(messages[0] + count)


def read_conversations(data: Data) -> tuple[list[Conversation], tuple[str, ...]]:
    """Read the files of a recipe's `data` section, in order.

    Returns one conversation a row, and the names of the labels: in the recipe's order or, found in
    the files, sorted; empty for the formats other than classify.

    Raises DataError with one message that names the file and the line, or the recipe's key.
    """
    columns = _columns(data)
    rows = _read_rows(data, columns)
    texts = _texts(rows, FIELDS[data.format], columns)
    if data.format != "classify":
        return [_conversation(data, row, text) for row, text in zip(rows, texts, strict=True)], ()
    answers, labels = _labelled(data, rows, [text["label"] for text in texts])
    instruction = data.instruction or default_instruction(labels)
    conversations = [
        _record(data, row, Message("user", instruction, text["text"]), answer, answer)
        for row, text, answer in zip(rows, texts, answers, strict=True)
    ]
    return conversations, labels


def default_instruction(labels: Sequence[str]) -> str:
    """What a model is asked to do with a text when the recipe does not say; needs two labels or more."""
    return f"Classify the text as {_enumerated(labels, 'or')}. Answer with the label alone."


# --- from texts to conversations ---------------------------------------------------------------


def _conversation(data: Data, row: _Row, text: dict[str, str]) -> Conversation:
    if data.format == "alpaca":
        return _record(data, row, Message("user", text["instruction"], text["input"]), text["output"])
    if data.instruction:
        return _record(data, row, Message("user", data.instruction, text["prompt"]), text["response"])
    return _record(data, row, Message("user", text["prompt"]), text["response"])


def _record(data: Data, row: _Row, user: Message, answer: str, label: str | None = None) -> Conversation:
    system = (Message("system", data.system),) if data.system else ()
    return Conversation((*system, user, Message("assistant", answer)), row.place, label)


# --- labels ------------------------------------------------------------------------------------


def _labelled(data: Data, rows: Sequence[_Row], found: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The answer of every row, and the names of all labels."""
    if data.labels is None:
        names = _found_labels(rows, found)
        meanings, shown = {name.casefold(): name for name in names}, list(names)
    else:
        meanings, shown = _given_labels(data.labels)
        names = tuple(str(name).strip() for name in data.labels)
    problems = _Problems()
    for row, value in zip(rows, found, strict=True):
        if value.casefold() not in meanings:
            hint = _did_you_mean(value, list(meanings))
            problems.add("label", row.place, f"the label {value!r} is not one of {_enumerated(shown, 'and')}{hint}")
    problems.raise_first()
    return [meanings[value.casefold()] for value in found], names


def _given_labels(labels: dict[str, str | int] | list[str]) -> tuple[dict[str, str], list[str]]:
    """What a value in the file means, as answers by casefolded text; and the labels as shown to people."""
    given = labels.items() if isinstance(labels, dict) else [(label, label) for label in labels]
    pairs = [(answer.strip(), str(value).strip()) for answer, value in given]
    for side, name in ((0, "label"), (1, "value in the file")):
        folded = [pair[side].casefold() for pair in pairs]
        if "" in folded:
            raise DataError(f"data.labels: a {name} is empty")
        for position, text in enumerate(folded):
            if text in folded[:position]:
                raise DataError(f"data.labels: the {name} {pairs[position][side]!r} is given twice")
    # the file's own value wins where it is also another label's word
    meanings = {answer.casefold(): answer for answer, _ in pairs}
    meanings.update({value.casefold(): answer for answer, value in pairs})
    return meanings, [answer if answer == value else f"{answer} ({value})" for answer, value in pairs]


def _found_labels(rows: Sequence[_Row], found: Sequence[str]) -> tuple[str, ...]:
    first = {value: row.place for row, value in reversed(list(zip(rows, found, strict=True)))}
    names = sorted(first)
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(
                f"{first[name]}: the label {name!r} and the label {other!r} ({first[other]}) differ only in "
                "upper and lower case; say in data.labels how the label is written"
            )
    if len(names) < 2:
        raise DataError(
            f"{rows[0].place}: all {len(rows)} rows have the label {names[0]!r}; classification needs at "
            "least two: name them all in data.labels"
        )
    if len(names) > MOST_FOUND_LABELS:
        raise DataError(
            f"{rows[0].place}: there are {len(names)} different labels, such as {names[0]!r}; "
            f"more than {MOST_FOUND_LABELS} have to be named in data.labels (or is label in data.columns "
            "another column?)"
        )
    return tuple(names)


# --- from rows to texts ------------------------------------------------------------------------


def _columns(data: Data) -> dict[str, str]:
    """The column of every field, the recipe's texts checked on the way."""
    fields = FIELDS[data.format]
    for field in data.columns:
        if field not in fields:
            raise DataError(
                f"data.columns: the format {data.format} has no field {field!r}; its fields are "
                f"{_enumerated(fields, 'and')}{_did_you_mean(field, fields)}"
            )
    for key, text in (("instruction", data.instruction), ("system", data.system)):
        if text is not None and not text.strip():
            raise DataError(f"data.{key} is empty; write a text or leave the key out")
    columns = {field: data.columns.get(field, field) for field in fields}
    for field, column in columns.items():
        twice = [other for other in fields if columns[other] == column and other != field]
        if twice:
            raise DataError(f"data.columns: {field} and {twice[0]} are both read from the column {column!r}")
    return columns


def _texts(rows: Sequence[_Row], fields: Sequence[str], columns: dict[str, str]) -> list[dict[str, str]]:
    problems = _Problems()
    texts = [{field: _text(row, field, columns[field], problems) for field in fields} for row in rows]
    problems.raise_first()
    return texts


def _text(row: _Row, field: str, column: str, problems: _Problems) -> str:
    """A field's text; what is no text is noted in problems."""
    value = row.values.get(column)
    if field == OPTIONAL_FIELD and value is None:
        return ""
    if field == "label":
        value = _label_text(value)
    name = f"the {field}" if field == column else f"the {field} (column {column!r})"
    if not isinstance(value, str):
        problems.add(f"{field} type", row.place, f"{name} must be text; found {_described(value)}")
        return ""
    if not value.strip() and field != OPTIONAL_FIELD:
        problems.add(f"{field} empty", row.place, f"{name} is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        problems.add(f"{field} surrogate", row.place, f"{name} has half a character (a lone \\ud… escape)")
    return value


def _label_text(value: Any) -> Any:
    """Labels may be whole numbers: 1 and 1.0 in JSON are the label '1'."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value.strip() if isinstance(value, str) else value


# --- from files to rows ------------------------------------------------------------------------


def _read_rows(data: Data, columns: dict[str, str]) -> list[_Row]:
    paths = [Path(source) for source in ([data.source] if isinstance(data.source, str) else data.source)]
    if not paths:
        raise DataError("data.source names no file")
    names = [path.name for path in paths]
    rows: list[_Row] = []
    for path in paths:
        read = _reader(path)
        shown = path.name if names.count(path.name) == 1 else str(path)
        part = list(read(_file_text(path), shown))
        if not part:
            raise DataError(f"{path}: the file has no rows")
        _check_columns(part, shown, data, columns)
        rows += part
    return rows


def _reader(path: Path) -> Callable[[str, str], Iterator[_Row]]:
    """What reads a file of this name: a function of its text and the name shown to people."""
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
    if os.path.isdir(path):  # unlike Path.is_dir, no error where a folder above may not be entered
        raise DataError(f"{path}: this is a folder; data.source names files ending in .jsonl or .csv")
    if path.suffix.lower() not in readers:
        ending = f"a file ending in {path.suffix}" if path.suffix else "a file without an ending"
        raise DataError(f"{path}: {ending} cannot be read; give a .jsonl or a .csv file")
    return readers[path.suffix.lower()]


def _file_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        beside = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else []
        raise DataError(f"{path}: there is no such file{_did_you_mean(path.name, beside)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        utf_16 = " (it looks like UTF-16)" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{path}:{line}: the byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8 text"
            f"{utf_16}; save the file as UTF-8"
        ) from None


def _jsonl_rows(text: str, name: str) -> Iterator[_Row]:
    problems = _Problems()
    if text.lstrip().startswith("["):
        raise DataError(f"{name}:1: a .jsonl file has one JSON object on each line; this one is a JSON list")
    # JSON strings may hold U+2028 and the like, at which splitlines would cut
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_refuse_constant)
        except RecursionError:
            problems.add("json", place, "broken JSON: brackets are nested too deeply")
        except json.JSONDecodeError as error:
            problems.add("json", place, f"broken JSON: {error.msg} at column {error.colno}")
        except ValueError as error:
            problems.add("json", place, f"broken JSON: {error}")
        else:
            if isinstance(value, dict):
                yield _Row(value, place)
            else:
                problems.add("object", place, f"expected a JSON object, found {_described(value)}")
    problems.raise_first("line")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value; write a text or a number")


def _csv_rows(text: str, name: str) -> Iterator[_Row]:
    # strict: a quotation mark that is never closed would otherwise swallow the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    problems, line = _Problems(), 1
    try:
        for values in reader:
            # a row may span lines; its place is where it starts
            place, line = f"{name}:{line}", reader.line_num + 1
            if not values:
                continue
            if header is None:
                header = _checked_header(values, place)
            elif len(values) != len(header):
                problems.add("fields", place, f"the header has {len(header)} columns, but this row has {len(values)}")
            else:
                yield _Row(dict(zip(header, values, strict=True)), place)
    except csv.Error as error:
        raise DataError(
            f"{name}:{line}: broken CSV: {error}; look for a quotation mark that is not closed or not doubled"
        ) from None
    problems.raise_first()


def _checked_header(header: list[str], place: str) -> list[str]:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise DataError(f"{place}: no comma in {header[0]!r}; the columns of a .csv file are separated by commas")
    for position, column in enumerate(header):
        if column in header[:position]:
            raise DataError(f"{place}: two columns have the name {column!r}")
    return header


def _check_columns(rows: Sequence[_Row], name: str, data: Data, columns: dict[str, str]) -> None:
    """Every field's column is there: in the header of a CSV file, in each row of a JSONL file."""
    is_csv = name.lower().endswith(".csv")
    problems = _Problems()
    for row in rows[:1] if is_csv else rows:
        place = f"{name}:1" if is_csv else row.place
        for field, column in columns.items():
            if column not in row.values and field != OPTIONAL_FIELD:
                problems.add(column, place, _absent(field, column, row.values))
    problems.raise_first()
    mapped = data.columns.get(OPTIONAL_FIELD)
    if mapped is not None and not any(mapped in row.values for row in rows):
        place = f"{name}:1" if is_csv else rows[0].place
        raise DataError(f"{place}: {_absent(OPTIONAL_FIELD, mapped, rows[0].values)}")


def _absent(field: str, column: str, present: Collection[str]) -> str:
    shown = _enumerated([repr(name) for name in present], "and") or "none"
    hint = _did_you_mean(column, present)
    return f"there is no column {column!r} for {field}; the columns are {shown}{hint or '; see data.columns'}"


# --- words for people --------------------------------------------------------------------------


def _described(value: Any) -> str:
    """A JSON value as people call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a text"


def _enumerated(names: Iterable[str], last: str) -> str:
    """`a, b and c`, with the word before the last one given."""
    *others, end = [*names] or [""]
    return f"{', '.join(others)} {last} {end}" if others else end


def _did_you_mean(word: str, known: Collection[str]) -> str:
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""
