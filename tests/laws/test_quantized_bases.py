"""The laws over a quantized base: answering changes nothing that trains, a run in a fleet equals the same run
alone, and an adapter gives the same logits in PEFT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny import (
    PEFT_WARNS,
    TIGHT,
    State,
    apart,
    farthest,
    five_plans,
    make_examples,
    packed_model,
    random_state,
    shorter,
    start_fleet,
    train,
)
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pronk.model import products
from pronk.model.adapter import AdapterShape, attach, linear_layers
from pronk.model.generate import score_and_answer
from pronk.model.kernels.fp8 import FP8 as FP8_TYPE
from pronk.model.kernels.fp8 import Fp8Rows
from pronk.model.load import find_base, load_model, load_tokenizer
from pronk.model.quantize import QuantizedLinear, dense_weight, dequantize_linear, functional, quantize_linear
from pronk.tokens.pack import BASE_SLOT, pack_prompts
from pronk.train.checkpoint import save_adapter
from pronk.train.fleet import Fleet

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

KINDS = [("nf4", True), ("nf4", False), ("int8", True)]
FP8 = [("fp8", True), ("nf4 in fp8", True)]  # products in FP8: activations are rounded too
FEW = 6  # steps
CPU = torch.device("cpu")


def quantized_model(kind: Any, double: bool, dtype: torch.dtype = torch.float64) -> Any:
    """The tiny model of the laws with its linear layers quantized."""
    model = packed_model(dtype)
    for name, layer in linear_layers(model).items():
        stored, in_fp8 = kind.removesuffix(" in fp8"), kind.endswith(" in fp8")
        model.set_submodule(name, quantize_linear(layer, stored, double, in_fp8))
    return model


def dequantized(model: Any) -> Any:
    """The same numbers in ordinary layers."""
    for name, layer in linear_layers(model).items():
        model.set_submodule(name, dequantize_linear(layer))
    return model


# --- answering changes nothing -------------------------------------------------------------------


def answer(fleet: Fleet) -> None:
    """Score and answer under the base and every run, in evaluation mode and without gradients."""
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12]] * 2
    slots = [BASE_SLOT, *range(len(fleet.runs))][: len(prompts)]
    score_and_answer(fleet.model, fleet.adapter, pack_prompts(prompts[: len(slots)], slots), [[11, 2], [12, 2]], 4, 2)


def trained(
    kind: Any, double: bool, dtype: torch.dtype, in_between: Callable[[Fleet], None]
) -> dict[str, tuple[State, list[Any]]]:
    """Final adapters and steps of five runs, with something in between their rounds."""
    fleet = start_fleet(quantized_model(kind, double, dtype), shorter(five_plans(), FEW), 60)
    steps: list[Any] = []
    while any(run.running for run in fleet.runs):
        steps += fleet.play_round()
        in_between(fleet)
    return {run.plan.name: (fleet.adapter.state(slot), steps) for slot, run in enumerate(fleet.runs)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    states = [(one[name][0], other[name][0]) for name in one]
    alike = all(torch.equal(a[key], b[key]) for a, b in states for key in a)
    return alike and all(one[name][1] == other[name][1] for name in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "double"), KINDS + FP8)
def test_training_is_the_same_bit_for_bit_with_answers_in_between(kind: Any, double: bool, dtype: torch.dtype) -> None:
    assert same(trained(kind, double, dtype, answer), trained(kind, double, dtype, lambda _: None))


@pytest.mark.parametrize("kind", ["nf4", "int8", "fp8", "nf4 in fp8"])
def test_a_fault_of_answering_shows(kind: Any) -> None:
    """Weights that are laid out anew while answering, as bitsandbytes does to its own layers."""

    def repacking(fleet: Fleet) -> None:
        answer(fleet)
        layer = next(layer.linear for layer in fleet.adapter.layers.values())
        assert isinstance(layer, QuantizedLinear)
        codes = next(layer.quantized.parameters())
        codes.copy_(codes.roll(1, 0))

    plain = trained(kind, True, torch.float32, lambda _: None)
    assert not same(trained(kind, True, torch.float32, repacking), plain)


def test_the_layers_of_bitsandbytes_would_not_do(tiny_base: Path) -> None:
    """Why we own the layer: after one evaluation on such a CPU, Linear4bit gives no gradient."""
    if not functional().has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, for which bitsandbytes repacks weights")
    model = by_transformers(tiny_base, "nf4")
    layer = model.model.layers[0].self_attn.q_proj
    layer(before := torch.ones(1, 64, requires_grad=True)).sum().backward()
    assert before.grad is not None
    with torch.no_grad():
        layer(torch.ones(1, 64))
    with pytest.warns(UserWarning, match="autograd kernel was not registered"):
        layer(after := torch.ones(1, 64, requires_grad=True)).sum().backward()
    assert after.grad is None


# --- company -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_a_run_in_a_fleet_equals_the_same_run_alone(kind: Any, double: bool) -> None:
    plans = shorter(five_plans(), FEW)
    together, _ = train(start_fleet(quantized_model(kind, double), plans, 100_000))
    alone = {plan.name: train(start_fleet(quantized_model(kind, double), [plan], 20))[0][plan.name] for plan in plans}
    assert farthest(together, alone)[0] < TIGHT


@pytest.mark.parametrize(("kind", "double"), FP8)
@pytest.mark.parametrize("cut_alike", [True, False])
def test_a_run_in_a_fleet_equals_the_same_run_alone_in_fp8(kind: Any, double: bool, cut_alike: bool) -> None:
    """The gradient of a beginning that several examples share is rounded once for all that share it: there the runs
    are cut alike, and where they are cut otherwise nothing is shared."""
    plans = shorter(five_plans(), FEW)
    if not cut_alike:
        plans = [replace(plan, examples=make_examples(10, 40 + place)) for place, plan in enumerate(plans)]
    together, _ = train(start_fleet(quantized_model(kind, double), plans, 100_000))
    for plan in plans:
        single, _ = train(start_fleet(quantized_model(kind, double), [plan], 100_000 if cut_alike else 20))
        assert apart(single[plan.name], together[plan.name]) < TIGHT


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_training_over_a_quantized_base_is_training_over_what_it_stands_for(kind: Any, double: bool) -> None:
    plans = shorter(five_plans(), FEW)
    quantized, _ = train(start_fleet(quantized_model(kind, double), plans, 60))
    plain, _ = train(start_fleet(dequantized(quantized_model(kind, double)), plans, 60))
    assert farthest(quantized, plain)[0] < TIGHT
    untouched, _ = train(start_fleet(packed_model(), plans, 60))
    assert farthest(quantized, untouched)[0] > 1e5 * TIGHT


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_fault_of_the_backward_shows(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight of the backward is not the weight of the forward."""
    calls = [0]

    def faulty(linears: Any) -> Tensor:
        calls[0] += 1
        return torch.cat([dense_weight(linear) for linear in linears]) * (1 + 1e-3 * (calls[0] % 2))

    plans = shorter(five_plans(), 4)
    sound, _ = train(start_fleet(dequantized(quantized_model(kind, True)), plans, 60))
    monkeypatch.setattr("pronk.model.products.dense_group", faulty)
    assert farthest(train(start_fleet(quantized_model(kind, True), plans, 60))[0], sound)[0] > 1e3 * TIGHT


