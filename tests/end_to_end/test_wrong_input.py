"""What a person can get wrong: one message that names the place, exit code 2, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace, labelled_rows

Pronk = Callable[..., Told]
Spoil = Callable[[Workplace], None]


def refused(told: Told, *fragments: str, code: int = 2) -> None:
    """One message, with all fragments, and no traceback."""
    assert told.code == code, told.err
    assert "Traceback" not in told.err
    assert told.err.count("pronk: ") == 1
    message = told.err[told.err.index("pronk: ") :]
    for fragment in fragments:
        assert fragment in message
    assert told.out == ""


def sets(key: str, value: Any) -> Spoil:
    def spoil(workplace: Workplace) -> None:
        *sections, last = key.split(".")
        inner = workplace.recipe
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value

    return spoil


def rows(*spoilt: Any) -> Spoil:
    """60 good rows, then these."""
    return lambda workplace: workplace.write_rows([*labelled_rows(60), *spoilt])


def writes(name: str, content: bytes, key: str = "data.source") -> Spoil:
    def spoil(workplace: Workplace) -> None:
        (workplace.folder / name).write_bytes(content)
        sets(key, f"./{name}" if key == "base" else name)(workplace)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(workplace: Workplace) -> None:
        for one in spoils:
            one(workplace)

    return spoil


WRONG: dict[str, tuple[Spoil, list[str]]] = {
    "a form whose tokens the base lacks": (
        sets("prompt", "llama3"),
        ["prompt: llama3 needs tokens", "<|eot_id|>", "`prompt: chat`", "`prompt: alpaca`"],
    ),
    "no such template": (sets("prompt", "own.jinja"), ["own.jinja: there is no such template file"]),
    "a broken template": (
        writes("own.jinja", b"a\n{% for m in messages %}", "prompt"),
        ["own.jinja, line 2: ", "'endfor'"],
    ),
    "unknown key": (sets("train.epoch", 3), ["recipe.yaml", "unknown key train.epoch", "did you mean train.epochs?"]),
    "key in the wrong section": (sets("train.rank", 3), ["recipe.yaml", "train.rank", "did you mean adapter.rank?"]),
    "wrong type": (sets("train.epochs", "two"), ["recipe.yaml", "train.epochs", "'two'", "a whole number"]),
    "number out of range": (sets("train.learning_rate", -1.0), ["recipe.yaml", "train.learning_rate", "-1.0"]),
    "unknown axis": (sets("study", {"train.epoch": [1]}), ["recipe.yaml", "study.train.epoch", "train.epochs"]),
    "section without keys": (sets("train", 3), ["recipe.yaml", "train", "found 3"]),
    "no data": (lambda workplace: workplace.recipe.pop("data"), ["recipe.yaml", "data is missing"]),
    "missing data file": (sets("data.source", "row.jsonl"), ["row.jsonl", "no such file", "'rows.jsonl'"]),
    "data folder": (sets("data.source", "."), ["this is a folder"]),
    "unreadable ending": (writes("rows.xlsx", b"PK"), ["rows.xlsx", ".xlsx"]),
    "empty data file": (writes("none.jsonl", b""), ["none.jsonl", "no rows"]),
    "only a CSV header": (writes("none.csv", b"text,label\n"), ["none.csv", "no rows"]),
    "broken JSON line": (rows('{"text": "a", "label": '), ["rows.jsonl:61", "broken JSON"]),
    "line that is no object": (rows("[1, 2]"), ["rows.jsonl:61", "expected a JSON object"]),
    "missing column": (sets("data.columns", {"text": "sentence"}), ["rows.jsonl", "'sentence'", "'text' and 'label'"]),
    "label not in labels": (
        both(sets("data.labels", ["negative", "neutral", "positive"]), rows({"text": "a", "label": "positve"})),
        ["rows.jsonl:61", "'positve'", "negative, neutral and positive", "did you mean 'positive'?"],
    ),
    "one label": (
        lambda workplace: workplace.write_rows([{"text": f"t{i}", "label": "a"} for i in range(30)]),
        ["rows.jsonl:1", "'a'", "at least two"],
    ),
    "too few rows of a class": (
        both(
            sets("data.split", {"train": 24, "test": 30, "balanced": True}),
            lambda workplace: workplace.write_rows(labelled_rows(60)[:50]),
        ),
        ["data.split", "'positive'", "18"],
    ),
    "too few rows": (sets("data.split", {"test": 60}), ["data.split", "60"]),
    "number for a text": (rows({"text": 5, "label": "neutral"}), ["rows.jsonl:61", "text", "the number 5"]),
    "null for a text": (rows({"text": None, "label": "neutral"}), ["rows.jsonl:61", "text", "null"]),
    "list for a label": (rows({"text": "x", "label": ["neutral"]}), ["rows.jsonl:61", "label", "a list"]),
    "empty text": (rows({"text": "  ", "label": "neutral"}), ["rows.jsonl:61", "the text is empty"]),
    "undecodable bytes": (
        writes("latin.jsonl", b'{"text": "a", "label": "b"}\n{"text": "caf\xe9", "label": "c"}\n'),
        ["latin.jsonl:2", "0xe9", "UTF-8"],
    ),
    "max_length above the context": (sets("train.max_length", 257), ["train.max_length", "257", "256"]),
    "answer cut off entirely": (
        sets("train.max_length", 20),
        ["rows.jsonl:", "all 20 tokens of train.max_length", "cut off entirely", "et it to"],
    ),
    "test row above the context": (
        lambda workplace: workplace.write_rows([{**row, "text": row["text"] * 40} for row in labelled_rows(60)]),
        ["rows.jsonl:", "256"],
    ),
    "base that does not exist": (sets("base", "./nowhere"), ["base", "nowhere"]),
    "base of one word": (sets("base", "llama3"), ["base", "'llama3'", "hub id"]),
    "missing GGUF": (sets("base", "none.gguf"), ["base", "none.gguf"]),
    "GGUF that is none": (writes("text.gguf", b"hello, world\n" * 9, "base"), ["text.gguf", "not a readable GGUF"]),
    "empty GGUF": (writes("empty.gguf", b"", "base"), ["empty.gguf", "not a readable GGUF"]),
    "unknown evaluation": (sets("evaluate", ["accuracy"]), ["recipe.yaml", "evaluate", "likelihood"]),
    "longest answer without answers": (
        sets("max_new_tokens", 20),
        ["recipe.yaml", "max_new_tokens", "evaluate: [similarity]", "leave the key out"],
    ),
    "similarity of plain text": (
        both(sets("data", {"source": "rows.jsonl", "format": "text"}), sets("evaluate", ["similarity"])),
        ["recipe.yaml", "evaluate: similarity", "format text"],
    ),
    "classify without labels": (
        both(sets("data.format", "pairs"), sets("data.split", {}), sets("evaluate", ["classify"])),
        ["recipe.yaml", "evaluate", "classify"],
    ),
}


CHECKED = ("answer cut off entirely", "test row above the context")  # by name: a check said no


@pytest.mark.parametrize("case", WRONG)
def test_refused_before_anything_is_written(workplace: Workplace, pronk: Pronk, case: str) -> None:
    spoil, fragments = WRONG[case]
    spoil(workplace)
    refused(pronk(*workplace.arguments()), *fragments, code=1 if case in CHECKED else 2)
    assert not workplace.out.exists()


def without(name: str) -> Callable[[Path], None]:
    return lambda base: (base / name).unlink()


def changes(name: str, content: str) -> Callable[[Path], None]:
    return lambda base: (base / name).write_text(content, encoding="utf-8") and None


SPOILT_BASES: dict[str, Any] = {
    "no config": (without("config.json"), ["config.json"]),
    "config that is no JSON": (changes("config.json", "{"), ["config.json", "not a valid JSON"]),
    "config without a type": (changes("config.json", "{}"), ["cannot be loaded"]),
    "no tokenizer": (
        lambda base: [file.unlink() for file in base.glob("token*")],
        ["cannot be loaded", "tokenizer"],
    ),
}


def spoilt_base(workplace: Workplace, tiny_base: Path, spoil: Callable[[Path], None]) -> None:
    base = workplace.folder / "spoilt"
    shutil.copytree(tiny_base, base)
    spoil(base)
    workplace.recipe["base"] = str(base)


@pytest.mark.parametrize("case", SPOILT_BASES)
def test_spoilt_base_is_refused(workplace: Workplace, pronk: Pronk, tiny_base: Path, case: str) -> None:
    spoil, fragments = SPOILT_BASES[case]
    spoilt_base(workplace, tiny_base, spoil)
    refused(pronk(*workplace.arguments()), str(workplace.recipe["base"]), *fragments)
    assert not workplace.out.exists()


@pytest.mark.parametrize(
    "spoil",
    [without("model.safetensors"), changes("model.safetensors", "not safetensors at all")],
    ids=["none", "not safetensors"],
)
def test_weights_that_cannot_be_read(
    workplace: Workplace, pronk: Pronk, tiny_base: Path, spoil: Callable[[Path], None]
) -> None:
    spoilt_base(workplace, tiny_base, spoil)
    refused(pronk(*workplace.arguments()), str(workplace.recipe["base"]))
    assert not workplace.out.exists()


def test_weights_that_are_not_all_there(workplace: Workplace, pronk: Pronk, tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    spoilt_base(workplace, tiny_base, changes("config.json", json.dumps({**config, "num_hidden_layers": 3})))
    refused(pronk(*workplace.arguments()), str(workplace.recipe["base"]), "model.layers.2")


def test_weights_of_another_shape(workplace: Workplace, pronk: Pronk, tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    spoilt_base(workplace, tiny_base, changes("config.json", json.dumps({**config, "intermediate_size": 64})))
    refused(pronk(*workplace.arguments()), str(workplace.recipe["base"]))


def test_base_without_a_context_length(workplace: Workplace, pronk: Pronk, tiny_base: Path) -> None:
    spoilt_base(workplace, tiny_base, changes("config.json", json.dumps({"model_type": "mamba", "vocab_size": 49152})))
    refused(pronk(*workplace.arguments()), str(workplace.recipe["base"]))


def test_unknown_target_leaves_nothing(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["adapter"]["targets"] = ["q_prj"]
    refused(pronk(*workplace.arguments()))
    assert not workplace.out.exists()


def test_unknown_target_is_named_with_those_that_exist(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["adapter"]["targets"] = ["v_proj", "q_prj"]
    told = pronk(*workplace.arguments())
    refused(told, "adapter.targets", "'q_prj'", "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["train"]["device"] = "cuda"
    refused(pronk(*workplace.arguments()), "train.device: cuda", "no GPU", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_leaves_nothing(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["train"]["device"] = "cuda"
    refused(pronk(*workplace.arguments()))
    assert not workplace.out.exists()


def test_default_max_length_above_the_context(workplace: Workplace, pronk: Pronk) -> None:
    """The recipe does not say max_length, and this base reads less than 2048: what it reads is the limit."""
    del workplace.recipe["train"]["max_length"]
    assert pronk(*workplace.arguments()).code == 0


def test_missing_recipe(pronk: Pronk, tmp_path: Path) -> None:
    refused(pronk("run", str(tmp_path / "none.yaml")), "none.yaml", "no such recipe file")


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ["empty"]),
        ("base: [", ["line 1", "not valid YAML"]),
        ("- base", ["keys and values"]),
        ("base: a\nbase: b\n", ["line 2", "base appears twice"]),
    ],
)
def test_recipe_that_is_none(pronk: Pronk, tmp_path: Path, text: str, fragments: list[str]) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(text)
    refused(pronk("run", str(recipe), "--out", str(tmp_path / "out")), "bad.yaml", *fragments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("train.epochs", ["--set train.epochs", "key=value"]),
        ("train.epoch=3", ["train.epoch", "train.epochs"]),
        ("train.epochs=[", ["--set train.epochs", "not valid YAML"]),
    ],
)
def test_wrong_override(workplace: Workplace, pronk: Pronk, override: str, fragments: list[str]) -> None:
    refused(pronk(*workplace.arguments("--set", override)), *fragments)
    assert not workplace.out.exists()


@pytest.mark.parametrize("arguments", [["runn"], ["run"], ["run", "--no-such-option"], ["report"]])
def test_wrong_usage(pronk: Pronk, arguments: list[str]) -> None:
    told = pronk(*arguments)
    assert told.code == 2
    assert "Usage: pronk" in told.err
    assert told.out == ""


# --- where to write ------------------------------------------------------------------------------


def test_out_that_is_not_empty(workplace: Workplace, pronk: Pronk) -> None:
    workplace.out.mkdir()
    (workplace.out / "mine.txt").write_text("keep me")
    refused(pronk(*workplace.arguments()), str(workplace.out), "not empty")
    assert [file.read_text() for file in workplace.out.iterdir()] == ["keep me"]


def test_out_that_is_a_file(workplace: Workplace, pronk: Pronk) -> None:
    workplace.out.write_text("keep me")
    refused(pronk(*workplace.arguments()), str(workplace.out))
    assert workplace.out.read_text() == "keep me"


def test_out_that_is_an_empty_folder_is_used(workplace: Workplace, pronk: Pronk) -> None:
    workplace.out.mkdir()
    assert pronk(*workplace.arguments()).code == 0


def test_out_below_a_file(workplace: Workplace, pronk: Pronk) -> None:
    workplace.out = workplace.folder / "rows.jsonl" / "study"
    refused(pronk(*workplace.arguments()), "rows.jsonl")


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    """A path that may not be made; /sys refuses even root."""
    if os.geteuid() == 0:
        if not Path("/sys").is_dir():
            pytest.skip("root may write everywhere here")
        yield Path("/sys/pronk-study")
        return
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0o555)
    yield folder / "study"
    folder.chmod(0o755)


def test_out_in_a_forbidden_place(workplace: Workplace, pronk: Pronk, forbidden: Path) -> None:
    workplace.out = forbidden
    refused(pronk(*workplace.arguments()), str(forbidden), "not allowed to write")


def test_no_space_left_for_a_file(workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(pronk(*workplace.arguments()), str(workplace.out), "no space left")
    assert not [path for path in workplace.out.rglob("*") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 KiB: less than one tokenizer."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_no_space_left_for_an_adapter(workplace: Workplace, pronk: Pronk, small_disk: Path) -> None:
    workplace.out = small_disk / "study"
    refused(pronk(*workplace.arguments()), str(workplace.out), "no space left")


def test_no_space_left_for_the_converted_base(
    workplace: Workplace, pronk: Pronk, small_disk: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRONK_CACHE", str(small_disk / "cache"))
    workplace.recipe["base"] = str(tiny_gguf)
    told = pronk(*workplace.arguments())
    refused(told, "no space left", "PRONK_CACHE")


def test_a_failed_conversion_leaves_nothing_in_the_cache(
    smollm2: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pronk.model.gguf
    from pronk.errors import ResourceError
    from pronk.model.load import find_base

    def breaks(_: Path, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pronk.model.gguf, "convert", breaks)
    with pytest.raises(ResourceError, match="PRONK_CACHE"):
        find_base(smollm2.name)
    assert list((tmp_path / "cache").iterdir()) == []


# --- the hub -------------------------------------------------------------------------------------

GATED = "meta-llama/Llama-3.2-1B"
WAYS_OUT = ["https://huggingface.co/meta-llama/Llama-3.2-1B", "hf auth login", "hf download", "base: DIR"]


def from_hub(workplace: Workplace, pronk_process: Any, **environment: str) -> Told:
    workplace.recipe["base"] = GATED
    cache = str(workplace.folder / "hub")
    done = pronk_process(*workplace.arguments(), HF_HUB_CACHE=cache, HF_HOME=cache, **environment)
    return Told(done.returncode, done.stdout, done.stderr)


def test_hub_id_offline(workplace: Workplace, pronk_process: Any) -> None:
    """One message, and nobody knocks at the hub."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.setblocking(False)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        told = from_hub(workplace, pronk_process, HF_HUB_OFFLINE="1", HF_ENDPOINT=address)
        with pytest.raises(BlockingIOError):
            hub.accept()
    refused(told, GATED, *WAYS_OUT)
    assert len(told.err.splitlines()) == 1
    assert not workplace.out.exists()


@pytest.mark.slow
def test_hub_that_cannot_be_reached(workplace: Workplace, pronk_process: Any) -> None:
    """The proxy is a port that nothing listens on, so the test means the same with a network."""
    nowhere = "http://127.0.0.1:9"
    told = from_hub(workplace, pronk_process, HTTPS_PROXY=nowhere, https_proxy=nowhere, NO_PROXY="", no_proxy="",
                    HF_ENDPOINT=nowhere)  # fmt: skip
    refused(told, GATED, *WAYS_OUT)
    assert len(told.err.splitlines()) == 1


# --- reports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fragments"),
    [(None, ["no study.json"]), ("{", ["study.json", "cannot be read"]), ("[]", ["study.json", "no list of runs"])],
)
def test_report_of_what_is_no_study(pronk: Pronk, tmp_path: Path, content: str | None, fragments: list[str]) -> None:
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    refused(pronk("report", str(tmp_path)), str(tmp_path), *fragments)
    assert not (tmp_path / "report.html").exists()
