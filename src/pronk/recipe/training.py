"""The sections `adapter` and `train`: what a run learns, and how."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pronk.recipe.section import Section

Every = PositiveInt | Literal["epoch"]


class Adapter(Section):
    """Low-rank adaptation (LoRA, Hu et al. 2021, arXiv:2106.09685) of linear layers."""

    from_: str | None = Field(
        None,
        alias="from",  # a word of Python's own
        description="An adapter to go on with: a folder in PEFT's format, or a run's folder. Its rank, alpha, "
        "use_rslora and targets hold; leave those keys out.",
    )
    rank: PositiveInt = Field(16, description="Rank r of the update B·A.")
    alpha: float = Field(16.0, gt=0, description="The update is scaled by alpha / rank.")
    use_rslora: bool = Field(
        False,
        description="Scale by alpha / √rank instead, so that large ranks learn as fast as small ones "
        "(rsLoRA, Kalajdzievski 2023, arXiv:2312.03732).",
    )
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
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw",
        description="AdamW, or AdamW whose two moments take one byte a weight instead of four (block-wise 8-bit, "
        "Dettmers et al. 2022, arXiv:2110.02861).",
    )
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "constant",
        description="Course of the learning rate after the warm-up; constant and constant_with_warmup are the same.",
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps over which the learning rate rises from 0, with any schedule."
    )
    lora_plus_ratio: float = Field(
        1.0,
        gt=0,
        description="LoRA+ (Hayou et al. 2024, arXiv:2402.12354): the matrix B learns at this multiple of the learning "
        "rate, A at the learning rate itself. The paper suggests 16; 1 is plain LoRA.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW; of matrices only.")
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
        "weights and reported metrics are those of the lowest validation loss. none: the last step counts.",
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
    recompute: NonNegativeInt | Literal["auto", "none", "all"] = Field(
        "auto",
        description="How many layers' activations are computed again in the backward pass instead of kept: less "
        "memory, the same result, up to two fifths more time. A number, none or all; auto: as many as must be, so "
        "that training fits into the GPU (none on a CPU).",
    )
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Type of the base model's weights and products; auto: bf16 on a GPU that has it, fp16 on one that "
        "has not (T4, V100), fp32 on a CPU. Adapters and optimizer are always fp32.",
    )
    fp8_products: bool = Field(
        False,
        description="Multiply the base's weights in FP8, which is faster and rounds each token's activations to "
        "8 bits: with quantize: nf4; quantize: fp8 always does. Adapters' own products stay in dtype. Needs a GPU with "
        "FP8 (compute capability 8.9: RTX 40, L4, H100 and later); a CPU gives the same numbers slowly, for tests.",
    )
    device: str = Field(
        "auto",
        description="Where to run: cpu, cuda, or cuda:N for one GPU of several; auto: the GPU when there is one.",
    )
    deterministic: bool = Field(
        False,
        description="Compute so that the same recipe on the same machine gives the same result to the last bit, on a "
        "GPU too, which is slower. Without it, runs on a GPU differ by rounding.",
    )

    @model_validator(mode="after")
    def _known_device(self) -> Self:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device: found {self.device!r}, expected auto, cpu, cuda, or one GPU such as cuda:1")
        return self
