"""Help and reports come at once: neither loads torch or transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import pronk

HEAVY = ("torch", "transformers", "peft", "datasets")
WATCHED = """
import atexit, json, sys
wanted = {wanted!r}
found = lambda: [name for name in sys.modules if name.partition(".")[0] in wanted]
atexit.register(lambda: print("LOADED", json.dumps(found()), file=sys.stderr))
sys.argv = ["pronk", *{arguments!r}]
from pronk.cli import main
main()
"""


def loaded_by(*arguments: str, wanted: Sequence[str] = HEAVY) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Which modules of the wanted libraries a command has loaded when it ends."""
    code = WATCHED.format(wanted=wanted, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    line = next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return json.loads(line.removeprefix("LOADED")), done


@pytest.fixture
def finished_study(tmp_path: Path) -> Path:
    """The smallest study that can be reported: a base and a run, six items each."""
    runs = [
        {"name": "base", "base": "b", "baseline": True, "settings": {}, "status": "finished"},
        {"name": "tuned", "base": "b", "baseline": False, "settings": {}, "status": "finished", "message": ""},
    ]
    study = {"name": "s", "labels": [], "data": {}, "runs": runs, "comparisons": [], "environment": {}}
    (tmp_path / "study.json").write_text(json.dumps(study))
    for run, loss in (("base", 3.0), ("tuned", 1.0)):
        items = tmp_path / "runs" / run / "items"
        items.mkdir(parents=True)
        lines = [json.dumps({"id": str(i), "loss": loss + i / 10, "tokens": 2}) + "\n" for i in range(6)]
        (items / "likelihood.jsonl").write_text("".join(lines))
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "input": "x", "reference": "y", "label": None}) + "\n" for i in range(6))
    )
    return tmp_path


def test_help_loads_nothing_heavy() -> None:
    loaded, done = loaded_by("--help")
    assert (loaded, done.returncode) == ([], 0)
    assert "run" in done.stdout
    assert "report" in done.stdout


def test_report_loads_nothing_heavy(finished_study: Path) -> None:
    loaded, done = loaded_by("report", str(finished_study))
    assert (loaded, done.returncode) == ([], 0), done.stderr
    assert (finished_study / "report.html").stat().st_size > 1000
    assert "tuned" in done.stdout


def test_compare_loads_nothing_heavy(finished_study: Path, tmp_path: Path) -> None:
    again = shutil.copytree(finished_study, tmp_path.with_name(f"{tmp_path.name}-again"))
    page = tmp_path / "compare.html"
    loaded, done = loaded_by("compare", str(finished_study), str(again), "--out", str(page), "--json")
    assert (loaded, done.returncode) == ([], 0), done.stderr
    assert [run["baseline"] for run in json.loads(done.stdout)["runs"]] == [True, False, False]
    assert "studies compared" in page.read_text()
    loaded, done = loaded_by("compare", str(finished_study))
    assert (loaded, done.returncode) == ([], 2)
    assert "name two or more study folders" in done.stderr


def test_bad_recipe_is_refused_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    loaded, done = loaded_by("run", str(tmp_path / "none.yaml"))
    assert (loaded, done.returncode) == ([], 2)


def test_help_enters_no_room() -> None:
    """Only the door, and the place where memory's allocator is set."""
    loaded, _ = loaded_by("--help", wanted=["pronk"])
    assert {name for name in loaded if not name.startswith("pronk.cli.")} == {
        "pronk", "pronk.cli", "pronk.errors", "pronk.model", "pronk.model.memory", "pronk.model.memory.sizes",
    }  # fmt: skip


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "pronk", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pronk {pronk.__version__}\n"
