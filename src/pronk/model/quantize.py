"""Frozen weights in fewer bits: NF4 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314) and int8 by rows
(LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339, its weights only: nothing is rounded in activations).

bitsandbytes does the arithmetic, its layers are not used: on CPUs with AVX512-BF16 an evaluation repacks
their weights, and training then goes on without gradients. Ours dequantize for each product, forward and
backward, and keep the dense weight for neither.
Names carry shapes: T tokens, I input features, O output features; N weights of a layer.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pronk.errors import BaseModelError
from pronk.hub import silenced
from pronk.recipe import Quantize

NF4_BLOCK = 64  # weights that share a scale
SCALE_BLOCK = 256  # scales that share a scale, where those are quantized too
CODE_BYTES = 4 * 256  # the table of the quantized scales' values
INSTALL = 'pip install -U "bitsandbytes>=0.50,<1"'


class NF4Weight(nn.Module):
    """A matrix in 4 bits a weight: the nearest of 16 quantiles of the normal distribution, times its block's scale.

    With double quantization the scales are stored in 8 bits too.
    """

    scales: Tensor  # of each block, fp32; in 8 bits where they are quantized, and then with what follows
    offset: Tensor
    scales_scales: Tensor
    scales_code: Tensor

    def __init__(self, packed: Tensor, state: Any) -> None:
        """packed, state: what `bitsandbytes.functional.quantize_4bit` gives; the tensors are taken, not copied."""
        super().__init__()
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

    def dequantize(self) -> Tensor:
        """The dense matrix (O × I) in the type that it was quantized from."""
        library = functional()
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
        return flat_N[:count].view(self.shape)


class Int8Weight(nn.Module):
    """A matrix in 8 bits a weight: a whole number from -127 to 127, times a 127th of its row's largest."""

    largest: Tensor

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

    def dequantize(self) -> Tensor:
        """The dense matrix (O × I) in the type that it was quantized from."""
        dense_OI: Tensor = functional().int8_vectorwise_dequant(self.codes, self.largest)
        return dense_OI.to(self.stored)


class QuantizedLinear(nn.Module):
    """A frozen linear layer over a quantized weight; dtype: of its inputs and outputs."""

    bias: Tensor | None

    def __init__(self, quantized: NF4Weight | Int8Weight, bias_O: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.quantized, self.dtype = quantized, dtype
        self.out_features, self.in_features = quantized.shape
        self.register_buffer("bias", bias_O)

    @property
    def device(self) -> torch.device:
        return next(self.quantized.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _FrozenProduct.apply(x, self)
        return y


FrozenLinear = nn.Linear | QuantizedLinear


class _FrozenProduct(torch.autograd.Function):
    """x · Wᵀ + bias; the dense W lives while a product needs it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        return nn.functional.linear(x, dense_weight(linear), linear.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        return dy @ dense_weight(ctx.linear), None


def dense_weight(linear: FrozenLinear) -> Tensor:
    """The weight of a frozen linear layer (O × I) in the type of its products; a quantized one is made anew."""
    if isinstance(linear, QuantizedLinear):
        return linear.quantized.dequantize().to(linear.dtype)
    return linear.weight


def product_dtype(linear: FrozenLinear) -> torch.dtype:
    """The type of a linear layer's inputs and outputs."""
    return linear.dtype if isinstance(linear, QuantizedLinear) else linear.weight.dtype


def product_device(linear: FrozenLinear) -> torch.device:
    """Where a linear layer lies."""
    return linear.device if isinstance(linear, QuantizedLinear) else linear.weight.device


def quantize_linear(linear: nn.Linear, kind: Quantize, double: bool = True) -> FrozenLinear:
    """An ordinary linear layer as a quantized one; kind none leaves it as it is. `dequantize_linear` undoes it."""
    if kind == "none":
        return linear
    weight_OI = linear.weight.detach()
    quantized = NF4Weight.quantize(weight_OI, double) if kind == "nf4" else Int8Weight.quantize(weight_OI)
    return QuantizedLinear(quantized, None if linear.bias is None else linear.bias.detach(), weight_OI.dtype)


def dequantize_linear(linear: FrozenLinear) -> nn.Linear:
    """A frozen linear layer as an ordinary one, with the weights that its products use."""
    if isinstance(linear, nn.Linear):
        return linear
    plain = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    plain.weight = nn.Parameter(dense_weight(linear), requires_grad=False)
    if linear.bias is not None:
        plain.bias = nn.Parameter(linear.bias, requires_grad=False)
    return plain


def quantized_bytes(shape: tuple[int, int], kind: Literal["int8", "nf4"], double: bool = True) -> int:
    """What a quantized weight of a shape (O, I) takes, in bytes, scales included."""
    rows, columns = shape
    if kind == "int8":
        return rows * columns + 4 * rows
    blocks = -(-rows * columns // NF4_BLOCK)
    scales = blocks + 4 + 4 * -(-blocks // SCALE_BLOCK) + CODE_BYTES if double else 4 * blocks
    return -(-rows * columns // 2) + scales


def loading_config(kind: Literal["int8", "nf4"], double: bool, dtype: torch.dtype) -> Any:
    """What makes transformers quantize each linear layer but the output head as it reads it: no two of them
    are ever dense at once. `take_over` then makes the layers ours."""
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype
    )


def take_over(model: Any, dtype: torch.dtype) -> list[tuple[str, torch.Size, tuple[int, int]]]:
    """Put our layers over the tensors of the bitsandbytes layers that transformers made.

    Returns the weights of another shape than the model's (name, shape found, shape wanted): what transformers
    quantizes, it does not check.
    """
    functional()
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    mismatched = []
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            quantized: NF4Weight | Int8Weight = NF4Weight(module.weight.data, module.weight.quant_state)
        elif isinstance(module, Linear8bitLt):
            quantized = Int8Weight(module.weight.data, module.weight.SCB, dtype)
        else:
            continue
        if quantized.shape != (wanted := (module.out_features, module.in_features)):
            mismatched.append((f"{name}.weight", quantized.shape, wanted))
        bias_O = None if module.bias is None else module.bias.data
        model.set_submodule(name, QuantizedLinear(quantized, bias_O, dtype))
    model.hf_quantizer.remove_quantization_config(model)
    return mismatched


def check_quantization(kind: Quantize, device: torch.device) -> None:
    """That bitsandbytes is there and can quantize on a device. Raises BaseModelError with what to do."""
    if kind == "none":
        return
    sample = torch.linspace(-1, 1, 2 * NF4_BLOCK, device=device).view(2, NF4_BLOCK)
    try:
        weight = NF4Weight.quantize(sample) if kind == "nf4" else Int8Weight.quantize(sample)
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
