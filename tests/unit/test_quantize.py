"""Quantized weights are bitsandbytes', bit for bit; products with them are plain products with what they stand for."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import pronk.model.quantize as subject
from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape, attach, linear_layers
from pronk.model.load import find_base, load_config, load_model, resolve_device

CPU = torch.device("cpu")
KINDS = [("nf4", True), ("nf4", False), ("int8", True)]
# rows that are whole blocks of 64, and rows that are not: shorter, longer, odd, one number
ALIGNED = [(64, 64), (48, 128), (576, 1536)]
RAGGED = [(48, 32), (48, 96), (33, 65), (5, 7), (7, 16), (1, 130), (3, 1), (1, 1)]


def random_weight(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def quantized(weight_OI: Tensor, kind: str, double: bool) -> Any:
    return subject.NF4Weight.quantize(weight_OI, double) if kind == "nf4" else subject.Int8Weight.quantize(weight_OI)


def by_bitsandbytes(weight_OI: Tensor, kind: str, double: bool) -> Tensor:
    library = subject.functional()
    if kind == "int8":
        codes_OI, largest_O, _ = library.int8_vectorwise_quant(weight_OI.half())
        return library.int8_vectorwise_dequant(codes_OI, largest_O).to(weight_OI.dtype)
    packed, state = library.quantize_4bit(weight_OI, quant_type="nf4", compress_statistics=double)
    return library.dequantize_4bit(packed, state)


def by_the_paper(weight_OI: Tensor) -> Tensor:
    """NF4 without double quantization as QLoRA writes it: the nearest of 16 numbers times the block's largest."""
    codebook = torch.tensor([
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ])  # fmt: skip
    blocks = []
    for block in weight_OI.float().flatten().split(64):
        largest = block.abs().max()
        nearest = (block[:, None] * (1 / largest) - codebook).abs().argmin(dim=1)
        blocks.append(codebook[nearest] * largest)
    return torch.cat(blocks).view(weight_OI.shape).to(weight_OI.dtype)


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ALIGNED, ids=str)
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_dequantized_weights_are_those_of_bitsandbytes(
    kind: str, double: bool, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    weight_OI = random_weight(shape, dtype)
    dense_OI = quantized(weight_OI, kind, double).dequantize()
    assert dense_OI.dtype == dtype
    assert torch.equal(dense_OI, by_bitsandbytes(weight_OI, kind, double))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ALIGNED + RAGGED, ids=str)
