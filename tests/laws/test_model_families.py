"""Models of other families: read packed, scored and answered as by transformers itself, or refused in one message."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pronk.model.probe as probe
from model_families import ALSO_WORK, REFUSED, WORK, build
from pronk.errors import BaseModelError
from pronk.evaluate.evaluation import CPU_BATCH, LARGEST_BATCH, evaluation_budget
from pronk.model.adapter import attach
from pronk.model.attention import packing
from pronk.model.generate import score_and_answer
from pronk.model.hub import Base
from pronk.model.load import context_length, load_config, load_model
from pronk.model.random_model import random_model
from pronk.model.sampling import likeliest
from pronk.model.turns import Turns
from pronk.tokens.pack import BASE_SLOT, pack_prompts

CPU = torch.device("cpu")
ONE = packing((3,), (-1,), CPU)
NEW = 5
pytestmark = pytest.mark.usefixtures("one_thread")
BEGINNING = [7, 301, 44, 9, 120]
PROMPTS = [[*BEGINNING, 33, 410, 18], [*BEGINNING, 88], [250, 61, 5, 199]]
CONTINUATIONS = [[5, 90], [11, 404, 8], [20]]


def load(folder: Path) -> Any:
    base = Base(folder.name, str(folder), local=True)
    context_length(load_config(base))
    return load_model(base, torch.float32, CPU)


def theirs(folder: Path) -> Any:
    """A function of ids: their log-probabilities (T × V) as transformers gives them for one text alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    @torch.no_grad()
    def read(ids: list[int]) -> torch.Tensor:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)

    return read


def test_every_type_that_is_taken_at_its_word_is_tested() -> None:
    assert set(WORK) == probe.FAMILIAR
    assert not {"phi", "gemma2", "falcon", *ALSO_WORK} & probe.FAMILIAR


@pytest.mark.parametrize("name", [*WORK, *ALSO_WORK])
def test_scores_and_answers_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Three prompts in one row, two of which share a beginning."""
    build(tmp_path, *{**WORK, **ALSO_WORK}[name])
    model, read = load(tmp_path), theirs(tmp_path)
    reading = pack_prompts(PROMPTS, [BASE_SLOT] * len(PROMPTS))
    found = score_and_answer(model, attach(model, []), reading, CONTINUATIONS, NEW)
    for place, prompt in enumerate(PROMPTS):
        for number, ids in enumerate(CONTINUATIONS):
            own = read(prompt + ids)[len(prompt) - 1 :]
            expected = sum(float(own[at, token]) for at, token in enumerate(ids))
            assert float(found.scores_NC[place, number]) == pytest.approx(expected, abs=2e-4)
        written: list[int] = []
        for _ in range(NEW):
            written.append(int(read(prompt + written)[-1].argmax()))
        assert found.ids[place] == written


@pytest.mark.parametrize("name", [*WORK, *ALSO_WORK])
def test_a_second_turn_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    """In a conversation, where what was read and written stays, and a shorter row goes on beside a longer one."""
    build(tmp_path, *{**WORK, **ALSO_WORK}[name])
    model, read = load(tmp_path), theirs(tmp_path)
    turns = Turns(model, attach(model, []), [BASE_SLOT] * 2, pack_prompts)
    asked = [[*PROMPTS[0], 77, 401], [250, 61, 5, 199, 18, 32, 9, 27]]
    for more in ([88, 14], [412]):
        written: list[list[int]] = [[], []]

        def heard(members: list[int], tokens: list[int], written: list[list[int]] = written) -> list[bool]:
            for member, token in zip(members, tokens, strict=True):
                written[member].append(token)
            return [False] * len(members)

        for _ in turns.answer(asked, NEW, -1, likeliest, heard):
            pass
        for prompt, answer in zip(asked, written, strict=True):
            assert answer == [int(row.argmax()) for row in read([*prompt, *answer])[len(prompt) - 1 : -1]]
        asked = [[*prompt, *answer, *more] for prompt, answer in zip(asked, written, strict=True)]
    assert turns.read < len(asked[0]), "the second turn did not begin anew"


@pytest.mark.parametrize("name", [*WORK, *ALSO_WORK])
def test_a_random_model_and_a_budget_can_be_made_of_each(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU is measured with before training: all of it lies somewhere, and a batch has a size."""
    build(tmp_path, *{**WORK, **ALSO_WORK}[name])
    config = load_config(Base(name, str(tmp_path), local=True))
    model = random_model(config, 1, torch.float32, CPU)
    assert not [key for key, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert torch.isfinite(
        model.base_model(torch.tensor([[5, 9, 11]]), use_cache=False, packing=ONE).last_hidden_state
    ).all()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**34, 2**35))
    gpu = SimpleNamespace(device=torch.device("cuda"), element_size=lambda: 2)
    budget = evaluation_budget(SimpleNamespace(config=config, parameters=lambda: iter([gpu])))
    assert CPU_BATCH <= budget <= LARGEST_BATCH


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrongly_is_refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kind, values, message = REFUSED[name]
    build(tmp_path, kind, values)
    capfd.readouterr()
    with pytest.raises(BaseModelError, match=message) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)
    assert "".join(capfd.readouterr()) == "", "one message, and nothing of the libraries beside it"


@pytest.mark.parametrize("name", ["persimmon", "biogpt"])
def test_a_row_that_is_read_as_one_text_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: attention that looks at the whole row, as that of a model would which does not ask for a packing."""
    build(tmp_path, *ALSO_WORK[name])
    right = probe._Reading
    monkeypatch.setattr(probe, "_Reading", lambda ids_T: right(ids_T, (12,), (-1,)))
    with pytest.raises(BaseModelError, match=r"otherwise than each alone \(its logits are [1-9]\d*% of their spread"):
        load(tmp_path)
