"""A step of generation, one token a row: computed directly, or replayed as a CUDA graph.

A step for few rows is some two thousand small kernels, and launching them takes several times as long as they run.
While the rows stay the same, a step is recorded, with room for a number of columns to come, and launched as one.
Shapes: N rows, W columns of keys and values that a recorded step looks at, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pronk.model.adapter import WideAdapter
from pronk.model.fused import FusedLayer, can_fuse
from pronk.model.step import side_stream

if TYPE_CHECKING:
    from pronk.model.generate import PromptCache

COLUMNS = 128  # that a recording is ahead: with more, every step reads more in vain; with fewer, more are recorded
WORTH = 8  # steps to come, at least: a recording takes as long as two
STEADY = 3  # steps with the same rows before one is recorded: short answers have ended by then
# Rotary positions of these kinds look at the largest position on the host, which a recording cannot do.
MOVING_ROTATIONS = ("dynamic", "longrope")

# generate.extend: (model, adapter, cache, slots_N, ids_NS, positions_NS, seen_SS) → hidden states (N, S, D)
Extend = Callable[..., Tensor]


class OneToken:
    """The next token of every row through the model."""

    def __init__(self, model: Any, adapter: WideAdapter, cache: PromptCache, extend: Extend) -> None:
        """extend: computes a step directly."""
        self.model, self.adapter, self.cache, self._extend = model, adapter, cache, extend
        self.records = can_record(model)
        self._rows, self._alike = 0, 0  # of the last step, and of how many steps up to it
        self._recording: _Recording | None = None

    def __call__(self, slots_N: Tensor, token_N: Tensor, step: int, left: int) -> Tensor:
        """Hidden states (N, D) of the tokens that were written in a step (from 1). left: steps to come at most, this
        one included."""
        same, self._rows = len(slots_N) == self._rows, len(slots_N)
        self._alike = self._alike + 1 if same else 0
        end, position_N = self.cache.longest + step, self.cache.lengths_N + step - 1
        if self._recording is not None and not (same and end <= self._recording.width):
            self._recording = None  # the next may use its memory
        if self._recording is None and not (self.records and self._alike >= STEADY and left >= WORTH):
            seen_SS = torch.ones(1, step, dtype=torch.bool, device=token_N.device)
            hidden_NSD = self._extend(
                self.model, self.adapter, self.cache, slots_N, token_N[:, None], position_N[:, None], seen_SS
            )
            return hidden_NSD[:, 0]
        if self._recording is None:
            self.adapter.routing.set(slots_N)
            self._recording = _Recording(self.model, self.adapter, self.cache, len(slots_N), end)
        return self._recording.play(token_N, position_N, end)


class _Recording:
    """A step for these rows, up to `width` columns. What it reads of each step lies in tensors of its own."""

    def __init__(self, model: Any, adapter: WideAdapter, cache: PromptCache, rows: int, end: int) -> None:
        """end: columns behind the token of the step that is recorded."""
        device = cache.lengths_N.device
        self._route = adapter.routing.route  # holds tensors that the recording reads
        self.width = min(end + COLUMNS, cache.longest + cache.room)
        self._ids_N1, self._positions_N1 = torch.zeros(2, rows, 1, dtype=torch.int64, device=device)
        self._column = torch.full((1,), end - 1, device=device)
        self._seen_NW = torch.zeros(rows, self.width, dtype=torch.bool, device=device)
        self._seen_NW[:, : cache.longest] = cache.filled_NL
        self._seen_NW[:, cache.longest : end] = True
        torch.cuda.empty_cache()  # a recording has memory of its own, beside which that of other steps would stay
        side = side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with cache.recorded(self._column, self.width):
            with torch.cuda.stream(side):  # libraries set themselves up outside the recording
                self._forward(model, cache)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # other threads may be writing checkpoints meanwhile
            with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
                self._hidden_ND = self._forward(model, cache)

    def play(self, token_N: Tensor, position_N: Tensor, end: int) -> Tensor:
        """Hidden states (N, D), in memory that the next step writes to."""
        self._ids_N1.copy_(token_N[:, None])
        self._positions_N1.copy_(position_N[:, None])
        self._column.fill_(end - 1)
        self._seen_NW[:, end - 1] = True
        self._graph.replay()
        return self._hidden_ND

    def _forward(self, model: Any, cache: PromptCache) -> Tensor:
        hidden_N1D: Tensor = model.base_model(
            input_ids=self._ids_N1, position_ids=self._positions_N1, attention_mask=self._seen_NW[:, None, None],
            past_key_values=cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        return hidden_N1D[:, 0]


def can_record(model: Any) -> bool:
    """Whether a step is the same kernels whatever the tokens are: on a GPU, and in layers that are known."""
    base = model.base_model
    layers = list(getattr(base, "layers", ()))
    if not layers or next(model.parameters()).device.type != "cuda":
        return False
    rotation = getattr(getattr(base, "rotary_emb", None), "rope_type", "")
    return rotation not in MOVING_ROTATIONS and all(isinstance(one, FusedLayer) or can_fuse(one) for one in layers)
