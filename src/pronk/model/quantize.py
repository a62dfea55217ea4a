"""Frozen weights in fewer bits: NF4 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314), int8 by rows
(LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339, its weights only: nothing is rounded in activations), and
FP8 by rows (e4m3, Micikevicius et al. 2022, arXiv:2209.05433), whose products are in FP8 too.

bitsandbytes defines NF4 and int8, its layers are not used: on CPUs with AVX512-BF16 an evaluation repacks
their weights, and training then goes on without gradients. Ours dequantize for each product, forward and
backward (`products.py`), and keep the dense weight for neither.
Names carry shapes: T tokens, I input features, O output features; N weights of a layer.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pronk.errors import BaseModelError
from pronk.hub import silenced
from pronk.model.kernels import fp8, nf4
from pronk.model.kernels.nf4 import BLOCK as NF4_BLOCK
from pronk.model.kernels.nf4 import SCALE_BLOCK
from pronk.model.products import dense_group, frozen_product, frozen_product_back
from pronk.recipe import Quantize

CODE_BYTES = 4 * 256  # the table of the quantized scales' values
FP8_CAPABILITY = (8, 9)
FP8_SCALES = "fp8_scales"  # where fp8_loading.py leaves the scales of codes
INSTALL = 'pip install -U "bitsandbytes>=0.50,<1"'


class NF4Weight(nn.Module):
    """A matrix in 4 bits a weight: the nearest of 16 quantiles of the normal distribution, times its block's scale.

    With double quantization the scales are stored in 8 bits too.
    """

    scales: Tensor  # of each block, fp32; in 8 bits where they are quantized, and then with what follows
    offset: Tensor
    scales_scales: Tensor
    scales_code: Tensor
    fp8_scales: Tensor | None  # of each row's FP8 codes, fp32; only where products are in FP8
    kept_codes = None  # FP8 codes are made anew for each product

    def __init__(self, packed: Tensor, state: Any) -> None:
        """packed, state: what `bitsandbytes.functional.quantize_4bit` gives; the tensors are taken, not copied."""
        super().__init__()
        self.register_buffer("fp8_scales", None)
        self.shape, self.stored, self.nested = torch.Size(state.shape), state.dtype, bool(state.nested)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", state.absmax)
        if self.nested:
            self.register_buffer("offset", state.offset)
            self.register_buffer("scales_scales", state.state2.absmax)
            self.register_buffer("scales_code", state.state2.code)

    @classmethod
    def quantize(cls, weight_OI: Tensor, double: bool = True) -> NF4Weight:
        """Quantize a dense matrix (fp64 as fp32)."""
        packed, state = functional().quantize_4bit(
            _storable(weight_OI), blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=double
        )
        return cls(packed, state)

    @property
    def parts(self) -> nf4.NF4:
        """The tensors as kernels want them."""
        nested = nf4.Nested(self.scales_scales, self.scales_code, self.offset) if self.nested else None
        return nf4.NF4(self.packed.data, self.scales, nested, self.shape, self.stored)

    def dequantize(self, out: Tensor | None = None) -> Tensor:
        """The dense matrix (O × I) in the type that it was quantized from, or in `out` (contiguous, any float type)."""
        if self.packed.is_cuda:
            return nf4.dense(self.parts, out)
        library = functional()  # several times as fast on a CPU as plain PyTorch
        scales, count = self.scales, self.shape.numel()
        if self.nested:
            scales = library.dequantize_blockwise(
                self.scales, absmax=self.scales_scales, code=self.scales_code, blocksize=SCALE_BLOCK
            )
            scales = scales + self.offset
        # In one row of an even length: on CPUs with AVX512 bitsandbytes 0.50 takes wrong scales in a matrix
        # whose row length is a multiple of 16 but not of 64, and an odd one goes through a slow path.
        row = torch.Size((1, count + count % 2))
        state = library.QuantState(absmax=scales, shape=row, blocksize=NF4_BLOCK, quant_type="nf4", dtype=self.stored)
        flat_N: Tensor = library.dequantize_4bit(self.packed, state).reshape(-1)
        dense_OI = flat_N[:count].view(self.shape)
        return dense_OI if out is None else out.copy_(dense_OI)

    def prepare_fp8(self) -> None:
        """Find the scales that FP8 codes need, once."""
        self.fp8_scales = nf4.fp8_scales(self.parts)

    def fp8_codes(self, transposed: bool, out: Tensor | None = None) -> Tensor:
        """FP8 codes under `fp8_scales`, row-major: O × I, or transposed I × O (there `out` may be columns)."""
        assert self.fp8_scales is not None, "prepare_fp8 comes first"
        return nf4.fp8_codes(self.parts, self.fp8_scales, transposed, out)


class Int8Weight(nn.Module):
    """A matrix in 8 bits a weight: a whole number from -127 to 127, times a 127th of its row's largest."""

    largest: Tensor
    fp8_scales = kept_codes = None  # products with it are not in FP8

    def __init__(self, codes_OI: Tensor, largest_O: Tensor, stored: torch.dtype) -> None:
        """codes_OI, largest_O: what `bitsandbytes.functional.int8_vectorwise_quant` gives. stored: the dense type."""
        super().__init__()
        self.shape, self.stored = codes_OI.shape, stored
        self.codes = nn.Parameter(codes_OI, requires_grad=False)
        self.register_buffer("largest", largest_O)

    @classmethod
    def quantize(cls, weight_OI: Tensor) -> Int8Weight:
        """Quantize a dense matrix; like bitsandbytes, by way of fp16."""
        codes_OI, largest_O, _ = functional().int8_vectorwise_quant(weight_OI.to(torch.float16))
        return cls(codes_OI, largest_O, _storable(weight_OI).dtype)

    def dequantize(self, out: Tensor | None = None) -> Tensor:
        """The dense matrix (O × I) in the type that it was quantized from, or in `out` (any float type)."""
        dense_OI: Tensor = functional().int8_vectorwise_dequant(self.codes, self.largest)
        return dense_OI.to(self.stored) if out is None else out.copy_(dense_OI.to(self.stored))


