"""SwiGLU (Shazeer 2020, arXiv:2002.05202): silu(gate) · up.

The product is not kept for the backward pass: gate and up are, and give it again. What low-rank adapters add to
gate, up and slope is multiplied on the way, in both passes, so that none of these is read and written once more for
it. (Sums for the adapters' gradients are products of their own: made here, tile by tile, they took an H200 longer.)
Shapes: T tokens, F features of the product, R ranks; gate and up lie side by side in one tensor (T × 2F).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Product = tuple[Tensor, Tensor]  # left (T × R) · right (R × F): what a low-rank adapter adds


def swiglu(both_TG: Tensor, added: Sequence[Product] = ()) -> Tensor:
    """silu(gate) · up (T × F); both: gate, then up. added: products that gate and up get before, none or two."""
    if both_TG.is_cuda:
        from pronk.model.kernels import triton_swiglu as kernels

        return kernels.forward_added(both_TG, *added) if added else kernels.forward(both_TG)
    return swiglu_plain(both_TG, added)


def swiglu_backward_(both_TG: Tensor, slope_TF: Tensor, added: Sequence[Product] = ()) -> None:
    """In place: gate and up become their gradients, and slope (the gradient of the product) becomes the product.

    added: products that gate, up and slope get before, none or three.
    """
    if both_TG.is_cuda:
        from pronk.model.kernels import triton_swiglu as kernels

        if added:
            kernels.backward_added_(both_TG, slope_TF, *added)
        else:
            kernels.backward_(both_TG, slope_TF)
    else:
        swiglu_backward_plain_(both_TG, slope_TF, added)


def swiglu_plain(both_TG: Tensor, added: Sequence[Product] = ()) -> Tensor:
    """`swiglu` in plain PyTorch."""
    gate_TF, up_TF = _wide(both_TG.chunk(2, dim=-1), added)
    return (torch.nn.functional.silu(gate_TF) * up_TF).to(both_TG.dtype)


def swiglu_backward_plain_(both_TG: Tensor, slope_TF: Tensor, added: Sequence[Product] = ()) -> None:
    """`swiglu_backward_` in plain PyTorch."""
    places = (*both_TG.chunk(2, dim=-1), slope_TF)
    gate_TF, up_TF, dproduct_TF = _wide(places, added)
    silu_TF = torch.nn.functional.silu(gate_TF)
    dgate_TF = torch.ops.aten.silu_backward(dproduct_TF * up_TF, gate_TF)
    for place_TF, value_TF in zip(places, (dgate_TF, dproduct_TF * silu_TF, silu_TF * up_TF), strict=True):
        place_TF.copy_(value_TF)


def _wide(parts: Sequence[Tensor], added: Sequence[Product]) -> list[Tensor]:
    """The parts in fp32 or better, what adapters add to them included."""
    precision = torch.promote_types(parts[0].dtype, torch.float32)
    if not added:
        return [part_TF.to(precision) for part_TF in parts]
    return [
        torch.addmm(part_TF.to(precision), left_TR.to(precision), right_RF.to(precision))
        for part_TF, (left_TR, right_RF) in zip(parts, added, strict=True)
    ]
