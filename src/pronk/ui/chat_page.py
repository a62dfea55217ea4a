"""`pronk chat --web`: the same conversation in a browser of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pronk.ask.conversation import Conversation, Reply, Turn
from pronk.ask.shown import mark
from pronk.data.terminal import plain
from pronk.errors import OptionError
from pronk.ui.chat_screen import Replies, shown
from pronk.ui.local_page import Page, read_page, serve

OFTEN = 0.05  # seconds between two messages of a stream

Json = dict[str, Any]


def serve_chat(conversation: Conversation, notes: Sequence[str], tell: Callable[[str], None]) -> None:
    """Serve the conversation until Ctrl-C. notes: shown above it. tell: for the address, to the terminal."""
    serve(Talk(conversation, notes).page(), tell)


class Talk:
    """A conversation that a page asks for, in several threads; one answer is written at a time."""

    def __init__(self, conversation: Conversation, notes: Sequence[str] = ()) -> None:
        self.conversation, self.notes = conversation, list(notes)
        self._at_work = threading.Lock()
        self._stop = threading.Event()

    def page(self) -> Page:
        """What is served: see pronk.ui.local_page."""
        return read_page(
            "chat",
            get={"/api/state": self.state},
            post={"/api/stop": self.stop, "/api/undo": self.undo, "/api/reset": self.reset, "/api/system": self.system},
            stream={"/api/say": self.say, "/api/retry": self.retry},
        )

    def state(self) -> Json:
        """All that a page shows when it is opened."""
        chat = self.conversation
        return {
            "models": [plain(name) for name in chat.names],
            "notes": self.notes,
            "system": chat.system or "",
            "draws": chat.settings.draws,
            "turns": [_turn(turn) for turn in list(chat.turns)],
        }

    def say(self, body: Json) -> Iterator[Json]:
        """Ask `question`; see `_told` for what comes."""
        return self._told(lambda: self.conversation.say(_text(body, "question")))

    def retry(self, _: Json) -> Iterator[Json]:
        """Ask the last question again."""
        return self._told(self.conversation.retry)

    def stop(self, _: Json) -> Json:
        """End the answers that are being written."""
        self._stop.set()
        return {}

    def undo(self, _: Json) -> Json:
        """Take the last question back."""
        with _alone(self._at_work):
            taken = self.conversation.undo().question.text
        return {**self.state(), "taken": taken}

    def reset(self, _: Json) -> Json:
        """Forget all that was said."""
        with _alone(self._at_work):
            self.conversation.reset()
        return self.state()

    def system(self, body: Json) -> Json:
        """Take `text` as the system message; an empty one for the runs' own."""
        with _alone(self._at_work):
            self.conversation.system = _text(body, "text").strip() or None
        return self.state()

    def _told(self, begin: Callable[[], Replies]) -> Iterator[Json]:
        """First the question, then what was added to which reply: `more` text, or in its place the whole `text`."""
        with _alone(self._at_work):
            self._stop.clear()
            stream = begin()
            try:
                yield {"turn": _turn(self.conversation.turns[-1])}
                seen = [""] * len(self.conversation.names)
                due = 0.0
                for replies in stream:
                    if self._stop.is_set():
                        break
                    if time.monotonic() >= due:
                        yield {"replies": _grown(replies, seen)}
                        due = time.monotonic() + OFTEN
            finally:
                getattr(stream, "close", lambda: None)()
            yield {"replies": _grown(self.conversation.turns[-1].replies, seen)}


@contextmanager
def _alone(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock that nobody else holds. Raises OptionError where somebody does."""
    if not lock.acquire(blocking=False):
        raise OptionError("an answer is being written; stop it first")
    try:
        yield
    finally:
        lock.release()


def _turn(turn: Turn) -> Json:
    return {"question": plain(turn.question.text), "replies": [_reply(reply) for reply in turn.replies]}


def _reply(reply: Reply) -> Json:
    return {"text": shown(reply.text), **_end(reply)}


def _grown(replies: Sequence[Reply], seen: list[str]) -> list[Json]:
    """What was added to each reply since it was last seen."""
    parts = []
    for place, reply in enumerate(replies):
        text, before = shown(reply.text), seen[place]
        seen[place] = text
        added = {"more": text[len(before) :]} if text.startswith(before) else {"text": text}
        parts.append({**added, **_end(reply)})
    return parts


def _end(reply: Reply) -> Json:
    note = mark(reply.ended, len(reply.ids)).strip() if reply.ended else ""
    return {"ended": reply.ended is not None, "note": note, "forgotten": reply.forgotten}


def _text(body: Json, key: str) -> str:
    text = body.get(key)
    if not isinstance(text, str):
        raise OptionError(f"expected a text as `{key}`")
    return text
