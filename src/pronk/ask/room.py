"""Whether bases that stay in memory together fit, and how long a wait for an answer will be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pronk.errors import OutOfMemoryError
from pronk.recipe import Recipe

BYTES = {"nf4": 0.52, "int8": 1.0, "fp8": 1.0}  # of a weight in a linear layer, scales included
SLOW = 1.0  # seconds for a token that are worth a warning
PROBE = 2**26  # bytes that are read to learn how fast a processor reads


def check_room(bases: Sequence[tuple[Any, Recipe]]) -> None:
    """Raise OutOfMemoryError where the weights of all bases together exceed the memory that is free."""
    from pronk.model.load import resolve_device
    from pronk.model.memory.sizes import available, gib, machine_memory

    needed: dict[Any, list[tuple[str, float]]] = {}
    for base, recipe in bases:
        needed.setdefault(resolve_device(recipe.train.device), []).append((base.name, weight_bytes(base, recipe)))
    for device, sizes in needed.items():
        on_gpu = device.type == "cuda"
        free = available(device) if on_gpu else machine_memory()[1]
        if free is not None and sum(size for _, size in sizes) > free:
            listed = ", ".join(f"{name} {gib(size)} GiB" for name, size in sizes)
            place = "the GPU" if on_gpu else "this machine"
            advice = "runs over one base" if len(sizes) > 1 else "a smaller base"
            raise OutOfMemoryError(
                f"the weights alone ({listed}) are more than the {gib(free)} GiB of memory that are free on {place}; "
                f"what helps: {advice}, or --set quantize=nf4"
            )


def weight_bytes(base: Any, recipe: Recipe) -> float:
    """Bytes of a base's weights as its recipe keeps them; only its configuration is read."""
    from pronk.model.load import linear_layer_sizes, outline, resolve_device, resolve_dtype

    size = resolve_dtype(recipe.train.dtype, resolve_device(recipe.train.device)).itemsize
    whole = sum(parameter.numel() for parameter in outline(base).parameters())
    linear = sum(inputs * outputs for inputs, outputs in linear_layer_sizes(base).values())
    return (whole - linear) * size + linear * BYTES.get(recipe.quantize, size)


def patience(base: Any, recipe: Recipe, tokens: int) -> str | None:
    """A warning about how long an answer of so many tokens takes, if that is long: without a GPU every token reads
    all weights once, at the speed of this machine's memory, which is measured."""
    from pronk.model.load import resolve_device

    if resolve_device(recipe.train.device).type == "cuda":
        return None
    size = weight_bytes(base, recipe)
    seconds = size / _bytes_per_second() if size > PROBE * 16 else 0.0
    if seconds < SLOW:
        return None
    return (
        f"{base.name} has {size / 2**30:.0f} GiB of weights and there is no GPU: about {seconds:.0f} s for a token, "
        f"{seconds * tokens / 60:.0f} minutes for an answer of {tokens}; a smaller --max-new-tokens or base helps"
    )


def _bytes_per_second() -> float:
    import torch

    probe = torch.ones(PROBE // 4)
    best = min(_seconds(probe) for _ in range(3))
    return PROBE / best


def _seconds(probe: Any) -> float:
    began = time.perf_counter()
    probe.sum().item()
    return max(time.perf_counter() - began, 1e-9)
