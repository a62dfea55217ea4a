"""Whether two sides of a bench did the same: no ratio is given between sides that did not.

A loss says little where a base has random weights: it is near the logarithm of the vocabulary, whatever is
computed. Its gradient is another matter: its norm hangs on ranks, scalings, masks, attention and every matrix on
the way. So losses and gradient norms must both agree, step by step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pronk.doctor.peers.work import Result


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest differences, as shares of the other side's figure: of the first step's loss, which is before any
    update; of all losses; of gradient norms."""

    first_loss: float
    loss: float
    norm: float


# What rounding makes. fp32: over 100 steps 0.00004 and 0.0004 were seen (docs/performance.md). bf16: a product is
# off by a part in 500, and a norm over millions of entries sums such errors in quadrature, so that what is left are
# the few parts in a hundred by which updates, then weights, drift apart. Half the rank, or twice the scaling, moves
# a norm by a third and more.
TOLERANCE = {"fp32": Tolerance(1e-3, 1e-3, 1e-2), "bf16": Tolerance(1e-2, 5e-2, 5e-2)}
# For settings of our own that round more on purpose, such as products in 8 bits (a part in 30 each).
COARSE = Tolerance(2e-2, 5e-2, 0.2)


def disagreement(theirs: Result, ours: Result, tolerance: Tolerance) -> str:
    """Why a side did not do what ours did, in words; empty where it did."""
    for whose, result in (("its", theirs), ("pronk's", ours)):
        if not all(math.isfinite(norm) and norm > 0 for norm in result.gradient_norms):
            return f"{whose} gradient norms are zero or not numbers: {_listed(result.gradient_norms)}"
    counts = [len(row) for result in (theirs, ours) for row in (result.losses, result.gradient_norms)]
    if len(set(counts)) > 1 or not counts[0]:
        return f"it made {counts[0]} steps and pronk {counts[2]}"
    checks = (
        ("first losses", theirs.losses[:1], ours.losses[:1], tolerance.first_loss),
        ("losses", theirs.losses, ours.losses, tolerance.loss),
        ("gradient norms", theirs.gradient_norms, ours.gradient_norms, tolerance.norm),
    )
    for what, its, own, allowed in checks:
        if not (apart := largest_difference(its, own)) <= allowed:
            return f"the {what} differ by {apart:.2%}, more than {allowed:.1%}:\n{_listed(its)}\npronk: {_listed(own)}"
    return ""


def largest_difference(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Of two rows of figures, as a share of ours; not a number where one of them is not."""
    apart = [abs(a - b) / abs(b) if b else math.inf for a, b in zip(theirs, ours, strict=True)]
    return math.nan if any(math.isnan(one) for one in apart) else max(apart)


def _listed(figures: Sequence[float]) -> str:
    return " ".join(f"{figure:.5g}" for figure in figures)
