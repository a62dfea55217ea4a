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
from pronk.model.dropout import DropoutKeys, keep_mask
from pronk.model.kernels.adamw import Span
from pronk.model.quantize import FrozenLinear, QuantizedLinear, dense_weight, product_device, product_dtype
from pronk.model.storage import FlatStorage, Place, adjoining, lay_out

# On a CPU: stretches of tokens of one run each that are still worth products of their own.
MOST_STRETCHES = 64


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


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the wide product: some tokens with some rows of A and B.

    On a GPU one block holds everything and the mask M says what belongs together. On a CPU, where small
    products cost nothing extra, each stretch of tokens meets the rows of its own run only.
    """

    tokens: slice
    rows: slice
    foreign_TR: Tensor | None  # where M is zero
    scaling: float | Tensor  # of each row; one number where all agree

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """(left · right) ∘ M, except that a zero of M also stops what is not finite: 0 · inf is NaN, and
        a run whose weights have grown without bound must not reach the tokens of another."""
        if isinstance(self.scaling, float):
            h_TR = torch.addmm(left.new_empty(1), left, right, beta=0, alpha=self.scaling)
        else:
            h_TR = (left @ right).mul_(self.scaling)
        return h_TR if self.foreign_TR is None else h_TR.masked_fill_(self.foreign_TR, 0)


class Routing:
    """Which adapter each token of the current micro-batch belongs to, shared by all wide layers."""

    def __init__(self) -> None:
        self.slots_T: Tensor | None = None
        self.dropout: DropoutKeys | None = None
        self._stretches: list[tuple[int, slice]] | None = None
        self._blocks: dict[tuple[int, ...], list[Block]] = {}

    def set(self, slots_T: Tensor, dropout: DropoutKeys | None = None) -> None:
        """slots_T: int64, the slot of each token, in the order of the flattened hidden states."""
        self.slots_T, self.dropout = slots_T, dropout
        self._stretches = _stretches(slots_T) if slots_T.device.type == "cpu" else None
        self._blocks.clear()

    def blocks(self, layer: WideLinear) -> list[Block]:
        """The blocks of a layer's product; made once per micro-batch for all layers that the same runs adapt."""
        if layer.owners not in self._blocks:
            self._blocks[layer.owners] = self._made(layer)
        return self._blocks[layer.owners]

    def _made(self, layer: WideLinear) -> list[Block]:
        assert self.slots_T is not None, "Routing.set comes before the forward pass"
        if self._stretches is None:
            foreign_TR = self.slots_T[:, None] != layer.owners_R
            return [Block(slice(None), slice(None), foreign_TR, layer.scaling)]
        return [
            Block(tokens, layer.rows[slot], None, layer.scaling_of[slot])
            for slot, tokens in self._stretches
            if slot in layer.rows
        ]


def _stretches(slots_T: Tensor) -> list[tuple[int, slice]] | None:
    """Slot and tokens of each run of equal slots; None if there are too many for products of their own."""
    slots, counts = torch.unique_consecutive(slots_T, return_counts=True)
    if len(slots) > MOST_STRETCHES:
        return None
    ends = counts.cumsum(0).tolist()
    return [
        (slot, slice(end - count, end)) for slot, end, count in zip(slots.tolist(), ends, counts.tolist(), strict=True)
    ]


