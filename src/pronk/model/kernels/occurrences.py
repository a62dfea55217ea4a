"""Rows that were copied several times, back to one: the sum over all copies, which is the gradient of copying.

Shapes: T rows, L copies, C columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sum_copies(copies_LC: Tensor, order_L: Tensor, starts_T: Tensor) -> Tensor:
    """For each row the sum of its copies (T × C), in their type; summed in fp32 or better, always in one order.

    order_L: places in L, those of the first row's copies in front (int32). starts_T: where in order_L those of a row
    begin, and behind the last row its end (int32, T + 1); what lies behind that belongs to no row.
    """
    if copies_LC.is_cuda:
        from pronk.model.kernels.triton_occurrences import sum_copies as by_kernel

        return by_kernel(copies_LC, order_L, starts_T)
    return sum_copies_plain(copies_LC, order_L, starts_T)


def sum_copies_plain(copies_LC: Tensor, order_L: Tensor, starts_T: Tensor) -> Tensor:
    """`sum_copies` in plain PyTorch."""
    precision, rows = torch.promote_types(copies_LC.dtype, torch.float32), len(starts_T) - 1
    row_L = torch.arange(rows, device=starts_T.device).repeat_interleave(starts_T.diff())
    total_TC = torch.zeros(rows, copies_LC.shape[1], dtype=precision, device=copies_LC.device)
    total_TC.index_add_(0, row_L, copies_LC[order_L[: len(row_L)]].to(precision))
    return total_TC.to(copies_LC.dtype)
