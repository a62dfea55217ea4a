"""Work that training does not wait for, in order, until it fails for the first time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

LAST_WAIT = 60.0  # seconds for what is left to be sent when all is over

Result = TypeVar("Result")


class Background:
    """One thread that does what it is given, one thing after another.

    The first failure is told (`tell` gets the exception), and from then on nothing is done any more.
    The thread is a daemon: whatever hangs in it never keeps the program from ending.
    """

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        self._tell = tell
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.failed = False

    def now(self, task: Callable[[], Result]) -> Result | None:
        """Do something here and wait for it; None if it fails, or if something has failed before."""
        if self.failed:
            return None
        try:
            return task()
        except Exception as error:  # whatever a foreign package raises; training goes on
            self._fail(error)
            return None

    def later(self, task: Callable[[], None]) -> None:
        """Do something in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        if not self.failed:
            self._tasks.put(task)

    def close(self) -> None:
        """Wait until everything is done, but not for ever."""
        if self._thread is None:
            return
        self._tasks.put(None)
        self._thread.join(0 if self.failed else LAST_WAIT)
        if self._thread.is_alive() and not self.failed:
            self._fail(TimeoutError(f"it did not answer for {LAST_WAIT:.0f} seconds"))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            self.now(task)

    def _fail(self, error: BaseException) -> None:
        self.failed = True
        self._tell(error)
