"""Drawn answers: what may be drawn is what transformers would allow, and tokens come as often as they should.

An answer hangs on its own seed, question and model, not on the rows beside it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from test_law_9_transformers import NEW, free_and_ended, rows, tiny_models
from tiny import PEFT_WARNS
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pronk.model.generate import Answers, score_and_answer
from pronk.model.sampling import Filter, Sampler
from pronk.tokens.pack import pack_prompts

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

FILTERS = [
    Filter(0.7), Filter(1.7, top_k=5), Filter(1.0, top_p=0.8), Filter(0.6, 7, 0.5), Filter(1.3, 1), Filter(2.0, 500),
    Filter(0.9, None, 1e-9), Filter(1.5, 40, 0.95),
]  # fmt: skip


def theirs(allowed: Filter, logits_NV: Tensor) -> Tensor:
    """transformers' warpers, in the order in which `generate` applies them."""
    scores = TemperatureLogitsWarper(allowed.temperature)(None, logits_NV)
    if allowed.top_k is not None:
        scores = TopKLogitsWarper(allowed.top_k)(None, scores)
    return TopPLogitsWarper(allowed.top_p)(None, scores) if allowed.top_p < 1 else scores


def random_logits(kind: str) -> Tensor:
    logits = torch.randn(50, 97, generator=torch.Generator().manual_seed(5)) * 3
    return logits.round() if kind == "ties" else logits


@pytest.mark.parametrize("allowed", FILTERS)
@pytest.mark.parametrize("kind", ["distinct", "ties"])
def test_what_may_be_drawn_is_what_transformers_allows(allowed: Filter, kind: str) -> None:
    """Where several tokens are equally likely, which of them top-p drops is up to the sort: as many of them stay."""
    logits_NV = random_logits(kind)
    ours_NV, theirs_NV = allowed(logits_NV), theirs(allowed, logits_NV)
    if kind == "ties":
        ours_NV, theirs_NV = ours_NV.sort().values, theirs_NV.sort().values
    torch.testing.assert_close(ours_NV, theirs_NV, rtol=0, atol=0)


def test_half_precision_is_filtered_in_fp32() -> None:
    logits_NV = random_logits("distinct").bfloat16()
    allowed = Filter(0.7, 9, 0.9)
    assert allowed(logits_NV).dtype == torch.float32
    torch.testing.assert_close(allowed(logits_NV), theirs(allowed, logits_NV.float()), rtol=0, atol=0)


# --- frequencies -------------------------------------------------------------------------------

DRAWS = 40_000


def drawn(allowed: Filter, seed: int, by_step: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """How often each of 12 tokens was drawn (each question once, or one question at each step), and the
    probabilities that transformers' warpers give."""
    logits_V = torch.linspace(-2, 2, 12)
    keys = [7] if by_step else list(range(DRAWS))
    sampler = Sampler(allowed, seed, keys)
    members = torch.arange(len(keys))
    steps = range(DRAWS // 10) if by_step else [3]
    tokens = torch.cat([sampler(logits_V.expand(len(keys), -1), members, step) for step in steps])
    probabilities = theirs(allowed, logits_V[None]).softmax(-1)[0].double().numpy()
    return np.bincount(tokens.numpy(), minlength=12), probabilities / probabilities.sum()


def p_of_frequencies(counts: np.ndarray, probabilities: np.ndarray) -> float:
    possible = probabilities > 0
    if counts[~possible].any():
        return 0.0
    return float(chisquare(counts[possible], probabilities[possible] * counts.sum()).pvalue)


@pytest.mark.parametrize("allowed", [Filter(1.0), Filter(0.5, 6), Filter(2.0, None, 0.7)])
@pytest.mark.parametrize("seed", [0, 42])
def test_tokens_come_as_often_as_they_should(allowed: Filter, seed: int) -> None:
    assert p_of_frequencies(*drawn(allowed, seed)) > 0.001


def test_the_steps_of_one_answer_are_independent_draws() -> None:
    assert p_of_frequencies(*drawn(Filter(1.0), 1, by_step=True)) > 0.001


def test_seeds_questions_and_steps_draw_apart() -> None:
    """The numbers that draws hang on do not repeat, nor follow one another, from any of the three to the next."""
    members = torch.arange(4000)
    one, other = (Sampler(Filter(), seed, list(range(4000))).uniform(members, 0) for seed in (1, 2))
    later = Sampler(Filter(), 1, list(range(4000))).uniform(members, 1)
    for a, b in ((one, other), (one, later), (one[1:], one[:-1])):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.06  # 4 standard errors
    assert 0 < float(one.min()) < 0.002 < 0.998 < float(one.max()) < 1


def temperature_multiplied(patch: pytest.MonkeyPatch) -> None:
    original = Filter.__call__
    patch.setattr(Filter, "__call__", lambda self, x: original(Filter(1 / self.temperature, self.top_k, self.top_p), x))


def unfiltered(patch: pytest.MonkeyPatch) -> None:
    original = Filter.__call__
    patch.setattr(Filter, "__call__", lambda self, x: original(Filter(self.temperature), x))


def always_the_likeliest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sampler, "uniform", lambda *of: torch.full(of[1].shape, 1 - 1e-9, dtype=torch.float64))


def likely_half_of_the_numbers(patch: pytest.MonkeyPatch) -> None:
    original = Sampler.uniform
    patch.setattr(Sampler, "uniform", lambda self, members, step: original(self, members, step) / 2)


@pytest.mark.parametrize(
    "fault", [temperature_multiplied, unfiltered, always_the_likeliest, likely_half_of_the_numbers]
)
def test_a_fault_of_drawing_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected probabilities are transformers', which the fault does not touch."""
    fault(monkeypatch)
    assert p_of_frequencies(*drawn(Filter(0.5, 6), 0)) < 1e-9


def p_before_temperature(self: Filter, logits_NV: Tensor) -> Tensor:
    return theirs(Filter(1.0, self.top_k, self.top_p), logits_NV) / self.temperature


def k_off_by_one(self: Filter, logits_NV: Tensor) -> Tensor:
    return theirs(Filter(self.temperature, self.top_k and self.top_k + 1, self.top_p), logits_NV)


def p_from_the_wrong_end(self: Filter, logits_NV: Tensor) -> Tensor:
    scores = logits_NV / self.temperature
    falling, order = scores.sort(dim=-1, descending=True)
    beyond = falling.softmax(-1).cumsum(-1) > self.top_p  # drops the token that reaches top_p, too
    return scores.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)


