"""Rotary positions as a Triton kernel: a program for some heads of a token."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

MOST_VALUES = 2048  # of half heads that a program holds


def turn_(heads_TC: Tensor, cos_TD: Tensor, sin_TD: Tensor, back: bool) -> None:
    """As `rope.rotate_`."""
    tokens, columns = heads_TC.shape
    size = cos_TD.shape[-1]
    half = triton.next_power_of_2(size // 2)
    count = columns // size
    together = min(triton.next_power_of_2(count), max(MOST_VALUES // half, 1))
    turn_kernel[(tokens, triton.cdiv(count, together))](
        heads_TC, cos_TD, sin_TD, heads_TC.stride(0), cos_TD.stride(0), count, size // 2,
        SIGN=-1.0 if back else 1.0, TOGETHER=together, HALF=half,
    )  # fmt: skip


@triton.jit
def turn_kernel(
    heads, cos, sin, stride, angle_stride, count, half,
    SIGN: tl.constexpr, TOGETHER: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < count) & (column < half)
    at_first = heads + token * stride + head * 2 * half + column
    at_cos = token * angle_stride + column
    c = tl.load(cos + at_cos, mask=column < half, other=0.0).to(tl.float32)
    s = tl.load(sin + at_cos, mask=column < half, other=0.0).to(tl.float32) * SIGN
    first = tl.load(at_first, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at_first + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(at_first, (first * c - second * s).to(heads.dtype.element_ty), mask=inside)
    tl.store(at_first + half, (second * c + first * s).to(heads.dtype.element_ty), mask=inside)
