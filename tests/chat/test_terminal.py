"""`pronk chat` in a terminal and of piped lines: what is seen, what commands do, and that nothing steers a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from talking import write_run

import pronk.ui.chat as subject
from pronk.ask.conversation import Conversation, Reply
from pronk.data.terminal import STEERING, cells, plain
from pronk.errors import DataError, OptionError
from pronk.ui.chat import Terminal
from pronk.ui.chat_screen import layout, show

Talk = Callable[..., Conversation]
# what would clear the screen, set the title, go back in the line, and reorder it
HOSTILE = "\x1b[2J\x1b]0;owned\x07 safe\rover\r\nnext\t\u202eback\x9b31m <script>alert(1)</script> 한글 👩‍👩‍👧"


def screen(width: int = 80, terminal: bool = True, height: int = 24) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal, color_system=None)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_rich(seen: str) -> str:
    """Without what rich itself writes: a word while prompts are read, cursor and lines of its pictures."""
    for own in ("⠋ reading\n", "\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r"):
        seen = seen.replace(own, "")
    return seen


def growing(*texts: str, names: Sequence[str] = ("base", "tuned", "third")) -> Iterator[list[Reply]]:
    """Replies that grow letter by letter, as if each were a token."""
    replies = [Reply(name) for name, _ in zip(names, texts, strict=False)]
    for length in range(1, max(map(len, texts)) + 1):
        for reply, text in zip(replies, texts, strict=True):
            reply.text = text[:length]
        yield replies
    for reply in replies:
        reply.ended = "end"


# --- what is seen ------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_one_model_s_text_runs_and_nothing_steers(terminal: bool) -> None:
    """Cut between any two letters, also within an escape sequence."""
    console = screen(terminal=terminal)
    show(growing(HOSTILE), console, lambda: False)
    assert without_rich(text_of(console)) == plain(HOSTILE) + "\n"


def test_what_steers_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: text that goes to the terminal as it is."""
    monkeypatch.setattr("pronk.ui.chat_screen.plain", lambda text: text)
    console = screen()
    show(growing(HOSTILE), console, lambda: False)
    assert STEERING.search(without_rich(text_of(console)).replace("\n", ""))


@pytest.mark.parametrize("width", [80, 40])
def test_several_models_texts_steer_nothing_either(width: int) -> None:
    for console in (screen(width), screen(width, terminal=False)):
        show(growing(HOSTILE, HOSTILE, names=["\x1b[31mbase", "tuned"]), console, lambda: False)
        seen = without_rich(text_of(console))
        assert "\\x1b[2J" in seen
        assert not STEERING.search(seen)


def shown_lines(width: int, *texts: str, height: int | None = None) -> list[str]:
    console = screen(width, terminal=False)
    (*_, replies) = growing(*texts)
    console.print(layout(replies, console, height))
    return [line.rstrip() for line in text_of(console).split("\n")]


def test_two_models_stand_side_by_side_in_80_columns_and_three_in_120() -> None:
    for width, texts in ((80, ["한국어 " * 20, "word " * 30]), (120, ["one", "two", "three"])):
        lines = shown_lines(width, *texts)
        assert lines[0].split() == ["base", "tuned", "third"][: len(texts)]
        assert max(map(cells, lines)) <= width
    assert [line.split() for line in shown_lines(120, "one", "two", "three")[1:2]] == [["one", "two", "three"]]


def test_where_they_do_not_fit_they_stand_under_one_another() -> None:
    for width, texts in ((79, ["one", "two"]), (80, ["one", "two", "three"])):
        lines = [line for line in shown_lines(width, *texts) if line]
        expected = [part for name, text in zip(["base", "tuned", "third"], texts, strict=False)
                    for part in (name, f"  {text}")]  # fmt: skip
        if width == 80:
            assert lines == expected
    assert max(map(cells, shown_lines(30, "한국어 " * 20, "x" * 200))) <= 30


@pytest.mark.parametrize("width", [30, 80])
def test_of_long_texts_the_last_lines_are_shown_while_they_grow(width: int) -> None:
    texts = ["\n".join(f"{name} {number}" for number in range(100)) for name in ("a", "b")]
    lines = shown_lines(width, *texts, height=10)
    assert len([line for line in lines if line]) <= 10
    assert "a 99" in "\n".join(lines)
    assert "b 99" in "\n".join(lines)
    assert "a 0" in "\n".join(shown_lines(width, *texts))


def test_an_answer_that_was_cut_says_so() -> None:
    console = screen(terminal=False)

    def cut() -> Iterator[list[Reply]]:
        yield [reply := Reply("base", "a", [1, 2])]
        reply.ended = "length"

    show(cut(), console, lambda: False)
    assert text_of(console) == "a (never ended: cut at 2 tokens)\n"
    console = screen(terminal=False)
    show(growing(" \n"), console, lambda: False)
    assert text_of(console) == "(nothing)\n"


# --- lines and commands ------------------------------------------------------------------------


