"""A .gguf file as llama.cpp reads it, by llama-cpp-python in a process of its own.

There it can neither write on our terminal nor take us with it when its C code ends the process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pronk.data.terminal import plain
from pronk.errors import RefusedError

PACKAGE = "llama_cpp"
INSTALL = "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install 'pronk[gguf]'"
SHOWN = 300  # characters of what llama.cpp said last


def installed() -> bool:
    """Whether llama-cpp-python is here; it is not imported."""
    return importlib.util.find_spec(PACKAGE) is not None


class LlamaCpp:
    """A model, or an adapter over one, as llama.cpp reads it from files alone (pronk.ship.gate.reading.Reads)."""

    name = "llama.cpp"

    def __init__(self, model: Path, adapter: Path | None = None) -> None:
        """Raises RefusedError where llama.cpp does not take a file."""
        self._process = Process("read", str(model), *([str(adapter)] if adapter else []))
        self._process.reply()

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a chat that asks for an answer, by the file's own tokenizer and template."""
        return self._ids({"ask": "chat", "messages": [dict(message) for message in messages]})

    def text_ids(self, text: str, begin: bool = False) -> list[int]:
        """The ids of a text in which special tokens are spelled; begin: with what the file puts before a text."""
        return self._ids({"ask": "text", "text": text, "begin": begin})

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """fp32 (T, V): log-probabilities of the next token after each of the T ids."""
        self._process.send({"ask": "log_probabilities", "ids": list(ids)})
        rows, columns = self._process.reply()["shape"]
        return np.frombuffer(self._process.take(rows * columns * 4), np.float32).reshape(rows, columns)

    def close(self) -> None:
        """End the process."""
        self._process.end()

    def _ids(self, request: Mapping[str, Any]) -> list[int]:
        self._process.send(request)
        ids: list[int] = self._process.reply()["ids"]
        return ids


class Process:
    """A process of pronk.ship.gguf.llama_cpp_process; whatever it answers wrongly becomes a RefusedError."""

    def __init__(self, *arguments: str) -> None:
        self._what = Path(arguments[1]).name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        # -P: a file named llama_cpp.py in the working folder is not the package; Ctrl-C comes to us alone
        command = [sys.executable, "-P", "-m", "pronk.ship.gguf.llama_cpp_process", *arguments]
        # threads that wait asleep: where others are at work too, those that wait turning took five times as long
        around, pipe = {"OMP_WAIT_POLICY": "passive", **os.environ}, subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._said, start_new_session=True, env=around
        )

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask for something."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # it has ended, or was ended
            raise self._failure() from None

    def reply(self) -> dict[str, Any]:
        """The next reply. Raises RefusedError with what llama.cpp said, or how its process ended."""
        assert self._process.stdout
        try:
            line = self._process.stdout.readline()
        except BaseException:  # Ctrl-C
            self.end()
            raise
        if not line:
            raise self._failure()
        found: dict[str, Any] = json.loads(line)
        if "fault" in found:  # of this request; others may do
            raise RefusedError(f"{self._what}: llama.cpp: {found['fault']}")
        return found

    def take(self, size: int) -> bytes:
        """The bytes behind a reply."""
        assert self._process.stdout
        taken = self._process.stdout.read(size)
        if len(taken) < size:
            raise self._failure()
        return taken

    def end(self) -> None:
        """End the process, if it has not ended itself."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream and not stream.closed:
                stream.close()

    def _failure(self) -> RefusedError:
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read()
        self.end()
        return RefusedError(f"{self._what}: llama.cpp cannot read it: {says_llama_cpp(code, said)}")


def says_llama_cpp(code: int, said: bytes) -> str:
    """Why a process of llama.cpp has ended, in words. code: its exit code. said: what it wrote on stderr."""
    if code < 0:
        name = signal.Signals(-code).name
        again = f"{INSTALL} --force-reinstall --no-cache-dir"
        return f"it was ended by {name}; if it was built for another CPU, build it for any: {again}"
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return plain(lines[-1][:SHOWN]) if lines else f"its process ended with code {code}"
