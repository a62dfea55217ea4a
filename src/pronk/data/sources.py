"""Sources to conversations: the story of reading.

which format           detect.py, where the recipe does not say
source → rows          tables.py, files.py, hub.py: one at a time, each with its place
rows → those kept      where.py
rows → records         formats.py: checked values by field; turns.py, labels.py
sources → one list     mix.py: by weight
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import cast

from pronk.data.conversation import Conversation
from pronk.data.detect import with_formats
from pronk.data.formats import Reader, Record
from pronk.data.labels import LabelledText, labelled
from pronk.data.mix import mixed
from pronk.data.rows import Problems, Row, Table
from pronk.data.tables import named_sources, open_table
from pronk.data.where import Where
from pronk.data.words import counted
from pronk.errors import DataError
from pronk.recipe import Data, Source

Tell = Callable[[str], None]


def read_conversations(data: Data, tell: Tell = lambda _: None) -> tuple[list[Conversation], tuple[str, ...]]:
    """Read the sources of a recipe's `data` section, in order; tell is given a line for what is worth knowing.

    Returns one conversation a row, and the names of the labels: in the recipe's order or, found in
    the files, sorted; empty for the formats other than classify. Memory grows with the conversations
    alone: rows are read one by one (a .json file excepted).

    Raises DataError with one message that names the file and the line, or the recipe's key.
    """
    data = with_formats(data, tell)
    parts = [(name, _read(data, source, name, tell)) for source, name in named_sources(data)]
    weights, seed = [source.weight for source in data.sources], data.split.seed
    if not data.classifies:
        return mixed(cast(list[tuple[str, list[Conversation]]], parts), weights, seed, tell), ()
    # the labels are those of all rows, drawn or not
    conversations, labels = labelled(data, [cast(LabelledText, row) for _, rows in parts for row in rows])
    rest = iter(conversations)
    return mixed([(name, list(islice(rest, len(rows)))) for name, rows in parts], weights, seed, tell), labels


def _read(data: Data, source: Source, name: str, tell: Tell) -> list[Record]:
    table = open_table(source, name, data)
    reader = Reader(data, source, table)
    records = []
    for row in _kept(table, source, tell):
        record = reader.read(row)
        if record is not None:
            records.append(record)
    reader.finish()
    if reader.unanswered:
        tell(
            f"{name}: {counted(len(reader.unanswered), 'conversation')} had a last turn that nobody answers; "
            f"that turn is left out (first: {reader.unanswered[0]})"
        )
    return records


def _kept(table: Table, source: Source, tell: Tell) -> Iterator[Row]:
    """The rows that `where` keeps, told how many; all rows without one."""
    where = None if source.where is None else Where(source.where)
    if where and table.columns:
        where.check_columns(table.columns, table.place)
    problems, read, kept = Problems(), 0, 0
    first: Row | None = None
    for row in table.rows:
        first, read = first or row, read + 1
        if where is None or where.keeps(row, problems):
            kept += 1
            yield row
    if first is None:
        raise DataError(f"{source.path or table.name}: the {'file' if source.path else 'data set'} has no rows")
    if where:
        where.check_columns(table.columns or first.values, first.place)
        problems.raise_first()
        if not kept:
            raise DataError(f"data.where: {where.text!r} keeps none of the {counted(read, 'row')} of {table.name}")
        tell(f"{table.name}: {where.text!r} keeps {kept:,} of {counted(read, 'row')}")
