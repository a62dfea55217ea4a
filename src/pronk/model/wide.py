"""A frozen linear layer with the adapters of all runs, and several such layers as one product.

For a linear layer W, stack the runs' A_k into A and their transposed B_k into B; a mask M holds
a run's scaling (alpha_k / rank_k) on the columns of the run that a token belongs to, and zero elsewhere:

    y = x Wᵀ + ((x Aᵀ) ∘ M) B

Names carry shapes: T tokens, I input features, O output features of a layer, G of several layers side by
side, R summed ranks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pronk.model.dropout import keep_mask
from pronk.model.kernels.fp8 import Fp8Rows
from pronk.model.kernels.low_rank import add_low_rank_
from pronk.model.products import group_product, group_product_back, in_fp8, product_device, product_dtype
from pronk.model.route import Block, Route, Routing
from pronk.model.storage import FlatStorage, Place, adjoining

if TYPE_CHECKING:
    from pronk.model.adapter import AdapterShape
    from pronk.model.quantize import FrozenLinear

# Ranks of all runs together: with 16, SwiGLU's kernels save two fifths of the time of a product of its own on an
# H200, with 128 they lose as much as they save.
MOST_RANKS = 32
Inner = list[list[Tensor]]  # of each layer of a group: (x Aᵀ) ∘ M, block by block


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
        self.alone: Group | None = None
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
        if self.alone is None:
            self.alone = Group([self])
        return project(x, self.alone, self.alone.route)

    def inner(self, x_TI: Tensor, route: Route) -> list[Tensor]:
        """(x Aᵀ) ∘ M, block by block."""
        seen_TI, A_RI = self._seen(x_TI, route), self.A_product
        return [block.product(seen_TI[block.tokens], A_RI[block.rows].T) for block in route.blocks(self)]

    def add(self, inner: Sequence[Tensor], y_TO: Tensor, route: Route) -> None:
        """Add every token's adapter to y, in place."""
        B_RO = self.B_product
        for block, h_TR in zip(route.blocks(self), inner, strict=True):
            y_TO[block.tokens].addmm_(h_TR, B_RO[block.rows])

    def slopes(self, dy_TO: Tensor, route: Route) -> list[Tensor]:
        """The gradient of x Aᵀ, block by block."""
        B_RO = self.B_product
        return [block.product(dy_TO[block.tokens], B_RO[block.rows].T) for block in route.blocks(self)]

    def add_back(self, slopes: Sequence[Tensor], dx_TI: Tensor, route: Route) -> None:
        """Add the adapters' share to the gradient of x, in place."""
        A_RI, keep_TI = self.A_product, self._keep(dx_TI, route)
        for block, dh_TR in zip(route.blocks(self), slopes, strict=True):
            if keep_TI is None:
                dx_TI[block.tokens].addmm_(dh_TR, A_RI[block.rows])
            else:
                dx_TI[block.tokens].addcmul_(dh_TR @ A_RI[block.rows], keep_TI[block.tokens])

    def accumulate(
        self, dy_TO: Tensor, x_TI: Tensor, inner: Sequence[Tensor], slopes: Sequence[Tensor], route: Route
    ) -> None:
        """Add to the gradients of A and B; each sum is written once, in fp32."""
        seen_TI, (dA_RI, dB_RO) = self._seen(x_TI, route), self.gradients()
        for block, h_TR, dh_TR in zip(route.blocks(self), inner, slopes, strict=True):
            add_product(dA_RI[block.rows], dh_TR.T, seen_TI[block.tokens])
            add_product(dB_RO[block.rows], h_TR.T, dy_TO[block.tokens])

    def _seen(self, x_TI: Tensor, route: Route) -> Tensor:
        """The input as the adapters see it."""
        keep_TI = self._keep(x_TI, route)
        return x_TI if keep_TI is None else x_TI * keep_TI

    def _keep(self, x_TI: Tensor, route: Route) -> Tensor | None:
        if route.dropout is None:
            return None
        return keep_mask(route.dropout, self.module_key, x_TI.shape[-1], x_TI.dtype)


def side_by_side(layers: Sequence[WideLinear]) -> Place | None:
    """Where the A's of layers that read the same input lie as one matrix (rows of all × I).

    None where they are no neighbours in this order, or not adapted by the same runs with the same ranks.
    """
    first = layers[0]
    if any(layer.owners != first.owners or layer.dtype != first.dtype for layer in layers):
        return None
    return adjoining([layer.places[0] for layer in layers])


