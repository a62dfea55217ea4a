"""SwiGLU (Shazeer 2020, arXiv:2002.05202): silu(gate) · up.

The product is not kept for the backward pass: gate and up are, and give it again.
Shapes: T tokens, F features of the product; gate and up lie side by side in one tensor (T × 2F).
"""

from __future__ import annotations

import torch
from torch import Tensor


def swiglu(both_TG: Tensor) -> Tensor:
    """silu(gate) · up (T × F); both: gate, then up."""
    if both_TG.is_cuda:
        from pronk.model.kernels.triton_swiglu import forward

        return forward(both_TG)
    return swiglu_plain(both_TG)


def swiglu_backward_(both_TG: Tensor, slope_TF: Tensor) -> None:
    """In place: gate and up become their gradients, and slope (the gradient of the product) becomes the product."""
    if both_TG.is_cuda:
        from pronk.model.kernels.triton_swiglu import backward_

        backward_(both_TG, slope_TF)
    else:
        swiglu_backward_plain_(both_TG, slope_TF)


def swiglu_plain(both_TG: Tensor) -> Tensor:
    """`swiglu` in plain PyTorch."""
    precision = torch.promote_types(both_TG.dtype, torch.float32)
    gate_TF, up_TF = both_TG.to(precision).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate_TF) * up_TF).to(both_TG.dtype)


def swiglu_backward_plain_(both_TG: Tensor, slope_TF: Tensor) -> None:
    """`swiglu_backward_` in plain PyTorch."""
    precision = torch.promote_types(both_TG.dtype, torch.float32)
    gate_TF, up_TF = both_TG.to(precision).chunk(2, dim=-1)
    dproduct_TF = slope_TF.to(precision)
    open_TF = torch.sigmoid(gate_TF)
    silu_TF = gate_TF * open_TF
    dsilu_TF = open_TF * (1 + gate_TF * (1 - open_TF))
    product_TF, dgate_TF, dup_TF = silu_TF * up_TF, dproduct_TF * up_TF * dsilu_TF, dproduct_TF * silu_TF
    slope_TF.copy_(product_TF)
    both_TG.copy_(torch.cat([dgate_TF, dup_TF], dim=-1))
