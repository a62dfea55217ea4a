"""Cross-entropy on target tokens only, chunk by chunk.

Logits for all tokens never exist: each chunk of hidden states goes through the output head, gives
its losses and, at once, the gradient of its hidden states.
Shapes: N targets, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 2048  # targets whose logits exist at once: 2048 × 128,256 in fp32 are 1 GiB


def target_losses(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target, fp32 or better (N); no gradient."""
    losses = [
        torch.nn.functional.cross_entropy(_logits(hidden, head_VD), targets, reduction="none")
        for hidden, targets in zip(hidden_ND.split(CHUNK), targets_N.split(CHUNK), strict=True)
    ]
    return torch.cat(losses)


def weighted_loss(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    """Σ weight · loss, differentiable in hidden_ND and in the head, and the single losses (N)."""
    total, losses_N = _ChunkedLoss.apply(hidden_ND, head_VD, targets_N, weights_N)
    return total, losses_N


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, weights_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradient_ND = torch.empty_like(hidden_ND)
        gradient_VD = None  # of the head, unless it is frozen
        if ctx.needs_input_grad[1]:
            gradient_VD = torch.zeros_like(head_VD, dtype=torch.promote_types(head_VD.dtype, torch.float32))
        losses = []
        for start in range(0, len(targets_N), CHUNK):
            part = slice(start, start + CHUNK)
            log_p = torch.log_softmax(_logits(hidden_ND[part], head_VD), dim=-1)
            targets = targets_N[part, None]
            losses.append(-log_p.gather(1, targets)[:, 0])
            # d loss / d logits = softmax - one-hot, in place of the log-probabilities
            slope = log_p.exp_().scatter_add_(1, targets, torch.full_like(log_p[:, :1], -1).expand_as(targets))
            slope = slope.mul_(weights_N[part, None]).to(head_VD.dtype)
            gradient_ND[part] = slope @ head_VD
            if gradient_VD is not None:
                gradient_VD += slope.T @ hidden_ND[part]
            del log_p, slope  # else they would live beside the logits of the next chunk
        losses_N = torch.cat(losses)
        ctx.save_for_backward(gradient_ND, gradient_VD)
        ctx.mark_non_differentiable(losses_N)
        return (losses_N * weights_N).sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gradient_ND, gradient_VD = ctx.saved_tensors
        dhead_VD = None if gradient_VD is None else gradient_VD * grads[0]
        return gradient_ND * grads[0].to(gradient_ND.dtype), dhead_VD, None, None


def _logits(hidden_ND: Tensor, head_VD: Tensor) -> Tensor:
    logits = hidden_ND @ head_VD.T
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
