"""A list of turns, as OpenAI or ShareGPT write it, to messages; with what can be wrong with one."""

from __future__ import annotations

from typing import Any, cast

from pronk.data.conversation import Message, Role
from pronk.data.rows import EMPTY_ANSWER, RowError
from pronk.data.words import described, enumerated
from pronk.recipe import Format

KEYS: dict[Format, tuple[str, str]] = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
ROLES: dict[Format, dict[str, Role]] = {
    "messages": {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"},
    "sharegpt": {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"},
}


def read_turns(value: Any, format: Format) -> tuple[list[Message], bool]:
    """Messages in order: system or none, then user and assistant in turn, the assistant last.

    Also whether a last turn that nobody answers was left out. format: messages or sharegpt.
    Raises RowError.
    """
    turns, begin = _checked(value, format)
    unanswered = bool(turns) and turns[-1].role == "user"
    kept = turns[:-1] if unanswered else turns
    if len(kept) <= begin:
        raise RowError("no answer", "has no assistant turn to learn from")
    return kept, unanswered


def read_question(value: Any, format: Format) -> list[Message]:
    """Messages up to the last user turn, without the answer that may follow it. Raises RowError."""
    turns, begin = _checked(value, format)
    asked = turns[:-1] if turns and turns[-1].role == "assistant" else turns
    if len(asked) <= begin:
        raise RowError("no question", "has no user turn to answer")
    return asked


def _checked(value: Any, format: Format) -> tuple[list[Message], int]:
    """Messages in the right order, and the place of the first that is no system message."""
    if not isinstance(value, list):
        raise RowError("no list", f"must be a list of turns; found {described(value)}")
    turns = [_turn(turn, number, format) for number, turn in enumerate(value, start=1)]
    if turns and turns[0].role == "system" and not turns[0].content.strip():
        del turns[0]  # an empty system message says nothing
    begin = 1 if turns and turns[0].role == "system" else 0
    skipped = len(value) - len(turns) + 1
    for position, turn in enumerate(turns):
        _check_order(turn, turns[position - 1] if position > begin else None, position + skipped, position >= begin)
        if not turn.content.strip():
            kind = EMPTY_ANSWER if turn.role == "assistant" else "empty turn"
            raise RowError(kind, f"turn {position + skipped} ({turn.role}) is empty")
    return turns, begin


def _check_order(turn: Message, before: Message | None, number: int, in_dialogue: bool) -> None:
    if not in_dialogue:
        return
    if turn.role == "system":
        raise RowError("late system", f"turn {number} is a system message; only the first turn may be one")
    if before is None and turn.role == "assistant":
        raise RowError("assistant first", f"turn {number} is the assistant's, but a user turn has to come first")
    if before is not None and before.role == turn.role:
        raise RowError("alternation", f"turns {number - 1} and {number} are both by the {turn.role}; they alternate")


def _turn(turn: Any, number: int, format: Format) -> Message:
    speaker_key, text_key = KEYS[format]
    if not isinstance(turn, dict) or speaker_key not in turn or text_key not in turn:
        found = enumerated([repr(str(key)) for key in turn], "and") if isinstance(turn, dict) else described(turn)
        raise RowError(
            "turn", f"turn {number} must be an object with {speaker_key!r} and {text_key!r}; found {found or 'no keys'}"
        )
    roles, speaker = ROLES[format], turn[speaker_key]
    role = roles.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise RowError("role", f"turn {number} has the {speaker_key} {speaker!r}; known are {_names(roles)}")
    for key in ("tool_calls", "function_call"):
        if turn.get(key):
            raise RowError("tools", f"turn {number} has {key}, which pronk does not train on")
    if turn.get("weight") == 0:
        raise RowError("weight", f"turn {number} has weight 0, but pronk learns every assistant turn")
    return Message(role, _content(turn[text_key], number))


def _names(roles: dict[str, Role]) -> str:
    return enumerated(roles, "and")


def _content(value: Any, number: int) -> str:
    """A text, or OpenAI's list of parts joined without anything between them."""
    if isinstance(value, list):
        return "".join(_part(part, number) for part in value)
    if not isinstance(value, str):
        raise RowError("content", f"turn {number} must be text; found {described(value)}")
    return value


def _part(part: Any, number: int) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind is not None and kind != "text":
        raise RowError("part", f"turn {number} has a part of the type {kind!r}; pronk trains on text alone")
    if kind is None or not isinstance(part.get("text"), str):
        raise RowError("part", f"turn {number} has a part that is no {{type: text, text: …}}")
    return cast(str, part["text"])
