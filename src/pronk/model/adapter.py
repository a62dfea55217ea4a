"""The wide adapter: the LoRA adapters of all runs in one dense product (Hu et al. 2021, arXiv:2106.09685).

For a linear layer W, stack the runs' A_k into A and their transposed B_k into B; a mask M holds
alpha_k / rank_k on the columns of the run that a token belongs to, and zero elsewhere:

    y = x Wᵀ + ((x Aᵀ) ∘ M) B

Every token passes through its own adapter, a token of no run (BASE_SLOT) through none.
Names carry shapes: T tokens, I input features, O output features, R summed ranks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pronk.errors import RecipeError, StudyError
from pronk.model.dropout import DropoutKeys, keep_mask


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What one run adds: rank, alpha, and the names of the layers that it adapts."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...] = "all-linear"

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


class Routing:
    """Which adapter each token of the current micro-batch belongs to, shared by all wide layers."""

    def __init__(self) -> None:
        self.slots_T: Tensor | None = None
        self.dropout: DropoutKeys | None = None
        self._foreign: dict[tuple[int, ...], Tensor] = {}

    def set(self, slots_T: Tensor, dropout: DropoutKeys | None = None) -> None:
        """slots_T: int64, the slot of each token, in the order of the flattened hidden states."""
        self.slots_T, self.dropout = slots_T, dropout
        self._foreign.clear()

    def foreign_TR(self, owners: tuple[int, ...], owners_R: Tensor) -> Tensor:
        """True where a column is not the token's own, where the mask M is zero; made once per micro-batch."""
        if owners not in self._foreign:
            assert self.slots_T is not None, "Routing.set comes before the forward pass"
            self._foreign[owners] = self.slots_T[:, None] != owners_R
        return self._foreign[owners]


@dataclass(frozen=True, slots=True)
class _Mask:
    """M in two parts: where it is zero, and alpha / rank of each column (one number where all agree)."""

    foreign_TR: Tensor
    scaling: float | Tensor

    def apply(self, left: Tensor, right: Tensor) -> Tensor:
        """(left · right) ∘ M, except that a zero of M also stops what is not finite: 0 · inf is NaN, and
        a run whose weights have grown without bound must not reach the tokens of another."""
        if isinstance(self.scaling, float):
            h_TR = torch.addmm(left.new_empty(1), left, right, beta=0, alpha=self.scaling)
        else:
            h_TR = (left @ right).mul_(self.scaling)
        return h_TR.masked_fill_(self.foreign_TR, 0)


class _WideProduct(torch.autograd.Function):
    """Base product and all adapters, saving x and the masked x Aᵀ only."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None,
        A_RI: Tensor, B_RO: Tensor, mask: _Mask, keep_TI: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.precision = A_RI.dtype
        A_RI, B_RO = A_RI.to(x_TI.dtype), B_RO.to(x_TI.dtype)
        y_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
        seen_TI = x_TI if keep_TI is None else x_TI * keep_TI
        h_TR = mask.apply(seen_TI, A_RI.T)
        y_TO.addmm_(h_TR, B_RO)
        ctx.mask = mask
        ctx.save_for_backward(x_TI, weight_OI, A_RI, B_RO, h_TR, keep_TI)
        return y_TO

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy_TO,) = grads
        x_TI, weight_OI, A_RI, B_RO, h_TR, keep_TI = ctx.saved_tensors
        dh_TR = ctx.mask.apply(dy_TO, B_RO.T)
        seen_TI = x_TI if keep_TI is None else x_TI * keep_TI
        dx_TI = None
        if ctx.needs_input_grad[0]:
            dx_TI = dy_TO @ weight_OI
            if keep_TI is None:
                dx_TI.addmm_(dh_TR, A_RI)
            else:
                dx_TI.addcmul_(dh_TR @ A_RI, keep_TI)
        dA_RI = _precise_product(dh_TR.T, seen_TI, ctx.precision)
        dB_RO = _precise_product(h_TR.T, dy_TO, ctx.precision)
        return dx_TI, None, None, dA_RI, dB_RO, None, None


def _precise_product(left: Tensor, right: Tensor, precision: torch.dtype) -> Tensor:
    """left · right in the adapter's precision; a GPU gives fp32 sums of bf16 products without a detour."""
    if left.is_cuda and left.dtype != precision == torch.float32:
        return torch.mm(left, right, out_dtype=precision)
    return (left @ right).to(precision)


class WideLinear(nn.Module):
    """A frozen linear layer with the adapters of all runs that name it.

    A_RI and B_RO are at least fp32; each run owns whole rows of both.
    """

    owners_R: Tensor

    def __init__(self, name: str, linear: nn.Linear, shapes: Mapping[int, AdapterShape], routing: Routing) -> None:
        super().__init__()
        self.name, self.routing = name, routing
        self.linear = linear
        self.module_key = zlib.crc32(name.encode())  # tells modules apart to the dropout generator
        self.owners = tuple(slot for slot, shape in shapes.items() for _ in range(shape.rank))
        starts = torch.tensor([0, *(shape.rank for shape in shapes.values())]).cumsum(0).tolist()
        self.rows = {slot: slice(*starts[i : i + 2]) for i, slot in enumerate(shapes)}
        weight = linear.weight
        scaling = [shape.scaling for shape in shapes.values() for _ in range(shape.rank)]
        self.register_buffer("owners_R", torch.tensor(self.owners, device=weight.device), persistent=False)
        alike = len(set(scaling)) == 1
        self.scaling = scaling[0] if alike else torch.tensor(scaling, dtype=weight.dtype, device=weight.device)
        precision = torch.promote_types(weight.dtype, torch.float32)
        total = len(self.owners)
        self.A_RI = nn.Parameter(torch.zeros(total, linear.in_features, dtype=precision, device=weight.device))
        self.B_RO = nn.Parameter(torch.zeros(total, linear.out_features, dtype=precision, device=weight.device))

    def forward(self, x: Tensor) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        mask = _Mask(self.routing.foreign_TR(self.owners, self.owners_R), self.scaling)
        keep_TI = None
        if self.routing.dropout is not None:
            keep_TI = keep_mask(self.routing.dropout, self.module_key, x_TI.shape[-1], x_TI.dtype)
        y_TO = _WideProduct.apply(x_TI, self.linear.weight, self.linear.bias, self.A_RI, self.B_RO, mask, keep_TI)
        return y_TO.view(*x.shape[:-1], -1)


