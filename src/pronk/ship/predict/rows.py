"""The rows to predict for: read again and again, a few at a time; as the model reads them; in windows.

A window is what is sorted by length and answered together: so many rows as make a few batches, whatever is in them.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pronk.ask.asking import Reader
from pronk.data.asked import Asking
from pronk.data.conversation import Message
from pronk.data.files import open_file
from pronk.data.rows import Row, RowError, Table
from pronk.errors import BaseModelError, DataError, OptionError, PromptError
from pronk.recipe import FILE_ENDINGS

STDIN = "-"
TOKENIZED = 1024  # rows handed to the tokenizer at once
PROMPT_BYTES = 256  # more than a form adds to a question; a token takes a byte at least


@dataclass(frozen=True, slots=True)
class Item:
    """A row as the model reads it. key: what the draws for it hang on. error: why there is nothing to read. choices:
    what its answer is chosen among, where the row says so; choice_ids: the same without an end token."""

    row: Row
    ids: list[int]
    key: int = 0
    error: str = ""
    choices: tuple[str, ...] = ()
    choice_ids: tuple[list[int], ...] = ()

    @property
    def answer_size(self) -> int:
        """Tokens of all choices."""
        return sum(map(len, self.choice_ids))


@dataclass(frozen=True)
class Source:
    """Rows that can be gone through more than once. path: of their file, if they have one. digest: of what it holds."""

    name: str
    open: Callable[[], Table]
    path: Path | None = None
    digest: str = ""

    def rows(self) -> Iterator[Row]:
        """All rows, those without values among them. Raises DataError where the file is damaged."""
        return self.open().rows

    def schema(self) -> Any:
        """The pyarrow schema of a Parquet file; None of any other."""
        if self.path is None or self.path.suffix.lower() != ".parquet":
            return None
        from pyarrow.parquet import read_schema

        return read_schema(self.path)


@contextmanager
def opened(given: str) -> Iterator[Source]:
    """The rows of a file, or of stdin (`-`), which is JSON lines and copied aside. Raises DataError."""
    if given != STDIN:
        path = Path(given).expanduser()
        if path.suffix.lower() not in FILE_ENDINGS and path.suffix:
            raise OptionError(f"--input {given}: expected a file ending in {', '.join(FILE_ENDINGS)}, or - for stdin")
        yield _of_file(path, path.name)
        return
    with tempfile.NamedTemporaryFile(prefix="pronk-", suffix=".jsonl") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield _of_file(Path(copy.name), "stdin")


def _of_file(path: Path, name: str) -> Source:
    open_file(path, name, broken=True)  # what is no table is told in words
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(name, lambda: open_file(path, name, broken=True), path, digest)


def of_values(rows: Iterable[dict[str, Any]]) -> Source:
    """Rows that are in memory."""
    kept = [Row(dict(values), f"row {number}") for number, values in enumerate(rows, start=1)]
    return Source("the rows", lambda: Table("the rows", iter(kept)))


@dataclass
class Facts:
    """What one passage over all rows found. kinds: of each column the types of its values, in the order in which
    columns came. bad: how many rows the model cannot read; first_bad: where the first is, and why."""

    rows: int = 0
    bad: int = 0
    first_bad: str = ""
    kinds: dict[str, set[type]] = field(default_factory=dict)

    def note(self, row: Row, error: str) -> None:
        """Count a row."""
        self.rows += 1
        if error:
            self.bad += 1
            self.first_bad = self.first_bad or f"{row.place}: {error}"
        for column, value in row.values.items():
            large = isinstance(value, int) and not -(2**63) <= value < 2**63
            self.kinds.setdefault(column, set()).add(object if large else type(value))


class Prompts:
    """Rows as ids. longest: tokens of the longest prompt that leaves room for its answer; context: all that the base
    reads."""

    def __init__(self, reader: Reader, asking: Asking, longest: int, context: int) -> None:
        self.reader, self.asking, self.longest, self.context = reader, asking, longest, context

    def examine(self, source: Source, check: Callable[[], None]) -> Facts:
        """Go through all rows once. Only texts that could be too long are tokenized. check: called now and then.

        Raises DataError for a file without rows, or whose columns are others.
        """
        facts, table = Facts(), source.open()
        if table.columns is not None:
            self.asking.check_columns(table.columns, table.place)
            facts.kinds = {column: set() for column in table.columns}
        for row in table.rows:
            facts.note(row, self._error(row))
            if facts.rows % TOKENIZED == 0:
                check()
        if not facts.rows:
            raise DataError(f"{source.name}: there are no rows")
        return facts

    def items(self, rows: Iterable[Row]) -> Iterator[Item]:
        """Rows as the model reads them, in their order."""
        remaining = iter(rows)
        while chunk := list(islice(remaining, TOKENIZED)):
            yield from self._tokenized([self._asked(row) for row in chunk])

    def ids(self, asked: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Conversations as the ids that an answer would follow."""
        ids = self.reader.prompt.question_ids(asked)
        if any(max(one, default=0) >= self.reader.config.vocab_size for one in ids):
            raise BaseModelError(
                f"base: its tokenizer gives ids beyond the model's {self.reader.config.vocab_size} embeddings; "
                "tokenizer and model do not belong together"
            )
        # a text to go on with has not ended
        return [one[:-1] if last[-1].role == "assistant" else one for one, last in zip(ids, asked, strict=True)]

    def _error(self, row: Row) -> str:
        try:
            asked = self.asking.messages(row)
        except RowError as error:
            return str(error)
        size = sum(len(one.content.encode()) + len(one.context.encode()) for one in asked)
        size += max((len(one.encode()) for one in self.asking.offered(row)), default=0)
        if size + PROMPT_BYTES <= self.longest:
            return ""
        return next(self._tokenized([(row, asked, "")])).error

    def _asked(self, row: Row) -> tuple[Row, list[Message], str]:
        try:
            return row, self.asking.messages(row), ""
        except RowError as error:
            return row, [], str(error)

    def _tokenized(self, asked: Sequence[tuple[Row, list[Message], str]]) -> Iterator[Item]:
        good = [messages for _, messages, error in asked if not error]
        try:
            ids = iter(self.ids(good))
        except PromptError:  # of one of them: the template's own condition
            for row, messages, error in asked:
                yield Item(row, [], error=error) if error else self._alone(row, messages)
            return
        for row, messages, error in asked:
            yield Item(row, [], error=error) if error else self._fitting(row, messages, next(ids))

    def _alone(self, row: Row, messages: list[Message]) -> Item:
        try:
            return self._fitting(row, messages, self.ids([messages])[0])
        except PromptError as error:
            return Item(row, [], error=str(error))

    def _fitting(self, row: Row, messages: list[Message], ids: list[int]) -> Item:
        if not ids:
            return Item(row, [], error="the tokenizer makes nothing of this text")
        offered = self.asking.offered(row)
        choices = tuple(one[:-1] for one in self.reader.prompt.answer_ids(offered)) if offered else ()
        longest = self.context - max(map(len, choices)) if choices else self.longest
        if len(ids) > longest:
            why = f"{len(ids):,} tokens are too long: the base reads {self.context:,}, the answer among them"
            return Item(row, [], error=why)
        return Item(row, ids, _draw_key(messages), choices=offered, choice_ids=choices)


def _draw_key(messages: Sequence[Message]) -> int:
    return zlib.crc32("\0".join(part for one in messages for part in (one.content, one.context)).encode())


def windows(items: Iterable[Item], size: Callable[[list[int]], int], most: int) -> Iterator[list[Item]]:
    """Items in their order, so many at a time that their sizes come to `most` at most; one at least. The same items
    give the same windows from wherever one of them began. size: of a prompt with its answer, in tokens; a row's
    own choices come on top."""
    window: list[Item] = []
    room = most
    for item in items:
        needed = size(item.ids) + item.answer_size if item.ids else 1
        if window and needed > room:
            yield window
            window, room = [], most
        window.append(item)
        room -= needed
    if window:
        yield window
