"""Questions to ask models: the packaged ones, a text, or a file with one on each line.

A line of a .jsonl file is `{"question": …}`, `{"instruction": …, "input": …}`, or, where the asker goes on after the
answer, `{"turns": [first, second, …]}` (the form of MT-bench) or `{"messages": […]}` that end with the user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pronk.data.words import is_whole
from pronk.errors import DataError

SAMPLES = {"english": "questions.en.jsonl", "korean": "questions.ko.jsonl"}
ENDINGS = (".jsonl", ".txt")
NAMES = ("question", "instruction")  # of the question in a .jsonl file
FORMS = (*NAMES, "turns", "messages")


@dataclass(frozen=True, slots=True)
class Question:
    """A question. context: what it is about (Alpaca's input), empty for none. place: for messages to people.

    later: what the asker says next, each after the model's own answer to what came before.
    """

    text: str
    context: str
    place: str
    later: tuple[str, ...] = ()

    @property
    def turns(self) -> tuple[str, ...]:
        """All that the asker says, as people read it."""
        return ("\n\n".join(filter(None, (self.text, self.context))), *self.later)

    @property
    def id(self) -> str:
        """A name made from what is asked, the same from whatever file it came."""
        asked = json.dumps([self.text, self.context, *self.later])
        return f"q-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"


def read_questions(given: Sequence[str], several_turns: bool = False) -> list[Question]:
    """Questions from texts, names of files (.txt, .jsonl) and `english` or `korean`, the packaged ones.

    several_turns: whether a question may go on after its answer. Raises DataError with one message that names the
    file and the line.
    """
    questions = [question for number, one in enumerate(given, start=1) for question in _read(one, number)]
    for question in questions:
        if question.later and not several_turns:
            raise DataError(
                f"{question.place}: this question has {1 + len(question.later)} turns, and only one is asked here; "
                "`pronk arena` asks all of them"
            )
    return questions


def _read(given: str, number: int) -> list[Question]:
    if given in SAMPLES:
        text = (files("pronk.data") / "samples" / SAMPLES[given]).read_text(encoding="utf-8")
        return _in_jsonl(text, SAMPLES[given])
    if not given.lower().endswith(ENDINGS):
        return [_text_question(given, number)]
    path = Path(given).expanduser()
    text = _file_text(path)
    found = _in_jsonl(text, path.name) if path.suffix.lower() == ".jsonl" else _in_text(text, path.name)
    if not found:
        raise DataError(f"{path}: there is no question in this file")
    return found


def _text_question(given: str, number: int) -> Question:
    if not given.strip():
        raise DataError(f"question {number} is empty; write a text, or name a .txt or .jsonl file")
    if "\n" not in given and len(given) < 255 and Path(given).exists():
        kind = "a folder" if Path(given).is_dir() else "a file"
        raise DataError(f"--questions {given}: this is {kind}; questions come from .txt or .jsonl files")
    return Question(_whole(given, f"question {number}"), "", f"question {number}")


def _in_text(text: str, name: str) -> list[Question]:
    lines = enumerate(text.split("\n"), start=1)
    return [Question(line.strip(), "", f"{name}:{number}") for number, line in lines if line.strip()]


def _in_jsonl(text: str, name: str) -> list[Question]:
    # JSON strings may hold U+2028 and the like, at which splitlines would cut
    lines = enumerate(text.split("\n"), start=1)
    return [_row(line, f"{name}:{number}") for number, line in lines if line.strip()]


def _row(line: str, place: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: broken JSON: {error}; expected an object such as {_example()}") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: expected an object such as {_example()}, found {line.strip()[:40]}")
    named = [name for name in FORMS if name in row]
    if len(named) != 1:
        found = " and ".join(f"`{name}`" for name in named) or f"the keys {', '.join(map(repr, row)) or 'none'}"
        raise DataError(f"{place}: found {found}, expected one of `question`, `instruction`, `turns` and `messages`")
    if named[0] in NAMES:
        context = _text("" if row.get("input") is None else row["input"], "input", place, optional=True)
        return Question(_text(row[named[0]], named[0], place), context, place)
    first, *later = (_turns if named[0] == "turns" else _asked)(row[named[0]], place)
    return Question(first, "", place, tuple(later))


def _turns(turns: Any, place: str) -> list[str]:
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{place}: `turns` must be a list of texts, found {json.dumps(turns)[:40]}")
    return [_text(turn, "turns", place) for turn in turns]


def _asked(messages: Any, place: str) -> list[str]:
    """What the user says in `messages`. What an assistant said is left out: each model goes on from its own answer."""
    expected = 'expected objects such as {"role": "user", "content": "…"}, the last one the user\'s'
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise DataError(f"{place}: `messages` are no messages; {expected}")
    roles = [message.get("role") for message in messages]
    if any(role == "system" for role in roles):
        raise DataError(f"{place}: a system message cannot be asked: each run has that of its training; leave it out")
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise DataError(f"{place}: the roles are {', '.join(map(str, roles))[:60] or 'none'}; {expected}")
    return [_text(message.get("content"), "content", place) for message in messages[::2]]


def _text(value: Any, key: str, place: str, optional: bool = False) -> str:
    if not isinstance(value, str):
        raise DataError(f"{place}: `{key}` must be text, found {json.dumps(value)[:40]}")
    return _whole(value, place, optional)


def _whole(text: str, place: str, optional: bool = False) -> str:
    if not text.strip() and not optional:
        raise DataError(f"{place}: the question is empty")
    if not is_whole(text):
        raise DataError(f"{place}: there is half a character in the text (a lone surrogate); save it as UTF-8")
    return text


def _example() -> str:
    example: dict[str, Any] = {"question": "What is a llama?"}
    return json.dumps(example)


def _file_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of questions") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: the byte at offset {error.start} is not UTF-8 text; save it as UTF-8"
        ) from None
