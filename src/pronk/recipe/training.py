"""The sections `adapter` and `train`: what a run learns, and how."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pronk.recipe.section import Section

Every = PositiveInt | Literal["epoch"]


class Adapter(Section):
    """Low-rank adaptation (LoRA, Hu et al. 2021, arXiv:2106.09685) of linear layers."""

    rank: PositiveInt = Field(16, description="Rank r of the update B·A.")
    alpha: float = Field(16.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs dropped while training.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear",
        description="Names of the linear layers that get an adapter, or all-linear: all but the output head.",
    )

    @model_validator(mode="after")
    def _some_target(self) -> Self:
        if not self.targets:
            raise ValueError("targets: name at least one linear layer, or write all-linear")
        return self


class Train(Section):
    """How a run is trained. A step is one update of one run, over `batch_size` of its examples."""

    epochs: PositiveInt = Field(2, description="Passes over the training rows.")
    max_steps: PositiveInt | None = Field(None, description="Stop after this many steps, whatever epochs says.")
    batch_size: PositiveInt = Field(
        16, description="Examples per step; how they are cut into micro-batches is pronk's business."
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "constant",
        description="Course of the learning rate after the warm-up; constant and constant_with_warmup are the same.",
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps over which the learning rate rises from 0, with any schedule."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm of a run; null for no clipping.")
    seed: int = Field(42, ge=0, description="Seed of the adapter's start, the data order and dropout.")
    max_length: PositiveInt | None = Field(
        None,
        description="Longest example in tokens; longer answers are cut and counted, but each row keeps a part of its "
        "first answer. "
        "2048, or what the base model can read if that is less, when absent.",
    )
    train_on_prompt: bool = Field(
        False,
        description="Learn what is asked as well, not the answers alone; the test counts answers alone either way.",
    )
    evaluate_every: Every = Field("epoch", description="Steps between validation losses, or epoch.")
    save_every: Every = Field("epoch", description="Steps between checkpoints, or epoch.")
    keep: PositiveInt | None = Field(
        None,
        description="How many of the newest checkpoints to keep, null for all; the best one by validation loss "
        "is kept beside them.",
    )
    stop: Literal["none", "early"] = Field(
        "none",
        description="early: a run ends when its validation loss no longer falls, and is then what it was at its best: "
        "adapter and reported metrics are those of the lowest validation loss. none: the last step counts.",
    )
    patience: PositiveInt = Field(
        3, description="With stop: early, how many evaluations in a row may bring no improvement."
    )
    min_delta: float = Field(
        0.0,
        ge=0,
        description="With stop: early, how far (nats per token) validation loss must fall to count as an improvement.",
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        ["tensorboard"], description="Where the metrics of all runs are shown beside metrics.jsonl; [] for nowhere."
    )
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Type of the base model's weights and products; auto: bf16 on a GPU that has it, else fp32. "
        "Adapters and optimizer are always fp32.",
    )
    device: str = Field(
        "auto",
        description="Where to run: cpu, cuda, or cuda:N for one GPU of several; auto: the GPU when there is one.",
    )

    @model_validator(mode="after")
    def _known_device(self) -> Self:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device: found {self.device!r}, expected auto, cpu, cuda, or one GPU such as cuda:1")
        return self
