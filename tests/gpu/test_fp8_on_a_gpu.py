"""FP8 on a GPU that has it: the kernels are their plain forms bit for bit, the tensor cores' products are those of
float64 within what they sum in, and training goes the same way with answers in between, recorded or not.

Run with `pytest -m gpu`; with -s it prints how fast the kernels are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_quantized import _answer, _apart, _model, _plans, _trained, medium  # noqa: F401  (a fixture)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pronk.model import products
from pronk.model.adapter import linear_layers
from pronk.model.hub import Base
from pronk.model.kernels import fp8, nf4
from pronk.model.load import load_model
from pronk.model.quantize import NF4Weight, QuantizedLinear, functional, quantize_linear
from pronk.train.fleet import Fleet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs a GPU with FP8"
    ),
    pytest.mark.filterwarnings("ignore"),
]

CUDA = torch.device("cuda")
KINDS = ["fp8", "nf4 in fp8"]
SHAPES = [(256, 256), (1024, 4096), (14336, 4096), (576, 1536), (192, 576)]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(CUDA, dtype)


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.float(), other.float())


# --- kernels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [*SHAPES, (48, 32), (33, 65), (5, 7)], ids=str)
@pytest.mark.parametrize("double", [True, False])
def test_dense_nf4_is_bitsandbytes_bit_for_bit(double: bool, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight_OI, library = draw(*shape, dtype=dtype), functional()
    packed, state = library.quantize_4bit(weight_OI, quant_type="nf4", compress_statistics=double)
    ours, theirs = NF4Weight.quantize(weight_OI, double), library.dequantize_4bit(packed, state)
    assert torch.equal(ours.dequantize(), theirs)
    assert torch.equal(nf4.dense_plain(ours.parts), theirs)
    buffer = torch.zeros(shape[0] + 32, shape[1], dtype=dtype, device=CUDA)
    ours.dequantize(buffer[16:-16])
    assert torch.equal(buffer[16:-16], theirs)
    assert not buffer[:16].any()
    assert not buffer[-16:].any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("double", [True, False])
def test_nf4_in_fp8_is_its_plain_form_in_both_layouts(double: bool, shape: tuple[int, int]) -> None:
    weight = NF4Weight.quantize(draw(*shape), double).parts
    scale_O = nf4.fp8_scales(weight)
    plain = nf4.fp8_codes_plain(weight, scale_O)
    assert same(nf4.fp8_codes(weight, scale_O), plain)
    assert same(nf4.fp8_codes(weight, scale_O, transposed=True), plain.T)
    wide = torch.zeros(shape[1], shape[0] + 64, dtype=torch.uint8, device=CUDA).view(fp8.FP8)
    nf4.fp8_codes(weight, scale_O, transposed=True, out=wide[:, 16:-48])
    assert same(wide[:, 16:-48], plain.T)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("features", [48, 576, 4096, 14336, 28672])
def test_rows_are_those_of_a_cpu(features: int, dtype: torch.dtype, folded: bool) -> None:
    x = draw(33, features, dtype=torch.float32) * torch.logspace(-4, 4, 33, device=CUDA)[:, None]
    x[5] = 0
    x, factors = x.to(dtype), draw(features, seed=1, dtype=torch.float32).abs() if folded else None
    gpu = fp8.quantize_rows(x, factors)
    cpu = fp8.quantize_rows(x.cpu(), None if factors is None else factors.cpu())
    assert torch.equal(gpu.scale_T.cpu(), cpu.scale_T)
    assert same(gpu.codes_TI.cpu(), cpu.codes_TI)
    assert same(fp8.transpose_codes(gpu.codes_TI), gpu.codes_TI.T)


def test_rows_that_are_not_finite_stay_so_and_spoil_no_other() -> None:
    x = draw(64, 4096)
    x[2, 7], x[3, 9], x[4] = torch.nan, torch.inf, 0
    right = fp8.quantize_rows(draw(512, 4096, seed=1))
    y = fp8.multiply_rows(fp8.quantize_rows(x), right.codes_TI, right.scale_T)
    assert not y[2].isfinite().any()
    assert not y[3].isfinite().any()
    assert not y[4].any()
    others = [row for row in range(64) if row not in (2, 3)]
    assert y[others].isfinite().all()


@pytest.mark.parametrize("tokens", [1, 7, 33, 4096])
@pytest.mark.parametrize(("outputs", "features"), [(16, 16), (576, 1536), (4096, 14336)])
def test_products_of_the_tensor_cores(tokens: int, outputs: int, features: int) -> None:
    left, right = fp8.quantize_rows(draw(tokens, features)), fp8.quantize_rows(draw(outputs, features, seed=1))
    a, b = left.dense(torch.float64), right.dense(torch.float64)
    found = fp8.multiply_rows(left, right.codes_TI, right.scale_T).double()
    wanted, size = a @ b.T, a.norm(dim=1)[:, None] * b.norm(dim=1)
    assert ((found - wanted).abs() <= 2.0**-8 * wanted.abs() + 2.0**-9 * size).all()
    unscaled = fp8.multiply_rows(left, right.codes_TI, None).double() * right.scale_T
    assert ((unscaled - wanted).abs() <= 2.0**-8 * wanted.abs() + 2.0**-9 * size).all()


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_groups_are_those_of_a_cpu(kind: str) -> None:
    weights = [draw(size, 576, seed=size, dtype=torch.bfloat16) * 0.05 for size in (576, 192, 192)]
    x, dy = draw(100, 576, seed=1), draw(100, 960, seed=2)
    found = []
    for device in (CUDA, torch.device("cpu")):
        linears = []
        for weight in weights:
            linear = torch.nn.Linear(576, len(weight), bias=False, device="meta")
            linear.weight = torch.nn.Parameter(weight.to(device), requires_grad=False)
            linears.append(quantize_linear(linear, kind.removesuffix(" in fp8"), fp8_products=True))  # type: ignore[arg-type]
        found.append([
            products.group_product(x.to(device), linears).double().cpu(),
            products.group_product_back(dy.to(device), linears).double().cpu(),
        ])  # fmt: skip
    for gpu, cpu in zip(*found, strict=True):
        assert (gpu - cpu).norm() < 5e-3 * cpu.norm()


# --- training ------------------------------------------------------------------------------------


def model8(dtype: torch.dtype, kind: str) -> Any:
    model = _model(dtype)
    for name, layer in linear_layers(model).items():
        stored: Any = kind.removesuffix(" in fp8")
        model.set_submodule(name, quantize_linear(layer, stored, fp8_products=True))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_bit_for_bit_with_answers_in_between(kind: str) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        found = [_trained(Fleet(model8(torch.float32, kind), _plans(), 1024), between) for between in
                 (lambda _: None, lambda _: None, _answer)]  # fmt: skip
    for slot, state in enumerate(found[0]):
        for key, value in state.items():
            assert torch.equal(value, found[1][slot][key]), "this GPU repeats nothing exactly, so nothing was tested"
            assert torch.equal(value, found[2][slot][key]), key


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_equal_steps_called_directly(kind: str) -> None:
    """As near as two ways of cutting the same steps into micro-batches: FP8 turns the last bit of bf16 into 6%."""
    recorded, direct, cut = (Fleet(model8(torch.bfloat16, kind), _plans(), budget) for budget in (1024, 1024, 256))
    direct._accumulate.records = cut._accumulate.records = False
    ours, theirs, other = (_trained(fleet) for fleet in (recorded, direct, cut))
    assert recorded._accumulate._recordings, "nothing was recorded, so nothing was tested"
    assert _apart(ours, theirs) < max(5e-2, 2 * _apart(other, theirs))


@pytest.mark.parametrize(("kind", "fp8_products"), [("fp8", False), ("nf4", True)])
def test_a_base_is_never_dense_as_a_whole(kind: Any, fp8_products: bool, medium: Path) -> None:  # noqa: F811
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = load_model(
        Base(str(medium), str(medium), local=True), torch.bfloat16, CUDA, kind, fp8_products=fp8_products
    )
    held, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    layers = linear_layers(model).values()
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    print(f"{kind}: held {held / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB, bf16 {2 * weights >> 20}")
    assert held < weights * (1.05 if kind == "fp8" else 0.58)
    assert peak < held + 1.01 * 4 * 4 * 2048 * 8192  # four copies of one layer in fp32, and its scales
    assert all(isinstance(layer, QuantizedLinear) and layer.fp8_products for layer in layers)