class _WideProduct(torch.autograd.Function):
    """Base product and all adapters, saving x and each block's masked x Aᵀ only; a quantized weight is made
    dense for each product anew. Gradients of A and B are added where they lie; autograd is told of neither."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, layer: WideLinear,
        A_RI: Tensor, B_RO: Tensor, blocks: list[Block], keep_TI: Tensor | None,
    ) -> Tensor:  # fmt: skip
        linear = layer.linear
        ctx.layer, ctx.blocks, ctx.linear = layer, blocks, linear
        A_RI, B_RO = layer.A_product, layer.B_product  # the parameters say only that there is something to learn
        y_TO = torch.nn.functional.linear(x_TI, dense_weight(linear), linear.bias)
        seen_TI = x_TI if keep_TI is None else x_TI * keep_TI
        inner = []
        for block in blocks:
            inner.append(block.product(seen_TI[block.tokens], A_RI[block.rows].T))
            y_TO[block.tokens].addmm_(inner[-1], B_RO[block.rows])
        ctx.save_for_backward(x_TI, A_RI, B_RO, keep_TI, *inner)
        return y_TO

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy_TO,) = grads
        x_TI, A_RI, B_RO, keep_TI, *inner = ctx.saved_tensors
        seen_TI = x_TI if keep_TI is None else x_TI * keep_TI
        dx_TI = dy_TO @ dense_weight(ctx.linear) if ctx.needs_input_grad[0] else None
        dA_RI, dB_RO = ctx.layer.gradients()
        for block, h_TR in zip(ctx.blocks, inner, strict=True):
            tokens, rows = block.tokens, block.rows
            dh_TR = block.product(dy_TO[tokens], B_RO[rows].T)
            if dx_TI is not None and keep_TI is None:
                dx_TI[tokens].addmm_(dh_TR, A_RI[rows])
            elif dx_TI is not None:
                dx_TI[tokens].addcmul_(dh_TR @ A_RI[rows], keep_TI[tokens])
            add_product(dA_RI[rows], dh_TR.T, seen_TI[tokens])
            add_product(dB_RO[rows], h_TR.T, dy_TO[tokens])
        return dx_TI, None, None, None, None, None


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right, in the precision of total; a GPU gives fp32 sums of bf16 products without a detour."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda and total.dtype == torch.float32:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


class WideLinear(nn.Module):
    """A frozen linear layer with the adapters of all runs that name it.

    A_RI and B_RO are at least fp32; each run owns whole rows of both. A_product and B_product are what products
    read: the same in the layer's dtype, as last settled. All are views of the fleet's storage, once `store` was called.
    """

    owners_R: Tensor
    A_RI: nn.Parameter
    B_RO: nn.Parameter
    A_product: Tensor
    B_product: Tensor

    def __init__(self, name: str, linear: FrozenLinear, shapes: Mapping[int, AdapterShape], routing: Routing) -> None:
        super().__init__()
        self.name, self.routing = name, routing
        self.linear = linear
        self.module_key = zlib.crc32(name.encode())  # tells modules apart to the dropout generator
        self.owners = tuple(slot for slot, shape in shapes.items() for _ in range(shape.rank))
        starts = torch.tensor([0, *(shape.rank for shape in shapes.values())]).cumsum(0).tolist()
        self.rows = {slot: slice(*starts[i : i + 2]) for i, slot in enumerate(shapes)}
        self.dtype, device = product_dtype(linear), product_device(linear)
        scaling = [shape.scaling for shape in shapes.values() for _ in range(shape.rank)]
        self.register_buffer("owners_R", torch.tensor(self.owners, device=device), persistent=False)
        self.scaling_of = {slot: shape.scaling for slot, shape in shapes.items()}
        alike = len(set(scaling)) == 1
        self.scaling = scaling[0] if alike else torch.tensor(scaling, dtype=self.dtype, device=device)

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of A and of B."""
        total = len(self.owners)
        return (total, self.linear.in_features), (total, self.linear.out_features)

    def store(self, storage: FlatStorage, A: Place, B: Place) -> None:
        """Put the weights into the fleet's storage, where they are zero."""
        self.storage, self.places = storage, (A, B)
        self.A_RI, self.B_RO = (nn.Parameter(place.of(storage.weights_N)) for place in (A, B))
        self.A_product, self.B_product = (place.of(storage.copy(self.dtype)) for place in (A, B))

    def gradients(self) -> tuple[Tensor, Tensor]:
        """The gradients of A and B, to be added to."""
        if self.A_RI.grad is None:
            self.A_RI.grad, self.B_RO.grad = (place.of(self.storage.gradients()) for place in self.places)
        assert self.A_RI.grad is not None
        assert self.B_RO.grad is not None
        return self.A_RI.grad, self.B_RO.grad

    def forward(self, x: Tensor) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        blocks = self.routing.blocks(self)
        keep_TI = None
        if self.routing.dropout is not None:
            keep_TI = keep_mask(self.routing.dropout, self.module_key, x_TI.shape[-1], x_TI.dtype)
        y_TO = _WideProduct.apply(x_TI, self, self.A_RI, self.B_RO, blocks, keep_TI)
        return y_TO.view(*x.shape[:-1], -1)


def side_by_side(layers: Sequence[WideLinear]) -> tuple[Tensor, Tensor | None] | None:
    """The A's of layers that read the same input as one matrix (rows of all × I), for products, and its gradient.

    The gradient is None until gradients are allocated. None where the A's are no neighbours in this order, or the
    layers are not adapted by the same runs with the same ranks.
    """
    first = layers[0]
    place = adjoining([layer.places[0] for layer in layers])
    if place is None or any(layer.owners != first.owners or layer.dtype != first.dtype for layer in layers):
        return None
    gradients_N = first.storage.gradients_N
    return place.of(first.storage.copy(first.dtype)), None if gradients_N is None else place.of(gradients_N)


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
        self.settle()

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
