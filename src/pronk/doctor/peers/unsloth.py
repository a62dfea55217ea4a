"""Unsloth's side of a bench: its own loader, kernels, checkpointing and trainer, on the same work.

Unsloth changes transformers, PEFT and TRL as it is imported, so it comes before them.
"""

from __future__ import annotations

import unsloth  # isort: skip

import tempfile
from typing import Any

import torch
import trl

from pronk.doctor.peers.trainer import Stopwatch, dataset, options, put_start, recomputes, result
from pronk.doctor.peers.work import Result, Work, main
from pronk.model.load import context_length, find_base, load_config

USUAL_LENGTH = 2048
# By name, so that Unsloth puts its own kernels in; "all-linear" would go through PEFT's.
LLAMA_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def side(work: Work) -> Result:
    """Train the steps of the work with Unsloth's SFTTrainer."""
    watch = Stopwatch(torch.device(work.device))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, folder, callbacks=[watch])
        trainer.train()
    return result(trainer, watch, unsloth.__version__)


def make_trainer(work: Work, folder: str, callbacks: list[Any]) -> Any:
    """An SFTTrainer over a model of Unsloth that reads the work's examples in pronk's order."""
    base = find_base(work.base)
    longest = max(len(ids) for ids, _ in work.examples)
    # no less than its own default, below which it recomputes in another way; more than the base reads would bend RoPE
    length = min(max(longest, USUAL_LENGTH), context_length(load_config(base)))
    checkpointing = "unsloth" if recomputes(work) else False
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        base.location,
        max_seq_length=length,
        dtype=torch.bfloat16 if work.dtype == "bf16" else torch.float32,
        load_in_4bit=work.quantize == "nf4",  # with double quantization
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,  # else it looks for another form of the base on the hub
        fix_tokenizer=False,
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=work.rank,
        target_modules=LLAMA_LAYERS if work.targets == "all-linear" else list(work.targets),
        lora_alpha=work.alpha,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing=checkpointing,
        random_state=work.seed,
        max_seq_length=length,
    )
    put_start(model, work)
    return trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**_options(work, folder)),
        train_dataset=dataset(work),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def _options(work: Work, folder: str) -> dict[str, Any]:
    """Checkpointing was said to the model; the trainer is told only where there is to be none, since TRL's
    default is to have it."""
    found = options(work, folder) | {"dataset_num_proc": 1}  # processes for a few rows would only cost seconds
    return found if recomputes(work) else found | {"gradient_checkpointing": False}


if __name__ == "__main__":
    main(side)
