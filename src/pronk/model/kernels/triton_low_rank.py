"""Low-rank products inside Triton kernels, and one with a residual.

A program takes several tiles of tokens with the same features. It reads what stands on the right of the product once,
and the next tiles while it works on one: that takes a third off the time of a program for each tile.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = {"TOKENS": 16, "FEATURES": 128, "STAGES": 3, "num_warps": 4}  # of several tried on an H200
MOST_TILES, ENOUGH_PROGRAMS = 16, 1024  # one program takes so many tiles, as long as that leaves programs enough
LEAST_RANKS = 16  # that tensor cores multiply


def add_(y_TO: Tensor, left_TR: Tensor, right_RO: Tensor, residual_TO: Tensor) -> None:
    """As `low_rank.add_low_rank_`. The right factor lies dense, all others have rows of one stride."""
    tokens, features = y_TO.shape
    grid, tiles = programs(tokens, features)
    add_kernel[grid](
        y_TO, residual_TO, left_TR, right_RO, tokens, features, y_TO.stride(0), residual_TO.stride(0),
        left_TR.stride(0), TILES=tiles, **ranks(left_TR), **TILE,
    )  # fmt: skip


def programs(tokens: int, features: int) -> tuple[tuple[int, int], int]:
    """The grid, and how many tiles a program takes."""
    rows, columns = triton.cdiv(tokens, TILE["TOKENS"]), triton.cdiv(features, TILE["FEATURES"])
    tiles = min(triton.next_power_of_2(max(rows * columns // ENOUGH_PROGRAMS, 1)), MOST_TILES)
    return (triton.cdiv(rows, tiles), columns), tiles


def ranks(left_TR: Tensor) -> dict[str, Any]:
    """How many ranks there are, how many are multiplied, and how."""
    count = left_TR.shape[1]
    precision = "ieee" if left_TR.dtype == torch.float32 else "tf32"  # the latter does not touch half precision
    return {"RANKS": count, "WIDE": max(triton.next_power_of_2(count), LEAST_RANKS), "PRECISION": precision}


@triton.jit
def left_tile(left, token, stride, tokens, RANKS: tl.constexpr, WIDE: tl.constexpr):
    rank = tl.arange(0, WIDE)
    return tl.load(left + token[:, None] * stride + rank, mask=(token < tokens)[:, None] & (rank < RANKS), other=0.0)


@triton.jit
def right_tile(right, column, features, RANKS: tl.constexpr, WIDE: tl.constexpr):
    rank = tl.arange(0, WIDE)[:, None]
    at = right + rank.to(tl.int64) * features + column
    return tl.load(at, mask=(rank < RANKS) & (column < features), other=0.0)


@triton.jit
def add_kernel(
    y, residual, left, right, tokens, features, y_stride, residual_stride, left_stride,
    RANKS: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr, TOKENS: tl.constexpr, FEATURES: tl.constexpr,
    TILES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    other = right_tile(right, column, features, RANKS, WIDE)
    for tile in tl.range(TILES, num_stages=STAGES):
        token = (tl.program_id(0).to(tl.int64) * TILES + tile) * TOKENS + tl.arange(0, TOKENS)
        inside = (token < tokens)[:, None] & (column < features)
        at = y + token[:, None] * y_stride + column
        total = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        more = tl.load(residual + token[:, None] * residual_stride + column, mask=inside, other=0.0).to(tl.float32)
        own = left_tile(left, token, left_stride, tokens, RANKS, WIDE)
        total = tl.dot(own, other, total + more, input_precision=PRECISION)
        tl.store(at, total.to(y.dtype.element_ty), mask=inside)
