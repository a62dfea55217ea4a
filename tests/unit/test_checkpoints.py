"""What is saved of a run comes back as it was: adapter, moments, counters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pronk.model.adapter import AdapterShape
from pronk.tokens.prompt import Example
from pronk.train.checkpoint import AdapterFiles, load_adapter, load_optimizer, save_adapter, save_checkpoint
from pronk.train.fleet import Fleet, RunPlan, optimizer_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = [AdapterShape(4, 8.0), AdapterShape(2, 16.0, ("q_proj", "down_proj"))]


@pytest.fixture
def model(tiny_base: Path) -> Any:
    from pronk.model.hub import Base
    from pronk.model.load import load_model

    return load_model(Base("tiny", str(tiny_base), local=True), torch.float32, torch.device("cpu"))


def plans() -> list[RunPlan]:
    generator = np.random.default_rng(0)
    examples = [Example(generator.integers(0, 4096, 12), np.arange(12) >= 8) for _ in range(10)]
    return [
        RunPlan(f"run{slot}", examples, shape, steps=6, batch_size=4, learning_rate=1e-2, dropout=0.1 * slot, seed=slot)
        for slot, shape in enumerate(SHAPES)
    ]


def save(fleet: Fleet, folder: Path, slot: int) -> Path:
    path = folder / str(slot)
    path.mkdir()
    files = AdapterFiles(SHAPES[slot], "b", 0.25)
    save_checkpoint(path, files, fleet.adapter.state(slot), optimizer_tensors(fleet.runs[slot]))
    return path


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(model: Any, tmp_path: Path) -> None:
    fleet = Fleet(model, plans(), 256)
    for _ in range(3):
        fleet.play_round()
    folders = [save(fleet, tmp_path, slot) for slot in range(2)]
    losses = [step.loss for _ in range(3) for step in fleet.play_round()]
    wanted = [(fleet.adapter.state(slot), optimizer_tensors(fleet.runs[slot])) for slot in range(2)]
    fleet.adapter.detach()

    again = Fleet(model, plans(), 256)
    for slot, folder in enumerate(folders):
        tensors, run = load_optimizer(folder), again.runs[slot]
        again.adapter.load(slot, load_adapter(folder))
        assert run.optimizer is not None
        run.optimizer.load(tensors)
        run.step = int(tensors["random.step"])
        assert run.step == 3
        assert int(tensors["random.seed"]) == slot
    assert [step.loss for _ in range(3) for step in again.play_round()] == losses
    for slot, (weights, moments) in enumerate(wanted):
        torch.testing.assert_close(again.adapter.state(slot), weights, rtol=0, atol=0)
        torch.testing.assert_close(optimizer_tensors(again.runs[slot]), moments, rtol=0, atol=0)


def test_the_adapter_is_in_pefts_names_and_shapes(model: Any, tmp_path: Path) -> None:
    fleet = Fleet(model, plans(), 256)
    state = load_adapter(save(fleet, tmp_path, 1))
    assert {key.split(".layers.")[1] for key in state} == {
        f"{layer}.{module}.lora_{side}.weight"
        for layer in (0, 1) for module in ("self_attn.q_proj", "mlp.down_proj") for side in "AB"
    }  # fmt: skip
    down = "base_model.model.model.layers.0.mlp.down_proj.lora_"
    assert (state[f"{down}A.weight"].shape, state[f"{down}B.weight"].shape) == ((2, 128), (64, 2))
    config = json.loads((tmp_path / "1" / "adapter_config.json").read_text())
    wanted = {"r": 2, "lora_alpha": 16.0, "lora_dropout": 0.25, "target_modules": ["down_proj", "q_proj"]}
    assert {key: config[key] for key in wanted} == wanted


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    state = {f"{prefix}.lora_A.weight": torch.randn(2, 8), f"{prefix}.lora_B.weight": torch.randn(6, 2)}
    save_adapter(tmp_path, state, AdapterShape(2, 4.0), "base")
    torch.testing.assert_close(load_adapter(tmp_path), state, rtol=0, atol=0)
