"""Bases that are no Llama through the whole command line: trained, asked, measured again; or refused in one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told, Workplace

from model_families import REFUSED, WORK, build

Pronk = Callable[..., Told]
QUICK = ("opt",)


def workplace(tmp_path: Path, small_tokenizer: Path, kind: str, values: dict[str, Any]) -> Workplace:
    """A recipe of two steps over a tiny model of a family."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer)
    build(tmp_path / "base", kind, values, len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "base")
    place = Workplace(tmp_path, tmp_path / "base")
    place.recipe["train"] |= {"max_steps": 2, "max_length": 128}
    del place.recipe["train"]["epochs"]
    return place


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in WORK])
def test_run_generate_and_eval(name: str, tmp_path: Path, small_tokenizer: Path, pronk: Pronk) -> None:
    place = workplace(tmp_path, small_tokenizer, *WORK[name])
    if name == "gpt2":  # which has no linear layers
        place.recipe["full"] = True
        del place.recipe["adapter"]
    told = pronk(*place.arguments())
    assert told.code == 0, told.err
    losses = {run["name"]: run["metrics"]["nll"] for run in place.study()["runs"]}
    assert len(set(losses.values())) == 2, "two steps have changed something"
    asked = pronk("generate", str(place.out), "--base", "--questions", "Who?", "--max-new-tokens", "3", "--json")
    assert asked.code == 0, asked.err
    assert all(one["tokens"] == 3 or one["ended"] == "end" for one in json.loads(asked.out)["answers"])
    before = {file: file.read_bytes() for file in place.out.glob("runs/*/items/*.jsonl")}
    assert before
    again = pronk("eval", str(place.out))
    assert again.code == 0, again.err
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("verb", ["run", "generate"])
def test_a_family_that_would_be_read_wrongly_is_refused(
    verb: str, tmp_path: Path, small_tokenizer: Path, pronk: Pronk
) -> None:
    kind, values, message = REFUSED["falcon"]
    place = workplace(tmp_path, small_tokenizer, kind, values)
    asking = ["generate", place.recipe["base"], "--questions", "Who?"]
    told = pronk(*(place.arguments() if verb == "run" else asking))
    assert told.code == 2, told.err
    assert message in " ".join(told.err.split())
    assert "Traceback" not in told.err


def test_a_base_without_linear_layers_takes_no_adapter(tmp_path: Path, small_tokenizer: Path, pronk: Pronk) -> None:
    told = pronk(*workplace(tmp_path, small_tokenizer, *WORK["gpt2"]).arguments())
    assert told.code == 2, told.err
    assert "no linear layer to put an adapter on" in " ".join(told.err.split())
    assert not (tmp_path / "study").exists()
