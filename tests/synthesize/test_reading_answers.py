"""What a model wrote becomes examples or nothing, whatever it wrote, and never takes long."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from pronk.synthesize.answers import MOST_LETTERS, samples_of
from pronk.synthesize.requests import Request
from pronk.synthesize.samples import Sample

GOOD: Any = {"text": "Sales rose", "label": "up"}
SEED = Sample("Sales fell", "", "down", "seeds.jsonl:1")


def asked(wanted: int = 4, plain: bool = False, label: str | None = "up") -> Request:
    return Request(0, "", plain, label, wanted, (SEED,))


def texts(answer: str, wanted: int = 4) -> list[str]:
    return [one.text for one in samples_of(answer, asked(wanted), "classify")]


READ = {
    "a list": json.dumps([GOOD, {"text": "Costs fell", "label": "up"}]),
    "in a fence": f"Sure! Here you go:\n```json\n{json.dumps([GOOD, {'text': 'Costs fell'}])}\n```\nMore?",
    "lines": f"{json.dumps(GOOD)}\n{json.dumps({'text': ' Costs fell ', 'label': 'up'})}",
    "texts alone": '["Sales rose", "Costs fell"]',
    "in an object": json.dumps({"examples": [GOOD, {"text": "Costs fell", "label": "up"}]}),
    "cut off": json.dumps([GOOD, {"text": "Costs fell"}, {"text": "Nobody"}])[:-12],
    "brackets before": 'I [think] so {really}: [{"text": "Sales rose"}, {"text": "Costs fell"}]',
    "others among them": json.dumps([1, None, GOOD, {"other": 1}, [], {"text": "Costs fell"}]),
    "escapes": '[{"text": "Sales ro\\u0073e", "label": "up"}, {"text": "Costs fell"}]',
    "no end": json.dumps([GOOD, {"text": "Costs fell"}])[:-1] + ', {"text": "' + "x" * 200_000,
}


@pytest.mark.parametrize("name", READ)
def test_examples_are_found_wherever_they_stand(name: str) -> None:
    assert texts(READ[name]) == ["Sales rose", "Costs fell"]


HOSTILE = {
    "nothing": "",
    "prose": "I am sorry, but I cannot help with that.",
    "brackets": "[" * 100_000,
    "braces": "{" * 100_000,
    "pairs": '{"a":' * 50_000,
    "quotation marks": '{"' * 100_000,
    "an endless text": '[{"text": "' + "y" * 2_000_000,
    "an endless number": '[{"text": ' + "9" * 50_000 + "}]",
    "not a number": '[{"label": NaN, "label2": Infinity}]',
    "halves": '{"other": "\\ud800"}',
    "numbers": "[1, 2, 3]",
    "nulls": "\0" * 1000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_example_is_none_and_takes_no_time(name: str) -> None:
    begun = time.process_time()
    assert samples_of(HOSTILE[name], asked(), "instruct") == []
    assert time.process_time() - begun < 2


def test_no_more_than_was_asked_for() -> None:
    assert len(texts(json.dumps([GOOD] * 900), wanted=3)) == 3
    assert texts(" " * MOST_LETTERS + json.dumps(GOOD)) == []


def test_a_label_that_is_said_counts() -> None:
    found = samples_of(json.dumps([{"text": "a", "label": "UP"}, {"text": "b", "label": "down"}]), asked(), "classify")
    assert [one.answer for one in found] == ["up", "down"]
    missing = samples_of('[{"text": "a"}, {"text": 3, "label": ["up"]}]', asked(), "classify")
    assert missing == [Sample("a", "", "up"), Sample("", "", "")]


def test_instructions_have_three_fields() -> None:
    answer = json.dumps([{"instruction": "Add", "input": None, "output": "4"}, {"instruction": "Name a bird"}, "text"])
    found = samples_of(answer, asked(label=None), "instruct")
    assert found == [Sample("Add", "", "4"), Sample("Name a bird", "", "")]


def test_lists_that_were_gone_on_with() -> None:
    assert samples_of(" Sales rose \nLabel: down\nText: more", asked(plain=True), "classify") == [
        Sample("Sales rose", "", "up")
    ]
    block = " Translate.\nInput: Guten Tag\nOutput: Good day\n###\nInstruction: more"
    assert samples_of(block, asked(plain=True, label=None), "instruct") == [
        Sample("Translate.", "Guten Tag", "Good day")
    ]
    block = " Name a bird\nOutput: Tit\nOutput: Owl\nInstruction: Name another"
    assert samples_of(block, asked(plain=True, label=None), "instruct") == [Sample("Name a bird", "", "Tit")]
    assert samples_of("no end in sight", asked(plain=True, label=None), "instruct") == []
    assert samples_of("\n", asked(plain=True), "classify") == []
