"""The fused AdamW as Triton kernels: a program for a block of one run's values; sums of a run in a second stage,
block after block, so that they come out the same every time."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pronk.model.kernels.adamw import BLOCK, Blocks, Moments

CHUNK = 1024  # blocks whose sums are read at once


def gradient_norms(gradients_N: Tensor, blocks: Blocks) -> Tensor:
    """As `adamw.gradient_norms`."""
    partial_P = torch.empty(len(blocks.starts_P), dtype=torch.float64, device=gradients_N.device)
    if len(partial_P):
        squares_kernel[(len(partial_P),)](
            gradients_N, blocks.starts_P, blocks.counts_P, partial_P, ALIGNMENT=blocks.alignment, BLOCK=BLOCK
        )
    norms_K = torch.empty(blocks.runs, dtype=torch.float64, device=gradients_N.device)
    kind = tl.float64 if gradients_N.dtype == torch.float64 else tl.float32
    root_kernel[(blocks.runs,)](partial_P, blocks.firsts, norms_K, KIND=kind, CHUNK=CHUNK)
    return norms_K


def update(
    weights_N: Tensor, gradients_N: Tensor, moments: Moments, blocks: Blocks,
    rules_KC: Tensor, losses_K: Tensor, norms_K: Tensor,
) -> Tensor:  # fmt: skip
    """As `adamw.update`, with the rules on the device."""
    partial_P = torch.empty(len(blocks.starts_P), dtype=weights_N.dtype, device=weights_N.device)
    if len(partial_P):
        update_kernel[(len(partial_P),)](
            weights_N, gradients_N, moments.exp_avg_N, moments.exp_avg_sq_N,
            blocks.starts_P, blocks.counts_P, blocks.slots_P, blocks.parts_P,
            rules_KC, losses_K, norms_K, partial_P, blocks.runs,
            COLUMNS=rules_KC.shape[1], RUNS=max(2, triton.next_power_of_2(blocks.runs)),
            ALIGNMENT=blocks.alignment, BLOCK=BLOCK,
        )  # fmt: skip
    largest_K = torch.empty(blocks.runs, dtype=torch.float64, device=weights_N.device)
    largest_kernel[(blocks.runs,)](partial_P, blocks.firsts, largest_K, CHUNK=CHUNK)
    return largest_K


@triton.jit
def place(starts, counts, block, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr):
    """Where a block's values lie, and which of BLOCK are there."""
    within = tl.arange(0, BLOCK)
    start = tl.multiple_of(tl.load(starts + block), ALIGNMENT)
    return start + within, within < tl.multiple_of(tl.load(counts + block), ALIGNMENT)


@triton.jit
def squares_kernel(values, starts, counts, partial, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    at, there = place(starts, counts, block, ALIGNMENT, BLOCK)
    value = tl.load(values + at, mask=there, other=0.0).to(tl.float64)
    tl.store(partial + block, tl.sum(value * value))


@triton.jit
def root_kernel(partial, firsts, norms, KIND: tl.constexpr, CHUNK: tl.constexpr):
    run = tl.program_id(0)
    start, last = tl.load(firsts + run), tl.load(firsts + run + 1)
    total = tl.zeros((CHUNK,), tl.float64)
    while start < last:  # Triton's interpreter has no range between numbers that were loaded
        block = start + tl.arange(0, CHUNK)
        total += tl.load(partial + block, mask=block < last, other=0.0)
        start += CHUNK
    # infinite where squares are in the precision of the moments, which are to stay finite
    tl.store(norms + run, tl.sqrt(tl.sum(total).to(KIND)).to(tl.float64))


@triton.jit
def largest_kernel(partial, firsts, largest, CHUNK: tl.constexpr):
    run = tl.program_id(0)
    start, last = tl.load(firsts + run), tl.load(firsts + run + 1)
    most = tl.zeros((CHUNK,), tl.float64)
    while start < last:
        block = start + tl.arange(0, CHUNK)
        value = tl.load(partial + block, mask=block < last, other=0.0).to(tl.float64)
        most = tl.where((value > most) | (value != value), value, most)  # a NaN stays
        start += CHUNK
    tl.store(largest + run, most_of(most))


@triton.jit
def most_of(values):
    """The largest value; NaN, which a maximum may pass over, if there is one."""
    strange = tl.max((values != values).to(tl.int32), axis=0) > 0
    return tl.where(strange, float("nan"), tl.max(values, axis=0))


@triton.jit
def update_kernel(
    weights, gradients, exp_avgs, exp_avg_sqs, starts, counts, slots, parts,
    rules, losses, norms, partial, runs,
    COLUMNS: tl.constexpr, RUNS: tl.constexpr, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    slot, part = tl.load(slots + block), tl.load(parts + block)
    rule = rules + slot * COLUMNS  # the columns are the fields of adamw.Rule
    other = tl.arange(0, RUNS)
    plays = tl.load(rules + other * COLUMNS, mask=other < runs, other=0.0) != 0
    loss = tl.load(losses + other, mask=plays, other=0.0)
    norm = tl.load(norms + other, mask=plays, other=0.0)
    broken = tl.max(((loss - loss != 0) | (norm - norm != 0)).to(tl.int32), axis=0)  # inf - inf is NaN
    at, there = place(starts, counts, block, ALIGNMENT, BLOCK)
    weight = tl.load(weights + at, mask=there, other=0.0)
    if (tl.load(rule + 1) != 0) & (broken == 0):
        kind = weight.dtype
        factor = tl.minimum(tl.load(rule + 2) / (tl.load(norms + slot) + 1e-6), 1.0).to(kind)
        kept, step = tl.load(rule + 3 + part).to(kind), tl.load(rule + 5 + part).to(kind)
        root, fresh = tl.load(rule + 7).to(kind), tl.load(rule + 8).to(kind)
        fresh_square, epsilon = tl.load(rule + 9).to(kind), tl.load(rule + 10).to(kind)
        gradient = tl.load(gradients + at, mask=there, other=0.0) * factor
        exp_avg = tl.load(exp_avgs + at, mask=there, other=0.0)
        exp_avg += (gradient - exp_avg) * fresh
        exp_avg_sq = tl.load(exp_avg_sqs + at, mask=there, other=0.0)
        exp_avg_sq += (gradient * gradient - exp_avg_sq) * fresh_square
        weight = weight * kept - step * exp_avg / (tl.sqrt(exp_avg_sq) / root + epsilon)
        tl.store(weights + at, weight, mask=there)
        tl.store(exp_avgs + at, exp_avg, mask=there)
        tl.store(exp_avg_sqs + at, exp_avg_sq, mask=there)
    tl.store(partial + block, most_of(tl.where(there, tl.abs(weight), 0.0)))
