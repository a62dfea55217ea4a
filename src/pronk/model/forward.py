"""A micro-batch through the model: to the device, through the backbone, to losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pronk.model.adapter import WideAdapter
from pronk.model.attention import packing
from pronk.model.dropout import DropoutKeys, token_keys
from pronk.model.loss import target_losses, weighted_loss


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
    def rows_N(self) -> npt.NDArray[np.int64]: ...
    @property
    def targets_N(self) -> npt.NDArray[np.int64]: ...
    @property
    def weights_N(self) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class SlotDropout:
    """Per slot (tensors on the device): seed and step as int64, dropped share as float32."""

    seeds: Tensor
    steps: Tensor
    shares: Tensor


def training_loss(
    model: Any, adapter: WideAdapter, batch: MicroBatch, dropout: SlotDropout | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted loss of a micro-batch, differentiable, and the loss of each target (N)."""
    hidden_TD = _hidden(model, adapter, batch, dropout)
    rows_N, targets_N = _move(hidden_TD.device, batch.rows_N, batch.targets_N)
    precision = torch.promote_types(hidden_TD.dtype, torch.float32)
    weights_N = torch.from_numpy(batch.weights_N).to(hidden_TD.device, precision)
    return weighted_loss(hidden_TD[rows_N], output_head(model), targets_N, weights_N)


@torch.no_grad()
def evaluation_losses(model: Any, adapter: WideAdapter, batch: MicroBatch) -> Tensor:
    """Negative log-likelihood in nats of each target (N); nothing is kept for a gradient."""
    hidden_TD = _hidden(model, adapter, batch, None)
    rows_N, targets_N = _move(hidden_TD.device, batch.rows_N, batch.targets_N)
    return target_losses(hidden_TD[rows_N], output_head(model), targets_N)


def output_head(model: Any) -> Tensor:
    """The frozen matrix from hidden states to logits (V × D)."""
    head: Tensor = model.get_output_embeddings().weight
    return head


def _hidden(model: Any, adapter: WideAdapter, batch: MicroBatch, dropout: SlotDropout | None) -> Tensor:
    device = output_head(model).device
    ids_T, positions_T, slots_T, keys_T = _move(device, batch.ids_T, batch.positions_T, batch.slots_T, batch.keys_T)
    adapter.routing.set(slots_T, _dropout_keys(dropout, slots_T, keys_T, positions_T))
    hidden: Tensor = model.base_model(
        input_ids=ids_T[None],
        position_ids=positions_T[None],
        packing=packing(batch.lengths_S, device),
        use_cache=False,
    ).last_hidden_state
    return hidden[0]


def _dropout_keys(
    dropout: SlotDropout | None, slots_T: Tensor, keys_T: Tensor, positions_T: Tensor
) -> DropoutKeys | None:
    if dropout is None:
        return None
    keys = token_keys(dropout.seeds[slots_T], dropout.steps[slots_T], keys_T, positions_T)
    return DropoutKeys(keys, dropout.shares[slots_T])


def _move(device: torch.device, *arrays: Any) -> list[Tensor]:
    return [torch.from_numpy(array).to(device, non_blocking=True) for array in arrays]