def test_nf4_is_what_the_paper_says_in_any_shape(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """bitsandbytes 0.50's own matrix form takes the wrong scales where a row is no multiple of 64 (AVX512)."""
    weight_OI = random_weight(shape, dtype)
    assert torch.equal(subject.NF4Weight.quantize(weight_OI, double=False).dequantize(), by_the_paper(weight_OI))


@pytest.mark.parametrize("shape", RAGGED, ids=str)
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_any_shape_comes_back_near(kind: str, double: bool, shape: tuple[int, int]) -> None:
    """Half of NF4's widest step is 0.14 of the block's largest, half of int8's is 1/254 of the row's."""
    weight_OI = random_weight(shape)
    error = (quantized(weight_OI, kind, double).dequantize() - weight_OI).abs().max()
    assert error <= weight_OI.abs().max() * (0.17 if kind == "nf4" else 0.005)


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_weights_of_nothing_but_zeros(kind: str, double: bool) -> None:
    assert not quantized(torch.zeros(4, 64), kind, double).dequantize().any()


@pytest.mark.parametrize("shape", ALIGNED + RAGGED, ids=str)
@pytest.mark.parametrize("fp8_products", [False, True])
@pytest.mark.parametrize(("kind", "double"), [*KINDS, ("fp8", True)])
def test_bytes_are_predicted(kind: Any, double: bool, fp8_products: bool, shape: tuple[int, int]) -> None:
    weight = subject.quantize_weight(random_weight(shape), kind, double)
    layer = subject.QuantizedLinear(weight, None, torch.float32, fp8_products)
    assert held(layer) == subject.quantized_bytes(shape, kind, double, fp8_products)


def held(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


# --- layers --------------------------------------------------------------------------------------


@pytest.fixture(params=KINDS, ids=str)
def layer(request: pytest.FixtureRequest) -> subject.QuantizedLinear:
    made = subject.quantize_linear(nn.Linear(48, 33), *request.param)
    assert isinstance(made, subject.QuantizedLinear)
    return made


def test_a_product_is_that_of_the_dequantized_layer(layer: subject.QuantizedLinear) -> None:
    plain = subject.dequantize_linear(layer)
    results = []
    for module in (layer, plain):
        x = random_weight((5, 48)).requires_grad_()
        y = module(x[None])
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        results.append((y, gradient))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def kept_sizes(call: Callable[[], Tensor]) -> set[int]:
    """Sizes of the tensors that a forward keeps for its backward."""
    sizes: set[int] = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: sizes.add(kept.numel()) or kept, lambda kept: kept):
        call()
    return sizes


def test_no_dense_weight_is_kept_for_the_backward(layer: subject.QuantizedLinear) -> None:
    x = random_weight((5, 48)).requires_grad_()
    assert 33 * 48 not in kept_sizes(lambda: layer(x))
    assert 33 * 48 in kept_sizes(lambda: subject.dequantize_linear(layer)(x))  # as any plain layer does
    model = nn.Sequential(layer)
    adapter = attach(model, [AdapterShape(2, 4)])
    adapter.routing.set(torch.zeros(5, dtype=torch.int64))
    kept = kept_sizes(lambda: model(x))
    assert 33 * 48 not in kept
    assert 5 * 48 in kept  # what the adapter's gradient needs


@pytest.mark.parametrize("kind", ["none", "nf4", "int8"])
def test_an_adapter_that_adds_nothing_leaves_the_layer_as_it_is(kind: Any) -> None:
    layer = subject.quantize_linear(nn.Linear(48, 33), kind)
    x = random_weight((5, 48))
    expected = layer(x)
    model = nn.Sequential(layer)
    adapter = attach(model, [AdapterShape(2, 4)])
    adapter.routing.set(torch.zeros(5, dtype=torch.int64))
    assert torch.equal(model(x), expected)
    adapter.detach()
    assert model[0] is layer


def test_products_are_in_the_type_of_the_layer() -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        layer = subject.quantize_linear(nn.Linear(64, 8, dtype=dtype), "nf4")
        assert layer(torch.ones(2, 64, dtype=dtype)).dtype == dtype


# --- loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_a_base_is_loaded_as_each_layer_quantized_by_itself(
    kind: Any, double: bool, dtype: torch.dtype, tiny_base: Path
) -> None:
    base = find_base(str(tiny_base))
    plain, loaded = load_model(base, dtype, CPU), load_model(base, dtype, CPU, kind, double)
    layers = linear_layers(plain)
    assert list(linear_layers(loaded)) == list(layers)
    for name, layer in linear_layers(loaded).items():
        assert isinstance(layer, subject.QuantizedLinear)
        assert torch.equal(subject.dense_weight(layer), by_bitsandbytes(layers[name].weight, kind, double)), name
    assert type(loaded.lm_head) is nn.Linear
    for name, parameter in loaded.named_parameters():
        if "quantized" not in name:
            assert torch.equal(parameter, plain.get_parameter(name)), name
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not hasattr(loaded.config, "quantization_config")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_is_loaded_in_fp8_as_each_layer_by_itself(dtype: torch.dtype, tiny_base: Path) -> None:
    base = find_base(str(tiny_base))
    plain, loaded = load_model(base, dtype, CPU), load_model(base, dtype, CPU, "fp8")
    layers = linear_layers(plain)
    assert list(linear_layers(loaded)) == list(layers)
    for name, layer in linear_layers(loaded).items():
        assert isinstance(layer, subject.QuantizedLinear)
        weight_OI = layers[name].weight.float()
        codes_OI = (weight_OI * (1 / (weight_OI.abs().amax(1) / 448))[:, None]).to(torch.float8_e4m3fn)
        assert torch.equal(layer.quantized.fp8_codes(False).float(), codes_OI.float()), name
        assert torch.equal(layer.quantized.fp8_scales, weight_OI.abs().amax(1) / 448)
        assert layer.fp8_products
    assert type(loaded.lm_head) is nn.Linear
    for name, parameter in loaded.named_parameters():
        if "quantized" not in name:
            assert torch.equal(parameter, plain.get_parameter(name)), name
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not hasattr(loaded.config, "quantization_config")
    in_fp8 = load_model(base, dtype, CPU, "nf4", fp8_products=True)
    assert all(layer.fp8_products for layer in linear_layers(in_fp8).values())


