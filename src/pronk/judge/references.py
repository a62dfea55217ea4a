"""Answers that are known to be right, in the form of MT-bench."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pronk.data.questions import Question
from pronk.errors import DataError

EXAMPLE = '{"question_id": 101, "choices": [{"turns": ["…"]}]}'


def read_references(path: Path, questions_file: Path, questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Reference answers by the question's id, a text for each turn, as far as there are any.

    Rows of both files have a `question_id`; those of `path` hold `{"choices": [{"turns": ["…"]}]}` or a `reference`, a
    text or a list of them. Raises DataError with file and line where a row is none, and where no reference belongs to
    any of the questions.
    """
    known = {f"{questions_file.name}:{number}": str(row.get("question_id")) for number, row in _rows(questions_file)}
    by_id = {known[question.place]: question for question in questions if question.place in known}
    found: dict[str, tuple[str, ...]] = {}
    rows = _rows(path)
    for number, row in rows:
        turns = _turns(row)
        if turns is None or "question_id" not in row:
            raise DataError(f"{path}:{number}: no reference answer; expected an object such as {EXAMPLE}")
        question = by_id.get(str(row["question_id"]))
        if question is not None:
            found[question.id] = turns[: len(question.turns)]
    if not found:
        raise DataError(
            f"{path}: none of its {len(rows)} reference answers has the `question_id` of a question in {questions_file}"
        )
    return found


def _turns(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    given: Any = row.get("reference")
    if given is None:
        try:
            given = row["choices"][0]["turns"]
        except (KeyError, IndexError, TypeError):
            return None
    texts = [given] if isinstance(given, str) else given
    whole = isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)
    return tuple(texts) if whole else None


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Line number and object of each line. Raises DataError for what is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: broken JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object such as {EXAMPLE}, found {line.strip()[:40]}")
            rows.append((number, row))
    return rows
