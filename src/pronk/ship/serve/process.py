"""An engine's process: started, watched, and ended with all of its children, whatever happens here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from pronk.data.terminal import plain
from pronk.ship.serve.guard import Guard

GRACE = 20.0  # seconds that an engine gets to end by itself
KEPT_LINES = 200  # of the log, to tell why an engine died
LARGEST_LOG = 10 * 2**20  # bytes; what is older is in a second file of the same size
HIDDEN = "[hidden]"
SECRET_NAMES = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)S?$", re.IGNORECASE)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{10,}")
SHORTEST_SECRET = 8  # letters; what is shorter would hide parts of words
# What would make another Python import packages of ours.
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PRONK_API_KEY")


class Stop:
    """Whether the user wants to end. waiting: whether asking interrupts what is being waited for.

    engine: the process to end as soon as it is asked for, so that no request to it is waited for either.
    """

    def __init__(self) -> None:
        self.asked, self.waiting = 0, False
        self.engine: subprocess.Popen[bytes] | None = None


@contextmanager
def heard(tell: Callable[[str], None]) -> Iterator[Stop]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into a request to end, so that no engine is left running."""
    stop = Stop()

    def hear(_number: int, _frame: FrameType | None) -> None:
        stop.asked += 1
        if stop.asked == 1 and stop.engine is not None:
            stop.engine.terminate()
            tell("ending the engine (Ctrl-C once more to kill it)")
        if stop.waiting:
            stop.waiting = False
            raise KeyboardInterrupt

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
               if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]  # fmt: skip
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class EngineProcess:
    """An engine, in a group of processes of its own. log: where all that it says goes, without secrets: those of the
    environment, and the key, which some engines get otherwise.

    Ctrl-C in the terminal does not reach it: it lives from `start` to `end`, or until pronk is gone (guard.py).
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, stop: Stop,
        key: str = "",
    ) -> None:  # fmt: skip
        self.argv, self.environment, self.folder, self.stop = list(argv), environment, folder, stop
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._log, self._key = log, key

    def start(self) -> None:
        """Start the engine; whoever does must call `end`. Raises OSError where it cannot be started."""
        whole = {name: value for name, value in os.environ.items() if name not in OURS} | dict(self.environment)
        self._secrets = _secrets({**os.environ, **self.environment, "KEY": self._key})
        self._guard = Guard(GRACE)
        try:
            self._process = subprocess.Popen(
                self.argv, env=whole, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError:
            self._guard.dismiss()
            raise
        self._guard.watch(self._process.pid)
        self.stop.engine = self._process
        self._reader = threading.Thread(target=self._read, daemon=True, name="engine log")
        self._reader.start()

    @property
    def code(self) -> int | None:
        """What the engine's process ended with; None as long as it runs."""
        return self._process.poll()

    def wait(self) -> int | None:
        """Until the engine ends by itself (its code), or the user asks for it (None)."""
        try:
            self.stop.waiting = True
            return None if self.stop.asked else self._process.wait()
        except KeyboardInterrupt:
            return None
        finally:
            self.stop.waiting = False

    def end(self) -> None:
        """Ask the engine to end, then kill it and whatever is left of its group. Returns when nothing is."""
        asked = self.stop.asked
        if self._process.poll() is None:
            self._process.terminate()
        until = time.monotonic() + GRACE
        while self._process.poll() is None and time.monotonic() < until and self.stop.asked <= max(asked, 1):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its children, and itself if it would not
        self._process.wait()
        self._guard.dismiss()
        self._reader.join(GRACE)

    def last_lines(self) -> list[str]:
        """What the engine said last, fit for a terminal."""
        self._reader.join(1.0 if self.code is not None else 0.0)
        return list(self.lines)

    def _read(self) -> None:
        """Copy what the engine says into the log; it must be read whatever happens, or the engine would stand still."""
        assert self._process.stdout is not None
        log = _Log(self._log)
        for raw in self._process.stdout:
            text = raw.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2]  # of a bar, how it ends
            line = plain(COLOURS.sub("", self._hidden(text)))
            self.lines.append(line)
            log.write(line)
        log.close()
        self._process.stdout.close()

    def _hidden(self, line: str) -> str:
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return HUB_TOKEN.sub(HIDDEN, line)


def _secrets(environment: Mapping[str, str]) -> list[str]:
    found = [value for name, value in environment.items() if SECRET_NAMES.search(name)]
    return sorted({value for value in found if len(value) >= SHORTEST_SECRET}, key=len, reverse=True)


def _older(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def remove_log(log: Path) -> None:
    """Delete a log, and what was moved out of it as it grew."""
    for file in (log, _older(log)):
        file.unlink(missing_ok=True)


class _Log:
    """A file that only its user can read, of a bounded size. What cannot be written (a full disk) is left out."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, 0
        self.file: BinaryIO | None = self._opened()

    def _opened(self) -> BinaryIO | None:
        with suppress(OSError):
            return os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0)
        return None

    def write(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "replace")
        if self.written + len(data) > LARGEST_LOG:
            self.close()
            with suppress(OSError):
                self.path.replace(_older(self.path))
            self.file, self.written = self._opened(), 0
        self.written += len(data)
        if self.file is not None:
            with suppress(OSError):
                self.file.write(data)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
