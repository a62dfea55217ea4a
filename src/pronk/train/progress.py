"""What a person sees while the machine works: a bar, and a line for each event. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 15.0  # without a terminal there is no bar: a line this often instead


def say(console: Console, line: str, style: str | None = None) -> None:
    """A line for people as it is: names and messages are no markup, and what is long wraps where the terminal does."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class Work:
    """Progress of one piece of work, in whatever unit it counts."""

    def __init__(self, console: Console, progress: Progress, task: TaskID, title: str) -> None:
        self._console, self._progress, self._task, self._title = console, progress, task, title
        self._next_line = time.monotonic() + QUIET_SECONDS

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move on by an amount; the note stands behind the bar."""
        self._progress.update(self._task, advance=amount, note=note)
        if not self._console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + QUIET_SECONDS
            task = self._progress.tasks[self._task]
            self.say(f"{self._title}: {task.completed:.0f} of {task.total or 0:.0f} {note}".rstrip())

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)


@contextmanager
def work(console: Console, title: str, total: float) -> Iterator[Work]:
    """Show a bar while the work inside goes on."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, note="")
        yield Work(console, progress, task, title)
