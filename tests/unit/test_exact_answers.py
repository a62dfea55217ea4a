"""Short answers: what is the same after normalising, by SQuAD's definition and a table made by hand; patterns of a
recipe that are broken, slow or find nothing."""

from __future__ import annotations

import json
import re
import string
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pronk.data.conversation import Conversation, Message
from pronk.errors import RecipeError
from pronk.evaluate import exact, normal_text
from pronk.evaluate.answers import FreeAnswer
from pronk.evaluate.exact import Finder, check_references, exact_items, records
from pronk.evaluate.normal_text import last_number, normalised
from pronk.recipe import Exact
from pronk.recipe.schema import validated

DATA = Path(__file__).parents[3] / "shared"


def squad(text: str) -> str:
    """SQuAD's normalisation, from its description in words: lower case, no ASCII punctuation, no articles, spaces."""
    kept = "".join("" if letter in string.punctuation else letter for letter in text.lower())
    return " ".join(word for word in re.split(r"\s+", kept) if word not in ("a", "an", "the", ""))


WORDS = [
    "The", "the", "A", "an", "cat", "Theory", "banana", "U.S.A.", "rock-'n'-roll", "“so”", "don't", "IT'S", "(yes)",
    "e.g.,", "$", "#", "x^y", "Mr.", "!", "anthem", "...", "\t", "\n", "서울", "Éclair",
]  # fmt: skip


def test_texts_without_numbers_are_those_of_squad() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        text = " ".join(rng.choice(WORDS, rng.integers(1, 9)))
        text = text.replace("“", '"').replace("”", '"')  # its punctuation is ASCII's
        expected = squad(text)
        if expected:
            assert normalised(text) == expected
        else:  # nothing but articles and marks
            assert normalised(text) in ("", *(" ".join(re.sub(r"[^\w\s]", "", text.lower()).split()),))


# text, what it is compared as, its last number
TABLE = [
    ("The answer is 1,000.", "answer is 1000", "1000"),
    ("1000", "1000", "1000"),
    ("$1,234,567.50", "1234567.5", "1234567.5"),
    ("-5", "-5", "-5"), ("−5", "-5", "-5"), ("– 5", "5", "5"), ("+5", "5", "5"), ("5", "5", "5"),
    ("(-5)", "-5", "-5"), ("x=-5", "x-5", "-5"), ("10-5", "10-5", "5"), ("COVID-19", "covid19", "19"),
    ("3.50", "3.5", "3.5"), ("3.5", "3.5", "3.5"), ("35", "35", "35"), ("35.", "35", "35"), (".5", "0.5", "0.5"),
    ("-0.0", "0", "0"), ("007", "7", "7"), ("18%", "18", "18"), ("3.5kg", "3.5kg", "3.5"),
    ("1/2", "1/2", "2"), ("3:30", "3:30", "30"), ("1.2.3", "1.2.3", None), ("1,23", "1,23", None),
    ("1,000,00", "1,000,00", None), ("12,345", "12345", "12345"), ("1, 2, 3", "1 2 3", "3"),
    ("２５", "25", "25"), ("１，０００원", "1000원", "1000"), ("제3장", "제3장", "3"),
    ("A", "a", None), ("the", "the", None), ("A.", "a", None), ("a cat", "cat", None), ("", "", None), ("…!", "", None),
    ("회사는, 좋다。", "회사는 좋다", None), ("가".encode().decode() + "\u1100\u1161", "가가", None),
    ("It's the U.S.", "its us", None), ("Ｙｅｓ", "yes", None),
    ("STRASSE", "strasse", None), ("Straße", "strasse", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "same_as", "number"), TABLE)
def test_by_hand(text: str, same_as: str, number: str | None) -> None:
    assert normalised(text) == same_as
    assert last_number(text) == number


def test_hostile_numbers_take_no_time() -> None:
    start = time.monotonic()
    for text in (
        "9" * 50_000,
        "1,000" * 10_000,
        "1." * 25_000,
        "-" * 50_000,
        ",".join(["123"] * 10_000),
        "1e" * 20_000,
    ):
        normalised(text)
        last_number(text)
    assert time.monotonic() - start < 10


def test_squads_sign_and_point_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normal_text, "_NUMBER", re.compile(r"(?!)"))
    assert normalised("-5") == normalised("5")
    assert normalised("3.5") == normalised("35")


# --- what is found in an answer ----------------------------------------------------------------


def found(text: str, **settings: Any) -> str | None:
    return Finder(Exact(**settings)).find(text)


