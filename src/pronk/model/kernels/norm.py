"""RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): y = x / sqrt(mean(x²) + eps) · w.

Statistics are in fp32, or better where x is; the result is rounded once.
Shapes: T tokens, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pronk.model.kernels.fp8 import Fp8Rows, quantize_rows_plain


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """The norm of each token, in the type of x (T × D)."""
    if x_TD.is_cuda:
        from pronk.model.kernels.triton_norm import forward

        return forward(x_TD, weight_D, eps)
    return rms_norm_plain(x_TD, weight_D, eps)


def rms_norm_fp8(x_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Fp8Rows]:
    """The norm of each token, and the same in FP8: what `fp8.quantize_rows` makes of it, without reading it again."""
    if x_TD.is_cuda:
        from pronk.model.kernels.triton_norm import forward_fp8

        return forward_fp8(x_TD, weight_D, eps)
    y_TD = rms_norm_plain(x_TD, weight_D, eps)
    return y_TD, quantize_rows_plain(y_TD)


def rms_norm_backward(
    dy_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The gradient of x, and the norm once more, from one reading of x. residual: a gradient to be added.

    The weight is frozen and gets none.
    """
    if x_TD.is_cuda:
        from pronk.model.kernels.triton_norm import backward

        return backward(dy_TD, x_TD, weight_D, eps, residual_TD)
    return rms_norm_backward_plain(dy_TD, x_TD, weight_D, eps, residual_TD)


def rms_norm_plain(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`rms_norm` in plain PyTorch."""
    precision = torch.promote_types(x_TD.dtype, torch.float32)
    wide_TD = x_TD.to(precision)
    return (wide_TD * _scale(wide_TD, eps) * weight_D.to(precision)).to(x_TD.dtype)


def rms_norm_backward_plain(
    dy_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`rms_norm_backward` in plain PyTorch."""
    precision = torch.promote_types(x_TD.dtype, torch.float32)
    wide_TD, weight_D = x_TD.to(precision), weight_D.to(precision)
    scale_T1 = _scale(wide_TD, eps)
    unit_TD = wide_TD * scale_T1
    slope_TD = dy_TD.to(precision) * weight_D
    dx_TD = scale_T1 * (slope_TD - unit_TD * (slope_TD * unit_TD).mean(-1, keepdim=True))
    if residual_TD is not None:
        dx_TD = dx_TD + residual_TD.to(precision)
    return dx_TD.to(x_TD.dtype), (unit_TD * weight_D).to(x_TD.dtype)


def _scale(x_TD: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(x_TD.square().mean(-1, keepdim=True) + eps)
