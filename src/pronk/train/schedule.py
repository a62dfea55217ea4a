"""The learning rate at a step, as a factor of its peak; the forms are those of transformers."""

from __future__ import annotations

import math


def rate_factor(schedule: str, step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor for the update number `step` (from 0) of `total_steps`.

    The factor rises linearly from 0 over warmup_steps, then stays (constant), falls linearly to 0
    (linear) or along half a cosine to 0 (cosine; Loshchilov and Hutter 2017, arXiv:1608.03983).
    """
    if step < warmup_steps:
        return step / warmup_steps
    if schedule in ("constant", "constant_with_warmup"):
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if schedule == "linear":
        return max(0.0, 1 - progress)
    if schedule == "cosine":
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
    raise ValueError(f"no schedule is named {schedule}")
