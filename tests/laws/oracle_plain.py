"""An oracle that anyone can read: one example after another through transformers, one optimizer step a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pronk.train.fleet import RunPlan
from pronk.train.order import batch_indices
from pronk.train.schedule import rate_factor


def train_plainly(model: Any, optimizer: torch.optim.Optimizer, plan: RunPlan) -> list[float]:
    """Train a model's unfrozen weights as the plan says. The loss of each step, before its update."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    peaks = [group["lr"] for group in optimizer.param_groups]
    losses = []
    for step in range(plan.steps):
        optimizer.zero_grad()
        losses.append(_loss(model, plan, step).item())
        if plan.clip is not None:
            nn.utils.clip_grad_norm_(weights, plan.clip)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate_factor(plan.schedule, step, plan.steps, plan.warmup_steps)
        optimizer.step()
    return losses


def _loss(model: Any, plan: RunPlan, step: int) -> Tensor:
    """Mean loss over a step's target tokens; its gradient is in place."""
    chosen = [plan.examples[i] for i in batch_indices(len(plan.examples), plan.batch_size, plan.seed, step)]
    count = sum(int(example.target.sum()) for example in chosen)
    parts: Sequence[Tensor] = [_summed_loss(model, example) / count for example in chosen]
    total = torch.stack([part.detach() for part in parts]).sum()
    for part in parts:
        part.backward()
    return total


def _summed_loss(model: Any, example: Any) -> Tensor:
    ids = torch.from_numpy(example.ids)[None]
    target = torch.from_numpy(example.target)[1:]
    logits = model(input_ids=ids[:, :-1]).logits[0]
    return cross_entropy(logits[target], ids[0, 1:][target], reduction="sum")
