"""Each kernel is its plain twin, and the twins are what PyTorch's own operations and their gradients give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from interpreted import TARGETS, compiled, interpreted
from torch import Tensor
from torch.nn.functional import cross_entropy, silu
from torch.nn.functional import rms_norm as reference_norm

from pronk.model.attention import Lookback
from pronk.model.kernels import cross_entropy as loss
from pronk.model.kernels import fp8, low_rank, norm, occurrences, rope, swiglu

EPS = 1e-5
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Within the rounding of one result (and, for the smallest, of the largest)."""
    assert ours.dtype == theirs.dtype
    step = torch.finfo(ours.dtype).eps
    error = (ours.double() - theirs.double()).abs()
    return bool((error <= 2 * step * theirs.double().abs() + 4 * step * theirs.double().abs().mean()).all())


def nearly(ours: Tensor, theirs: Tensor) -> bool:
    """Within a few roundings of numbers of size 1, where the order of sums and roundings differs."""
    return bool((ours.double() - theirs.double()).abs().max() <= 8 * torch.finfo(ours.dtype).eps)


# --- the twins against PyTorch -------------------------------------------------------------------


def test_norm_is_pytorchs_with_its_gradient() -> None:
    x, weight, dy, more = draw(5, 48).requires_grad_(), draw(48, seed=1), draw(5, 48, seed=2), draw(5, 48, seed=3)
    y = reference_norm(x, (48,), weight, EPS)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert torch.allclose(norm.rms_norm(x.detach(), weight, EPS), y, atol=1e-12)
    ours, again = norm.rms_norm_backward(dy, x.detach(), weight, EPS, more)
    assert torch.allclose(ours, dx + more, atol=1e-12)
    assert torch.allclose(again, y, atol=1e-12)
    assert torch.allclose(norm.rms_norm_backward(dy, x.detach(), weight, EPS)[0], dx, atol=1e-12)


def test_swiglu_is_pytorchs_with_its_gradient() -> None:
    both, slope = draw(5, 28).requires_grad_(), draw(5, 14, seed=1)
    gate, up = both.chunk(2, dim=-1)
    product = silu(gate) * up
    (dboth,) = torch.autograd.grad(product, both, slope)
    assert torch.allclose(swiglu.swiglu(both.detach()), product, atol=1e-12)
    given, dproduct = both.detach().clone(), slope.clone()
    swiglu.swiglu_backward_(given, dproduct)
    assert torch.allclose(given, dboth, atol=1e-12)
    assert torch.allclose(dproduct, product, atol=1e-12)


