"""The form `hub`: what would be uploaded, and the upload to a scripted hub on this machine, never the real one.

No token is ever in what is printed, logged or written: every file below the test's folder is searched.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from scripted_hub import MIDNIGHT, READER, WRONG, ScriptedHub
from shipped_run import RUN, make_study

from pronk.errors import RefusedError
from pronk.ship.hub import form, upload

Pronk = Callable[..., Any]
PEFT_WARNS = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
NAME = "midnight/Llama-mine"
TOKENS = (MIDNIGHT, READER, WRONG)
SAID = "Answer in one word; my token is hf_PlantedInTheRecipe4711."


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedHub]:
    """The scripted hub, and a user with a token that may write, in the environment."""
    server = ScriptedHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", MIDNIGHT)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> tuple[Path, Any]:
    """A run, exported for the hub by the command line, dry; and what that printed."""
    import contextlib
    import io
    import sys

    from pronk.cli import main

    folder = tmp_path_factory.mktemp("hub-form")
    base = Path(shutil.copytree(tiny_base, folder / "base"))
    (base / "LICENSE").write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n", encoding="utf-8")
    run = make_study(folder / "place", base, data={"instruction": SAID})
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        import warnings

        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        patch.setattr(sys, "argv", ["pronk", "export", str(run), "--to", "hub"])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code, err.getvalue()
    return run, (out.getvalue(), err.getvalue())


@pytest.fixture
def place(exported: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the export's folder."""
    return Path(shutil.copytree(exported[0] / "export", tmp_path / "export"))


def tokens_in(folder: Path, *more: str) -> list[str]:
    """Files below a folder, and texts, that hold a token."""
    held = [
        str(file)
        for file in folder.rglob("*")
        if file.is_file() and any(t.encode() in file.read_bytes() for t in TOKENS)
    ]
    return held + [text for text in more if any(token in text for token in TOKENS)]


# --- the folder ----------------------------------------------------------------------------------


