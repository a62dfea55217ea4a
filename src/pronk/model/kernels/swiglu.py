"""SwiGLU (Shazeer 2020, arXiv:2002.05202): silu(gate) · up.

The product is not kept for the backward pass: gate and up are, and give it again. What low-rank adapters add to
gate, up and slope is multiplied on the way, so that none of these is read and written once more for it.
Shapes: T tokens, F features of the product, R ranks; gate and up lie side by side in one tensor (T × 2F).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Product = tuple[Tensor, Tensor]  # left (T × R) · right (R × F): what a low-rank adapter adds


def swiglu(both_TG: Tensor, added: Sequence[Product] | None = None) -> Tensor:
    """silu(gate) · up (T × F); both: gate, then up. added: products that gate and up first get, in place."""
    if both_TG.is_cuda:
        from pronk.model.kernels import triton_swiglu as kernels

        return kernels.forward(both_TG) if added is None else kernels.forward_added(both_TG, *added)
    return swiglu_plain(both_TG, added)


def swiglu_backward_(both_TG: Tensor, slope_TF: Tensor, added: Product | None = None) -> None:
    """In place: gate and up become their gradients, and slope (the gradient of the product) becomes the product.

    added: a product that is part of the slope.
    """
    if both_TG.is_cuda:
        from pronk.model.kernels import triton_swiglu as kernels

        if added is None:
            kernels.backward_(both_TG, slope_TF)
        else:
            kernels.backward_added_(both_TG, slope_TF, *added)
    else:
        swiglu_backward_plain_(both_TG, slope_TF, added)


def swiglu_plain(both_TG: Tensor, added: Sequence[Product] | None = None) -> Tensor:
    """`swiglu` in plain PyTorch."""
    for half_TF, (left_TR, right_RF) in zip(both_TG.chunk(2, dim=-1), added or (), strict=False):
        half_TF.addmm_(left_TR, right_RF)
    precision = torch.promote_types(both_TG.dtype, torch.float32)
    gate_TF, up_TF = both_TG.to(precision).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate_TF) * up_TF).to(both_TG.dtype)


def swiglu_backward_plain_(both_TG: Tensor, slope_TF: Tensor, added: Product | None = None) -> None:
    """`swiglu_backward_` in plain PyTorch."""
    if added is not None:
        slope_TF.addmm_(*added)
    precision = torch.promote_types(both_TG.dtype, torch.float32)
    gate_TF, up_TF = (half.to(precision) for half in both_TG.chunk(2, dim=-1))
    dproduct_TF, silu_TF = slope_TF.to(precision), torch.nn.functional.silu(gate_TF)
    dgate_TF = torch.ops.aten.silu_backward(dproduct_TF * up_TF, gate_TF)
    dup_TF = dproduct_TF * silu_TF
    torch.mul(silu_TF, up_TF, out=silu_TF)
    slope_TF.copy_(silu_TF)
    for half_TF, gradient_TF in zip(both_TG.chunk(2, dim=-1), (dgate_TF, dup_TF), strict=True):
        half_TF.copy_(gradient_TF)
