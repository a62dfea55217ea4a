"""Rows to FP8, and FP8 bytes transposed, as Triton kernels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels import fp8
from pronk.model.kernels.fp8 import FP8, Fp8Rows

LARGEST = tl.constexpr(fp8.LARGEST)
SMALLEST_SCALE = tl.constexpr(fp8.SMALLEST_SCALE)

# Triton's interpreter (3.6) rounds to float8 half up, and loses the carry; under it we round by hand before.
BY_HAND = bool(triton.knobs.runtime.interpret)
TILE = 128


def quantize(x_TI: Tensor, scale_I: Tensor | None) -> Fp8Rows:
    """As `fp8.quantize_rows`. x: rows may lie apart, features side by side."""
    tokens, features = x_TI.shape
    codes_TI = torch.empty(tokens, features, dtype=FP8, device=x_TI.device)
    scale_T = torch.empty(tokens, dtype=torch.float32, device=x_TI.device)
    width = triton.next_power_of_2(features)
    quantize_kernel[(tokens,)](
        x_TI, scale_T if scale_I is None else scale_I, codes_TI, scale_T, x_TI.stride(0), features,
        FOLD=scale_I is not None, WIDTH=width, BY_HAND=BY_HAND, num_warps=min(max(width // 1024, 1), 16),
    )  # fmt: skip
    return Fp8Rows(codes_TI, scale_T)


def transpose(codes_OI: Tensor, out_IO: Tensor) -> None:
    """As `fp8.transpose_codes`. Both: rows may lie apart, what is in a row side by side."""
    rows, columns = codes_OI.shape
    grid = (triton.cdiv(columns, TILE), triton.cdiv(rows, TILE))
    transpose_kernel[grid](
        codes_OI.view(torch.uint8), out_IO.view(torch.uint8), rows, columns, codes_OI.stride(0), out_IO.stride(0),
        TILE=TILE, num_warps=8,
    )  # fmt: skip


@triton.jit
def row_scale(largest):  # type: ignore[no-untyped-def]
    """The scale of a row whose largest absolute value (fp32) is given; as `fp8.row_scales`."""
    return tl.maximum(tl.div_rn(largest, LARGEST), SMALLEST_SCALE)


@triton.jit
def to_e4m3(x, BY_HAND: tl.constexpr):  # type: ignore[no-untyped-def]
    """fp32 (at most 464 from zero, or NaN) to the nearest float8_e4m3fn, ties to even."""
    if BY_HAND:
        # normal numbers: round the lowest 20 of 23 bits away; below 2^-6 the step is 2^-9, that of fp32 near 1.5 · 2^14
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        x = tl.where(tl.abs(x) < 0.015625, (x + 24576.0) - 24576.0, bits.to(tl.float32, bitcast=True))
    return x.to(tl.float8e4nv)


@triton.jit
def quantize_kernel(  # type: ignore[no-untyped-def]
    x, factors, codes, scales, x_stride, features,
    FOLD: tl.constexpr, WIDTH: tl.constexpr, BY_HAND: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < features
    row = tl.load(x + token * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if FOLD:
        row *= tl.load(factors + column, mask=inside, other=0.0)
    scale = row_scale(tl.max(tl.abs(row)))
    tl.store(scales + token, scale)
    tl.store(codes + token * features + column, to_e4m3(row * tl.div_rn(1.0, scale), BY_HAND), mask=inside)


@triton.jit
def transpose_kernel(  # type: ignore[no-untyped-def]
    source, target, rows, columns, source_stride, target_stride, TILE: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * TILE + tl.arange(0, TILE)).to(tl.int64)
    column = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(source + row[:, None] * source_stride + column[None, :], mask=inside, other=0)
    tl.store(target + column[:, None] * target_stride + row[None, :], tl.trans(tile), mask=tl.trans(inside))
