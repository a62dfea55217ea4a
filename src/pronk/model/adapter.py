"""The wide adapter: the LoRA adapters of all runs in one dense product (Hu et al. 2021, arXiv:2106.09685).

For a linear layer W, stack the runs' A_k into A and their transposed B_k into B; a mask M holds
its scaling (alpha_k / rank_k) on the columns of the run that a token belongs to, and zero elsewhere:

    y = x Wᵀ + ((x Aᵀ) ∘ M) B

Every token passes through its own adapter, a token of no run (BASE_SLOT) through none. All A and B are parts of
one flat tensor (`model/storage.py`), and products add to their gradients there.
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
from pronk.model.fused import fuse, unfuse
from pronk.model.host import copied_to_host
from pronk.model.kernels.adamw import Span
from pronk.model.quantize import FrozenLinear, QuantizedLinear
from pronk.model.route import Routing
from pronk.model.storage import FlatStorage, lay_out
from pronk.model.wide import WideLinear


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What one run adds: rank, alpha, and the names of the layers that it adapts."""

    rank: int
    alpha: float
    targets: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        """alpha / rank, or alpha / √rank, which keeps gradients of one size at every rank (rsLoRA;
        Kalajdzievski 2023, arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


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
        self.storage = _stored(layers)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for layer in self.layers.values() for parameter in (layer.A_RI, layer.B_RO)]

    def allocate_gradients(self) -> Tensor:
        """Give every A and B a gradient that is a view of one flat tensor, and return that tensor (N)."""
        for layer in self.layers.values():
            layer.gradients()
        return self.storage.gradients()

    def rows(self, slot: int) -> Iterator[tuple[str, Tensor, slice]]:
        """For each wide tensor of the run: name, the wide tensor, and the rows that the run owns."""
        for name, layer in self.layers.items():
            if slot in layer.rows:
                yield f"{name}.A", layer.A_RI, layer.rows[slot]
                yield f"{name}.B", layer.B_RO, layer.rows[slot]

    def views(self, slot: int, flat_N: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and rows of each wide tensor of the run, in a flat tensor with the storage's layout."""
        for name, layer in self.layers.items():
            if slot in layer.rows:
                for letter, place in zip("AB", layer.places, strict=True):
                    yield f"{name}.{letter}", place.of(flat_N)[layer.rows[slot]]

    def spans(self) -> list[Span]:
        """Where each run's rows lie in the flat tensors."""
        found = []
        for layer in self.layers.values():
            for part, place in enumerate(layer.places):
                for slot, rows in layer.rows.items():
                    start, stop = (place.start + row * place.columns for row in (rows.start, rows.stop))
                    found.append(Span(start, stop, slot, part))
        return found

    def initialize(self, seeds: Mapping[int, int]) -> None:
        """PEFT's start, by slot and seed: A uniform in ±1/√I (He et al. 2015 with a = √5), B zero.

        Each layer draws from the seed and its own name, so no other run or layer changes it; runs of one seed and rank
        begin alike, and share what is drawn.
        """
        for name, layer in self.layers.items():
            columns, drawn = layer.A_RI.shape[1], dict[tuple[int, int], Tensor]()
            for slot, seed in seeds.items():
                if slot in layer.rows:
                    rows = layer.rows[slot]
                    key = seed, rows.stop - rows.start
                    if key not in drawn:
                        drawn[key] = _uniform(f"{seed}/{name}", key[1], columns).to(layer.A_RI)
                    layer.A_RI.data[rows] = drawn[key]
                    layer.B_RO.data[rows] = 0
        self.settle()

    rounded = False  # whether what `state` gives is rounded: products round these weights, checkpoints do not

    def settle(self) -> None:
        """After an update: products read the weights as they are now."""
        self.storage.settle()

    def clear(self, slot: int) -> None:
        """Set a run's adapter to zero, so that nothing of it is left in any product."""
        for _, wide, rows in self.rows(slot):
            wide.data[rows] = 0
        self.settle()

    def state(self, slot: int) -> dict[str, Tensor]:
        """A run's adapter on the CPU, in PEFT's names and shapes: lora_A (rank × I), lora_B (O × rank)."""
        tensors = {}
        for name, layer in self.layers.items():
            if slot in layer.rows:
                rows = layer.rows[slot]
                prefix = f"base_model.model.{name}"
                tensors[f"{prefix}.lora_A.weight"] = layer.A_RI.detach()[rows]
                tensors[f"{prefix}.lora_B.weight"] = layer.B_RO.detach()[rows].T
        return copied_to_host(tensors)

    def load(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises StudyError for weights that are not finite: 0 · NaN would reach
        every run of the fleet."""
        largest = min((torch.finfo(layer.dtype).max for layer in self.layers.values()), default=math.inf)
        if not all(float(tensor.abs().max()) <= largest for tensor in state.values()):  # NaN too
            raise StudyError(
                "the adapter holds weights that are not finite numbers in its base's type; training went wrong"
            )
        for name, layer in self.layers.items():
            if slot in layer.rows:
                rows = layer.rows[slot]
                prefix = f"base_model.model.{name}"
                layer.A_RI.data[rows] = state[f"{prefix}.lora_A.weight"].to(layer.A_RI)
                layer.B_RO.data[rows] = state[f"{prefix}.lora_B.weight"].T.to(layer.B_RO)
        self.settle()

    def size(self, slot: int) -> int:
        """The number of parameters that the run trains."""
        return sum((rows.stop - rows.start) * wide.shape[1] for _, wide, rows in self.rows(slot))

    def detach(self) -> None:
        """Put the ordinary linear layers back."""
        for name, layer in self.layers.items():
            _replace(self.model, name, layer.linear)
        unfuse(self.model)


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
    if layers:
        fuse(model)
    return WideAdapter(model, layers, shapes, routing)


def _uniform(seed: str, rows: int, columns: int) -> Tensor:
    """Numbers (rows × columns) uniform in ±1/√columns, on the CPU: the same wherever a run is trained."""
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    bound = 1 / math.sqrt(columns)
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


def _stored(layers: Mapping[str, WideLinear]) -> FlatStorage:
    """Storage for the layers. Of the layers of one parent module, the A's that read inputs of one size lie side by
    side, whatever stands between them; the B's follow."""
    parents: dict[str, list[WideLinear]] = {}
    for name, layer in layers.items():
        parents.setdefault(name.rpartition(".")[0], []).append(layer)
    blocks: list[list[tuple[str, int]]] = []  # names of layers, with 0 for A and 1 for B
    for siblings in parents.values():
        readers: dict[int, list[tuple[str, int]]] = {}
        for layer in siblings:
            readers.setdefault(layer.linear.in_features, []).append((layer.name, 0))
        blocks += [*readers.values(), *([(layer.name, 1)] for layer in siblings)]
    places, length = lay_out([[layers[name].shapes[part] for name, part in block] for block in blocks])
    devices = [layer.owners_R.device for layer in layers.values()]
    storage = FlatStorage(length, [layer.dtype for layer in layers.values()], devices[0] if devices else None)
    found = dict(zip((matrix for block in blocks for matrix in block), places, strict=True))
    for name, layer in layers.items():
        layer.store(storage, found[name, 0], found[name, 1])
    return storage


def linear_layers(model: Any) -> dict[str, FrozenLinear]:
    """All linear layers by name, quantized or not, without the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, QuantizedLinear)) and module is not head
    }


def chosen_layers(layers: Sequence[str], targets: str | tuple[str, ...]) -> set[str]:
    """The layers that targets name: by full name, or by the end of it.

    Raises RecipeError if a target names none, or if there is none.
    """
    if not layers:
        raise RecipeError(
            "adapter: the base model has no linear layer to put an adapter on (GPT-2 and its like write theirs as "
            "Conv1D); take another base, or train the whole of it with full: true"
        )
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
