"""A run that looks trained, made in a second: random adapters over a tiny base that is sure of what it says."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from shipping import LABELS, Ran, random_adapter, rows


@pytest.fixture(scope="session")
def sure_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with larger weights: at its own, every next token is as likely as any other. With a licence."""
    folder = tmp_path_factory.mktemp("sure") / "base"
    shutil.copytree(tiny_base, folder)
    weights = load_file(folder / "model.safetensors")
    larger = {name: value if value.dim() == 1 else value * 8 for name, value in weights.items()}
    larger["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] * 30
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "LICENSE").write_text("Use it kindly.\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_run(tmp_path: Path, sure_base: Path) -> Callable[..., Path]:
    """A function that makes a run of a study: recipe keys over the usual ones → its folder."""

    def make(name: str = "tuned", **keys: Any) -> Path:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40)), encoding="utf-8")
        recipe = {
            "base": str(sure_base),
            "data": {"source": str(tmp_path / "rows.jsonl"), "format": "classify",
                     "split": {"train": 20, "validation": 8, "test": 8, "balanced": False}},
            "adapter": {"rank": 4, "alpha": 8},
            "train": {"epochs": 1, "max_length": 128},
            **keys,
        }  # fmt: skip
        run = tmp_path / "study" / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        study = {"runs": [{"name": name, "baseline": False}], "labels": list(LABELS), "comparisons": []}
        (tmp_path / "study" / "study.json").write_text(json.dumps(study), encoding="utf-8")
        if recipe.get("full"):
            shutil.copytree(sure_base, run / "model")
        else:
            random_adapter(run / "adapter", Path(recipe["base"]))
        return run

    return make


@pytest.fixture
def pronk(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,  # noqa: ARG001
) -> Callable[..., Ran]:
    """`pronk ARGUMENTS` in this process, through the same `main` that the command runs."""

    def call(*arguments: object) -> Ran:
        from pronk.cli import main

        monkeypatch.setattr(sys, "argv", ["pronk", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Ran(code, *capsys.readouterr())

    return call
