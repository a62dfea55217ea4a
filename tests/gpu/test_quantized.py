"""Quantized bases on a GPU: bitsandbytes' weights bit for bit, loaded one by one, unharmed by answers and recordings.

Run with `pytest -m gpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

import pronk.model.quantize as subject
from pronk.model.adapter import AdapterShape, linear_layers
from pronk.model.attention import use_packed_attention
from pronk.model.generate import score_and_answer
from pronk.model.hub import Base
from pronk.model.load import load_model
from pronk.tokens.pack import pack_prompts
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]

KINDS = [("nf4", True), ("nf4", False), ("int8", True)]
CUDA = torch.device("cuda")


def _weight(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(CUDA, dtype)


def _model(dtype: torch.dtype, kind: Any = "none", double: bool = True) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(CUDA, dtype).eval()
    use_packed_attention(model)
    for name, layer in linear_layers(model).items():
        model.set_submodule(name, subject.quantize_linear(layer, kind, double))
    return model


def _plans() -> list[RunPlan]:
    draw = np.random.default_rng(0)
    examples = []
    for _ in range(40):
        length = int(draw.integers(8, 90))
        examples.append(Example(draw.integers(3, 512, length), np.arange(length) >= length - 3))
    targets = ["all-linear", ("q_proj", "v_proj"), ("down_proj",)]
    return [RunPlan(f"run{k}", examples, AdapterShape(4 + 4 * k, 16.0, targets[k]), 12, 8, 1e-3) for k in range(3)]


def _answer(fleet: Fleet) -> None:
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
    score_and_answer(fleet.model, fleet.adapter, pack_prompts(prompts, [-1, 0, 1, 2]), [[11, 2], [12, 2]], 4, 2)


def _trained(fleet: Fleet, in_between: Callable[[Fleet], None] = lambda _: None) -> list[dict[str, torch.Tensor]]:
    while any(run.running for run in fleet.runs):
        fleet.play_round()
        in_between(fleet)
    assert not any(run.error for run in fleet.runs)
    return [fleet.adapter.state(slot) for slot in range(len(fleet.runs))]


def _apart(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> float:
    """The largest difference of two tensors of an adapter, as a share of the tensor's norm."""
    pairs = [(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(256, 256), (1024, 4096), (48, 32), (33, 65), (5, 7)], ids=str)
@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_dequantized_weights_are_those_of_bitsandbytes(
    kind: str, double: bool, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    weight_OI, library = _weight(shape, dtype), subject.functional()
    if kind == "nf4":
        ours = subject.NF4Weight.quantize(weight_OI, double).dequantize()
        theirs = library.dequantize_4bit(
            *library.quantize_4bit(weight_OI, quant_type="nf4", compress_statistics=double)
        )
    else:
        ours = subject.Int8Weight.quantize(weight_OI).dequantize()
        codes_OI, largest_O, _ = library.int8_vectorwise_quant(weight_OI.half())
        theirs = library.int8_vectorwise_dequant(codes_OI, largest_O).to(dtype)
    assert torch.equal(ours, theirs)
    assert (ours - weight_OI).abs().max() < weight_OI.abs().max() * (0.2 if kind == "nf4" else 0.01)


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_training_is_the_same_bit_for_bit_with_answers_in_between(kind: Any, double: bool) -> None:
    """fp32 and plain attention: in half precision the backward of flash attention sums in any order."""
    with sdpa_kernel(SDPBackend.MATH):
        found = [_trained(Fleet(_model(torch.float32, kind, double), _plans(), 1024), between) for between in
                 (lambda _: None, lambda _: None, _answer)]  # fmt: skip
    for slot, state in enumerate(found[0]):
        for key, value in state.items():
            assert torch.equal(value, found[1][slot][key]), "this GPU repeats nothing exactly, so nothing was tested"
            assert torch.equal(value, found[2][slot][key]), key


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_in_bf16_answers_in_between_change_no_more_than_a_repetition(kind: Any, double: bool) -> None:
    plain = _trained(Fleet(_model(torch.bfloat16, kind, double), _plans(), 1024))
    again = _trained(Fleet(_model(torch.bfloat16, kind, double), _plans(), 1024))
    answered = _trained(Fleet(_model(torch.bfloat16, kind, double), _plans(), 1024), _answer)
    assert _apart(answered, plain) <= max(2 * _apart(again, plain), 5e-2)


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_training_is_that_over_the_dequantized_base(kind: Any, double: bool) -> None:
    plain = _model(torch.float32, kind, double)
    for name, layer in linear_layers(plain).items():
        plain.set_submodule(name, subject.dequantize_linear(layer))
    with sdpa_kernel(SDPBackend.MATH):
        quantized = _trained(Fleet(_model(torch.float32, kind, double), _plans(), 1024))
        assert _apart(quantized, _trained(Fleet(plain, _plans(), 1024))) < 1e-3
        assert _apart(quantized, _trained(Fleet(_model(torch.float32), _plans(), 1024))) > 1e-2


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_recorded_steps_equal_steps_called_directly(kind: Any, double: bool) -> None:
    """The kernels that make a weight dense run inside a CUDA graph too."""
    recorded, direct = (Fleet(_model(torch.bfloat16, kind, double), _plans(), 1024) for _ in range(2))
    direct._accumulate.records = False
    states = [_trained(recorded), _trained(direct)]
    assert recorded._accumulate._recordings, "nothing was recorded, so nothing was tested"
    assert _apart(*states) < 5e-2


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 0.54 billion weights in bf16, nearly all of them in linear layers."""
    folder = tmp_path_factory.mktemp("medium")
    config = LlamaConfig(
        vocab_size=1024, hidden_size=2048, intermediate_size=8192, num_hidden_layers=8, num_attention_heads=16,
        num_key_value_heads=16, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(CUDA):
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="300MB")
    torch.cuda.empty_cache()
    return folder


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_a_base_is_never_dense_as_a_whole(kind: Any, double: bool, medium: Path) -> None:
    """While loading, the GPU holds what is quantized already and at most a few dense copies of one layer."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = load_model(Base(str(medium), str(medium), local=True), torch.bfloat16, CUDA, kind, double)
    held = torch.cuda.memory_allocated() - before
    peak = torch.cuda.max_memory_allocated() - before
    weights = sum(layer.in_features * layer.out_features for layer in linear_layers(model).values())
    one_layer = 4 * 2048 * 8192
    print(f"{kind} double={double}: held {held / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB, bf16 {2 * weights >> 20}")
    assert held < weights * (0.58 if kind == "nf4" else 1.05)
    assert peak < held + 4 * one_layer
    assert all(isinstance(layer, subject.QuantizedLinear) for layer in linear_layers(model).values())


def test_no_dense_weight_lives_between_forward_and_backward(medium: Path) -> None:
    model = load_model(Base(str(medium), str(medium), local=True), torch.bfloat16, CUDA, "nf4")
    layer = model.model.layers[0].mlp.up_proj
    x = torch.ones(4, 2048, dtype=torch.bfloat16, device=CUDA, requires_grad=True)
    before = torch.cuda.memory_allocated()
    y = layer(x)
    assert torch.cuda.memory_allocated() - before < 2**20  # the dense weight has 32 MiB
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
