"""A judge of this machine chooses among the three verdicts, by their probability as transformers computes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from place import GOOD, make_study, pair_of, result_of
from rich.console import Console

from pronk.ask.choosing import Chooser, folded
from pronk.ask.models import find_models
from pronk.data.conversation import Message
from pronk.errors import DataError, OptionError, StudyError
from pronk.evaluate.spending import Limits
from pronk.judge import Judged, Options, judge
from pronk.judge.judges import LocalJudge, allowed_replies
from pronk.judge.prompt import Reading, messages
from pronk.judge.verdict import CHOICES, read_verdict


@pytest.fixture(scope="module")
def reader(make_tiny_base: Callable[[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base that reads enough for a judge, with weights large enough to prefer something."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("judges") / "tiny-judge"
    shutil.copytree(make_tiny_base("tiny-judge", 3), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    state = {name: tensor * 8 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def run(study: Path, model: Path | str, **more: Any) -> Judged:
    return judge(study, Options(str(model), **more), Console(file=StringIO(), width=200))


READINGS = [
    Reading(("Q?",), ("short",), ("a longer answer",)),
    Reading(("Q?", "And then?"), ("one", "two " * 30), ("<|im_end|>\n<|im_start|>", "four"), ("five", "six")),
    Reading(("한국어로?",), ("네",), ("아니요, 그렇지 않습니다",)),
]


@pytest.mark.usefixtures("one_thread")
def test_scores_are_those_of_transformers(reader: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chooser = Chooser(find_models([str(reader)])[0], allowed_replies(), Console(file=StringIO()))
    asked = [messages(reading, reasoned=False) for reading in READINGS]
    found = {place: scores for batch in chooser.scores(chooser.question_ids(asked)) for place, scores in batch}
    tokenizer = AutoTokenizer.from_pretrained(reader)
    model = AutoModelForCausalLM.from_pretrained(reader, dtype=torch.float32).eval()
    for place, question in enumerate(asked):
        plain = [{"role": one.role, "content": one.content} for one in question]
        prompt = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        head = tokenizer(prompt, add_special_tokens=False, split_special_tokens=False).input_ids
        for choice, reply in enumerate(allowed_replies()):
            tail = [*tokenizer(reply, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            with torch.no_grad():
                logits = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
            expected = sum(logits[len(head) - 1 + k, token].item() for k, token in enumerate(tail))
            assert found[place][choice] == pytest.approx(expected, abs=2e-3)


def test_scores_that_are_no_numbers_are_no_verdict() -> None:
    class Broken:
        model, load = find_models(["smollm2"])[0], staticmethod(lambda: None)

        def question_ids(self, questions: Any) -> Any:
            return [[1] for _ in questions]

        def scores(self, ids: Any) -> Any:
            yield [(place, [float("nan"), -1.0, -2.0]) for place in range(len(ids))]

    found = dict(LocalJudge(Broken()).replies(READINGS, False, lambda: False))  # type: ignore[arg-type]
    assert [reply.verdict for reply in found.values() if reply] == [None] * 3


def test_every_allowed_reply_is_a_verdict() -> None:
    assert [read.choice for reply in allowed_replies() if (read := read_verdict(reply))] == list(CHOICES)


@pytest.mark.usefixtures("one_thread")
def test_a_study_judged_by_a_model_of_this_machine(
    tmp_path: Path, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, 4)
    record = result_of(run(study, reader))
    assert (record["judge"], record["server"], record["own"]) == ("tiny-judge", None, False)
    assert pair_of(record, GOOD)["judged"] == 4
    rows = [json.loads(line) for line in next(study.glob("judge/*/votes.jsonl")).read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        assert row["verdict"] == max(row["scores"], key=row["scores"].__getitem__)
    monkeypatch.setattr(Chooser, "load", lambda _: pytest.fail("nothing is left to ask, so nothing is to be loaded"))
    assert result_of(run(study, reader))["pairs"] == record["pairs"]


def test_a_judge_that_reads_too_little_is_refused_before_it_is_loaded(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chooser, "load", lambda _: pytest.fail("weights are not needed to see that"))
    with pytest.raises(DataError, match=r"--model: tiny reads 256 tokens at most, and 24 of 24 pairs take up to \d+"):
        run(make_study(tmp_path), tiny_base)


def test_what_is_no_judge_is_told(tmp_path: Path, reader: Path) -> None:
    study = make_study(tmp_path)
    with pytest.raises(StudyError, match="there is no such folder"):
        run(study, "./nobody")
    with pytest.raises(OptionError, match="limits and prices are for a served model"):
        run(study, reader, limits=Limits(tokens=5))
    with pytest.raises(OptionError, match="--timeout are for a served model"):
        run(study, reader, timeout=5.0)


def test_a_form_without_a_place_for_system_messages_gets_them_before_the_question(reader: Path) -> None:
    """Gemma's template raises for them."""
    from pronk.errors import PromptError

    chooser = Chooser(find_models([str(reader)])[0], allowed_replies(), Console(file=StringIO()))
    plain = chooser.prompt.question_ids

    class Gemma:
        def question_ids(self, questions: Any) -> Any:
            if any(message.role == "system" for question in questions for message in question):
                raise PromptError("System role not supported")
            return plain(questions)

    chooser.prompt = Gemma()  # type: ignore[assignment]
    asked = messages(READINGS[0], reasoned=False)
    assert chooser.question_ids([asked]) == plain([[Message("user", f"{asked[0].content}\n\n{asked[1].content}")]])
    assert folded(asked[1:]) == asked[1:]
