"""A study to be measured again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Workplace


@pytest.fixture(scope="session")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, finish: Callable[[Workplace], Workplace]
) -> Workplace:
    """A study of two runs and the base asked with two examples."""
    place = Workplace(tmp_path_factory.mktemp("measured"), tiny_base)
    place.recipe |= {"study": {"adapter.rank": [2, 4]}, "baseline": {"shots": [2]}}
    place.recipe["train"] |= {"learning_rate": 0.05}
    return finish(place)


@pytest.fixture
def study(place: Workplace, tmp_path: Path) -> Path:
    """A copy of that study, to be changed."""
    shutil.copytree(place.out, tmp_path / "study")
    return tmp_path / "study"
