"""The command line as tests call it, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Told, Workplace


@pytest.fixture
def workplace(tmp_path: Path, tiny_base: Path) -> Workplace:
    """A folder with 60 labelled rows and a recipe of one short run on the tiny base."""
    return Workplace(tmp_path, tiny_base)


@pytest.fixture(scope="session")
def tiny_gguf(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as a .gguf file; the embedded one takes seconds to read, again and again."""
    from transformers import AutoTokenizer

    from pronk.ship.gguf.writer import Labels, write_model

    target = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_model(tiny_base, target, "f16", AutoTokenizer.from_pretrained(tiny_base), Labels("tiny"))
    return target


@pytest.fixture
def pronk(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,  # noqa: ARG001
) -> Callable[..., Told]:
    """`pronk ARGUMENTS` in this process, through the same `main` that the command runs."""

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        code = exit_code(monkeypatch, *arguments)
        return Told(code, *capsys.readouterr())

    return call


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """What `main` ends with."""
    from pronk.cli import main

    monkeypatch.setattr(sys, "argv", ["pronk", *arguments])
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


@pytest.fixture(scope="session")
def pronk_once() -> Callable[..., Told]:
    """`pronk` for the fixtures of a module, of which many tests look at what one study came to."""

    def call(*arguments: str) -> Told:
        import torch

        out, err, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
        torch.set_num_threads(1)
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = exit_code(patch, *arguments)
        torch.set_num_threads(threads)
        return Told(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def finish() -> Callable[[Workplace], Workplace]:
    """Run a workplace's recipe to its end, in this process: a process of its own takes ten seconds to begin."""

    def run(place: Workplace) -> Workplace:
        import torch

        import pronk

        _, recipe, *_ = place.arguments()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the tests: sums of another number of threads may round otherwise
        pronk.run(recipe, out=place.out)
        torch.set_num_threads(threads)
        return place

    return run


@pytest.fixture(scope="session")
def pronk_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`pronk ARGUMENTS` in a process of its own."""

    def call(*arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, "-m", "pronk", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=settings, check=False)

    return call
