"""Bit-equal results from run to run on one machine, at some cost in speed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If wanted, PyTorch computes by algorithms whose result does not vary, attention included, until the end.

    An operation that has none raises a RuntimeError that names it. To be entered before the process has
    multiplied matrices on a GPU: cuBLAS reads its setting then.
    """
    if not wanted:
        yield
        return
    import torch
    from torch.utils import deterministic as settings

    memory: Any = settings  # which types do not know
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # PyTorch would write NaN into every new tensor, for programs that read what they never wrote
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
