"""How fast matrix products can be here: the ceiling under which a training step works."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor

SECONDS = {"cuda": 1.5, "cpu": 0.2}  # under load a GPU's clock falls within a second; a CPU's figure is a formality


def gemm_rate(layers: Iterable[tuple[int, int]], tokens: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP a second of the products x Wᵀ and dy W over layers of (input, output) features, in turn, with random
    numbers (zeros draw less power and so run at a higher clock). Sustained: the last two thirds of `SECONDS` count."""
    sets = [_operands(sizes, tokens, dtype, device) for sizes in layers]
    work = sum(4 * tokens * weight.numel() for _, _, weight in sets)
    third = SECONDS[device.type] / 3
    _repeat(sets, third, device)
    rounds, seconds = _repeat(sets, 2 * third, device)
    return work * rounds / seconds


def _operands(sizes: tuple[int, int], tokens: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    features, outputs = sizes
    shapes = ((tokens, features), (tokens, outputs), (outputs, features))
    return tuple(torch.randn(shape, dtype=dtype, device=device) for shape in shapes)


def _repeat(sets: list[tuple[Tensor, ...]], seconds: float, device: torch.device) -> tuple[int, float]:
    """Rounds over all products for at least so long, and how long they took."""
    _wait(device)
    rounds, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(4):  # a few between two looks at the clock, so that a GPU never runs dry
            for x_TI, dy_TO, weight_OI in sets:
                torch.mm(x_TI, weight_OI.T)
                torch.mm(dy_TO, weight_OI)
            rounds += 1
        _wait(device)
    return rounds, time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
