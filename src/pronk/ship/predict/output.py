"""The file of predictions: all columns of the input and the new ones behind them, as JSON lines, CSV or Parquet.

A spreadsheet takes a cell that begins with = + - or @ for a formula, and what a model writes is not to be trusted: in
CSV such a text gets an apostrophe before it, unless it is a number. The input's own cells stay as they are.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from pronk.data.terminal import harmless_json
from pronk.data.words import enumerated
from pronk.errors import DataError, OptionError
from pronk.ship.predict.answers import Record

ENDINGS = (".jsonl", ".csv", ".parquet")
STDOUT = "-"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
MOST_COLUMNS = 1000  # of CSV and Parquet, where every row has all of them
PARQUET_ROWS = 10_000  # in a row group


@dataclass(frozen=True)
class Columns:
    """The new columns. labels: of a model that picks one, () of others. with_error: whether rows that could not be read
    are among the rows. prefix: before each new column's name. choices: whether it picks one of each row's own choices;
    else, without labels, it writes."""

    labels: tuple[str, ...]
    with_error: bool = False
    prefix: str = ""
    choices: bool = False

    @property
    def _names(self) -> tuple[str, ...]:
        if self.labels:
            return "label", "probability"
        return ("choice", "choice_normalised", "scores") if self.choices else ("text", "ended")

    def nested(self, record: Record) -> dict[str, Any]:
        """A record's new values for JSON, where probabilities are one value."""
        names = (*self._names, *(("probabilities",) if self.labels else ()), *self._error)
        return {f"{self.prefix}{name}": record.get(name) for name in names}

    def flat(self, record: Record) -> dict[str, Any]:
        """A record's new values for a table, a column for each label's probability; scores of choices,
        of which rows may have any number, are one cell."""
        found = {name: record.get(name) for name in self._names}
        probabilities = record.get("probabilities") or {}
        found |= {f"probabilities.{label}": probabilities.get(label) for label in self.labels}
        found |= {name: record.get(name) for name in self._error}
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    @property
    def _error(self) -> tuple[str, ...]:
        return ("error",) if self.with_error else ()


def check_free(given: str, force: bool) -> None:
    """Raises OptionError for a file that is there, unless it is to be replaced."""
    if given != STDOUT and Path(given).is_dir():
        raise OptionError(f"--output {given}: this is a folder; name a file in it")
    if given != STDOUT and Path(given).exists() and not force:
        raise OptionError(
            f"--output {given}: this file exists already; choose another name, or replace it with --force"
        )


def check_output(given: str, columns: Columns, present: Mapping[str, Any]) -> None:
    """Raises OptionError for a file that cannot be written, and for new columns that the input has already."""
    as_json = given == STDOUT or Path(given).suffix == ENDINGS[0]
    if given != STDOUT and Path(given).suffix not in ENDINGS:
        raise OptionError(f"--output {given}: expected a file ending in {enumerated(ENDINGS, 'or')}, or - for stdout")
    if not as_json and len(present) > MOST_COLUMNS:
        raise OptionError(f"--output {given}: the input has {len(present):,} columns; write a .jsonl file instead")
    new = columns.nested({}) if as_json else columns.flat({})
    if taken := [name for name in new if name in present]:
        raise OptionError(
            f"the input has a column {taken[0]!r} already; name the new columns apart, such as --prefix predicted_"
        )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that appears under its name only when all of it is on the disk. One such place for each
    name: what a killed process left there is written over."""
    aside = path.with_name(f".{path.name}.writing")
    try:
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


class Writer(Protocol):
    """Takes rows, values and records, as they come."""

    def add(self, rows: Iterable[tuple[Mapping[str, Any], Record]]) -> None:
        """Write rows."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def open_writer(path: Path, ending: str, columns: Columns, kinds: Mapping[str, set[type]], schema: Any) -> Writer:
    """What writes into `path` as the ending says. kinds: types of the input's values by column; schema: the input's
    pyarrow schema, if it has one."""
    if ending == ".parquet":
        return _Parquet(path, columns, _schema(kinds, schema))
    # half a character, which JSON's escapes can spell, is spelled again
    file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    return JsonLines(file, columns) if ending == ".jsonl" else _Csv(file, columns, list(kinds))


class JsonLines:
    """A JSON object a line."""

    def __init__(self, file: TextIO, columns: Columns) -> None:
        self._file, self._columns = file, columns

    def add(self, rows: Iterable[tuple[Mapping[str, Any], Record]]) -> None:
        """See Writer."""
        for values, record in rows:
            self._file.write(json_line({**values, **self._columns.nested(record)}))

    def close(self) -> None:
        """See Writer."""
        self._file.close()


class _Csv:
    def __init__(self, file: TextIO, columns: Columns, names: Sequence[str]) -> None:
        self._file, self._columns, self._names = file, columns, names
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow([*names, *columns.flat({})])

    def add(self, rows: Iterable[tuple[Mapping[str, Any], Record]]) -> None:
        for values, record in rows:
            new = [no_formula(cell(value)) for value in self._columns.flat(record).values()]
            self._writer.writerow([*(cell(values.get(name)) for name in self._names), *new])

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, columns: Columns, schema: Any) -> None:
        import pyarrow
        import pyarrow.parquet

        new = columns.flat({})
        of_numbers = {
            f"{columns.prefix}{name}" for name in ("probability", *map("probabilities.{}".format, columns.labels))
        }
        for name in new:
            schema = schema.append(pyarrow.field(name, pyarrow.float64() if name in of_numbers else pyarrow.string()))
        self._columns, self._schema, self._rows = columns, schema, list[dict[str, Any]]()
        self._texts = {one.name for one in schema if one.type == pyarrow.string()}
        self._writer = pyarrow.parquet.ParquetWriter(path, schema)

    def add(self, rows: Iterable[tuple[Mapping[str, Any], Record]]) -> None:
        for values, record in rows:
            whole = {**values, **self._columns.flat(record)}
            self._rows.append({name: cell(value) if name in self._texts else value for name, value in whole.items()})
            if len(self._rows) == PARQUET_ROWS:
                self._write()

    def close(self) -> None:
        if self._rows:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        import pyarrow

        try:
            self._writer.write_batch(pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema))
        except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
            why = str(error).splitlines()[0]
            raise DataError(f"the input's values cannot be written as Parquet ({why}); write a .jsonl file") from None
        self._rows.clear()


def _schema(kinds: Mapping[str, set[type]], schema: Any) -> Any:
    """The input's own pyarrow schema, or one that its values fit: what is mixed or nested is text."""
    import pyarrow

    if schema is not None:
        return schema
    plain = {
        frozenset({bool}): pyarrow.bool_(),
        frozenset({int}): pyarrow.int64(),
        frozenset({float}): pyarrow.float64(),
        frozenset({int, float}): pyarrow.float64(),
    }
    found = {name: plain.get(frozenset(types - {type(None)}), pyarrow.string()) for name, types in kinds.items()}
    return pyarrow.schema(list(found.items()))


def cell(value: Any) -> Any:
    """A value as a table's cell: texts as they are, nothing for null, all else as JSON."""
    if value is None or isinstance(value, str):
        return value if value is None or value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    return json.dumps(value, ensure_ascii=False, default=str)


def no_formula(value: Any) -> Any:
    """The cell, with an apostrophe before what a spreadsheet would take for a formula."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def json_line(values: Mapping[str, Any]) -> str:
    """Values as one line of JSON that steers no terminal; what JSON does not have, such as dates, as text."""
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(_plain(values), ensure_ascii=False)
    return harmless_json(text) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
