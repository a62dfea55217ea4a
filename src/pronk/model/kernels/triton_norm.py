"""RMSNorm as Triton kernels: a program for each token, which reads its row once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels.fp8 import FP8, Fp8Rows
from pronk.model.kernels.triton_formats import BY_HAND, row_scale, to_e4m3


def forward(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """As `norm.rms_norm`. x: rows may lie apart, features side by side."""
    y_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype, device=x_TD.device)
    tokens, features = x_TD.shape
    forward_kernel[(tokens,)](x_TD, weight_D, y_TD, x_TD.stride(0), features, eps, **_launch(features))
    return y_TD


def forward_fp8(x_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Fp8Rows]:
    """As `norm.rms_norm_fp8`."""
    y_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype, device=x_TD.device)
    codes_TD = torch.empty(x_TD.shape, dtype=FP8, device=x_TD.device)
    tokens, features = x_TD.shape
    scale_T = torch.empty(tokens, dtype=torch.float32, device=x_TD.device)
    forward_fp8_kernel[(tokens,)](
        x_TD, weight_D, y_TD, codes_TD, scale_T, x_TD.stride(0), features, eps, BY_HAND=BY_HAND, **_launch(features)
    )
    return y_TD, Fp8Rows(codes_TD, scale_T)


def backward(
    dy_TD: Tensor, x_TD: Tensor, weight_D: Tensor, eps: float, residual_TD: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `norm.rms_norm_backward`."""
    dx_TD, y_TD = (torch.empty(x_TD.shape, dtype=x_TD.dtype, device=x_TD.device) for _ in range(2))
    tokens, features = x_TD.shape
    residual = dy_TD if residual_TD is None else residual_TD
    backward_kernel[(tokens,)](
        dy_TD, x_TD, weight_D, residual, dx_TD, y_TD, dy_TD.stride(0), x_TD.stride(0), residual.stride(0),
        features, eps, ADD=residual_TD is not None, **_launch(features),
    )  # fmt: skip
    return dx_TD, y_TD


def _launch(features: int) -> dict[str, Any]:
    width = triton.next_power_of_2(features)
    return {"WIDTH": width, "num_warps": min(max(width // 512, 1), 16)}


@triton.jit
def _store_norm(x, weight, y, token, column, inside, x_stride, features, eps):
    """The norm of a token, stored; as it is then, rounded."""
    row = tl.load(x + token * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(row * row) / features + eps)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    rounded = (row * scale * gain).to(y.dtype.element_ty)
    tl.store(y + token * features + column, rounded, mask=inside)
    return rounded


@triton.jit
def forward_kernel(x, weight, y, x_stride, features, eps, WIDTH: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    _store_norm(x, weight, y, token, column, column < features, x_stride, features, eps)


@triton.jit
def forward_fp8_kernel(
    x, weight, y, codes, scales, x_stride, features, eps, WIDTH: tl.constexpr, BY_HAND: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < features
    value = _store_norm(x, weight, y, token, column, inside, x_stride, features, eps).to(tl.float32)
    step = row_scale(tl.max(tl.abs(value)))
    tl.store(scales + token, step)
    tl.store(codes + token * features + column, to_e4m3(value * tl.div_rn(1.0, step), BY_HAND), mask=inside)


@triton.jit
def backward_kernel(
    dy, x, weight, residual, dx, y, dy_stride, x_stride, residual_stride, features, eps,
    ADD: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < features
    row = tl.load(x + token * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(dy + token * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(row * row) / features + eps)
    unit = row * scale
    tl.store(y + token * features + column, (unit * gain).to(y.dtype.element_ty), mask=inside)
    slope *= gain
    out = scale * (slope - unit * (tl.sum(slope * unit) / features))
    if ADD:
        out += tl.load(residual + token * residual_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + token * features + column, out.to(dx.dtype.element_ty), mask=inside)
