"""From a file and `--set` overrides to a checked recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pronk.errors import RecipeError
from pronk.recipe.data import is_hub_id
from pronk.recipe.notation import assign, parse_yaml, section
from pronk.recipe.schema import Recipe, validated


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file.

    overrides are texts `key=value` with dotted keys; values are YAML. Paths in the file are
    relative to it, paths in an override to the current folder.

    Raises RecipeError with one message that names the file and the key.
    """
    path = Path(path)
    plain = _load_yaml(path)
    _resolve_paths(plain, path.absolute().parent)
    for override in overrides:
        _override(plain, override)
    return validated(plain, str(path))


def recipe_of_base(base: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that speaks of a base only, for what needs no data. A path is relative to the current folder.

    Raises RecipeError as `read_recipe` does.
    """
    plain: dict[str, Any] = {"base": _base_path(base, Path.cwd()), "data": {"source": "no data", "format": "pairs"}}
    for override in overrides:
        _override(plain, override)
    return validated(plain, f"--set for {base}")


def recipe_of_data(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that speaks of a file of examples only. A path is relative to the current folder.

    Raises RecipeError as `read_recipe` does.
    """
    plain: dict[str, Any] = {"data": {"source": _path(source, Path.cwd())}}
    for override in overrides:
        _override(plain, override)
    return validated(plain, f"--set for {source}")


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe file") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: this is a folder; a recipe is a YAML file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save the recipe as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    plain = parse_yaml(text, str(path))
    if plain is None:
        raise RecipeError(f"{path}: the recipe is empty")
    if not isinstance(plain, dict):
        raise RecipeError(f"{path}: a recipe is made of keys and values, such as `base: smollm2`")
    return plain


def _resolve_paths(plain: dict[str, Any], folder: Path) -> None:
    """Make the paths of a recipe file relative to its own folder."""
    study, start = plain.get("study"), plain.get("adapter")
    places = (
        (plain, "base"), (plain, "prompt"), (plain.get("data"), "source"), (start, "from"),
        (study, "base"), (study, "adapter.from"), (plain.get("forgetting"), "text"),
    )  # fmt: skip
    for inner, key in places:
        if isinstance(inner, dict) and key in inner:
            inner[key] = _resolved(key, inner[key], folder)


def _resolved(key: str, value: Any, folder: Path) -> Any:
    """A path or a list of them, from folder; what is neither is left for the schema to refuse."""
    if isinstance(value, list):
        return [_resolved(key, item, folder) for item in value]
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        return {**value, "path": _path(value["path"], folder)}
    if not isinstance(value, str):
        return value
    if key == "base":
        return _base_path(value, folder)
    if key == "prompt":
        return _path(value, folder) if value.endswith(".jinja") else value
    if key == "source" and is_hub_id(value, folder):
        return value
    return _path(value, folder)


def _path(text: str, folder: Path) -> str:
    return os.path.normpath(folder / Path(text).expanduser())


def _base_path(base: str, folder: Path) -> str:
    """A base that looks like a path is one; any other name is left for the hub."""
    looks_like_path = base.endswith(".gguf") or base.startswith((".", "/", "~"))
    if looks_like_path or (folder / base / "config.json").exists():
        return _path(base, folder)
    return base


def _override(plain: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected key=value, such as train.epochs=3")
    key, value = key.strip(), parse_yaml(text, f"--set {key}")
    if key in ("base", "prompt", "study.base", "data.source", "adapter.from", "study.adapter.from", "forgetting.text"):
        value = _resolved(key.rsplit(".", 1)[-1], value, Path.cwd())
    if key == "study.base" and isinstance(value, str):
        value = [value]
    axis, _, studied = key.partition(".")
    if axis == "study" and studied:
        plain["study"] = {**section(plain, "study"), studied: value}
    else:
        assign(plain, key, value)
