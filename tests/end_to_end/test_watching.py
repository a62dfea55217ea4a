"""What goes on beside training, through the command line: early stopping, trackers, verdicts, a second place."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_line import Told, Workplace
from safetensors.torch import load_file

Pronk = Callable[..., Told]


def stops_early(workplace: Workplace) -> None:
    """Validation loss of the tiny base rises at the third epoch and with it ends a run of patience 1."""
    workplace.recipe["data"]["split"] = {"train": 44, "validation": 20, "test": 12}
    workplace.recipe["train"] |= {"epochs": 8, "stop": "early", "patience": 1, "keep": 1}
    workplace.recipe["adapter"]["rank"] = 8


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_study_that_stops_early(workplace: Workplace, pronk: Pronk) -> None:
    stops_early(workplace)
    workplace.recipe["study"] = {"train.epochs": [1, 8]}
    told = pronk(*workplace.arguments())
    assert told.code == 0, told.err
    runs = {run["name"]: run for run in workplace.study()["runs"]}
    short, long = runs["epochs-1"], runs["epochs-8"]
    assert (short["status"], short["steps"], short["adapter_step"]) == ("finished", 3, 3)
    assert long["status"] == "stopped_early"
    folder = workplace.out / "runs" / "epochs-8"
    validation = [record for record in lines(folder / "metrics.jsonl") if record["kind"] == "validation"]
    best = min(validation, key=lambda record: record["loss"])
    assert best is validation[-2]
    assert (long["best_step"], long["adapter_step"], long["steps"]) == (best["step"], best["step"], best["step"] + 3)
    assert long["best_validation_loss"] == best["loss"]
    assert json.loads((folder / "best.json").read_text())["checkpoint"] == f"checkpoints/step-{best['step']}"
    kept = {best["step"], long["steps"], short["best_step"]}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {f"step-{step}" for step in kept}
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    saved = load_file(folder / "checkpoints" / f"step-{best['step']}" / "adapter_model.safetensors")
    assert all((adapter[key] == saved[key]).all() for key in saved)
    assert long["metrics"]["nll"] < runs["base"]["metrics"]["nll"]
    assert f"stopped at epoch {long['steps'] / 3:.2f}; validation loss was lowest at epoch" in told.err
    report = (workplace.out / "report.html").read_text(encoding="utf-8")
    assert f"adapter and metrics are those of step {best['step']} of {long['steps']}" in report
    assert all(run["overfitting"]["verdict"] for run in (short, long))
    assert "validation loss was measured once only" in report


def test_early_stopping_needs_validation_rows(workplace: Workplace, pronk: Pronk) -> None:
    stops_early(workplace)
    workplace.recipe["data"]["split"]["validation"] = 0
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert "train.stop: early needs validation rows" in told.err.replace("\n", " ")
    assert "data.split.validation" in told.err
    assert not workplace.out.exists()


def test_a_study_of_stopping_and_not_stopping(workplace: Workplace, pronk: Pronk) -> None:
    """Beside one that stops, a run goes on to its end; both begin alike."""
    stops_early(workplace)
    workplace.recipe["study"] = {"train.stop": ["none", "early"]}
    assert pronk(*workplace.arguments()).code == 0
    on, off = (lines(workplace.out / "runs" / f"stop-{name}" / "metrics.jsonl") for name in ("early", "none"))
    assert len(on) < len(off)
    losses = [[record["loss"] for record in records[: len(on)]] for records in (on, off)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    runs = {run["name"]: run for run in workplace.study()["runs"]}
    assert (runs["stop-none"]["status"], runs["stop-none"]["adapter_step"]) == ("finished", 24)
    assert runs["stop-none"]["best_step"] is not None


def test_tensorboard_ends_with_the_metrics_of_the_test(workplace: Workplace, pronk: Pronk) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workplace.recipe["study"] = {"adapter.rank": [2, 4]}
    assert pronk(*workplace.arguments()).code == 0
    tags = []
    for run in workplace.study()["runs"][1:]:
        events = EventAccumulator(str(workplace.out / "runs" / run["name"] / "tensorboard"))
        events.Reload()
        tags.append(set(events.Tags()["scalars"]))
        for metric, value in run["metrics"].items():
            (event,) = events.Scalars(f"test/{metric}")
            assert (event.step, event.value) == (run["steps"], pytest.approx(value, rel=1e-6))
    assert tags[0] == tags[1]
    assert tags[0] >= {"train/loss", "validation/loss", "train/learning_rate", "train/gradient_norm", "test/accuracy"}


def test_no_trackers(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["train"]["trackers"] = []
    assert pronk(*workplace.arguments()).code == 0
    assert not (workplace.out / "runs" / "tuned" / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_said_before_anything_else(workplace: Workplace, pronk: Pronk) -> None:
    if importlib.util.find_spec("trackio"):
        pytest.skip("trackio is installed here")
    workplace.recipe["train"]["trackers"] = ["tensorboard", "trackio"]
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert "train.trackers: trackio is not installed; `pip install trackio`" in told.err
    assert not workplace.out.exists()


def test_a_tracker_that_breaks_stops_nothing(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("wandb")
    module.__spec__ = importlib.util.spec_from_loader("wandb", None)  # so that it counts as installed
    module.Settings = lambda **_: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)

    def refuse(**_: Any) -> None:
        raise ConnectionError("no network")

    module.init = refuse  # type: ignore[attr-defined]
    workplace.recipe["train"]["trackers"] = ["wandb"]
    workplace.recipe["study"] = {"adapter.rank": [2, 4]}
    told = pronk(*workplace.arguments("--json"))
    assert told.code == 0
    assert told.err.count("warning: wandb failed (ConnectionError: no network); going on without it") == 1
    assert json.loads(told.out) == workplace.study()


def everything(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if "tensorboard" not in name}


def test_a_study_is_copied_to_a_second_place(workplace: Workplace, pronk: Pronk) -> None:
    drive = workplace.folder / "drive"
    drive.mkdir()
    stops_early(workplace)
    assert pronk(*workplace.arguments("--copy-to", str(drive))).code == 0
    assert everything(drive / "study") == everything(workplace.out)
    assert (drive / "study" / "runs" / "tuned" / "adapter" / "adapter_model.safetensors").is_file()
    told = pronk("report", str(drive / "study"))
    assert told.code == 0


def test_a_second_place_that_is_not_there(workplace: Workplace, pronk: Pronk) -> None:
    told = pronk(*workplace.arguments("--copy-to", str(workplace.folder / "drive")))
    assert told.code == 2
    assert "there is no such folder; mount the drive" in told.err
    assert not workplace.out.exists()
