"""What to say when memory runs out, on a GPU or beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pronk.errors import OutOfMemoryError
from pronk.model.memory.sizes import asked_limit, gib

REMEDIES = (
    "`pronk plan` finds the setting that fits; in this order: quantize: nf4, train.recompute: all, a smaller "
    "train.max_length, fewer runs in one study, a smaller base"
)


@contextmanager
def memory_guard(doing: str) -> Iterator[None]:
    """Turn running out of memory, met anywhere inside, into one message about it. doing: such as "training"."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        # PyTorch's allocator for CPUs has no error of its own
        if not on_gpu and not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        place = _gpu_memory() if on_gpu and torch.cuda.is_available() else "this machine's memory"
        raise OutOfMemoryError(f"{doing}: {place} is not enough; what helps, {REMEDIES}") from None


def _gpu_memory() -> str:
    if limit := asked_limit():
        return f"what --gpu allows of the GPU's memory ({gib(limit)} GiB)"
    return f"the GPU's memory ({gib(torch.cuda.mem_get_info()[1])} GiB)"
