"""Forward and backward of a micro-batch: called directly, or replayed as a CUDA graph.

A small model spends its time in launching kernels: SmolLM2's forward and backward are some seven
thousand. On a GPU they are recorded once for each shape and then launched as one. Shapes are rounded
up, so that few are recorded; what is added belongs to no run and weighs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pronk.model.adapter import WideAdapter
from pronk.model.attention import Packing
from pronk.model.forward import (
    DeviceBatch,
    MicroBatch,
    SlotDropout,
    loss_precision,
    output_head,
    to_device,
    training_loss,
)

# Above this size the GPU is busy enough by itself, and a recording would only hold on to memory.
GRAPH_PARAMETERS = 1_000_000_000
GRAPH_TOKENS = 16_384  # the longest micro-batch worth recording
ROUND_TOKENS, ROUND_TARGETS, ROUND_SEQUENCES, ROUND_LONGEST = 512, 128, 32, 128
BASE_SLOT = -1


@dataclass(frozen=True, slots=True)
class _Shape:
    tokens: int
    targets: int
    sequences: int
    longest: int


@dataclass(slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    batch: DeviceBatch
    losses_N: Tensor


class GradientStep:
    """Adds a micro-batch's gradients to those of the adapter's parameters."""

    def __init__(self, model: Any, adapter: WideAdapter, dropout: SlotDropout | None) -> None:
        self.model, self.adapter, self.dropout = model, adapter, dropout
        self.precision = loss_precision(model)
        self.device = next(model.parameters()).device
        size = sum(parameter.numel() for parameter in model.parameters())
        # one call attends to a whole pack in half precision only; else there is a call per sequence
        half = output_head(model).dtype in (torch.bfloat16, torch.float16)
        self.records = self.device.type == "cuda" and half and size < GRAPH_PARAMETERS
        self._recordings: dict[_Shape, _Recording] = {}
        self._pool: Any = None

    def __call__(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """The loss and the weight of each target (N); gradients are accumulated."""
        moved = to_device(batch, self.device, self.precision)
        if not self.records or len(batch.ids_T) > GRAPH_TOKENS:
            return self._run(moved), moved.weights_N
        shape = _rounded(batch)
        padded = _pad(moved, shape)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(padded)
        recording = self._recordings[shape]
        _copy(padded, recording.batch)
        recording.graph.replay()
        return recording.losses_N[: len(batch.rows_N)].clone(), moved.weights_N

    def _run(self, batch: DeviceBatch) -> Tensor:
        loss, losses_N = training_loss(self.model, self.adapter, batch, self.dropout)
        loss.backward()
        return losses_N

    def _record(self, batch: DeviceBatch) -> _Recording:
        """Record a step; gradients are as before, since what the warm-up adds is taken out again."""
        gradients = [parameter.grad.clone() for parameter in self.adapter.parameters if parameter.grad is not None]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside the recording
            self._run(batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            losses_N = self._run(batch)
        self._pool = self._pool or graph.pool()
        for parameter, gradient in zip(self.adapter.parameters, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        return _Recording(graph, batch, losses_N)


def _rounded(batch: MicroBatch) -> _Shape:
    longest = _up(max(batch.lengths_S), ROUND_LONGEST)
    tokens = _up(len(batch.ids_T), ROUND_TOKENS)
    # padding is cut into sequences no longer than the longest
    sequences = len(batch.lengths_S) + -(-(tokens - len(batch.ids_T)) // longest)
    return _Shape(tokens, _up(len(batch.rows_N), ROUND_TARGETS), _up(sequences, ROUND_SEQUENCES), longest)


def _pad(batch: DeviceBatch, shape: _Shape) -> DeviceBatch:
    """The batch in a rounded shape: tokens of the base slot in sequences of their own, targets of weight 0."""
    tokens, targets = shape.tokens - len(batch.ids_T), shape.targets - len(batch.rows_N)
    device = batch.ids_T.device
    extra = [min(shape.longest, tokens - start) for start in range(0, tokens, shape.longest)]
    lengths = [*batch.packing.lengths_S, *extra]
    lengths += [0] * (shape.sequences - len(lengths))
    borders = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)

    def grow(tensor: Tensor, count: int, value: int = 0) -> Tensor:
        return torch.cat([tensor, tensor.new_full((count,), value)])

    return DeviceBatch(
        ids_T=grow(batch.ids_T, tokens),
        positions_T=grow(batch.positions_T, tokens),
        slots_T=grow(batch.slots_T, tokens, BASE_SLOT),
        keys_T=grow(batch.keys_T, tokens),
        rows_N=grow(batch.rows_N, targets),
        targets_N=grow(batch.targets_N, targets),
        weights_N=grow(batch.weights_N, targets),
        packing=Packing((), shape.longest, borders),
    )


def _copy(source: DeviceBatch, target: DeviceBatch) -> None:
    """Put a batch into the tensors that a recording reads."""
    for part in fields(DeviceBatch):
        if part.name != "packing":
            getattr(target, part.name).copy_(getattr(source, part.name))
    assert source.packing.borders is not None
    assert target.packing.borders is not None
    target.packing.borders.copy_(source.packing.borders)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
