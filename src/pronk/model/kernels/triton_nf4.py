"""NF4 to dense or FP8 numbers as Triton kernels: each byte is read once and each number written once.

Launched without fused multiply-adds: bitsandbytes rounds code · scale before it adds the offset, and so do we.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels import nf4
from pronk.model.kernels.fp8 import FP8
from pronk.model.kernels.nf4 import NF4, levels
from pronk.model.kernels.triton_fp8 import BY_HAND, to_e4m3

BLOCK = tl.constexpr(nf4.BLOCK)
BYTES = tl.constexpr(nf4.BLOCK // 2)  # of a block
SCALE_BLOCK = tl.constexpr(nf4.SCALE_BLOCK)
BLOCKS = 64  # of a program, where rows are written as they are read
TILE_ROWS, TILE_BLOCKS = 128, 2  # of a program, where they are written transposed: 128 × 128 numbers


def dense(weight: NF4, out: Tensor | None) -> Tensor:
    """As `nf4.dense`."""
    if out is None:
        out = torch.empty(weight.shape, dtype=weight.stored, device=weight.packed.device)
    assert out.is_contiguous()
    if out.dtype != weight.stored:  # rounded to the stored type first, as everywhere
        return out.copy_(dense(weight, None))
    _flat(weight, out, weight.scales, False)
    return out


def fp8_codes(weight: NF4, scale_O: Tensor, transposed: bool, out: Tensor | None) -> Tensor:
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
    flat_kernel[(triton.cdiv(count, BLOCKS * nf4.BLOCK),)](
        *_tensors(weight), scale_O, out, count, max(weight.shape[1] // nf4.BLOCK, 1),
        NESTED=weight.nested is not None, FP8=to_fp8, WHOLE=count % nf4.BLOCK == 0, BLOCKS=BLOCKS, BY_HAND=BY_HAND,
        enable_fp_fusion=False,
    )  # fmt: skip


def _tensors(weight: NF4) -> tuple[Any, ...]:
    """What the kernels read; without nested scales the last three are there for their places only."""
    return weight.packed, levels(weight.packed.device), weight.scales, *(weight.nested or [weight.scales] * 3)


@triton.jit
def block_scales(scales, outer, code, offset, block, inside, NESTED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The scales of blocks, fp32."""
    scale = tl.load(scales + block, mask=inside, other=0)
    if NESTED:
        number = tl.load(code + scale.to(tl.int32))
        scale = number * tl.load(outer + block // SCALE_BLOCK, mask=inside, other=0.0) + tl.load(offset)
    return scale


@triton.jit
def unpacked(byte, table):  # type: ignore[no-untyped-def]
    """The two numbers of each byte (fp32), side by side along the last axis."""
    return tl.interleave(tl.load(table + (byte >> 4).to(tl.int32)), tl.load(table + (byte & 15).to(tl.int32)))


@triton.jit
def flat_kernel(  # type: ignore[no-untyped-def]
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
def transposed_kernel(  # type: ignore[no-untyped-def]
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