class WideAdapter:
    """The adapters of a fleet on a model: `attach` puts them in place, `detach` takes them out again."""

    def __init__(
        self,
        model: nn.Module,
        layers: dict[str, WideLinear],
        shapes: Sequence[AdapterShape],
        routing: Routing,
    ):
        self.model, self.layers, self.shapes, self.routing = model, layers, tuple(shapes), routing

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for layer in self.layers.values() for parameter in (layer.A_RI, layer.B_RO)]

    def rows(self, slot: int) -> Iterator[tuple[str, Tensor, slice]]:
        """For each wide tensor of the run: name, the wide tensor, and the rows that the run owns."""
        for name, layer in self.layers.items():
            if slot in layer.rows:
                yield f"{name}.A", layer.A_RI, layer.rows[slot]
                yield f"{name}.B", layer.B_RO, layer.rows[slot]

    def initialize(self, slot: int, seed: int) -> None:
        """PEFT's start: A uniform in ±1/√I (He et al. 2015 with a = √5), B zero.

        Each layer draws from the seed and its own name, so no other run or layer changes it.
        """
        for name, layer in self.layers.items():
            if slot in layer.rows:
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
                rows = layer.rows[slot]
                bound = 1 / math.sqrt(layer.A_RI.shape[1])
                start = torch.empty(rows.stop - rows.start, layer.A_RI.shape[1]).uniform_(
                    -bound, bound, generator=generator
                )
                layer.A_RI.data[rows] = start.to(layer.A_RI)
                layer.B_RO.data[rows] = 0

    def clear(self, slot: int) -> None:
        """Set a run's adapter to zero, so that nothing of it is left in any product."""
        for _, wide, rows in self.rows(slot):
            wide.data[rows] = 0

    def state(self, slot: int) -> dict[str, Tensor]:
        """A run's adapter on the CPU, in PEFT's names and shapes: lora_A (rank × I), lora_B (O × rank)."""
        tensors = {}
        for name, layer in self.layers.items():
            if slot in layer.rows:
                rows = layer.rows[slot]
                prefix = f"base_model.model.{name}"
                tensors[f"{prefix}.lora_A.weight"] = layer.A_RI.detach()[rows].cpu().clone()
                tensors[f"{prefix}.lora_B.weight"] = layer.B_RO.detach()[rows].T.cpu().contiguous()
        return tensors

    def load(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises StudyError for weights that are not finite: 0 · NaN would reach
        every run of the fleet."""
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise StudyError("the adapter holds weights that are not finite numbers; its training went wrong")
        for name, layer in self.layers.items():
            if slot in layer.rows:
                rows = layer.rows[slot]
                prefix = f"base_model.model.{name}"
                layer.A_RI.data[rows] = state[f"{prefix}.lora_A.weight"].to(layer.A_RI)
                layer.B_RO.data[rows] = state[f"{prefix}.lora_B.weight"].T.to(layer.B_RO)

    def size(self, slot: int) -> int:
        """The number of parameters that the run trains."""
        return sum((rows.stop - rows.start) * wide.shape[1] for _, wide, rows in self.rows(slot))

    def detach(self) -> None:
        """Put the ordinary linear layers back."""
        for name, layer in self.layers.items():
            _replace(self.model, name, layer.linear)


def attach(model: nn.Module, shapes: Sequence[AdapterShape]) -> WideAdapter:
    """Replace every linear layer that some run adapts by a wide one; all else is frozen.

    Raises RecipeError if a target names no linear layer.
    """
    model.requires_grad_(False)
    linears = linear_layers(model)
    chosen = [chosen_layers(list(linears), shape.targets) for shape in shapes]
    routing, layers = Routing(), {}
    for name, linear in linears.items():
        users = {slot: shape for slot, shape in enumerate(shapes) if name in chosen[slot]}
        if users:
            layers[name] = WideLinear(name, linear, users, routing)
            _replace(model, name, layers[name])
    return WideAdapter(model, layers, shapes, routing)


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """All linear layers by name, without the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
    }


def chosen_layers(layers: Sequence[str], targets: str | tuple[str, ...]) -> set[str]:
    """The layers that targets name: by full name, or by the end of it.

    Raises RecipeError if a target names none.
    """
    if targets == "all-linear":
        return set(layers)
    chosen: set[str] = set()
    for target in targets:
        named = {name for name in layers if name == target or name.endswith(f".{target}")}
        if not named:
            known = ", ".join(dict.fromkeys(name.rsplit(".", 1)[-1] for name in layers))
            raise RecipeError(f"adapter.targets: the base model has no linear layer named {target!r}; it has {known}")
        chosen |= named
    return chosen


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
