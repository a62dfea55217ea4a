"""Drawn answers on a GPU: the same for a row alone and in company, in fp32. Run with `pytest -m gpu`."""

import pytest
import torch
from test_on_a_gpu import _model

from pronk.model.adapter import AdapterShape, attach
from pronk.model.generate import score_and_answer
from pronk.model.sampling import Filter, Sampler, likeliest
from pronk.tokens.pack import BASE_SLOT, pack_prompts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]


def _answers(model, adapter, rows, draws):
    prompts = [[3 + (7 * row + place) % 500 for place in range(5 + row)] for row in rows]
    slots = [(BASE_SLOT, 0)[row % 2] for row in rows]
    choose = Sampler(Filter(0.9, 50, 0.95), 1, list(rows)) if draws else likeliest
    return score_and_answer(model, adapter, pack_prompts(prompts, slots), (), 24, 2, choose=choose)


@pytest.mark.parametrize("draws", [True, False])
def test_alone_and_in_company(draws):
    model = _model(torch.float32)
    adapter = attach(model, [AdapterShape(4, 16.0)])
    for _, wide, rows in adapter.rows(0):
        wide.data[rows] = torch.randn_like(wide.data[rows]) * 0.1
    adapter.settle()
    together = _answers(model, adapter, range(12), draws)
    assert [_answers(model, adapter, [row], draws).ids[0] for row in range(12)] == together.ids
    assert len({tuple(ids) for ids in together.ids}) > 6


def test_half_precision_draws_what_the_filter_allows():
    """In bf16 too a draw is one of the filtered tokens, and on every device the same number makes it."""
    logits_NV = torch.randn(400, 1000, generator=torch.Generator().manual_seed(0)).bfloat16() * 3
    sampler, members = Sampler(Filter(0.8, 30, 0.9), 5, list(range(400))), torch.arange(400)
    drawn = sampler(logits_NV.cuda(), members.cuda(), 4).cpu()
    # a sum of probabilities at the edge of top-p rounds differently on another device
    allowed = sampler.allowed(logits_NV.cuda()).cpu()
    assert torch.isfinite(allowed.gather(1, drawn[:, None])).all()
    assert (drawn == sampler(logits_NV, members, 4)).float().mean() > 0.99
