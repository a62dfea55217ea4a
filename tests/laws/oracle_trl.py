"""TRL's SFTTrainer as an oracle: the same ids, masks, order, start, schedule and clipping as a run of pronk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tiny import VOCAB, State, peft_model, read_state
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from pronk.train.fleet import RunPlan
from pronk.train.order import batch_indices

OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}


def word_tokenizer() -> PreTrainedTokenizerFast:
    """TRL wants a tokenizer; of this one only the padding is used."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCAB)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words)), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


class Recording(SFTTrainer):
    """TRL as it is; keeps the loss of every micro-batch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.losses: list[float] = []

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.item())
        return loss


class DoubleLoss(Recording):
    """TRL computes its log-probabilities in float32, whatever the model's precision (7e-7 seen in the
    losses). Here the plain cross-entropy stands in, in float64; all else is TRL's."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        assert not return_outputs
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        assert logits.dtype == torch.float64
        summed = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        loss = summed / num_items_in_batch
        self.losses.append(loss.item())
        return loss


def train_with_trl(
    base: Any,
    plan: RunPlan,
    start: Mapping[str, Tensor],
    folder: Path,
    tokenizer: Any,
    accumulate: int = 1,
    trainer_class: type[Recording] = Recording,
) -> tuple[State, list[dict[str, float]]]:
    """The final adapter, or all weights for a plan without one, and loss, learning_rate and gradient_norm of each step.

    TRL reads in sequence the batches that pronk's order gives, laid one behind the other.
    """
    order = [
        plan.examples[index]
        for step in range(plan.steps)
        for index in batch_indices(len(plan.examples), plan.batch_size, plan.seed, step)
    ]
    assert len(order) == plan.steps * plan.batch_size, "TRL would cut the batches elsewhere"
    rows = {
        "input_ids": [example.ids.tolist() for example in order],
        "completion_mask": [example.target.astype(int).tolist() for example in order],
    }
    args = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False,
        per_device_train_batch_size=plan.batch_size // accumulate, gradient_accumulation_steps=accumulate,
        num_train_epochs=1, train_sampling_strategy="sequential", completion_only_loss=True, packing=False,
        max_length=None, optim=OPTIMIZERS[plan.optimizer],
        learning_rate=plan.learning_rate, weight_decay=plan.weight_decay,
        lr_scheduler_type=plan.schedule, warmup_steps=plan.warmup_steps, max_grad_norm=plan.clip or 0.0,
        logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    model = base.requires_grad_(True) if plan.shape is None else peft_model(base, plan.shape, start)
    trainer = trainer_class(model=model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "learning_rate" in log]
    losses = torch.tensor(trainer.losses, dtype=torch.float64).view(plan.steps, accumulate).sum(1).tolist()
    assert len(logs) == plan.steps
    steps = [
        {"loss": loss, "learning_rate": log["learning_rate"], "gradient_norm": float(log["grad_norm"])}
        for loss, log in zip(losses, logs, strict=True)
    ]
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return weights if plan.shape is None else read_state(model), steps
