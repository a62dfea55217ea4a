"""The fused AdamW against torch.optim.AdamW and clip_grad_norm_, a pair for each run, in float64: the plain form and
the Triton one (by Triton's interpreter). Faults are planted in what the kernels are told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from interpreted import TARGETS, compiled, interpreted
from torch import Tensor, nn

import pronk.model.kernels.adamw as adamw
from pronk.model.kernels.adamw import Blocks, Moments, Rule, Span, rule_table

# numpy, in the interpreter
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")

EXACT = 1e-12
CPU = torch.device("cpu")
LENGTH = 8192
# three runs, their rows side by side as in a wide tensor; some longer than a block, some no multiple of anything
SPANS = [
    Span(0, 1500, 0, 0), Span(1500, 1600, 1, 0), Span(1600, 2700, 2, 0),
    Span(2752, 2800, 0, 1), Span(2800, 5001, 1, 1), Span(5001, 5100, 2, 1),
    Span(5120, 7000, 2, 0), Span(7040, 7047, 2, 1),
]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run's settings, and the rounds in which it takes part."""

    rate: float
    decay: float
    clip: float | None
    ratio: float
    rounds: range


RUNS = [
    Run(1e-2, 0.0, None, 1.0, range(0, 7)),
    Run(3e-3, 0.1, 0.5, 4.0, range(0, 4)),
    Run(1e-1, 0.3, 2.0, 16.0, range(2, 7)),
]
FACTORS = [0.0, 0.5, 1.0, 1.0, 0.7, 0.1, 1.0]


