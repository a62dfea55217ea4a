"""Trials in processes of their own: what hangs or crashes there is told, and harms nothing here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

SECONDS = 60.0  # a first compilation by Triton takes some ten of them
ANSWER = "pronk-trial "  # what the line of a trial's result begins with; libraries print lines too


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial came to. facts: what it found. fault: why there is nothing, empty if there is."""

    facts: dict[str, Any]
    fault: str = ""


class Trial:
    """A trial that has begun; several can be under way at once."""

    def __init__(self, name: str, *arguments: str, seconds: float = SECONDS) -> None:
        self.name, self.seconds = name, seconds
        # -P: a file named torch.py in the working folder is not PyTorch
        command = [sys.executable, "-P", "-m", "pronk.doctor.health.trials", name, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="replace", start_new_session=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip

    def result(self) -> Result:
        """Wait for its end; when its time is over it is ended with all that it has started."""
        try:
            out, err = self._process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            return Result({}, f"it did not end within {self.seconds:.0f} s")
        answers = [line for line in out.splitlines() if line.startswith(ANSWER)]
        if answers:
            with contextlib.suppress(ValueError):
                found = json.loads(answers[-1].removeprefix(ANSWER))
                return Result(found.get("facts", {}), found.get("fault", ""))
        return Result({}, _ended(self._process.returncode, err))

    def stop(self) -> None:
        """End it, with all that it has started."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=5)


def _ended(code: int, err: str) -> str:
    """How a process ended that gave no answer."""
    said = [line.strip() for line in err.splitlines() if line.strip()]
    last = f": {said[-1][:200]}" if said else ""
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"it crashed ({names.get(-code, f'signal {-code}')}){last}"
    return f"it ended with code {code}{last}"
