"""Recorded steps of generation write what direct ones do, whatever happens to the rows. Run with `pytest -m gpu`."""

import pytest
import torch
from test_on_a_gpu import _model

import pronk.model.one_token as one_token
from pronk.model.adapter import AdapterShape, attach
from pronk.model.generate import score_and_answer
from pronk.tokens.pack import BASE_SLOT, pack_prompts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]
PROMPTS = [[3 + (7 * row + place) % 500 for place in range(5 + 3 * row)] for row in range(8)]
SLOTS = [(BASE_SLOT, 0)[row % 2] for row in range(8)]
NEW = 170  # more than one recording has columns for


@pytest.fixture(scope="module")
def model_and_adapter():
    model = _model(torch.float32)
    adapter = attach(model, [AdapterShape(4, 16.0)])
    for _, wide, rows in adapter.rows(0):
        wide.data[rows] = torch.randn_like(wide.data[rows]) * 0.1
    adapter.settle()
    return model, adapter


def _written(model, adapter, watch=None):
    return score_and_answer(model, adapter, pack_prompts(PROMPTS, SLOTS), (), NEW, -7, watch=watch)


def _ends_early(ends):
    """A watch that ends a row after so many tokens."""
    told = dict.fromkeys(range(8), 0)

    def watch(members, _):
        for member in members:
            told[member] += 1
        return [told[member] >= ends.get(member, NEW + 1) for member in members]

    return watch


@pytest.fixture
def recordings(monkeypatch):
    """Rows and columns of each recording that is made."""
    made = []
    original = one_token._Recording.__init__

    def spied(self, model, adapter, cache, rows, end):
        original(self, model, adapter, cache, rows, end)
        made.append((rows, self.width))

    monkeypatch.setattr(one_token._Recording, "__init__", spied)
    return made


@pytest.mark.parametrize("ends", [{}, {1: 3, 2: 3, 4: 3, 5: 3, 0: 40, 3: 60, 6: 60}])
def test_the_same_is_written(model_and_adapter, ends, recordings, monkeypatch):
    model, adapter = model_and_adapter
    recorded = _written(model, adapter, _ends_early(ends))
    assert len(recordings) >= 2
    assert [rows for rows, _ in recordings] == sorted((rows for rows, _ in recordings), reverse=True)
    monkeypatch.setattr(one_token, "can_record", lambda _: False)
    made = len(recordings)
    assert _written(model, adapter, _ends_early(ends)).ids == recorded.ids
    assert len(recordings) == made


def test_another_pass_in_between_changes_nothing(model_and_adapter, recordings):
    """A recording holds on to what it reads, though others use the model between two of its steps."""
    model, adapter = model_and_adapter
    alone = _written(model, adapter).ids

    def watch(members, _):
        score_and_answer(model, adapter, pack_prompts(PROMPTS[:2], [0, BASE_SLOT]), (), 2, -7)
        torch.cuda.empty_cache()
        return [False] * len(members)

    assert _written(model, adapter, watch).ids == alone
    assert recordings


@pytest.mark.parametrize("fault", ["column", "position", "mask"])
def test_planted_faults_are_seen(model_and_adapter, fault, monkeypatch):
    model, adapter = model_and_adapter
    right, original = _written(model, adapter).ids, one_token._Recording.play

    def faulty(self, token_N, position_N, end):
        if fault == "position":
            position_N = position_N - 1
        hidden_ND = original(self, token_N, position_N, end - (fault == "column"))
        if fault == "mask":
            self._seen_NW[:, end - 1] = False
        return hidden_ND

    monkeypatch.setattr(one_token._Recording, "play", faulty)
    assert _written(model, adapter).ids != right


def test_what_cannot_be_recorded_is_known(model_and_adapter, monkeypatch):
    model, _ = model_and_adapter
    assert one_token.can_record(model)
    monkeypatch.setattr(model.base_model.rotary_emb, "rope_type", "dynamic")
    assert not one_token.can_record(model)
    assert not one_token.can_record(_model(torch.float32).cpu())
