"""Ends an engine whose pronk is gone: a process of a few lines that outlives it, and waits at a pipe.

It is told the engine's group, and "done" when that has ended as it should. If the pipe closes without that word, pronk
was killed (SIGKILL, out of memory), and nobody else is left to end the engine. Run as a file: it imports nothing of
pronk's, so that it starts at once and takes next to no memory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import BinaryIO


class Guard:
    """The process, from pronk's side. It hears no Ctrl-C, and holds neither terminal nor folder."""

    def __init__(self, grace: float) -> None:
        """grace: seconds that an engine gets to end by itself. Raises OSError."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(grace)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
        )  # fmt: skip

    def watch(self, group: int) -> None:
        """Whose end it is to see to: the group of a process that was started."""
        self._tell(f"{group}\n")

    def dismiss(self) -> None:
        """The engine has ended, or never began."""
        self._tell("done\n")
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody has killed it: pronk serves as well without
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def keep_watch(pipe: BinaryIO, grace: float) -> None:
    """Wait until it is told, or pronk is gone; then ask the group to end, and kill what is left of it."""
    first, last = pipe.readline().strip(), pipe.readline().strip()
    if last == b"done" or not first.isdigit():
        return
    group, until = int(first), time.monotonic() + grace
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(0.1)
            os.killpg(group, 0)  # raises when nothing is left
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    keep_watch(sys.stdin.buffer, float(sys.argv[1]))
