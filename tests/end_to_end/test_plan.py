"""`pronk plan` as a user meets it: what is printed, what is refused, and what `pronk run` makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from rich.console import Console

from pronk.data.split import read_splits
from pronk.doctor import plan as subject
from pronk.doctor.planned import before_training
from pronk.doctor.ready import Ready, prepare
from pronk.errors import RefusedError
from pronk.model.memory.sizes import usable
from pronk.recipe import Recipe, read_recipe
from pronk.study import plan_study

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
Call = Callable[..., Told]

LLAMA_3_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 8192, "head_dim": 128, "tie_word_embeddings": False,
    "vocab_size": 49152,
}  # fmt: skip


@pytest.fixture
def large(workplace: Workplace, tiny_base: Path) -> Workplace:
    """A recipe over a base of 8B shape; its weights are another model's, since nobody reads them."""
    base = workplace.folder / "llama"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, **LLAMA_3_8B}), encoding="utf-8")
    workplace.recipe["base"] = str(base)
    return workplace


def planned(place: Workplace, *more: str) -> list[str]:
    return ["plan", place.arguments()[1], *more]


def test_without_a_gpu_its_size_must_be_named(workplace: Workplace, pronk: Call) -> None:
    told = pronk(*planned(workplace))
    assert told.code == 2
    assert "--gpu 24GB" in told.err


@pytest.mark.parametrize("size", ["big", "24 bananas", "0", "-8GB"])
def test_a_size_that_is_none(workplace: Workplace, pronk: Call, size: str) -> None:
    for told in (pronk(*planned(workplace, f"--gpu={size}")), pronk(*workplace.arguments(f"--gpu={size}"))):
        assert told.code == 2
        assert "such as 24GB" in told.err
        assert not workplace.out.exists()


def test_the_choice_and_its_alternatives_in_eighty_columns(large: Workplace, pronk: Call) -> None:
    told = pronk(*planned(large, "--gpu", "24GB"))
    assert told.code == 0
    assert all(len(line) <= 80 for line in told.out.splitlines() if "llama" not in line)  # a path may be long
    assert sum(line.startswith("→ ") for line in told.out.splitlines()) == 2  # the row, and what it means
    assert "not calibrated: ±15%" in told.out
    assert "relative, from FLOP counts alone" in told.out
    assert "tok/s" not in told.out
    assert not large.out.exists()
    refused = pronk(*planned(large, "--gpu", "4GB"))
    assert all(len(line) <= 80 for line in refused.out.splitlines() if "llama" not in line)


def test_the_same_as_json(large: Workplace, pronk: Call) -> None:
    found = json.loads(pronk(*planned(large, "--gpu", "24GB", "--json")).out)
    (fleet,) = found["fleets"]
    assert found["fits"]
    assert fleet["usable_bytes"] == usable(24 * 10**9)
    assert fleet["chosen"]["peak"] <= fleet["usable_bytes"]
    assert fleet["chosen"] in fleet["alternatives"]
    assert (fleet["calibrated"], fleet["chosen"]["seconds"], fleet["chosen"]["tokens_per_second"]) == (
        False,
        None,
        None,
    )


def test_quantization_is_chosen_unless_the_recipe_does(large: Workplace, pronk: Call) -> None:
    """14 GB hold no 8B base in bf16."""
    free = pronk(*planned(large, "--gpu", "14GB"))
    assert free.code == 0
    assert "--set quantize=" in free.out
    large.recipe["quantize"] = "none"
    fixed = pronk(*planned(large, "--gpu", "14GB"))
    assert fixed.code == 1
    assert "what would fit:\n  quantize: int8" in fixed.out
    assert "a GPU of 16 GB" in fixed.out


def test_recompute_is_chosen_unless_the_recipe_does(large: Workplace, pronk: Call) -> None:
    large.write_rows([{"text": f"Item {i} rose " + "a lot " * 200, "label": "positive"} for i in range(40)])
    large.recipe["data"] |= {"labels": ["positive", "negative"], "split": {"validation": 2, "test": 4}}
    large.recipe["train"] |= {"max_length": 1024, "batch_size": 16}
    large.recipe["quantize"] = "nf4"
    auto = json.loads(pronk(*planned(large, "--gpu", "8GB", "--json")).out)["fleets"][0]
    assert 0 < auto["chosen"]["recompute"] <= 32
    large.recipe["train"]["recompute"] = "none"
    fixed = pronk(*planned(large, "--gpu", "8GB"))
    assert fixed.code == 1
    assert "what would fit:\n  train.recompute: auto" in fixed.out


def test_where_nothing_helps_a_larger_gpu_does(large: Workplace, pronk: Call) -> None:
    told = pronk(*planned(large, "--gpu", "4GB"))
    assert told.code == 1
    assert "needs at least" in told.out
    assert "a GPU of" in told.out
    assert "a smaller base" in told.out


