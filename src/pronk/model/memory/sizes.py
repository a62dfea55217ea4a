"""Sizes of memory as people write them, and the allocator set up so that what it reserves can be known."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pronk.errors import OptionError

GIB = 2**30
UNITS = {"": 10**9, "g": 10**9, "gb": 10**9, "gib": GIB, "mb": 10**6, "mib": 2**20}
# What the CUDA context and its kernels take beside PyTorch's allocator.
CONTEXT = GIB // 2
# Sizes that GPUs are sold with, in GB.
SOLD = (6, 8, 10, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180, 288)
LEAST = GIB  # a smaller GPU is a slip of the pen

# PyTorch's own name for it; the older one, which 2.11 still warns of, is the user's to set.
ALLOCATOR = "PYTORCH_ALLOC_CONF"
ALLOCATOR_NAMES = (ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF")
ALLOCATION = "expandable_segments:True,pinned_use_cuda_host_register:True,pinned_num_register_threads:8"


def read_size(text: str) -> int:
    """Bytes of a size such as 24GB, 24 GiB or 16 (GB). Raises OptionError for anything else.

    GB are 10⁹ bytes: a card sold as 24 GB has a little more, of which driver and ECC take their part.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    unit = UNITS.get(found[2].lower()) if found else None
    if not found or unit is None:
        raise OptionError(f"--gpu: found {text!r}, expected a size such as 24GB, 24GiB or 16")
    size = int(float(found[1]) * unit)
    if size < LEAST:
        raise OptionError(f"--gpu: {text} is less than 1 GiB, too little for any model; write a size such as 24GB")
    return size


def usable(size: int) -> int:
    """What PyTorch may reserve of a GPU with so many bytes."""
    return size - CONTEXT


def limit_gpu(size: int | None, device: Any) -> None:
    """Keep this process below so many bytes of a GPU, or (None) no longer below what an earlier study was given.
    Raises OptionError if there is none, or if it has less."""
    import torch

    if size is None:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, _index(device))
        return
    if device.type != "cuda":
        raise OptionError("--gpu: this study runs on the CPU (train.device); leave the option out")
    total = torch.cuda.get_device_properties(device).total_memory
    if size > total:
        raise OptionError(f"--gpu: {gib(size)} GiB asked for, but this GPU has {gib(total)} GiB; leave the option out")
    torch.cuda.set_per_process_memory_fraction(usable(size) / total, _index(device))


def asked_limit() -> int | None:
    """The bytes of the current GPU below which `limit_gpu` keeps this process; None where it may take them all."""
    import torch

    share = torch.cuda.get_per_process_memory_fraction()
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return round(share * total) + CONTEXT if share < 1 else None


def _index(device: Any) -> int:
    import torch

    return torch.cuda.current_device() if device.index is None else int(device.index)


def available(device: Any) -> int:
    """What PyTorch may reserve on a GPU now, its own reserved memory included."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def machine_memory() -> tuple[int | None, int | None]:
    """Bytes of the machine's memory that this process may have, and those free now; None where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
        if not hasattr(os, "sysconf") or not set(names) <= set(os.sysconf_names):
            return None, None
        return os.sysconf(names[0]) * os.sysconf(names[1]), None
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if limit and used is not None and total and limit < total:
        total, free = limit, min(free or limit, max(limit - used, 0))
    return total, free


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def gib(size: float) -> str:
    """Bytes as GiB: a decimal below 100, none above."""
    number = size / GIB
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def steady_allocator() -> None:
    """Let segments grow in place, unless the user has set the allocator: what is reserved then stays near what is
    allocated, whatever sizes came before. Memory of the host is pinned where it lies, by several threads: given out by
    the driver, every use of the GPU would wait for it. To be called before CUDA starts; later it changes nothing."""
    if sys.platform.startswith("linux") and not any(name in os.environ for name in ALLOCATOR_NAMES):
        os.environ[ALLOCATOR] = ALLOCATION


def release(device: Any) -> None:
    """Give memory that nothing uses back to the GPU: the next phase needs it in other sizes."""
    gc.collect()
    give_back(device)


def give_back(device: Any) -> None:
    """As `release`, but without looking for what only holds on to itself, which takes a quarter of a second."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def quick_release() -> Iterator[None]:
    """Let `release` look through objects of now only. Going through all that libraries made takes a quarter of a
    second each time, which is most of what a measurement would take."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def begin_peak(device: Any) -> None:
    """Count the peak of reserved memory from here."""
    import torch

    release(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
