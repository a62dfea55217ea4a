"""`pronk eval`: what was trained, measured afterwards, is what `pronk run` measured; and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LABELS, Told, Workplace, labelled_rows
from safetensors.torch import load_file, save_file

import pronk.measure.items
import pronk.measure.together
from pronk.evaluate import classify
from pronk.evaluate.evaluation import Evaluation

Pronk = Callable[..., Told]


def items(study: Path) -> dict[str, str]:
    """Every item file of a study, by run and evaluation."""
    return {f"{file.parents[1].name}/{file.stem}": file.read_text() for file in sorted(study.glob("runs/*/items/*"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def loud(study: Path) -> None:
    """Make the adapters of a study large and different: a tiny model's barely change anything."""
    for number, file in enumerate(sorted(study.glob("runs/*/adapter/*.safetensors"))):
        draw = torch.Generator().manual_seed(number)
        state = {name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}
        save_file(state, file)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, pronk_process: Any) -> Workplace:
    """A study of two runs and the base asked with two examples."""
    place = Workplace(tmp_path_factory.mktemp("measured"), tiny_base)
    place.recipe |= {"study": {"adapter.rank": [2, 4]}, "baseline": {"shots": [2]}}
    place.recipe["train"] |= {"learning_rate": 0.05}
    done = pronk_process(*place.arguments())
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def study(place: Workplace, tmp_path: Path) -> Path:
    """A copy of that study, to be changed."""
    shutil.copytree(place.out, tmp_path / "study")
    return tmp_path / "study"


# --- into the study itself -----------------------------------------------------------------------


def test_an_untouched_study_measures_the_same_byte_for_byte(study: Path, pronk: Pronk) -> None:
    before, told_before = items(study), json.loads((study / "study.json").read_text())
    shutil.rmtree(study / "runs" / "base")
    for file in study.glob("runs/*/items/*"):
        file.unlink()
    told = pronk("eval", str(study), "--json")
    assert told.code == 0, told.err
    assert items(study) == before
    assert set(before) == {f"{run}/{kind}" for run in ("base", "base_2-shot", "rank-2", "rank-4") for kind in ("classify", "likelihood")}
    after = json.loads(told.out)
    assert after.pop("evaluation")["evaluations"] == ["likelihood", "classify"]
    assert after == told_before
