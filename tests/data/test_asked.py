"""Rows are asked as training asked them: the messages are those of the conversations that were learned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pronk.data.asked import ASKED, Asking
from pronk.data.files import open_file
from pronk.data.formats import FIELDS
from pronk.data.labels import default_instruction
from pronk.data.rows import Row, RowError
from pronk.data.sources import read_conversations
from pronk.errors import DataError
from pronk.recipe import Data

TURNS = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}]
LATER = [*TURNS, {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2"}]
CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "classify": ({"columns": {"text": "said"}}, [{"said": " a ", "label": "x"}, {"said": "b", "label": "y"}]),
    "choice": (
        {"choices": "letters", "instruction": "Choose."},
        [{"question": "q ", "choices": ["a", "b"], "answer": 1}],
    ),
    "alpaca": (
        {"system": "Be brief."},
        [{"instruction": "i", "input": "x", "output": "o"}, {"instruction": "i", "output": "o"}],
    ),
    "pairs": ({"instruction": "Sum up."}, [{"prompt": "p", "response": "r"}]),
    "messages": ({"system": "Hm."}, [{"messages": LATER}, {"messages": [{"role": "system", "content": "S"}, *TURNS]}]),
    "sharegpt": ({}, [{"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}]),
}


@pytest.mark.parametrize("format", CASES)
def test_rows_are_asked_as_in_training(format: Any, tmp_path: Path) -> None:
    keys, rows = CASES[format]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Data(source=str(file), format=format, **keys)
    learned, labels = read_conversations(data)
    asking = Asking(
        format, data.columns, None, data.system, data.instruction or (default_instruction(labels) if labels else None),
        data.choices,
    )  # fmt: skip
    answers = {data.columns.get(field, field) for field in FIELDS[format] if field not in ASKED[format]}
    for row, conversation in zip(rows, learned, strict=True):
        assert tuple(asking.messages(Row(row, ""))) == conversation.question
        without = {column: value for column, value in row.items() if column not in answers}
        if format in ("messages", "sharegpt"):
            without = {column: turns[:-1] for column, turns in without.items()}
        assert tuple(asking.messages(Row(without, ""))) == conversation.question


def test_plain_text_is_the_beginning_of_an_answer() -> None:
    (message,) = Asking("text", {}).messages(Row({"text": "Once"}, ""))
    assert (message.role, message.content) == ("assistant", "Once")


def test_a_column_can_be_named() -> None:
    asking = Asking("alpaca", {"instruction": "i"}, "question", None, None)
    (message,) = asking.messages(Row({"question": "q", "input": "not read"}, ""))
    assert (message.content, message.context) == ("q", "")
    why = (
        "rows.csv:1: there is no column 'question' for instruction; the columns are 'questions' and 'b'; "
        "did you mean 'questions'?; name the one to read with --column NAME"
    )
    with pytest.raises(DataError, match=re.escape(why)):
        asking.check_columns(["questions", "b"], "rows.csv:1")


@pytest.mark.parametrize(
    ("format", "values", "why"),
    [
        ("classify", {"text": " "}, "the text is empty"),
        ("classify", {"text": 3}, "the text must be text; found the number 3"),
        ("classify", {}, "there is no column 'text'"),
        ("pairs", {"prompt": "\ud800"}, "half a character"),
        ("choice", {"question": "q", "choices": ["one"]}, "there must be 2 to 26 choices; found 1"),
        ("messages", {"messages": [{"role": "system", "content": "s"}]}, "has no user turn to answer"),
        ("messages", {"messages": [TURNS[0], TURNS[0]]}, "they alternate"),
        ("messages", {"messages": [{"role": "user", "content": "\udc00"}]}, "half a character"),
    ],
)
def test_what_cannot_be_asked_is_said(format: Any, values: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=why):
        Asking(format, {}).messages(Row(values, ""))


def test_rows_without_values_can_be_had(tmp_path: Path) -> None:
    """One by one in their places; without asking for them they are one error behind the last row, as ever."""
    for name, content, places in (
        ("a.jsonl", '{"text": "a"}\n{"text": \n\n[1]\n{"text": "b"}\n', ["a.jsonl:2", "a.jsonl:4"]),
        ("a.csv", "text,n\na,1\nb\nc,3\n", ["a.csv:3"]),
        ("a.json", '[{"text": "a"}, 3]', ["a.json, row 2"]),
    ):
        (tmp_path / name).write_text(content)
        rows = list(open_file(tmp_path / name, name, broken=True).rows)
        assert [row.place for row in rows if row.problem] == places
        with pytest.raises(RowError):
            Asking("classify", {}).messages(next(row for row in rows if row.problem))
        with pytest.raises(DataError, match=places[0]):
            list(open_file(tmp_path / name, name).rows)
