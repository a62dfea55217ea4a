"""A model that is on this machine needs no hub; a hub that does not answer is told at once."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

import pronk.model.hub as subject
from pronk.errors import BaseModelError
from pronk.model.load import linear_layer_sizes, load_config, load_model, load_tokenizer

CPU = torch.device("cpu")
HUB = subject.Base("owner/model", "owner/model", local=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no proxy, and a hub at a port that nobody listens on."""
    from huggingface_hub import constants

    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(hub: Path, files: Path, *names: str) -> None:
    """As the hub's library leaves them."""
    commit = "0" * 40
    snapshot = hub / "models--owner--model" / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(files / name, snapshot / name)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(commit)


def test_an_unreachable_hub_is_told_at_once(
    hub: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one knock; the hub's library would try again and again."""
    knocks: list[Any] = []

    def refused(address: Any, *_: Any, **__: Any) -> None:
        knocks.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refused)
    with pytest.raises(BaseModelError, match="not on this machine and the hub cannot be reached"):
        load_tokenizer(HUB)
    assert knocks == [("127.0.0.1", 9)]
    assert "".join(capfd.readouterr()) == ""
    assert not hub.exists() or not list(hub.rglob("*.json"))


def test_what_is_on_this_machine_needs_no_hub(hub: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    assert subject.downloaded("owner/model") is None
    put_into_cache(hub, tiny_base, "config.json", "tokenizer.json", "tokenizer_config.json")
    assert subject.downloaded("owner/model") is None
    put_into_cache(hub, tiny_base, "model.safetensors")
    assert subject.downloaded("owner/model") == str(next(hub.rglob("snapshots/*")))
    monkeypatch.setattr(subject, "hub_answers", fails)
    monkeypatch.setattr(socket, "create_connection", fails)
    assert len(load_tokenizer(HUB)) > 1000
    assert len(load_model(HUB, torch.float32, CPU).model.layers) == 2


def test_what_is_partly_on_this_machine_is_told_before_anything_is_loaded(hub: Path, tiny_base: Path) -> None:
    put_into_cache(hub, tiny_base, "config.json", "tokenizer.json")
    for load_part in (load_config, load_tokenizer, linear_layer_sizes):
        with pytest.raises(BaseModelError, match="not on this machine and the hub cannot be reached"):
            load_part(HUB)


def test_a_door_that_opens(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    del hub
    assert not subject.hub_answers()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        # through a proxy, it is the proxy that has to answer
        for proxy in (f"http://{address}", address):
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            assert subject.hub_answers()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert not subject.hub_answers()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://{address}")
        assert subject.hub_answers()
        monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
        assert not subject.hub_answers()
