"""A small study that predicts, its adapter made loud: one step of training barely moves a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Workplace, labelled_rows
from safetensors.torch import load_file, save_file

import pronk

TEMPERATURE = 2.5


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Workplace:
    """A study of one run that picks labels, measured with its loud adapter, calibrated to a temperature of ours."""
    place = Workplace(tmp_path_factory.mktemp("predicting"), tiny_base)
    place.write_rows(labelled_rows(100))
    place.recipe["data"]["split"] = {"validation": 30, "test": 30}
    place.recipe["train"]["max_steps"] = place.recipe["train"].pop("epochs")
    _, recipe, *_ = place.arguments()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pronk.run(recipe, out=place.out)
    (file,) = place.out.glob("runs/*/adapter/*.safetensors")
    draw = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}, file)
    pronk.eval(place.out)
    pronk.predict(file.parents[1], ["calibrates"])
    calibration = file.parents[1] / "calibration.json"
    kept = json.loads(calibration.read_text())
    kept["calibration"] |= {"temperature": TEMPERATURE}
    calibration.write_text(json.dumps(kept))
    torch.set_num_threads(threads)
    return place


@pytest.fixture
def run(trained: Workplace, tmp_path: Path) -> Path:
    """A copy of that study's run, in a copy of the study, to be changed."""
    shutil.copytree(trained.out, tmp_path / "study")
    return tmp_path / "study" / "runs" / "tuned"


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The folder of a run that writes text, with the adapter as it was made: a recipe and no training."""
    import yaml

    folder = tmp_path_factory.mktemp("writing") / "runs" / "writer"
    folder.mkdir(parents=True)
    recipe: dict[str, Any] = {"base": str(tiny_base), "data": {"source": "gone.jsonl", "format": "pairs"}, "full": True}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    shutil.copytree(tiny_base, folder / "model")
    return folder
