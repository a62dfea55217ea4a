"""General text outside the data: what a model knew before, to see how much of it a fine-tune forgets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pronk.data.conversation import Conversation
from pronk.data.words import counted, is_whole
from pronk.errors import DataError

SAMPLES = ("general.en.txt", "general.ko.txt")


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph. place: file and line."""

    text: str
    place: str


def general_text(
    path: str | None, rows: Sequence[Conversation], tell: Callable[[str], None] = lambda _: None
) -> list[Passage]:
    """The paragraphs of a file (the packaged ones when None) that stand in none of the rows, which may be trained on.

    tell: what was left out. Raises DataError with one message that names the file.
    """
    passages = _packaged() if path is None else _of_file(Path(path))
    learned = "\n".join(_joined(row.text) for row in rows)
    kept = [one for one in passages if _joined(one.text) not in learned]
    if len(kept) < len(passages):
        gone = len(passages) - len(kept)
        verb = "stands" if gone == 1 else "stand"
        tell(f"general text: {counted(gone, 'paragraph')} also {verb} in the rows to train on; left out")
    if not kept:
        raise DataError(f"forgetting.text: all paragraphs of {path or 'the sample'} stand in the rows to train on")
    return kept


def _packaged() -> list[Passage]:
    folder = files("pronk.data") / "samples"
    return [one for name in SAMPLES for one in _paragraphs((folder / name).read_text(encoding="utf-8"), name)]


def _of_file(path: Path) -> list[Passage]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"forgetting.text: there is no file {path}") from None
    except OSError as error:
        raise DataError(f"forgetting.text: {path} cannot be read ({error.strerror})") from None
    try:
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{content.count(bytes([10]), 0, error.start) + 1}: not UTF-8 text; save it as UTF-8"
        ) from None
    reader = _objects if path.suffix.lower() == ".jsonl" else _paragraphs
    found = list(reader(text, path.name))
    if not found:
        raise DataError(f"forgetting.text: {path} holds no text")
    return found


def _paragraphs(text: str, name: str) -> Iterator[Passage]:
    """Runs of lines without an empty one between them."""
    begin = 1
    lines: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            begin = begin if lines else number
            lines.append(line)
        elif lines:
            yield Passage("\n".join(lines).strip(), f"{name}:{begin}")
            lines = []


def _objects(text: str, name: str) -> Iterator[Passage]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        value = row.get("text") if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip() or not is_whole(value):
            raise DataError(f'{name}:{number}: expected an object such as {{"text": "…"}}, found {line.strip()[:40]}')
        yield Passage(value.strip(), f"{name}:{number}")


def _joined(text: str) -> str:
    return " ".join(text.split())
