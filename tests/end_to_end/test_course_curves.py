"""benchmarks/course_curves.py: the curves of pronk and TRL, with all that the course recipes set."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench_sides import in_process
from rich.console import Console

import pronk.doctor.bench as bench
from pronk.doctor.bench_work import Request
from pronk.doctor.peers.work import Answer, Result, Work
from pronk.errors import RecipeError

ROOT = Path(__file__).parents[2]
# What the tiny base and twelve rows ask for; 8-bit AdamW, weight decay, recompute and warm-up are the recipe's.
SMALL = [
    "quantize=none", "double_quantization=null", "data.split.test=0", "data.split.validation=0", "train.max_length=256",
    "train.dtype=fp32", "train.device=cpu", "train.batch_size=3", "train.warmup_steps=2", "train.learning_rate=0.02",
    "train.max_steps=6",
]  # fmt: skip


@pytest.fixture(scope="module")
def curves() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("course_curves", ROOT / "benchmarks" / "course_curves.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> list[str]:
    """Overrides that put the tiny base and some rows in the place of the recipe's."""
    rows = [{"instruction": f"Add {n} and {n * n}.", "input": "", "output": f"{n + n * n}."} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [*SMALL, f"base={tiny_base}", f"data.source={tmp_path / 'rows.jsonl'}"]


@pytest.mark.slow
def test_the_alpaca_recipe_trains_as_trl_does(curves: ModuleType, settings: list[str]) -> None:
    """Each side in a process of its own."""
    found = curves.main(ROOT / "recipes" / "alpaca-qlora.yaml", settings, None, 1e-4)
    assert found["agrees"], found
    assert len(found["losses"]["pronk"]) == found["work"]["steps"] == 6
    mirrored = {"optimizer": "adamw_8bit", "weight_decay": 0.01, "recompute": "all", "warmup_steps": 2}
    assert mirrored.items() <= found["work"].items()
    assert found["losses"]["pronk"][-1] < found["losses"]["pronk"][0] - 0.1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("fault", [{"warmup_steps": 0}, {"seed": 43}], ids=str)
def test_a_side_that_trains_otherwise_shows(
    curves: ModuleType, settings: list[str], fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = in_process()

    def faulty(name: str, work: Work, *more: Any) -> Answer:
        return original("ours", replace(work, **fault) if name == "trl" else work, *more)

    monkeypatch.setattr(curves, "run_side", faulty)
    assert not curves.main(ROOT / "recipes" / "alpaca-qlora.yaml", settings, None, None)["agrees"]


@pytest.mark.usefixtures("one_thread")
def test_the_bench_gives_a_ratio_for_such_a_recipe(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "run_side", in_process())
    request = Request(ROOT / "recipes" / "alpaca-qlora.yaml", overrides=settings, peers=["trl"], steps=1)
    found = bench.bench_training(request, Console(stderr=True))
    assert found["problems"] == []
    assert found["json"]["ratio"] > 0
    assert found["json"]["differences"]["trl"]["loss"] < 1e-4
    assert found["json"]["differences"]["trl"]["gradient_norm"] < 1e-3
    assert 0 < found["json"]["share_of_tokens_read"] < 1  # the preamble is shared
    assert "real tokens/s" in found["markdown"]


def test_zero_gradients_and_losses_that_are_no_numbers_never_agree(curves: ModuleType) -> None:
    work = Work("b", [], 1, 0, 2, 1, 1.0, "all-linear", 1e-3, None, 0.0, "fp32", "cpu")
    fine = Result([2.0, 1.0], [0.5, 0.5], [1.0, 1.0], 0, "1")
    assert curves.comparison(work, fine, fine, 1e-3)["agrees"]
    for wrong in (replace(fine, gradient_norms=[0.5, 0.0]), replace(fine, losses=[2.0, float("nan")])):
        assert not curves.comparison(work, wrong, fine, 1e-3)["agrees"]
        assert not curves.comparison(work, fine, wrong, 1e-3)["agrees"]
    assert not curves.comparison(work, replace(fine, losses=[2.0, 1.01]), fine, 1e-3)["agrees"]


@pytest.mark.parametrize(
    "override", ["adapter.dropout=0.1", "train.lora_plus_ratio=16", "adapter.use_rslora=true"], ids=str
)
def test_what_trls_side_does_not_know_is_refused(curves: ModuleType, settings: list[str], override: str) -> None:
    with pytest.raises(RecipeError, match=override.partition("=")[0]):
        curves.main(ROOT / "recipes" / "alpaca-qlora.yaml", [*settings, override], None, None)
