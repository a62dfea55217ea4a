"""Bytes from shapes alone against numbers counted by hand, for Llama-3-8B and SmolLM2; planted faults show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape
from pronk.model.memory import shapes
from pronk.model.memory.costs import Costs, Load
from pronk.model.memory.shapes import Architecture, Trainee, analytic, architecture

GIB = 2**30


def of(config: Any) -> Architecture:
    with torch.device("meta"):
        return architecture(AutoModelForCausalLM.from_config(config))


@pytest.fixture(scope="module")
def llama() -> Architecture:
    return of(
        LlamaConfig(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def smollm() -> Architecture:
    return of(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        )
    )  # fmt: skip


RANK_16 = (Trainee(AdapterShape(16, 16.0)),)
# q, k, v, o, gate, up, down: (inputs + outputs) of Llama-3-8B's linear layers, times 32 layers and rank 16
ADAPTER = 32 * 16 * (8192 + 5120 + 5120 + 8192 + 18432 + 18432 + 18432)


def nf4(one: Architecture) -> Costs:
    return analytic(one, RANK_16, "nf4", True, 2)


def test_all_weights_are_counted_once(llama: Architecture, smollm: Architecture) -> None:
    assert llama.parameters == 8_030_261_248  # as Meta's model card and safetensors say
    assert smollm.parameters == 134_515_008  # tied embeddings count once


@pytest.mark.parametrize(
    ("quantize", "layers"),
    # 6,979,321,856 weights in linear layers: 2 bytes; 1 byte and a scale a row; half a byte and 0.127 bits a weight
    [("none", 2 * 6_979_321_856), ("int8", 6_979_321_856 + 32 * 4 * 43_008), ("nf4", 3_599_000_000)],
)
def test_weights_by_format(llama: Architecture, quantize: str, layers: int) -> None:
    costs = analytic(llama, RANK_16, quantize, True, 2)
    assert costs.layer * 32 == pytest.approx(layers, rel=2e-3)
    # embeddings and head, 65 norms, and the libraries' workspace
    assert costs.outside == 2 * (2 * 128256 * 4096 + 65 * 4096) + shapes.WORKSPACE


def adapter_faults(one: Architecture) -> list[str]:
    """An adapter of rank 16 on all layers: 4 bytes, a gradient of 4, two moments of 4, a copy of 2."""
    trained = nf4(one).trained
    return [] if trained == pytest.approx(18 * ADAPTER) else [f"{trained / ADAPTER} bytes a weight"]


def stored_faults(one: Architecture) -> list[str]:
    """A layer keeps of each token, in bf16: input, q, k, v, attention's output, middle, gate, up and 7 × 16 columns."""
    kept = 2 * (4096 + 4096 + 1024 + 1024 + 4096 + 4096 + 14336 + 14336 + 7 * 16)
    found = nf4(one).kept.token
    # and, of each head, attention's logarithm of a sum in fp32
    return [] if found == pytest.approx(kept + 4 * 32) else [f"{found} bytes a token, not {kept} and a little"]


def recompute_faults(one: Architecture) -> list[str]:
    """With all layers recomputed, each still keeps its input: 32 × 4096 numbers of a token, 2 GiB for 8,192 tokens."""
    costs, loads = nf4(one), [Load(8192, 100)]
    # one layer's worth of everything is there at once in either case
    inputs = costs.training_peak(loads, 32) - replace(costs, checkpoint=0).training_peak(loads, 32)
    return [] if inputs == pytest.approx(2 * GIB, rel=1e-3) else [f"inputs of {inputs / GIB} GiB"]


CHECKS = [adapter_faults, stored_faults, recompute_faults]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_bytes_counted_by_hand(check: Callable[[Architecture], list[str]], llama: Architecture) -> None:
    assert check(llama) == []


def without_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MOMENTS", {"adamw": 0.0, "adamw_8bit": 0.0})


def without_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(self: Costs, load: Load, recompute: int) -> float:
        return plain(replace(self, checkpoint=0.0), load, recompute)

    plain = Costs.activations
    monkeypatch.setattr(Costs, "activations", forgets)


def gate_and_up_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = analytic

    def once(one: Architecture, *rest: Any) -> Costs:
        costs = plain(one, *rest)
        return replace(costs, kept=replace(costs.kept, token=costs.kept.token - 2 * one.between))

    monkeypatch.setitem(globals(), "analytic", once)


