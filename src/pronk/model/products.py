"""Products with frozen linear layers, forward and back: every wide layer goes through these.

A layer alone or a group of layers that read the same x in one product, their rows one after another. Dense
weights are made for each product anew and kept by none. In FP8 the weight has one scale for each row: forward
multiplies it in after the product; back it is folded into dy before that is rounded, as it lies along the sum.
Adapters are no part of this: their products are never in FP8.
Shapes: T tokens, I input features, O output features, G those of a whole group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pronk.model.kernels.fp8 import FP8, Fp8Rows, multiply_rows, quantize_rows

if TYPE_CHECKING:
    from pronk.model.quantize import FrozenLinear


def frozen_product(x_TI: Tensor, linear: FrozenLinear) -> Tensor:
    """x · Wᵀ + bias (T × O)."""
    return group_product(x_TI, [linear])


def frozen_product_back(dy_TO: Tensor, linear: FrozenLinear) -> Tensor:
    """dy · W (T × I), the gradient of x."""
    return group_product_back(dy_TO, [linear])


def group_product(
    x_TI: Tensor, linears: Sequence[FrozenLinear], residual_TG: Tensor | None = None, codes: Fp8Rows | None = None
) -> Tensor:
    """x · Wᵀ + bias of several layers in one product (T × G), the residual added if there is one.

    codes: x in FP8, where whoever made x has it at hand and all layers multiply so.
    """
    bias_G = _biases(linears)
    if in_fp8(linears):
        rows = quantize_rows(x_TI) if codes is None else codes
        y_TG = multiply_rows(rows, *fp8_group(linears, transposed=False), product_dtype(linears[0]))
        y_TG = y_TG if residual_TG is None else y_TG.add_(residual_TG)
        return y_TG if bias_G is None else y_TG.add_(bias_G)
    W_IG = dense_group(linears).T
    added = [part for part in (residual_TG, bias_G) if part is not None]
    y_TG = torch.addmm(added[0], x_TI, W_IG) if added else x_TI @ W_IG
    return y_TG.add_(added[1]) if len(added) == 2 else y_TG


def group_product_back(dy_TG: Tensor, linears: Sequence[FrozenLinear]) -> Tensor:
    """dy · W (T × I) of several layers that read the same x: the sum of their gradients."""
    if not in_fp8(linears):
        return dy_TG @ dense_group(linears)
    codes_IG, scale_G = fp8_group(linears, transposed=True)
    return multiply_rows(quantize_rows(dy_TG, scale_G), codes_IG, None, product_dtype(linears[0]))


def in_fp8(linears: Iterable[FrozenLinear]) -> bool:
    """Whether the products of all these layers are in FP8."""
    return all(getattr(linear, "fp8_products", False) for linear in linears)


def dense_group(linears: Sequence[FrozenLinear]) -> Tensor:
    """The dense weights of layers (G × I), one below another, in the type of their products. Quantized ones are
    made anew, ordinary ones that already lie so (`lay_side_by_side`) are not copied."""
    if len(linears) == 1 or all(isinstance(linear, nn.Linear) for linear in linears):
        return _together([_dense(linear) for linear in linears])
    first, sizes = linears[0], [linear.out_features for linear in linears]
    W_GI = torch.empty(sum(sizes), first.in_features, dtype=product_dtype(first), device=product_device(first))
    for linear, part in zip(linears, W_GI.split(sizes), strict=True):
        if isinstance(linear, nn.Linear):
            part.copy_(linear.weight)
        else:
            linear.quantized.dequantize(part)
    return W_GI


def fp8_group(linears: Sequence[Any], transposed: bool) -> tuple[Tensor, Tensor]:
    """FP8 codes of layers whose products are in FP8, and the scale of each of their rows (fp32, G).

    Codes are row-major: G × I for the forward product, I × G (transposed) for the one back.
    """
    weights = [linear.quantized for linear in linears]
    scale_G = _together([weight.fp8_scales for weight in weights])
    if len(weights) == 1:
        return weights[0].fp8_codes(transposed), scale_G
    kept = [weight.kept_codes for weight in weights]
    if not transposed and all(codes is not None for codes in kept):
        return _together(kept).view(FP8), scale_G
    sizes, features = [linear.out_features for linear in linears], linears[0].in_features
    shape = (features, sum(sizes)) if transposed else (sum(sizes), features)
    codes = torch.empty(shape, dtype=FP8, device=scale_G.device)
    for weight, part in zip(weights, codes.split(sizes, dim=1 if transposed else 0), strict=True):
        weight.fp8_codes(transposed, part)
    return codes, scale_G


def lay_side_by_side(linears: Sequence[FrozenLinear]) -> bool:
    """Let layers that are multiplied as a group share one tensor, so that no product copies them together.

    Says whether anything had to move: one copy of the group at a time. On a GPU quantized weights lie so already,
    since `close_up` (close_up.py).
    """
    moved = False
    for tensors in side_by_side(linears):
        if not _adjoining(tensors):
            joined = torch.cat([tensor.detach() for tensor in tensors])
            for tensor, part in zip(tensors, joined.split([len(one) for one in tensors]), strict=True):
                tensor.data = part
            moved = True
    return moved


def side_by_side(linears: Sequence[FrozenLinear]) -> list[list[Tensor]]:
    """What of layers that are multiplied as a group is to lie one below another: ordinary weights, or FP8 codes, and
    row scales; NF4 and int8 codes need not."""
    held: list[list[Tensor]] = [[], []]
    for linear in linears:
        if isinstance(linear, nn.Linear):
            held[0].append(linear.weight)
        else:
            held[0] += [codes] if (codes := linear.quantized.kept_codes) is not None else []
            held[1] += [scales] if (scales := linear.quantized.fp8_scales) is not None else []
    return [
        tensors for tensors in held
        if len(tensors) == len(linears) > 1 and len({tensor.dtype for tensor in tensors}) == 1
    ]  # fmt: skip


def _adjoining(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors lie one below another in memory."""
    first, end = tensors[0], tensors[0].data_ptr()
    for tensor in tensors:
        same = tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and tensor.is_contiguous() and tensor.dtype == first.dtype and tensor.data_ptr() == end):
            return False
        end += tensor.nbytes
    return True


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one below another: a view where they lie so in memory, else a copy."""
    first = tensors[0].detach()
    if not _adjoining(tensors):
        return torch.cat([tensor.detach() for tensor in tensors])
    return first.as_strided((sum(len(tensor) for tensor in tensors), *first.shape[1:]), first.stride())


def _dense(linear: FrozenLinear) -> Tensor:
    if isinstance(linear, nn.Linear):
        return linear.weight
    return linear.quantized.dequantize().to(linear.dtype)


def _biases(linears: Sequence[FrozenLinear]) -> Tensor | None:
    if all(linear.bias is None for linear in linears):
        return None
    return torch.cat([
        torch.zeros(linear.out_features, dtype=product_dtype(linear), device=product_device(linear))
        if linear.bias is None else linear.bias
        for linear in linears
    ])  # fmt: skip


def product_dtype(linear: FrozenLinear) -> torch.dtype:
    """The type of a linear layer's inputs and outputs."""
    return linear.weight.dtype if isinstance(linear, nn.Linear) else linear.dtype


def product_device(linear: FrozenLinear) -> torch.device:
    """Where a linear layer lies."""
    return linear.weight.device if isinstance(linear, nn.Linear) else linear.device
