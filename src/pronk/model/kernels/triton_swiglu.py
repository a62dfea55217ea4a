"""SwiGLU as Triton kernels: a program for a stretch of a token's features, or, where adapters add to them, for
several tiles of tokens with the same features. It reads what stands on the right of the adapters' products once, and
the next tiles while it works on one: that takes a third off the time of a program for each tile."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels.swiglu import Product
from pronk.model.kernels.triton_low_rank import TILE, left_tile, programs, ranks, right_tile

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


def forward_added(both_TG: Tensor, gate: Product, up: Product) -> Tensor:
    """As `swiglu.swiglu` with what adapters add. The left factors have rows of one stride, the right ones lie dense."""
    tokens, features = both_TG.shape[0], both_TG.shape[1] // 2
    product_TF = torch.empty(tokens, features, dtype=both_TG.dtype, device=both_TG.device)
    assert gate[0].stride() == up[0].stride(), "gate and up have adapters of the same ranks"
    grid, tiles = programs(tokens, features)
    forward_added_kernel[grid](
        both_TG, product_TF, *gate, *up, tokens, both_TG.stride(0), features, gate[0].stride(0),
        TILES=tiles, **ranks(gate[0]), **TILE,
    )  # fmt: skip
    return product_TF


def backward_added_(both_TG: Tensor, slope_TF: Tensor, gate: Product, up: Product, slope: Product) -> None:
    """As `swiglu.swiglu_backward_` with what adapters add."""
    tokens, features = slope_TF.shape
    assert gate[0].stride() == up[0].stride(), "gate and up have adapters of the same ranks"
    grid, tiles = programs(tokens, features)
    backward_added_kernel[grid](
        both_TG, slope_TF, *gate, *up, *slope, tokens, both_TG.stride(0), slope_TF.stride(0), features,
        gate[0].stride(0), slope[0].stride(0), TILES=tiles, **ranks(gate[0]), **TILE,
    )  # fmt: skip


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
def forward_added_kernel(
    both, product, gate_left, gate_right, up_left, up_right, tokens, stride, features, left_stride,
    RANKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
    TILES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    for_gate = right_tile(gate_right, column, features, RANKS, WIDE)
    for_up = right_tile(up_right, column, features, RANKS, WIDE)
    for tile in tl.range(TILES, num_stages=STAGES):
        token = (tl.program_id(0).to(tl.int64) * TILES + tile) * TOKENS + tl.arange(0, TOKENS)
        inside = (token < tokens)[:, None] & (column < features)
        at_gate = both + token[:, None] * stride + column
        gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
        own_gate = left_tile(gate_left, token, left_stride, tokens, RANKS, WIDE)
        own_up = left_tile(up_left, token, left_stride, tokens, RANKS, WIDE)
        gate = tl.dot(own_gate, for_gate, gate, input_precision=PRECISION)
        up = tl.dot(own_up, for_up, up, input_precision=PRECISION)
        value = gate * tl.sigmoid(gate) * up
        tl.store(product + token[:, None] * features + column, value.to(product.dtype.element_ty), mask=inside)


@triton.jit
def backward_added_kernel(
    both, slope, gate_left, gate_right, up_left, up_right, slope_left, slope_right, tokens, stride, slope_stride,
    features, left_stride, slope_left_stride,
    RANKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
    TILES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    for_gate = right_tile(gate_right, column, features, RANKS, WIDE)
    for_up = right_tile(up_right, column, features, RANKS, WIDE)
    for_slope = right_tile(slope_right, column, features, RANKS, WIDE)
    for tile in tl.range(TILES, num_stages=STAGES):
        token = (tl.program_id(0).to(tl.int64) * TILES + tile) * TOKENS + tl.arange(0, TOKENS)
        inside = (token < tokens)[:, None] & (column < features)
        at_gate = both + token[:, None] * stride + column
        at_slope = slope + token[:, None] * slope_stride + column
        gate = tl.load(at_gate, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(at_gate + features, mask=inside, other=0.0).to(tl.float32)
        dproduct = tl.load(at_slope, mask=inside, other=0.0).to(tl.float32)
        own_gate = left_tile(gate_left, token, left_stride, tokens, RANKS, WIDE)
        own_up = left_tile(up_left, token, left_stride, tokens, RANKS, WIDE)
        own_slope = left_tile(slope_left, token, slope_left_stride, tokens, RANKS, WIDE)
        gate = tl.dot(own_gate, for_gate, gate, input_precision=PRECISION)
        up = tl.dot(own_up, for_up, up, input_precision=PRECISION)
        dproduct = tl.dot(own_slope, for_slope, dproduct, input_precision=PRECISION)
        _become(at_gate, at_gate + features, at_slope, gate, up, dproduct, inside)