@pytest.mark.parametrize("settings", [{"full": True}, {"study": {"quantize": ["none", "nf4"]}}])
def test_every_fleet_is_planned(workplace: Workplace, pronk: Call, settings: dict[str, Any]) -> None:
    if "full" in settings:
        del workplace.recipe["adapter"]
    workplace.recipe |= settings
    found = json.loads(pronk(*planned(workplace, "--gpu", "8GB", "--json")).out)
    kinds = [{one["quantize"] for one in fleet["alternatives"]} for fleet in found["fleets"]]
    assert kinds == ([{"none"}] if "full" in settings else [{"none"}, {"nf4"}])


def test_more_layers_than_there_are(workplace: Workplace, pronk: Call) -> None:
    workplace.recipe["train"]["recompute"] = 5
    told = pronk(*planned(workplace, "--gpu", "8GB"))
    assert told.code == 2
    assert "train.recompute: 5, but this base has 2 layers" in told.err


def test_a_run_on_a_cpu_has_no_gpu_to_limit(workplace: Workplace, pronk: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told = pronk(*workplace.arguments("--gpu", "24GB"))
    assert told.code == 2
    assert "runs on the CPU" in told.err
    assert not workplace.out.exists()
    monkeypatch.setenv("PRONK_GPU_MEMORY", "lots")
    assert "found 'lots'" in pronk(*workplace.arguments()).err


def test_a_run_on_a_cpu_predicts_nothing(workplace: Workplace, pronk: Call) -> None:
    workplace.recipe["train"]["max_steps"] = 1
    told = pronk(*workplace.arguments())
    assert told.code == 0
    assert "memory:" not in told.err
    run = next(run for run in workplace.study()["runs"] if not run["baseline"])
    assert run["predicted_peak_memory_bytes"] is None
    assert run["peak_memory_bytes"] > 0


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`plan_run` as on a GPU of so many bytes, where measuring gives what shapes do; how often it was measured."""
    counted: list[str] = []

    def call(place: Workplace, size: int, calibrated: bool = False) -> tuple[Any, list[str]]:
        recipe = read_recipe(place.arguments()[1])
        ready = _ready(recipe)

        def measured(one: Any, kind: str, _memory: int, _tell: Any) -> Any:
            counted.append(kind)
            return replace(subject._from_shapes(one, kind), calibrated=calibrated)

        monkeypatch.setattr(subject, "_measured", measured)
        monkeypatch.setattr(subject, "available", lambda _: size)
        monkeypatch.setattr(subject, "_device_name", lambda _: "a GPU")
        monkeypatch.setattr("pronk.model.load.resolve_dtype", lambda *_: torch.bfloat16)
        return subject.plan_run(ready, recipe), counted

    return call


def _ready(recipe: Recipe) -> Ready:
    splits, labels = read_splits(recipe.data)
    (ready,) = prepare(plan_study(recipe), splits, labels, Console(stderr=True).print, elsewhere=True)
    return Ready(ready.fleet, ready.base, SimpleNamespace(type="cuda"), ready.examples)


def test_where_there_is_plenty_nothing_is_measured(workplace: Workplace, on_a_gpu: Callable[..., Any]) -> None:
    fit, counted = on_a_gpu(workplace, 139 * 2**30)
    assert counted == []
    assert fit.chosen.recompute == 0
    assert before_training(fit).startswith("memory: ")
    assert "of 139 GiB predicted (not quantized, micro-batches of " in before_training(fit)
    assert "not calibrated" in before_training(fit)


def test_where_it_is_tight_it_is_measured(large: Workplace, on_a_gpu: Callable[..., Any]) -> None:
    """And the recipe's quantization is kept, though another would be chosen."""
    fit, counted = on_a_gpu(large, 24 * 10**9)
    assert counted == ["none"]
    assert fit.chosen.quantize == "none"


def test_what_hardly_fits_is_tried_with_a_warning(large: Workplace, on_a_gpu: Callable[..., Any]) -> None:
    """The setting that takes the least, and what to change if memory does run out."""
    least = min(setting.peak for setting in on_a_gpu(large, 24 * 10**9)[0].settings)
    fit, _ = on_a_gpu(large, least)
    assert fit.tight
    assert fit.chosen.peak == min(setting.peak for setting in fit.settings) > fit.limit
    said = before_training(fit)
    assert "warning: by this it does not fit" in said
    assert "what would fit:\n  quantize: int8" in said
    assert not on_a_gpu(large, 24 * 10**9)[0].tight


def test_what_cannot_fit_by_far_is_refused(large: Workplace, on_a_gpu: Callable[..., Any]) -> None:
    with pytest.raises(RefusedError) as refused:
        on_a_gpu(large, 8 * 10**9, calibrated=True)
    assert "does not fit into" in str(refused.value)
    assert "what would fit:\n  quantize: " in str(refused.value)
    assert on_a_gpu(large, 8 * 10**9)[0].tight, "from shapes alone nothing is refused"
