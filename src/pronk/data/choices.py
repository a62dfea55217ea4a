"""Multiple choice: a row's question, choices and answer to a conversation, in the form that the recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from pronk.data.conversation import Conversation, Message
from pronk.data.labels import label_text
from pronk.data.rows import EMPTY_ANSWER, RowError
from pronk.data.words import described, is_whole
from pronk.recipe import Data
from pronk.recipe.data import ChoiceForm

ARC_KEYS = ("text", "label")  # of the lists that ARC and its kin write in place of one list of choices


def has_choices(value: Any) -> bool:
    """Whether a column's value is a list of choices."""
    texts = value.get(ARC_KEYS[0]) if isinstance(value, dict) else value
    return isinstance(texts, list) and len(texts) > 1 and all(isinstance(label_text(one), str) for one in texts)


def choice_conversation(
    data: Data, system: tuple[Message, ...], question: str, choices: Any, answer: Any, place: str
) -> Conversation:
    """A question with its choices as data.choices says, and the right one as its answer. Raises RowError."""
    texts, names = _texts(choices)
    right = _place(answer, texts, names)
    question = _listed(data.choices, question, texts)
    asked = (data.instruction, question) if data.instruction else (question,)
    offered = offered_choices(data.choices, choices)
    messages = (*system, Message("user", *asked), Message("assistant", offered[right]))
    return Conversation(messages, place, choices=offered)


def choice_question(form: ChoiceForm, question: str, choices: Any) -> str:
    """A question with its choices, as `data.choices` says that they are asked. Raises RowError."""
    return _listed(form, question, _texts(choices)[0])


def offered_choices(form: ChoiceForm, choices: Any) -> tuple[str, ...]:
    """What an answer is chosen among: the choices, or their letters. Raises RowError."""
    texts = _texts(choices)[0]
    return tuple(ascii_uppercase[: len(texts)] if form == "letters" else texts)


def _listed(form: ChoiceForm, question: str, texts: Sequence[str]) -> str:
    if form == "unlisted":
        return question
    return "\n".join([question.strip(), "", *map("{}. {}".format, ascii_uppercase, texts)])


def _texts(value: Any) -> tuple[list[str], list[str]]:
    """The choices, and the names that the row itself gives them (ARC's labels), if any."""
    names: list[str] = []
    if isinstance(value, dict) and set(ARC_KEYS) <= set(value):
        value, names = (value[key] for key in ARC_KEYS)
        names = [str(label_text(one)) for one in names] if isinstance(names, list) else []
        if not isinstance(value, list) or len(names) != len(value):
            raise RowError("choices", "the choices must be as many texts as labels")
    if not isinstance(value, list):
        raise RowError("choices", f"the choices must be a list of texts; found {described(value)}")
    texts = [label_text(one) for one in value]
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise RowError("choices", f"choice {number} must be a text; found {described(value[number - 1])}")
        if not text:
            raise RowError("empty choice", f"choice {number} is empty")
        if not is_whole(text):
            raise RowError("choice half", f"choice {number} has half a character (a lone \\ud… escape)")
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise RowError("choices", f"there must be 2 to {len(ascii_uppercase)} choices; found {len(texts)}")
    return texts, names


def _place(answer: Any, texts: list[str], names: list[str]) -> int:
    """Which choice is right. answer: its place counted from 0, its text, its own label, or its letter."""
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < len(texts):
            return answer
        raise RowError(
            "answer place",
            f"the answer {answer} is no place among {len(texts)} choices; they are counted from 0 to {len(texts) - 1}",
        )
    if not isinstance(answer, str):
        raise RowError("answer", f"the answer must be a place, a letter or a text; found {described(answer)}")
    answer = answer.strip()
    if not answer:
        raise RowError(EMPTY_ANSWER, "the answer is empty")
    letters = names or list(ascii_uppercase[: len(texts)])
    found = {known.index(answer) for known in (texts, letters) if answer in known}
    if len(found) > 1:
        raise RowError("answer twice", f"the answer {answer!r} is one choice's text and another's letter; name a place")
    if not found:
        raise RowError(
            "answer", f"the answer {answer!r} is none of the choices, and no letter from {letters[0]} to {letters[-1]}"
        )
    return found.pop()
