"""Products with frozen layers, alone and as a group, are those of float64 with what the layers stand for; FP8 products
are off by no more than e4m3 rounds, and forward and back see the same FP8 weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pronk.errors import BaseModelError
from pronk.model import products
from pronk.model.kernels import fp8
from pronk.model.quantize import FP8Weight, QuantizedLinear, check_quantization, dense_weight, quantize_linear

DENSE = ["none", "int8", "nf4"]
FP8 = ["fp8", "nf4 in fp8"]
SIZES = (48, 16, 32)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layers(kind: str, features: int = 64, bias: bool = False, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Three layers that read the same x; rows of very different sizes, as real weights have them."""
    made = []
    for seed, size in enumerate(SIZES):
        linear = nn.Linear(features, size, bias=bias).requires_grad_(False)
        linear.weight.copy_(draw(size, features, seed=seed) * torch.logspace(-2, 1, size)[:, None])
        if bias:
            linear.bias.copy_(draw(size, seed=seed + 10))
        linear.to(dtype)
        made.append(quantize_linear(linear, "nf4" if kind == "nf4 in fp8" else kind, fp8_products=" in " in kind))  # type: ignore[arg-type]
    return made


def dense(linears: list[Any]) -> Tensor:
    """What the layers stand for."""
    return torch.cat([dense_weight(linear) for linear in linears]).double()


def fp8_values(linears: list[Any]) -> Tensor:
    """The values that FP8 products see, from the codes by rows."""
    return torch.cat([
        fp8.Fp8Rows(linear.quantized.fp8_codes(False), linear.quantized.fp8_scales).dense(torch.float64)
        for linear in linears
    ])  # fmt: skip


def rounding(values: Tensor) -> Tensor:
    """The most that e4m3 with a scale for each row moves a value: half a step of 3 bits, or of the smallest numbers."""
    smallest = values.abs().amax(1, keepdim=True) / 448 * 2.0**-10
    return torch.maximum(values.abs() * 2.0**-4, smallest) * (1 + 1e-5)


def bound(left: Tensor, right: Tensor, left_error: Tensor, right_error: Tensor) -> Tensor:
    """How far left · right can be off where its factors are."""
    return left_error @ right.abs() + left.abs() @ right_error + left_error @ right_error + 1e-12


# --- plain, NF4 and int8 -------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", DENSE)
def test_products_with_dense_weights(kind: str, count: int, bias: bool) -> None:
    linears = layers(kind, bias=bias)[:count]
    W_GI, total = dense(linears), sum(SIZES[:count])
    x, dy = draw(5, 64, seed=7), draw(5, total, seed=8)
    assert torch.equal(products.dense_group(linears).double(), W_GI)
    wanted = x.double() @ W_GI.T + (torch.cat([linear.bias for linear in linears]) if bias else 0)
    residual = draw(5, total, seed=9)
    y, back = products.group_product(x, linears), products.group_product_back(dy, linears)
    assert torch.allclose(y.double(), wanted, rtol=1e-4, atol=1e-4)
    added = products.group_product(x, linears, residual)
    assert torch.allclose(added.double(), wanted + residual.double(), rtol=1e-4, atol=1e-4)
    assert torch.equal(residual, draw(5, total, seed=9))
    assert torch.allclose(back.double(), dy.double() @ W_GI, atol=1e-3)
    if count == 1:
        assert torch.equal(products.frozen_product(x, linears[0]), y)
        assert torch.equal(products.frozen_product_back(dy, linears[0]), back)


def test_layers_of_different_kinds_make_a_group() -> None:
    mixed = [layers(kind)[place] for place, kind in enumerate(["none", "nf4", "fp8"])]
    assert not products.in_fp8(mixed)
    assert torch.equal(products.dense_group(mixed).double(), dense(mixed))
    biased = [layers("none", bias=True)[0], layers("none")[1]]
    y = products.group_product(draw(5, 64), biased)
    assert torch.allclose(y, torch.cat([linear(draw(5, 64)) for linear in biased], dim=1), atol=1e-5)


@pytest.mark.parametrize("kind", ["none", *FP8])
def test_layers_side_by_side_are_the_same_and_are_not_copied(kind: str) -> None:
    linears = layers(kind)
    before = dense(linears)
    x, dy = draw(5, 64, seed=7), draw(5, sum(SIZES), seed=8)
    apart = products.group_product(x, linears), products.group_product_back(dy, linears)
    products.lay_side_by_side(linears)
    assert torch.equal(dense(linears), before)
    assert torch.equal(products.group_product(x, linears), apart[0])
    assert torch.equal(products.group_product_back(dy, linears), apart[1])
    if kind == "none":
        assert products.dense_group(linears).data_ptr() == linears[0].weight.data_ptr()
    else:
        codes, scales = products.fp8_group(linears, transposed=False)
        assert scales.data_ptr() == linears[0].quantized.fp8_scales.data_ptr()
        assert (codes.data_ptr() == linears[0].quantized.codes.data_ptr()) if kind == "fp8" else True


