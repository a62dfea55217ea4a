"""`pronk judge` on a real study: questions of two turns are answered, judged, and gone on with after Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from safetensors.torch import load_file, save_file

import pronk.ask.dialogues as dialogues
from pronk.data.questions import read_questions
from pronk.judge.references import read_references
from scripted_server import KEY, Scripted, scripted

Pronk = Callable[..., Told]
SHARED = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data" / "mtbench"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A run over the tiny base, its adapter made large and random, so that it answers otherwise than its base."""
    from pronk.cli import main

    place = Workplace(tmp_path_factory.mktemp("judged"), tiny_base)
    place.recipe |= {"prompt": "chat"}
    place.recipe["train"] |= {"max_steps": 1}
    del place.recipe["train"]["epochs"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pronk", *place.arguments()])
        with suppress(SystemExit):
            main()
    (file,) = place.out.glob("runs/*/adapter/*.safetensors")
    draw = torch.Generator().manual_seed(1)
    save_file({name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}, file)
    items = file.parents[1] / "items" / "classify.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    items.write_text("".join(json.dumps({**row, "generated": f"answer {row['id']}"}) + "\n" for row in rows))
    return place.out


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "study"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    with scripted(lambda _: '{"reason": "first", "verdict": "A"}') as running:
        yield running


def questions(folder: Path) -> list[str]:
    rows = [
        {"question_id": 80 + k, "category": "math", "turns": [f"What is {k} + 1?", "And one more?"]} for k in range(4)
    ]
    known = [{"question_id": 82, "choices": [{"index": 0, "turns": ["three", "four"]}]}]
    for name, given in (("questions.jsonl", rows), ("references.jsonl", known)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in given))
    asked = ["--questions", str(folder / "questions.jsonl"), "--references", str(folder / "references.jsonl")]
    return [*asked, "--max-new-tokens", "8"]


@pytest.mark.slow  # trains a study
def test_questions_of_two_turns(
    study: Path, tmp_path: Path, server: Scripted, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["judge", str(study), "--model", "org/judge", "--url", server.url, *questions(tmp_path)]
    told = pronk(*command, "--json")
    assert told.code == 0, told.err
    assert "counted with the study's tokenizer" in told.err
    record = json.loads(told.out)
    (pair,) = record["pairs"]
    assert (record["questions"], record["references"], record["source"]) == (4, 1, "questions.jsonl")
    assert (pair["a"], pair["judged"], pair["ties"]) == ("base", 4, 4)
    assert len(server.seen) == 2 * (4 - pair["identical"])
    shown = [body["messages"][1]["content"] for body in server.seen]
    assert all("answer B, turn 2" in one for one in shown)
    assert sum("reference, turn 2]\nfour" in one for one in shown) == 2
    monkeypatch.setattr(dialogues, "load_group", lambda *_: pytest.fail("answers that are kept need no model"))
    again = pronk(*command)
    assert again.code == 0
    assert len(server.seen) == 2 * (4 - pair["identical"])
    assert max(map(len, again.out.splitlines())) <= 80
    assert "The order decided in" in again.out
    assert json.loads((study / "study.json").read_text())["judged"][0]["pairs"] == record["pairs"]


@pytest.mark.slow  # trains a study
def test_ctrl_c_keeps_what_was_judged(study: Path, server: Scripted, pronk: Pronk) -> None:
    """The study's own items; the same command goes on and asks nothing twice."""

    def interrupted(_: dict[str, Any]) -> str:
        if len(server.seen) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return '{"verdict": "B"}'

    server.answer = interrupted
    command = ["judge", str(study), "--model", "judge", "--url", server.url]
    told = pronk(*command)
    assert told.code == 130
    assert "the same command goes on" in told.err
    before = len(server.seen)
    kept = (study / "judge" / "judge" / "votes.jsonl").read_text().splitlines()
    assert 7 <= before == len(kept) < 24
    assert pronk(*command).code == 0
    asked = [json.dumps(body["messages"]) for body in server.seen]
    assert len(set(asked)) == len(asked)
    told = pronk("report", str(study), "--json")
    assert json.loads(told.out)["judged"][0]["judge"] == "judge"  # a new report keeps it


@pytest.mark.slow  # trains a study
def test_wrong_input_is_one_message(study: Path, tmp_path: Path, server: Scripted, pronk: Pronk) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"turns": "no list"}\n')
    served = ["--model", "m", "--url", server.url]
    for arguments, expected in (
        ([str(tmp_path), *served], "no study.json"),
        ([str(study), *served, "--questions", str(tmp_path / "wrong.jsonl")], "wrong.jsonl:1: `turns` must be a list"),
        ([str(study), *served, "--questions", str(tmp_path / "none.jsonl")], "there is no such file of questions"),
        ([str(study), "--model", "m", "--url", "localhost"], "--url: found 'localhost', expected an address"),
        ([str(study), "--model", str(study), "--limit-tokens", "9"], "limits and prices are for a served model"),
        ([str(study), "--model", str(tmp_path / "nobody")], "there is no such folder"),
        ([str(study), *served, "--run", "nobody"], "there is no evaluated run 'nobody'"),
    ):
        told = pronk("judge", *arguments)
        assert told.code == 2, told
        assert expected in told.err
        assert "Traceback" not in told.err
    assert not server.seen


def test_mt_bench_as_it_is() -> None:
    """80 questions of two turns; reference answers for its 30 of reasoning, mathematics and code."""
    if not SHARED.is_dir():
        pytest.skip("MT-bench is not here; PRONK_TEST_DATA names the folder that holds data/mtbench")
    asked = read_questions([str(SHARED / "mt_bench_question.jsonl")], several_turns=True)
    found = read_references(SHARED / "mt_bench_ref_gpt4.jsonl", SHARED / "mt_bench_question.jsonl", asked)
    assert (len(asked), {len(question.turns) for question in asked}) == (80, {2})
    assert len(found) == 30
    assert {question.id for question in asked[20:50]} == found.keys()