class FP8Weight(nn.Module):
    """A matrix in 8 bits a weight: a number of FP8 (e4m3) times its row's scale.

    One copy is kept, by rows; the product of the backward wants the other layout, for which bytes are transposed
    each time. both_layouts: keep that copy too, twice the memory.
    """

    fp8_scales: Tensor
    codes_IO: Tensor | None

    def __init__(self, rows: fp8.Fp8Rows, stored: torch.dtype, both_layouts: bool = False) -> None:
        """rows: codes (O × I) and the scale of each row; taken, not copied. stored: the dense type."""
        super().__init__()
        self.shape, self.stored = rows.codes_TI.shape, stored
        # as bytes: to PyTorch these are no numbers to be cast with a model
        self.codes = nn.Parameter(rows.codes_TI.view(torch.uint8), requires_grad=False)
        self.register_buffer("fp8_scales", rows.scale_T)
        transposed = fp8.transpose_codes(rows.codes_TI).view(torch.uint8) if both_layouts else None
        self.register_buffer("codes_IO", transposed)

    @classmethod
    def quantize(cls, weight_OI: Tensor, both_layouts: bool = False) -> FP8Weight:
        """Quantize a dense matrix (fp64 as fp32)."""
        weight_OI = _storable(weight_OI)
        return cls(fp8.quantize_rows(weight_OI), weight_OI.dtype, both_layouts)

    @property
    def kept_codes(self) -> Tensor:
        """The codes as bytes (O × I)."""
        return self.codes

    def dequantize(self, out: Tensor | None = None) -> Tensor:
        """The dense matrix (O × I) in the type that it was quantized from, or in `out` (any float type)."""
        dense_OI = fp8.Fp8Rows(self.fp8_codes(False), self.fp8_scales).dense().to(self.stored)
        return dense_OI if out is None else out.copy_(dense_OI)

    def fp8_codes(self, transposed: bool, out: Tensor | None = None) -> Tensor:
        """FP8 codes under `fp8_scales`, row-major: O × I, or transposed I × O (there `out` may be columns)."""
        codes_OI = self.codes.data.view(fp8.FP8)
        if transposed and self.codes_IO is None:
            return fp8.transpose_codes(codes_OI, out)
        codes = codes_OI if not transposed or self.codes_IO is None else self.codes_IO.view(fp8.FP8)
        return codes if out is None else out.copy_(codes)


Weight = NF4Weight | Int8Weight | FP8Weight


