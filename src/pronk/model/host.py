"""Many tensors of a device, copied to the host at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; no type is larger


def copied_to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, all parts of one buffer.

    Copied one by one into ordinary memory, the hundreds of small tensors of an adapter make a GPU wait between them,
    and come at a tenth of the speed.
    """
    sizes = {name: -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for name, tensor in tensors.items()}
    on_gpu = any(tensor.is_cuda for tensor in tensors.values())
    buffer = _buffer(sum(sizes.values()), on_gpu)
    copies, start = {}, 0
    for name, tensor in tensors.items():
        copies[name] = buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        copies[name].copy_(tensor, non_blocking=on_gpu)
        start += sizes[name]
    if on_gpu:
        torch.cuda.synchronize()
    return copies


def pin_ahead(sizes: Iterable[int]) -> None:
    """Have pinned memory of these sizes (bytes) at hand before it is copied to: pinning takes a good part of a second,
    and PyTorch keeps for the next copy what is given back to it."""
    kept = [_buffer(size, pinned=True) for size in sizes]
    del kept


def _buffer(size: int, pinned: bool) -> Tensor:
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    except RuntimeError:  # a system may lock no more pages; ordinary memory is slower
        return torch.empty(size, dtype=torch.uint8)
