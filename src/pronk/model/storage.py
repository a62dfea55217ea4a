"""Where a fleet's A and B lie: all in one flat tensor, their gradients in another, their rounded copies in a third.

One kernel then updates, rounds, measures or zeroes everything. Matrices that read the same input lie side by side,
so that the A's of, say, q_proj, k_proj and v_proj are one matrix of all their rows, for one product.
Names carry shapes: N everything that is trained, with padding; R rows, I columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

ALIGNMENT = 64  # elements: each block of neighbours begins at a multiple of so many; what lies between is zero


@dataclass(frozen=True, slots=True)
class Place:
    """Where a matrix lies in a flat tensor."""

    start: int
    rows: int
    columns: int

    @property
    def stop(self) -> int:
        return self.start + self.rows * self.columns

    def of(self, flat_N: Tensor) -> Tensor:
        """The matrix in a flat tensor: a view (rows × columns)."""
        return flat_N[self.start : self.stop].view(self.rows, self.columns)


def lay_out(blocks: Sequence[Sequence[tuple[int, int]]]) -> tuple[list[Place], int]:
    """Places for blocks of matrices (rows, columns), in order, and the length of all. In a block no padding parts
    one matrix from the next; if the columns are a multiple of ALIGNMENT, so is every beginning."""
    places, start = [], 0
    for block in blocks:
        start = -(-start // ALIGNMENT) * ALIGNMENT
        for rows, columns in block:
            places.append(Place(start, rows, columns))
            start = places[-1].stop
    return places, -(-start // ALIGNMENT) * ALIGNMENT


def adjoining(places: Sequence[Place]) -> Place | None:
    """Matrices that follow one another as one matrix of all their rows; None if they do not."""
    if any(one.stop != other.start or one.columns != other.columns for one, other in pairwise(places)):
        return None
    return Place(places[0].start, sum(place.rows for place in places), places[0].columns)


class FlatStorage:
    """Weights, fp32 or better, zero at first; their rounded copies for products; their gradients, once allocated."""

    def __init__(self, length: int, product_dtypes: Sequence[torch.dtype], device: torch.device | None) -> None:
        precision = torch.float32
        for dtype in product_dtypes:
            precision = torch.promote_types(precision, dtype)
        self.weights_N = torch.zeros(length, dtype=precision, device=device)
        self.gradients_N: Tensor | None = None
        self._copies = {
            dtype: self.weights_N.to(dtype) for dtype in dict.fromkeys(product_dtypes) if dtype != precision
        }

    def copy(self, dtype: torch.dtype) -> Tensor:
        """The weights for products in dtype (N): rounded when last settled, or the weights themselves."""
        return self._copies.get(dtype, self.weights_N)

    def settle(self) -> None:
        """Round the weights anew, after they have changed."""
        for copy_N in self._copies.values():
            copy_N.copy_(self.weights_N)

    def gradients(self) -> Tensor:
        """The gradients (N), in the weights' precision; allocated, as zeros, when they are first asked for."""
        if self.gradients_N is None:
            self.gradients_N = torch.zeros_like(self.weights_N)
        return self.gradients_N