@pytest.mark.parametrize("kind", ["nf4", "int8", "fp8"])
def test_biases_stay_as_they_are(kind: Any, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
        attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    made.save_pretrained(tmp_path)
    layers = linear_layers(made)
    loaded = linear_layers(load_model(find_base(str(tmp_path)), torch.float32, CPU, kind))
    assert len(loaded) == 7
    for name, layer in loaded.items():
        assert isinstance(layer, subject.QuantizedLinear)
        assert torch.equal(subject.dequantize_linear(layer).bias, layers[name].bias), name


@pytest.mark.parametrize("kind", ["nf4", "fp8"])
def test_loading_says_nothing_and_finds_what_is_missing(kind: Any, tiny_base: Path, tmp_path: Path, capfd: Any) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    load_model(find_base(str(folder)), torch.float32, CPU, kind)
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(BaseModelError, match=r"lacks 9 of the weights .*: model\.layers\.2\."):
        load_model(find_base(str(folder)), torch.float32, CPU, kind)
    change_config(folder, num_hidden_layers=2, intermediate_size=64)
    with pytest.raises(BaseModelError, match=r"6 weights of another shape .* is \(64, 128\), not \(64, 64\)"):
        load_model(find_base(str(folder)), torch.float32, CPU, kind)
    assert "".join(capfd.readouterr()) == ""


def test_a_base_that_is_quantized_already(tiny_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    change_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(BaseModelError, match=r"already quantized \(bitsandbytes in its config\.json\); name the model"):
        load_config(find_base(str(folder)))


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


# --- what can be wrong with the machine ----------------------------------------------------------


@pytest.fixture
def forgotten() -> Iterator[None]:
    """As before bitsandbytes was looked for."""
    subject.functional.cache_clear()
    yield
    subject.functional.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_bitsandbytes_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("bitsandbytes.") or name == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    subject.check_quantization("none", CPU)
    with pytest.raises(BaseModelError, match=r"nf4 need bitsandbytes, which cannot be loaded \(.*pip install -U"):
        subject.check_quantization("nf4", CPU)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_bitsandbytes_does_not_work(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA Setup failed\nand much more")

    names = {"nf4": "quantize_4bit", "int8": "int8_vectorwise_quant"}
    monkeypatch.setattr(subject.functional(), names[kind], fails)
    with pytest.raises(BaseModelError, match=rf"{kind} needs bitsandbytes, .* on cpu here \(CUDA Setup failed\); run"):
        subject.check_quantization(kind, CPU)


def test_bitsandbytes_gives_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., Tensor] = subject.functional().dequantize_4bit
    monkeypatch.setattr(subject.functional(), "dequantize_4bit", lambda *given: 2 * original(*given))
    with pytest.raises(BaseModelError, match=r"wrong numbers on cpu \(off by 1\.1 of 1\)"):
        subject.check_quantization("nf4", CPU)


def test_a_device_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    assert resolve_device("cuda") == resolve_device("auto") == torch.device("cuda")
    with pytest.raises(BaseModelError, match=r"train\.device: cuda:2, but PyTorch sees cuda:0, cuda:1 only"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BaseModelError, match=r"cuda:1, but PyTorch sees no GPU"):
        resolve_device("cuda:1")
