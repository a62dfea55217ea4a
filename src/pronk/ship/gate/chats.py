"""A question as those send it who know only the exported files: a chat in OpenAI's form."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pronk.data.conversation import Conversation, Message
from pronk.errors import PromptError
from pronk.tokens.forms import alpaca_content, content
from pronk.tokens.prompt import Prompt

Chat = list[dict[str, str]]
Asked = tuple[Chat, list[int]]  # a chat, and the ids that pronk asks the same with

# What tokenizers and templates stumble over.
FIXED = (
    "How are you?",
    "내일 서울 날씨는 어때요?",
    "🙂 👍🏽 👩‍👩‍👧 naïve ŝ",
    "  two spaces in front, a\ttab, 1234567 + 0.5 = ?\n\nand a second paragraph",
)
SYSTEM = "You answer in one word."


def as_chat(kind: str, question: Sequence[Message]) -> Chat:
    """A question as a client of an OpenAI-compatible server sends it, which knows no context apart from the content.

    kind: of the prompt (Prompt.kind). In the Alpaca form the context goes under a heading of its own, `### Input:`, by
    which the exported template knows the preamble.
    """
    write = alpaca_content if kind == "alpaca" else content
    return [{"role": message.role, "content": write(message)} for message in question]


def fixed_chats(prompt: Prompt) -> list[Asked]:
    """Chats that every model is asked, with a system message where its form takes one."""
    found = [_asked(prompt, [Message("user", text)]) for text in FIXED]
    with contextlib.suppress(PromptError):  # by which a template says that it takes no system message
        found.append(_asked(prompt, [Message("system", SYSTEM), Message("user", FIXED[0])]))
    return found


def chats_of(rows: Sequence[Conversation], prompt: Prompt) -> tuple[list[Asked], list[Asked]]:
    """The questions of rows: those that open a conversation, and those that follow an answer.

    The latter hold earlier answers, which pronk tokenizes apart and a server within the text.
    """
    opening: list[Asked] = []
    later: list[Asked] = []
    for row in rows:
        for number, message in enumerate(row.messages):
            if message.role == "assistant" and number:
                chats = later if any(one.role == "assistant" for one in row.messages[:number]) else opening
                chats.append(_asked(prompt, row.messages[:number]))
    return opening, later


def first_difference(asked: Asked, found: Sequence[int], prompt: Prompt) -> str:
    """Where the ids of a chat first differ, in words: what was asked, and what the program would ask."""
    _, wanted = asked
    same = next((at for at, pair in enumerate(zip(wanted, found, strict=False)) if len(set(pair)) == 2), None)
    same = min(len(wanted), len(found)) if same is None else same
    shown = [prompt.tokenizer.decode(list(ids[max(0, same - 4) : same + 6])) for ids in (wanted, found)]
    return f"token {same + 1}: trained on {shown[0]!r}, now asked {shown[1]!r}"


def _asked(prompt: Prompt, question: Sequence[Message]) -> Asked:
    return as_chat(prompt.kind, question), prompt.question_ids([question])[0]
