"""Ctrl-C, heard at once and acted on where a study is whole: between rounds, between batches.

Python would raise KeyboardInterrupt at any line: between an update and its count, or inside a file
being saved. Here the signal only asks; `check` answers at the next safe point. A third Ctrl-C insists.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INSIST = 3


class Interruption:
    """Whether the user has asked to stop."""

    def __init__(self) -> None:
        self.asked = 0

    def check(self) -> None:
        """Raise KeyboardInterrupt if the user has asked to stop. Called where all state is whole."""
        if self.asked:
            raise KeyboardInterrupt

    def insist(self) -> None:
        """Raise KeyboardInterrupt if the user has insisted, whoever heard that first."""
        if self.asked >= INSIST:
            raise KeyboardInterrupt


@contextmanager
def listen(tell: Callable[[str], None]) -> Iterator[Interruption]:
    """Turn Ctrl-C into a request while the work inside goes on."""
    stop = Interruption()

    def hear(*_: Any) -> None:
        stop.asked += 1
        if stop.asked >= INSIST:
            raise KeyboardInterrupt
        if stop.asked == 1:
            tell("stopping as soon as everything is saved (Ctrl-C twice more to stop at once)")

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python hands signals to the main thread only
        return
    before = signal.signal(signal.SIGINT, hear)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
