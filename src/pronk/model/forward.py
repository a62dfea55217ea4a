"""A micro-batch through the model: to the device, through the backbone, to losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pronk.model.attention import Packing, packing_on_host
from pronk.model.dropout import DropoutKeys, token_keys
from pronk.model.loss import target_losses, weighted_loss
from pronk.model.whole import Trainable


class MicroBatch(Protocol):
    """What the model needs of a pack (tokens.pack makes it): T tokens laid end to end, N targets."""

    @property
    def ids_T(self) -> npt.NDArray[np.int64]: ...
    @property
    def positions_T(self) -> npt.NDArray[np.int64]: ...
    @property
    def slots_T(self) -> npt.NDArray[np.int64]: ...
    @property
    def keys_T(self) -> npt.NDArray[np.int64]: ...
    @property
    def lengths_S(self) -> tuple[int, ...]: ...
    @property
    def parents_S(self) -> tuple[int, ...]: ...
    @property
    def rows_N(self) -> npt.NDArray[np.int64]: ...
    @property
    def targets_N(self) -> npt.NDArray[np.int64]: ...
    @property
    def weights_N(self) -> npt.NDArray[np.float64]: ...
    @property
    def members_N(self) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class SlotDropout:
    """Per slot (tensors on the device): seed and step as int64, dropped share as float32."""

    seeds: Tensor
    steps: Tensor
    shares: Tensor


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A micro-batch as tensors, int64, with weights in the precision of the loss. owners_N: each target's slot."""

    ids_T: Tensor
    positions_T: Tensor
    slots_T: Tensor
    keys_T: Tensor
    rows_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    owners_N: Tensor
    packing: Packing

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in one order."""
        own = [value for part in fields(self) if isinstance(value := getattr(self, part.name), Tensor)]
        look, borders = self.packing.lookback, self.packing.borders
        return own + ([] if borders is None else [borders]) + ([*look.tensors] if look else [])

    def replaced(self, tensors: Sequence[Tensor]) -> DeviceBatch:
        """The same with other tensors, in the order of `tensors`."""
        left = iter(tensors)
        own = {part.name: next(left) for part in fields(self) if part.name != "packing"}
        packing = self.packing
        if packing.borders is not None:
            packing = replace(packing, borders=next(left))
        if look := packing.lookback:
            packing = replace(packing, lookback=look.replaced([next(left) for _ in look.tensors]))
        return DeviceBatch(**own, packing=packing)


def to_device(batch: MicroBatch, device: torch.device, precision: torch.dtype) -> DeviceBatch:
    """Copy a micro-batch to the device, all of it at once."""
    return moved(on_host(batch, device, precision), device)


def moved(made: DeviceBatch, device: torch.device) -> DeviceBatch:
    """What `on_host` gives, on the device; nobody waits for the copy."""
    if device.type != "cuda":
        return made
    return made.replaced(unstaged(staged(made.tensors, pinned=True).to(device, non_blocking=True), made.tensors))


def on_host(batch: MicroBatch, device: torch.device, precision: torch.dtype) -> DeviceBatch:
    """A micro-batch as tensors for the device, but on the CPU yet."""
    names = ("ids_T", "positions_T", "slots_T", "keys_T", "rows_N", "targets_N")
    return DeviceBatch(
        **{name: torch.from_numpy(getattr(batch, name)) for name in names},
        weights_N=torch.from_numpy(batch.weights_N).to(precision),
        owners_N=torch.from_numpy(batch.slots_T[batch.rows_N]),
        packing=packing_on_host(batch.lengths_S, batch.parents_S, device),
    )


def staged(tensors: Sequence[Tensor], pinned: bool) -> Tensor:
    """Tensors of the CPU as bytes in one piece of memory, from which a GPU takes them in one copy if it is pinned."""
    size = sum(_room(tensor) for tensor in tensors)
    # PyTorch keeps pinned memory for the next time, and knows when a copy that nobody waits for is done
    piece = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    for tensor, place in zip(tensors, unstaged(piece, tensors), strict=True):
        place.copy_(tensor)
    return piece


def unstaged(piece: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of what `staged` gives, wherever it was copied, as the tensors that it was made of."""
    views, start = [], 0
    for tensor in like:
        views.append(piece[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += _room(tensor)
    return views


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // 16) * 16  # bytes; a tensor begins where any kernel may read it


def loss_precision(model: Any) -> torch.dtype:
    """fp32, or better where the model is."""
    return torch.promote_types(output_head(model).dtype, torch.float32)


def training_loss(
    model: Any, adapter: Trainable, batch: DeviceBatch, dropout: SlotDropout | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted loss of a micro-batch, differentiable, and the loss of each target (N)."""
    hidden_TD = _hidden(model, adapter, batch, dropout)
    return weighted_loss(hidden_TD.index_select(0, batch.rows_N), output_head(model), batch.targets_N, batch.weights_N)


@torch.no_grad()
def evaluation_losses(model: Any, adapter: Trainable, batch: MicroBatch) -> Tensor:
    """Negative log-likelihood in nats of each target (N); nothing is kept for a gradient."""
    given = to_device(batch, output_head(model).device, loss_precision(model))
    hidden_TD = _hidden(model, adapter, given, None)
    return target_losses(hidden_TD[given.rows_N], output_head(model), given.targets_N)


def output_head(model: Any) -> Tensor:
    """The matrix from hidden states to logits (V × D)."""
    head: Tensor = model.get_output_embeddings().weight
    return head


def _hidden(model: Any, adapter: Trainable, batch: DeviceBatch, dropout: SlotDropout | None) -> Tensor:
    keys = None
    if dropout is not None:
        seeds_T, steps_T = dropout.seeds[batch.slots_T], dropout.steps[batch.slots_T]
        keys_T = token_keys(seeds_T, steps_T, batch.keys_T, batch.positions_T)
        keys = DropoutKeys(keys_T, dropout.shares[batch.slots_T])
    adapter.routing.set(batch.slots_T, keys)
    hidden: Tensor = model.base_model(
        input_ids=batch.ids_T[None], position_ids=batch.positions_T[None], packing=batch.packing, use_cache=False
    ).last_hidden_state
    return hidden[0]
