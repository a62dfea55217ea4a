"""SwiGLU as Triton kernels: a program for a stretch of a token's features, or, where adapters add to them, for
a tile of tokens and features."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTH = 1024
TILE = {"TOKENS": 16, "FEATURES": 128, "num_warps": 4}  # of several tried on an H200
RANKS = 16  # of a product that are multiplied at once, the least that tensor cores take


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


def forward_added(both_TG: Tensor, gate: tuple[Tensor, Tensor], up: tuple[Tensor, Tensor]) -> Tensor:
    """As `swiglu.swiglu` with what adapters add. The left factors have rows of one stride, the right ones lie dense."""
    tokens, features = both_TG.shape[0], both_TG.shape[1] // 2
    product_TF = torch.empty(tokens, features, dtype=both_TG.dtype, device=both_TG.device)
    assert gate[0].stride() == up[0].stride(), "gate and up have adapters of the same ranks"
    forward_added_kernel[_tiles(tokens, features)](
        both_TG, product_TF, gate[0], gate[1], up[0], up[1], tokens, both_TG.stride(0), features, gate[0].stride(0),
        RANK=gate[0].shape[1], STEP=RANKS, PRECISION=_precision(both_TG), **TILE,
    )  # fmt: skip
    return product_TF


def backward_added_(both_TG: Tensor, slope_TF: Tensor, left_TR: Tensor, right_RF: Tensor) -> None:
    """As `swiglu.swiglu_backward_` with what adapters add."""
    tokens, features = slope_TF.shape
    backward_added_kernel[_tiles(tokens, features)](
        both_TG, slope_TF, left_TR, right_RF, tokens, both_TG.stride(0), slope_TF.stride(0), features,
        left_TR.stride(0), RANK=left_TR.shape[1], STEP=RANKS, PRECISION=_precision(both_TG), **TILE,
    )  # fmt: skip


def _tiles(tokens: int, features: int) -> tuple[int, int]:
    return triton.cdiv(tokens, TILE["TOKENS"]), triton.cdiv(features, TILE["FEATURES"])


def _precision(tensor: Tensor) -> str:
    return "ieee" if tensor.dtype == torch.float32 else "tf32"  # the latter does not touch half precision


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


@triton.jit
def _add(
    total, left, right, token, column, tokens, features, stride,
    RANK: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    for first in range(0, RANK, STEP):
        rank = first + tl.arange(0, STEP)
        known = rank < RANK
        own = tl.load(left + token[:, None] * stride + rank, mask=(token < tokens)[:, None] & known, other=0.0)
        at = right + rank[:, None].to(tl.int64) * features + column
        other = tl.load(at, mask=known[:, None] & (column < features), other=0.0)
        total = tl.dot(own, other, total, input_precision=PRECISION)
    return total


@triton.jit
def forward_added_kernel(
    both, product, gate_left, gate_right, up_left, up_right, tokens, stride, features, left_stride,
    RANK: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = (token < tokens)[:, None] & (column < features)
    at_gate = both + token[:, None] * stride + column
    gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
    gate = _add(gate, gate_left, gate_right, token, column, tokens, features, left_stride, RANK, STEP, PRECISION)
    up = _add(up, up_left, up_right, token, column, tokens, features, left_stride, RANK, STEP, PRECISION)
    # as they will be read in the backward pass
    gate_kept, up_kept = gate.to(both.dtype.element_ty), up.to(both.dtype.element_ty)
    tl.store(at_gate, gate_kept, mask=inside)
    tl.store(at_gate + features, up_kept, mask=inside)
    gate = gate_kept.to(tl.float32)
    value = gate * tl.sigmoid(gate) * up_kept.to(tl.float32)
    tl.store(product + token[:, None] * features + column, value.to(product.dtype.element_ty), mask=inside)


@triton.jit
def backward_added_kernel(
    both, slope, left, right, tokens, stride, slope_stride, features, left_stride,
    RANK: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = (token < tokens)[:, None] & (column < features)
    at_gate = both + token[:, None] * stride + column
    at_slope = slope + token[:, None] * slope_stride + column
    gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
    dproduct = tl.load(at_slope, mask=inside, other=0.0).to(tl.float32)
    dproduct = _add(dproduct, left, right, token, column, tokens, features, left_stride, RANK, STEP, PRECISION)
    opened = tl.sigmoid(gate)
    silu = gate * opened
    tl.store(at_slope, (silu * up).to(slope.dtype.element_ty), mask=inside)
    dgate = dproduct * up * opened * (1 + gate * (1 - opened))
    tl.store(at_gate, dgate.to(both.dtype.element_ty), mask=inside)
    tl.store(at_gate + features, (dproduct * silu).to(both.dtype.element_ty), mask=inside)
