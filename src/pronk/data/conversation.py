"""The one record type: whatever the file looked like, an example is a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `context` is what an instruction is about (Alpaca's input), kept apart from it."""

    role: Role
    content: str
    context: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system message or none, then user and assistant in turn; the last turn is the answer.

    Plain text to go on with (the format `text`) is a single assistant turn without a question.
    """

    messages: tuple[Message, ...]
    place: str  # file and line, for messages to people
    label: str | None = None  # the answer as one of the recipe's labels
    choices: tuple[str, ...] = ()  # multiple choice: all answers that there are to choose from

    @property
    def question(self) -> tuple[Message, ...]:
        """All that comes before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text that the model is to learn and is measured on."""
        return self.messages[-1].content

    @property
    def text(self) -> str:
        """All that any turn says, a line or more each."""
        return "\n".join(part for message in self.messages for part in (message.content, message.context) if part)

    @property
    def asked(self) -> str:
        """All that is asked, as a reader who knows only this needs it: the user's words and, of several turns, who
        says what. Plain text has no question: how it begins."""
        if len(self.messages) == 1:
            return self.subject
        said = [("\n\n".join(filter(None, (one.content, one.context))), one.role) for one in self.question]
        turns = [(text, role) for text, role in said if role != "system"]
        if len(turns) == 1:
            return turns[0][0]
        return "\n\n".join(f"{'User' if role == 'user' else 'Assistant'}: {text}" for text, role in turns)

    @property
    def subject(self) -> str:
        """What a person would recognise the example by: the last user turn's text or instruction.

        Where there is no question (the format `text`), how the text begins.
        """
        if len(self.messages) == 1:
            return shortened(self.answer)
        last = self.messages[-2]
        return last.context or last.content


def shortened(text: str, letters: int = 100) -> str:
    """A text, or its first letters and a mark that there are more."""
    return text if len(text) <= letters else text[:letters].rstrip() + "…"
