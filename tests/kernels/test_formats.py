"""NF4 and FP8: the plain forms are bitsandbytes' bits and the nearest numbers of float8, kernels those forms."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from interpreted import TARGETS, compiled, interpreted
from torch import Tensor

from pronk.model.kernels import fp8, nf4
from pronk.model.quantize import NF4Weight, functional

FORMATS = "triton_formats"
WHOLE = [(64, 64), (150, 192), (16, 576)]  # rows of whole blocks
RAGGED = [(48, 32), (33, 65), (5, 7), (1, 1)]
DOUBLE = [True, False]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def in_nf4(shape: tuple[int, int], double: bool, dtype: torch.dtype = torch.float32) -> nf4.NF4:
    return NF4Weight.quantize(draw(*shape, dtype=dtype), double).parts


def same(one: Tensor, other: Tensor) -> bool:
    """Equal as numbers, whatever float8's bytes are (it has a minus zero)."""
    return one.dtype == other.dtype and torch.equal(one.float(), other.float())


@pytest.fixture(scope="module")
def kernels() -> Any:
    return interpreted(FORMATS)


# --- NF4, dense ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", WHOLE, ids=str)
@pytest.mark.parametrize("double", DOUBLE)
def test_dense_nf4_is_bitsandbytes_bit_for_bit(double: bool, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight_OI, library = draw(*shape, dtype=dtype), functional()
    packed, state = library.quantize_4bit(weight_OI, quant_type="nf4", compress_statistics=double)
    assert torch.equal(nf4.dense(in_nf4(shape, double, dtype)), library.dequantize_4bit(packed, state))


@pytest.mark.parametrize("shape", WHOLE + RAGGED, ids=str)
@pytest.mark.parametrize("double", DOUBLE)
def test_the_kernel_of_dense_nf4_is_its_plain_form(kernels: Any, double: bool, shape: tuple[int, int]) -> None:
    weight = in_nf4(shape, double)
    assert torch.equal(kernels.dense_nf4(weight, None), nf4.dense_plain(weight))
    half = in_nf4(shape, double, torch.bfloat16)  # the interpreter cuts bits off where a GPU rounds
    plain = nf4.dense_plain(half).float()
    assert ((kernels.dense_nf4(half, None).float() - plain).abs() <= plain.abs() * 2**-7).all()


@pytest.mark.parametrize("double", DOUBLE)
def test_dense_nf4_fills_a_slice_and_nothing_else(kernels: Any, double: bool) -> None:
    weight = in_nf4((33, 65), double)
    for dense in (nf4.dense, kernels.dense_nf4):
        buffer = torch.full((60, 65), 7.0)
        dense(weight, buffer[20:53])
        assert torch.equal(buffer[20:53], nf4.dense_plain(weight))
        assert (buffer[:20] == 7).all()
        assert (buffer[53:] == 7).all()


@pytest.mark.parametrize("fault", ["scale of the next block", "halves of a byte swapped", "offset left out"])
def test_faults_of_dense_nf4_show(fault: str) -> None:
    weight = in_nf4((64, 192), True)
    assert weight.nested is not None
    broken = {
        "scale of the next block": weight._replace(scales=weight.scales.roll(1)),
        "halves of a byte swapped": weight._replace(packed=(weight.packed >> 4) | (weight.packed << 4)),
        "offset left out": weight._replace(nested=weight.nested._replace(offset=torch.zeros(()))),
    }[fault]
    assert not torch.equal(nf4.dense(broken), NF4Weight.quantize(draw(64, 192)).dequantize())


# --- FP8 -----------------------------------------------------------------------------------------


@cache
def numbers() -> tuple[Tensor, Tensor]:
    """Every finite number of float8_e4m3fn in order, and the byte of each."""
    codes = torch.tensor([*range(0x7F), *range(0x81, 0xFF)], dtype=torch.uint8)  # without NaN and minus zero
    values, order = codes.view(fp8.FP8).double().sort()
    return values, codes[order]


def nearest(x: Tensor) -> Tensor:
    """The nearest of them, by trying; of two as near the one whose byte is even."""
    values, codes = numbers()
    distance = (x.double()[..., None] - values).abs()
    distance += (codes & 1) * 1e-13 * values.abs()
    return values[distance.argmin(-1)]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rows_in_fp8_are_the_nearest_numbers(dtype: torch.dtype, folded: bool) -> None:
    x, factors = draw(9, 48) * torch.logspace(-3, 3, 9)[:, None], draw(48, seed=1).abs() if folded else None
    x = x.to(dtype)
    wanted = x.double() if factors is None else x.double() * factors
    rows = fp8.quantize_rows(x, factors)
    assert rows.codes_TI.dtype == fp8.FP8
    assert torch.allclose(rows.scale_T.double() * 448, wanted.abs().amax(1), rtol=1e-6)
    found, best = rows.codes_TI.double(), nearest(wanted / rows.scale_T[:, None])
    # a value within fp32's roundings of the middle may go either way
    assert (found == best).double().mean() > 0.99
    assert ((found - best).abs() <= 2.0**-3 * best.abs().clamp(min=2.0**-6)).all()
    error = (rows.dense(torch.float64) - wanted).abs()
    assert (error <= (2.0**-4 * wanted.abs()).clamp(min=2.0**-10 * rows.scale_T[:, None]) * (1 + 1e-5)).all()


def test_rows_of_zeros_and_rows_that_are_not_finite() -> None:
    x = draw(5, 32)
    x[1], x[2, 7], x[3, 9] = 0, torch.nan, torch.inf
    values = fp8.quantize_rows(x).dense()
    assert not values[1].any()
    assert not values[2].isfinite().all()
    assert not values[3].isfinite().all()
    assert torch.equal(values[[0, 4]], fp8.quantize_rows(x[[0, 4]]).dense())


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_of_rows_is_its_plain_form(kernels: Any, dtype: torch.dtype, folded: bool) -> None:
    x = (draw(21, 80) * torch.logspace(-25, 9, 21)[:, None]).to(dtype)
    x[3] = 0
    factors = draw(80, seed=1).abs() if folded else None
    wide = torch.cat([x, x], dim=1)  # rows that lie apart
    for given in (x, wide[:, :80]):
        plain, kernel = fp8.quantize_rows_plain(given, factors), kernels.quantize(given, factors)
        assert torch.equal(plain.scale_T, kernel.scale_T)
        assert same(plain.codes_TI, kernel.codes_TI)
    flat = torch.full((3, 1), 0.3).expand(3, 80)  # a gradient that is one number for all
    assert same(kernels.quantize(flat, None).codes_TI, fp8.quantize_rows_plain(flat).codes_TI)


def test_transposed_bytes(kernels: Any) -> None:
    codes = fp8.quantize_rows(draw(150, 208)).codes_TI
    for transpose in (lambda one, out: fp8.transpose_codes(one, out), kernels.transpose):
        wide = torch.zeros(208, 200, dtype=torch.uint8).view(fp8.FP8)
        transpose(codes, wide[:, 20:170])
        assert torch.equal(wide[:, 20:170].view(torch.uint8), codes.view(torch.uint8).T)
        assert not wide.view(torch.uint8)[:, :20].any()
        assert not wide.view(torch.uint8)[:, 170:].any()
    assert torch.equal(fp8.transpose_codes(codes).float(), codes.float().T)


# --- NF4 to FP8 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", WHOLE + RAGGED, ids=str)
@pytest.mark.parametrize("double", DOUBLE)
def test_nf4_in_fp8_is_the_nearest_to_what_nf4_says(double: bool, shape: tuple[int, int]) -> None:
    weight = in_nf4(shape, double)
    scale_O = nf4.fp8_scales(weight)
    dense_OI = NF4Weight.quantize(draw(*shape), double).dequantize().double()
    codes_OI = nf4.fp8_codes(weight, scale_O)
    assert (dense_OI.abs().amax(1) <= scale_O.double() * 448 * (1 + 1e-6)).all()
    if shape in WHOLE:  # where blocks reach over rows, the scale may be another row's
        largest = nf4.block_scales(weight).abs().view(shape[0], -1).amax(1)
        assert torch.allclose(scale_O * 448, largest, rtol=1e-6)
    error = (codes_OI.double() * scale_O[:, None] - dense_OI).abs()
    assert (error <= (2.0**-4 * dense_OI.abs()).clamp(min=2.0**-10 * scale_O.double()[:, None]) * (1 + 1e-5)).all()
    assert same(nf4.fp8_codes(weight, scale_O, transposed=True), codes_OI.T)


@pytest.mark.parametrize("shape", WHOLE, ids=str)
@pytest.mark.parametrize("double", DOUBLE)
def test_the_kernels_of_nf4_in_fp8_are_their_plain_form(kernels: Any, double: bool, shape: tuple[int, int]) -> None:
    weight = in_nf4(shape, double)
    scale_O = nf4.fp8_scales(weight)
    plain = nf4.fp8_codes_plain(weight, scale_O)
    assert same(kernels.nf4_to_fp8(weight, scale_O, False, None), plain)
    assert same(kernels.nf4_to_fp8(weight, scale_O, True, None), plain.T)
    wide = torch.zeros(shape[1], shape[0] + 40, dtype=torch.uint8).view(fp8.FP8)  # as part of a group
    kernels.nf4_to_fp8(weight, scale_O, True, wide[:, 16:-24])
    assert same(wide[:, 16:-24], plain.T)
    assert not wide[:, :16].float().any()
    assert not wide[:, -24:].float().any()


# --- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_product_of_rows_is_that_of_their_values(dtype: torch.dtype) -> None:
    left, right = fp8.quantize_rows(draw(7, 64)), fp8.quantize_rows(draw(48, 64, seed=1))
    wanted = left.dense(torch.float64) @ right.dense(torch.float64).T
    step = 2 * torch.finfo(dtype).eps
    size = left.dense(torch.float64).abs() @ right.dense(torch.float64).abs().T
    found = fp8.multiply_rows(left, right.codes_TI, right.scale_T, dtype)
    assert found.dtype == dtype
    assert ((found.double() - wanted).abs() <= step * size).all()
    out = torch.empty(7, 48, dtype=dtype)
    assert fp8.multiply_rows(left, right.codes_TI, right.scale_T, dtype, out) is out
    assert torch.equal(out, found)
    unscaled = fp8.multiply_rows(left, right.codes_TI, None, torch.float64)
    assert torch.allclose(unscaled * right.scale_T, wanted, rtol=1e-12)


def test_torch_takes_our_products_on_a_gpu_of_any_kind() -> None:
    """Shapes, scales and layouts as PyTorch's public function checks them, on tensors without memory."""
    left = fp8.Fp8Rows(torch.empty(33, 64, dtype=fp8.FP8, device="meta"), torch.empty(33, device="meta"))
    codes = torch.empty(48, 64, dtype=fp8.FP8, device="meta")
    for scale_O in (None, torch.empty(48, device="meta")):
        y_TO = fp8._tensor_cores(left, codes, scale_O)
        assert (y_TO.shape, y_TO.dtype) == ((33, 48), torch.bfloat16)


# --- without a GPU -------------------------------------------------------------------------------

NF4_TYPES = {
    "packed": "*u8", "table": "*fp32", "scales": "*u8", "outer": "*fp32", "code": "*fp32", "offset": "*fp32",
    "row_scales": "*fp32",
}  # fmt: skip
KERNELS: list[tuple[str, dict[str, str], dict[str, Any], int]] = [
    (
        "quantize_kernel",
        {"x": "*bf16", "factors": "*fp32", "codes": "*fp8e4nv", "scales": "*fp32", "x_stride": "i32",
         "features": "i32"},
        {"FOLD": True, "WIDTH": 4096, "BY_HAND": False}, 89,
    ),
    (
        "transpose_kernel",
        {"source": "*u8", "target": "*u8", "rows": "i32", "columns": "i32", "source_stride": "i32",
         "target_stride": "i32"},
        {"TILE": 128}, 80,
    ),
    (
        "flat_kernel", {**NF4_TYPES, "out": "*bf16", "count": "i32", "blocks_in_row": "i32"},
        {"NESTED": True, "FP8": False, "WHOLE": True, "BLOCKS": 64, "BY_HAND": False}, 80,
    ),
    (
        "flat_kernel", {**NF4_TYPES, "out": "*fp16", "scales": "*fp32", "count": "i32", "blocks_in_row": "i32"},
        {"NESTED": False, "FP8": False, "WHOLE": False, "BLOCKS": 64, "BY_HAND": False}, 80,
    ),
    (
        "flat_kernel", {**NF4_TYPES, "out": "*fp8e4nv", "count": "i32", "blocks_in_row": "i32"},
        {"NESTED": True, "FP8": True, "WHOLE": True, "BLOCKS": 64, "BY_HAND": False}, 89,
    ),
    (
        "transposed_kernel", {**NF4_TYPES, "out": "*u8", "rows": "i32", "blocks_in_row": "i32", "out_stride": "i32"},
        {"NESTED": True, "ROWS": 128, "BLOCKS": 2, "BY_HAND": False}, 89,
    ),
]  # fmt: skip


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize(("kernel", "types", "constants", "since"), KERNELS)
def test_kernels_compile(
    kernel: str, types: dict[str, str], constants: dict[str, Any], since: int, capability: int
) -> None:
    if capability < since:
        pytest.skip("has no float8 types")
    assert compiled(FORMATS, kernel, capability, types, constants).asm["cubin"]
