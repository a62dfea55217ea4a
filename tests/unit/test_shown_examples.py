"""Examples in a terminal and on a page: everything of the data is text and nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

import pronk.tokens.show_page
import pronk.tokens.show_terminal
from pronk.data.terminal import STEERING, cells, plain, plain_json, spelled_out
from pronk.tokens.show import Block, Choice, Shown, ShownExample, Token
from pronk.tokens.show_page import render
from pronk.tokens.show_terminal import print_examples, print_pieces, visible

HOSTILE = "</p><script>alert(1)</script> [bold]x[/bold] :smile: \x1b[2J\x1b]0;t\x07 \x9b31m\r \u202eevil\u2066 \x00&'\""


def token(text: str, number: int = 7, learned: bool = False, special: bool = False, end: bool = False) -> Token:
    return Token(text, (number,), learned, special, end)


def one_shown(*texts: str, place: str = "rows.jsonl:3") -> Shown:
    prompt = Block("prompt", (token("<|user|>", 1, special=True), *(token(text) for text in texts), token("?\n")))
    answer = Block(
        "answer", (token("서울", learned=True), token("  \n", learned=True), token("<|end|>", 2, True, True, True))
    )
    cut = Block("cut", (token("lost word", 9), token("<|end|>", 2, special=True, end=True)), answers=2)
    example = ShownExample(place, "train", (prompt, answer, cut))
    return Shown((example,), "base", "chat", 64, "<|end|>", 2, 10, 1, Choice())


def printed(shown: Shown, ids: bool = False, colour: bool = False) -> str:
    page = io.StringIO()
    system: Any = "standard" if colour else None
    console = Console(file=page, width=80, force_terminal=colour, color_system=system, legacy_windows=False)
    print_examples(shown, console, ids)
    return page.getvalue()


class Elements(HTMLParser):
    """Tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("ids", [False, True])
def test_nothing_of_the_data_steers_the_terminal(ids: bool) -> None:
    text = printed(one_shown(HOSTILE, place=HOSTILE), ids)
    assert not STEERING.search(text)
    assert "\\x1b[2J" in text
    assert re.search(r"\[bold\]x\[/bold\].:smile:", text)


def test_a_block_for_what_is_asked_learned_and_cut_off() -> None:
    assert printed(one_shown("Where")).splitlines()[-8:] == [
        "1. rows.jsonl:3, train: 6 tokens, 3 learned, 2 more cut off",
        "  prompt: 3 tokens, not learned",
        "    <|user|>Where?↵",
        "  answer: 3 tokens, learned",
        "    서울  ",
        "    <|end|>",
        "  cut off by max_length: 2 tokens, all of an answer",
        "    lost word<|end|>",
    ]


def test_colours_say_the_same_as_words() -> None:
    text = printed(one_shown("Where"), colour=True)
    assert "\x1b[36m<|user|>" in text
    assert "\x1b[32m서울" in text
    assert "\x1b[1;37;45m<|end|>" in text
    assert "\x1b[2;9;31mlost word" in text


@pytest.mark.parametrize("ids", [False, True])
def test_within_80_columns(ids: bool) -> None:
    """Columns, not letters: Korean ones take two. A token of any length is shown whole."""
    text = printed(one_shown("가나다라마바사" * 30, "x" * 300, "word " * 40), ids)
    assert max(map(cells, text.splitlines())) <= 80
    assert text.count("x") >= 300
    assert text.count("가") == 30


def test_ids_stand_under_their_text() -> None:
    page = io.StringIO()
    console = Console(file=page, width=80, color_system=None)
    print_pieces(
        [("Hel", [12345], "prompt"), (" 한", [1, 2, 3], "learned"), ("\n", [9], "prompt"), ("x", [4], "end")], console
    )
    assert page.getvalue().splitlines() == ["    Hel   ·한   ↵", "    12345 1+2+3 9", "    x", "    4"]


@pytest.mark.parametrize("ids", [False, True])
def test_a_page_shows_tags_as_text(ids: bool) -> None:
    page = Elements(render(one_shown(HOSTILE, place=HOSTILE), ids))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert not STEERING.search(page.text)
    assert "<script>alert(1)</script>" in page.text
    assert (visible(HOSTILE) if ids else plain(HOSTILE)) in page.text


def test_a_page_may_load_nothing_and_only_its_own_style() -> None:
    page = render(one_shown("Where"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.replace("&#39;", "'").startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert not re.search(r"https?://", page)


def test_a_page_names_what_colours_mean() -> None:
    page = Elements(render(one_shown("Where")))
    for words in ("read, not learned", "learned", "ends an answer (id 2)", "a special token", "cut off by max_length"):
        assert words in page.text
    assert "서울" in page.text


def test_json_gives_back_what_was_there() -> None:
    import json

    assert json.loads(plain_json({"a": HOSTILE}))["a"] == HOSTILE
    assert not STEERING.search(plain_json({"a": HOSTILE}))
    assert spelled_out("\t\r") == "\\t\\r"


def terminal_not_escaped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pronk.tokens.show_terminal, "plain", lambda text: text)


def page_not_escaped(patch: pytest.MonkeyPatch) -> None:
    original = pronk.tokens.show_page.Environment
    patch.setattr(pronk.tokens.show_page, "Environment", lambda **options: original(**{**options, "autoescape": False}))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (terminal_not_escaped, lambda: test_nothing_of_the_data_steers_the_terminal(False)),
        (page_not_escaped, lambda: test_a_page_shows_tags_as_text(False)),
    ],
)
def test_a_fault_shows(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()
