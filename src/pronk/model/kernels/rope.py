"""Rotary positions (Su et al. 2021, arXiv:2104.09864), in the layout of Llama: a head's two halves are a pair.

Shapes: T tokens, C columns of all heads side by side, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_(heads_TC: Tensor, cos_TD: Tensor, sin_TD: Tensor, back: bool = False) -> None:
    """Turn each head of each token by its position, in place; back: the other way, which is the gradient.

    cos, sin: as transformers gives them, the two halves alike. Rows of heads may lie apart.
    """
    if heads_TC.is_cuda:
        from pronk.model.kernels.triton_rope import turn_

        turn_(heads_TC, cos_TD, sin_TD, back)
    else:
        rotate_plain_(heads_TC, cos_TD, sin_TD, back)


def rotate_plain_(heads_TC: Tensor, cos_TD: Tensor, sin_TD: Tensor, back: bool = False) -> None:
    """`rotate_` in plain PyTorch."""
    precision = torch.promote_types(heads_TC.dtype, torch.float32)
    heads_TND = heads_TC.unflatten(-1, (-1, cos_TD.shape[-1])).to(precision)
    cos_T1D, sin_T1D = cos_TD[:, None].to(precision), sin_TD[:, None].to(precision)
    first, second = heads_TND.chunk(2, dim=-1)
    turned_TND = torch.cat([-second, first], dim=-1)
    sign = -1 if back else 1
    heads_TC.copy_((heads_TND * cos_T1D + sign * turned_TND * sin_T1D).flatten(-2))
