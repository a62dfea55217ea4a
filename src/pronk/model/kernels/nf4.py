"""NF4 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314) to dense numbers, or straight to FP8 in either layout.

A weight is one of 16 numbers, named by 4 bits, times the scale of its block of 64. Where the scales are
quantized too, a scale is one of 256 numbers times the scale of its block of 256 scales, plus an offset.
In FP8 each row has one scale, from the largest of its blocks; forward and backward see the same codes.
Shapes: O output features, I input features.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pronk.model.kernels.fp8 import FP8, row_scales

BLOCK = 64  # weights that share a scale, along the rows laid end to end
SCALE_BLOCK = 256  # scales that share a scale
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class Nested(NamedTuple):
    """How scales that are quantized too become numbers: code[scale] · scales of 256 + offset (all fp32)."""

    scales: Tensor
    code: Tensor
    offset: Tensor


class NF4(NamedTuple):
    """A matrix (shape O × I) in NF4. packed: uint8, two weights a byte, the earlier in the high half; scales:
    of each block, fp32, or uint8 where they are quantized; stored: the dense type."""

    packed: Tensor
    scales: Tensor
    nested: Nested | None
    shape: torch.Size
    stored: torch.dtype


def block_scales(weight: NF4) -> Tensor:
    """The scale of each block, fp32."""
    if weight.nested is None:
        return weight.scales
    of_each = weight.nested.scales.repeat_interleave(SCALE_BLOCK)[: weight.scales.numel()]
    return weight.nested.code[weight.scales.long()] * of_each + weight.nested.offset


def fp8_scales(weight: NF4) -> Tensor:
    """One scale for each row's FP8 codes (fp32, O): the largest of its blocks / 448."""
    scales, (rows, columns) = block_scales(weight).abs(), weight.shape
    if columns % BLOCK:  # blocks reach over the ends of rows
        scales = scales.repeat_interleave(BLOCK)[: rows * columns]
    return row_scales(scales.view(rows, -1).amax(1))


def dense(weight: NF4, out: Tensor | None = None) -> Tensor:
    """The dense matrix (O × I) in its stored type, or in `out`: contiguous, of any float type."""
    if weight.packed.is_cuda:
        from pronk.model.kernels.triton_formats import dense_nf4

        return dense_nf4(weight, out)
    return dense_plain(weight, out)


def dense_plain(weight: NF4, out: Tensor | None = None) -> Tensor:
    """`dense` in plain PyTorch."""
    return _values(weight).to(weight.stored) if out is None else out.copy_(_values(weight).to(weight.stored))


def fp8_codes(weight: NF4, scale_O: Tensor, transposed: bool = False, out: Tensor | None = None) -> Tensor:
    """FP8 codes under the rows' scales, row-major: O × I, or transposed I × O. out: for the transposed it may be
    columns of a wider matrix."""
    if weight.packed.is_cuda and weight.shape[1] % BLOCK == 0:
        from pronk.model.kernels.triton_formats import nf4_to_fp8

        return nf4_to_fp8(weight, scale_O, transposed, out)
    return fp8_codes_plain(weight, scale_O, transposed, out)


def fp8_codes_plain(weight: NF4, scale_O: Tensor, transposed: bool = False, out: Tensor | None = None) -> Tensor:
    """`fp8_codes` in plain PyTorch."""
    codes = (_values(weight) * (1 / scale_O)[:, None]).to(FP8)
    codes = codes.T.contiguous() if transposed else codes
    return codes if out is None else out.copy_(codes)


def _values(weight: NF4) -> Tensor:
    """The matrix in fp32."""
    pairs = torch.stack([weight.packed.view(-1) >> 4, weight.packed.view(-1) & 15], dim=1)
    count = weight.shape.numel()
    scales = block_scales(weight).repeat_interleave(BLOCK)[:count]
    return (levels(weight.packed.device)[pairs.view(-1)[:count].long()] * scales).view(weight.shape)


@cache
def levels(device: torch.device) -> Tensor:
    """The 16 numbers of NF4 (fp32) on a device."""
    return torch.tensor(LEVELS, device=device)
