"""A run that looks trained, made in a second: random adapters over a tiny base that is sure of what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from shipping import Ran, place_run


@pytest.fixture(scope="session")
def sure_base(smollm2: Any, make_tiny_base: Callable[..., Path]) -> Path:
    """A tiny base with larger weights: at its own, every next token is as likely as any other. With a licence, and
    with all of SmolLM2's tokens: among few of them a damaged model is not so sure of others."""
    folder = make_tiny_base("base", 0, smollm2.location)
    weights = load_file(folder / "model.safetensors")
    larger = {name: value if value.dim() == 1 else value * 8 for name, value in weights.items()}
    larger["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] * 30
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "LICENSE").write_text("Use it kindly.\n", encoding="utf-8")
    return folder


@pytest.fixture
def make_run(tmp_path: Path, sure_base: Path) -> Callable[..., Path]:
    """A function that makes a run of a study: recipe keys over the usual ones → its folder."""
    return partial(place_run, tmp_path, sure_base)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, sure_base: Path) -> Path:
    """A run that was exported as adapter and merged model; not to be changed."""
    from rich.console import Console

    from pronk.ship.export.exporting import Options, export

    run = place_run(tmp_path_factory.mktemp("shipped"), sure_base)
    assert export(str(run), Options(["adapter", "merged"]), Console(quiet=True)).passed
    return run


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
