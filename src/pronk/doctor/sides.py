"""The sides of a bench: which are installed here, and one's work done in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

import pronk
from pronk.doctor.peers.work import Answer, Work, read_result
from pronk.errors import OptionError

TIMEOUT = 900  # seconds for a side's process; a side that hangs must not hold the machine


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool: its name in tables, its module in pronk.doctor.peers, the packages it needs and what pip calls
    them."""

    title: str
    module: str
    packages: tuple[str, ...]
    install: tuple[str, ...]
    gpu_only: bool = False
    quantizes: tuple[str, ...] = ("none", "nf4", "int8")


PEERS = {
    "trl": Peer("TRL", "trl", ("trl",), ("trl",)),
    "trl+liger": Peer("TRL", "trl", ("trl", "liger_kernel"), ("trl", "liger-kernel"), gpu_only=True),
    "unsloth": Peer("Unsloth", "unsloth", ("unsloth",), ("unsloth",), quantizes=("none", "nf4")),
}


def choose_peers(wanted: Sequence[str] | None, device: str, quantize: str) -> list[str]:
    """The peers asked for, or all that can do this work here.

    wanted: names in PEERS. Raises OptionError for one that is not installed or cannot do the work.
    """
    if wanted is None:
        return [name for name in PEERS if not _hindrance(name, device, quantize)]
    for name in wanted:
        if why := _hindrance(name, device, quantize):
            raise OptionError(f"--peers: {name} {why}")
    return list(dict.fromkeys(wanted))


def _hindrance(name: str, device: str, quantize: str) -> str:
    """Why a peer cannot do the work; empty where it can."""
    peer = PEERS[name]
    # a package that only a GPU can import is not imported to see whether it is there
    if missing := [one for one in peer.packages if importlib.util.find_spec(one) is None]:
        return f"needs {' and '.join(missing)}, not installed here: pip install {' '.join(peer.install)}"
    if peer.gpu_only and device != "cuda":
        return "needs a GPU"
    if quantize not in peer.quantizes:
        return f"does not know quantize: {quantize}; it has {', '.join(peer.quantizes)}"
    return ""


def run_side(name: str, work: Work, folder: Path, console: Console, timeout: int = TIMEOUT) -> Answer:
    """The work done by ours or a peer in a process of its own: the result, or why there is none."""
    source, target = folder / f"{name}-work.json", folder / f"{name}-result.json"
    source.write_text(json.dumps(asdict(work)), encoding="utf-8")
    target.unlink(missing_ok=True)
    module = PEERS[name].module if name in PEERS else name
    command = [sys.executable, "-m", f"pronk.doctor.peers.{module}", str(source), str(target)]
    try:
        with console.status(f"{work.steps} steps by {name}"):
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False,
                timeout=timeout, env=_environment(folder, work.base), cwd=folder,
            )  # fmt: skip
        why = done.stderr.strip() or f"it ended with {done.returncode} and said nothing"
    except subprocess.TimeoutExpired:
        why = f"it did not end within {timeout} seconds"
    return read_result(target) or why


def _environment(folder: Path, base: str) -> dict[str, str]:
    """The sides' environment: this pronk, no network where the base lies here, and for Unsloth a place for what it
    compiles and no report of its use."""
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE") if Path(base).is_dir() else ()
    paths = [str(Path(pronk.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in paths if path),
        "UNSLOTH_COMPILE_LOCATION": str(folder / "unsloth_compiled"),
        "UNSLOTH_DISABLE_STATISTICS": "1",
        **dict.fromkeys(offline, "1"),
    }
