"""Files to rows: .jsonl, .json, .csv and .parquet, each row with its place.

JSON lines, CSV and Parquet are read piece by piece; a .json file is one value and is read whole.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

from pronk.data.rows import Row, RowError, Table, sound
from pronk.data.words import described, did_you_mean, enumerated, quoted
from pronk.errors import DataError
from pronk.recipe import FILE_ENDINGS

PARQUET_ROWS = 1000  # turned into Python values at a time


def open_file(path: Path, name: str, broken: bool = False) -> Table:
    """The table in a file; name is what people are told. broken: rows without values are among its rows.

    Raises DataError if it cannot be opened or is no table; what is wrong further down shows when its rows are read:
    a row without values as DataError behind the last row, unless they are wanted.
    """
    kinds = dict(zip(FILE_ENDINGS, (_jsonl, _json, _csv, _parquet), strict=True))
    known = f"a file ending in {enumerated(FILE_ENDINGS, 'or')}"
    if os.path.isdir(path):  # unlike Path.is_dir, no error where a folder above may not be entered
        raise DataError(f"{path}: this is a folder; data.source names {known}")
    if path.suffix.lower() not in kinds:
        ending = f"a file ending in {path.suffix}" if path.suffix else "a file without an ending"
        raise DataError(f"{path}: {ending} cannot be read; give {known}, or a hub data set (owner/name)")
    with _one_message(path):
        table = kinds[path.suffix.lower()](path, name)
    return table if broken else replace(table, rows=sound(table.rows, "line" if path.suffix == ".jsonl" else "row"))


@contextmanager
def _one_message(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        beside = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else []
        raise DataError(f"{path}: there is no such file{did_you_mean(path.name, beside)}") from None
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


@contextmanager
def _text(path: Path, newline: str) -> Iterator[TextIO]:
    """A file open as text. A byte order mark is skipped."""
    with _one_message(path), open(path, encoding="utf-8-sig", newline=newline) as file:
        yield file


def _undecodable(path: Path) -> DataError:
    """Where the first byte is that is not UTF-8; found by reading once more."""
    offset, start = 0, b""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            start = start or line[:2]
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                utf_16 = " (it looks like UTF-16)" if start in (b"\xff\xfe", b"\xfe\xff") else ""
                return DataError(
                    f"{path}:{number}: the byte 0x{line[error.start]:02x} at offset {offset + error.start} is not "
                    f"UTF-8 text{utf_16}; save the file as UTF-8"
                )
            offset += len(line)
    return DataError(f"{path}: not UTF-8 text; save the file as UTF-8")


# --- JSON --------------------------------------------------------------------------------------


def _jsonl(path: Path, name: str) -> Table:
    with _text(path, "\n"):  # a missing file is told now, not when the first row is read
        return Table(name, _jsonl_rows(path, name), place=f"{name}:1")


def _jsonl_rows(path: Path, name: str) -> Iterator[Row]:
    first = True
    # cut at \n only: JSON strings may hold U+2028 and the like
    with _text(path, "\n") as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{name}:{number}"
            if not line.strip():
                continue
            if first and line.lstrip().startswith("["):
                raise DataError(
                    f"{place}: a .jsonl file has one JSON object on each line; this one is a JSON list (name it .json)"
                )
            first = False
            try:
                value = _parsed(line)
            except json.JSONDecodeError as error:
                yield Row({}, place, RowError("json", f"broken JSON: {error.msg} at column {error.colno}"))
            except ValueError as error:
                yield Row({}, place, RowError("json", f"broken JSON: {error}"))
            else:
                yield _object(value, place)


def _json(path: Path, name: str) -> Table:
    with _text(path, "\n") as file:
        content = file.read()
    if not content.strip():
        return Table(name, iter(()))
    try:
        value = _parsed(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # many a .json file holds one object on each line
            return _jsonl(path, name)
        raise DataError(f"{name}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        raise DataError(f"{name}: broken JSON: {error}") from None
    return Table(name, _json_rows(_only_list(value, name), name), place=name)


def _json_rows(values: list[Any], name: str) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        yield _object(value, f"{name}, row {number}")


def _object(value: Any, place: str) -> Row:
    if isinstance(value, dict):
        return Row(value, place)
    return Row({}, place, RowError("object", f"expected a JSON object, found {described(value)}"))


def _only_list(value: Any, name: str) -> list[Any]:
    """The rows: the value itself, or the one list in an object such as {"version": 1, "data": [...]}."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise DataError(f"{name}: a .json file is a list of objects; this one is {described(value)}")
    lists = [key for key, inner in value.items() if isinstance(inner, list)]
    if len(lists) != 1:
        found = f"has {len(lists)} ({quoted(lists)})" if lists else "has none"
        raise DataError(f"{name}: a .json file is a list of objects, or an object with one list; this object {found}")
    inner: list[Any] = value[lists[0]]
    return inner


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON value; write a text or a number")


