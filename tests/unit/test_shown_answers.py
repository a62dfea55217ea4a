"""What a model wrote reaches terminals, JSON and pages as text and as nothing else."""

import io
import json
import re
import unicodedata
from collections.abc import Callable

import pytest
from rich.console import Console

import pronk.ask.shown
from pronk.ask.asking import Answer, Answered, cut
from pronk.ask.shown import as_html, as_json, as_lines, as_text, plain, show
from pronk.data.questions import Question
from pronk.recipe import generation_settings

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07 \x9b31m red\r over \u202elanigiro\u2066 "
    "[bold]x[/bold] :smile: <script>alert(1)</script>\x00"
)
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def answered(texts: list[str], models: int = 2, question: str = "Why?") -> Answered:
    asked = Question(question, "", "question 1")
    names = tuple(f"model-{number}" for number in range(models))
    answers = [Answer(name, asked, text, "end", 3) for name, text in zip(names, texts, strict=False)]
    return Answered(names, (asked,), generation_settings({}), tuple(answers))


def printed(one: Answered, width: int = 80) -> str:
    page = io.StringIO()
    show(one, Console(file=page, width=width, force_terminal=True, color_system=None, legacy_windows=False))
    return page.getvalue()


def test_nothing_that_steers_a_terminal_is_printed() -> None:
    one = answered([HOSTILE, "fine"], question=HOSTILE)
    for text in (printed(one), as_text(one), as_json(one), as_lines(one), plain(HOSTILE)):
        assert not STEERING.search(text), STEERING.search(text)
    assert "\\x1b[2J" in printed(one)
    assert "[bold]x[/bold] :smile:" in printed(one)  # neither markup nor emoji codes are taken for more than text


def test_json_gives_back_what_was_written() -> None:
    one = answered([HOSTILE, "한국어 😀"])
    assert json.loads(as_json(one))["answers"][0]["answer"] == HOSTILE
    assert [json.loads(line)["answer"] for line in as_lines(one).splitlines()] == [HOSTILE, "한국어 😀"]
    assert "한국어 😀" in as_json(one)


def test_a_page_shows_tags_as_text() -> None:
    page = as_html(answered([HOSTILE, "a\nb"], question="<b>?"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>" not in page
    assert "white-space: pre-wrap" in page


def not_escaped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pronk.ask.shown, "plain", lambda text: text)


def escapes_only(patch: pytest.MonkeyPatch) -> None:
    """The sequences of ESC are taken out, the one-byte form of the same is forgotten."""
    patch.setattr(pronk.ask.shown, "plain", lambda text: re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", text))


@pytest.mark.parametrize("fault", [not_escaped, escapes_only])
def test_a_fault_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert STEERING.search(printed(answered([HOSTILE, "fine"])))


@pytest.mark.parametrize("models", range(1, 7))
def test_within_80_columns_whatever_the_number_of_models(models: int) -> None:
    """Columns, not letters: Korean ones take two."""
    texts = ["word " * 60, "가나다라마바사아자차카타파하" * 12, "a\n\nb", "", "x" * 300, "code:\n    indented"]
    text = as_text(answered(texts, models, "무엇인가? " * 20))
    widths = [
        sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line) for line in text.splitlines()
    ]
    assert 60 < max(widths) <= 80
    assert all(f"  model-{number}" in text for number in range(models))
    assert models < 4 or "(nothing)" in text
    assert models < 6 or "        indented" in text


def test_runs_that_never_end_are_marked_and_counted() -> None:
    asked = [Question(f"{number}?", "", f"question {number}") for number in range(3)]
    answers = [Answer("base", one, "and on", "length", 256) for one in asked]
    answers += [Answer("tuned", one, "done", "end", 5) for one in asked[:2]]
    answers += [Answer("tuned", asked[2], "do", "stop", 5)]
    text = as_text(Answered(("base", "tuned"), tuple(asked), generation_settings({}), tuple(answers)))
    assert text.count("base (never ended: cut at 256 tokens)") == 3
    assert text.splitlines()[-3:] == [
        "model  ended   at a stop text  never ended",
        "base   0 of 3  0 of 3          3 of 3",
        "tuned  2 of 3  1 of 3          0 of 3",
    ]


def test_an_answer_is_cut_at_the_first_stop_text() -> None:
    assert cut("one two three", ["three", "two", "four"]) == ("one ", True)
    assert cut("one", ["two"]) == ("one", False)
