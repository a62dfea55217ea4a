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

    What only pronk reads: recipe (the run's, for how the base is loaded), runs, ceiling. What only peers read:
    layout, liger.
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


def read_answers(path: Path) -> list[Answer]:
    """The results that a side has written, in the order of its works."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return [one if isinstance(one, str) else Result(**one) for one in found]


def main(side: Callable[[Work], Result]) -> None:
    """Read WORKS, play one after another on this side, write ANSWERS.

    What goes wrong in the one work there is goes up, and ends the process; with several the others are still played.
    """
    source, target = map(Path, sys.argv[1:])
    works = [Work(**one) for one in json.loads(source.read_text(encoding="utf-8"))]
    answers = [side(works[0])] if len(works) == 1 else [_attempt(side, work) for work in works]
    plain = [one if isinstance(one, str) else asdict(one) for one in answers]
    target.write_text(json.dumps(plain), encoding="utf-8")


def _attempt(side: Callable[[Work], Result], work: Work) -> Answer:
    import traceback

    try:
        return side(work)
    except Exception:
        return traceback.format_exc()
