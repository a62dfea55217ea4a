"""The text of an answer while it grows: whole characters, and nothing of a stop text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"  # what decoders put in the place of bytes that are no character (yet)
NO_TEXT = "<0xFF>"  # a byte that no UTF-8 text has, as SentencePiece spells it


class Writing:
    """An answer's text as its tokens come.

    `text` only ever grows. Bytes that may still become a character wait, and so does what may be the beginning of a
    stop text. What `end` gives is the decoding of all tokens at once, up to the first stop text.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.ids: list[int] = []
        self.text = ""
        self.stopped = False  # at a stop text
        self._settled = ""  # of the tokens before `_read`, which is a border of characters
        self._begin = self._read = 0
        # A decoder that spells bytes as tokens (SentencePiece's) takes a row of them for one text, or for none: such
        # a byte that is none, put behind, shows which characters could still be lost.
        spoiler = tokenizer.convert_tokens_to_ids(NO_TEXT)
        known = spoiler is not None and tokenizer.convert_ids_to_tokens(spoiler) == NO_TEXT
        self._spoiler: int | None = spoiler if known else None

    def add(self, token: int) -> bool:
        """The next token; whether the answer ends here, at a stop text."""
        self.ids.append(token)
        recent = self.ids[self._begin :]
        before = self._decoded(self.ids[self._begin : self._read])
        whole = self._decoded(recent)
        sure = whole if self._spoiler is None else self._decoded([*recent, self._spoiler])
        sure = sure.rstrip(BROKEN)
        known = self._settled + sure[len(before) :]
        self.stopped = self.stopped or _first(self._settled + whole[len(before) :], self.stops) is not None
        self._show(known)
        if sure == whole and len(whole) > len(before):
            self._settled, self._begin, self._read = known, self._read, len(self.ids)
        return self.stopped

    def end(self, finished: bool) -> str:
        """The answer's text. finished: it came to its own end; else bytes of a last character may be missing."""
        text = self._decoded(self.ids)
        first = _first(text, self.stops)
        if first is not None:
            text = text[:first]
        elif not finished:
            text = text.rstrip(BROKEN)
        self.text = text
        return text

    def _show(self, known: str) -> None:
        """Show what is known, as far as no stop text may begin in it."""
        first = _first(known, self.stops)
        shown = known[:first] if first is not None else known[: len(known) - _held(known, self.stops)]
        if len(shown) > len(self.text):
            self.text = shown

    def _decoded(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop text begins."""
    if not stops:
        return None
    found = re.search("|".join(map(re.escape, stops)), text)
    return found.start() if found else None


def _held(text: str, stops: Sequence[str]) -> int:
    """How many letters at the end of a text may be the beginning of a stop text."""
    longest = max((len(stop) for stop in stops), default=1) - 1
    return next(
        (count for count in range(min(longest, len(text)), 0, -1)
         if any(stop.startswith(text[-count:]) for stop in stops)), 0,
    )  # fmt: skip
