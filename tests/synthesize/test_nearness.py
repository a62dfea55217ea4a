"""What counts as near: copies of all kinds are found, by looking at a few texts only, and what is new is left alone."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import pronk.synthesize.nearness as subject
from pronk.synthesize.nearness import Known

SHARED = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[2] / "../shared"))
Change = Callable[[str, random.Random], str]


def headlines() -> list[str]:
    text = (files("pronk.data") / "samples" / "headlines.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["text"] for line in text.splitlines()]


def another_word(text: str, generator: random.Random) -> str:
    """One word replaced by one that says something else."""
    words = text.split()
    words[generator.randrange(len(words))] = generator.choice(["lantern", "quickly", "Brussels", "앞으로", "17"])
    return " ".join(words)


def a_word_less(text: str, generator: random.Random) -> str:
    words = text.split()
    del words[generator.randrange(len(words))]
    return " ".join(words)


def two_swapped(text: str, generator: random.Random) -> str:
    words = text.split()
    place = generator.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


CHANGES: dict[str, Change] = {
    "as it is": lambda text, _: text,
    "another word": another_word,
    "a word less": a_word_less,
    "two swapped": two_swapped,
    "upper case": lambda text, _: text.upper(),
    "wide spaces": lambda text, _: text.replace(" ", "  \n"),
    "no spaces": lambda text, _: text.replace(" ", ""),
    "other marks": lambda text, _: f"“{text.rstrip('.')}”!",
    "within another": lambda text, _: f"As was heard on Monday: {text} Nobody in the room had expected that to happen.",
}


def found(change: Change, texts: list[str], known: Known) -> float:
    """The share of changed copies that are near what they were copied from, or to something else that is known."""
    generator = random.Random(1)
    return sum(known.nearest(change(text, generator)) is not None for text in texts) / len(texts)


@pytest.mark.parametrize("name", CHANGES)
def test_copies_are_found(name: str) -> None:
    texts = headlines()[:200]
    assert found(CHANGES[name], texts, Known({"seed": texts})) >= 0.98


def test_new_headlines_are_left_alone() -> None:
    texts = headlines()
    known = Known({"seed": texts[:200]})
    assert sum(known.nearest(text) is not None for text in texts[200:]) <= 2


@pytest.mark.parametrize(
    ("place", "columns"), [("fpb/*.jsonl", ("sentence", "text")), ("ko/*.jsonl", ("document", "instruction"))]
)
def test_copies_of_real_texts_are_found(place: str, columns: tuple[str, ...]) -> None:
    texts = shared_texts(place, columns)
    known = Known({"kept-out": texts[:400]})
    for name, change in CHANGES.items():
        if name != "no spaces" or "ko" not in place:
            assert found(change, texts[:150], known) >= 0.95, name


def shared_texts(pattern: str, columns: tuple[str, ...]) -> list[str]:
    paths = sorted(SHARED.glob(f"data/{pattern}"))
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()[:800]]
    texts = [row[column] for row in rows for column in columns if isinstance(row.get(column), str)]
    texts = [text for text in dict.fromkeys(texts) if 4 <= len(text.split()) <= 60]
    if not texts:
        pytest.skip(f"no texts at {SHARED}/data/{pattern} (PRONK_TEST_DATA)")
    return texts


def made_up(generator: random.Random) -> list[str]:
    """Texts of few words, so that many are near another, and many nearly so."""
    words = [f"word{k}" for k in range(40)]
    texts = [" ".join(generator.choices(words, k=generator.randint(1, 14))) for _ in range(100)]
    return texts + [
        generator.choice([another_word, a_word_less, two_swapped])(text + " end now", generator) for text in texts
    ]


def test_the_index_misses_nothing() -> None:
    """Against all pairs looked at one by one."""
    generator = random.Random(3)
    texts = made_up(generator)
    known = Known({"seed": texts[:60]})
    for text in texts[60:130]:
        known.add(text, "earlier")
    of_all = [subject._text(text, "seed" if place < 60 else "earlier") for place, text in enumerate(texts[:130])]
    near = 0
    for text in texts[130:]:
        asked = subject._text(text, "")
        groups = {one.group for one in of_all if one.question.text == asked.question.text or subject._near(asked, one)}
        told = known.nearest(text)
        assert (told is None) == (not groups), text
        assert told is None or told[0] in groups
        near += told is not None
    assert 10 < near < 65  # the texts are worth a test


def test_what_says_the_same_is_told_apart_from_what_is_near() -> None:
    known = Known(
        {"kept-out": ["Sales of boats fell by a third in May"], "seed": ["Sales of boats fell by a third in May!"]}
    )
    assert known.nearest("sales of  BOATS fell by a third in may") == ("kept-out", True)
    assert known.nearest("Sales of boats fell by a third in June") == ("kept-out", False)
    assert known.nearest("Rain is expected in the north") is None
    assert Known({}).nearest("anything") is None
    assert known.nearest("") is None


def only_alike(_: Any, patch: pytest.MonkeyPatch) -> None:
    """As `pronk check` has it: a word replaced in a short text is another text."""
    patch.setattr(subject, "_near", lambda asked, one: subject.closeness(asked.question, one.question) is not None)


def only_exact(_: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(subject, "_near", lambda *_: False)


def too_few_looks(_: Any, patch: pytest.MonkeyPatch) -> None:
    """Words left out, and signatures that must agree more than one word of a short text leaves them."""
    patch.setattr(subject, "_WORTH_A_LOOK", 2.0)
    patch.setattr(subject, "_LIKELY", 0.8)


@pytest.mark.parametrize("fault", [only_alike, only_exact, too_few_looks])
def test_a_fault_shows(fault: Callable[[Known, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text in headlines() if len(text) < 80][:100]
    known = Known({"seed": texts})
    assert found(another_word, texts, known) >= 0.95
    fault(known, monkeypatch)
    assert found(another_word, texts, known) < 0.95
