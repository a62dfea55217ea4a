"""Quantized weights moved together on a GPU, so that memory that is reserved is memory that is in use.

Each was made while its dense one was there, whose place is a hole afterwards; and q, k, v and gate, up, which are
multiplied as groups, would leave holes when they are laid side by side one group after another. PyTorch's growing
segments give back whole pages of 20 MiB alone, so that every hole keeps up to 40: that was once a sixth of a base of
1.2 billion weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pronk.model.fused import multiplied_together
from pronk.model.products import side_by_side
from pronk.model.quantize import QuantizedLinear
from pronk.model.rounding import round_up

STRETCH = 256 * 2**20  # bytes that are moved at once, and
PART = 16  # of all at most one in so many, so that moving takes no more than quantizing has taken
ALIGNMENT = 256  # bytes: what CUDA promises of tensors of their own


def close_up(model: Any) -> None:
    """Move the quantized weights of a model together, bit for bit as they are; those of a group lie side by side then.

    They move in stretches of one tensor each, in the order in which they lie: the first goes behind all others, each
    that follows fits where those before it were.
    """
    pieces = sorted(_pieces(model), key=lambda piece: min(tensor.data_ptr() for tensor in piece))
    for stretch in _stretches(pieces, min(STRETCH, sum(map(_size, pieces)) // PART)):
        _move(stretch)
        torch.cuda.empty_cache()


def _pieces(model: Any) -> Iterator[list[Tensor]]:
    """All tensors of quantized weights, each with those that it is to lie beside."""
    grouped = set()
    for linears in multiplied_together(model):
        if all(isinstance(linear, QuantizedLinear) for linear in linears):
            for tensors in side_by_side(linears):
                grouped |= {id(tensor) for tensor in tensors}
                yield tensors
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            for tensor in [*module.quantized.parameters(), *module.quantized.buffers()]:
                if id(tensor) not in grouped:
                    yield [tensor]


def _stretches(pieces: Sequence[list[Tensor]], limit: int) -> Iterator[list[list[Tensor]]]:
    """Pieces one after another, as many as have `limit` bytes, at least one."""
    stretch: list[list[Tensor]] = []
    for piece in pieces:
        if stretch and sum(map(_size, stretch)) + _size(piece) > limit:
            yield stretch
            stretch = []
        stretch.append(piece)
    if stretch:
        yield stretch


def _move(stretch: Sequence[list[Tensor]]) -> None:
    """Let all tensors of some pieces share one new tensor."""
    room = torch.empty(sum(map(_size, stretch)), dtype=torch.uint8, device=stretch[0][0].device)
    start = 0
    for piece in stretch:
        end = start
        for tensor in piece:
            place = room[end : end + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            tensor.data = place.copy_(tensor.data)
            end += tensor.nbytes
        start += _size(piece)


def _size(piece: Sequence[Tensor]) -> int:
    """The bytes that a piece takes."""
    return round_up(sum(tensor.nbytes for tensor in piece), ALIGNMENT)
