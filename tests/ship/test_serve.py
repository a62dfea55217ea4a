"""`pronk serve` around an engine: how it is started, that it is ready and asks right, and that nothing outlives it.

The engine is a small program of the tests (fake_engine.py), started as vLLM would be.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fake_engine import fake_python, started
from openai import AuthenticationError, NotFoundError, OpenAI
from rich.console import Console
from runs_to_serve import make_run

from pronk.errors import EngineError, OptionError, RefusedError
from pronk.ship.serve import process as serve_process
from pronk.ship.serve import serving as room
from pronk.ship.serve.order import Options
from pronk.ship.serve.words import host_warning

KEY = "the-key-of-the-tests-0123"
QUESTION = {"role": "user", "content": "Sales rose 12.5%."}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    monkeypatch.delenv("PRONK_VLLM_PYTHON", raising=False)


@pytest.fixture
def runs(tiny_base: Path, tmp_path: Path) -> list[str]:
    return [str(make_run(tmp_path / "runs" / name, tiny_base, rank)) for name, rank in (("first", 4), ("second", 12))]


class Serving:
    """`pronk serve` in this process; `then` is done once it is ready, and SIGINT follows."""

    def __init__(self, folder: Path, then: Callable[[str], None] = lambda _: None, number: int = signal.SIGINT) -> None:
        self.folder, self.then, self.number = folder, then, number
        self.console = Console(file=StringIO(), width=200, force_terminal=False)
        self.failure: BaseException | None = None
        self.ready: dict[str, Any] = {}
        self.log = folder / "engine.log"

    def __call__(self, runs: list[str], terminal: bool = False, **options: Any) -> str:
        self.console = Console(file=StringIO(), width=200, force_terminal=terminal)
        given = {"engine_python": str(fake_python(self.folder)), "port": 0, "log": self.log, "seconds": 20.0, **options}
        room.serve(runs, Options(**given), (), self.console, self._begun)
        if self.failure:
            raise self.failure
        return self.said

    @property
    def said(self) -> str:
        return self.console.file.getvalue()

    def _begun(self, found: dict[str, Any]) -> None:
        self.ready = found
        threading.Thread(target=self._then, daemon=True).start()

    def _then(self) -> None:
        try:
            self.then(self.ready["address"])
        except BaseException as error:
            self.failure = error
        if self.number:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """After the test no process of the engine runs, its own child included, and its files are gone."""
    yield
    check_nothing_left(tmp_path)


def check_nothing_left(folder: Path) -> None:
    facts = started(folder)
    until = time.monotonic() + 5
    while any(map(runs_still, facts["processes"])) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(runs_still, facts["processes"]))
    assert not Path(facts["folder"]).exists()


def runs_still(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a child whose parent is gone waits to be counted


def asked(address: str, model: str = "first", key: str = KEY) -> str | None:
    with OpenAI(base_url=address, api_key=key, max_retries=0) as client:
        return client.chat.completions.create(model=model, messages=[QUESTION]).choices[0].message.content


@pytest.fixture(scope="module")
def served_once(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, str, list[str]]]:
    """Two runs, served once to a client: what was said, and what the client met."""
    folder = tmp_path_factory.mktemp("served")
    shapes = {"first": 4, "second": 12}
    runs = [str(make_run(folder / "runs" / name, tiny_base, rank)) for name, rank in shapes.items()]
    met: list[str] = []

    def client(address: str) -> None:
        met.extend(str(asked(address, name)) for name in ("base", "first", "second"))
        for expected, wrong in ((NotFoundError, {"model": "third"}), (AuthenticationError, {"key": "another-key"})):
            with pytest.raises(expected):
                asked(address, **wrong)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRONK_API_KEY", KEY)
        serving = Serving(folder, client)
        yield serving, serving(runs, arguments=["--seed", "7"]), met


def test_runs_are_served_by_name_and_ctrl_c_ends_everything(served_once):
    serving, said, met = served_once
    assert met == ["yes"] * 3
    assert serving.ready["models"] == ["base", "first", "second"]
    assert "base, first, second: reads the ids that `pronk chat` asks with, in 3 questions" in said
    assert f'curl {serving.ready["address"]}/chat/completions -H "Authorization: Bearer $PRONK_API_KEY"' in said
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    check_nothing_left(serving.folder)


def test_the_engine_is_started_as_the_runs_need_it(served_once):
    facts = started(served_once[0].folder)
    argv = facts["argv"]
    after = {name: argv[number + 1] for number, name in enumerate(argv[:-1]) if name.startswith("--")}
    assert after["--max-lora-rank"] == "16"  # the next that vLLM knows above 12
    assert (after["--dtype"], after["--max-model-len"], after["--host"]) == ("float32", "256", "127.0.0.1")
    assert (after["--max-loras"], after["--seed"]) == ("2", "7")
    environment = facts["environment"]
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert "PYTHONPATH" not in environment  # packages of this Python are none of another's


def test_the_key_is_nowhere_but_in_the_environment_of_the_engine(served_once):
    serving, said, _ = served_once
    facts = started(serving.folder)
    assert not any(KEY in argument for argument in facts["argv"])
    assert facts["environment"]["VLLM_API_KEY"] == KEY
    assert "PRONK_API_KEY" not in facts["environment"]
    log = serving.log.read_text()
    assert "starting" in log  # the engine has printed the key, and a token of the hub
    for text in (log, said, json.dumps(serving.ready)):
        assert KEY not in text
        assert "hf_abcdefghijklmnop" not in text
    assert "\x1b" not in log
    assert serving.log.stat().st_mode & 0o077 == 0


def test_without_a_key_one_is_made_and_shown_once_to_a_terminal_alone(runs, tmp_path, monkeypatch):
    monkeypatch.delenv("PRONK_API_KEY")
    serving = Serving(tmp_path)
    said = serving(runs, terminal=True)
    made = started(tmp_path)["environment"]["VLLM_API_KEY"]
    assert len(made) >= 32
    assert said.count(made) == 1
    with pytest.raises(OptionError, match="no terminal to show a new key in: set PRONK_API_KEY"):
        Serving(tmp_path)(runs)


@pytest.mark.parametrize("bad", ["short", "with a space in it", "with-a-line\nbreak"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch, bad):
    monkeypatch.setenv("PRONK_API_KEY", bad)
    with pytest.raises(OptionError, match="at least 8 letters") as refused:
        room._key(Console(file=StringIO()))
    assert bad not in str(refused.value)


@pytest.mark.usefixtures("nothing_left")
def test_an_engine_that_asks_otherwise_is_not_served(runs, tmp_path, monkeypatch):
    """The planted fault of this room: a template of the engine's own."""
    monkeypatch.setenv("PRONK_FAKE", "another-template")
    with pytest.raises(RefusedError, match="reads other tokens than `pronk chat` asks with"):
        Serving(tmp_path)(runs)