@cache
def kernels(form: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """gradient_norms and update."""
    if form == "plain":
        return adamw.gradient_norms_plain, adamw.update_plain
    module = interpreted("triton_adamw")
    return module.gradient_norms, module.update


def draw(seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul_(scale).to(dtype)


def cut(spans: list[Span]) -> Blocks:
    blocks = Blocks(spans, len(RUNS), CPU)
    blocks.cut()
    return blocks


def nothing(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Fault:
    """What is changed on the way to the kernels: the norms, the rules of a round, the spans."""

    norms: Callable[[Tensor], Tensor] = nothing
    rules: Callable[[list[Rule]], list[Rule]] = nothing
    spans: Callable[[list[Span]], list[Span]] = nothing
    steps: Callable[[int, int], int] = lambda own, _: own


def swapped(rules: list[Rule]) -> list[Rule]:
    return [replace(rule, step_A=rule.step_B, step_B=rule.step_A) for rule in rules]


def decayed(rules: list[Rule]) -> list[Rule]:
    return [rule if rule.active else Rule(plays=1.0, active=1.0, kept_A=0.999, kept_B=0.999) for rule in rules]


FAULTS = {
    "one clip for all": Fault(norms=lambda norms_K: norms_K.norm().expand(3).contiguous()),
    "one count of updates": Fault(steps=lambda _, together: together),
    "LoRA+ on A": Fault(rules=swapped),
    "decay of a run that is out": Fault(rules=decayed),
    "a block across runs": Fault(spans=lambda spans: [replace(spans[0], stop=spans[0].stop + 1), *spans[1:]]),
}


def play(form: str, fault: Fault) -> tuple[Tensor, Moments, list[Tensor], list[Tensor]]:
    """Weights and moments in the end; norms and largest weights of each round."""
    gradient_norms, update = kernels(form)
    weights_N, moments = draw(100), Moments(torch.zeros(LENGTH).double(), torch.zeros(LENGTH).double())
    blocks = cut(fault.spans(SPANS))
    norms, largest = [], []
    for step, factor in enumerate(FACTORS):
        gradients_N = draw(step, 10.0 if step % 2 else 0.001)
        norms.append(gradient_norms(gradients_N, blocks))
        rules = []
        for run in RUNS:
            rate = run.rate * factor
            count = fault.steps(step - run.rounds.start + 1, step + 1)
            active = step in run.rounds
            rules.append(Rule.of(rate, rate * run.ratio, run.decay, run.clip, count) if active else Rule())
        table = rule_table(fault.rules(rules))
        losses_K = torch.ones(3).double()
        largest.append(update(weights_N, gradients_N, moments, blocks, table, losses_K, fault.norms(norms[-1].clone())))
    return weights_N, moments, norms, largest


@cache
def expected() -> tuple[Tensor, Moments, list[Tensor], list[Tensor]]:
    """The same by PyTorch, each run's rows in tensors of their own."""
    weights_N, moments = draw(100), Moments(torch.zeros(LENGTH).double(), torch.zeros(LENGTH).double())
    own = [{span: nn.Parameter(weights_N[span.start : span.stop].clone()) for span in SPANS if span.slot == slot}
           for slot in range(3)]  # fmt: skip
    optimizers = []
    for run, parts in zip(RUNS, own, strict=True):
        groups = [{"params": [p for s, p in parts.items() if s.part == part], "peak": run.rate * ratio}
                  for part, ratio in ((0, 1.0), (1, run.ratio))]  # fmt: skip
        optimizers.append(torch.optim.AdamW(groups, weight_decay=run.decay))
    norms, largest = [], []
    for step, factor in enumerate(FACTORS):
        gradients_N, found = draw(step, 10.0 if step % 2 else 0.001), []
        for run, parts, optimizer in zip(RUNS, own, optimizers, strict=True):
            for span, parameter in parts.items():
                parameter.grad = gradients_N[span.start : span.stop].clone()
            found.append(nn.utils.clip_grad_norm_(parts.values(), run.clip or math.inf))
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            if step in run.rounds:
                optimizer.step()
        norms.append(torch.stack(found))
        largest.append(torch.stack([max(p.detach().abs().max() for p in parts.values()) for parts in own]))
    for parts, optimizer in zip(own, optimizers, strict=True):
        for span, parameter in parts.items():
            where = slice(span.start, span.stop)
            weights_N[where] = parameter.data
            moments.exp_avg_N[where] = optimizer.state[parameter]["exp_avg"]
            moments.exp_avg_sq_N[where] = optimizer.state[parameter]["exp_avg_sq"]
    return weights_N, moments, norms, largest


def check(form: str, fault: Fault) -> None:
    (weights_N, moments, norms, largest), theirs = play(form, fault), expected()
    for one, other in (
        (weights_N, theirs[0]),
        (moments.exp_avg_N, theirs[1].exp_avg_N),
        (moments.exp_avg_sq_N, theirs[1].exp_avg_sq_N),
        (torch.stack(norms), torch.stack(theirs[2])),
        (torch.stack(largest), torch.stack(theirs[3])),
    ):
        assert (one - other).abs().max() < EXACT * max(1.0, float(other.abs().max()))
    covered = torch.zeros(LENGTH, dtype=torch.bool)
    for span in SPANS:
        covered[span.start : span.stop] = True
    assert torch.equal(weights_N[~covered], draw(100)[~covered])


@pytest.mark.parametrize("form", ["plain", "triton"])
def test_steps_are_those_of_adamw_and_clipping(form: str) -> None:
    check(form, Fault())


@pytest.mark.parametrize("form", ["plain", "triton"])
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_shows(form: str, fault: str) -> None:
    with pytest.raises(AssertionError):
        check(form, FAULTS[fault])


def one_round(
    form: str, losses: list[float], norms: list[float] | None, rules: list[Rule], gradient: float = 0.1
) -> tuple[bool, Tensor]:
    """Whether anything was updated, and the largest weights."""
    gradient_norms, update = kernels(form)
    weights_N, gradients_N = draw(1, dtype=torch.float32), draw(2, gradient, torch.float32)
    moments = Moments(torch.zeros(LENGTH), torch.zeros(LENGTH))
    blocks = cut(SPANS)
    norms_K = gradient_norms(gradients_N, blocks) if norms is None else torch.tensor(norms).double()
    losses_K = torch.tensor(losses).double()
    largest_K = update(weights_N, gradients_N, moments, blocks, rule_table(rules), losses_K, norms_K)
    same = torch.equal(weights_N, draw(1, dtype=torch.float32)) and not moments.exp_avg_N.any()
    return not same, largest_K


MOVES, WATCHES = Rule.of(0.1, 0.1, 0.0, None, 1), Rule(plays=1.0)


@pytest.mark.parametrize("form", ["plain", "triton"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("last", [MOVES, WATCHES], ids=["updated", "another's"])
def test_nobody_is_updated_where_a_run_that_plays_is_not_finite(form: str, bad: float, last: Rule) -> None:
    good = [1.0, 1.0, 1.0]
    assert not one_round(form, [1.0, 1.0, bad], good, [MOVES, Rule(), last])[0]
    assert not one_round(form, good, [1.0, 1.0, bad], [MOVES, Rule(), last])[0]
    assert one_round(form, [1.0, bad, 1.0], [1.0, bad, 1.0], [MOVES, Rule(), last])[0], "a run that is out has no say"


@pytest.mark.parametrize("form", ["plain", "triton"])
def test_a_gradient_whose_square_is_infinite_never_reaches_the_moments(form: str) -> None:
    assert one_round(form, [1.0] * 3, None, [MOVES] * 3)[0]
    assert not one_round(form, [1.0] * 3, None, [MOVES] * 3, gradient=1e20)[0]


@pytest.mark.parametrize("form", ["plain", "triton"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_told_of_its_run_alone(form: str, bad: float) -> None:
    gradient_norms, update = kernels(form)
    blocks, rules = cut(SPANS), rule_table([Rule()] * 3)
    weights_N, moments = draw(1), Moments(torch.zeros(LENGTH).double(), torch.zeros(LENGTH).double())
    for place in (1500, 2800, 5000):  # the first and the last of run 1's
        spoilt = weights_N.clone()
        spoilt[place] = bad
        ones = torch.ones(3).double()
        largest_K = update(spoilt, spoilt, moments, blocks, rules, ones, ones)
        for found in (largest_K, gradient_norms(spoilt, blocks)):
            assert found.isfinite().tolist() == [True, False, True]
        assert bool(largest_K[1].isnan()) == math.isnan(bad)


@pytest.mark.parametrize("form", ["plain", "triton"])
def test_a_runs_norm_has_the_same_bits_in_any_company(form: str) -> None:
    gradient_norms, _ = kernels(form)
    gradients_N = draw(3, dtype=torch.float32)
    together = gradient_norms(gradients_N, cut(SPANS))
    for slot in range(3):
        alone = gradient_norms(gradients_N, cut([span for span in SPANS if span.slot == slot] + _far(slot)))
        assert alone[slot] == together[slot]


def _far(slot: int) -> list[Span]:
    return [Span(8000 + other, 8001 + other, other, 0) for other in range(3) if other != slot]


def test_no_block_holds_values_of_two_runs() -> None:
    blocks, owner = cut(SPANS), torch.full((LENGTH,), -1)
    for span in SPANS:
        owner[span.start : span.stop] = span.slot
    seen = torch.zeros(LENGTH)
    for start, count, slot in zip(blocks.starts_P, blocks.counts_P, blocks.slots_P, strict=True):
        assert (owner[start : start + count] == slot).all()
        seen[start : start + count] += 1
    assert torch.equal(seen, (owner >= 0).float())


POINTERS = {
    "starts": "*i64", "counts": "*i32", "slots": "*i32", "parts": "*i32", "firsts": "*i32",
    "rules": "*fp64", "losses": "*fp64", "norms": "*fp64", "largest": "*fp64", "runs": "i32",
}  # fmt: skip


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_kernels_compile_without_a_gpu(capability: int, kind: str) -> None:
    language = pytest.importorskip("triton.language")
    values = dict.fromkeys(("values", "weights", "gradients", "exp_avgs", "exp_avg_sqs"), f"*{kind}")
    sizes = {"ALIGNMENT": 16, "BLOCK": adamw.BLOCK}

    def built(kernel: str, partial: str, **constants: Any) -> Any:
        names = POINTERS | values | {"partial": f"*{partial}"}
        types = {name: names[name] for name in arguments(kernel) if name in names}
        return compiled("triton_adamw", kernel, capability, types, constants)

    built("update_kernel", kind, COLUMNS=11, RUNS=8, **sizes)
    built("squares_kernel", "fp64", **sizes)
    built("root_kernel", "fp64", KIND=language.float32 if kind == "fp32" else language.float64, CHUNK=1024)
    built("largest_kernel", kind, CHUNK=1024)


def arguments(kernel: str) -> list[str]:
    """The names of a kernel's arguments."""
    from pronk.model.kernels import triton_adamw

    return list(getattr(triton_adamw, kernel).arg_names)
