"""How the tokens of a micro-batch go through the adapters of a fleet: which tokens meet which rows of A and B.

Names carry shapes: T tokens, R summed ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pronk.model.dropout import DropoutKeys

if TYPE_CHECKING:
    from pronk.model.wide import WideLinear

# On a CPU: stretches of tokens of one run each that are still worth products of their own.
MOST_STRETCHES = 64


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the wide product: some tokens with some rows of A and B.

    On a GPU one block holds everything and the mask M says what belongs together. On a CPU, where small
    products cost nothing extra, each stretch of tokens meets the rows of its own run only.
    """

    tokens: slice
    rows: slice
    foreign_TR: Tensor | None  # where M is zero
    scaling: float | Tensor  # of each row; one number where all agree

    def product(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """(left · right) ∘ M, except that a zero of M also stops what is not finite: 0 · inf is NaN, and
        a run whose weights have grown without bound must not reach the tokens of another."""
        if isinstance(self.scaling, float):
            h_TR = torch.addmm(left.new_empty(1), left, right, beta=0, alpha=self.scaling, out=out)
        else:
            h_TR = torch.mm(left, right, out=out).mul_(self.scaling)
        return h_TR if self.foreign_TR is None else h_TR.masked_fill_(self.foreign_TR, 0)


class Route:
    """How the tokens of one micro-batch go through the adapters. A backward pass, and a layer that is computed
    again, keep the route of their forward pass."""

    def __init__(self, slots_T: Tensor, dropout: DropoutKeys | None) -> None:
        self.slots_T, self.dropout = slots_T, dropout
        self._stretches = _stretches(slots_T) if slots_T.device.type == "cpu" else None
        self._blocks: dict[tuple[tuple[int, ...], int], list[Block]] = {}

    def blocks(self, layer: WideLinear, times: int = 1) -> list[Block]:
        """The blocks of a layer's product; made once per micro-batch for all layers that the same runs adapt.

        times: for so many layers side by side, whose columns are those of one, again and again.
        """
        if (layer.owners, times) not in self._blocks:
            self._blocks[layer.owners, times] = self._made(layer, times)
        return self._blocks[layer.owners, times]

    @property
    def in_one_block(self) -> bool:
        """Whether every product is one, and its adapters may be those of several layers."""
        return self._stretches is None and self.dropout is None

    def _made(self, layer: WideLinear, times: int) -> list[Block]:
        if self._stretches is None:
            foreign_TR = self.slots_T[:, None] != layer.owners_R.repeat(times)
            scaling = layer.scaling if isinstance(layer.scaling, float) else layer.scaling.repeat(times)
            return [Block(slice(None), slice(None), foreign_TR, scaling)]
        return [
            Block(tokens, layer.rows[slot], None, layer.scaling_of[slot])
            for slot, tokens in self._stretches
            if slot in layer.rows
        ]


class Routing:
    """The route of the current micro-batch, shared by all wide layers."""

    route: Route | None = None

    def set(self, slots_T: Tensor, dropout: DropoutKeys | None = None) -> None:
        """slots_T: int64, the slot of each token, in the order of the flattened hidden states."""
        self.route = Route(slots_T, dropout)


def _stretches(slots_T: Tensor) -> list[tuple[int, slice]] | None:
    """Slot and tokens of each run of equal slots; None if there are too many for products of their own."""
    slots, counts = torch.unique_consecutive(slots_T, return_counts=True)
    if len(slots) > MOST_STRETCHES:
        return None
    ends = counts.cumsum(0).tolist()
    return [
        (slot, slice(end - count, end)) for slot, end, count in zip(slots.tolist(), ends, counts.tolist(), strict=True)
    ]
