"""benchmarks/h200.py: its commands are ones that pronk knows, and its table says what was found and what was not."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from pronk.cli import app
from pronk.doctor.shapes import SHAPES, read_lengths

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def h200() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("h200", ROOT / "benchmarks" / "h200.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["h200"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def case(ratio: float) -> dict[str, Any]:
    """A case's JSON in which every ratio is the same."""
    every = {one: dict.fromkeys(("ours", "trl", "unsloth"), ratio) for one in ("ours", "fp8", "fleet")}
    sides = {"ours": {"peak_memory_bytes": 2**30}}
    return {
        "ratios": every, "memory_ratios": every, "matrix_product_utilisation": {"ours": ratio}, "sides": sides,
        "tokens_per_second": {"ours": 1234.5}, "differences": {"unsloth": {"loss": 0.0, "gradient_norm": 0.01}},
    }  # fmt: skip


def test_every_command_is_one_that_pronk_knows(h200: ModuleType) -> None:
    bench: Any = typer.main.get_command(app).commands["bench"]  # type: ignore[attr-defined]
    for one in h200.CASES:
        verb, *arguments = shlex.split(one.command)
        found = bench.commands[verb].make_context(verb, [*arguments, "--steps", "8", "--json"]).params
        assert found["base_shape"] in SHAPES
        assert read_lengths(found["lengths"]).count in (1, 4, 16, 64)


def test_the_table_compares_each_figure_with_its_bound(h200: ModuleType) -> None:
    found = {one.name: case(1.0) for one in h200.CASES}
    rows = [line for line in h200.table(found).splitlines() if "1.000" in line]
    assert len(rows) == len(h200.LINES) == 14
    reached = [line for line in rows if "reached" in line]
    # 1.0 is enough for the fleet's 0.97, the utilisation, and twice 1.1 of memory
    assert len(reached) == 4
    assert "ours 1,234 (1.0 GiB) tokens/s; gradient norms within 1.00%" in h200.table(found)


def test_what_was_not_measured_is_said_so(h200: ModuleType) -> None:
    found = {"kept": case(2.0)}
    del found["kept"]["ratios"]["fp8"]["unsloth"]
    rows = h200.table(found).splitlines()
    assert sum("not measured" in line for line in rows) == 11
    assert "| 2.000 | reached |" in rows[2]
    assert "not measured" in rows[3]


def test_a_case_that_fails_leaves_its_words_and_the_others_go_on(
    h200: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"kept": ("", "no kernel"), "alpaca": (json.dumps(case(2.0)), "")}

    monkeypatch.setattr(h200, "played", lambda command, _: said["kept" if "4x2048" in command else "alpaca"])
    for name in said:
        (one,) = [one for one in h200.CASES if one.name == name]
        h200.run(one, tmp_path, tmp_path, "train.fp8_products=true", time.monotonic() + 300)
    assert "no kernel" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert set(h200.read(tmp_path)) == {"alpaca"}


def test_nothing_is_begun_when_the_minutes_are_up(h200: ModuleType, tmp_path: Path) -> None:
    h200.run(h200.CASES[0], tmp_path, tmp_path, "x=1", time.monotonic() + 1)
    assert "not run" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(h200: ModuleType, tmp_path: Path) -> None:
    inner = f"import time; time.sleep(4); open({str(tmp_path / 'late')!r}, 'w')"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    assert h200.played([sys.executable, "-c", outer], 1.0) == ("", "given up: the minutes were up")
    time.sleep(4)
    assert not (tmp_path / "late").exists()
    assert h200.played([sys.executable, "-c", "print(1)"], 20.0) == ("1\n", "")
