"""What both sides of a bench are given, and what they give back, as JSON files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Work:
    """The same steps for every side. examples: [ids, which of them are learned (true or false for each)]."""

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
    recompute: int | str = "none"  # TRL knows all layers or none
    start: str = ""  # safetensors with the common initial A and B, by PEFT's names; else each side's own


@dataclass(frozen=True)
class Result:
    """One entry per step: mean loss per target token before the update, gradient norm, seconds."""

    losses: list[float]
    gradient_norms: list[float]
    seconds: list[float]
    peak_memory_bytes: int
    version: str


def main(side: Callable[[Work], Result]) -> None:
    """Read WORK, run a side, write RESULT."""
    source, target = map(Path, sys.argv[1:])
    result = side(Work(**json.loads(source.read_text(encoding="utf-8"))))
    target.write_text(json.dumps(asdict(result)), encoding="utf-8")