class Desk:
    """A person at a terminal: what they type, and what they see."""

    def __init__(self, conversation: Conversation, typed: bool = True) -> None:
        self.out, self.told = screen(), list[str]()
        self.terminal = Terminal(conversation, self.out, self.told.append, typed)

    @property
    def answer(self) -> str:
        return self.terminal.conversation.turns[-1].replies[0].text

    def type(self, *lines: str) -> int:
        return self.terminal.run(iter(lines))


def test_commands_do_what_help_says(talk: Talk, tmp_path: Path) -> None:
    chat = talk("rank-2")
    desk, file = Desk(chat), tmp_path / "talk.jsonl"
    first = ["Hello", "/system Shout.", "Why?", "/undo", "Why not?", "/retry", "//undo", f"/save {file}", "/help"]
    assert desk.type(*first, "/quit", "never asked") == 0
    assert [turn.question.text for turn in chat.turns] == ["Hello", "Why not?", "/undo"]
    assert [turn.attempt for turn in chat.turns] == [0, 1, 0]
    said = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert said == [{"model": "rank-2", "messages": chat.messages(0)}]
    assert [message["role"] for message in said[0]["messages"]] == ["system", *["user", "assistant"] * 3]
    told = "\n".join(desk.told)
    assert "taken back: Why?" in told
    assert "the system message is now yours" in told
    assert "the same question gets the same answer" in told
    assert f"saved in {file}" in told
    for command in ("retry", "undo", "reset", "system", "save", "help", "quit"):
        assert f"/{command}" in told
    desk.type("/reset", "/system")
    assert (chat.turns, chat.system) == ([], None)


def test_what_was_saved_is_data(talk: Talk, tmp_path: Path) -> None:
    """`format: messages` reads it."""
    from pronk.data.sources import read_conversations
    from pronk.recipe import Data

    desk = Desk(talk("rank-2"))
    desk.type("Hello", f"/save {tmp_path / 'talk.jsonl'}")
    data = Data.model_validate({"source": str(tmp_path / "talk.jsonl"), "format": "messages"})
    (read,), _ = read_conversations(data)
    assert [message.content for message in read.messages] == ["Be brief.", "Hello", desk.answer]


def test_mistakes_are_said_and_the_talk_goes_on(talk: Talk, tmp_path: Path) -> None:
    desk = Desk(talk("rank-2"))
    (tmp_path / "taken.jsonl").touch()
    wrong = ["/undo", "/retry", "/undoo", "/save", f"/save {tmp_path / 'a.jsonl'}", "word " * 300, "", "  "]
    assert desk.type(*wrong, "Hello", f"/save {tmp_path / 'taken.jsonl'}", "/sa\x1b[2J") == 0
    words = ["nothing was asked", "nothing was asked", "/undoo: there is no such command", "name a file",
             "nothing was said", "256 at most", "exists already", "/sa\\x1b[2J: there is no such command"]  # fmt: skip
    assert len(desk.told) == len(words)
    for said, word in zip(desk.told, words, strict=True):
        assert word in said
    assert len(desk.terminal.conversation.turns) == 1


