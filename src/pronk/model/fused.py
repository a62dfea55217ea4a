"""A layer of Llama in few steps, which keep as little as the backward pass can do with.

    x → RMSNorm → q, k, v → rotary positions → attention → o, + x → RMSNorm → gate, up → SwiGLU → down, + x

q, k and v are one product, and so are gate and up. Kept of each token are the layer's input, q, k, v, what
attention gave, the middle of the layer, gate and up, and the adapters' few numbers; both norms and SwiGLU are
computed again, from one reading, while the backward pass needs their gradients anyway.

The layer stands in the place of transformers' own while a fleet is attached, holds that one's modules under
their names, and gives them back. Shapes: T tokens, D hidden size, G outputs of several linear layers side by side,
F features of SwiGLU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pronk.model.attention import attend, packed_attention
from pronk.model.kernels.fp8 import Fp8Rows
from pronk.model.kernels.norm import rms_norm, rms_norm_backward, rms_norm_fp8
from pronk.model.kernels.rope import rotate_
from pronk.model.kernels.swiglu import swiglu, swiglu_backward_
from pronk.model.products import lay_side_by_side
from pronk.model.route import Route
from pronk.model.wide import Group, Kept, project

# transformers' layers that do exactly what stands above
LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer")


class FusedLayer(nn.Module):
    """One decoder layer. recompute: keep its input alone, and compute it once more in the backward pass."""

    recompute = False

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.training = layer.training
        self._original = [layer]  # in a list, so that it is no module of this one
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        self.input_layernorm, self.post_attention_layernorm = layer.input_layernorm, layer.post_attention_layernorm
        attention, mlp = layer.self_attn, layer.mlp
        self.inputs = Group([attention.q_proj, attention.k_proj, attention.v_proj])
        self.output, self.down = Group([attention.o_proj]), Group([mlp.down_proj])
        self.gate_up = Group([mlp.gate_proj, mlp.up_proj])

    @property
    def original(self) -> Any:
        """transformers' layer."""
        return self._original[0]

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, position_embeddings: Any = None,
        past_key_values: Any = None, packing: Any = None, **_: Any,
    ) -> Tensor:  # fmt: skip
        """hidden_states (N, S, D) → (N, S, D), as transformers calls its own layer."""
        rows = hidden_states.shape[:2]
        cos_TE, sin_TE = (part.expand(*rows, -1).flatten(0, 1) for part in position_embeddings)
        x_TD = hidden_states.flatten(0, 1)
        again, size = _Again(), self.self_attn.head_dim
        anchor = self.down.anchor if self.gate_up.anchor is None else self.gate_up.anchor
        groups = (self.inputs, self.output, self.gate_up, self.down)
        route = next((group.route for group in groups if group.wide), None)  # kept when it is computed again

        def layer(x_TD: Tensor) -> Tensor:
            heads = _Inputs.apply(x_TD, self.inputs.anchor, self, route, cos_TE, sin_TE)
            if packing is not None and past_key_values is None:
                q, k, v = (part.unflatten(1, (-1, size)) for part in heads)
                mixed = packed_attention(q, k, v, packing, self.self_attn.scaling)
            else:
                q, k, v = (part.view(*rows, -1, size).transpose(1, 2) for part in heads)
                if past_key_values is not None:
                    k, v = past_key_values.update(k, v, self.self_attn.layer_idx)
                mixed, _ = attend(self.self_attn, q, k, v, attention_mask, self.self_attn.scaling, packing)
            middle_TD = project(mixed.reshape(len(x_TD), -1), self.output, route, x_TD)
            return _FeedForward.apply(middle_TD, anchor, self, route, again)

        if self.recompute and torch.is_grad_enabled():
            out_TD = checkpoint(layer, x_TD, use_reentrant=False, preserve_rng_state=False, context_fn=again.contexts)
        else:
            out_TD = layer(x_TD)
        return out_TD.view(*rows, -1)


class _Again:
    """Whether a layer is being computed for the second time: then only what its backward pass keeps is wanted."""

    def __init__(self) -> None:
        self.now = False

    def __enter__(self) -> None:
        self.now = True

    def __exit__(self, *_: Any) -> None:
        self.now = False

    def contexts(self) -> tuple[Any, Any]:
        """For the first and the second time."""
        return _Again(), self


