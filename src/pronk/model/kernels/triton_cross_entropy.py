"""Cross-entropy as a Triton kernel: a program for each target, which reads its logits twice and writes them once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTH = 8192


def losses_and_slope_(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """As `cross_entropy.losses_and_slope_`."""
    rows, vocabulary = logits_NV.shape
    losses_N = torch.empty(rows, dtype=torch.float32, device=logits_NV.device)
    width = min(triton.next_power_of_2(vocabulary), WIDTH)
    slope_kernel[(rows,)](
        logits_NV, targets_N, weights_N, losses_N, logits_NV.stride(0), VOCABULARY=vocabulary, WIDTH=width, num_warps=8
    )
    return losses_N


@triton.jit
def slope_kernel(logits, targets, weights, losses, stride, VOCABULARY: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    target = tl.load(targets + row)
    at_target = tl.load(start + target).to(tl.float32)
    # each lane keeps a largest value and a sum of its own; they meet once, behind the loop
    largest = tl.full((WIDTH,), -float("inf"), tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    for first in range(0, VOCABULARY, WIDTH):
        column = first + tl.arange(0, WIDTH)
        value = tl.load(start + column, mask=column < VOCABULARY, other=-float("inf")).to(tl.float32)
        above = tl.maximum(largest, value)
        finite = tl.where(above == -float("inf"), 0.0, above)
        total = total * tl.exp(largest - finite) + tl.exp(value - finite)
        largest = above
    top = tl.max(largest)
    log_sum = top + tl.log(tl.sum(total * tl.exp(largest - top)))
    tl.store(losses + row, log_sum - at_target)
    weight = tl.load(weights + row).to(tl.float32)
    for first in range(0, VOCABULARY, WIDTH):
        column = first + tl.arange(0, WIDTH)
        inside = column < VOCABULARY
        value = tl.load(start + column, mask=inside, other=-float("inf")).to(tl.float32)
        slope = (tl.exp(value - log_sum) - tl.where(column == target, 1.0, 0.0)) * weight
        tl.store(start + column, slope.to(logits.dtype.element_ty), mask=inside)
