"""SwiGLU as Triton kernels: a program for a stretch of a token's features, or, where adapters add to them, for
a tile of tokens and features."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels.swiglu import Product

WIDTH = 1024
TILE = {"TOKENS": 16, "FEATURES": 128, "num_warps": 4}  # of several tried on an H200
LEAST_RANKS = 16  # that tensor cores multiply


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


def forward_added(both_TG: Tensor, gate: Product, up: Product) -> Tensor:
    """As `swiglu.swiglu` with what adapters add. The left factors have rows of one stride, the right ones lie dense."""
    tokens, features = both_TG.shape[0], both_TG.shape[1] // 2
    product_TF = torch.empty(tokens, features, dtype=both_TG.dtype, device=both_TG.device)
    assert gate[0].stride() == up[0].stride(), "gate and up have adapters of the same ranks"
    forward_added_kernel[_tiles(tokens, features)](
        both_TG, product_TF, *gate, *up, tokens, both_TG.stride(0), features, gate[0].stride(0),
        **_ranks(gate[0]), **TILE,
    )  # fmt: skip
    return product_TF


def backward_added_(both_TG: Tensor, slope_TF: Tensor, gate: Product, up: Product, slope: Product) -> None:
    """As `swiglu.swiglu_backward_` with what adapters add."""
    tokens, features = slope_TF.shape
    assert gate[0].stride() == up[0].stride(), "gate and up have adapters of the same ranks"
    backward_added_kernel[_tiles(tokens, features)](
        both_TG, slope_TF, *gate, *up, *slope, tokens, both_TG.stride(0), slope_TF.stride(0), features,
        gate[0].stride(0), slope[0].stride(0), **_ranks(gate[0]), **TILE,
    )  # fmt: skip


def _tiles(tokens: int, features: int) -> tuple[int, int]:
    return triton.cdiv(tokens, TILE["TOKENS"]), triton.cdiv(features, TILE["FEATURES"])


def _ranks(left_TR: Tensor) -> dict[str, Any]:
    """How many ranks there are, how many are multiplied, and how."""
    ranks = left_TR.shape[1]
    precision = "ieee" if left_TR.dtype == torch.float32 else "tf32"  # the latter does not touch half precision
    return {"RANKS": ranks, "WIDE": max(triton.next_power_of_2(ranks), LEAST_RANKS), "PRECISION": precision}


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
def _become(at_gate, at_up, at_slope, gate, up, dproduct, inside):
    """The product in the place of slope, the gradients of gate and up in theirs."""
    opened = tl.sigmoid(gate)
    silu = gate * opened
    tl.store(at_slope, (silu * up).to(at_slope.dtype.element_ty), mask=inside)
    dgate = dproduct * up * opened * (1 + gate * (1 - opened))
    tl.store(at_gate, dgate.to(at_gate.dtype.element_ty), mask=inside)
    tl.store(at_up, (dproduct * silu).to(at_up.dtype.element_ty), mask=inside)


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
    _become(at_gate, at_gate + features, at_slope, gate, up, dproduct, inside)


@triton.jit
def _add(
    total, left, right, token, column, tokens, features, stride,
    RANKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rank = tl.arange(0, WIDE)
    known = rank < RANKS
    own = tl.load(left + token[:, None] * stride + rank, mask=(token < tokens)[:, None] & known, other=0.0)
    at = right + rank[:, None].to(tl.int64) * features + column
    other = tl.load(at, mask=known[:, None] & (column < features), other=0.0)
    return tl.dot(own, other, total, input_precision=PRECISION)


@triton.jit
def forward_added_kernel(
    both, product, gate_left, gate_right, up_left, up_right, tokens, stride, features, left_stride,
    RANKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = (token < tokens)[:, None] & (column < features)
    at_gate = both + token[:, None] * stride + column
    gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
    gate = _add(gate, gate_left, gate_right, token, column, tokens, features, left_stride, RANKS, WIDE, PRECISION)
    up = _add(up, up_left, up_right, token, column, tokens, features, left_stride, RANKS, WIDE, PRECISION)
    value = gate * tl.sigmoid(gate) * up
    tl.store(product + token[:, None] * features + column, value.to(product.dtype.element_ty), mask=inside)


@triton.jit
def backward_added_kernel(
    both, slope, gate_left, gate_right, up_left, up_right, slope_left, slope_right, tokens, stride, slope_stride,
    features, left_stride, slope_left_stride,
    RANKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = (token < tokens)[:, None] & (column < features)
    at_gate = both + token[:, None] * stride + column
    at_slope = slope + token[:, None] * slope_stride + column
    gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
    dproduct = tl.load(at_slope, mask=inside, other=0.0).to(tl.float32)
    gate = _add(gate, gate_left, gate_right, token, column, tokens, features, left_stride, RANKS, WIDE, PRECISION)
    up = _add(up, up_left, up_right, token, column, tokens, features, left_stride, RANKS, WIDE, PRECISION)
    dproduct = _add(
        dproduct, slope_left, slope_right, token, column, tokens, features, slope_left_stride, RANKS, WIDE, PRECISION
    )
    _become(at_gate, at_gate + features, at_slope, gate, up, dproduct, inside)
