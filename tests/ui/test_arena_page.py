"""The blind test in a real browser: by keys alone, gone on with later, on a phone, in the dark, with hostile text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, opened

from pronk.compare.contest import TEST_ITEMS, Contest, Matter
from pronk.compare.votes import read_votes, votes_file
from pronk.errors import OptionError
from pronk.ui import arena_texts
from pronk.ui.arena import Arena
from pronk.ui.arena_texts import ENGLISH, KOREAN
from pronk.ui.local_page import LocalServer

NAMES = ("base-model", "tuned-run")
HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "[click](javascript:alert(1)) ![](https://example.com/pixel.png)",
    "</div></main><h1>You are through</h1><style>*{display:none}</style>",
    "{{7*7}} \u202eevil\u202c \x1b[2J \u2028 &amp; 한국어",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def contest(questions: int = 5, turns: int = 1) -> Contest:
    """Five pairs, the second of them identical."""
    matters = []
    for k in range(questions):
        own = {name: tuple(f"{name[0]}lpha {k}.{t}" for t in range(turns)) for name in NAMES}
        answers = dict.fromkeys(NAMES, ("the same",) * turns) if k == 1 else own
        matters.append(Matter(f"q-{k}", tuple(f"Question {k}, turn {t}?" for t in range(turns)), answers))
    return Contest(NAMES, tuple(matters), "q.jsonl")


def served(folder: Path, one: Contest | None = None, code: str = "en") -> LocalServer:
    page = Arena(folder, one or contest(), seed=3, judge="anna", code=code).page()
    return LocalServer(page, tell=lambda line: pytest.fail(line))


def begin(page: Any, name: str = "") -> None:
    page.wait_for_selector("#start:not([hidden])")
    if name:
        page.fill("#judge", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#vote:not([hidden])")


def press(page: Any, key: str, expected: str) -> None:
    """A key, and the heading or section that it leads to."""
    page.keyboard.press(key)
    if expected.startswith("#"):
        page.wait_for_selector(f"{expected}:not([hidden])")
    else:
        wait_for(page, expected)


def wait_for(page: Any, heading: str) -> None:
    page.wait_for_function("text => document.getElementById('where').textContent === text", arg=heading)


def side_of(page: Any, word: str) -> str:
    return "ArrowLeft" if page.text_content(".answer .said").startswith(word) else "ArrowRight"


def votes(folder: Path) -> list[tuple[str, str | None]]:
    return [(vote.question, vote.vote) for vote in read_votes(votes_file(folder)) if vote.kind == "person"]


def test_a_whole_vote_by_keys(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as server, opened(browser, server.address) as page:
        begin(page)
        assert "token" not in page.url
        assert page.evaluate("document.activeElement.id") == "where"
        press(page, side_of(page, "tlpha"), "Pair 2 of 4")
        assert page.text_content("#status") in ("Answer 1 is better. Pair 2 of 4", "Answer 2 is better. Pair 2 of 4")
        press(page, "ArrowDown", "Pair 3 of 4")
        press(page, "u", "Pair 2 of 4")
        press(page, "t", "Pair 3 of 4")
        press(page, "b", "Pair 4 of 4")
        assert page.get_attribute("#progress", "value") == "3"
        press(page, "ArrowLeft", "#through")
        press(page, "u", "#vote")
        press(page, side_of(page, "tlpha"), "#through")
        assert not any(name in page.content() for name in NAMES)
        before = len(page.got)
        press(page, "Enter", "#end")
        assert "tuned-run" in page.text_content("#conclusion")
        said = page.text_content("#limits")
        assert "Votes: 4, by anna, on 5 of 5 questions (q.jsonl)." in said
        assert "Pairs of answers that were identical: 1." in said
        assert page.locator("#pairs tr").count() == 1
        assert [vote for _, vote in votes(tmp_path)] == ["b", "tie", "both_bad", "b"]
    assert not any(name in body for name in NAMES for body in page.got[:before])
    assert NAMES[1] in page.got[-1]
    assert {address.split("/")[2] for address in page.asked} == {f"127.0.0.1:{server.port}"}


def test_closing_going_on_and_a_second_judge(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as server, opened(browser, server.address) as page:
        begin(page)
        press(page, "ArrowLeft", "Pair 2 of 4")
        shown = page.text_content("#turns")
    with served(tmp_path) as server:
        with opened(browser, server.address) as page:
            begin(page)
            assert page.text_content("#where") == "Pair 2 of 4"
            assert page.text_content("#turns") == shown
            for number in (3, 4):
                press(page, "t", f"Pair {number} of 4")
            press(page, "t", "#through")
            press(page, "Enter", "#end")
            page.click("#again")
            begin(page, "ben")
            assert page.text_content("#where") == "Pair 1 of 4"
        with opened(browser, server.address) as page:
            page.wait_for_selector("#start:not([hidden])")
            page.keyboard.press("Enter")
            page.wait_for_selector("#end:not([hidden])")  # anna is through
    assert {vote.judge for vote in read_votes(votes_file(tmp_path))} == {"anna", "ben"} or len(votes(tmp_path)) == 4


def test_stopping_early_and_closing(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as server, opened(browser, server.address) as page:
        begin(page)
        press(page, "t", "Pair 2 of 4")
        page.click("#stop")
        page.click("#no")
        assert page.is_hidden("#sure")
        page.click("#stop")
        assert page.evaluate("document.activeElement.id") == "yes"
        page.click("#yes")
        page.wait_for_selector("#end:not([hidden])")
        page.click("#close")
        page.wait_for_selector("#closed:not([hidden])")
        assert server.page.ending.is_set()


def test_buttons_and_mouse_do_the_same(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as server, opened(browser, server.address) as page:
        begin(page)
        assert page.is_disabled("#undo")
        page.click("[data-choice=right]")
        wait_for(page, "Pair 2 of 4")
        page.click("#undo")
        wait_for(page, "Pair 1 of 4")
        names = page.eval_on_selector_all("button:not([hidden])", "all => all.map(one => one.textContent.trim())")
        assert all(names)


def test_keys_of_the_browser_and_held_keys_do_not_vote(browser: Any, tmp_path: Path) -> None:
    with served(tmp_path) as server, opened(browser, server.address) as page:
        begin(page)
        for key in ("Control+b", "Alt+ArrowLeft", "x", "ArrowUp", "Home"):
            page.keyboard.press(key)
        page.keyboard.down("t")
        wait_for(page, "Pair 2 of 4")
        page.keyboard.down("t")  # repeats, as a key that is held does
        page.wait_for_timeout(200)
        assert page.text_content("#where") == "Pair 2 of 4"
    assert len(votes(tmp_path)) == 1


def test_what_models_write_is_text(browser: Any, tmp_path: Path) -> None:
    matters = [
        Matter(f"q-{k}", (text,), {NAMES[0]: (text,), NAMES[1]: (text + "!",)}) for k, text in enumerate(HOSTILE)
    ]
    names = dict(zip(NAMES, ("<script>document.title='owned'</script>", "tuned\u202e"), strict=True))
    hostile = Contest(
        tuple(names.values()),
        tuple(Matter(m.id, m.turns, {names[name]: text for name, text in m.answers.items()}) for m in matters),
        "<b>q</b>.jsonl",
    )
    with served(tmp_path, hostile) as server, opened(browser, server.address) as page:
        begin(page)
        title, seen = page.title(), []
        for number in range(len(HOSTILE)):
            seen.append(page.text_content(".asked"))
            assert page.locator("#turns *:not(section):not(p):not(div):not(article):not(h2)").count() == 0
            press(page, "t", f"Pair {number + 2} of 5" if number < 4 else "#through")
        press(page, "Enter", "#end")
        assert page.locator("#end script, #end b, #end img").count() == 0
        assert "<script>" in page.text_content("#pairs")
        assert page.title() == title
    spelled = [text.replace("\u202e", "\\u202e").replace("\u202c", "\\u202c") for text in HOSTILE]
    spelled = [text.replace("\x1b", "\\x1b").replace("\u2028", "\\u2028") for text in spelled]
    assert sorted(seen) == sorted(spelled)
    assert all(f"127.0.0.1:{server.port}" in address for address in page.asked)


@pytest.mark.parametrize(("width", "scheme"), [(380, "dark"), (1400, "light")])
def test_it_fits_and_can_be_read(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    long = contest(4, turns=2)
    words = {name: (f"{name[0]} " * 400, "x" * 3000) for name in NAMES}
    long = Contest(NAMES, (*long.matters, Matter("long", ("Y" * 300, "Second?"), words)), "q.jsonl")
    with served(tmp_path, long) as server, opened(browser, server.address, width, scheme) as page:
        begin(page)
        for number in range(2, 6):
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            lefts = page.eval_on_selector_all(
                ".answer", "all => all.slice(0, 2).map(one => one.getBoundingClientRect().left)"
            )
            assert (lefts[0] == lefts[1]) == (width == 380)
            assert page.eval_on_selector("footer", "one => one.getBoundingClientRect().bottom") <= 901
            assert contrast(page, ".answer .said") > 7
            assert contrast(page, ".answer h2") > 4.5
            press(page, "t", f"Pair {number} of 4" if number < 5 else "#through")
        press(page, "Enter", "#end")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def contrast(page: Any, selector: str) -> float:
    """The ratio of WCAG 2 between a text and what is behind it."""
    colours = page.eval_on_selector(
        selector,
        """one => {
            let back = one;
            while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
            return [getComputedStyle(one).color, getComputedStyle(back).backgroundColor];
        }""",
    )

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_a_server_that_is_gone_is_said(browser: Any, tmp_path: Path) -> None:
    server = served(tmp_path)
    with server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.address)
        begin(page)
    page.keyboard.press("t")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "was it ended in the terminal?" in page.text_content("#trouble")
    context.close()


def test_the_korean_page_is_korean(browser: Any, tmp_path: Path) -> None:
    """Every section, and what is said of a vote; three contestants, so that there is a ranking."""
    names = (*NAMES, "other-run")
    answers = dict.fromkeys(names, ("맑음", "흐림"))
    matters = [Matter("q-0", ("날씨는?", "내일은?"), {name: (f"{name[0]} 맑음", "흐림") for name in names})]
    matters.append(Matter("q-1", ("날씨는?", "내일은?"), answers))
    told = served(tmp_path, Contest(names, tuple(matters), TEST_ITEMS), "ko")
    with told as server, opened(browser, server.address) as page:
        page.wait_for_selector("#start:not([hidden])")
        assert page.get_attribute("html", "lang") == "ko"
        seen = [page.title(), page.inner_text("body")]
        begin(page, "영희")
        for number, key in ((2, "t"), (3, "b")):
            seen.append(page.inner_text("body"))
            press(page, key, f"3쌍 가운데 {number}번째")
            seen.append(page.text_content("#status"))
        press(page, "ArrowRight", "#through")
        seen.append(page.inner_text("body"))
        press(page, "Enter", "#end")
        seen.append(page.inner_text("body"))
    with pytest.raises(OptionError) as refused:
        Arena(tmp_path, contest(), code="ko").next({"judge": " "})
    seen.append(str(refused.value))
    text = "\n".join(seen)
    for own in (*names, "pronk arena STUDY --result", "pronk arena", "pronk", "Bradley & Terry", "Cohen"):
        text = text.replace(own, "")
    assert "실험의 테스트 항목" in text
    assert re.findall("[A-Za-z]{2,}", text) == []


def test_both_languages_say_the_same_things() -> None:
    def blanks(text: str) -> set[str]:
        return set(re.findall(r"\{(\w+)\}|(<[^>]+>)", text))

    assert list(ENGLISH) == list(KOREAN)
    assert {key: blanks(text) for key, text in KOREAN.items()} == {key: blanks(text) for key, text in ENGLISH.items()}
    folder = Path(arena_texts.__file__).parent
    used = "".join((folder / name).read_text(encoding="utf-8") for name in ("arena.html", "arena.js", "arena.py"))
    unused = [key for key in ENGLISH if not re.search(rf"\b{re.escape(key.rpartition('.')[2])}\b", used)]
    assert unused == []
    assert not [text for key, text in ENGLISH.items() if not key.startswith("page.") and "<" in text]


def test_markup_is_refused_even_to_our_own_script(browser: Any, tmp_path: Path) -> None:
    """Trusted Types: a slip such as innerHTML in the page's script could not run anything."""
    with served(tmp_path) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.address)
        refused = page.evaluate(
            "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } }"
        )
        loaded = page.evaluate("() => fetch('https://example.com/').then(() => 'loaded', () => 'refused')")
        context.close()
    assert (refused, loaded) == ("TypeError", "refused")
