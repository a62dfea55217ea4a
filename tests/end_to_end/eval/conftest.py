"""A study to be measured again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from command_line import Workplace

import pronk


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Workplace:
    """A study of two runs and the base asked with two examples."""
    place = Workplace(tmp_path_factory.mktemp("measured"), tiny_base)
    place.recipe |= {"study": {"adapter.rank": [2, 4]}, "baseline": {"shots": [2]}}
    place.recipe["train"] |= {"learning_rate": 0.05}
    _, recipe, *_ = place.arguments()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: sums of another number of threads may round otherwise
    pronk.run(recipe, out=place.out)
    torch.set_num_threads(threads)
    return place


@pytest.fixture
def study(place: Workplace, tmp_path: Path) -> Path:
    """A copy of that study, to be changed."""
    shutil.copytree(place.out, tmp_path / "study")
    return tmp_path / "study"
