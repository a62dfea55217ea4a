"""What the sides that train with TRL's SFTTrainer have in common. Imports trl: Unsloth must be imported before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from pronk.doctor.environment import device_name, peak_memory
from pronk.doctor.peers.work import Result, Work
from pronk.train.order import batch_indices


class Stopwatch(TrainerCallback):
    """Seconds of each step, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(self._now() - self._started)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def result(trainer: Any, watch: Stopwatch, version: str) -> Result:
    """What a trainer that has trained gives back."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    gpu = watch.device.type == "cuda"
    return Result(
        losses=[float(entry["loss"]) for entry in history],
        gradient_norms=[float(entry["grad_norm"]) for entry in history],
        seconds=watch.seconds,
        peak_memory_bytes=peak_memory(watch.device),
        version=version,
        peak_allocated_bytes=torch.cuda.max_memory_allocated(watch.device) if gpu else None,
        device_name=device_name(watch.device),
    )


def recomputes(work: Work) -> bool:
    """Whether layers are recomputed: peers know all or none."""
    return work.recompute not in ("none", 0)


def targets(work: Work) -> str | list[str]:
    """The layers to adapt, as PEFT wants them."""
    return work.targets if isinstance(work.targets, str) else list(work.targets)


def options(work: Work, folder: str) -> dict[str, Any]:
    """The arguments of SFTConfig for the work, gradient checkpointing apart."""
    return {
        "output_dir": folder,
        "max_steps": work.steps,
        "per_device_train_batch_size": work.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": work.learning_rate,
        # "constant" would leave the warm-up out
        "lr_scheduler_type": "constant_with_warmup" if work.schedule == "constant" else work.schedule,
        "warmup_steps": work.warmup_steps,
        "weight_decay": work.weight_decay,
        "max_grad_norm": work.clip or 0.0,
        "optim": "adamw_bnb_8bit" if work.optimizer == "adamw_8bit" else "adamw_torch_fused",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": work.dtype == "bf16",
        "use_cpu": work.device == "cpu",
        "max_length": None,
        "packing": False,
        "padding_free": work.layout == "packed",
        "completion_only_loss": True,
        "train_sampling_strategy": "sequential",
        "disable_tqdm": True,
        "seed": work.seed,
    }


def load_tokenizer(location: str) -> Any:
    """The tokenizer of a base; only its padding is used, and that must not be its end."""
    tokenizer = AutoTokenizer.from_pretrained(location)
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        tokenizer.pad_token = tokenizer.unk_token or "<|endoftext|>"
    return tokenizer


def put_start(model: Any, work: Work) -> None:
    """Give a PEFT model the common initial adapter. Raises KeyError for a weight that it lacks."""
    start: Mapping[str, torch.Tensor] = load_file(work.start) if work.start else {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and start:
            parameter.data.copy_(start[name.replace(".default.", ".")])


def dataset(work: Work) -> Dataset:
    """The examples in the order in which pronk's batches see them, one batch after another."""
    order = [
        index
        for step in range(work.steps)
        for index in batch_indices(len(work.examples), work.batch_size, work.seed, step)
    ]
    rows = [work.examples[index] for index in order]
    return Dataset.from_dict(
        {
            "input_ids": [ids for ids, _ in rows],
            "completion_mask": [[int(one) for one in learned] for _, learned in rows],
        }
    )
