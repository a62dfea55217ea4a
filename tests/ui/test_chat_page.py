"""`pronk chat --web` in a headless browser: streaming, stopping, commands, small screens, and text that stays text."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from browser import chromium, opened

from pronk.ask.conversation import Conversation, Reply, Turn
from pronk.data.questions import Question
from pronk.data.terminal import plain
from pronk.errors import DataError, OptionError
from pronk.recipe import Generation
from pronk.ui.chat_page import Talk
from pronk.ui.local_page import LocalServer

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt; \x1b[2J\u202eback </section></main> "
    "{{7*7}} 한글 👩‍👩‍👧\n  `code`\n"
)


class Scripted:
    """A conversation whose models say what they are told, a few letters a token; `hold` keeps them from going on."""

    def __init__(self, *texts: str) -> None:
        self.names = [f"<b>model</b> {number}" for number in range(len(texts))]
        self.texts, self.settings, self.system = texts, Generation(), None
        self.turns: list[Turn] = []
        self.hold: threading.Event | None = None

    def say(self, text: str) -> Iterator[list[Reply]]:
        if "too long" in text:
            raise DataError("your question: it takes 300 tokens; shorten it")
        turn = Turn(Question(text, "", ""), [Reply(name) for name in self.names])
        self.turns.append(turn)
        stream = self._written(turn)
        next(stream)
        return stream

    def retry(self) -> Iterator[list[Reply]]:
        return self.say(self.undo().question.text)

    def undo(self) -> Turn:
        if not self.turns:
            raise OptionError("nothing was asked yet")
        return self.turns.pop()

    def reset(self) -> None:
        self.turns.clear()

    def _written(self, turn: Turn) -> Iterator[list[Reply]]:
        length = 0
        try:
            yield turn.replies
            for length in range(0, max(map(len, self.texts)), 7):
                for reply, text in zip(turn.replies, self.texts, strict=True):
                    reply.text, reply.ids = text[: length + 7], [0] * length
                yield turn.replies
                while length >= 35 and self.hold and not self.hold.wait(0.01):
                    yield turn.replies
        finally:
            over = length + 7 >= max(map(len, self.texts))
            for reply in turn.replies:
                reply.ended = "end" if over else "interrupted"


def talk(*texts: str, notes: tuple[str, ...] = ()) -> tuple[Scripted, Talk]:
    script = Scripted(*texts)
    return script, Talk(cast(Conversation, script), notes)


# --- without a browser ---------------------------------------------------------------------------


def test_what_is_sent_adds_up_to_what_was_said() -> None:
    _, room = talk(HOSTILE, "short")
    first, *rest = list(room.say({"question": "Why?"}))
    assert first["turn"]["question"] == "Why?"
    texts = ["", ""]
    for line in rest:
        for place, reply in enumerate(line["replies"]):
            texts[place] = reply["text"] if "text" in reply else texts[place] + reply["more"]
    assert texts == [plain(HOSTILE.strip()), "short"]
    assert rest[-1]["replies"][0]["ended"]
    assert [reply["text"] for reply in room.state()["turns"][0]["replies"]] == texts


def test_one_answer_at_a_time_and_who_leaves_interrupts() -> None:
    script, room = talk("word " * 40)
    script.hold = threading.Event()
    stream = room.say({"question": "Why?"})
    next(stream)
    for change in (room.undo, room.reset, room.system):
        with pytest.raises(OptionError, match="stop it first"):
            change({"text": ""})
    with pytest.raises(OptionError, match="stop it first"):
        next(room.retry({}))
    stream.close()  # type: ignore[attr-defined]
    assert script.turns[0].replies[0].ended == "interrupted"
    assert room.undo({})["taken"] == "Why?"


def test_what_is_no_text_is_refused() -> None:
    _, room = talk("a")
    for body in ({}, {"question": 1}, {"question": None}):
        with pytest.raises(OptionError, match="expected a text"):
            next(room.say(body))


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@contextmanager
def visited(*arguments: Any) -> Iterator[Any]:
    """A page; the bodies of its streams cannot be read a second time."""
    with opened(*arguments) as page:
        page.wait_for_selector("#send:enabled")
        yield page
        page.got.clear()


def send(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.press("#question", "Enter")
    page.wait_for_selector("#stop", state="visible")


def wait_for(page: Any, condition: str) -> None:
    """Until a condition is true; `wait_for_function` would need what the page's policy forbids."""
    for _ in range(150):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(condition)


def wait_end(page: Any) -> None:
    page.wait_for_selector("#send", state="visible")


def test_model_output_is_text_everywhere(browser: Any) -> None:
    _, room = talk(HOSTILE, HOSTILE, notes=("<i>note</i>",))
    with LocalServer(room.page()) as server, visited(browser, server.address) as page:
        page.fill("#question", HOSTILE)
        page.press("#question", "Enter")
        page.wait_for_selector(".reply")
        wait_end(page)
        for reload in (False, True):
            if reload:
                page.reload()
                page.wait_for_selector(".reply")
            assert page.locator(".reply p.said").all_text_contents() == [plain(HOSTILE.strip())] * 2
            assert page.locator(".reply h2").all_text_contents() == ["<b>model</b> 0", "<b>model</b> 1"]
            assert page.locator(".question").text_content() == plain(HOSTILE)
            assert page.locator("main img, main script, main b, header i, header b").count() == 0
        assert all(address.startswith(f"http://127.0.0.1:{server.port}/") for address in page.asked)