def test_positions_are_those_of_transformers_and_turn_back() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    tokens, heads, size = 7, 3, 8
    angle = torch.cat([draw(tokens, size // 2, seed=1)] * 2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    q = draw(1, heads, tokens, size)
    theirs = apply_rotary_pos_emb(q, q, cos[None], sin[None])[0]
    flat = q[0].transpose(0, 1).reshape(tokens, -1)
    ours = flat.clone()
    rope.rotate_(ours, cos, sin)
    assert torch.allclose(ours, theirs[0].transpose(0, 1).reshape(tokens, -1), atol=1e-12)
    rope.rotate_(ours, cos, sin, back=True)
    assert torch.allclose(ours, flat, atol=1e-12)


def test_loss_is_pytorchs_with_its_gradient() -> None:
    logits, targets, weights = draw(6, 37).requires_grad_(), torch.tensor([0, 36, 5, 5, 9, 1]), draw(6, seed=1).abs()
    losses = cross_entropy(logits, targets, reduction="none")
    (slope,) = torch.autograd.grad((losses * weights).sum(), logits)
    given = logits.detach().clone()
    assert torch.allclose(loss.losses_and_slope_(given, targets, weights), losses, atol=1e-12)
    assert torch.allclose(given, slope, atol=1e-12)


def copied(columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Copies of five rows, one of them without any, and two that belong to none; and the way back to the rows."""
    source = torch.tensor([0, 1, 0, 3, 4, 0, 1, 5, 0, 5])
    look = Lookback.of(source, torch.tensor([0, len(source)]), len(source), 5)
    return draw(len(source), columns, dtype=dtype), look.order_L, look.starts_T


def test_copies_add_up_to_the_gradient_of_copying() -> None:
    copies, order, starts = copied(7, torch.float64)
    rows = torch.zeros(6, 7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(rows[torch.tensor([0, 1, 0, 3, 4, 0, 1, 5, 0, 5])], rows, copies)
    assert torch.allclose(occurrences.sum_copies(copies, order, starts), gradient[:5], atol=1e-12)
    assert not torch.allclose(occurrences.sum_copies(copies, order.flip(0), starts), gradient[:5])


# --- the kernels against the twins ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("features", [64, 100, 576])
def test_norm_kernel(dtype: torch.dtype, features: int) -> None:
    kernels = interpreted("triton_norm")
    wide = draw(3, features + 5, dtype=dtype)
    x, weight = wide[:, :features], draw(features, seed=1, dtype=dtype)  # rows that lie apart
    dy, more = draw(3, features, seed=2, dtype=dtype), draw(3, features, seed=3, dtype=dtype)
    assert close(kernels.forward(x, weight, EPS), norm.rms_norm_plain(x, weight, EPS))
    for residual in (None, more):
        ours = kernels.backward(dy, x, weight, EPS, residual)
        theirs = norm.rms_norm_backward_plain(dy, x, weight, EPS, residual)
        assert all(close(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("features", [64, 100])
def test_norm_kernel_with_codes_is_the_norm_and_its_rows_in_fp8(dtype: torch.dtype, features: int) -> None:
    kernels = interpreted("triton_norm")
    x, weight = draw(5, features, dtype=dtype), draw(features, seed=1, dtype=dtype)
    x[3] = 0
    y, codes = kernels.forward_fp8(x, weight, EPS)
    assert torch.equal(y, kernels.forward(x, weight, EPS))
    exact = fp8.quantize_rows_plain(y)
    assert torch.equal(codes.scale_T, exact.scale_T)
    assert torch.equal(codes.dense(), exact.dense())
    twin, same = norm.rms_norm_fp8(x, weight, EPS)
    assert close(twin, y)
    assert torch.equal(same.dense(), fp8.quantize_rows_plain(twin).dense())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("features", [64, 1100])
def test_swiglu_kernel(dtype: torch.dtype, features: int) -> None:
    kernels = interpreted("triton_swiglu")
    both, slope = draw(3, 2 * features, dtype=dtype), draw(3, features, seed=1, dtype=dtype)
    assert close(kernels.forward(both), swiglu.swiglu_plain(both))
    ours, theirs = (both.clone(), slope.clone()), (both.clone(), slope.clone())
    kernels.backward_(*ours)
    swiglu.swiglu_backward_plain_(*theirs)
    assert all(close(one, other) for one, other in zip(ours, theirs, strict=True))


def adapted(tokens: int, features: int, rank: int, dtype: torch.dtype) -> list[swiglu.Product]:
    """Factors of three adapters, their left ones side by side as a layer has them."""
    left = draw(tokens, 3 * rank, seed=2, dtype=dtype) / rank
    return [(part, draw(rank, features, seed=3 + i, dtype=dtype)) for i, part in enumerate(left.chunk(3, dim=1))]


def test_swiglu_with_what_adapters_add_is_pytorchs_with_its_gradient() -> None:
    both, slope, added = draw(9, 28).requires_grad_(), draw(9, 14, seed=1), adapted(9, 14, 3, torch.float64)
    (gate, up), more = both.chunk(2, dim=-1), [left @ right for left, right in added]
    product = silu(gate + more[0]) * (up + more[1])
    (dboth,) = torch.autograd.grad(product, both, slope + more[2])
    given = both.detach().clone()
    assert torch.allclose(swiglu.swiglu(given, added[:2]), product, atol=1e-12)
    assert torch.equal(given, both)
    swiglu.swiglu_backward_(given, slope, added)
    assert torch.allclose(given, dboth, atol=1e-12)
    assert torch.allclose(slope, product, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # the interpreter's dot does not know bf16
@pytest.mark.parametrize(("features", "rank", "programs"), [(64, 16, 1024), (100, 5, 1), (170, 40, 4)])
def test_swiglu_kernel_with_what_adapters_add(
    dtype: torch.dtype, features: int, rank: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = interpreted("triton_swiglu")
    # one tile a program, all, and some
    monkeypatch.setitem(kernels.programs.__globals__, "ENOUGH_PROGRAMS", programs)
    both, slope = draw(70, 2 * features, dtype=dtype), draw(70, features, seed=1, dtype=dtype)
    added = adapted(70, features, rank, dtype)
    assert nearly(kernels.forward_added(both, *added[:2]), swiglu.swiglu_plain(both, added[:2]))
    given, same = (both.clone(), slope.clone()), (both.clone(), slope.clone())
    kernels.backward_added_(*given, *added)
    swiglu.swiglu_backward_plain_(*same, added)
    assert all(nearly(one, other) for one, other in zip(given, same, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("features", "rank", "programs"), [(64, 16, 1024), (100, 5, 1), (170, 40, 4)])
def test_low_rank_kernel(
    dtype: torch.dtype, features: int, rank: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = interpreted("triton_low_rank")
    monkeypatch.setattr(kernels, "ENOUGH_PROGRAMS", programs)
    y, residual = draw(70, features, dtype=dtype), draw(70, features + 8, seed=1, dtype=dtype)[:, :features]
    ((left, right), *_) = adapted(70, features, rank, dtype)
    exact = y.double() + residual.double() + left.double() @ right.double()
    ours, twin = y.clone(), y.clone()
    kernels.add_(ours, left, right, residual)
    low_rank.add_low_rank_plain_(twin, left, right, residual)
    assert nearly(ours, exact)
    assert nearly(twin, exact)


@pytest.mark.parametrize("dtype", [*TYPES, torch.float64])
@pytest.mark.parametrize("columns", [6, 64, 1500])
def test_copies_kernel(dtype: torch.dtype, columns: int) -> None:
    kernels, (copies, order, starts) = interpreted("triton_occurrences"), copied(columns, dtype)
    assert close(kernels.sum_copies(copies, order, starts), occurrences.sum_copies_plain(copies, order, starts))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("heads", "size"), [(3, 64), (40, 128), (2, 6)])
@pytest.mark.parametrize("back", [False, True])
def test_rope_kernel(dtype: torch.dtype, heads: int, size: int, back: bool) -> None:
    kernels = interpreted("triton_rope")
    wide, angle = draw(4, heads * size + 10, dtype=dtype), torch.cat([draw(4, size // 2, seed=1)] * 2, dim=-1)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    ours, theirs = wide.clone(), wide.clone()
    kernels.turn_(ours[:, : heads * size], cos, sin, back)
    rope.rotate_plain_(theirs[:, : heads * size], cos, sin, back)
    assert close(ours, theirs)
    assert torch.equal(ours[:, heads * size :], wide[:, heads * size :])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("vocabulary", [97, 9000])
def test_cross_entropy_kernel(dtype: torch.dtype, vocabulary: int) -> None:
    kernels = interpreted("triton_cross_entropy")
    logits, targets = 5 * draw(3, vocabulary, dtype=dtype), torch.tensor([0, vocabulary - 1, 50])
    weights = draw(3, seed=1, dtype=torch.float32).abs()
    ours, theirs = logits.clone(), logits.clone()
    losses = kernels.losses_and_slope_(ours, targets, weights)
    assert torch.allclose(losses, loss.losses_and_slope_plain_(theirs, targets, weights), rtol=1e-5)
    assert torch.allclose(ours.float(), theirs.float(), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy, in the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_loss(value: float) -> None:
    kernels = interpreted("triton_cross_entropy")
    logits = draw(2, 50, dtype=torch.float32)
    logits[1, 7] = value
    losses = kernels.losses_and_slope_(logits, torch.tensor([1, 2]), torch.ones(2))
    assert losses.isfinite().tolist() == [True, False]


# --- and without a GPU to run on, they compile ---------------------------------------------------

POINTERS = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}
# with the tile of triton_swiglu.TILE, which the test below holds to it
ADDED = {"RANKS": 16, "WIDE": 16, "PRECISION": "tf32", "TOKENS": 16, "FEATURES": 128, "STAGES": 3, "TILES": 16}
KERNELS: list[tuple[str, str, Callable[[str], dict[str, str]], dict[str, Any]]] = [
    ("triton_norm", "forward_kernel",
     lambda p: {"x": p, "weight": p, "y": p, "x_stride": "i32", "features": "i32", "eps": "fp32"}, {"WIDTH": 4096}),
    ("triton_norm", "backward_kernel",
     lambda p: {"dy": p, "x": p, "weight": p, "residual": p, "dx": p, "y": p, "dy_stride": "i32", "x_stride": "i32",
                "residual_stride": "i32", "features": "i32", "eps": "fp32"}, {"ADD": True, "WIDTH": 4096}),
    ("triton_norm", "forward_fp8_kernel",
     lambda p: {"x": p, "weight": p, "y": p, "codes": "*fp8e4nv", "scales": "*fp32", "x_stride": "i32",
                "features": "i32", "eps": "fp32"}, {"WIDTH": 4096, "BY_HAND": False}),
    ("triton_swiglu", "forward_kernel",
     lambda p: {"both": p, "product": p, "stride": "i32", "features": "i32"}, {"WIDTH": 1024}),
    ("triton_swiglu", "backward_kernel",
     lambda p: {"both": p, "slope": p, "stride": "i32", "slope_stride": "i32", "features": "i32"}, {"WIDTH": 1024}),
    ("triton_swiglu", "forward_added_kernel",
     lambda p: {"both": p, "product": p, "gate_left": p, "gate_right": p, "up_left": p, "up_right": p, "tokens": "i32",
                "stride": "i32", "features": "i32", "left_stride": "i32"}, ADDED),
    ("triton_swiglu", "backward_added_kernel",
     lambda p: {"both": p, "slope": p, "gate_left": p, "gate_right": p, "up_left": p, "up_right": p, "slope_left": p,
                "slope_right": p, "tokens": "i32", "stride": "i32", "slope_stride": "i32", "features": "i32",
                "left_stride": "i32", "slope_left_stride": "i32"}, ADDED),
    ("triton_low_rank", "add_kernel",
     lambda p: {"y": p, "residual": p, "left": p, "right": p, "tokens": "i32", "features": "i32", "y_stride": "i32",
                "residual_stride": "i32", "left_stride": "i32"}, ADDED),
    ("triton_rope", "turn_kernel",
     lambda p: {"heads": p, "cos": p, "sin": p, "stride": "i32", "angle_stride": "i32", "count": "i32", "half": "i32"},
     {"SIGN": 1.0, "TOGETHER": 32, "HALF": 64}),
    ("triton_occurrences", "sum_kernel",
     lambda p: {"copies": p, "order": "*i32", "starts": "*i32", "total": p, "columns": "i32"}, {"BLOCK": 1024}),
    ("triton_cross_entropy", "slope_kernel",
     lambda p: {"logits": p, "targets": "*i64", "weights": "*fp32", "losses": "*fp32", "stride": "i32"},
     {"VOCABULARY": 128256, "WIDTH": 8192}),
]  # fmt: skip


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("index", range(len(KERNELS)), ids=[f"{module}.{name}" for module, name, *_ in KERNELS])
def test_a_kernel_compiles(index: int, capability: int) -> None:
    module, name, types, constants = KERNELS[index]
    if "fp8" in name and capability < 89:
        pytest.skip("has no float8 types")
    made = compiled(module, name, capability, types("*bf16"), constants)
    assert f".target sm_{capability}" in made.asm["ptx"]


def test_what_is_compiled_here_is_what_is_launched() -> None:
    kernels = interpreted("triton_swiglu")
    assert {name: ADDED[name] for name in ("TOKENS", "FEATURES", "STAGES")} == {
        name: kernels.TILE[name] for name in ("TOKENS", "FEATURES", "STAGES")
    }
