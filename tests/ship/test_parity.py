"""The gate's figures, against plain PyTorch, transformers and PEFT."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from shipping import LABELS, logits
from transformers import AutoModelForCausalLM

from pronk.ask.asking import Reader, open_reader
from pronk.ask.models import find_models
from pronk.data.conversation import Conversation, Message
from pronk.errors import OptionError
from pronk.ship.export.merged import better
from pronk.ship.gate.chats import as_chat, chats_of, fixed_chats
from pronk.ship.gate.evidence import likeliest, make_rows, read_row
from pronk.ship.gate.parity import Gate, Paired, Parity, divergence
from pronk.ship.gate.reading import LogProbabilities
from pronk.ship.gate.tolerance import DEFAULTS, Limits, read_limits

# PEFT 0.21 asks a transformers 5.23 model by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def log_softmax(count: int, vocabulary: int, seed: int) -> LogProbabilities:
    drawn = torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    found: LogProbabilities = drawn.log_softmax(-1).numpy()
    return found


def test_divergence_is_pytorch_s() -> None:
    p, q = log_softmax(7, 50, 1), log_softmax(7, 50, 2)
    wanted = torch.nn.functional.kl_div(torch.from_numpy(q), torch.from_numpy(p), log_target=True, reduction="none")
    assert np.allclose(divergence(p, q), wanted.sum(-1).numpy(), atol=1e-5)
    assert np.allclose(divergence(p, p), 0)
    assert np.isinf(divergence(p, np.where(np.arange(50) == 3, -np.inf, q).astype(np.float32))).all()
    assert np.isinf(divergence(p, np.full_like(q, np.nan))).all(), "what gives no numbers is not near"
    assert np.isinf(divergence(p, log_softmax(7, 51, 2))).all(), "nor is another vocabulary"


@pytest.mark.parametrize("seed", range(20))
def test_the_likeliest_answer_is_found_without_reading_all(seed: int) -> None:
    """Against scores of all answers, some of which begin alike or begin another."""
    rng = np.random.default_rng(seed)
    tokens = np.log(rng.dirichlet(np.ones(6) * 0.3, size=4).astype(np.float32) + 1e-9)  # place by token
    choices = [tuple(rng.integers(0, 6, rng.integers(1, 4)).tolist()) for _ in range(12)]

    def score(ids: Sequence[int]) -> float:
        return float(sum(tokens[place, token] for place, token in enumerate(ids)))

    read: list[Sequence[int]] = []

    def counting(ids: Sequence[int]) -> float:
        read.append(ids)
        return score(ids)

    found = likeliest(choices, tokens[0], counting)
    assert score(choices[found]) == pytest.approx(max(map(score, choices)))
    assert len(read) < len(choices)


@pytest.fixture
def reader(make_run: Callable[..., Path]) -> Reader:
    return open_reader(0, find_models([str(make_run())])[0], lambda _: None, {})


def test_what_the_run_says_is_what_peft_says(reader: Reader, sure_base: Path, one_thread: None) -> None:  # noqa: ARG001
    """Losses, likeliest tokens and decisions on all validation rows, each computed anew over PEFT's model."""
    gate = Gate(reader, Limits(), 100, Console(quiet=True))
    assert len(gate.rows) == 4
    adapter = reader.model.adapter
    assert adapter is not None
    base = AutoModelForCausalLM.from_pretrained(sure_base, dtype=torch.float32)
    oracle = PeftModel.from_pretrained(base, str(adapter.folder)).eval()
    label_ids = reader.prompt.answer_ids(LABELS)
    for row, said in zip(gate.rows, gate._said, strict=True):
        found = logits(oracle, row.ids).log_softmax(-1)
        answer = row.ids[len(row.asked) :]
        places = torch.arange(len(row.asked) - 1, len(row.ids) - 1)
        assert said.loss == pytest.approx(-float(found[places, answer].sum()), abs=1e-3)
        assert said.top_P.tolist() == found[places].argmax(-1).tolist()
        assert np.allclose(said.sampled_PV, found[places], atol=1e-3)
        scores = []
        for label in label_ids:
            whole = logits(oracle, [*row.asked, *label]).log_softmax(-1)
            scores.append(float(whole[torch.arange(len(row.asked) - 1, len(row.asked) + len(label) - 1), label].sum()))
        assert said.right == (label_ids[int(np.argmax(scores))] == answer)


class Says:
    """A model of no weights, whose next token hangs on the last one alone. heavier: a token made likelier."""

    name = "a table"

    def __init__(self, vocabulary: int, prompt: Any, heavier: int | None = None) -> None:
        self.table = np.random.default_rng(0).standard_normal((97, vocabulary)).astype(np.float32)
        if heavier is not None:
            self.table[:, heavier] += 20
        self.prompt = prompt

    def chat_ids(self, messages: Any) -> list[int]:
        found: list[int] = self.prompt.question_ids([[Message(one["role"], one["content"]) for one in messages]])[0]
        return found

    def log_probabilities(self, ids: Sequence[int]) -> LogProbabilities:
        found = torch.from_numpy(self.table[np.asarray(ids) % 97]).log_softmax(-1)
        return found.numpy()

    def close(self) -> None: ...


