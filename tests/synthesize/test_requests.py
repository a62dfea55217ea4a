"""What a model is asked: the same for the same number, seeds of the label alone, and no more than it has room for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pronk.errors import DataError
from pronk.synthesize.estimate import room_for
from pronk.synthesize.requests import Asking, blind_seeds, verifying
from pronk.synthesize.samples import Material, Sample
from pronk.synthesize.writers import fitted

LABELS = ("down", "up")
SEEDS = tuple(Sample(f"text {k}", "", LABELS[k % 2], f"s:{k}") for k in range(20))
LABELLED = Material("classify", SEEDS, (), LABELS, "Up or down?")
TASKS = Material(
    "instruct", (Sample('Say "hi"\nto her', "Ann", "Hi, Ann!", "s:1"), Sample("Count", "", "1 2", "s:2")), ()
)


def test_a_request_hangs_on_its_number_and_the_seed() -> None:
    asking = Asking(LABELLED, "json", 4, 3, 42)
    assert asking.request(7, "up") == asking.request(7, "up")
    assert asking.request(7, "up").seeds != asking.request(8, "up").seeds
    assert asking.request(7, "up").seeds != Asking(LABELLED, "json", 4, 3, 43).request(7, "up").seeds
    drawn = {seed.place for number in range(60) for seed in asking.request(number, "up").seeds}
    assert drawn == {seed.place for seed in SEEDS if seed.answer == "up"}
    assert len(Asking(LABELLED, "json", 99, 3, 42).request(1, "down").seeds) == 10


def test_json_that_is_asked_for_is_json_as_it_is_shown() -> None:
    request = Asking(TASKS, "json", 2, 3, 42).request(0, None)
    shown = [json.loads(line) for line in request.text.splitlines() if line.startswith("{")]
    assert sorted(one["instruction"] for one in shown) == sorted(seed.text for seed in TASKS.seeds)
    assert "3 new examples" in request.text
    classify = Asking(LABELLED, "json", 2, 1, 42).request(0, "up")
    assert classify.wanted == 1
    assert "1 new example with the label up" in classify.text
    assert "Up or down?" in classify.text


def test_lists_to_go_on_with_end_where_the_next_example_begins() -> None:
    request = Asking(LABELLED, "continue", 2, 4, 42).request(0, "up")
    assert re.fullmatch(r"(Label: up\nText: text \d+\n\n){2}Label: up\nText:", request.text)
    assert (request.wanted, request.plain, request.stop) == (1, True, ("\n",))
    blocks = Asking(TASKS, "continue", 2, 4, 42).request(0, None)
    assert blocks.text.count("###") == 2
    assert blocks.text.endswith("###\nInstruction:")
    assert blocks.stop == ("###",)


@pytest.mark.parametrize("form", ["json", "continue"])
def test_nothing_says_which_label_was_asked_for(form: Any) -> None:
    """The question for a text's label is the same, whatever it was asked for as."""
    seeds = blind_seeds(LABELLED, "a new text", 4, 42)
    assert sorted(seed.answer for seed in seeds) == ["down", "down", "up", "up"]
    asked = verifying(LABELLED, form, "a new\ntext", seeds, 5)
    assert asked.text.endswith("Text: a new text\nLabel:")
    assert asked.label is None
    first = {blind_seeds(LABELLED, f"text {k}", 2, 42)[0].answer for k in range(20)}
    assert first == {"up", "down"}  # no label always stands first, or last


class Small:
    """A writer with room for so many letters."""

    name = "small"

    def __init__(self, letters: int) -> None:
        self.letters = letters

    def has_room(self, request: Any, _: int) -> bool:
        return len(request.text) <= self.letters


def test_seeds_go_where_there_is_no_room_for_them() -> None:
    asking = Asking(LABELLED, "continue", 5, 1, 42)
    request = asking.request(0, "up")

    def again(seeds: tuple[Sample, ...]) -> Any:
        return asking.with_seeds(0, "up", seeds)

    writer: Any = Small(80)
    smaller = fitted(request, writer, 9, again)
    assert 0 < len(smaller.seeds) < 5
    assert smaller.seeds == request.seeds[: len(smaller.seeds)]
    assert len(smaller.text) <= 80
    writer = Small(5)
    with pytest.raises(DataError, match=r"s:\d+: a request that shows this seed leaves small no room"):
        fitted(request, writer, 9, again)


def test_room_for_an_answer_grows_with_the_seeds() -> None:
    assert room_for(LABELLED, 1) == 64
    long = Material("instruct", (Sample("x" * 3000, "", "y", "s:1"),), ())
    assert 2000 < room_for(long, 1) < 2100
    assert room_for(long, 50) == 4096