# --- CSV ---------------------------------------------------------------------------------------


def _csv(path: Path, name: str) -> Table:
    records = _csv_records(path, name)
    place, first = next(records, (f"{name}:1", None))
    header = () if first is None else _checked_header(first, place)
    return Table(name, _csv_rows(records, header), header, f"{name}:1")


def _csv_records(path: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Places and fields; a record may span lines, and its place is where it starts."""
    with _text(path, "") as file:
        # strict: a quotation mark that is never closed would otherwise swallow the rest of the file
        reader, line = csv.reader(file, strict=True), 1
        try:
            for values in reader:
                place, line = f"{name}:{line}", reader.line_num + 1
                if values:
                    yield place, values
        except csv.Error as error:
            if "field limit" in str(error):
                raise DataError(
                    f"{name}:{line}: a field is longer than {csv.field_size_limit():,} letters; is a quotation mark "
                    "not closed? Texts this long can be read from a .jsonl file"
                ) from None
            raise DataError(
                f"{name}:{line}: broken CSV: {error}; look for a quotation mark that is not closed or not doubled"
            ) from None


def _csv_rows(records: Iterator[tuple[str, list[str]]], header: tuple[str, ...]) -> Iterator[Row]:
    for place, values in records:
        if len(values) == len(header):
            yield Row(dict(zip(header, values, strict=True)), place)
        else:
            why = f"the header has {len(header)} columns, but this row has {len(values)}"
            yield Row({}, place, RowError("fields", why))


def _checked_header(header: list[str], place: str) -> tuple[str, ...]:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise DataError(f"{place}: no comma in {header[0]!r}; the columns of a .csv file are separated by commas")
    for position, column in enumerate(header):
        if column in header[:position]:
            raise DataError(f"{place}: two columns have the name {column!r}")
    return tuple(header)


# --- Parquet -----------------------------------------------------------------------------------


def _parquet(path: Path, name: str) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{name}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    schema = file.schema_arrow
    return Table(name, _parquet_rows(file, name), _checked_header(schema.names, name), name, class_names(schema))


def _parquet_rows(file: Any, name: str) -> Iterator[Row]:
    import pyarrow

    try:
        yield from arrow_rows(file.iter_batches(batch_size=PARQUET_ROWS), name)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{name}: the Parquet file is damaged ({str(error).splitlines()[0]})") from None


def arrow_rows(batches: Iterator[Any], name: str) -> Iterator[Row]:
    """Rows of pyarrow batches or tables, numbered from 1."""
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            number += 1
            yield Row(values, f"{name}, row {number}")


def class_names(schema: Any) -> dict[str, list[str]]:
    """What the numbers of a column mean, where the `datasets` library has left that in a pyarrow schema."""
    try:
        notes = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = notes.get("info", {}).get("features", {})
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, AttributeError, TypeError):  # a note of somebody else's making
        return {}
