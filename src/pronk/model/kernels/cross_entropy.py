"""Cross-entropy of target tokens and the slope of their logits, in place.

Shapes: N targets, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def losses_and_slope_(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """The loss of each target in nats (N), fp32 or better; logits become d (Σ weight · loss) / d logits."""
    if logits_NV.is_cuda and logits_NV.dtype != torch.float64:
        from pronk.model.kernels.triton_cross_entropy import losses_and_slope_ as in_one_kernel

        return in_one_kernel(logits_NV, targets_N, weights_N)
    return losses_and_slope_plain_(logits_NV, targets_N, weights_N)


def losses_and_slope_plain_(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
    """`losses_and_slope_` in plain PyTorch."""
    log_p = torch.log_softmax(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)), dim=-1)
    targets_N1 = targets_N[:, None]
    losses_N = -log_p.gather(1, targets_N1)[:, 0]
    slope_NV = log_p.exp_().scatter_add_(1, targets_N1, torch.full_like(log_p[:, :1], -1).expand_as(targets_N1))
    logits_NV.copy_(slope_NV.mul_(weights_N[:, None]))
    return losses_N