@pytest.mark.usefixtures("nothing_left")
def test_an_engine_that_does_not_start_is_told_with_its_cause_and_last_lines(runs, tmp_path, monkeypatch):
    words = "OSError: [Errno 98] error while attempting to bind: address already in use"
    monkeypatch.setenv("PRONK_FAKE", f"says {words}")
    with pytest.raises(EngineError) as failed:
        Serving(tmp_path)(runs)
    first, *_, last = str(failed.value).splitlines()
    assert first.startswith("the engine ended while it started, with exit code 1")
    assert "the port is taken" in first
    assert f"its first error: {words}" in str(failed.value)
    assert KEY not in str(failed.value)
    assert last == f"all that it said: {tmp_path / 'engine.log'}"
    assert EngineError.exit_code == 1


@pytest.mark.usefixtures("nothing_left")
def test_an_engine_that_is_never_ready_is_ended(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PRONK_FAKE", "never-ready")
    with pytest.raises(EngineError, match="was not ready after 1 s"):
        Serving(tmp_path)(runs, seconds=1.0)


@pytest.mark.usefixtures("nothing_left")
def test_an_engine_that_dies_later_is_told(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PRONK_FAKE", "dies-later")
    with pytest.raises(EngineError, match="the engine ended by itself, with exit code 3"):
        Serving(tmp_path, number=0)(runs)


@pytest.mark.usefixtures("nothing_left")
def test_an_engine_that_does_not_listen_is_killed(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PRONK_FAKE", "stubborn")
    monkeypatch.setattr(serve_process, "GRACE", 0.3)
    Serving(tmp_path)(runs)


@pytest.mark.usefixtures("nothing_left")
def test_a_terminal_that_is_closed_ends_the_engine_too(runs, tmp_path):
    Serving(tmp_path, number=signal.SIGHUP)(runs)


@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_while_the_engine_starts_ends_it(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PRONK_FAKE", "never-ready")

    def interrupt() -> None:
        while not (tmp_path / "started.json").exists():
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    serving = Serving(tmp_path)
    assert "ready:" not in serving(runs)


def test_a_taken_port_is_told_before_anything_is_started(runs, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"--port {port}: cannot be used .* choose another port, or 0"):
            Serving(tmp_path)(runs, port=port)
    assert not (tmp_path / "started.json").exists()


def test_a_host_that_others_reach_is_warned_of():
    assert list(host_warning("127.0.0.1")) == []
    assert "--host 0.0.0.0: everybody who can reach this machine" in "".join(host_warning("0.0.0.0"))


def test_a_log_is_kept_only_where_it_is_of_use(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Serving(tmp_path, number=signal.SIGTERM)(runs, log=None)
    assert not list(tmp_path.glob("pronk-serve-*"))
    monkeypatch.setenv("PRONK_FAKE", "says nothing")
    with pytest.raises(EngineError):
        Serving(tmp_path)(runs, log=None)
    assert [file.suffix for file in tmp_path.glob("pronk-serve-*")] == [".log"]


def test_a_log_that_cannot_be_written_is_told_before_anything_starts(runs, tmp_path):
    with pytest.raises(OptionError, match=r"--log .*: cannot be written"):
        Serving(tmp_path)(runs, log=tmp_path / "none" / "log")


def test_a_log_goes_with_what_was_moved_out_of_it(tmp_path):
    log = tmp_path / "log"
    log.write_text("new")
    (tmp_path / "log.1").write_text("old")
    serve_process.remove_log(log)
    assert not list(tmp_path.iterdir())
    serve_process.remove_log(log)  # gone already


def test_a_log_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(serve_process, "LARGEST_LOG", 1000)
    log = serve_process._Log(tmp_path / "log")
    for number in range(100):
        log.write(f"line {number:04d} {'x' * 40}")
    log.close()
    kept = (tmp_path / "log.1").read_text() + (tmp_path / "log").read_text()
    assert len(kept) <= 2000
    assert kept.endswith("line 0099 " + "x" * 40 + "\n")
