"""What every side of a bench is given, and what it gives back, as JSON files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Work:
    """The same steps for every side. examples: [ids, which of them are learned (true or false for each)].

    What only pronk reads: recipe (the run's, for how the base is loaded), runs, ceiling, token_budget. What only
    peers read: layout, liger.
    """

    base: str
    examples: list[Any]
    batch_size: int
    seed: int
    steps: int
    rank: int
    alpha: float
    targets: str | list[str]
    learning_rate: float
    clip: float | None
    weight_decay: float
    dtype: Literal["fp32", "bf16"]
    device: str
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    schedule: str = "constant"
    warmup_steps: int = 0
    recompute: int | str = "none"  # peers know all layers or none
    start: str = ""  # safetensors with the common initial A and B, by PEFT's names; else each side's own
    quantize: str = "none"
    double_quantization: bool = True
    recipe: str = ""  # a recipe file; "" where the base is loaded as the fields above say
    runs: int = 1  # a fleet of so many, each with the work of one, in an order of its own
    ceiling: bool = False  # measure matrix products too
    token_budget: int = 0  # of a micro-batch; 0 for the usual one
    layout: Literal["padded", "packed"] = "padded"  # of a peer's batch; pronk packs always
    liger: bool = False


@dataclass(frozen=True)
class Result:
    """One entry per step: mean loss per target token before the update, gradient norm, seconds.

    Of a fleet, loss and gradient norm are the first run's. peak_memory_bytes: reserved on a GPU, resident on a CPU,
    from loading to the last step. matrix_products: FLOP a second, where the work asked for them.
    """

    losses: list[float]
    gradient_norms: list[float]
    seconds: list[float]
    peak_memory_bytes: int
    version: str
    peak_allocated_bytes: int | None = None
    device_name: str = ""
    matrix_products: float | None = None


Answer = Result | str  # a text says why there is no result


def read_result(path: Path) -> Result | None:
    """What a side has written; None where it ended before that."""
    return Result(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def main(side: Callable[[Work], Result]) -> None:
    """Read WORK, play it on this side, write RESULT; what goes wrong ends the process with a traceback."""
    source, target = map(Path, sys.argv[1:])
    result = side(Work(**json.loads(source.read_text(encoding="utf-8"))))
    part = target.with_suffix(".part")
    part.write_text(json.dumps(asdict(result)), encoding="utf-8")
    part.replace(target)  # whole, whenever the process may be ended
