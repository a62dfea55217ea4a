"""From the recipe's sources to opened tables, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pronk.data.files import open_file
from pronk.data.rows import Row, Table
from pronk.errors import DataError
from pronk.recipe import Data, Source


def named_sources(data: Data) -> list[tuple[Source, str]]:
    """Sources and what people are told of them: a file's name, its path where two have the same name; a hub id.

    Raises DataError if there is none.
    """
    if not data.sources:
        raise DataError("data.source names no file")
    names = [Path(source.path).name for source in data.sources if source.path is not None]
    return [(source, _shown(source, names)) for source in data.sources]


def open_table(source: Source, name: str, data: Data) -> Table:
    """The table of a source, its class labels as names. Raises DataError if it cannot be opened."""
    if source.path is not None:
        table = open_file(Path(source.path).expanduser(), name)
    else:
        from pronk.data.hub import open_hub_set

        table = open_hub_set(source)
    return _with_class_names(table, data)


def _shown(source: Source, names: Sequence[str]) -> str:
    if source.path is None:
        return str(source.id)
    name = Path(source.path).name
    return name if names.count(name) == 1 else source.path


def _with_class_names(table: Table, data: Data) -> Table:
    """Class labels by name rather than by number, unless data.labels says itself what the numbers mean."""
    by_number = isinstance(data.labels, dict) and any(isinstance(value, int) for value in data.labels.values())
    if by_number or not table.class_names:
        return table

    def named(row: Row) -> Row:
        for column, names in table.class_names.items():
            number = row.values.get(column)
            if isinstance(number, int):  # -1 stands for no label
                row.values[column] = names[number] if 0 <= number < len(names) else None
        return row

    return Table(table.name, map(named, table.rows), table.columns, table.place, table.class_names)
