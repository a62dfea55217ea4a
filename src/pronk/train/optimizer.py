"""AdamW for one run, over its own rows of the wide adapter (Loshchilov and Hutter 2019, arXiv:1711.05101).

A run's parameters are views of its rows, so PyTorch's own AdamW updates the wide tensors in place,
and each run has its own step count, learning rate, decay, clipping and moments. The same views go to
bitsandbytes' AdamW with moments in 8 bits: each view is a tensor of its own to it, so that no block of
256 moments under one scale holds moments of two runs.

A run that trains the whole model has all of its weights for rows; nothing else is different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pronk.hub import silenced
from pronk.model.whole import Trainable


class RunOptimizer:
    """The optimizer of one run. Gradients must have been allocated (the adapter's `allocate_gradients`) before."""

    def __init__(
        self, adapter: Trainable, slot: int, learning_rate: float, weight_decay: float, clip: float | None,
        lora_plus_ratio: float = 1.0, kind: str = "adamw",
    ) -> None:  # fmt: skip
        self.clip = clip
        self.names: list[str] = []
        self.views: list[nn.Parameter] = []
        for name, wide, rows in adapter.rows(slot):
            view = nn.Parameter(wide.data[rows])
            assert wide.grad is not None
            view.grad = wide.grad[rows]
            self.names.append(name)
            self.views.append(view)
        self._keep_weights = adapter.rounded
        groups = self._groups(learning_rate, weight_decay, lora_plus_ratio)
        self._counts_in_tensors = kind == "adamw"  # bitsandbytes counts steps in plain numbers
        self.adamw = _adamw(kind, groups, learning_rate)

    def _groups(self, learning_rate: float, weight_decay: float, lora_plus_ratio: float) -> list[dict[str, Any]]:
        """Weights of one peak learning rate and one decay. B may learn faster than A: LoRA+ (Hayou et al. 2024,
        arXiv:2402.12354); vectors, which are norms and biases, do not decay, as with transformers' Trainer."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, view in zip(self.names, self.views, strict=True):
            peak = learning_rate * (lora_plus_ratio if name.endswith(".B") else 1.0)
            groups.setdefault((peak, weight_decay if view.dim() > 1 else 0.0), []).append(view)
        return [{"params": views, "peak": peak, "weight_decay": decay} for (peak, decay), views in groups.items()]

    def gradient_norm(self) -> Tensor:
        """L2 norm of the run's whole gradient, a scalar on the device; not finite if any part is not."""
        norm: Tensor = torch.nn.utils.get_total_norm([view.grad for view in self.views if view.grad is not None])
        return norm

    def step(self, factor: float, norm: Tensor) -> None:
        """Clip by the norm and update with `factor` times the peak learning rates."""
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.views, self.clip, norm)
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * factor
        self.adamw.step()

    def largest_weight(self) -> Tensor:
        """The largest absolute weight, a scalar on the device; not finite if any weight is not."""
        return torch.nn.utils.get_total_norm(self.views, norm_type=float("inf"))

    def state(self) -> dict[str, Tensor]:
        """Moments and step count as tensors on the CPU, by the names of the wide tensors; with them the trained
        weights, where a model's own are rounded copies."""
        tensors = {}
        for name, view in zip(self.names, self.views, strict=True):
            weight = {"weight": view.detach()} if self._keep_weights else {}
            for part, value in {**self.adamw.state[view], **weight}.items():
                tensors[f"{name}.{part}"] = torch.as_tensor(value).detach().cpu().clone()
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, view in zip(self.names, self.views, strict=True):
            parts = {key.rsplit(".", 1)[-1]: value for key, value in tensors.items() if key.rpartition(".")[0] == name}
            if self._keep_weights:
                view.data.copy_(parts.pop("weight"))
            self.adamw.state[view] = {part: value.to(view.device, copy=True) for part, value in parts.items()}
            if not self._counts_in_tensors:
                self.adamw.state[view]["step"] = int(parts["step"])


def _adamw(kind: str, groups: list[dict[str, Any]], learning_rate: float) -> Any:
    """PyTorch's AdamW, or that of bitsandbytes with moments in blocks of 8 bits (Dettmers et al. 2022,
    arXiv:2110.02861). The latter keeps tensors below 4,096 values in 32 bits."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    with silenced("bitsandbytes"):  # it advises a package with 4-bit kernels, which are not needed here
        from bitsandbytes.optim import AdamW8bit
    return AdamW8bit(groups, lr=learning_rate)
