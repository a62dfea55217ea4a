"""A micro-batch through the model: to the device, through the backbone, to losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pronk.model.attention import Packing, packing
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
    """A micro-batch on the device: int64 tensors, weights in the precision of the loss."""

    ids_T: Tensor
    positions_T: Tensor
    slots_T: Tensor
    keys_T: Tensor
    rows_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    packing: Packing


def to_device(batch: MicroBatch, device: torch.device, precision: torch.dtype) -> DeviceBatch:
    """Copy a micro-batch to the device."""
    names = ("ids_T", "positions_T", "slots_T", "keys_T", "rows_N", "targets_N")
    tensors = {name: torch.from_numpy(getattr(batch, name)).to(device, non_blocking=True) for name in names}
    weights_N = torch.from_numpy(batch.weights_N).to(device, precision)
    return DeviceBatch(**tensors, weights_N=weights_N, packing=packing(batch.lengths_S, batch.parents_S, device))


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
    moved = to_device(batch, output_head(model).device, loss_precision(model))
    hidden_TD = _hidden(model, adapter, moved, None)
    return target_losses(hidden_TD[moved.rows_N], output_head(model), moved.targets_N)


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
