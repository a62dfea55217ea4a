"""A base's weights read from the disk into the system's memory, while rows are still being read and checked."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pronk.model.hub import Base, downloaded, weight_files
from pronk.model.memory.sizes import machine_memory

CHUNK = 2**26  # bytes that are asked for at once
SHARE = 0.5  # of the free memory; of more, the system would forget the first files over the last


def read_ahead(base: Base) -> threading.Thread | None:
    """Have the system read a base's files, in a thread that nobody has to wait for; None where that is of no use."""
    folder = base.location if base.local else downloaded(base.name)
    files = [file for file in weight_files(Path(folder)) if file.is_file()] if folder else []
    free = machine_memory()[1]
    size = sum(file.stat().st_size for file in files)
    if not files or free is None or size > SHARE * free or not hasattr(os, "posix_fadvise"):
        return None
    thread = threading.Thread(target=_read, args=(files,), name="pronk read-ahead", daemon=True)
    thread.start()
    return thread


def _read(files: Sequence[Path]) -> None:
    with suppress(OSError):  # whoever loads them says what is wrong with them
        for file in files:
            with file.open("rb") as opened:
                for start in range(0, file.stat().st_size, CHUNK):
                    os.posix_fadvise(opened.fileno(), start, CHUNK, os.POSIX_FADV_WILLNEED)
