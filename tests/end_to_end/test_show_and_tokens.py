"""`pronk check --show` and `pronk tokens` as a person calls them."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told, Workplace

from pronk.data.terminal import STEERING, cells
from pronk.model.hub import WHOLE

EVIL = "\x1b[2J<script>alert(1)</script>\x07"


@pytest.fixture
def check(workplace: Workplace, pronk: Callable[..., Told]) -> Callable[..., Told]:
    """`pronk check RECIPE …` in the workplace."""

    def call(*more: str) -> Told:
        _, recipe, *_ = workplace.arguments()
        return pronk("check", recipe, *more)

    return call


def hostile(workplace: Workplace) -> None:
    rows = [{"text": f"{EVIL} {i} 한국어 " + "word " * i, "label": ("yes", "no")[i % 2]} for i in range(30)]
    workplace.write_rows(rows)
    workplace.recipe["prompt"] = "chat"
    workplace.recipe["data"]["split"] = {"validation": 4, "test": 4}


def test_examples_in_the_terminal(check: Callable[..., Told], workplace: Workplace) -> None:
    hostile(workplace)
    told = check("--show", "3")
    assert told.code == 0, told.err
    assert not STEERING.search(told.out)
    assert max(map(cells, told.out.splitlines())) <= 80
    assert told.out.startswith("3 of 22 rows of train, as ")
    assert told.out.count("  prompt: ") == told.out.count("  answer: 2 tokens, learned") == 3
    assert told.out.count("<|im_start|>assistant↵") == 3
    assert "\\x1b[2J<script>" in told.out


def test_ids_and_rows(check: Callable[..., Told], workplace: Workplace) -> None:
    hostile(workplace)
    told = check("--ids", "--show-row", "rows.jsonl:7", "--show-row", "rows.jsonl:3")
    assert told.code == 0, told.err
    titles = [line for line in told.out.splitlines() if line[:2] in ("1.", "2.")]
    assert titles[0].startswith("1. rows.jsonl:7, ")
    assert titles[1].startswith("2. rows.jsonl:3, ")
    assert "<|im_start|> assistant" in told.out.replace("ass ist ant", "assistant")


def test_what_lost_most_comes_first(check: Callable[..., Told], workplace: Workplace) -> None:
    rows = [{"instruction": f"Say {i}", "output": f"{i} " + "word " * 10 * i} for i in range(30)]
    workplace.write_rows(rows)
    workplace.recipe |= {"data": {"source": "rows.jsonl", "split": {"shuffle": False}}}
    told = check("--show", "2", "--cut-first")
    assert told.code == 0, told.err
    assert "those that lost the most first" in told.out
    assert "1. rows.jsonl:24, train: 128 tokens" in told.out  # the last that is neither for validation nor for test
    assert "2. rows.jsonl:23, train: 128 tokens" in told.out
    assert told.out.count("cut off by max_length") == 2


def test_a_page(check: Callable[..., Told], workplace: Workplace) -> None:
    hostile(workplace)
    page = workplace.folder / "examples" / "page.html"
    told = check("--html", str(page))
    assert (told.code, told.out) == (0, ""), told.err
    text = page.read_text(encoding="utf-8")
    assert text.count("<article>") == 20
    assert "<script" not in text
    assert "한국어" in text
    assert not STEERING.search(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--show", "1", "--split", "tests"], "expected train, validation or test"),
        (["--html", "recipe.yaml"], "ending in .html"),
        (["--show-row", "rows.jsonl:999"], "no example comes from there; expected file and line such as rows.jsonl:"),
        (["--show-row", "a:1", "--show", "2"], "leave --show and --cut-first out"),
        (["--show", "1", "--split", "test", "--cut-first"], "test rows are never cut"),
        (["--show", "1", "--split", "validation", "--set", "data.split.validation=0"], "leaves no rows for it"),
    ],
)
def test_wrong_options(options: list[str], message: str, check: Callable[..., Told]) -> None:
    told = check(*options)
    assert (told.code, message in told.err) == (2, True), told.err


# --- pronk tokens -----------------------------------------------------------------------------------


def test_a_text_as_tokens(tiny_base: Path, pronk: Callable[..., Told]) -> None:
    told = pronk("tokens", "Llama 한국어\n\x1b[31m", "--base", str(tiny_base))
    assert told.code == 0, told.err
    assert not STEERING.search(told.out)
    assert "decoded back: the same text" in told.out
    assert "special tokens: none" in told.out


def test_tokens_for_programs(tiny_base: Path, pronk: Callable[..., Told]) -> None:
    """The oracle is transformers' own tokenizer."""
    from transformers import AutoTokenizer

    text = "Llama 한국어 <|im_end|> \x1b"
    found = json.loads(pronk("tokens", text, "--base", str(tiny_base), "--json").out)
    oracle = AutoTokenizer.from_pretrained(tiny_base)
    assert found["ids"] == oracle(text).input_ids
    assert (found["text"], found["decoded"], found["same"]) == (text, text, True)
    assert found["bytes"] == len(text.encode())
    assert [one["text"] for one in found["pieces"] if one["special"]] == ["<|im_end|>"]
    found = json.loads(pronk("tokens", text, "--base", str(tiny_base), "--prompt", "chat", "--json").out)
    asked = oracle.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    plain = [one for one in found["pieces"] if one["special"]]
    assert len(plain) == asked.count("<|im_start|>") + asked.count("<|im_end|>")  # the one in the text is plain text
    assert found["same"]


