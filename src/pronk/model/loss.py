"""Cross-entropy on target tokens only, chunk by chunk.

Logits for all tokens never exist: each chunk of hidden states goes through the output head, gives
its losses and, at once, the gradient of its hidden states.
Shapes: N targets, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pronk.model.kernels.cross_entropy import losses_and_slope_

CHUNK_BYTES = 2**29  # of logits that exist at once: 2,093 targets of a vocabulary of 128,256 in bf16


def chunk_size(head_VD: Tensor) -> int:
    """How many targets have logits at once."""
    return chunk_of(len(head_VD), head_VD.itemsize)


def chunk_of(vocabulary: int, size: int) -> int:
    """As `chunk_size`, from numbers. size: bytes of one logit."""
    return max(CHUNK_BYTES // (size * vocabulary) // 128 * 128, 128)


def target_losses(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target, fp32 or better (N); no gradient."""
    chunk = chunk_size(head_VD)
    losses = [
        _losses(hidden @ head_VD.T, targets)
        for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return torch.cat(losses)


def _losses(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """The loss of each target; the logits may be overwritten."""
    precision = torch.promote_types(logits_NV.dtype, torch.float32)
    if not logits_NV.is_cuda:
        return torch.nn.functional.cross_entropy(logits_NV.to(precision), targets_N, reduction="none")
    # computed in fp32 from logits as they are: PyTorch's own would copy them twice, four times the memory in bf16
    return losses_and_slope_(logits_NV, targets_N, torch.ones_like(targets_N, dtype=precision))


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
        chunk = chunk_size(head_VD)
        for start in range(0, len(targets_N), chunk):
            part = slice(start, start + chunk)
            slope = hidden_ND[part] @ head_VD.T  # logits, which become their own gradient
            losses.append(losses_and_slope_(slope, targets_N[part], weights_N[part]))
            torch.mm(slope, head_VD, out=gradient_ND[part])
            if gradient_VD is not None:
                gradient_VD += slope.T @ hidden_ND[part]
            del slope  # else they would live beside the logits of the next chunk
        losses_N = torch.cat(losses)
        ctx.save_for_backward(gradient_ND, gradient_VD)
        ctx.mark_non_differentiable(losses_N)
        return (losses_N * weights_N).sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gradient_ND, gradient_VD = ctx.saved_tensors
        dhead_VD = None if gradient_VD is None else gradient_VD * grads[0]
        return gradient_ND * grads[0].to(gradient_ND.dtype), dhead_VD, None, None
