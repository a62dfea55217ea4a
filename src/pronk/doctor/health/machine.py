"""The machine without its GPU: processor, memory, disk, folders, and where this runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pronk.doctor.health.finding import Line
from pronk.model.memory.sizes import machine_memory
from pronk.model.places import EMBEDDED, EMBEDDED_INSTALL, cache_folder, embedded_file
from pronk.runs import existing

GIB = 2**30
LEAST_DISK = 2 * GIB  # the embedded model, converted, and a study of its size
ROOMY_DISK = 20 * GIB  # an 8B model is a download of 16 GB
LEAST_MEMORY = 4 * GIB


def processor_line() -> Line:
    """Cores that this process may use, and memory, as a container limits them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, _container_cores() or cores)
    total, free = machine_memory()
    if total is None:
        return Line("processor", "ok", f"{cores} cores")
    room = f", {free / GIB:.1f} GiB of them free" if free is not None else ""
    found = f"{cores} core{'' if cores == 1 else 's'}, {total / GIB:.1f} GiB of memory{room}"
    if (total if free is None else free) < LEAST_MEMORY:
        return Line("processor", "note", found, "little memory: close other programs before loading a model")
    return Line("processor", "ok", found)


def _container_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None


def folders() -> dict[str, Path]:
    """The folders that pronk and its libraries write to, by what they are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()
    hub_home = Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()
    named = {
        "hub cache": os.environ.get("HF_HUB_CACHE") or hub_home / "hub",
        "data cache": os.environ.get("HF_DATASETS_CACHE") or hub_home / "datasets",
        "Triton cache": os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache",
    }
    others = {name: Path(path).expanduser() for name, path in named.items()}
    return {"working folder": Path.cwd(), "pronk's cache": cache_folder(), **others}


SETTINGS = {
    "pronk's cache": "PRONK_CACHE", "hub cache": "HF_HUB_CACHE", "data cache": "HF_DATASETS_CACHE",
    "Triton cache": "TRITON_CACHE_DIR",
}  # fmt: skip


def folder_lines() -> list[Line]:
    """Whether each folder can be written to, and how much room each disk has: told once a disk."""
    lines, seen = [], set()
    for name, path in folders().items():
        elsewhere = f"set {SETTINGS[name]} to another folder" if name in SETTINGS else "go to another folder"
        there = existing(path)
        if fault := _cannot_write(there):
            lines.append(Line(name, "failed", f"{path}: {fault}", f"{elsewhere}, or mend its permissions"))
            continue
        free = shutil.disk_usage(there).free
        room = "" if there.stat().st_dev in seen else f", {free / GIB:,.0f} GiB free"
        seen.add(there.stat().st_dev)
        found = f"{path} can be written to{room}"
        if free < LEAST_DISK:
            remedy = f"free some, or {elsewhere}"
            lines.append(Line(name, "failed", f"{path}: {free / GIB:.1f} GiB free, too little", remedy))
        elif room and free < ROOMY_DISK:
            lines.append(Line(name, "note", found, f"an 8B model is a download of 16 GB: {elsewhere} for larger ones"))
        else:
            lines.append(Line(name, "ok", found))
    return lines


def _cannot_write(folder: Path) -> str:
    """Why no file can be made in a folder; empty where one can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"pronk")
    except OSError as error:
        return f"cannot be written to ({error.strerror or type(error).__name__})"
    return ""


def embedded_line() -> Line:
    """The model that `pronk demo` and recipes without a base take."""
    file = embedded_file()
    if file is None:
        return Line("embedded model", "note", f"{EMBEDDED} is not installed; `pronk demo` needs it", EMBEDDED_INSTALL)
    return Line("embedded model", "ok", f"{EMBEDDED} is there ({file.stat().st_size / 2**20:.0f} MiB)")


def place_lines(environment: Mapping[str, str], gpu: bool) -> list[Line]:
    """What is worth knowing of WSL and Colab, where this is one of them. gpu: whether there is one to be used."""
    lines = []
    if "microsoft" in platform.release().lower():
        slow = "; this folder is Windows', and slow from here: work below your home folder" * _on_windows(Path.cwd())
        found = f"memory is limited by [wsl2] memory= in .wslconfig{slow}"
        driver = "" if gpu else "install the NVIDIA driver in Windows, never in WSL, then run `wsl --update`"
        lines.append(Line("WSL", "note", found, driver))
    if "COLAB_RELEASE_TAG" in environment:
        found = "a session ends after some hours, and its disk with it: `pronk run --copy-to` keeps a study on a drive"
        runtime = "" if gpu else "choose a GPU: Runtime > Change runtime type > T4 GPU"
        lines.append(Line("Colab", "note", found, runtime))
    return lines


def _on_windows(path: Path) -> bool:
    return len(path.parts) > 2 and path.parts[1] == "mnt" and len(path.parts[2]) == 1


def nvidia_smi() -> tuple[str, str] | None:
    """Name and driver version of the first NVIDIA GPU, as the driver's own tool tells; None where it finds none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = told.stdout.strip().splitlines()[:1] if told.returncode == 0 else []
    name, _, driver = first[0].partition(",") if first else ("", "", "")
    return (name.strip(), driver.strip()) if name.strip() else None