def test_the_folder_is_what_was_compared(exported: tuple[Path, Any]) -> None:
    run, (out, err) = exported
    folder = run / "export" / "hub"
    names = {file.name for file in folder.iterdir()}
    assert {"README.md", "export.json", "adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert {"LICENSE", "chat_template.jinja"} <= names
    entry = json.loads((folder / "export.json").read_text(encoding="utf-8"))["artifacts"][0]
    assert (entry["name"], entry["status"], entry["parity"]["reader"]) == ("hub", "passed", "PEFT")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "These files (read over the base as published) were read back by PEFT and compared with the run" in card
    assert ModelCard(card).data.license == "llama3.1"
    assert "nothing was uploaded; --push OWNER/NAME does it" in err
    assert f"to YOUR-NAME/{RUN} (private):" in out
    for name in names:
        assert name in out
    assert max(map(len, out.partition("\nto YOUR-NAME")[2].splitlines())) <= 80


def test_nothing_of_this_machine_goes_with_it(exported: tuple[Path, Any]) -> None:
    """Neither folders nor the token that somebody has written into the recipe."""
    run, _ = exported
    folder = run / "export" / "hub"
    for file in folder.iterdir():
        content = file.read_bytes()
        assert b"hf_PlantedInTheRecipe4711" not in content, file
        assert str(run.parents[3]).encode() not in content, file
        assert str(Path.home()).encode() + b"/" not in content, file
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] is None


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_a_whole_model_for_the_hub(exported: tuple[Path, Any], tmp_path: Path, pronk: Pronk) -> None:
    told = pronk("export", exported[0], "--to", "hub", "--hub-merged", "--out", tmp_path / "out", "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert found["hub"]["uploaded"] is False
    assert "model.safetensors" in {one["name"] for one in found["hub"]["files"]}
    card = ModelCard((tmp_path / "out" / "hub" / "README.md").read_text(encoding="utf-8"))
    assert card.data.library_name == "transformers"
    assert "These files (merged onto the unquantized base) were read back by transformers" in card.text


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_a_card_in_korean(
    exported: tuple[Path, Any], place: Path, tmp_path: Path, hub: ScriptedHub, pronk: Pronk
) -> None:
    """Uploaded as it was asked for; where one stands in another language, that is told, not uploaded."""
    arguments = ["export", exported[0], "--to", "hub", "--push", NAME, "--lang", "ko", "--out"]
    told = pronk(*arguments, place)
    assert told.code == 2
    assert "stands here already; move it away first" in " ".join(told.err.split())
    assert not hub.files
    assert "## Limits" in (place / "hub" / "README.md").read_text(encoding="utf-8")
    told = pronk(*arguments, tmp_path / "korean")
    assert told.code == 0, told.err
    assert "## 한계" in hub.files[NAME]["README.md"].decode()


@pytest.mark.filterwarnings(PEFT_WARNS)
def test_what_is_rejected_is_neither_listed_nor_uploaded(
    exported: tuple[Path, Any], tmp_path: Path, hub: ScriptedHub, pronk: Pronk
) -> None:
    out = tmp_path / "out"
    told = pronk("export", exported[0], "--to", "hub", "--push", NAME, "--out", out, "--tolerance", "kl=1e-12")
    assert told.code == 1
    assert "REJECTED" in told.out
    assert NAME not in told.out.partition("nats apart")[2]
    assert (out / "hub.rejected").is_dir()
    assert not (out / "hub").exists()
    assert not hub.repositories


# --- the upload ----------------------------------------------------------------------------------


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "one commit"])
def test_what_was_listed_is_uploaded(
    xet: bool, place: Path, exported: tuple[Path, Any], hub: ScriptedHub, pronk: Pronk, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Privately, by either way of the library; without making anything anew; and the card names its new place."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    (place / "hub" / ".secret").write_text("not for the hub", encoding="utf-8")
    (place / "hub" / "linked.txt").symlink_to("/etc/hostname")
    told = pronk("export", exported[0], "--to", "hub", "--push", NAME, "--out", place)
    assert told.code == 0, told.err
    assert hub.repositories == {NAME: True}
    listed = {file.name: file.read_bytes() for file in form.files_of(place / "hub")}
    assert hub.files[NAME] == listed
    assert ".secret" not in listed
    assert "linked.txt" not in listed
    card = listed["README.md"].decode()
    assert f"PeftModel.from_pretrained(base, '{NAME}')" in card
    assert "YOUR-NAME" not in card
    assert f"uploaded: {hub.address}/{NAME}" in told.err
    assert not tokens_in(place, told.out, told.err, caplog.text)


def test_it_is_public_only_when_told(place: Path, hub: ScriptedHub, exported: tuple[Path, Any], pronk: Pronk) -> None:
    told = pronk("export", exported[0], "--to", "hub", "--push", "llamas/Llama-1", "--public", "--out", place, "--json")
    assert told.code == 0, told.err
    assert hub.repositories == {"llamas/Llama-1": False}
    assert json.loads(told.out)["hub"]["uploaded"] is True


REFUSED: dict[str, tuple[tuple[str, ...], str | None, str]] = {  # name: options, token, what is said
    "no token": (("--push", NAME), None, "there is no token of the hub on this machine; log in with `hf auth login`"),
    "a token of nobody": (("--push", NAME), WRONG, "the hub refuses the token: mistyped, expired or revoked"),
    "a token that reads": (("--push", NAME), READER, "the token may read only"),
    "another's name": (("--push", "other/Llama-1"), MIDNIGHT, "other is not you (midnight), nor one of your organ"),
    "a name under Llama's licence": (("--push", "midnight/mine"), MIDNIGHT, "--push midnight/Llama-mine"),
    "no name": (("--push", "mine"), MIDNIGHT, "expected OWNER/NAME"),
    "no such name": (("--push", "midnight/a b"), MIDNIGHT, "no name of a repository"),
    "taken": (("--push", "midnight/Llama-taken"), MIDNIGHT, "is there already; choose another name, or add --update"),
    "seen by all": (("--push", "midnight/Llama-open", "--update"), MIDNIGHT, "is public: anyone would read it"),
    "seen by none": (("--push", "midnight/Llama-taken", "--update", "--public"), MIDNIGHT, "is private; leave out"),
    "public what?": (("--public",), MIDNIGHT, "--public goes with --push OWNER/NAME"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_stands_in_the_way_is_one_message(
    case: str, place: Path, hub: ScriptedHub, exported: tuple[Path, Any], pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, token, said = REFUSED[case]
    hub.repositories |= {"midnight/Llama-taken": True, "midnight/Llama-open": False}
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    told = pronk("export", exported[0], "--to", "hub", *options, "--out", place)
    assert told.code == 2
    assert said in " ".join(told.err.split())
    assert "Traceback" not in told.err
    assert not hub.files
    assert not tokens_in(place, told.out, told.err)


def test_the_card_names_where_it_went_last(
    place: Path, hub: ScriptedHub, exported: tuple[Path, Any], pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal, and after another repository."""
    monkeypatch.setenv("HF_TOKEN", WRONG)
    assert pronk("export", exported[0], "--to", "hub", "--push", "midnight/Llama-0", "--out", place).code == 2
    monkeypatch.setenv("HF_TOKEN", MIDNIGHT)
    for name in ("midnight/Llama-1", "llamas/Llama-2"):
        assert pronk("export", exported[0], "--to", "hub", "--push", name, "--out", place).code == 0
        card = hub.files[name]["README.md"].decode()
        assert set(re.findall(r"(?:midnight|llamas|YOUR-NAME)/[\w-]+", card)) == {name}
        assert json.loads(hub.files[name]["export.json"])["artifacts"][0]["facts"]["repository"] == name


def test_a_repository_that_is_there_is_updated_when_told(
    place: Path, hub: ScriptedHub, exported: tuple[Path, Any], pronk: Pronk
) -> None:
    hub.repositories[NAME], hub.files[NAME] = True, {}
    told = pronk("export", exported[0], "--to", "hub", "--push", NAME, "--update", "--out", place)
    assert told.code == 0, told.err
    assert "README.md" in hub.files[NAME]


def breaks_off(place: Path, hub: ScriptedHub, run: Path, pronk: Pronk) -> None:
    hub.fails_at = "/preupload/"
    told = pronk("export", run, "--to", "hub", "--push", NAME, "--out", place)
    assert told.code == 2
    assert f"The repository {NAME} was made: once it works, run this again with --update" in told.err
    assert "\x1b[31mbroken" not in told.err
    assert not tokens_in(place, told.out, told.err)


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "one commit"])
def test_a_hub_that_breaks_off_and_quotes_the_token(
    xet: bool, place: Path, hub: ScriptedHub, exported: tuple[Path, Any], pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library tries again, ever later
    breaks_off(place, hub, exported[0], pronk)
    # a planted fault: what the library says is handed on as it is
    hub.repositories.clear()
    monkeypatch.setattr(upload, "hide", lambda text: text)
    with pytest.raises(AssertionError):
        breaks_off(place, hub, exported[0], pronk)


def test_a_hub_that_is_not_there(
    place: Path, exported: tuple[Path, Any], hub: ScriptedHub, pronk: Pronk, monkeypatch: Any
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    told = pronk("export", exported[0], "--to", "hub", "--push", NAME, "--out", place)
    assert told.code == 2
    assert "the hub cannot be reached" in told.err
    assert not hub.asked


def test_ctrl_c_while_it_uploads(
    place: Path, exported: tuple[Path, Any], hub: ScriptedHub, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "upload_folder", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    told = pronk("export", exported[0], "--to", "hub", "--push", NAME, "--out", place)
    assert told.code == 130
    assert "run this again with --update" in told.err
    assert hub.repositories == {NAME: True}


# --- what is not uploaded ------------------------------------------------------------------------


def rejected(place: Path) -> None:
    change(place, status="rejected", reasons=["the loss is higher"])


def unchecked(place: Path) -> None:
    change(place, status="unchecked")


def another_weight(place: Path) -> None:
    file = place / "hub" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")


def another_file(place: Path) -> None:
    (place / "hub" / "more.bin").write_bytes(b"x")


def a_file_less(place: Path) -> None:
    (place / "hub" / "chat_template.jinja").unlink()


def a_token_in_the_card(place: Path) -> None:
    with (place / "hub" / "README.md").open("a", encoding="utf-8") as card:
        card.write("My token: hf_PlantedInTheCard0815abc\n")


def a_folder_in_the_card(place: Path) -> None:
    with (place / "hub" / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"The data lies in {Path.home()}/data\n")


def gone(place: Path) -> None:
    shutil.rmtree(place / "hub")


def change(place: Path, **values: Any) -> None:
    file = place / "export.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["artifacts"][0] |= values
    file.write_text(json.dumps(record), encoding="utf-8")


REFUSALS: dict[Callable[[Path], None], str] = {
    rejected: "is rejected (the loss is higher); it is not uploaded",
    unchecked: "is unchecked (nothing could read it)",
    another_weight: "is not what was compared with the run",
    another_file: "more.bin: is not what was compared",
    a_file_less: "chat_template.jinja: is not what was compared",
    a_token_in_the_card: "this line holds a token",
    a_folder_in_the_card: "this line holds a home folder",
    gone: "this folder is gone",
}


@pytest.mark.parametrize("spoil", REFUSALS, ids=lambda one: one.__name__)
def test_only_what_passed_and_stayed_is_uploaded(spoil: Callable[[Path], None], place: Path) -> None:
    upload.plan_upload(place, NAME)
    spoil(place)
    with pytest.raises(RefusedError) as refused:
        upload.plan_upload(place, NAME)
    assert REFUSALS[spoil] in str(refused.value)
    assert "hf_Planted" not in str(refused.value)


def test_without_its_checks_all_of_that_would_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted faults: what is refused above is refused by these, and by nothing else."""
    monkeypatch.setattr(upload, "_check_gate", lambda *_: None)
    monkeypatch.setattr(upload, "refuse_private", lambda *_: None)
    for spoil in (rejected, another_weight, another_file, a_token_in_the_card):
        spoil(place)
        upload.plan_upload(place, NAME)


def test_an_edited_card_is_uploaded_as_it_is(
    place: Path, exported: tuple[Path, Any], hub: ScriptedHub, pronk: Pronk
) -> None:
    with (place / "hub" / "README.md").open("a", encoding="utf-8") as card:
        card.write("\nAsk me anything.\n")
    assert pronk("export", exported[0], "--to", "hub", "--push", NAME, "--out", place).code == 0
    assert hub.files[NAME]["README.md"].endswith(b"Ask me anything.\n")


@pytest.mark.parametrize(
    ("run", "name"),
    [("targets-q_proj+v_proj", "targets-q_proj-v_proj"), ("학습", "model"), ("..a--b..", "a-b"), ("x" * 200, "x" * 90)],
)
def test_a_runs_name_becomes_one_that_the_hub_allows(run: str, name: str) -> None:
    from huggingface_hub.utils import validate_repo_id

    assert form._name(run) == name
    validate_repo_id(f"me/{name}")
