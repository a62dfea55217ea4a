"""Replies on a terminal while they are written: one as running text, several in columns or one under another.

What models write is hostile: it goes through `pronk.data.terminal.plain` before anything else sees it. That spells out
single control characters, so it does not matter between which tokens a sequence of them was cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pronk.ask.conversation import Reply
from pronk.ask.shown import mark
from pronk.data.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

COLUMN = 38  # letters at least in a column: two go into 80
GAP = 2
OFTEN = 0.08  # seconds between two pictures
NOTHING = "(nothing)"

Replies = Iterator[list[Reply]]


def shown(text: str) -> str:
    """A reply's text for the terminal. While a text grows, what is shown of it only grows too."""
    return plain(text.strip())


def show(stream: Replies, console: Console, stopped: Callable[[], Any]) -> list[Reply]:
    """Show replies until they have ended, or `stopped` is true after one of their tokens; what they came to."""
    with console.status("reading") if console.is_terminal else nullcontext():
        first = next(stream)
    if len(first) == 1:
        return _running(first, stream, console, stopped)
    if console.is_terminal:
        return _pictures(first, stream, console, stopped)
    for reply in finished(stream, stopped, first):
        text = shown(reply.text) or NOTHING
        whole = "\n  ".join([plain(reply.model), *text.split("\n")]) + mark(reply.ended or "end", len(reply.ids))
        console.out(f"{whole}\n", highlight=False)
    return first


def finished(stream: Replies, stopped: Callable[[], Any], replies: Sequence[Reply] = ()) -> Sequence[Reply]:
    """Replies as they are in the end. replies: those that were seen already."""
    while not stopped() and (seen := next(stream, None)):
        replies = seen
    _close(stream)
    return replies


def _running(replies: list[Reply], stream: Replies, console: Console, stopped: Callable[[], Any]) -> list[Reply]:
    """One reply, piece by piece; nothing is ever taken back."""
    written = _more("", replies[0], console)
    while not stopped() and next(stream, None):
        written = _more(written, replies[0], console)
    _close(stream)
    written = _more(written, replies[0], console)
    end = mark(replies[0].ended or "end", len(replies[0].ids))
    console.out(("" if written else NOTHING) + end, highlight=False)
    return replies


def _more(written: str, reply: Reply, console: Console) -> str:
    text = shown(reply.text)
    console.out(text[len(written) :], end="", highlight=False)
    console.file.flush()
    return text


def _pictures(replies: list[Reply], stream: Replies, console: Console, stopped: Callable[[], Any]) -> list[Reply]:
    """Several replies: as they grow their last lines, as far as the screen reaches; in the end all of them."""
    from rich.live import Live

    def picture() -> RenderableType:
        return layout(replies, console, console.height - 2)

    with Live(picture(), console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        due = 0.0
        while not stopped() and next(stream, None):
            if time.monotonic() >= due:
                live.update(picture(), refresh=True)
                due = time.monotonic() + OFTEN
    _close(stream)
    console.print(layout(replies, console))
    return replies


def layout(replies: Sequence[Reply], console: Console, height: int | None = None) -> RenderableType:
    """Replies side by side where each has room for COLUMN letters, else one under another, under their names.

    height: the lines that there are; of longer texts the last ones are shown. None for all.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table

    width = (console.width - GAP * (len(replies) - 1)) // len(replies)
    if width >= COLUMN:
        table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for _ in replies:
            table.add_column(width=width, overflow="fold")
        table.add_row(*(_name(reply, width) for reply in replies))
        table.add_row(*(_lines(reply, console, width, height and height - 2) for reply in replies))
        return Padding(table, (0, 0, 1, 0))
    each = height and max(height // len(replies) - 2, 1)
    parts = [
        Group(
            _name(reply, console.width),
            Padding(_lines(reply, console, console.width - 2, each), (0, 0, 1, 2), expand=False),
        )
        for reply in replies
    ]
    return Group(*parts)


def _name(reply: Reply, width: int) -> RenderableType:
    from rich.text import Text

    name = Text(plain(reply.model), "bold cyan", no_wrap=True)
    name.truncate(width, overflow="ellipsis")
    return name


def _lines(reply: Reply, console: Console, width: int, height: int | None) -> RenderableType:
    from rich.text import Text

    text = Text(shown(reply.text) or (NOTHING if reply.ended else "…"))
    if reply.ended:
        text.append(mark(reply.ended, len(reply.ids)), "dim")
    lines = text.wrap(console, width, overflow="fold")
    return Text("\n").join(lines[-height:] if height else lines)


def _close(stream: Replies) -> None:
    """Stop listening: answers that are being written end here."""
    getattr(stream, "close", lambda: None)()
