"""TRL's side of a bench: SFTTrainer with PEFT, on the same ids, masks, order and initial adapter."""

from __future__ import annotations

import importlib.metadata
import tempfile
from typing import Any

import torch
import trl
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from pronk.doctor.peers.trainer import (
    Stopwatch,
    dataset,
    load_tokenizer,
    options,
    put_start,
    recomputes,
    result,
    targets,
)
from pronk.doctor.peers.work import Result, Work, main
from pronk.model.load import find_base
from pronk.model.quantize import loading_config


def side(work: Work) -> Result:
    """Train the steps of the work with SFTTrainer."""
    watch = Stopwatch(torch.device(work.device))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, folder, callbacks=[watch])
        trainer.train()
    liger = f" + Liger {importlib.metadata.version('liger-kernel')}" if work.liger else ""
    return result(trainer, watch, trl.__version__ + liger)


def make_trainer(work: Work, folder: str, callbacks: list[Any]) -> Any:
    """An SFTTrainer that reads the work's examples in pronk's order, without padding to a multiple."""
    location = find_base(work.base).location
    lora = LoraConfig(
        r=work.rank, lora_alpha=work.alpha, lora_dropout=0.0, target_modules=targets(work), task_type="CAUSAL_LM"
    )
    model = get_peft_model(_model(work, location), lora)
    put_start(model, work)
    config = trl.SFTConfig(
        **options(work, folder), gradient_checkpointing=recomputes(work), use_liger_kernel=work.liger
    )
    return trl.SFTTrainer(
        model,
        args=config,
        train_dataset=dataset(work),
        processing_class=load_tokenizer(location),
        callbacks=callbacks,
    )


def _model(work: Work, location: str) -> Any:
    # autocast over fp32 weights is TRL's fastest bf16 on a CPU; on a GPU the weights are bf16 too
    low = work.dtype == "bf16" and work.device == "cuda"
    dtype = torch.bfloat16 if low else torch.float32
    more: dict[str, Any] = {}
    if work.quantize in ("nf4", "int8"):
        kind: Any = work.quantize
        quantization = loading_config(kind, work.double_quantization, dtype)
        # by number: accelerate refuses a GPU without one
        device = torch.cuda.current_device() if work.device == "cuda" else work.device
        more = {"quantization_config": quantization, "device_map": {"": device}}
    return AutoModelForCausalLM.from_pretrained(location, dtype=dtype, use_safetensors=True, **more)


if __name__ == "__main__":
    main(side)
