"""Matrices in FP8 (e4m3: 4 bits of exponent, 3 of mantissa, largest 448; Micikevicius et al. 2022,
arXiv:2209.05433), one fp32 scale for each row, and their products.

A value is its code times its row's scale; the scale is the row's largest absolute value / 448. The formula is
the same in every form, so that all give the same codes: x · (1 / scale), each step rounded once.
Shapes: T tokens, I input features, O output features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
# A smaller scale would have an infinite inverse; a row of zeros has this one.
SMALLEST_SCALE = 1e-30
# The tensor cores ask for sides that are multiples of this.
SIDE = 16


class Fp8Rows(NamedTuple):
    """A matrix in FP8: codes_TI float8_e4m3fn, row-major; scale_T fp32, one for each row."""

    codes_TI: Tensor
    scale_T: Tensor

    def dense(self, precision: torch.dtype = torch.float32) -> Tensor:
        """The values (T × I)."""
        return self.codes_TI.to(precision) * self.scale_T.to(precision)[:, None]


def quantize_rows(x_TI: Tensor, scale_I: Tensor | None = None) -> Fp8Rows:
    """Each row in FP8. scale_I: factors of the columns, taken in before (a weight's row scales, folded into the
    gradient that its transpose is multiplied by). A row that is not finite stays not finite."""
    if x_TI.is_cuda:
        from pronk.model.kernels.triton_formats import quantize

        return quantize(x_TI, scale_I)
    return quantize_rows_plain(x_TI, scale_I)


def quantize_rows_plain(x_TI: Tensor, scale_I: Tensor | None = None) -> Fp8Rows:
    """`quantize_rows` in plain PyTorch."""
    x_TI = x_TI.to(torch.promote_types(x_TI.dtype, torch.float32))
    if scale_I is not None:
        x_TI = x_TI * scale_I
    scale_T = row_scales(x_TI.abs().amax(1))
    return Fp8Rows((x_TI * (1 / scale_T.to(x_TI.dtype))[:, None]).to(FP8), scale_T)


def row_scales(largest_T: Tensor) -> Tensor:
    """The scales (fp32) of rows whose largest absolute values are given."""
    return (largest_T / LARGEST).float().clamp(min=SMALLEST_SCALE)


def multiply_rows(
    left: Fp8Rows, codes_OI: Tensor, scale_O: Tensor | None = None, dtype: torch.dtype = torch.bfloat16,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """left · codesᵀ ∘ scale_O (T × O) in `dtype`; scale_O None is one everywhere. codes_OI: float8_e4m3fn, row-major.

    On a GPU the tensor cores multiply, and sum in the precision that they have for FP8 (the result is bf16 on the
    way to another `dtype`); sides must be multiples of 16. out: where the result is copied to.
    """
    if codes_OI.is_cuda:
        y_TO = _tensor_cores(left, codes_OI, scale_O).to(dtype)
    else:
        y_TO = multiply_rows_plain(left, codes_OI, scale_O, dtype)
    return y_TO if out is None else out.copy_(y_TO)


def multiply_rows_plain(
    left: Fp8Rows, codes_OI: Tensor, scale_O: Tensor | None = None, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """`multiply_rows` in plain PyTorch: products of the values in fp32, or better where `dtype` is."""
    precision = torch.promote_types(dtype, torch.float32)
    y_TO = (left.codes_TI.to(precision) @ codes_OI.to(precision).T) * left.scale_T.to(precision)[:, None]
    return (y_TO if scale_O is None else y_TO * scale_O.to(precision)).to(dtype)


def _tensor_cores(left: Fp8Rows, codes_OI: Tensor, scale_O: Tensor | None) -> Tensor:
    """By cuBLASLt (compute capability 9.0 and CUDA 12.9) or CUTLASS, as PyTorch chooses. Without fast
    accumulation Hopper adds up in fp32 registers outside the tensor cores, which costs more than it mends here:
    the codes have 4 significant bits, the fast sums about 14."""
    from torch.nn.functional import ScalingType, scaled_mm

    if scale_O is None:
        scale_O = torch.ones(len(codes_OI), dtype=torch.float32, device=codes_OI.device)
    by_row = ScalingType.RowWise
    return scaled_mm(
        left.codes_TI, codes_OI.T, left.scale_T[:, None], by_row, scale_O[None], by_row,
        output_dtype=torch.bfloat16, use_fast_accum=True,
    )  # fmt: skip


def transpose_codes(codes_OI: Tensor, out: Tensor | None = None) -> Tensor:
    """Codes in the other layout: I × O, row-major. out: may be columns of a wider matrix."""
    if out is None:
        out = codes_OI.new_empty(codes_OI.shape[1], codes_OI.shape[0])
    if codes_OI.is_cuda:
        from pronk.model.kernels.triton_formats import transpose

        transpose(codes_OI, out)
    else:
        out.view(torch.uint8).copy_(codes_OI.view(torch.uint8).T)
    return out
