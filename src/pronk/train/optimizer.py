"""AdamW for all runs of a fleet (Loshchilov and Hutter 2019, arXiv:1711.05101), each with settings of its own.

Runs over adapters are updated together, in one pass over the flat tensors that hold their weights, gradients and
moments (`model/kernels/adamw.py`). Beside them stand runs whose optimizer is a library's: bitsandbytes' AdamW with
moments in 8 bits over a run's rows, and PyTorch's own for a run that trains the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pronk.hub import silenced
from pronk.model.adapter import WideAdapter
from pronk.model.host import copied_to_host
from pronk.model.kernels.adamw import Blocks, Moments, Rule, gradient_norms, rule_table, update
from pronk.model.whole import Trainable


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is to be updated. clip: the largest gradient norm, None for any; kind: adamw or adamw_8bit."""

    learning_rate: float
    weight_decay: float
    clip: float | None
    lora_plus_ratio: float
    kind: str


class FleetOptimizer:
    """The optimizers of all runs. Gradients are allocated here, as one flat tensor: `gradients`."""

    def __init__(self, adapter: Trainable, settings: Sequence[Settings]) -> None:
        self.gradients = adapter.allocate_gradients()
        self._fused = None
        if isinstance(adapter, WideAdapter):
            self._fused = FusedUpdate(adapter, len(settings), any(one.kind == "adamw" for one in settings))
        self.runs: list[FusedRun | RunOptimizer] = []
        for slot, one in enumerate(settings):
            if self._fused and self._fused.moments and isinstance(adapter, WideAdapter) and one.kind == "adamw":
                self.runs.append(FusedRun(adapter, slot, self._fused.moments, one))
            else:
                self.runs.append(RunOptimizer(adapter, slot, one))

    def norms(self) -> Tensor:
        """L2 norm of each run's gradient, float64 on the device (K); not finite if any part of it is not."""
        if self._fused:
            return self._fused.norms()
        return torch.stack([run.gradient_norm() for run in self.runs if isinstance(run, RunOptimizer)]).double()

    def update(self, factors: Mapping[int, float], losses_K: Tensor, norms_K: Tensor) -> Tensor:
        """Clip and update the runs in `factors`, by that share of their peak learning rates; or none of them, where
        a loss or a norm among theirs is not finite. Then `confirm` says that it was made.

        Returns the largest absolute weight of each run, float64 on the device (K); of the others it says nothing.
        """
        largest_K, rules, own = torch.zeros_like(losses_K), [Rule()] * len(self.runs), {}
        for slot, factor in factors.items():
            run = self.runs[slot]
            if isinstance(run, FusedRun):
                rules[slot] = run.rule(factor)
            else:
                rules[slot], own[slot] = Rule(plays=1.0), run
        if self._fused and len(own) < len(factors):
            largest_K = self._fused.update(rules, losses_K, norms_K)
        # these cannot decide on the device: a wait of their own
        if own and bool(torch.isfinite(torch.stack([losses_K, norms_K])[:, list(factors)]).all()):
            for slot, run in own.items():
                run.step(factors[slot], norms_K[slot])
                largest_K[slot] = run.largest_weight()
        return largest_K

    def confirm(self, slots: Sequence[int]) -> None:
        """The last update of these runs was made."""
        for slot in slots:
            run = self.runs[slot]
            if isinstance(run, FusedRun):
                run.updates += 1


class FusedUpdate:
    """The flat tensors of an adapter's runs, and how they are cut among the runs. moments: None if nobody's."""

    def __init__(self, adapter: WideAdapter, runs: int, with_moments: bool) -> None:
        self.storage, weights_N = adapter.storage, adapter.storage.weights_N
        self.blocks = Blocks(adapter.spans(), runs, weights_N.device)
        self.moments = Moments(torch.zeros_like(weights_N), torch.zeros_like(weights_N)) if with_moments else None

    def norms(self) -> Tensor:
        """As FleetOptimizer.norms."""
        return gradient_norms(self.storage.gradients(), self.blocks)

    def update(self, rules: Sequence[Rule], losses_K: Tensor, norms_K: Tensor) -> Tensor:
        """As FleetOptimizer.update, by the runs' rules."""
        assert self.moments is not None
        weights_N, gradients_N = self.storage.weights_N, self.storage.gradients()
        return update(weights_N, gradients_N, self.moments, self.blocks, rule_table(rules), losses_K, norms_K)


class FusedRun:
    """A run's part in the update of all: its settings, how many updates it has had, and its moments."""

    def __init__(self, adapter: WideAdapter, slot: int, moments: Moments, settings: Settings) -> None:
        self.settings, self.updates = settings, 0
        self._moments: dict[str, Tensor] = {}
        for part, flat_N in (("exp_avg", moments.exp_avg_N), ("exp_avg_sq", moments.exp_avg_sq_N)):
            self._moments |= {f"{name}.{part}": view for name, view in adapter.views(slot, flat_N)}

    def rule(self, factor: float) -> Rule:
        """The next update, by `factor` times the peak learning rate. B may learn faster than A: LoRA+ (Hayou et al.
        2024, arXiv:2402.12354)."""
        one, rate = self.settings, self.settings.learning_rate * factor
        return Rule.of(rate, rate * one.lora_plus_ratio, one.weight_decay, one.clip, self.updates + 1)

    def state(self) -> dict[str, Tensor]:
        """Moments and count of updates on the CPU, by the names of the wide tensors and of torch.optim.AdamW."""
        tensors = copied_to_host(self._moments)
        names = [key.removesuffix(".exp_avg") for key in tensors if key.endswith(".exp_avg")]
        return {**tensors, **{f"{name}.step": torch.tensor(float(self.updates)) for name in names}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for key, moment in self._moments.items():
            moment.copy_(tensors[key])
            self.updates = int(tensors[f"{key.rpartition('.')[0]}.step"])


class RunOptimizer:
    """A library's AdamW for one run, over views of its rows, so that the wide tensors are updated in place.

    To bitsandbytes each view is a tensor of its own: no block of 256 moments under one scale holds moments of two
    runs. A run that trains the whole model has all of its weights for rows. Gradients must have been allocated.
    """

    def __init__(self, adapter: Trainable, slot: int, settings: Settings) -> None:
        self.clip = settings.clip
        self.names: list[str] = []
        self.views: list[nn.Parameter] = []
        for name, wide, rows in adapter.rows(slot):
            view = nn.Parameter(wide.data[rows])
            assert wide.grad is not None
            view.grad = wide.grad[rows]
            self.names.append(name)
            self.views.append(view)
        self._keep_weights = adapter.rounded
        self._counts_in_tensors = settings.kind == "adamw"  # bitsandbytes counts steps in plain numbers
        self.adamw = _adamw(settings.kind, self._groups(settings), settings.learning_rate)

    def _groups(self, settings: Settings) -> list[dict[str, Any]]:
        """Weights of one peak learning rate and one decay, B's with that of LoRA+. Vectors, which are norms and
        biases, do not decay, as with transformers' Trainer."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, view in zip(self.names, self.views, strict=True):
            peak = settings.learning_rate * (settings.lora_plus_ratio if name.endswith(".B") else 1.0)
            groups.setdefault((peak, settings.weight_decay if view.dim() > 1 else 0.0), []).append(view)
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