class QuantizedLinear(nn.Module):
    """A frozen linear layer over a quantized weight; dtype: of its inputs and outputs.

    fp8_products: whether its products are in FP8, which they are not where a side is no multiple of 16.
    """

    bias: Tensor | None

    def __init__(
        self, quantized: Weight, bias_O: Tensor | None, dtype: torch.dtype, fp8_products: bool = False
    ) -> None:
        super().__init__()
        self.quantized, self.dtype = quantized, dtype
        self.out_features, self.in_features = quantized.shape
        self.register_buffer("bias", bias_O)
        wanted = fp8_products or isinstance(quantized, FP8Weight)
        self.fp8_products = wanted and not any(side % fp8.SIDE for side in quantized.shape)
        if self.fp8_products and isinstance(quantized, NF4Weight):
            quantized.prepare_fp8()

    @property
    def device(self) -> torch.device:
        return next(self.quantized.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _FrozenProduct.apply(x.reshape(-1, x.shape[-1]), self)
        return y.view(*x.shape[:-1], -1)


FrozenLinear = nn.Linear | QuantizedLinear


class _FrozenProduct(torch.autograd.Function):
    """x · Wᵀ + bias; the dense W lives while a product needs it."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        return frozen_product(x_TI, linear)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy_TO,) = grads
        return frozen_product_back(dy_TO, ctx.linear), None


def dense_weight(linear: FrozenLinear) -> Tensor:
    """The weight of a frozen linear layer (O × I) in the type of its products; a quantized one is made anew."""
    return dense_group([linear])


def quantize_linear(linear: nn.Linear, kind: Quantize, double: bool = True, fp8_products: bool = False) -> FrozenLinear:
    """An ordinary linear layer as a quantized one; kind none leaves it as it is. `dequantize_linear` undoes it."""
    if kind == "none":
        return linear
    weight_OI = linear.weight.detach()
    quantized = quantize_weight(weight_OI, kind, double)
    bias_O = None if linear.bias is None else linear.bias.detach()
    return QuantizedLinear(quantized, bias_O, weight_OI.dtype, fp8_products)


def quantize_weight(weight_OI: Tensor, kind: Literal["int8", "nf4", "fp8"], double: bool = True) -> Weight:
    """A dense matrix in fewer bits. double: for nf4, quantize its scales too."""
    if kind == "nf4":
        return NF4Weight.quantize(weight_OI, double)
    return Int8Weight.quantize(weight_OI) if kind == "int8" else FP8Weight.quantize(weight_OI)


def dequantize_linear(linear: FrozenLinear) -> nn.Linear:
    """A frozen linear layer as an ordinary one, with the weights that its products use."""
    if isinstance(linear, nn.Linear):
        return linear
    plain = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    plain.weight = nn.Parameter(dense_weight(linear), requires_grad=False)
    if linear.bias is not None:
        plain.bias = nn.Parameter(linear.bias, requires_grad=False)
    return plain


def quantized_bytes(
    shape: tuple[int, int], kind: Literal["int8", "nf4", "fp8"], double: bool = True, fp8_products: bool = False
) -> int:
    """What a quantized weight of a shape (O, I) takes, in bytes, scales included."""
    rows, columns = shape
    if kind != "nf4":
        return rows * columns + 4 * rows
    blocks = -(-rows * columns // NF4_BLOCK)
    scales = blocks + 4 + 4 * -(-blocks // SCALE_BLOCK) + CODE_BYTES if double else 4 * blocks
    of_rows = 4 * rows if fp8_products and not (rows % fp8.SIDE or columns % fp8.SIDE) else 0
    return -(-rows * columns // 2) + scales + of_rows


def loading_config(kind: Literal["int8", "nf4", "fp8"], double: bool, dtype: torch.dtype) -> Any:
    """What makes transformers quantize each linear layer but the output head as it reads it: no two of them
    are ever dense at once. `take_over` then makes the layers ours."""
    from transformers import BitsAndBytesConfig

    if kind == "fp8":
        from pronk.model.fp8_loading import LoadInFP8

        return LoadInFP8()
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype
    )


def take_over(model: Any, dtype: torch.dtype, fp8_products: bool) -> list[tuple[str, torch.Size, tuple[int, int]]]:
    """Put our layers over the tensors that transformers quantized while loading.

    Returns the weights of another shape than the model's (name, shape found, shape wanted): what transformers
    quantizes, it does not check.
    """
    mismatched = []
    for name, module in list(model.named_modules()):
        if (quantized := _loaded(module, dtype)) is None:
            continue
        if quantized.shape != (wanted := (module.out_features, module.in_features)):
            mismatched.append((f"{name}.weight", quantized.shape, wanted))
        bias_O = None if module.bias is None else module.bias.data
        model.set_submodule(name, QuantizedLinear(quantized, bias_O, dtype, fp8_products))
    model.hf_quantizer.remove_quantization_config(model)
    return mismatched


def _loaded(module: Any, dtype: torch.dtype) -> Weight | None:
    """The weight of a layer that was quantized while it was loaded."""
    if not isinstance(module, nn.Linear):
        return None
    weight: Any = module.weight
    if (scale_O := getattr(weight, FP8_SCALES, None)) is not None:
        return FP8Weight(fp8.Fp8Rows(weight.data.view(fp8.FP8), scale_O), dtype)
    kind = type(module).__name__  # without importing bitsandbytes, which FP8 does not need
    if kind == "Linear4bit":
        return NF4Weight(weight.data, weight.quant_state)
    return Int8Weight(weight.data, weight.SCB, dtype) if kind == "Linear8bitLt" else None


def check_quantization(kind: Quantize, device: torch.device, fp8_products: bool = False) -> None:
    """That a device can hold and multiply weights of a kind. Raises BaseModelError with what to do."""
    if kind == "fp8" or fp8_products:
        _check_fp8("quantize: fp8" if kind == "fp8" else "train.fp8_products: true", device)
    if kind in ("int8", "nf4"):
        _check_bitsandbytes(kind, device)


def _check_fp8(key: str, device: torch.device) -> None:
    """That a GPU multiplies in FP8; a CPU computes the same numbers slowly."""
    if device.type == "cpu":
        return
    major, minor = torch.cuda.get_device_capability(device)
    if torch.version.hip or (major, minor) < FP8_CAPABILITY:
        instead = "leave it out" if "products" in key else "write `quantize: nf4` or `quantize: int8`"
        raise BaseModelError(
            f"{key} needs an NVIDIA GPU that multiplies in FP8: compute capability 8.9 or newer (RTX 40, L4, H100 "
            f"and later); {device} is a {torch.cuda.get_device_name(device)} with {major}.{minor}; {instead}"
        )


def _check_bitsandbytes(kind: Literal["int8", "nf4"], device: torch.device) -> None:
    """That bitsandbytes is there and can quantize on a device."""
    sample = torch.linspace(-1, 1, 2 * NF4_BLOCK, device=device).view(2, NF4_BLOCK)
    try:
        weight = quantize_weight(sample, kind)
        error = float((weight.dequantize() - sample).abs().max())
    except BaseModelError:
        raise
    except Exception as failure:  # a library for other hardware fails in many ways, none of them documented
        said = (str(failure).splitlines() or [type(failure).__name__])[0]
        raise BaseModelError(
            f"quantize: {kind} needs bitsandbytes, which does not work on {device} here ({said}); "
            f"run `{INSTALL}`, or write `quantize: none`"
        ) from failure
    if not error < 0.2:
        raise BaseModelError(
            f"quantize: {kind}: bitsandbytes gives wrong numbers on {device} (off by {error:.2g} of 1); "
            f"run `{INSTALL}`, or write `quantize: none`"
        )


@cache
def functional() -> Any:
    """bitsandbytes.functional. Raises BaseModelError if bitsandbytes is missing or cannot be loaded."""
    try:
        with silenced("bitsandbytes"):  # it warns of optional kernels that nobody asked for
            import bitsandbytes.functional
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseModelError(
            f"quantize: int8 and nf4 need bitsandbytes, which cannot be loaded ({said}); run `{INSTALL}`, "
            "or write `quantize: none`"
        ) from error
    return bitsandbytes.functional


def _storable(weight: Tensor) -> Tensor:
    """bitsandbytes knows three float types; fp64, which only tests use, goes as fp32."""
    return weight if weight.dtype in (torch.float32, torch.bfloat16, torch.float16) else weight.float()
