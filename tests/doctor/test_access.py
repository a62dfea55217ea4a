"""What the doctor says of hub, token and base, asked of a hub on this machine through huggingface_hub itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from model_hub import VALID, WRONG, Handler

from pronk.doctor.health.access import hub_lines, local_base
from pronk.doctor.health.finding import Line
from pronk.doctor.health.processes import Result, Trial
from pronk.doctor.health.secrets import without_secrets

Ask = Callable[..., list[Line]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The lines about a base, as a person with this token sees them."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", hub)

    def asked(base: str = "", token: str = "", **environment: str) -> list[Line]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        return without_secrets(hub_lines(Trial("hub", base, seconds=30).result(), base))

    return asked


# base, token → the line that tells it from every other
CASES = [
    ("owner/open", "", "ok", "owner/open may be read", ""),
    ("owner/granted", VALID, "ok", "owner/granted may be read", ""),
    ("owner/gated", VALID, "failed", "midnight has no access", "https://huggingface.co/owner/gated"),
    ("owner/gated", "", "failed", "is gated, and there is no token", "hf auth login"),
    ("owner/gated", WRONG, "failed", "the hub refuses the token", "mend the token first"),
    ("owner/narrow", VALID, "failed", "not allowed to read gated models", "settings/tokens"),
    ("owner/nothing", VALID, "failed", "no model owner/nothing that you may read", "check the spelling"),
    ("owner/nothing", "", "failed", "no model owner/nothing that you may read", "hf auth login"),
    ("owner/broken", VALID, "failed", "the hub says", "in a browser"),
]


@pytest.mark.parametrize(("base", "token", "status", "found", "remedy"), CASES)
def test_every_case_is_told_from_the_others(
    ask: Ask, base: str, token: str, status: str, found: str, remedy: str
) -> None:
    *_, line = ask(base, token)
    assert (line.name, line.status) == ("base", status)
    assert found in line.found
    assert remedy in line.remedy


@pytest.mark.parametrize(
    ("token", "status", "found"),
    [("", "note", "none"), (VALID, "ok", "of the user midnight"), (WRONG, "failed", "refuses it")],
)
def test_the_token_alone(ask: Ask, token: str, status: str, found: str) -> None:
    _, line = ask(token=token)
    assert (line.name, line.status) == ("token", status)
    assert found in line.found


def test_no_network_is_a_failure_only_where_a_base_is_needed(ask: Ask) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert [line.status for line in ask(**nobody)] == ["note"]
    (line,) = ask("owner/open", **nobody)
    assert line.status == "failed"
    assert "hf download owner/open" in line.remedy


def test_offline_by_request(ask: Ask) -> None:
    (line,) = ask("owner/open", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in line.found
    assert line.remedy.startswith("unset HF_HUB_OFFLINE")


def test_a_hub_library_that_is_broken_is_a_line() -> None:
    (line,) = hub_lines(Result({}, "ImportError: no module named httpx"), "")
    assert line.status == "note"
    assert "ImportError" in line.found


@pytest.mark.parametrize("base", ["nowhere", "./nowhere", "a/b/c", "/nowhere"])
def test_what_is_no_hub_id_is_told(base: str) -> None:
    line = local_base(base)
    assert line is not None
    assert line.status == "failed"


def test_a_folder_and_a_hub_id(tmp_path: Path) -> None:
    empty = local_base(str(tmp_path))
    assert empty is not None
    assert empty.status == "failed"
    (tmp_path / "config.json").write_text("{}")
    whole = local_base(str(tmp_path))
    assert whole is not None
    assert whole.status == "ok"
    assert local_base("owner/model") is None


ODD = "an-odd-token-without-a-shape"


@pytest.mark.slow
@pytest.mark.parametrize(("token", "as_json"), [(VALID, False), (VALID, True), (WRONG, True), (ODD, False)])
def test_tokens_are_never_shown(hub: str, tmp_path: Path, token: str, as_json: bool) -> None:
    """Planted in the environment and in both of the hub's files; the hub itself says it again when it refuses it.

    PyTorch is broken here, so that what builds on it, and has nothing to do with tokens, ends at once.
    """
    (tmp_path / "first" / "torch").mkdir(parents=True)
    (tmp_path / "first" / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('No module named torch')")
    (tmp_path / "token").write_text(token)
    (tmp_path / "stored_tokens").write_text(f"[mine]\nhf_token = {token}\n")
    environment = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    environment |= {"HF_HOME": str(tmp_path), "HF_TOKEN": token, "HF_ENDPOINT": hub, "OMP_NUM_THREADS": "1"}
    environment |= {"HUGGING_FACE_HUB_TOKEN": token, "PRONK_API_KEY": token}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "first"), str(ROOT / "src")])
    command = [sys.executable, "-m", "pronk", "doctor", "--base", "owner/broken", *(["--json"] if as_json else [])]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert "owner/broken" in told.stdout
    assert token not in told.stdout + told.stderr
    assert "\x1b[31m" not in told.stdout


def test_the_plant_is_seen_where_nothing_hides_it(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault of the test above: without `hide` the hub's words carry the token."""
    monkeypatch.setitem(globals(), "without_secrets", list)
    assert any(VALID in line.found for line in ask("owner/broken", VALID))