def test_the_last_match_and_its_group() -> None:
    text = "So 3 + 4 = 7.\n#### 7\nNo, wait.\n#### 1,008.0"
    assert found(text, pattern="#### (.+)") == "1008"
    assert found(text, pattern=r"#### .+") == "1008"  # without a group the whole match, but for its marks
    assert found(text, compare="number") == "1008"
    assert found("#### none", pattern="#### (.+)", compare="number") is None
    assert found("it is 7", pattern="#### (.+)") is None
    assert found("  ", compare="text") is None
    assert found("answer: (B)", pattern=r"\(([A-D])\)|answer: ([A-D])") == "b"
    assert found("ANSWER: c", pattern=r"(?i)answer: (\w)") == "c"


def gsm8k() -> list[dict[str, str]]:
    path = Path(__import__("os").environ.get("PRONK_TEST_DATA") or DATA) / "data" / "eval" / "gsm8k_test_300.jsonl"
    if not path.is_file():
        pytest.skip(f"the data is not here: {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("settings", [{"pattern": "#### (.+)"}, {"compare": "number"}])
def test_gsm8k_as_it_is(settings: dict[str, str]) -> None:
    """The references give the set's own final numbers; answers that say them otherwise are right, others wrong."""
    rows = gsm8k()
    references = [row["answer"] for row in rows]
    check_references([conversation(text) for text in references], Exact(**settings))
    finder = Finder(Exact(**settings))
    assert [finder.find(text) for text in references] == [row["final"].replace(",", "") for row in rows]
    said = [f"Let me think: 2 + 2.\n#### {float(row['final'].replace(',', '')):,.2f}" for row in rows]
    assert all(one.right for one in exact_items(answered(said), references, Exact(**settings)))
    silent = exact_items(answered(["I do not know."] * len(rows)), references, Exact(**settings))
    assert not any(one.right for one in silent)
    assert all(one.found is None for one in silent)


def answered(texts: list[str]) -> list[FreeAnswer]:
    return [FreeAnswer(text, True) for text in texts]


def conversation(answer: str) -> Conversation:
    return Conversation((Message("user", "?"), Message("assistant", answer)), "rows.jsonl:7")


def test_records_say_what_was_compared() -> None:
    hostile = "<script>alert(1)</script>\x1b[31m 18"
    (item,) = exact_items(answered([hostile]), ["#### 18"], Exact(compare="number"))
    assert records([item], ["0"]) == [
        {"id": "0", "right": True, "answer": hostile, "ended": True, "expected": "18", "found": "18", "slow": False}
    ]


# --- patterns ----------------------------------------------------------------------------------


def test_a_slow_pattern_is_stopped_and_its_answers_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for half a second at an answer, and once twenty seconds are gone (here one), hardly at all."""
    monkeypatch.setattr(exact, "SECONDS", 0.1)
    monkeypatch.setattr(exact, "PATIENCE", 0.2)
    start = time.monotonic()
    items = exact_items(answered(["a" * 60 + "!"] * 30), ["a"] * 30, Exact(pattern="(a|aa)+$"))
    assert time.monotonic() - start < 20
    assert all(one.slow and one.found is None and not one.right for one in items)


def test_what_is_slow_with_references_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"takes longer than 0\.5 s with the reference answer of rows\.jsonl:7"):
        check_references([conversation("a" * 60 + "!")], Exact(pattern="(a|aa)+$"))


def test_references_that_hold_nothing_are_refused() -> None:
    rows = [conversation("#### 3"), conversation("three"), conversation("four")]
    with pytest.raises(RecipeError) as caught:
        check_references(rows, Exact(pattern="#### (.+)"))
    assert str(caught.value) == (
        "exact: the reference answer of rows.jsonl:7 and 1 more row has not a word behind the pattern '#### (.+)', so "
        "that no answer could be right: 'three'"
    )
    with pytest.raises(RecipeError, match="has not a number"):
        check_references(rows, Exact(compare="number"))
    check_references(rows, Exact())


REFUSED = {
    "(": "exact.pattern: '(' is no regular expression: missing ) at position 1",
    "[a": "is no regular expression",
    "*": "nothing to repeat",
    r"\d*": "finds nothing as well as something",
    "": "finds nothing as well as something",
    "(((a{999}){999}){999}){999}": "too large a regular expression",
    "a" * 1001: "too large a regular expression",
}


@pytest.mark.parametrize("pattern", REFUSED)
def test_broken_patterns(pattern: str) -> None:
    recipe = {"data": {"source": "a.jsonl", "format": "pairs"}, "evaluate": ["exact"], "exact": {"pattern": pattern}}
    with pytest.raises(RecipeError) as caught:
        validated(recipe, "recipe.yaml")
    assert REFUSED[pattern] in str(caught.value)
    assert str(caught.value).startswith("recipe.yaml: exact.pattern: ")
    assert "\n" not in str(caught.value)