def test_a_text_from_standard_input(
    tiny_base: Path, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(content: bytes) -> Told:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return pronk("tokens", "-", "--base", str(tiny_base), "--json")

    assert json.loads(read("안녕\n\n".encode()).out)["text"] == "안녕\n"
    told = read(b"ab\xff")
    assert (told.code, "offset 2 is not UTF-8" in told.err) == (2, True)
    told = read(b"")
    assert (told.code, "there is no text" in told.err) == (2, True)


def test_a_tokenizer_needs_no_weights(tiny_base: Path, tmp_path: Path, pronk: Callable[..., Told]) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(tiny_base, folder, ignore=lambda *_: [WHOLE, "config.json"])
    told = pronk("tokens", "Llama", "--base", str(folder))
    assert told.code == 0, told.err
    assert "1 token" in told.out or "tokens for" in told.out


def test_a_gguf_is_not_converted_for_its_tokenizer(
    smollm2: Any, tiny_base: Path, tiny_gguf: Path, tmp_path: Path, pronk: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With an empty cache: the ids of the converted base, or of what the file was made from, and nothing written."""
    text = "Llama 1234 한국어  x"
    files = {"smollm2": smollm2.location, str(tiny_gguf): str(tiny_base)}
    usual = {file: json.loads(pronk("tokens", text, "--base", base, "--json").out) for file, base in files.items()}
    monkeypatch.setenv("PRONK_CACHE", str(tmp_path / "cache"))
    for file in files:
        assert json.loads(pronk("tokens", text, "--base", file, "--json").out)["ids"] == usual[file]["ids"]
    assert not (tmp_path / "cache").exists()


def test_a_hub_tokenizer_needs_no_weights(
    tiny_base: Path, tmp_path: Path, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the hub's cache without weights is enough, offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("pronk.model.hub.hub_answers", lambda: False)
    told = pronk("tokens", "Llama", "--base", "owner/model")
    assert (told.code, "the hub cannot be reached" in told.err) == (2, True)
    snapshot = tmp_path / "hub" / "models--owner--model" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_base, snapshot, ignore=lambda *_: [WHOLE])
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    told = pronk("tokens", "Llama", "--base", "owner/model")
    assert told.code == 0, told.err
    assert "decoded back: the same text" in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "--base", "smollm2"], "there is no text"),
        (["x", "--base", "nonsense"], "neither smollm2"),
        (["x", "--base", "none.gguf"], "there is no file"),
        (["x", "--prompt", "chatt"], "expected one of alpaca, chat"),
        (["x", "--prompt", "none.jinja"], "there is no such template file"),
        (["\udcff"], "the text is not whole"),
    ],
)
def test_wrong_tokens_options(arguments: list[str], message: str, pronk: Callable[..., Told]) -> None:
    told = pronk("tokens", *arguments)
    assert (told.code, message in told.err) == (2, True), told.err