class Group:
    """Layers over one input as one product, their outputs side by side in this order."""

    def __init__(self, layers: Sequence[WideLinear | FrozenLinear]) -> None:
        self.linears = [layer.linear if isinstance(layer, WideLinear) else layer for layer in layers]
        ends = list(accumulate(linear.out_features for linear in self.linears))
        columns = [slice(end - linear.out_features, end) for end, linear in zip(ends, self.linears, strict=True)]
        self.wide = [(layer, at) for layer, at in zip(layers, columns, strict=True) if isinstance(layer, WideLinear)]
        self.widths = [linear.out_features for linear in self.linears]
        self.owners = {layer.owners for layer, _ in self.wide}
        self.in_fp8 = in_fp8(self.linears)

    @property
    def anchor(self) -> Tensor | None:
        """A trained tensor: among its inputs, it makes autograd call a Function even if its x needs no gradient."""
        return self.wide[0][0].A_RI if self.wide else None

    @property
    def route(self) -> Route | None:
        """The route of the current micro-batch; None where no layer is adapted."""
        return self.wide[0][0].routing.route if self.wide else None

    def forward(
        self, x_TI: Tensor, route: Route | None, residual_TG: Tensor | None = None, whole: bool = True,
        codes: Fp8Rows | None = None,
    ) -> tuple[Tensor, Inner]:  # fmt: skip
        """All outputs (T × G), the residual of a layer alone added, and what the backward pass wants of the adapters.

        whole: with what the adapters add; else the caller multiplies `additions` in. codes: x in FP8, where that is
        at hand and the layers multiply so.
        """
        inner = self.inner(x_TI, route)
        if residual_TG is not None and self.in_fp8 and self.woven(route):
            ((left_TR, right_RG),) = self.additions(inner)
            y_TG = group_product(x_TI, self.linears, codes=codes)
            add_low_rank_(y_TG, left_TR, right_RG, residual_TG)
            return y_TG, inner
        y_TG = group_product(x_TI, self.linears, residual_TG, codes)
        if whole:
            for (layer, at), kept in zip(self.wide, inner, strict=True):
                layer.add(kept, y_TG[:, at], _there(route))
        return y_TG, inner

    def woven(self, route: Route | None) -> bool:
        """Whether a kernel that reads or writes what this group multiplies may multiply its adapters in: all layers are
        adapted by the same runs, in one block, and of so few ranks that this is faster than a product of its own."""
        if len(self.wide) < len(self.linears) or len(self.owners) > 1:
            return False
        return len(self.wide[0][0].owners) <= MOST_RANKS and _there(route).in_one_block

    def additions(self, inner: Inner) -> list[tuple[Tensor, Tensor]]:
        """What each layer's adapters add, as factors (T × R, R × O), where they are in one block."""
        return [(kept[0], layer.B_product) for (layer, _), kept in zip(self.wide, inner, strict=True)]

    def inner(self, x_TI: Tensor, route: Route | None) -> Inner:
        """What the adapters' first halves give, layer by layer; in one product where they lie side by side."""
        if (found := self._side_by_side(route)) is None:
            return [layer.inner(x_TI, _there(route)) for layer, _ in self.wide]
        A_RI, block = found
        return [[part] for part in block.product(x_TI, A_RI.T).chunk(len(self.wide), dim=1)]

    def input_gradient(
        self, dy_TG: Tensor, route: Route | None, wanted: bool = True, whole: bool = True
    ) -> tuple[Tensor | None, Inner]:
        """The gradient of x (T × I) unless it is not wanted, and what `add_gradients` wants.

        whole: with the adapters' share; else the caller multiplies it in: slopes (T × R) · A_product.
        """
        found = self._side_by_side(route)
        if found is None:
            slopes = [layer.slopes(dy_TG[:, at], _there(route)) for layer, at in self.wide]
        else:
            slopes = [[self._slopes_side_by_side(dy_TG, len(found[0]), _there(route))]]
        if not wanted:
            return None, slopes
        dx_TI = group_product_back(dy_TG, self.linears)
        if not whole:
            return dx_TI, slopes
        if found is not None:
            dx_TI.addmm_(slopes[0][0], found[0])
            return dx_TI, slopes
        for (layer, _), own in zip(self.wide, slopes, strict=True):
            layer.add_back(own, dx_TI, _there(route))
        return dx_TI, slopes

    def add_gradients(self, dy_TG: Tensor, x_TI: Tensor, inner: Inner, slopes: Inner, route: Route | None) -> None:
        """Add to the gradients of all A and B."""
        if self._place is not None and route is not None and route.in_one_block:
            gradients_N = self.wide[0][0].storage.gradients()
            add_product(self._place.of(gradients_N), slopes[0][0].T, x_TI)
            for (layer, at), kept in zip(self.wide, inner, strict=True):
                add_product(layer.gradients()[1], kept[0].T, dy_TG[:, at])
            return
        for (layer, at), kept, own in zip(self.wide, inner, slopes, strict=True):
            layer.accumulate(dy_TG[:, at], x_TI, kept, own, _there(route))

    def _slopes_side_by_side(self, dy_TG: Tensor, ranks: int, route: Route) -> Tensor:
        """What `slopes` of each layer gives, in columns of one tensor (T × ranks of all layers)."""
        all_TR = dy_TG.new_empty(len(dy_TG), ranks)
        for (layer, at), own_TR in zip(self.wide, all_TR.chunk(len(self.wide), dim=1), strict=True):
            route.blocks(layer)[0].product(dy_TG[:, at], layer.B_product.T, own_TR)
        return all_TR

    def _side_by_side(self, route: Route | None) -> tuple[Tensor, Block] | None:
        """All A's as one matrix, and the block of its product; None where they are to go alone."""
        if route is None or not route.in_one_block or self._place is None:
            return None
        first = self.wide[0][0]
        return self._place.of(first.storage.copy(first.dtype)), route.blocks(first, len(self.wide))[0]

    @cached_property
    def _place(self) -> Place | None:
        """Where the A's lie as one matrix, if they do; first asked for when the storage is there."""
        return side_by_side([layer for layer, _ in self.wide]) if len(self.wide) > 1 else None