class _Inputs(torch.autograd.Function):
    """RMSNorm, q, k and v, rotary positions."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, _anchor: Tensor | None, layer: FusedLayer, route: Route | None,
        cos_TE: Tensor, sin_TE: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.layer, ctx.route, group = layer, route, layer.inputs
        normed_TD, codes = _norm(layer.input_layernorm, x_TD, group)
        y_TG, inner = group.forward(normed_TD, route, codes=codes)
        turned = group.widths[0] + group.widths[1]
        rotate_(y_TG[:, :turned], cos_TE, sin_TE)
        Kept.save(ctx, x_TD, cos_TE, sin_TE, inner=inner)
        return y_TG.split(group.widths, dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x_TD, cos_TE, sin_TE), inner = Kept.load(ctx)
        group, norm = ctx.layer.inputs, ctx.layer.input_layernorm
        dy_TG = torch.cat(grads, dim=1)
        rotate_(dy_TG[:, : group.widths[0] + group.widths[1]], cos_TE, sin_TE, back=True)
        dnormed_TD, slopes = group.input_gradient(dy_TG, ctx.route, ctx.needs_input_grad[0])
        if dnormed_TD is None:
            dx_TD, normed_TD = None, rms_norm(x_TD, norm.weight, _eps(norm))
        else:
            dx_TD, normed_TD = rms_norm_backward(dnormed_TD, x_TD, norm.weight, _eps(norm))
        group.add_gradients(dy_TG, normed_TD, inner, slopes, ctx.route)
        return dx_TD, None, None, None, None, None


class _FeedForward(torch.autograd.Function):
    """RMSNorm, gate and up, SwiGLU, down, and the residual."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, _anchor: Tensor | None, layer: FusedLayer, route: Route | None, again: _Again
    ) -> Tensor:
        ctx.layer, ctx.route, up = layer, route, layer.gate_up
        ctx.woven = up.owners == layer.down.owners and up.woven(route)
        normed_TD, codes = _norm(layer.post_attention_layernorm, x_TD, up)
        both_TG, inner = up.forward(normed_TD, route, whole=not ctx.woven, codes=codes)
        del normed_TD, codes
        product_TF = swiglu(both_TG, up.additions(inner) if ctx.woven else ())
        if again.now:  # nobody reads the output: the product with down, a fifth of a layer's work, is left out
            y_TD, inner_down = torch.empty_like(x_TD), layer.down.inner(product_TF, route)
        else:
            y_TD, inner_down = layer.down.forward(product_TF, route, x_TD)
        ctx.split = len(inner)
        Kept.save(ctx, x_TD, both_TG, inner=[*inner, *inner_down])
        return y_TD

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy_TD,) = grads
        (x_TD, both_TG), inner = Kept.load(ctx)
        layer, norm, route = ctx.layer, ctx.layer.post_attention_layernorm, ctx.route
        down, up = layer.down, layer.gate_up
        inner, inner_down = inner[: ctx.split], inner[ctx.split :]
        slope_TF, slopes_down = down.input_gradient(dy_TD, route, whole=not ctx.woven)
        added = [*up.additions(inner), (slopes_down[0][0], down.wide[0][0].A_product)] if ctx.woven else ()
        swiglu_backward_(both_TG, slope_TF, added)  # gate and up are now their gradients, slope is the product
        down.add_gradients(dy_TD, slope_TF, inner_down, slopes_down, route)
        del slope_TF
        dnormed_TD, slopes = up.input_gradient(both_TG, route)
        dx_TD, normed_TD = rms_norm_backward(dnormed_TD, x_TD, norm.weight, _eps(norm), dy_TD)
        up.add_gradients(both_TG, normed_TD, inner, slopes, route)
        return dx_TD, None, None, None, None


def _norm(norm: Any, x_TD: Tensor, group: Group) -> tuple[Tensor, Fp8Rows | None]:
    """The norm, and in FP8 as well if the group multiplies so."""
    if group.in_fp8:
        return rms_norm_fp8(x_TD, norm.weight, _eps(norm))
    return rms_norm(x_TD, norm.weight, _eps(norm)), None


def _eps(norm: Any) -> float:
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def fuse(model: Any) -> None:
    """Put fused layers in the place of transformers' own, where those are of a kind that is known."""
    for name, layer in list(model.named_modules()):
        if can_fuse(layer):
            fused = FusedLayer(layer)
            for group in (fused.inputs, fused.gate_up):
                lay_side_by_side(group.linears)
            model.set_submodule(name, fused)


def multiplied_together(model: Any) -> list[list[Any]]:
    """The linear layers that fused layers would multiply as groups: q, k, v and gate, up of each decoder layer."""
    return [
        group
        for layer in model.modules()
        if can_fuse(layer)
        for group in (
            [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj],
            [layer.mlp.gate_proj, layer.mlp.up_proj],
        )
    ]


def can_fuse(layer: Any) -> bool:
    """Whether a fused layer can stand in the place of a module."""
    return type(layer).__name__ in LAYERS and _is_silu(layer.mlp.act_fn)


def unfuse(model: Any) -> None:
    """The inverse of `fuse`."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, FusedLayer):
            model.set_submodule(name, layer.original)


def _is_silu(function: Any) -> bool:
    sample = torch.linspace(-2, 2, 5, device="cpu")  # wherever models are being made
    return bool(torch.equal(function(sample), nn.functional.silu(sample)))