def test_the_gate_sees_what_differs(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(reader, Limits(), 100, Console(quiet=True))
    vocabulary, end = reader.config.vocab_size, reader.prompt.end_id
    one = Says(vocabulary, reader.prompt)
    monkeypatch.setitem(gate.__dict__, "_said", [read_row(one, row) for row in gate.rows])
    same = gate.compare(one, "itself", "exact")
    assert (same.reasons, same.details, same.kl, same.top1) == ((), (), 0.0, 1.0)
    assert same.tokens == sum(len(row.targets_P) for row in gate.rows)
    assert (same.loss.difference, same.loss.interval) == (0, (0, 0))
    ends = gate.compare(Says(vocabulary, reader.prompt, end), "one that always ends", "exact")
    assert "nats apart" in " ".join(ends.reasons)
    assert "the run says" in ends.details[0]
    assert gate.compare(Says(vocabulary, reader.prompt, end), "it", "coarse").reasons
    wide = Gate(reader, read_limits(["1e6"]), 100, Console(quiet=True))
    monkeypatch.setitem(wide.__dict__, "_said", gate._said)
    assert wide.compare(Says(vocabulary, reader.prompt, end), "it", "exact").reasons == ()
    silent = Says(vocabulary, reader.prompt)
    silent.table[:] = np.nan
    assert "inf" in " ".join(gate.compare(silent, "one without numbers", "coarse").reasons)


def test_a_run_that_kept_no_rows_back_is_read_on_those_it_learned(make_run: Callable[..., Path]) -> None:
    run = make_run()
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    none = re.sub(r"(validation|test): \d+", r"\1: 0", recipe)
    assert none.count(": 0") >= 2
    (run / "recipe.yaml").write_text(none, encoding="utf-8")
    (model,) = find_models([str(run)])
    gate = Gate(open_reader(0, model, lambda _: None, {}), Limits(), 3, Console(quiet=True))
    assert (gate.part, len(gate.rows)) == ("training", 3)


def test_no_validation_rows_is_said(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8").replace("validation: 4", "validation: 0")
    (run / "recipe.yaml").write_text(recipe, encoding="utf-8")
    reader = open_reader(0, find_models([str(run)])[0], lambda _: None, {})
    gate = Gate(reader, Limits(), 5, Console(stderr=True))
    assert (gate.part, len(gate.rows)) == ("training", 5)
    assert "no validation rows" in capsys.readouterr().err


def test_long_answers_are_sampled_and_long_rows_cut(reader: Reader) -> None:
    talk = Conversation((Message("user", "Tell me."), Message("assistant", " and on" * 300)), "here")
    rows = make_rows([talk] * 50, reader.prompt, (), 200)
    assert all(len(row.ids) == 200 and row.truth == -1 for row in rows)
    assert all(len(row.sampled) == 20 and row.sampled[-1] == len(row.targets_P) - 1 for row in rows)


def test_a_chat_is_asked_as_it_was_trained(reader: Reader) -> None:
    """Rows with a context, and with several turns; by the tokenizer's own template."""
    prompt, render = reader.prompt, reader.prompt.tokenizer.apply_chat_template
    talk = (
        Message("user", "Which is it?", "Sales rose."), Message("assistant", "positive"),
        Message("user", "And this?", "Sales fell."), Message("assistant", "negative"),
    )  # fmt: skip
    opening, later = chats_of([Conversation(talk, "here")], prompt)
    assert (len(opening), len(later)) == (1, 1)
    for chat, ids in [*opening, *later, *fixed_chats(prompt)]:
        assert render(chat, add_generation_prompt=True, return_dict=True)["input_ids"] == ids
    assert as_chat("alpaca", talk[:1])[0]["content"] == "Which is it?\n\n### Input:\nSales rose."
    assert as_chat("chat", talk[:1])[0]["content"] == "Which is it?\n\nSales rose."


def parity(kl: float, after: float, interval: tuple[float, float], rejected: bool = False) -> Parity:
    loss = Paired("loss", 1.0, after, after - 1, interval)
    return Parity("any", DEFAULTS["coarse"], 1, 1, 0, 0, 9, 9, kl, kl, 1.0, loss, None, ("no",) if rejected else ())


def test_of_two_ways_the_better_is_kept() -> None:
    near = parity(0.001, 1.0, (-0.01, 0.01))
    assert better(near, parity(0.1, 0.8, (-0.3, -0.1)))[0] == 1, "lower beyond chance"
    assert better(near, parity(0.1, 0.8, (-0.5, 0.1)))[0] == 0, "lower by chance: the nearer one"
    assert better(near, parity(0.1, 1.3, (0.1, 0.5)))[0] == 0, "higher beyond chance"
    assert better(near, parity(0.1, 0.8, (-0.3, -0.1), rejected=True))[0] == 0, "lower, but rejected"
    assert better(replace(near, reasons=("no",)), parity(0.1, 1.0, (-0.1, 0.1)))[0] == 1, "the only one that passes"


def test_limits_are_scaled_and_set() -> None:
    usual = DEFAULTS["rounded"]
    wide = read_limits(["2", "kl=0.5"]).of("rounded")
    assert (wide.kl, wide.worst, wide.loss) == (0.5, 2 * usual.worst, 2 * usual.loss)
    assert wide.top1 == pytest.approx(1 - 2 * (1 - usual.top1))
    assert read_limits([]).of("rounded") == usual
    assert read_limits(["0"]).of("exact").top1 == 1.0
    for wrong in ("", "=1", "kl=", "kl", "nan", "inf", "-2", "loss=x", "speed=1"):
        with pytest.raises(OptionError, match="expected a number"):
            read_limits([wrong])
    order = [DEFAULTS[kind] for kind in ("exact", "rounded", "quantized", "coarse", "rebased")]
    assert order == sorted(order, key=lambda one: one.kl)