@pytest.mark.parametrize("faulty", [p_before_temperature, k_off_by_one, p_from_the_wrong_end])
def test_a_fault_of_filtering_shows(faulty: Callable[[Filter, Tensor], Tensor]) -> None:
    logits_NV = random_logits("distinct")
    assert any(not torch.equal(faulty(allowed, logits_NV), theirs(allowed, logits_NV)) for allowed in FILTERS)


# --- company -----------------------------------------------------------------------------------


def answers(models: Any, chosen: Sequence[int], end: int, seed: int = 3) -> Answers:
    """Drawn answers of the chosen rows of law 9, in one batch; a row's key hangs on its prompt."""
    prompts, slots = ([part[row] for row in chosen] for part in rows())
    sampler = Sampler(Filter(1.2, 20, 0.95), seed, [hash(tuple(prompt)) % 2**31 for prompt in prompts])
    model, adapter, _ = models
    return score_and_answer(model, adapter, pack_prompts(prompts, slots), (), NEW, end, choose=sampler)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_answer_does_not_hang_on_its_company(dtype: torch.dtype) -> None:
    """Alone, in halves, in another order: the same ids exactly. Rows end early, so the batch shrinks."""
    models = tiny_models(dtype)
    end, _ = free_and_ended(models[2])
    everybody = list(range(len(rows()[0])))
    together = answers(models, everybody, end)
    assert len({len(ids) for ids in together.ids}) > 2
    assert [answers(models, [row], end).ids[0] for row in everybody] == together.ids
    assert answers(models, everybody[::-1], end).ids == together.ids[::-1]
    half = everybody[::2]
    assert answers(models, half, end).ids == [together.ids[row] for row in half]
    assert answers(models, everybody, end, seed=4).ids != together.ids


def by_place_in_the_batch(patch: pytest.MonkeyPatch) -> None:
    original = Sampler.uniform
    patch.setattr(Sampler, "uniform", lambda self, m, step: original(self, torch.arange(len(m)) % len(self.keys), step))


def one_generator_for_all(patch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    patch.setattr(Sampler, "uniform", lambda *of: torch.rand(len(of[1]), generator=generator).double())


@pytest.mark.parametrize("fault", [by_place_in_the_batch, one_generator_for_all])
def test_a_fault_of_company_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(torch.float64)
    fault(monkeypatch)
    everybody = list(range(len(rows()[0])))
    assert answers(models, everybody[::-1], 2).ids[::-1] != answers(models, everybody, 2).ids


def test_a_watch_ends_rows() -> None:
    """Told of every token; where it says so a row ends with that token, the others go on as if alone."""
    model, adapter, _ = tiny_models(torch.float64)
    reading = pack_prompts(*rows())
    free = score_and_answer(model, adapter, reading, (), NEW, -1)
    told: dict[int, list[int]] = {}

    def watch(members: list[int], tokens: list[int]) -> list[bool]:
        for member, token in zip(members, tokens, strict=True):
            told.setdefault(member, []).append(token)
        return [len(told[member]) > member % 4 for member in members]

    stopped = score_and_answer(model, adapter, reading, (), NEW, -1, watch=watch)
    assert stopped.ids == [ids[: row % 4 + 1] for row, ids in enumerate(free.ids)]
    assert [told[row] for row in range(len(stopped.ids))] == stopped.ids
    assert not any(stopped.ended)
