"""Questions to ask models: the packaged ones, a text, or a file with one on each line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pronk.data.words import is_whole
from pronk.errors import DataError

SAMPLES = {"english": "questions.en.jsonl", "korean": "questions.ko.jsonl"}
ENDINGS = (".jsonl", ".txt")
NAMES = ("question", "instruction")  # of the question in a .jsonl file


@dataclass(frozen=True, slots=True)
class Question:
    """A question. context: what it is about (Alpaca's input), empty for none. place: for messages to people."""

    text: str
    context: str
    place: str


def read_questions(given: Sequence[str]) -> list[Question]:
    """Questions from texts, names of files (.txt, .jsonl) and `english` or `korean`, the packaged ones.

    Raises DataError with one message that names the file and the line.
    """
    return [question for number, one in enumerate(given, start=1) for question in _read(one, number)]


def _read(given: str, number: int) -> list[Question]:
    if given in SAMPLES:
        text = (files("pronk.data") / "samples" / SAMPLES[given]).read_text(encoding="utf-8")
        return _in_jsonl(text, SAMPLES[given])
    if not given.lower().endswith(ENDINGS):
        return [_text_question(given, number)]
    path = Path(given).expanduser()
    text = _file_text(path)
    found = _in_jsonl(text, path.name) if path.suffix.lower() == ".jsonl" else _in_text(text, path.name)
    if not found:
        raise DataError(f"{path}: there is no question in this file")
    return found


def _text_question(given: str, number: int) -> Question:
    if not given.strip():
        raise DataError(f"question {number} is empty; write a text, or name a .txt or .jsonl file")
    if "\n" not in given and len(given) < 255 and Path(given).exists():
        kind = "a folder" if Path(given).is_dir() else "a file"
        raise DataError(f"--questions {given}: this is {kind}; questions come from .txt or .jsonl files")
    return Question(_whole(given, f"question {number}"), "", f"question {number}")


def _in_text(text: str, name: str) -> list[Question]:
    lines = enumerate(text.split("\n"), start=1)
    return [Question(line.strip(), "", f"{name}:{number}") for number, line in lines if line.strip()]


def _in_jsonl(text: str, name: str) -> list[Question]:
    # JSON strings may hold U+2028 and the like, at which splitlines would cut
    lines = enumerate(text.split("\n"), start=1)
    return [_row(line, f"{name}:{number}") for number, line in lines if line.strip()]


def _row(line: str, place: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: broken JSON: {error}; expected an object such as {_example()}") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object such as {_example()}, found {line.strip()[:40]}")
    named = [name for name in NAMES if name in row]
    if len(named) != 1:
        found = "both `question` and `instruction`" if named else f"the keys {', '.join(map(repr, row)) or 'none'}"
        raise DataError(f"{place}: found {found}, expected one of `question` and `instruction`")
    context = "" if row.get("input") is None else row["input"]
    for key, value in ((named[0], row[named[0]]), ("input", context)):
        if not isinstance(value, str):
            raise DataError(f"{place}: `{key}` must be text, found {json.dumps(value)[:40]}")
    return Question(_whole(row[named[0]], place), _whole(context, place, optional=True), place)


def _whole(text: str, place: str, optional: bool = False) -> str:
    if not text.strip() and not optional:
        raise DataError(f"{place}: the question is empty")
    if not is_whole(text):
        raise DataError(f"{place}: there is half a character in the text (a lone surrogate); save it as UTF-8")
    return text


def _example() -> str:
    example: dict[str, Any] = {"question": "What is a llama?"}
    return json.dumps(example)


def _file_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of questions") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: the byte at offset {error.start} is not UTF-8 text; save it as UTF-8"
        ) from None
