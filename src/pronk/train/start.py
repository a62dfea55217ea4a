"""`adapter.from`: an adapter in PEFT's format to go on with, found and checked before a base model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from pronk.errors import RecipeError, StudyError
from pronk.model.adapter import chosen_layers
from pronk.model.saved import CONFIG, SavedAdapter, read_adapter
from pronk.recipe import Adapter


def read_start(path: str) -> SavedAdapter:
    """Find an adapter, also a run's by the run's folder, and read what it is.

    Raises RecipeError that says why it is none to go on with.
    """
    with _named_by_the_recipe():
        return read_adapter(_folder(Path(path)))


def check_start(wanted: Adapter, layers: Mapping[str, tuple[int, int]]) -> None:
    """Check the adapter that a recipe names against the rest of the recipe and against its base.

    layers: input and output features of the base's linear layers. Raises RecipeError for what does not fit.
    """
    if wanted.from_ is None:
        return
    start = read_start(wanted.from_)
    with _named_by_the_recipe():
        start.check_fits(layers)
    for key in ("rank", "alpha", "use_rslora"):
        asked, has = getattr(wanted, key), getattr(start.shape, key)
        if key in wanted.model_fields_set and asked != has:
            raise _contradicted(start, key, asked, has)
    if "targets" in wanted.model_fields_set:
        targets = wanted.targets if isinstance(wanted.targets, str) else tuple(wanted.targets)
        if chosen_layers(list(layers), targets) != start.sizes.keys():
            raise _contradicted(start, "targets", wanted.targets, list(start.shape.targets))


def start_weights(path: str) -> dict[str, Tensor]:
    """The weights of an adapter by PEFT's names. Raises RecipeError where they are not finite."""
    start = read_start(path)
    with _named_by_the_recipe():
        return start.weights()


def _folder(path: Path) -> Path:
    if not path.exists():
        raise StudyError(f"there is no folder {path}")
    if not path.is_dir():
        raise StudyError(f"{path} is a file; name the folder that holds {CONFIG}")
    for folder in (path, path / "adapter"):  # the latter in a run's folder
        if (folder / CONFIG).is_file():
            return folder
    if (path / "study.json").is_file():
        runs = ", ".join(sorted(str(run.parent) for run in path.glob("runs/*/adapter"))) or "none has an adapter"
        raise StudyError(f"{path} is a whole study; name one of its runs: {runs}")
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            raise StudyError(f"{folder} is a whole model, no adapter; write `base: {folder}` instead")
    raise StudyError(f"{path} is no adapter in PEFT's format: it has no {CONFIG}")


@contextmanager
def _named_by_the_recipe() -> Iterator[None]:
    """What is wrong with the adapter, with the key that names it."""
    try:
        yield
    except StudyError as error:
        raise RecipeError(f"adapter.from: {error}") from None


def _contradicted(start: SavedAdapter, key: str, asked: Any, has: Any) -> RecipeError:
    return RecipeError(
        f"adapter.{key}: {asked}, but the adapter to go on with has {has} ({start.folder}, adapter.from); "
        f"leave adapter.{key} out"
    )
