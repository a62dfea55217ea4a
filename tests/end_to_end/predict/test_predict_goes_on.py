"""Killed at any moment and started again, `pronk predict` comes to the same bytes; another job is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told
from predicted import lines, texts, write

from pronk.evaluate import evaluation
from pronk.ship.predict import rows as predict_rows
from pronk.ship.predict.journal import Journal
from pronk.ship.predict.rows import windows

Pronk = Callable[..., Told]
ROWS, BATCH = 80, 512  # rows, and tokens of a batch: several windows
IN_SMALL_BATCHES = f"""
import pronk.evaluate.evaluation
pronk.evaluate.evaluation.CPU_BATCH = {BATCH}
from pronk.cli import main
main()
"""


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evaluation, "CPU_BATCH", BATCH)
    return write(tmp_path / "rows.jsonl", texts(ROWS))


def command(run: Path, rows: Path, out: Path, *more: str) -> list[str]:
    return ["predict", str(run), "--input", str(rows), "--output", str(out), "--no-calibration", *more]


def stopped_after(patch: pytest.MonkeyPatch, window: int, error: type[BaseException]) -> None:
    """The process ends when so many windows are kept, half a line of the next behind them."""
    original = Journal.add

    def ends(self: Journal, records: list[Any]) -> None:
        original(self, records)
        if self._windows == window:
            with self.path.open("ab") as file:
                file.write(b'[{"label": "pos')
            raise error

    def begins(self: Journal, records: list[Any]) -> None:
        self._windows = getattr(self, "_windows", 0) + 1
        ends(self, records)

    patch.setattr(Journal, "add", begins)


def test_going_on_comes_to_the_same_bytes(run: Path, rows: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = rows.with_name("whole.csv"), rows.with_name("out.csv")
    assert pronk(*command(run, rows, whole)).code == 0
    with monkeypatch.context() as patch:
        stopped_after(patch, 2, KeyboardInterrupt)
        told = pronk(*command(run, rows, out))
    assert told.code == 130
    done = goes_on_from(rows.with_name("out.csv.unfinished"))
    assert f"interrupted; {done} of {ROWS} rows are done; the same command goes on" in told.err
    assert not out.exists()
    assert 0 < done < ROWS
    told = pronk(*command(run, rows, out, "--json"))
    assert f"going on: {done:,} of {ROWS:,} rows are done" in told.err
    assert out.read_bytes() == whole.read_bytes()
    assert (json.loads(told.out)["rows"], json.loads(told.out)["made"]) == (ROWS, ROWS - done)
    assert sorted(file.name for file in out.parent.iterdir()) == ["out.csv", "rows.jsonl", "study", "whole.csv"]
    told = pronk(*command(run, rows, out))
    assert told.code == 2
    assert "exists already; choose another name, or replace it with --force" in " ".join(told.err.split())
    assert pronk(*command(run, rows, out, "--force")).code == 0
    assert out.read_bytes() == whole.read_bytes()


def goes_on_from(journal: Path) -> int:
    """Rows in the whole lines of what is unfinished."""
    return sum(len(json.loads(line)) for line in journal.read_bytes().split(b"\n")[1:-1])


def a_row_lost(patch: pytest.MonkeyPatch) -> None:
    original = Journal._take

    def faulty(self: Journal, line: bytes, first: bool) -> None:
        original(self, line, first)
        self.rows += not first

    patch.setattr(Journal, "_take", faulty)


def a_row_twice(patch: pytest.MonkeyPatch) -> None:
    original = Journal._take

    def faulty(self: Journal, line: bytes, first: bool) -> None:
        original(self, line, first)
        self.rows -= not first

    patch.setattr(Journal, "_take", faulty)


@pytest.mark.parametrize("fault", [a_row_lost, a_row_twice])
def test_a_fault_of_going_on_shows(
    run: Path, rows: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:  # fmt: skip
    out = rows.with_name("out.csv")
    with monkeypatch.context() as patch:
        stopped_after(patch, 1, KeyboardInterrupt)
        assert pronk(*command(run, rows, out)).code == 130
    fault(monkeypatch)
    told = pronk(*command(run, rows, out))
    assert told.code == 2
    assert "the file has changed while it was read" in told.err
    assert not out.exists()


def test_another_job_is_refused(run: Path, rows: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    out = rows.with_name("out.jsonl")
    with monkeypatch.context() as patch:
        stopped_after(patch, 1, KeyboardInterrupt)
        assert pronk(*command(run, rows, out)).code == 130
    kept = out.with_name("out.jsonl.unfinished").read_bytes()
    other = write(rows.with_name("other.jsonl"), texts(3))
    for changed, what in (
        (command(run, other, out), "the rows of the input"),
        (command(run, rows, out, "--set", "data.instruction=Choose."), "how rows are read"),
        (command(run, rows, out, "--calibration"), "calibration"),
        (command(run, rows, out, "--set", "train.dtype=bf16"), "the model"),
    ):
        told = pronk(*changed)
        assert told.code == 2
        assert f"what differs: {what}. Give the same again to go on" in " ".join(told.err.split())
        assert out.with_name("out.jsonl.unfinished").read_bytes() == kept
    assert pronk(*command(run, other, out, "--force")).code == 0
    assert [row["n"] for row in lines(out)] == [0, 1, 2]
    assert not out.with_name("out.jsonl.unfinished").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.csv", {}), pytest.raises(Exception, match="another pronk is at work on this file"):
        Journal(tmp_path / "out.csv", {})
    assert (tmp_path / "out.csv.unfinished").exists()


def test_windows_are_the_same_from_wherever_one_began() -> None:
    items = [predict_rows.Item(row, [0] * (7 * i % 13)) for i, row in enumerate([None] * 50)]  # type: ignore[arg-type]
    whole = list(windows(items, len, 40))
    assert [item for window in whole for item in window] == items
    assert max(sum(len(item.ids) or 1 for item in window) for window in whole) <= 40
    begun = 0
    for number, window in enumerate(whole):
        assert list(windows(items[begun:], len, 40)) == whole[number:]
        begun += len(window)


@pytest.mark.slow
def test_killed_again_and_again(run: Path, rows: Path, pronk: Pronk) -> None:
    whole, out = rows.with_name("whole.jsonl"), rows.with_name("out.jsonl")
    journal = rows.with_name("out.jsonl.unfinished")
    assert pronk(*command(run, rows, whole)).code == 0
    before = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", IN_SMALL_BATCHES, *command(run, rows, out)],
            stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        while (journal.stat().st_size if journal.exists() else 0) <= before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        before = journal.stat().st_size
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not out.exists()
    assert pronk(*command(run, rows, out)).code == 0
    assert out.read_bytes() == whole.read_bytes()
