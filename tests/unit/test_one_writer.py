"""One process at a time writes a file; what a crash leaves behind keeps nobody out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pronk.errors import StudyError
from pronk.runs import one_writer

fcntl = pytest.importorskip("fcntl")
HOLDS = """
import sys, time
from pathlib import Path
from pronk.runs import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()  # whatever was found out: else it is waited for


def test_the_second_is_told_who_writes_and_a_crash_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with holding(path) as process:
        told = rf"rows\.jsonl: another pronk is writing this \(process {process.pid}\); wait until it ends, or end it"
        with pytest.raises(StudyError, match=told), one_writer(path):
            pytest.fail("two at once")
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / ".rows.jsonl.lock").is_file()  # what a crash leaves behind
    with one_writer(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_the_systems_lock_two_would_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with pytest.raises(pytest.fail.Exception, match="two at once"):
        test_the_second_is_told_who_writes_and_a_crash_locks_nobody_out(tmp_path)


def test_who_waits_comes_next(tmp_path: Path) -> None:
    path, order = tmp_path / "study.json", []

    def wait() -> None:
        with one_writer(path, wait=True):
            order.append("second")

    with one_writer(path):
        other = threading.Thread(target=wait)
        other.start()
        time.sleep(0.1)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_locked_and_is_deleted_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking the holder ends and deletes it: the lock of a file without a name protects nobody."""
    path, original, times = tmp_path / "rows.jsonl", fcntl.flock, []

    def flock(file: object, how: int) -> None:
        times.append(how)
        if len(times) == 1:
            os.unlink(tmp_path / ".rows.jsonl.lock")
        original(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with one_writer(path):
        assert (tmp_path / ".rows.jsonl.lock").is_file()
        with pytest.raises(StudyError), one_writer(path):
            pass
    assert len(times) == 3


def test_folders_without_a_file_go_again(tmp_path: Path) -> None:
    with one_writer(tmp_path / "judge" / "gpt" / "votes.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []
    with one_writer(tmp_path / "judge" / "gpt" / "votes.jsonl"):
        (tmp_path / "judge" / "gpt" / "votes.jsonl").write_text("{}\n")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["votes.jsonl"]


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path / "a"):
        raise ZeroDivisionError
    with one_writer(tmp_path / "a"):
        pass
