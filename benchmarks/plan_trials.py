"""The settings of plan_error.py: bases, their data, their runs. The planner was calibrated on none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Small models record steps that come again, as in any study of some length; larger ones do in every round the same.
ROUNDS = {"smollm2-135m": 24, "tiny": 6}
FEW_ROUNDS = 3


@dataclass(frozen=True)
class Trial:
    """A setting. gpu: the size that the process may use. beginning: tokens that all examples begin with."""

    shape: str
    quantize: str
    budget: int
    recompute: int
    runs: int
    rank: int
    gpu: str
    beginning: int = 0
    longest: int = 600
    optimizer: str = "adamw"

    @property
    def rounds(self) -> int:
        return ROUNDS.get(self.shape, FEW_ROUNDS)


TRIALS = (
    Trial("smollm2-135m", "none", 10240, 0, 8, 16, "24GB"),
    Trial("smollm2-135m", "int8", 4096, 10, 1, 64, "16GB", beginning=40),
    Trial("smollm2-135m", "nf4", 8192, 30, 3, 8, "8GB"),
    Trial("smollm2-135m", "fp8", 6144, 0, 2, 32, "16GB"),
    Trial("llama3-1b", "none", 8192, 0, 1, 16, "48GB", optimizer="adamw_8bit"),
    Trial("llama3-1b", "int8", 4096, 8, 4, 8, "24GB"),
    Trial("llama3-1b", "nf4", 16384, 16, 1, 64, "24GB", longest=2048),
    Trial("llama3-1b", "fp8", 2048, 0, 2, 16, "16GB", beginning=60),
    Trial("llama3-8b", "none", 4096, 16, 1, 16, "80GB"),
    Trial("llama3-8b", "int8", 2048, 32, 2, 16, "24GB"),
    Trial("llama3-8b", "nf4", 8192, 0, 1, 16, "80GB", beginning=40),
    Trial("llama3-8b", "fp8", 12288, 32, 4, 32, "40GB"),
)
# Whatever is changed because of an error is changed because of one of these.
DIAGNOSES = (
    Trial("llama3-8b", "nf4", 16384, 32, 2, 16, "40GB", longest=1500),
    Trial("llama3-8b", "nf4", 8192, 32, 1, 32, "24GB"),
    Trial("smollm2-135m", "none", 4096, 0, 3, 8, "12GB", beginning=20),
    Trial("llama3-1b", "fp8", 4096, 0, 1, 32, "24GB"),
    Trial("llama3-1b", "int8", 8192, 4, 2, 16, "32GB"),
)
SELF_TEST = Trial("tiny", "none", 256, 2, 2, 4, "8GB", beginning=10, longest=60)


def config_of(trial: Trial) -> Any:
    """The configuration of a trial's base."""
    from transformers import LlamaConfig

    from pronk.doctor.shapes import base_config, base_shape

    return LlamaConfig(**base_config(base_shape(trial.shape)))


def examples(trial: Trial) -> list[Any]:
    """Alpaca-like lengths: most are short, some long; the last third is learned."""
    import numpy as np

    from pronk.doctor.shapes import base_shape
    from pronk.tokens.prompt import Example

    draw = np.random.default_rng(len(trial.shape) + trial.budget)
    vocabulary = base_shape(trial.shape).vocabulary
    beginning = draw.integers(3, vocabulary, trial.beginning)
    made = []
    for _ in range(2000 if trial.shape != "tiny" else 60):
        length = int(np.clip(draw.lognormal(4.6, 0.6), 16, trial.longest))
        ids = np.concatenate([beginning, draw.integers(3, vocabulary, length)])
        made.append(Example(ids, np.arange(len(ids)) >= len(ids) - length // 3))
    return made


def plans(trial: Trial) -> list[Any]:
    """Runs whose rounds fill more than one micro-batch."""
    from pronk.model.adapter import AdapterShape
    from pronk.train.fleet import RunPlan

    rows = examples(trial)
    mean = sum(len(row.ids) for row in rows) / len(rows)
    batch = max(1, round(1.6 * trial.budget / mean / trial.runs))
    shape = AdapterShape(trial.rank, 16.0)
    return [
        RunPlan(f"run{k}", rows, shape, trial.rounds, batch, 1e-4, optimizer=trial.optimizer, seed=k)
        for k in range(trial.runs)
    ]
