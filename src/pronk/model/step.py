"""Forward and backward of a micro-batch: called directly, or replayed as a CUDA graph.

A small model spends its time in launching kernels: SmolLM2's forward and backward are some seven
thousand. On a GPU they are recorded once for each shape and then launched as one. Shapes are rounded
up, so that few are recorded; what is added belongs to no run and weighs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pronk.model.attention import Lookback, Packing, borders, kernels_of
from pronk.model.attention_kernels import Choice
from pronk.model.forward import (
    DeviceBatch,
    MicroBatch,
    SlotDropout,
    loss_precision,
    moved,
    on_host,
    output_head,
    staged,
    training_loss,
    unstaged,
)
from pronk.model.rounding import Shape, rounded_shape
from pronk.model.whole import Trainable

# Above this size the GPU is busy enough by itself, and a recording would only hold on to memory.
GRAPH_PARAMETERS = 1_000_000_000
GRAPH_TOKENS = 16_384  # the longest micro-batch worth recording
MOST_RECORDINGS = 32
BASE_SLOT = -1
# What losses are multiplied by where gradients are fp16, whose smallest number is 6e-8 (mixed precision,
# Micikevicius et al. 2018, arXiv:1710.03740). A power of two, so that it goes out again without rounding.
FP16_LOSS_SCALE = 2.0**13


@dataclass(slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    piece: Tensor  # the memory of the batch that it reads, from `staged`


def records(parameters: int, kernels: Choice | None) -> bool:
    """Whether steps of a model of this size, which attends with these kernels, are recorded. Where sequences are
    padded by length, no two packs are alike."""
    return kernels is not None and kernels.ragged is not None and parameters < GRAPH_PARAMETERS


@cache
def side_stream() -> torch.cuda.Stream:
    """One for all recordings: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream()


class GradientStep:
    """Adds a micro-batch's gradients to those of the adapter's parameters, and its losses to losses_K (float64: for
    each run the sum of weight · loss over its targets), both `loss_scale` times as large.

    The scale is 1 but in fp16; whoever reads either takes it out first (`take_out_scale`).
    """

    def __init__(self, model: Any, adapter: Trainable, dropout: SlotDropout | None, runs: int) -> None:
        self.model, self.adapter, self.dropout = model, adapter, dropout
        self.precision = loss_precision(model)
        self.device = next(model.parameters()).device
        size = sum(parameter.numel() for parameter in model.parameters())
        self.records = records(size, kernels_of(model))
        self.loss_scale = FP16_LOSS_SCALE if output_head(model).dtype == torch.float16 else 1.0
        self.losses_K = torch.zeros(runs, dtype=torch.float64, device=self.device)
        self._slots_K = torch.arange(runs, device=self.device)
        self._seen: set[Shape] = set()
        self._recordings: dict[Shape, _Recording] = {}
        self._pool: Any = None

    def __call__(self, batch: MicroBatch) -> None:
        """Forward and backward; nobody waits for the device."""
        made = on_host(batch, self.device, self.precision)
        if self.loss_scale != 1:
            made = replace(made, weights_N=made.weights_N * self.loss_scale)
        short = self.records and len(batch.ids_T) <= GRAPH_TOKENS
        shape = _rounded(made) if short else None
        if shape is None or not self._worth_recording(shape):
            self._run(moved(made, self.device))
            return
        padded = _pad(made, shape)
        piece = staged(padded.tensors, pinned=True)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(padded, piece.to(self.device))
        recording = self._recordings[shape]
        recording.piece.copy_(piece, non_blocking=True)
        recording.graph.replay()

    def _worth_recording(self, shape: Shape) -> bool:
        """From the second time on that a shape comes: a recording costs as much as ten steps, and of examples of many
        lengths no two steps may be alike."""
        if shape in self._recordings:
            return True
        known = shape in self._seen
        self._seen.add(shape)
        return known and len(self._recordings) < MOST_RECORDINGS

    def take_out_scale(self, *sums: Tensor) -> None:
        """Divide what was summed with scaled weights (in place); in fp32, so nothing is rounded."""
        if self.loss_scale != 1:
            for tensor in sums:
                tensor.div_(self.loss_scale)

    def forget(self) -> None:
        """Let go of all recordings and of their memory."""
        self._recordings.clear()
        self._seen.clear()
        self._pool = None

    def _run(self, batch: DeviceBatch) -> None:
        loss, losses_N = training_loss(self.model, self.adapter, batch, self.dropout)
        loss.backward()
        own_KN = batch.owners_N == self._slots_K[:, None]
        # a sum along a row has an order; index_add on a GPU has none
        self.losses_K += torch.where(own_KN, losses_N * batch.weights_N, 0).sum(1)

    def _record(self, padded: DeviceBatch, piece: Tensor) -> _Recording:
        """Record a step; targets weigh nothing until it is played, so that the warm-up adds nothing to gradients and
        losses."""
        batch = padded.replaced(unstaged(piece, padded.tensors))
        batch.weights_N.zero_()
        torch.cuda.empty_cache()  # what steps of this stream left is of no use to another
        side = side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside the recording
            self._run(batch)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()  # a recording has memory of its own; that of the warm-up would stay beside it
        graph = torch.cuda.CUDAGraph()
        # thread_local: others may be pinning memory, or letting go of what they have written
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._run(batch)
        self._pool = self._pool or graph.pool()
        return _Recording(graph, piece)


def _rounded(batch: DeviceBatch) -> Shape:
    packing, look = batch.packing, batch.packing.lookback
    seen, longest_seen = (len(look.source_L), look.longest) if look else (0, 0)
    return rounded_shape(
        len(batch.ids_T), len(batch.rows_N), len(packing.lengths_S), packing.longest, seen, longest_seen
    )


def _pad(batch: DeviceBatch, shape: Shape) -> DeviceBatch:
    """The batch in a rounded shape: tokens of the base slot in segments of their own, targets of weight 0."""
    tokens, targets = shape.tokens - len(batch.ids_T), shape.targets - len(batch.rows_N)
    return DeviceBatch(
        ids_T=_grow(batch.ids_T, tokens),
        positions_T=_grow(batch.positions_T, tokens),
        slots_T=_grow(batch.slots_T, tokens, BASE_SLOT),
        keys_T=_grow(batch.keys_T, tokens),
        rows_N=_grow(batch.rows_N, targets),
        targets_N=_grow(batch.targets_N, targets),
        weights_N=_grow(batch.weights_N, targets),
        owners_N=_grow(batch.owners_N, targets, BASE_SLOT),
        packing=_pad_packing(batch.packing, shape, len(batch.ids_T)),
    )


def _pad_packing(packing: Packing, shape: Shape, tokens: int) -> Packing:
    assert packing.borders is not None
    extra = [min(shape.longest, shape.tokens - start) for start in range(tokens, shape.tokens, shape.longest)]
    extra += [0] * (shape.segments - len(packing.lengths_S) - len(extra))
    ends = borders(extra)[1:]
    lookback = None
    if look := packing.lookback:
        padding = torch.arange(tokens, shape.tokens)
        source_L = torch.cat([look.source_L, padding])
        source_L = _grow(source_L, shape.seen - len(source_L), shape.tokens)
        seen = torch.cat([look.borders, look.borders[-1] + ends])
        lookback = Lookback.of(source_L, seen, shape.longest_seen, shape.tokens)
    return Packing((), (), shape.longest, torch.cat([packing.borders, packing.borders[-1] + ends]), lookback)


def _grow(tensor: Tensor, count: int, value: int = 0) -> Tensor:
    return torch.cat([tensor, tensor.new_full((count,), value)])
