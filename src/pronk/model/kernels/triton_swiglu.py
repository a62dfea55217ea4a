"""SwiGLU as Triton kernels: a program for a stretch of a token's features."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTH = 1024


def forward(both_TG: Tensor) -> Tensor:
    """As `swiglu.swiglu`."""
    tokens, features = both_TG.shape[0], both_TG.shape[1] // 2
    product_TF = torch.empty(tokens, features, dtype=both_TG.dtype, device=both_TG.device)
    grid = (tokens, triton.cdiv(features, WIDTH))
    forward_kernel[grid](both_TG, product_TF, both_TG.stride(0), features, WIDTH=WIDTH)
    return product_TF


def backward_(both_TG: Tensor, slope_TF: Tensor) -> None:
    """As `swiglu.swiglu_backward_`."""
    tokens, features = slope_TF.shape
    grid = (tokens, triton.cdiv(features, WIDTH))
    backward_kernel[grid](both_TG, slope_TF, both_TG.stride(0), slope_TF.stride(0), features, WIDTH=WIDTH)


@triton.jit
def forward_kernel(both, product, stride, features, WIDTH: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < features
    gate = tl.load(both + token * stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + token * stride + features + column, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(product + token * features + column, value.to(product.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(both, slope, stride, slope_stride, features, WIDTH: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < features
    at_gate = both + token * stride + column
    at_slope = slope + token * slope_stride + column
    gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
    dproduct = tl.load(at_slope, mask=inside, other=0.0).to(tl.float32)
    opened = tl.sigmoid(gate)
    silu = gate * opened
    tl.store(at_slope, (silu * up).to(slope.dtype.element_ty), mask=inside)
    dgate = dproduct * up * opened * (1 + gate * (1 - opened))
    tl.store(at_gate, dgate.to(both.dtype.element_ty), mask=inside)
    tl.store(at_gate + features, (dproduct * silu).to(both.dtype.element_ty), mask=inside)
