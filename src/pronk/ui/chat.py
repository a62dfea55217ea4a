"""`pronk chat` in a terminal, and of lines that are piped into it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.conversation import Conversation, Reply
from pronk.ask.models import Model
from pronk.data.conversation import shortened
from pronk.data.terminal import plain, plain_json
from pronk.data.words import enumerated
from pronk.errors import DataError, OptionError, PronkError
from pronk.runs import disk_guard, write_text
from pronk.ui.chat_screen import Replies, finished, show

if TYPE_CHECKING:
    from rich.console import Console

HELP = """\
/retry         ask the last question again
/undo          take the last question and its answers back
/reset         forget all that was said
/system TEXT   a system message from now on; without a text, the runs' own
/save FILE     write the conversation: a line of JSON for each model, as `format: messages` reads it
/help          this list
/quit          leave (so do Ctrl-D, and Ctrl-C where you type)
Ctrl-C stops answers that are being written. A line that ends with \\ goes on in the next. //text asks "/text"."""
PROMPT, GOES_ON = "> ", "… "


class Terminal:
    """A conversation line by line. Answers go to `out`; `tell` is for all else.

    typed: a person types the lines, and mistakes are said and forgotten; piped lines end at the first one.
    """

    def __init__(
        self, conversation: Conversation, out: Console, tell: Callable[[str], None], typed: bool, as_json: bool = False
    ) -> None:
        self.conversation, self.out, self.tell, self.typed, self.as_json = conversation, out, tell, typed, as_json
        self.interrupted = False
        self._forgotten: dict[str, int] = {}

    def run(self, lines: Iterator[str]) -> int:
        """Ask line by line until there is none, or /quit; the exit code."""
        for line in lines:
            try:
                if self._leaves(line):
                    break
            except PronkError as error:
                if not self.typed:
                    raise
                self.tell(plain(str(error)))
            if self.interrupted and not self.typed:
                return 130
        return 0

    def _leaves(self, line: str) -> bool:
        """Do what a line asks for; whether it asks to leave."""
        text = line.strip()
        if text.startswith("//"):
            self._answer(self.conversation.say(text[1:]))
        elif text.startswith("/"):
            return self._command(*text[1:].partition(" ")[::2])
        elif text:
            self._answer(self.conversation.say(text))
        return False

    def _command(self, name: str, rest: str) -> bool:
        commands: dict[str, Callable[[str], Any]] = {
            "retry": self._retry, "undo": self._undo, "reset": self._reset, "system": self._system,
            "save": self._save, "help": lambda _: self.tell(HELP), "quit": lambda _: None,
        }  # fmt: skip
        if name not in commands:
            raise OptionError(f"/{plain(name)}: there is no such command; /help lists them, //{plain(name)} asks it")
        commands[name](rest.strip())
        return name == "quit"

    def _answer(self, replies: Replies) -> None:
        from pronk.train.interrupt import listen

        with listen(lambda _: None) as stop:
            try:
                if self.as_json:
                    self._print_json(replies, lambda: stop.asked)
                else:
                    self._told(show(replies, self.out, lambda: stop.asked))
            except KeyboardInterrupt:  # pressed again and again: in the middle of a step
                self.out.print()
                stop.asked += 1
        self.interrupted = bool(stop.asked)

    def _print_json(self, stream: Replies, stopped: Callable[[], Any]) -> None:
        for reply in finished(stream, stopped):
            answer = {"model": reply.model, "answer": reply.text, "ended": reply.ended, "tokens": len(reply.ids)}
            asked = self.conversation.turns[-1].question.text
            self.out.out(plain_json({"question": asked, **answer}), highlight=False)

    def _told(self, replies: Sequence[Reply]) -> None:
        """Say what a model no longer sees, where that has changed."""
        for reply in replies:
            if reply.forgotten > self._forgotten.get(reply.model, 0):
                many = reply.forgotten
                left = "question and its answer" if many == 1 else f"{many} questions and their answers"
                self.tell(f"{plain(reply.model)}: the conversation no longer fits; the oldest {left} are left out")
            self._forgotten[reply.model] = reply.forgotten

    def _retry(self, _: str) -> None:
        if self.conversation.turns and not self.conversation.settings.draws:
            self.tell("without a --temperature the same question gets the same answer")
        self._answer(self.conversation.retry())

    def _undo(self, _: str) -> None:
        taken = self.conversation.undo()
        self.tell(f"taken back: {plain(shortened(taken.question.text, 60))}")

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        self._forgotten.clear()
        self.tell("all forgotten")

    def _system(self, text: str) -> None:
        self.conversation.system = text or None
        self.tell("the system message is now yours" if text else "the system message is the runs' own again")

    def _save(self, name: str) -> None:
        if not name:
            raise OptionError("/save: name a file, such as /save talk.jsonl")
        save(self.conversation, Path(name).expanduser())
        self.tell(f"saved in {plain(name)}")


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation: for each model a line with its name and the messages. Raises OptionError."""
    if not conversation.turns:
        raise OptionError("nothing was said yet")
    if path.exists():
        raise OptionError(f"{path}: this file exists already; choose another name")
    lines = [
        plain_json({"model": name, "messages": conversation.messages(place)}) + "\n"
        for place, name in enumerate(conversation.names)
    ]
    with disk_guard(path):
        write_text(path, "".join(lines))


def greeting(conversation: Conversation) -> str:
    """Who is there."""
    return plain(f"with {enumerated(conversation.names, 'and')}; /help lists the commands")


def notes(models: Sequence[Model]) -> list[str]:
    """How models are asked, where that may surprise."""
    found: dict[str, list[str]] = {}
    for model in models:
        if note := _note(model):
            found.setdefault(note, []).append(model.name)
    return [plain(f"{enumerated(names, 'and')}: {note}") for note, names in found.items()]


def _note(model: Model) -> str:
    form = model.form
    if form.plain:
        return "trained on plain text; it goes on with what you type, and sees nothing of what was before"
    if form.instruction:
        trained = "to classify" if model.recipe.data.classifies else "under one instruction"
        return f"training was {trained}, so every question stands under “{shortened(form.instruction)}”"
    return ""


def typed_lines() -> Iterator[str]:
    """What a person types, until Ctrl-D or Ctrl-C."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 — arrow keys, and earlier lines
    while True:
        try:
            line = input(PROMPT)
            while line.endswith("\\"):
                line = line[:-1] + "\n" + input(GOES_ON)
        except (EOFError, KeyboardInterrupt):
            print()
            return
        except UnicodeDecodeError:
            print("that was no UTF-8 text; set the terminal's encoding to UTF-8", file=sys.stderr)
            continue
        yield line


def piped_lines() -> Iterator[str]:
    """The lines of stdin. Raises DataError where they are no UTF-8 text."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8").removeprefix("\ufeff" if number == 1 else "")
        except UnicodeDecodeError as error:
            raise DataError(
                f"line {number} of the questions: the byte at offset {error.start} is not UTF-8 text"
            ) from None