@pytest.mark.parametrize(
    ("fault", "seen_by"),
    [
        (without_optimizer, adapter_faults),
        (without_checkpoints, recompute_faults),
        (gate_and_up_counted_once, stored_faults),
    ],
)
def test_planted_faults_show(
    fault: Callable[[pytest.MonkeyPatch], None], seen_by: Callable[[Architecture], list[str]],
    llama: Architecture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fault(monkeypatch)
    assert seen_by(llama)


def test_eight_bit_moments_take_a_quarter(llama: Architecture) -> None:
    small = analytic(llama, (Trainee(AdapterShape(16, 16.0), "adamw_8bit"),), "nf4", True, 2)
    assert small.trained == pytest.approx(12.06 * ADAPTER)


def test_moments_in_fp32_are_allocated_for_all_runs(llama: Architecture) -> None:
    """They are one tensor; a run with 8-bit moments has its own beside it."""
    mixed = (Trainee(AdapterShape(16, 16.0)), Trainee(AdapterShape(16, 16.0), "adamw_8bit"))
    assert analytic(llama, mixed, "nf4", True, 2).trained == pytest.approx((18 + 20.06) * ADAPTER)


def test_in_fp8_a_weight_is_made_anew_in_a_byte(llama: Architecture) -> None:
    """Gate and up together: 2 × 14336 × 4096 weights, and 4 bytes a row where NF4 gets scales for its codes."""
    plain, in_fp8 = nf4(llama), analytic(llama, RANK_16, "nf4", True, 2, fp8_products=True)
    assert (plain.backward.constant, in_fp8.backward.constant) == (4 * 14336 * 4096, 2 * 14336 * 4096)
    assert in_fp8.layer - plain.layer == pytest.approx(4 * 43_008)


def test_a_model_that_is_trained_itself_has_transformers_layers(llama: Architecture) -> None:
    """They keep norms, both halves of SwiGLU and their product; and the head's gradient is fp32."""
    whole, fused = analytic(llama, (Trainee(None),), "none", True, 2), analytic(llama, RANK_16, "none", True, 2)
    assert whole.kept.token > 1.5 * fused.kept.token
    assert whole.ends_constant == 4 * 128256 * 4096


def test_runs_and_targets_add_up(llama: Architecture) -> None:
    two = (Trainee(AdapterShape(8, 16.0)), Trainee(AdapterShape(8, 16.0)))
    assert analytic(llama, two, "nf4", True, 2).trained == nf4(llama).trained
    some = (Trainee(AdapterShape(16, 16.0, ("q_proj", "v_proj"))),)
    assert analytic(llama, some, "nf4", True, 2).trained == pytest.approx(18 * 32 * 16 * (8192 + 5120))


def test_full_fine_tuning_takes_eighteen_bytes_a_weight(smollm: Architecture) -> None:
    """As the recipe reference says: bf16 copies, fp32 weights, gradients and two moments."""
    costs = analytic(smollm, (Trainee(None),), "none", True, 2)
    assert costs.weights + costs.trained - shapes.WORKSPACE == pytest.approx(18 * smollm.parameters, rel=1e-6)


def test_a_token_costs_what_the_design_measured(llama: Architecture) -> None:
    """Unsloth, which keeps about as much, trains 8,192 tokens of this shape in NF4 within 36 GiB without and 8 GiB
    with recompute; the same order is all that shapes can say."""
    costs = nf4(llama)
    assert 25 < costs.training_peak([Load(8192, 2048)], 0) / GIB < 40
    assert 7 < costs.training_peak([Load(8192, 2048)], 32) / GIB < 13


def test_the_loss_has_its_moment(llama: Architecture) -> None:
    """Few tokens, all of them targets: logits of a chunk are the peak, and more targets than a chunk add none."""
    costs = nf4(llama)
    assert costs.chunk == 2048
    least = costs.weights + costs.trained + 2048 * 2 * 128256  # logits in bf16, in place of which comes their gradient
    assert costs.training_peak([Load(2048, 2048)], 32) > least
    chunk = costs.training_peak([Load(4096, 4096)], 0) - costs.training_peak([Load(4096, 2048)], 0)
    assert chunk == pytest.approx(2048 * costs.ends_target, abs=2)


def test_a_model_of_another_kind_is_refused_in_words() -> None:
    with pytest.raises(BaseModelError, match=r"gpt2 is not built like a Llama.*measures it"):
        of(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16))


def test_recorded_steps_have_memory_of_their_own(smollm: Architecture) -> None:
    """A warm-up beside a recording; and shapes are rounded up."""
    costs = analytic(smollm, RANK_16, "none", True, 2)
    loads = [Load(4096, 256), Load(3584, 256)]
    recorded = replace(costs, recorded=True)
    extra = recorded.training_peak(loads, 0) - costs.training_peak(loads, 0)
    # in a pool with segments of its own
    assert extra == pytest.approx(costs.training_peak(loads[1:], 0) - (costs.weights + costs.trained), abs=2)
    assert recorded.training_peak(loads, 30) == costs.training_peak(loads, 30)  # recomputed steps are not recorded
    assert recorded.training_peak([Load(4000, 100)], 0) == recorded.training_peak([Load(4096, 256)], 0)