@pytest.mark.parametrize(("kind", "double"), FP8)
def test_a_token_is_rounded_by_itself(kind: Any, double: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One scale for all tokens of a product would let a run's neighbours round it otherwise."""
    original = products.quantize_rows

    def one_scale(x_TI: Tensor, scale_I: Tensor | None = None) -> Fp8Rows:
        rows = original(x_TI, scale_I)
        scale = rows.scale_T.max()
        return Fp8Rows((rows.dense() / scale).to(FP8_TYPE), scale.expand(len(x_TI)).contiguous())

    plans = shorter(five_plans(), 4)[:3]
    monkeypatch.setattr(products, "quantize_rows", one_scale)
    together, _ = train(start_fleet(quantized_model(kind, double), plans, 100_000))
    alone = {plan.name: train(start_fleet(quantized_model(kind, double), [plan], 20))[0][plan.name] for plan in plans}
    assert farthest(together, alone)[0] > 1e3 * TIGHT


@pytest.mark.parametrize(("kind", "double"), FP8)
def test_training_in_fp8_is_near_training_over_what_it_stands_for(kind: Any, double: bool) -> None:
    plans = shorter(five_plans(), FEW)
    quantized = losses_of(train(start_fleet(quantized_model(kind, double), plans, 60)))
    plain = losses_of(train(start_fleet(dequantized(quantized_model(kind, double)), plans, 60)))
    assert not torch.equal(quantized, plain)
    assert (quantized - plain).abs().mean() < 0.01 * plain.mean()


def losses_of(trained: tuple[Any, dict[str, list[Any]]]) -> Tensor:
    return torch.tensor([step.loss for steps in trained[1].values() for step in steps])


# --- PEFT ----------------------------------------------------------------------------------------

SHAPES = [AdapterShape(4, 8, ("q_proj", "v_proj")), AdapterShape(8, 16)]


def by_transformers(folder: Path, kind: str, double: bool = True) -> Any:
    """The base as a user of PEFT loads it."""
    config = BitsAndBytesConfig(
        load_in_8bit=kind == "int8", load_in_4bit=kind == "nf4", bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
    )


def our_logits(base: Any, kind: Any, double: bool, folder: Path, ids: Tensor) -> list[Tensor]:
    """Logits under each adapter, which are saved on the way."""
    from pronk.model.attention import packing

    model = load_model(base, torch.float32, CPU, kind, double)
    adapter = attach(model, SHAPES)
    found = []
    for slot, shape in enumerate(SHAPES):
        adapter.load(slot, random_state(adapter.state(slot), f"run {slot}", 0.2))
        (folder / str(slot)).mkdir()
        save_adapter(folder / str(slot), adapter.state(slot), shape, base.location)
        adapter.routing.set(torch.full((len(ids),), slot))
        with torch.no_grad():
            hidden = model.base_model(
                input_ids=ids[None], position_ids=torch.arange(len(ids))[None], use_cache=False,
                packing=packing((len(ids),), (-1,), CPU),
            ).last_hidden_state  # fmt: skip
            found.append(model.lm_head(hidden)[0])
    return found


@pytest.mark.parametrize(("kind", "double"), KINDS)
def test_peft_gives_the_same_logits_on_a_quantized_base(
    kind: Any, double: bool, tiny_base: Path, tmp_path: Path
) -> None:
    """fp32: 1e-4 is what summation order leaves. For int8 the oracle is the dequantized model, as bitsandbytes' own
    product rounds activations to 8 bits too: 0.004 of logits of 0.7 on a model like this one."""
    base = find_base(str(tiny_base))
    ids = torch.tensor(load_tokenizer(base)("The plant will close in May. 공장이 문을 닫는다.").input_ids)
    ours = our_logits(base, kind, double, tmp_path, ids)
    for slot in range(len(SHAPES)):
        model = by_transformers(tiny_base, kind, double)
        if kind == "int8":
            model = model.dequantize(torch.float32)
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False  # else it computes in bf16, and corrupts the weights
        with torch.no_grad():
            theirs = PeftModel.from_pretrained(model, str(tmp_path / str(slot))).eval()(input_ids=ids[None]).logits[0]
        assert (ours[slot] - theirs).abs().max() < 1e-4
        assert (ours[1 - slot] - theirs).abs().max() > 0.01