def test_answers_stream_and_stop(browser: Any) -> None:
    """Text is there before the answer has ended; the button ends it, and so does Esc; then the talk goes on."""
    script, room = talk("word " * 40, "letters " * 40)
    with LocalServer(room.page()) as server, visited(browser, server.address) as page:
        for stop in (lambda: page.click("#stop"), lambda: page.keyboard.press("Escape")):
            script.hold = threading.Event()
            send(page, "Why?")
            page.wait_for_selector(".turn:last-child .reply.open")
            wait_for(page, "[...document.querySelectorAll('.turn:last-child p.said')].at(-1).textContent.length > 20")
            assert page.get_attribute("#talk", "aria-busy") == "true"
            assert page.is_disabled("#undo")
            stop()
            wait_end(page)
            assert page.get_attribute("#talk", "aria-busy") == "false"
            notes = page.locator(".turn:last-child .note").all_text_contents()
            assert all("interrupted after" in note for note in notes)
            assert page.evaluate("document.activeElement.id") == "question"
        script.hold = None
        page.fill("#question", "And now?")
        page.press("#question", "Enter")
        page.wait_for_selector(".turn:nth-child(3)")
        wait_end(page)
        assert page.locator(".turn:last-child .reply p.said").first.text_content() == ("word " * 40).strip()
    assert [turn.replies[0].ended for turn in script.turns] == ["interrupted", "interrupted", "end"]


def test_commands_and_mistakes(browser: Any) -> None:
    script, room = talk("one", "two")
    with LocalServer(room.page()) as server, visited(browser, server.address) as page:
        page.wait_for_selector("#send", state="visible")
        assert page.is_disabled("#undo")
        page.focus("#question")
        page.keyboard.type("first")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("line")
        page.keyboard.press("Enter")
        page.wait_for_selector(".turn")
        wait_end(page)
        assert script.turns[0].question.text == "first\nline"
        assert page.input_value("#question") == ""
        page.click("#retry")
        wait_for(page, "document.querySelectorAll('.turn').length === 1")
        wait_end(page)
        page.fill("#question", "far too long")
        page.press("#question", "Enter")
        page.wait_for_selector("#trouble", state="visible")
        assert "shorten it" in (page.text_content("#trouble") or "")
        assert page.get_attribute("#trouble", "role") == "alert"
        assert page.input_value("#question") == "far too long"
        page.click("summary")
        page.fill("#system", "Be brief.")
        page.click("#use")
        page.wait_for_selector("#trouble", state="hidden")
        wait_for(page, "document.querySelector('#status').textContent === 'used from now on'")
        assert script.system == "Be brief."
        page.click("#undo")
        wait_for(page, "document.querySelector('#question').value === 'first\\nline'")
        assert script.turns == []
        send_again = page.locator("#send")
        send_again.click()
        page.wait_for_selector(".turn")
        wait_end(page)
        page.click("#reset")
        page.wait_for_selector(".turn", state="detached")
        assert script.turns == []


@pytest.mark.parametrize(("width", "scheme"), [(380, "dark"), (1400, "light")])
def test_side_by_side_or_stacked(browser: Any, width: int, scheme: str, tmp_path: Path) -> None:
    long = "A llama is a domesticated South American camelid. " * 6 + "x" * 300 + " 한국어 문장입니다. " * 12
    script, room = talk(long, "Short.", long)
    script.names = ["base", "targets-q_proj+v_proj-rank-16-learning_rate-0.0002", "tuned"]
    with LocalServer(room.page()) as server, visited(browser, server.address, width, scheme) as page:
        for question in ("What is a llama?", "왜요? " * 30):
            page.fill("#question", question)
            page.press("#question", "Enter")
            page.wait_for_selector(".turn")
            time.sleep(0.1)
            wait_end(page)
        boxes = [one.bounding_box() for one in page.locator(".turn:last-child .reply").all()]
        lefts, tops = ({round(box[side]) for box in boxes} for side in ("x", "y"))
        assert (len(lefts), len(tops)) == ((3, 1) if width == 1400 else (1, 3))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, dark[4:-1].split(","))) < 200) is (scheme == "dark")
        end = "document.documentElement.scrollHeight - innerHeight - scrollY"
        assert page.evaluate(end) < 2  # followed as it grew
        page.screenshot(path=tmp_path / "page.png")
        assert (page.get_attribute("#talk", "role"), page.get_attribute("#talk", "aria-live")) == ("log", "polite")
        for control in page.locator("button:visible, textarea:visible").all():
            assert control.evaluate("e => e.textContent.trim() || e.labels[0].textContent.trim()")


def test_markup_in_the_page_would_show(browser: Any) -> None:
    """The planted fault: output written as markup. Even that the page's policy stops, and it is seen."""
    _, room = talk("<b>bold</b>")
    page_of = room.page()
    faulty = replace(page_of, script=page_of.script.replace("text.append(reply.more)", "text.innerHTML = reply.more"))
    assert faulty.script != page_of.script
    said: list[str] = []

    def talked() -> None:
        with LocalServer(faulty) as server, visited(browser, server.address) as page:
            page.fill("#question", "Why?")
            page.press("#question", "Enter")
            page.wait_for_selector("#trouble", state="visible")
            said.append(page.text_content("#trouble"))

    with pytest.raises(AssertionError):
        talked()
    assert "TrustedHTML" in said[0]
