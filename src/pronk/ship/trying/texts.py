"""The texts that a pretrained model is tried on: from the command line, a file, or a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from pronk.data.files import open_file
from pronk.data.questions import Question
from pronk.data.words import did_you_mean, is_whole, quoted
from pronk.errors import DataError, OptionError
from pronk.recipe import FILE_ENDINGS

COLUMN = "text"


def read_texts(given: Sequence[str], file: Path | None, piped: TextIO) -> list[Question]:
    """The texts, each with its place for messages: those given, else a file's, else the lines of what is piped in.

    A .txt file has a text a line; of .jsonl, .json, .csv and .parquet the column `text` is read. Raises OptionError
    where there is nothing to read, DataError for what is no text.
    """
    if given and file is not None:
        raise OptionError("--file and a text on the command line: give one of the two")
    if given:
        return [_given(text, number) for number, text in enumerate(given, start=1)]
    if file is not None:
        return _of_file(file.expanduser())
    if piped.isatty():
        raise OptionError("there is no text: write one in quotation marks, name a --file, or pipe lines in")
    try:
        return _lines(piped.read(), "stdin")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: byte {error.start} is not UTF-8 text; pipe in UTF-8") from None


def _given(text: str, number: int) -> Question:
    if text.lower().endswith((".txt", *FILE_ENDINGS)) and "\n" not in text and len(text) < 255 and Path(text).is_file():
        raise OptionError(f"{text}: this is a file; to read the texts in it, write --file {text}")
    return _text(text, f"text {number}")


def _of_file(path: Path) -> list[Question]:
    if path.suffix.lower() in FILE_ENDINGS:
        return _of_table(path)
    if path.suffix.lower() != ".txt":
        raise DataError(f"--file {path}: expected a file ending in .txt, {', '.join(FILE_ENDINGS)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"--file {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"--file {path}: the byte at offset {error.start} is not UTF-8 text; save it so") from None
    return _lines(text, path.name)


def _of_table(path: Path) -> list[Question]:
    found = []
    for row in open_file(path, path.name).rows:
        if COLUMN not in row.values:
            named = quoted(row.values)
            raise DataError(
                f"{row.place}: there is no column {COLUMN!r}, only {named}{did_you_mean(COLUMN, row.values)}"
            )
        value = row.values[COLUMN]
        if not isinstance(value, str):
            raise DataError(f"{row.place}: `{COLUMN}` must be text, found {value!r:.40}")
        found.append(_text(value, row.place))
    return _some(found, path.name)


def _lines(text: str, name: str) -> list[Question]:
    lines = enumerate(text.split("\n"), start=1)
    return _some([_text(line.strip(), f"{name}:{number}") for number, line in lines if line.strip()], name)


def _some(found: list[Question], name: str) -> list[Question]:
    if not found:
        raise DataError(f"{name}: there is no text in it")
    return found


def _text(text: str, place: str) -> Question:
    if not text.strip():
        raise DataError(f"{place}: the text is empty")
    if not is_whole(text):
        raise DataError(f"{place}: there is half a character in the text (a lone surrogate); save it as UTF-8")
    return Question(text, "", place)
