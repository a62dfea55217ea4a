"""TRL's side of a bench: SFTTrainer with PEFT, on the same ids, masks, order and initial adapter."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from pronk.doctor.environment import peak_memory
from pronk.doctor.peers.work import Result, Work, main
from pronk.model.load import find_base
from pronk.train.order import batch_indices


class _Stopwatch(TrainerCallback):
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
            torch.cuda.synchronize()
        return time.perf_counter()


def side(work: Work) -> Result:
    """Train the steps of the work with SFTTrainer."""
    device = torch.device(work.device)
    watch = _Stopwatch(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, folder, callbacks=[watch])
        trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Result(
        losses=[entry["loss"] for entry in history],
        gradient_norms=[entry["grad_norm"] for entry in history],
        seconds=watch.seconds,
        peak_memory_bytes=peak_memory(device),
        version=trl.__version__,
    )


def make_trainer(work: Work, folder: str, callbacks: list[Any]) -> Any:
    """An SFTTrainer that reads the work's examples in pronk's order, without padding to a multiple."""
    location = find_base(work.base).location
    # autocast over fp32 weights is TRL's fastest bf16 on a CPU; on a GPU the weights are bf16 too
    low = work.dtype == "bf16"
    weights = torch.bfloat16 if low and work.device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(location, dtype=weights, use_safetensors=True)
    lora = LoraConfig(
        r=work.rank, lora_alpha=work.alpha, lora_dropout=0.0, task_type="CAUSAL_LM",
        target_modules="all-linear" if work.targets == "all-linear" else list(work.targets),
    )  # fmt: skip
    model = get_peft_model(model, lora)
    start = load_file(work.start) if work.start else {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and start:
            parameter.data.copy_(start[name.replace(".default.", ".")])
    tokenizer = AutoTokenizer.from_pretrained(location)
    tokenizer.pad_token = tokenizer.unk_token or "<|endoftext|>"
    config = trl.SFTConfig(
        output_dir=folder,
        max_steps=work.steps,
        per_device_train_batch_size=work.batch_size,
        gradient_accumulation_steps=1,
        learning_rate=work.learning_rate,
        # "constant" would leave the warm-up out
        lr_scheduler_type="constant_with_warmup" if work.schedule == "constant" else work.schedule,
        warmup_steps=work.warmup_steps,
        weight_decay=work.weight_decay,
        max_grad_norm=work.clip or 0.0,
        optim="adamw_bnb_8bit" if work.optimizer == "adamw_8bit" else "adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=low,
        use_cpu=work.device == "cpu",
        gradient_checkpointing=work.recompute not in ("none", 0),
        max_length=None,
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        disable_tqdm=True,
        seed=work.seed,
    )  # fmt: skip
    return trl.SFTTrainer(
        model, args=config, train_dataset=_dataset(work), processing_class=tokenizer, callbacks=callbacks
    )


def _dataset(work: Work) -> Dataset:
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


if __name__ == "__main__":
    main(side)
