"""The sum over all copies of a row as a Triton kernel: a program for some columns of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_COLUMNS = 1024


def sum_copies(copies_LC: Tensor, order_L: Tensor, starts_T: Tensor) -> Tensor:
    """As `occurrences.sum_copies`."""
    copies_LC = copies_LC.contiguous()
    rows, columns = len(starts_T) - 1, copies_LC.shape[1]
    total_TC = torch.empty(rows, columns, dtype=copies_LC.dtype, device=copies_LC.device)
    block = min(triton.next_power_of_2(columns), MOST_COLUMNS)
    sum_kernel[(rows, triton.cdiv(columns, block))](copies_LC, order_L, starts_T, total_TC, columns, BLOCK=block)
    return total_TC


@triton.jit
def sum_kernel(copies, order, starts, total, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    # the sum is in fp32, or in fp64 where the copies are
    summed = tl.zeros([BLOCK], tl.float64 if copies.dtype.element_ty == tl.float64 else tl.float32)
    place, end = tl.load(starts + row), tl.load(starts + row + 1)
    while place < end:
        copy = tl.load(order + place).to(tl.int64)
        summed += tl.load(copies + copy * columns + column, mask=inside, other=0.0).to(summed.dtype)
        place += 1
    tl.store(total + row * columns + column, summed.to(total.dtype.element_ty), mask=inside)
