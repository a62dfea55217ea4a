"""What a low-rank adapter adds, and a residual, in one reading: y + residual + left · right.

Where a product in FP8 gives y it cannot take the residual in, as one in bf16 does.
Shapes: T tokens, R ranks, O features of y.
"""

from __future__ import annotations

from torch import Tensor


def add_low_rank_(y_TO: Tensor, left_TR: Tensor, right_RO: Tensor, residual_TO: Tensor) -> None:
    """y += residual + left · right, in place, rounded once on a GPU."""
    if y_TO.is_cuda:
        from pronk.model.kernels.triton_low_rank import add_

        add_(y_TO, left_TR, right_RO, residual_TO)
    else:
        add_low_rank_plain_(y_TO, left_TR, right_RO, residual_TO)


def add_low_rank_plain_(y_TO: Tensor, left_TR: Tensor, right_RO: Tensor, residual_TO: Tensor) -> None:
    """`add_low_rank_` in plain PyTorch."""
    y_TO.add_(residual_TO).addmm_(left_TR, right_RO)
