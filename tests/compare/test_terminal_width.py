"""The tables in the terminal are as wide as it is: at 80 columns as ever, wider and narrower still to be read."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest
from study_builder import build_study

from pronk.compare.across import compare_across
from pronk.compare.across_terminal import across_summary
from pronk.compare.pairs import compare_study
from pronk.compare.terminal import COLUMNS, terminal_summary
from pronk.data.terminal import width

LONG = "all-linear-rank-64-learning-rate-0.0002-epochs-5-seed-1234567-constant-with-warmup"


def study(metrics: dict[str, float]) -> dict[str, Any]:
    runs = [{"name": name, "base": "b", "baseline": name == "b", "metrics": metrics} for name in ("b", LONG)]
    entry = {"a": "b", "b": LONG, "metric": "accuracy", "verdict": "tie", "items_needed": 2134}
    verdict = {"verdict": "overfitting", "epoch": 2.0, "rise": 0.1}
    return {"runs": [runs[0], {**runs[1], "overfitting": verdict}], "comparisons": [entry]}


EVERY = study(dict.fromkeys(COLUMNS, 0.5))
FEW = study(dict.fromkeys(["accuracy", "macro_f1", "perplexity"], 0.5))


@pytest.mark.parametrize("columns", [50, 60, 80, 100, 132, 200])
@pytest.mark.parametrize("found", [FEW, EVERY])
def test_the_table_takes_the_room_that_there_is(found: dict[str, Any], columns: int) -> None:
    table = [line for line in terminal_summary(found, columns).splitlines() if not line.startswith("overfits")]
    assert max(map(len, table)) <= columns
    assert "accuracy" in table[0]
    assert "against base" in table[0]
    assert any(line.endswith("= tie") or "items to tell" in line for line in table)
    shown, named = table[0], " ".join(table[3:])
    titles = [COLUMNS[name] for name in found["runs"][0]["metrics"]]
    assert all((title in shown) != (title in named) for title in titles), "each is shown, or said to be left out"
    assert (LONG in terminal_summary(found, columns)) == (columns == 200 or (columns == 132 and found is FEW))


def test_at_80_columns_it_is_as_it_was() -> None:
    assert terminal_summary(FEW, 80).splitlines() == [
        "run                                 accuracy  macro-F1  perplexity  against base",
        "b                                      0.500     0.500        0.50  (the base)",
        "…seed-1234567-constant-with-warmup     0.500     0.500        0.50  = tie",
        "overfits after epoch 2, validation loss rose by 0.100: …-constant-with-warmup",
    ]
    assert terminal_summary(FEW) == terminal_summary(FEW, 80)


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_several_studies(tmp_path: Path, columns: int) -> None:
    for number in (1, 2):
        build_study(tmp_path / f"study-{number}", items=60, runs=("qv-2", "all-linear-5"))
    record = compare_across([tmp_path / "study-1", tmp_path / "study-2"])
    text = across_summary(record, columns)
    table = text.splitlines()[2:]
    assert max(map(len, table)) <= max(columns, 66)  # study, date, figure and verdict stay whole
    if columns == 140:
        assert max(map(len, table)) > 80
    assert "all-linear-5" in text
    assert across_summary(record) == across_summary(record, 80)


def test_a_pipe_has_80_columns_and_a_terminal_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import struct
    import termios

    monkeypatch.delenv("COLUMNS", raising=False)
    reading, writing = os.pipe()
    mine, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 117, 0, 0))
    for handle, expected in ((writing, 80), (terminal, 117)):
        with os.fdopen(handle, "w") as stream:
            monkeypatch.setattr(sys, "__stdout__", stream)
            assert width() == expected
    os.close(reading)
    os.close(mine)


def test_the_study_s_own_figures(tmp_path: Path) -> None:
    """Of a real study, all that 80 columns show is in 120 as well."""
    import json

    folder = build_study(tmp_path, items=60)
    found = json.loads((folder / "study.json").read_text())
    found["comparisons"] = compare_study(folder)
    narrow, wide = (terminal_summary(found, columns) for columns in (80, 120))
    assert set(narrow.split()) <= set(wide.split())