# --- FP8 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", FP8)
def test_fp8_products_are_within_what_e4m3_rounds(kind: str, count: int, bias: bool) -> None:
    linears = layers(kind, bias=bias)[:count]
    assert products.in_fp8(linears)
    W_GI, x, dy = dense(linears), draw(5, 64, seed=7).double(), draw(5, sum(SIZES[:count]), seed=8).double()
    # the weights of quantize: fp8 are FP8 already; those of NF4 are rounded once more
    W_error = torch.zeros_like(W_GI) if kind == "fp8" else rounding_of_nf4(linears)
    y = products.group_product(x, linears) - (torch.cat([linear.bias for linear in linears]) if bias else 0)
    error = (y.double() - x @ W_GI.T).abs()
    assert (error <= bound(x, W_GI.T, rounding(x), W_error.T) + 1e-4).all()
    assert error.max() > 0
    scale_G = torch.cat([linear.quantized.fp8_scales for linear in linears]).double()
    dy_error = rounding(dy * scale_G) / scale_G
    error = (products.group_product_back(dy, linears).double() - dy @ W_GI).abs()
    assert (error <= bound(dy, W_GI, dy_error, W_error) + 1e-4).all()


def rounding_of_nf4(linears: list[Any]) -> Tensor:
    scale_G1 = torch.cat([linear.quantized.fp8_scales for linear in linears]).double()[:, None]
    return torch.maximum(dense(linears).abs() * 2.0**-4, scale_G1 * 2.0**-10) * (1 + 1e-5)


def products_of_values(linears: list[Any], x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """What FP8 products mean, in float64: x and (dy ∘ scales) rounded by rows, times the one FP8 weight."""
    codes = torch.cat([linear.quantized.fp8_codes(False) for linear in linears]).double()
    scale_G = torch.cat([linear.quantized.fp8_scales for linear in linears])
    y = fp8.quantize_rows(x).dense(torch.float64) @ fp8_values(linears).T
    return y, fp8.quantize_rows(dy * scale_G).dense(torch.float64) @ codes


def as_it_should_be(kind: str) -> bool:
    linears = layers(kind, dtype=torch.float64)
    x, dy = draw(5, 64, seed=7).double(), draw(5, sum(SIZES), seed=8).double()
    found = products.group_product(x, linears), products.group_product_back(dy, linears)
    return all(
        torch.allclose(a, b, rtol=1e-9, atol=1e-12)
        for a, b in zip(found, products_of_values(linears, x, dy), strict=True)
    )


@pytest.mark.parametrize("kind", FP8)
def test_forward_and_back_multiply_with_one_fp8_weight(kind: str) -> None:
    assert as_it_should_be(kind)


def scale_not_folded(patch: pytest.MonkeyPatch) -> None:
    original = products.quantize_rows
    patch.setattr(products, "quantize_rows", lambda x, scale_I=None: original(x))  # noqa: ARG005


def transposed_from_another_scale(patch: pytest.MonkeyPatch) -> None:
    original = products.fp8_group

    def faulty(linears: Any, transposed: bool) -> tuple[Tensor, Tensor]:
        codes, scale_G = original(linears, transposed)
        return ((codes.float() * 0.7).to(fp8.FP8) if transposed else codes), scale_G

    patch.setattr(products, "fp8_group", faulty)


def scales_of_other_rows(patch: pytest.MonkeyPatch) -> None:
    original = products.fp8_group

    def faulty(linears: Any, transposed: bool) -> tuple[Tensor, Tensor]:
        codes, scale_G = original(linears, transposed)
        return codes, scale_G.roll(1)

    patch.setattr(products, "fp8_group", faulty)


@pytest.mark.parametrize("fault", [scale_not_folded, transposed_from_another_scale, scales_of_other_rows])
@pytest.mark.parametrize("kind", FP8)
def test_faults_of_fp8_products_show(
    kind: str, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert not as_it_should_be(kind)


def test_both_layouts_are_one_weight() -> None:
    weight_OI = draw(48, 64)
    one, both = FP8Weight.quantize(weight_OI), FP8Weight.quantize(weight_OI, both_layouts=True)
    for transposed in (False, True):
        assert torch.equal(one.fp8_codes(transposed).float(), both.fp8_codes(transposed).float())
        out = torch.empty_like(one.fp8_codes(transposed))
        assert torch.equal(both.fp8_codes(transposed, out).float(), one.fp8_codes(transposed).float())
    held = [sum(tensor.nbytes for tensor in [*w.parameters(), *w.buffers()]) for w in (one, both)]
    assert held == [48 * 64 + 4 * 48, 2 * 48 * 64 + 4 * 48]


def test_a_layer_of_odd_sides_is_multiplied_densely() -> None:
    """The tensor cores ask for multiples of 16."""
    for kind, wanted in (("fp8", False), ("nf4", True)):
        layer = quantize_linear(nn.Linear(40, 33), kind, fp8_products=wanted)  # type: ignore[arg-type]
        assert isinstance(layer, QuantizedLinear)
        assert not products.in_fp8([layer])
        x = draw(5, 40)
        assert torch.allclose(layer(x), nn.functional.linear(x, dense_weight(layer), layer.bias), atol=1e-6)


# --- where the GPU cannot ------------------------------------------------------------------------


def test_fp8_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    gpu = torch.device("cuda")
    with pytest.raises(BaseModelError, match=r"quantize: fp8 needs an NVIDIA GPU .* Tesla T4 with 7\.5; write `quan"):
        check_quantization("fp8", gpu)
    with pytest.raises(BaseModelError, match=r"train\.fp8_products: true needs .* Tesla T4 with 7\.5; leave it out"):
        check_quantization("nf4", gpu, fp8_products=True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    check_quantization("fp8", gpu)
    check_quantization("fp8", torch.device("cpu"))
