"""Studies over quantized bases, and what `pronk inspect` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told, Workplace
from safetensors.torch import load_file

Pronk = Callable[..., Told]


def finish(workplace: Workplace, pronk: Pronk, *more: str) -> dict[str, dict[str, Any]]:
    told = pronk(*workplace.arguments(*more))
    assert told.code == 0, told.err
    return {run["name"]: run for run in workplace.study()["runs"]}


@pytest.mark.parametrize(
    "settings",
    [
        {"quantize": "nf4"},
        {"quantize": "nf4", "double_quantization": False},
        {"quantize": "int8"},
        {"quantize": "fp8"},
        {"quantize": "nf4", "train.fp8_products": True},
    ],
    ids=["nf4", "nf4-single", "int8", "fp8", "nf4-in-fp8"],
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_study_over_a_quantized_base(
    workplace: Workplace, pronk: Pronk, settings: dict[str, Any], dtype: str
) -> None:
    settings = dict(settings)
    workplace.recipe["train"] |= {"dtype": dtype, "fp8_products": settings.pop("train.fp8_products", False)}
    workplace.recipe |= settings
    runs = finish(workplace, pronk)
    assert {run["quantize"] for run in runs.values()} == {settings["quantize"]}
    assert runs["tuned"]["metrics"]["nll"] < runs["base"]["metrics"]["nll"]
    state = load_file(workplace.out / "runs" / "tuned" / "adapter" / "adapter_model.safetensors")
    assert {str(values.dtype) for values in state.values()} == {"torch.float32"}
    assert len(state) == 2 * 14


def strays(workplace: Workplace, name: str) -> float:
    """How far a base's loss is from that of the base as it is, item by item; over all items much of it cancels."""
    losses = {}
    for run in (name, "base_none"):
        lines = (workplace.out / "runs" / run / "items" / "likelihood.jsonl").read_text(encoding="utf-8").splitlines()
        losses[run] = [json.loads(line)["loss"] for line in lines]
    return sum(abs(a - b) for a, b in zip(*losses.values(), strict=True))


def test_quantization_is_an_axis(workplace: Workplace, pronk: Pronk) -> None:
    """Each kind is a fleet with a baseline of its own, and each run is compared with the base it was tuned from."""
    workplace.recipe["study"] = {"quantize": ["none", "int8", "nf4", "fp8"], "adapter.rank": [2, 4]}
    workplace.recipe["double_quantization"] = True
    runs = finish(workplace, pronk)
    assert [name for name, run in runs.items() if run["baseline"]] == ["base_none", "base_int8", "base_nf4", "base_fp8"]
    losses = {name: run["metrics"]["nll"] for name, run in runs.items() if run["baseline"]}
    assert len(set(losses.values())) == 4
    assert strays(workplace, "base_int8") < strays(workplace, "base_nf4") / 2
    assert runs["quantize-nf4_rank-2"]["settings"] == {"quantize": "nf4", "adapter.rank": 2}
    against = {(entry["a"], entry["b"]) for entry in workplace.study()["comparisons"] if "base" in entry["reasons"]}
    assert against == {
        (f"base_{kind}", f"quantize-{kind}_rank-{rank}") for kind in ("none", "int8", "nf4", "fp8") for rank in (2, 4)
    }


