"""A model that stays in memory answers as `pronk generate` does, each time, whoever is asked beside."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pronk.ask.asking import ask
from pronk.ask.kept import Kept
from pronk.ask.models import find_models
from pronk.data.questions import Question
from pronk.recipe import generation_settings
from pronk.train.interrupt import Interruption

TEXTS = ["Sales rose by 12.", "Name a bird", "공장이 문을 닫는다.", "one two three"]
QUESTIONS = [Question(text, "", f"question {k}") for k, text in enumerate(TEXTS)]


class Silent:
    def advance(self, amount: float = 1, note: str = "") -> None:
        pass


def said(
    kept: Kept, questions: list[Question], keys: list[int], stop: Interruption | None = None, **given: Any
) -> list[str]:
    settings = generation_settings({"max_new_tokens": 12, **given})
    found = [
        one for batch in kept.answers(questions, keys, settings, stop or Interruption(), Silent()) for one in batch
    ]
    return [answer.text for _, answer in sorted(found, key=lambda one: one[0])]


@pytest.fixture(scope="module")
def console() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def kept(tiny_base: Path, console: Console) -> Kept:
    return Kept(find_models([str(tiny_base)])[0], console)


def test_it_answers_as_generate_does_and_again(kept: Kept, tiny_base: Path, console: Console) -> None:
    settings = generation_settings({"max_new_tokens": 12})
    expected = [one.text for one in ask(find_models([str(tiny_base)]), QUESTIONS, settings, console).answers]
    assert said(kept, QUESTIONS, [0] * 4) == expected
    assert said(kept, QUESTIONS[2:], [5, 6]) == expected[2:]


def test_what_is_drawn_hangs_on_the_key_alone(kept: Kept) -> None:
    warm = {"temperature": 1.0, "seed": 3}
    together = said(kept, QUESTIONS, [11, 12, 13, 14], **warm)
    assert said(kept, [QUESTIONS[1]], [12], **warm) == [together[1]]
    assert said(kept, [QUESTIONS[1]] * 2, [12, 99], **warm)[0] == together[1]
    assert len(set(said(kept, [QUESTIONS[1]] * 6, [*range(6)], **warm))) > 1


def test_it_says_how_long_questions_are_and_stops_when_asked(kept: Kept) -> None:
    assert kept.lengths(QUESTIONS[:2]) == [len(kept._reader.ids([one])[0]) for one in QUESTIONS[:2]]
    assert kept.context == 256
    stop = Interruption()
    stop.asked = 1
    assert said(kept, QUESTIONS, [0] * 4, stop) == []
