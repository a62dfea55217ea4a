"""Sources that only train (`part: train`): they add rows to train, and change nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pronk.data.conversation import Conversation
from pronk.data.split import Splits, read_splits
from pronk.errors import DataError, RecipeError
from pronk.recipe import Data
from pronk.recipe.schema import validated

Write = Callable[[str, Any], str]
REAL = [{"text": f"Item {k} sells well in town {k * 7}", "label": ("up", "down")[k % 2]} for k in range(40)]
MADE = [
    {"text": f"Made up {k} for a village", "label": ("up", "down")[k % 2], "provenance": {"k": k}} for k in range(12)
]


def section(source: Any, **keys: Any) -> Data:
    return validated({"data": {"source": source, **keys}}, "recipe").data


def read(write: Write, made: list[Any], **keys: Any) -> tuple[Splits, Splits, list[str]]:
    """The split without the made-up rows, that with them, and what was told."""
    real, told = write("real.jsonl", REAL), list[str]()
    source = [{"path": write("made.jsonl", made), "part": "train", "format": "classify"}, real]
    return read_splits(section(real, **keys))[0], read_splits(section(source, **keys), told.append)[0], told


def places(rows: tuple[Conversation, ...]) -> list[str]:
    return [row.place for row in rows]


SPLITS = [
    {"validation": 0.1, "test": 0.25, "seed": 1},
    {"train": 20, "validation": 4, "test": 10, "balanced": True, "seed": 2},
    {"validation": 5, "test": 5, "shuffle": False},
]


@pytest.mark.parametrize("split", SPLITS)
def test_the_other_rows_are_divided_as_if_it_were_not_there(split: dict[str, Any], write: Write) -> None:
    without, together, told = read(write, MADE, split=split)
    assert places(together.test) == places(without.test)
    assert places(together.validation) == places(without.validation)
    assert together.train[: len(without.train)] == without.train
    assert places(together.train[len(without.train) :]) == [f"made.jsonl:{k}" for k in range(1, 13)]
    assert together.counts()["train_only"] == 12
    assert "train_only" not in without.counts()
    assert told[-1].startswith("12 rows for training only")


def test_rows_that_ask_what_another_asks_are_left_out(write: Write) -> None:
    without, _, _ = read(write, MADE)
    test, train = without.test[0], without.train[0]
    copies = [
        {"text": test.subject.upper(), "label": "up"}, {"text": f" {train.subject}", "label": "down"}, MADE[0], MADE[0],
    ]  # fmt: skip
    _, together, _ = read(write, copies)
    assert places(together.train)[len(without.train) :] == ["made.jsonl:3"]
    assert together.duplicates_removed == 3
    assert together.repeated[0][0] == test
    assert together.train_only == 1


def test_conversations_that_open_as_a_test_row_does_are_left_out(write: Write) -> None:
    def turns(first: str, second: str) -> dict[str, Any]:
        said = [("user", first), ("assistant", "yes"), ("user", second), ("assistant", "no")]
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    real = write("chat.jsonl", [turns(f"question {k}", "and?") for k in range(20)])
    opening = read_splits(section(real))[0].test[0].messages[0].content
    made = write("more.jsonl", [turns(opening, "why?"), turns("something new", "why?")])
    source = [real, {"path": made, "part": "train"}]
    assert read_splits(section(source))[0].train_only == 1
    assert read_splits(section(source, split={"keep_openings": False}))[0].train_only == 2


def test_labels_are_those_of_the_real_rows(write: Write) -> None:
    with pytest.raises(DataError, match=r"made\.jsonl:1: the label 'sideways' is not one of down and up"):
        read(write, [{"text": "a", "label": "sideways"}])
    _, together, _ = read(write, [{"text": "a", "label": "UP"}], labels={"up": "up", "down": "down"})
    assert together.train[-1].label == "up"


def test_some_source_must_be_divided(write: Write) -> None:
    with pytest.raises(RecipeError, match="every source has `part: train`"):
        section({"path": write("made.jsonl", MADE), "part": "train"})
    with pytest.raises(RecipeError, match="part"):
        section([{"path": write("made.jsonl", MADE), "part": "test"}, "real.jsonl"])


def test_a_fault_shows(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: all sources are divided together."""
    monkeypatch.setattr(Data, "of_part", lambda self, part: self if part is None else None)
    without, together, _ = read(write, MADE)
    assert places(together.test) != places(without.test)