def test_what_is_left_out_is_said_once(talk: Talk) -> None:
    desk = Desk(talk("rank-2"))
    desk.type(*["word " * 50] * 5)
    assert [line for line in desk.told if "no longer fits" in line] == list(dict.fromkeys(desk.told))
    assert "rank-2: the conversation no longer fits; the oldest question and its answer" in desk.told[0]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Ctrl-C while an answer is written, once."""
    original, seen = pronk_pen().add, [0]

    def pressed(self: Any, token: int) -> bool:
        seen[0] += 1
        if seen[0] == tokens:
            os.kill(os.getpid(), signal.SIGINT)
        return bool(original(self, token))

    monkeypatch.setattr(pronk_pen(), "add", pressed)


def pronk_pen() -> Any:
    from pronk.ask.conversation import _Pen

    return _Pen


def test_ctrl_c_stops_the_answer_and_not_the_talk(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = talk("rank-2")
    desk = Desk(chat)
    interrupt_after(monkeypatch, 3)
    assert desk.type("Hello", "Go on") == 0
    assert [turn.replies[0].ended for turn in chat.turns] == ["interrupted", "length"]
    assert "(interrupted after 3 tokens)" in text_of(desk.out)


def test_ctrl_c_ends_piped_questions(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(talk("rank-2"), typed=False)
    interrupt_after(monkeypatch, 3)
    assert desk.type("Hello", "Go on") == 130
    assert "(interrupted after 3 tokens)" in text_of(desk.out)


@pytest.mark.parametrize("leave", [EOFError, KeyboardInterrupt])
def test_at_the_prompt_they_leave(monkeypatch: pytest.MonkeyPatch, leave: type[BaseException]) -> None:
    typed = iter(["one\\", "two", "three", leave()])

    def typing(_: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typing)
    assert list(subject.typed_lines()) == ["one\ntwo", "three"]


# --- the verb ----------------------------------------------------------------------------------


@pytest.fixture
def pronk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`pronk chat ARGUMENTS` with piped lines, in this process: exit code, stdout, stderr."""

    def call(stdin: bytes, *arguments: str) -> tuple[int, str, str]:
        from pronk.cli import main

        monkeypatch.setattr(sys, "argv", ["pronk", "chat", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return (int(end.value.code or 0), *capsys.readouterr())

    return call


def test_piped_lines_are_questions(study: Path, pronk: Any) -> None:
    lines = "Hello\n\n공장이 문을 닫는다. 왜?".encode()
    code, out, err = pronk(lines, str(study), "--base", "--max-new-tokens", "8")
    assert code == 0, err
    assert "with base, rank-2 and rank-3; /help" in err
    code, as_json, _ = pronk(lines, str(study), "--base", "--max-new-tokens", "8", "--json")
    rows = [json.loads(line) for line in as_json.splitlines()]
    assert code == 0
    assert [(row["question"], row["model"]) for row in rows] == [
        (question, model) for question in ("Hello", "공장이 문을 닫는다. 왜?") for model in ("base", "rank-2", "rank-3")
    ]
    for row in rows:
        assert "\n  ".join([row["model"], *plain(row["answer"].strip() or "(nothing)").split("\n")]) in out
    assert "\x1b" not in out


WRONG: dict[str, tuple[bytes, list[str], list[str]]] = {
    "no such run": (b"", ["{study}/runs/rank-9"], ["rank-9: there is no such folder", "expected a run"]),
    "a run without its adapter": (b"", ["{spoilt}/bare"], ["bare: this run has no weights (neither adapter/"]),
    "a base that is gone": (b"", ["{spoilt}/orphan"], ["base:", "nowhere"]),
    "top_p for greedy": (b"", ["{run}", "--top-p", "0.9"], ["top_p", "nothing is drawn"]),
    "prompt for a run": (b"", ["{run}", "--prompt", "alpaca"], ["--prompt is for bases"]),
    "web and json": (b"", ["{run}", "--web", "--json"], ["--web talks in the browser"]),
}


@pytest.fixture(scope="module")
def spoilt(study: Path, tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    place = tmp_path_factory.mktemp("spoilt")
    recipe = (study / "runs" / "rank-2" / "recipe.yaml").read_text(encoding="utf-8")
    (place / "bare").mkdir()
    (place / "bare" / "recipe.yaml").write_text(recipe, encoding="utf-8")
    write_run(place / "orphan", tiny_base, 2, prompt="chat", data={"source": "a.jsonl", "format": "messages"})
    gone = (place / "orphan" / "recipe.yaml").read_text(encoding="utf-8").replace(str(tiny_base), "./nowhere")
    (place / "orphan" / "recipe.yaml").write_text(gone, encoding="utf-8")
    return place


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_message(study: Path, spoilt: Path, pronk: Any, case: str) -> None:
    stdin, arguments, fragments = WRONG[case]
    places = {"study": study, "run": study / "runs" / "rank-2", "spoilt": spoilt}
    code, _, err = pronk(stdin, *(part.format(**places) for part in arguments))
    assert code == 2, err
    assert "Traceback" not in err
    assert err.count("pronk: ") == 1
    for fragment in fragments:
        assert fragment in " ".join(err.split()), err


def test_the_web_serves_the_same_conversation(
    study: Path, pronk: Any, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr("pronk.ui.chat_page.serve", lambda page, _: served.append(page))
    assert pronk(b"", str(study / "runs" / "rank-2"), "--web", "--max-new-tokens", "8")[0] == 0
    lines = list(served[0].stream["/api/say"]({"question": "Hello"}))
    assert lines[-1]["replies"][0]["ended"]
    (turn,) = served[0].get["/api/state"]()["turns"]
    assert turn["replies"][0]["text"] == plain(talk("rank-2").ask("Hello")[0].text.strip())


@pytest.mark.parametrize(
    ("line", "words"),
    [(b"word " * 300, "your question: for rank-2.*256 at most"), (b"\xff\n", "line 2 of the.*not UTF-8"),
     (b"/undoo", "/undoo: there is no such command")],
)  # fmt: skip
def test_piped_lines_end_at_the_first_mistake(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, line: bytes, words: str
) -> None:
    desk = Desk(talk("rank-2"), typed=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hello\n" + line + b"\nHello")))
    with pytest.raises(DataError if b"/" not in line else OptionError, match=words):
        desk.terminal.run(subject.piped_lines())
    assert len(desk.terminal.conversation.turns) == 1


def test_how_a_classifier_is_asked_is_said(tmp_path: Path, tiny_base: Path, pronk: Any) -> None:
    data = {"source": "a.jsonl", "format": "classify", "instruction": "Good or bad?"}
    write_run(tmp_path / "sorted", tiny_base, 2, prompt="chat", data=data)
    code, _, err = pronk(b"Sales fell.\n", str(tmp_path / "sorted"), "--max-new-tokens", "2")
    assert code == 0
    said = " ".join(err.split())
    assert "sorted: training was to classify, so every question stands under “Good or bad?”" in said
