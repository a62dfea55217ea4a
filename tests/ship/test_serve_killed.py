"""A pronk that is killed leaves no engine behind; one that ends as it should kills nobody afterwards."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronk.ship.serve import guard as subject
from pronk.ship.serve.process import EngineProcess, Stop

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
# an engine with a child of its own; the child does not listen to SIGTERM
ENGINE = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
time.sleep(0.3)
print("engine", os.getpid(), child.pid, flush=True)
time.sleep(60)
"""  # noqa: E501
PRONK = """
import sys, time
from pathlib import Path
import pronk.ship.serve.process as process
process.GRACE = 0.5
engine = process.EngineProcess([sys.executable, "-c", sys.argv[1]], {}, Path(sys.argv[2]), Path("log"), process.Stop())
engine.start()
while not engine.lines:
    time.sleep(0.02)
print(engine.lines[0], flush=True)
{then}
"""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ended(processes: list[int], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, processes))


def pronk(folder: Path, then: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that has started an engine, and the engine's processes."""
    command = [sys.executable, "-c", PRONK.replace("{then}", then), ENGINE, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    _, *numbers = process.stdout.readline().split()
    return process, [int(number) for number in numbers]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    process, engine = pronk(tmp_path, "time.sleep(60)")
    with process:
        yield process, engine
        process.kill()
    for number in filter(alive, engine):
        os.kill(number, signal.SIGKILL)


def test_a_killed_pronk_leaves_no_engine(started: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, engine = started
    assert len(engine) == 2
    assert all(map(alive, engine))
    process.kill()
    assert ended(engine), "engine and child, though the child does not listen"


def test_without_the_guard_it_would_stay(tmp_path: Path) -> None:
    process, engine = pronk(tmp_path, "engine._guard.dismiss(); time.sleep(60)")
    time.sleep(0.3)
    with process:
        process.kill()
    try:
        assert not ended(engine, 1.5)
    finally:
        for number in filter(alive, engine):
            os.kill(number, signal.SIGKILL)


def test_an_engine_that_was_ended_takes_its_guard_along(tmp_path: Path) -> None:
    engine = EngineProcess(
        [sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path, tmp_path / "log", Stop()
    )
    engine.start()
    guard = engine._guard._process
    assert guard.poll() is None
    engine.end()
    assert guard.poll() == 0
    with pytest.raises(OSError, match="No such file"):
        EngineProcess([str(tmp_path / "none")], {}, tmp_path, tmp_path / "log", Stop()).start()


@pytest.mark.parametrize("told", [b"4242\ndone\n", b"done\n", b"", b"nonsense\n"])
def test_nobody_is_killed_unless_an_engine_was_left(told: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number may be another process's by then."""
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("killed somebody"))
    subject.keep_watch(io.BytesIO(told), 0.1)