def test_a_run_is_the_same_beside_other_kinds(workplace: Workplace, pronk: Pronk) -> None:
    """A run over NF4 is the same whether or not the study has other kinds."""
    found = []
    for name, kinds in (("alone", ["nf4"]), ("beside", ["none", "nf4"])):
        workplace.out = workplace.folder / name
        workplace.recipe["study"] = {"quantize": kinds}
        runs = finish(workplace, pronk)
        run = next(name for name, run in runs.items() if run["quantize"] == "nf4" and not run["baseline"])
        found.append(load_file(workplace.out / "runs" / run / "adapter" / "adapter_model.safetensors"))
    assert all((found[0][key] == found[1][key]).all() for key in found[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "fp4"}, "quantize: found 'fp4', expected one of none, int8, nf4, fp8"),
        ({"double_quantization": True}, "double_quantization: it belongs to quantize: nf4, not none; leave it out"),
        (
            {"quantize": "int8", "double_quantization": False},
            "double_quantization: it belongs to quantize: nf4, not int8; leave it out",
        ),
        ({"study": {"quantize": ["nf4", "fp4"]}}, "study: quantize: found 'fp4', expected one of none, int8, nf4, fp8"),
        (
            {"train": {"fp8_products": True}},
            "train.fp8_products: found quantize: none, but FP8 products need a base that is kept in FP8 or NF4; write "
            "quantize: fp8 (8 bits a weight) or quantize: nf4 (4 bits), or leave fp8_products out",
        ),
        (
            {"train": {"fp8_products": True}, "study": {"quantize": ["nf4", "int8"]}},
            "train.fp8_products: found quantize: int8, but",
        ),
        (
            {"quantize": "nf4", "study": {"train.fp8_products": [True, False]}},
            "study.train.fp8_products: a study varies base, quantize, full, or a key of adapter or train, not this one",
        ),
    ],
)
def test_wrong_settings(workplace: Workplace, pronk: Pronk, settings: dict[str, Any], message: str) -> None:
    workplace.recipe |= settings
    told = pronk(*workplace.arguments())
    assert (told.code, told.out) == (2, "")
    assert message in " ".join(told.err.split())
    assert not workplace.out.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "fp8"}, "quantize: fp8 needs an NVIDIA GPU that multiplies in FP8"),
        ({"quantize": "nf4", "train": {"fp8_products": True}}, "train.fp8_products: true needs an NVIDIA GPU that"),
    ],
)
def test_a_gpu_without_fp8(
    workplace: Workplace, pronk: Pronk, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is read or written."""
    import torch

    monkeypatch.setattr("pronk.model.load.resolve_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA RTX A6000")
    workplace.recipe |= {"base": "no/such-base", **settings}
    told = pronk(*workplace.arguments())
    assert (told.code, told.out) == (2, "")
    assert message in " ".join(told.err.split())
    assert "NVIDIA RTX A6000 with 8.6" in " ".join(told.err.split())
    assert not workplace.out.exists()


def test_a_study_in_fp16(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["train"]["dtype"] = "fp16"
    runs = finish(workplace, pronk)
    assert runs["tuned"]["metrics"]["nll"] < runs["base"]["metrics"]["nll"]


def test_what_was_trained_in_fp8_answers_in_fp8(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pronk.model import products

    workplace.recipe["train"]["fp8_products"] = True
    workplace.recipe["quantize"] = "nf4"
    finish(workplace, pronk)
    original, calls = products.quantize_rows, []
    monkeypatch.setattr(products, "quantize_rows", lambda *given: calls.append(1) or original(*given))
    run = str(workplace.out / "runs" / "tuned")
    told = pronk("generate", run, "--questions", "Profit rose.", "--max-new-tokens", "4", "--json")
    assert told.code == 0, told.err
    assert calls


def test_a_base_that_is_quantized_already(workplace: Workplace, pronk: Pronk, tiny_base: Path) -> None:
    folder = workplace.folder / "quantized"
    folder.mkdir()
    for file in tiny_base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (folder / "config.json").write_text(json.dumps(config))
    workplace.recipe |= {"base": "quantized", "quantize": "nf4"}
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert "are already quantized (gptq in its config.json); name the model that it was made from" in told.err
    assert not workplace.out.exists()


# --- inspect -------------------------------------------------------------------------------------


def inspected(pronk: Pronk, *arguments: str) -> dict[str, Any]:
    told = pronk("inspect", *arguments, "--json")
    assert (told.code, told.err) == (0, ""), told.err
    return json.loads(told.out)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["quantize=nf4"],
        ["quantize=nf4", "double_quantization=false"],
        ["quantize=int8"],
        ["quantize=fp8"],
        ["quantize=nf4", "train.fp8_products=true"],
    ],
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_bytes_are_those_of_the_loaded_model(pronk: Pronk, tiny_base: Path, dtype: str, options: list[str]) -> None:
    from pronk.model.load import find_base, load_model, resolve_device, resolve_dtype

    sets = [part for option in [*options, f"train.dtype={dtype}"] for part in ("--set", option)]
    found = inspected(pronk, str(tiny_base), *sets)
    kind: Any = options[0].removeprefix("quantize=") if options else "none"
    device = resolve_device("cpu")
    double, in_fp8 = "double_quantization=false" not in options, "train.fp8_products=true" in options
    model = load_model(find_base(str(tiny_base)), resolve_dtype(dtype, device), device, kind, double, in_fp8)
    for entry in found["modules"]:
        module = model.get_submodule(entry["name"])
        assert entry["class"] == type(module).__name__
        bytes_held = sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
        assert entry["bytes"] == (bytes_held if entry["name"] != "lm_head" else 0)  # it is the embedding's
    held = {id(tensor): tensor.nbytes for tensor in model.parameters()}
    extra = sum(buffer.nbytes for name, buffer in model.named_buffers() if "quantized" in name)
    assert found["totals"]["bytes"] == sum(held.values()) + extra
    assert found["totals"]["trained"] == 0


def test_a_run_shows_the_ranks_of_its_adapter(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe |= {"quantize": "nf4", "study": {"adapter.targets": [["q_proj"], "all-linear"]}}
    runs = finish(workplace, pronk)
    for name, layers in (("targets-q_proj", 2), ("targets-all-linear", 14)):
        found = inspected(pronk, str(workplace.out / "runs" / name))
        assert [entry["rank"] for entry in found["modules"] if entry["rank"]] == [4] * layers
        assert found["totals"]["trained"] == runs[name]["trainable_parameters"]
    (workplace.out / "runs" / "targets-q_proj" / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    told = pronk("inspect", str(workplace.out / "runs" / "targets-q_proj"))
    assert (told.code, "adapter_model.safetensors cannot be read" in told.err.replace("\n", " ")) == (2, True)
    told = pronk("inspect", str(workplace.out))
    assert told.code == 2
    assert "name one of its runs: " in told.err
    assert str(workplace.out / "runs" / "targets-q_proj") in told.err.replace("\n", "")


def test_layers_alike_are_folded_and_the_table_fits(pronk: Pronk, tiny_base: Path) -> None:
    told = pronk("inspect", str(tiny_base), "--set", "quantize=int8", "--set", "adapter.targets=[v_proj]")
    lines = told.out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert "layers 0–1" in lines
    (row,) = [line.split() for line in lines if "v_proj" in line]
    assert row == ["self_attn.v_proj", "QuantizedLinear", "int8", "32×64", "16", "4.2", "KiB"]
    assert [line.split()[-1] for line in lines if line.startswith("lm_head")] == ["shared"]


def test_layers_unlike_stand_apart(pronk: Pronk, tiny_base: Path) -> None:
    told = pronk("inspect", str(tiny_base), "--set", "adapter.targets=[model.layers.1.self_attn.q_proj]")
    assert {"layers 0", "layers 1"} <= set(told.out.splitlines())
