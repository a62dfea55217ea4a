"""What a study ran on: versions and device, for study.json."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
from typing import Any

from pronk import __version__

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "numpy")


def environment(device: Any, dtype: Any, model: Any) -> dict[str, str]:
    """Versions of what matters, the device by name, and the kernel that the model attends with."""
    import torch

    from pronk.model.attention import describe

    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} of {os.cpu_count()} cores"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()}",
        "device": device_name(device) + threads,
        "dtype": str(dtype).removeprefix("torch."),
        "attention": describe(model),
        "pronk": __version__,
        **versions,
    }


def device_name(device: Any) -> str:
    """A GPU's own name, or the kind of CPU."""
    import torch

    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else f"{platform.machine()} CPU"


def peak_memory(device: Any) -> int:
    """Most memory that this process has held so far, in bytes: reserved on a GPU, resident on a CPU."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    # Linux counts KiB, macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
