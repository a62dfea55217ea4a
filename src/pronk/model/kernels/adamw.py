"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) for all runs of a fleet in one pass, each with its own settings.

All that is trained lies in one flat tensor, cut into blocks, none of which holds values of two runs. What a run
needs for its next update is a row of numbers (Rule). Whether an update is made at all is decided on the device:
it is not where a loss or a gradient norm of a run that takes part is not finite; so the host need not wait.
Names carry shapes: N everything that is trained, P blocks, K runs, C numbers of a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

BLOCK = 1024  # values that one program of a kernel updates
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the flat tensor that belongs to one run: rows of its A (part 0) or of its B (part 1)."""

    start: int
    stop: int
    slot: int
    part: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What a run's next update takes besides its gradient.

    plays: whether its loss and its norm count; active: whether it is updated here, which not all are that play.
    kept: what decay leaves of a weight (of A, of B); step: learning rate over the first moment's bias correction;
    spread: root of the second moment's. clip: the largest gradient norm, infinite for none. fresh: the share of a new
    gradient, and of its square, in the running means.
    """

    plays: float = 0.0
    active: float = 0.0
    clip: float = math.inf
    kept_A: float = 1.0
    kept_B: float = 1.0
    step_A: float = 0.0
    step_B: float = 0.0
    spread: float = 1.0
    fresh: float = 1 - BETA_1
    fresh_square: float = 1 - BETA_2
    epsilon: float = EPSILON

    @classmethod
    def of(cls, rate_A: float, rate_B: float, decay: float, clip: float | None, step: int) -> Rule:
        """The rule of update number `step` (from 1) with these learning rates."""
        first, second = 1 - BETA_1**step, 1 - BETA_2**step
        return cls(
            1.0, 1.0, math.inf if clip is None else clip, 1 - rate_A * decay, 1 - rate_B * decay,
            rate_A / first, rate_B / first, math.sqrt(second),
        )  # fmt: skip


def rule_table(rules: Sequence[Rule]) -> Tensor:
    """Rules as one tensor (K × C) of float64 on the CPU."""
    return torch.tensor([astuple(rule) for rule in rules], dtype=torch.float64)


class Blocks:
    """The flat tensor's spans, run by run, and on a GPU the blocks that they are cut into.

    starts_P: int64; counts_P, slots_P, parts_P: int32; firsts: int32 (K + 1), where each run's blocks begin.
    """

    def __init__(self, spans: Sequence[Span], runs: int, device: torch.device) -> None:
        self.runs, self.device = runs, device
        self.spans = [[span for span in spans if span.slot == slot] for slot in range(runs)]
        if device.type == "cuda":
            self.cut()

    def cut(self) -> None:
        """Make the map from blocks to runs that kernels read."""
        starts, counts, slots, parts, firsts = [], [], [], [], [0]
        for own in self.spans:
            for span in own:
                for start in range(span.start, span.stop, BLOCK):
                    starts.append(start)
                    counts.append(min(BLOCK, span.stop - start))
                    slots.append(span.slot)
                    parts.append(span.part)
            firsts.append(len(starts))
        self.starts_P = torch.tensor(starts, dtype=torch.int64, device=self.device)
        self.counts_P, self.slots_P, self.parts_P, self.firsts = (
            torch.tensor(values, dtype=torch.int32, device=self.device) for values in (counts, slots, parts, firsts)
        )
        # what all beginnings and lengths are multiples of, up to what one thread can load at once
        self.alignment = math.gcd(16, *starts, *counts)


@dataclass(frozen=True, slots=True)
class Moments:
    """Running means of gradients and of their squares, in the layout of the weights (N)."""

    exp_avg_N: Tensor
    exp_avg_sq_N: Tensor


def gradient_norms(gradients_N: Tensor, blocks: Blocks) -> Tensor:
    """L2 norm of each run's gradient, float64 (K); not finite if any part of it is not, or if its square is not in
    the gradients' own precision, which is that of the second moments. Sums have a fixed order for each run."""
    if gradients_N.is_cuda:
        from pronk.model.kernels.triton_adamw import gradient_norms as on_a_gpu

        return on_a_gpu(gradients_N, blocks)
    return gradient_norms_plain(gradients_N, blocks)


def update(
    weights_N: Tensor, gradients_N: Tensor, moments: Moments, blocks: Blocks,
    rules_KC: Tensor, losses_K: Tensor, norms_K: Tensor,
) -> Tensor:  # fmt: skip
    """Update the active runs in place, if losses and norms (float64) of all of them are finite; none otherwise.

    rules_KC: from `rule_table`, on the CPU. Returns the largest absolute weight of each run afterwards, float64 (K);
    not finite if any weight is not. What it says of runs that are not active has no meaning.
    """
    if weights_N.is_cuda:
        from pronk.model.kernels.triton_adamw import update as on_a_gpu

        return on_a_gpu(weights_N, gradients_N, moments, blocks, _moved(rules_KC, blocks), losses_K, norms_K)
    return update_plain(weights_N, gradients_N, moments, blocks, rules_KC, losses_K, norms_K)


def gradient_norms_plain(gradients_N: Tensor, blocks: Blocks) -> Tensor:
    """`gradient_norms` in plain PyTorch."""
    squares_K = _of_each_run(blocks, gradients_N, lambda values: values.square().sum(dtype=torch.float64), torch.sum)
    return squares_K.to(gradients_N.dtype).sqrt().double()


def update_plain(
    weights_N: Tensor, gradients_N: Tensor, moments: Moments, blocks: Blocks,
    rules_KC: Tensor, losses_K: Tensor, norms_K: Tensor,
) -> Tensor:  # fmt: skip
    """`update` in plain PyTorch."""
    rules = [Rule(*row) for row in rules_KC.tolist()]
    plays = [slot for slot, rule in enumerate(rules) if rule.plays]
    if bool(torch.isfinite(torch.stack([losses_K, norms_K])[:, plays]).all()):
        for slot in (slot for slot in plays if rules[slot].active):
            rule = rules[slot]
            factor = min(1.0, rule.clip / (float(norms_K[slot]) + 1e-6))  # as torch.nn.utils.clip_grad_norm_
            for span in blocks.spans[slot]:
                where = slice(span.start, span.stop)
                kept, step = (rule.kept_B, rule.step_B) if span.part else (rule.kept_A, rule.step_A)
                gradient = gradients_N[where] * factor
                exp_avg = moments.exp_avg_N[where].lerp_(gradient, rule.fresh)
                exp_avg_sq = moments.exp_avg_sq_N[where].lerp_(gradient.square_(), rule.fresh_square)
                spread = exp_avg_sq.sqrt().div_(rule.spread).add_(rule.epsilon)
                weights_N[where].mul_(kept).sub_((exp_avg / spread).mul_(step))
    return _of_each_run(blocks, weights_N, lambda values: values.abs().amax().double(), torch.amax)


def _of_each_run(blocks: Blocks, flat_N: Tensor, measure: Measure, join: Measure) -> Tensor:
    """What a measure says of each span of a run, joined (K)."""
    found = [[measure(flat_N[span.start : span.stop]) for span in own] for own in blocks.spans]
    return torch.stack([join(torch.stack(values)) for values in found])


def _moved(table: Tensor, blocks: Blocks) -> Tensor:
    """A small table on the blocks' GPU; nobody waits for the copy."""
    return table.pin_memory().to(blocks.device, non_blocking=True)
