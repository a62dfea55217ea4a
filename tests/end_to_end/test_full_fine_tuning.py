"""Full fine-tuning through the command line: measured before and after, saved as a model, listed beside LoRA."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from safetensors.torch import load_file

Pronk = Callable[..., Told]
NAMES = [f"full-{full}_epochs-{epochs}" for full in ("false", "true") for epochs in (1, 2)]


@dataclass(frozen=True)
class Finished:
    place: Workplace
    done: Told
    runs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, pronk_once: Callable[..., Told]) -> Finished:
    """LoRA and full fine-tuning, one epoch and two: four runs, two of them trained, in two fleets."""
    place = Workplace(tmp_path_factory.mktemp("full"), tiny_base)
    place.recipe["study"] = {"full": [False, True], "train.epochs": [1, 2]}
    place.recipe["train"] |= {"learning_rate": 2e-3, "recompute": 1}
    done = pronk_once(*place.arguments())
    assert done.code == 0, done.err
    return Finished(place, done, {run["name"]: run for run in place.study()["runs"]})


def items(study: Finished, name: str) -> list[float]:
    text = (study.place.out / "runs" / name / "items" / "likelihood.jsonl").read_text()
    return [json.loads(line)["loss"] for line in text.splitlines()]


def test_all_runs_are_listed_and_compared_with_one_base(study: Finished) -> None:
    assert list(study.runs) == ["base", *NAMES]
    assert all(run["status"] == "finished" for run in study.runs.values())
    assert study.runs[NAMES[3]]["shared_with"] == [NAMES[2]]
    pairs = {(entry["a"], entry["b"]) for entry in study.place.study()["comparisons"]}
    assert all(any({"base", name} == set(pair) for pair in pairs) for name in NAMES)
    page = (study.place.out / "report.html").read_text()
    assert all(name in page for name in NAMES)
    nll = {name: run["metrics"]["nll"] for name, run in study.runs.items()}
    assert nll[NAMES[3]] < nll[NAMES[2]] < nll["base"] - 1


def test_progress_is_told_in_lines(study: Finished) -> None:
    assert "4 runs, 2 of them trained" in study.done.err
    assert "Warning" not in study.done.err
    assert "shards" not in study.done.err
    assert "Loading weights" not in study.done.err


def test_all_weights_are_trained_and_saved_once(study: Finished, tiny_base: Path) -> None:
    start = load_file(tiny_base / "model.safetensors")
    saved = {name: load_file(study.place.out / "runs" / name / "model" / "model.safetensors") for name in NAMES[2:]}
    assert start.keys() == saved[NAMES[3]].keys()
    assert "lm_head.weight" not in start, "the head is tied to the embeddings"
    assert study.runs[NAMES[3]]["trainable_parameters"] == sum(value.numel() for value in start.values())
    assert all((saved[NAMES[3]][key] - value).abs().max() > 1e-3 for key, value in start.items())
    assert not any(torch.equal(saved[NAMES[2]][key], saved[NAMES[3]][key]) for key in start)
    for name in NAMES[2:]:
        assert not (study.place.out / "runs" / name / "adapter").exists()
    assert (study.place.out / "runs" / NAMES[1] / "adapter" / "adapter_model.safetensors").is_file()


def test_checkpoints_hold_the_model_and_its_optimizer(study: Finished) -> None:
    folder = study.place.out / "runs" / NAMES[3] / "checkpoints"
    for step in (6, 12):
        assert {"config.json", "model.safetensors", "optimizer.safetensors"} <= {
            file.name for file in (folder / f"step-{step}").iterdir()
        }
    first, last = (load_file(folder / f"step-{step}" / "model.safetensors") for step in (6, 12))
    ends = [load_file(study.place.out / "runs" / name / "model" / "model.safetensors") for name in NAMES[2:]]
    for checkpoint, end in zip((first, last), ends, strict=True):
        assert all(torch.equal(checkpoint[key], value) for key, value in end.items())


def test_nothing_is_pickled(study: Finished) -> None:
    files = [file for file in study.place.out.rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not [file for file in files if file.read_bytes()[:2] in (b"PK", b"\x80\x04", b"\x80\x02")]


def test_the_saved_model_is_a_base_and_is_what_was_measured(
    study: Finished, workplace: Workplace, pronk: Pronk
) -> None:
    workplace.recipe["base"] = str(study.place.out / "runs" / NAMES[3] / "model")
    workplace.recipe["train"]["max_steps"] = 1
    assert pronk(*workplace.arguments()).code == 0
    again = Finished(workplace, study.done, {})
    assert items(again, "base") == pytest.approx(items(study, NAMES[3]), abs=1e-5)
    assert items(again, "base") != pytest.approx(items(study, "base"), abs=0.1)


def test_the_base_is_measured_before_it_is_trained(study: Finished, workplace: Workplace, pronk: Pronk) -> None:
    train = {"learning_rate": 2e-3, "max_steps": 2, "optimizer": "adamw_8bit"}
    workplace.recipe |= {"full": True, "train": {**workplace.recipe["train"], **train}}
    del workplace.recipe["adapter"]
    assert pronk(*workplace.arguments()).code == 0
    alone = Finished(workplace, study.done, {})
    assert [run["name"] for run in workplace.study()["runs"]] == ["base", "tuned"]
    assert items(alone, "base") == pytest.approx(items(study, "base"), abs=1e-5)
    recipe = workplace.out / "runs" / "tuned" / "recipe.yaml"
    assert pronk("run", str(recipe), "--out", str(workplace.folder / "again")).code == 0


def test_a_run_that_breaks_is_not_saved(workplace: Workplace, pronk: Pronk) -> None:
    del workplace.recipe["adapter"]
    workplace.recipe |= {"full": True, "train": {**workplace.recipe["train"], "learning_rate": 1e30, "clip": None}}
    told = pronk(*workplace.arguments())
    assert told.code == 1
    assert "no run came to its end" in told.err
    base, tuned = workplace.study()["runs"]
    assert (base["status"], tuned["status"]) == ("finished", "failed")
    assert "lower learning rate" in tuned["message"]
    assert not (workplace.out / "runs" / "tuned" / "model").exists()


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"full": True}, ["full: true", "no adapter"]),
        ({"full": True, "adapter": None, "train": {"lora_plus_ratio": 4.0}}, ["train.lora_plus_ratio", "full: true"]),
        ({"study": {"full": [True, False], "adapter.rank": [1, 2]}}, ["study.full", "no adapter to vary"]),
        ({"full": 1}, ["full", "true or false"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    workplace: Workplace, pronk: Pronk, changes: dict[str, Any], fragments: list[str]
) -> None:
    workplace.recipe |= changes
    workplace.recipe = {key: value for key, value in workplace.recipe.items() if value is not None}
    told = pronk(*workplace.arguments())
    assert told.code == 2, told.err
    assert all(fragment in told.err for fragment in fragments), told.err
    assert not workplace.out.exists()