def _there(route: Route | None) -> Route:
    assert route is not None, "Routing.set comes before the forward pass"
    return route


class Kept:
    """Tensors and lists of tensors through autograd's one flat list."""

    @staticmethod
    def save(ctx: Any, *tensors: Tensor, inner: Inner) -> None:
        """Give both to autograd."""
        ctx.counts = [len(tensors), *(len(kept) for kept in inner)]
        ctx.save_for_backward(*tensors, *(tensor for kept in inner for tensor in kept))

    @staticmethod
    def load(ctx: Any) -> tuple[list[Tensor], Inner]:
        """What was saved."""
        saved, ends = ctx.saved_tensors, list(accumulate(ctx.counts))
        parts = [list(saved[end - count : end]) for end, count in zip(ends, ctx.counts, strict=True)]
        return parts[0], parts[1:]


class _Projection(torch.autograd.Function):
    """x through a group of layers, a residual added."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, residual_TG: Tensor | None, _anchor: Tensor | None, group: Group, route: Route | None
    ) -> Tensor:
        ctx.group, ctx.route = group, route
        y_TG, inner = group.forward(x_TI, route, residual_TG)
        Kept.save(ctx, x_TI, inner=inner)
        return y_TG

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy_TG,), group = grads, ctx.group
        (x_TI,), inner = Kept.load(ctx)
        dx_TI, slopes = group.input_gradient(dy_TG, ctx.route, ctx.needs_input_grad[0])
        group.add_gradients(dy_TG, x_TI, inner, slopes, ctx.route)
        return dx_TI, dy_TG if ctx.needs_input_grad[1] else None, None, None, None


def project(x: Tensor, group: Group, route: Route | None, residual: Tensor | None = None) -> Tensor:
    """x (…, I) through a group of layers: (…, G), the residual (…, G) added; differentiable."""
    residual_TG = None if residual is None else residual.reshape(-1, residual.shape[-1])
    y_TG: Tensor = _Projection.apply(x.reshape(-1, x.shape[-1]), residual_TG, group.anchor, group, route)
    return y_TG.view(*x.shape[:-1], -1)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right, in the precision of total; a GPU gives fp32 sums of bf16 products without a detour."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda and total.dtype == torch.float32:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right
