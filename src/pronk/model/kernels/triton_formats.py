"""The formats of a base as Triton kernels: rows to FP8, FP8 bytes transposed, NF4 to dense or FP8 numbers.

Each number is read once and written once; what is written transposed goes through a tile, so that reads and
writes both take whole lines of memory. NF4 is launched without fused multiply-adds: bitsandbytes rounds
code · scale before it adds the offset, and so do we.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels import fp8, nf4
from pronk.model.kernels.fp8 import FP8, Fp8Rows
from pronk.model.kernels.nf4 import NF4, levels

LARGEST = tl.constexpr(fp8.LARGEST)
SMALLEST_SCALE = tl.constexpr(fp8.SMALLEST_SCALE)
BLOCK = tl.constexpr(nf4.BLOCK)
BYTES = tl.constexpr(nf4.BLOCK // 2)  # of a block
SCALE_BLOCK = tl.constexpr(nf4.SCALE_BLOCK)
FLAT_BLOCKS = 64  # of a program, where rows are written as they are read
TILE_ROWS, TILE_BLOCKS = 128, 2  # of a program, where they are written transposed: 128 × 128 numbers
# Triton's interpreter (3.6) rounds to float8 half up, and loses the carry; under it we round by hand before.
BY_HAND = bool(triton.knobs.runtime.interpret)
TILE = 128


def quantize(x_TI: Tensor, scale_I: Tensor | None) -> Fp8Rows:
    """As `fp8.quantize_rows`."""
    if x_TI.stride(1) != 1:  # a gradient that is one number for all, say
        x_TI = x_TI.contiguous()
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


def dense_nf4(weight: NF4, out: Tensor | None) -> Tensor:
    """As `nf4.dense`."""
    if out is None:
        out = torch.empty(weight.shape, dtype=weight.stored, device=weight.packed.device)
    assert out.is_contiguous()
    if out.dtype != weight.stored:  # rounded to the stored type first, as everywhere
        return out.copy_(dense_nf4(weight, None))
    _flat(weight, out, weight.scales, False)
    return out


def nf4_to_fp8(weight: NF4, scale_O: Tensor, transposed: bool, out: Tensor | None) -> Tensor:
    """As `nf4.fp8_codes`, for rows of whole blocks."""
    rows, columns = weight.shape
    if out is None:
        out = torch.empty((columns, rows) if transposed else (rows, columns), dtype=FP8, device=weight.packed.device)
    if not transposed:
        assert out.is_contiguous()
        _flat(weight, out, scale_O, True)
        return out
    blocks = columns // nf4.BLOCK
    grid = (triton.cdiv(blocks, TILE_BLOCKS), triton.cdiv(rows, TILE_ROWS))
    transposed_kernel[grid](
        *_tensors(weight), scale_O, out.view(torch.uint8), rows, blocks, out.stride(0),
        NESTED=weight.nested is not None, ROWS=TILE_ROWS, BLOCKS=TILE_BLOCKS, BY_HAND=BY_HAND,
        num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def _flat(weight: NF4, out: Tensor, scale_O: Tensor, to_fp8: bool) -> None:
    count = weight.shape.numel()
    flat_kernel[(triton.cdiv(count, FLAT_BLOCKS * nf4.BLOCK),)](
        *_tensors(weight), scale_O, out, count, max(weight.shape[1] // nf4.BLOCK, 1),
        NESTED=weight.nested is not None, FP8=to_fp8, WHOLE=count % nf4.BLOCK == 0, BLOCKS=FLAT_BLOCKS, BY_HAND=BY_HAND,
        enable_fp_fusion=False,
    )  # fmt: skip


def _tensors(weight: NF4) -> tuple[Any, ...]:
    """What the kernels read; without nested scales the last three are there for their places only."""
    return weight.packed, levels(weight.packed.device), weight.scales, *(weight.nested or [weight.scales] * 3)


@triton.jit
def row_scale(largest):
    """The scale of a row whose largest absolute value (fp32) is given; as `fp8.row_scales`."""
    return tl.maximum(tl.div_rn(largest, LARGEST), SMALLEST_SCALE)


@triton.jit
def to_e4m3(x, BY_HAND: tl.constexpr):
    """fp32 (at most 464 from zero, or NaN) to the nearest float8_e4m3fn, ties to even."""
    if BY_HAND:
        # normal numbers: round the lowest 20 of 23 bits away; below 2^-6 the step is 2^-9, that of fp32 near 1.5 · 2^14
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        x = tl.where(tl.abs(x) < 0.015625, (x + 24576.0) - 24576.0, bits.to(tl.float32, bitcast=True))
    return x.to(tl.float8e4nv)


@triton.jit
def quantize_kernel(
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
def transpose_kernel(
    source, target, rows, columns, source_stride, target_stride, TILE: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * TILE + tl.arange(0, TILE)).to(tl.int64)
    column = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(source + row[:, None] * source_stride + column[None, :], mask=inside, other=0)
    tl.store(target + column[:, None] * target_stride + row[None, :], tl.trans(tile), mask=tl.trans(inside))


@triton.jit
def block_scales(scales, outer, code, offset, block, inside, NESTED: tl.constexpr):
    """The scales of blocks, fp32."""
    scale = tl.load(scales + block, mask=inside, other=0)
    if NESTED:
        number = tl.load(code + scale.to(tl.int32))
        scale = number * tl.load(outer + block // SCALE_BLOCK, mask=inside, other=0.0) + tl.load(offset)
    return scale


@triton.jit
def unpacked(byte, table):
    """The two numbers of each byte (fp32), side by side along the last axis."""
    return tl.interleave(tl.load(table + (byte >> 4).to(tl.int32)), tl.load(table + (byte & 15).to(tl.int32)))


@triton.jit
def flat_kernel(
    packed, table, scales, outer, code, offset, row_scales, out, count, blocks_in_row,
    NESTED: tl.constexpr, FP8: tl.constexpr, WHOLE: tl.constexpr, BLOCKS: tl.constexpr, BY_HAND: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    inside = block * BLOCK < count
    scale = block_scales(scales, outer, code, offset, block, inside, NESTED)
    place = block[:, None] * BYTES + tl.arange(0, BYTES)[None, :]
    # a mask of whole blocks lets a thread read 16 bytes at once
    byte = tl.load(packed + place, mask=inside[:, None] if WHOLE else place * 2 < count, other=0)
    number = unpacked(byte, table) * scale[:, None]
    place = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    within = inside[:, None] if WHOLE else place < count
    if FP8:
        inverse = tl.div_rn(1.0, tl.load(row_scales + block // blocks_in_row, mask=inside, other=1.0))
        tl.store(out + place, to_e4m3(number * inverse[:, None], BY_HAND), mask=within)
    else:
        tl.store(out + place, number.to(out.dtype.element_ty), mask=within)


@triton.jit
def transposed_kernel(
    packed, table, scales, outer, code, offset, row_scales, out, rows, blocks_in_row, out_stride,
    NESTED: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr, BY_HAND: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column_block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    inside = (row < rows)[:, None] & (column_block < blocks_in_row)[None, :]
    block = row[:, None] * blocks_in_row + column_block[None, :]
    scale = block_scales(scales, outer, code, offset, block, inside, NESTED)
    inverse = tl.div_rn(1.0, tl.load(row_scales + row, mask=row < rows, other=1.0))
    place = block[:, :, None] * BYTES + tl.arange(0, BYTES)[None, None, :]
    byte = tl.load(packed + place, mask=inside[:, :, None], other=0)
    number = unpacked(byte, table) * scale[:, :, None] * inverse[:, None, None]
    tile = tl.reshape(to_e4m3(number, BY_HAND).to(tl.uint8, bitcast=True), (ROWS, BLOCKS * BLOCK))
    column = tl.program_id(0).to(tl.int64) * BLOCKS * BLOCK + tl.arange(0, BLOCKS * BLOCK)
    within = (column < blocks_in_row * BLOCK)[:, None] & (row < rows)[None, :]
    tl.store(out + column[:, None] * out_stride + row[None, :], tl.trans(tile), mask=within)
