"""Law 9: label scores and greedy answers agree with transformers on the same prompts.

The oracle runs one row at a time through transformers' own model and attention, with PEFT for the
adapters: a plain forward of prompt + label for scores, `generate` for answers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partialmethod
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PEFT_WARNS, VOCAB, State, packed_model, peft_model, plain_model, random_state
from torch import Tensor
from transformers import AutoModelForCausalLM

import pronk.model.generate
from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape, WideAdapter, attach
from pronk.model.generate import Answers, PromptCache, score_and_answer
from pronk.model.load import find_base, load_model, load_tokenizer
from pronk.tokens.pack import BASE_SLOT, MicroBatch, pack_prompts

pytestmark = pytest.mark.filterwarnings(PEFT_WARNS)

SHAPES = [AdapterShape(4, 8, ("q_proj", "v_proj")), AdapterShape(3, 6), AdapterShape(2, 5, ("down_proj", "k_proj"))]
# one to four tokens; the second begins with the first, the last is the third without its end
LABELS = [[11, 2], [11, 12, 2], [40, 41, 42, 2], [40, 41, 42], [2], [50]]
NEW = 9


def rows() -> tuple[list[list[int]], list[int]]:
    """Prompts of one to 30 ids, some with a common beginning, each under every slot, mixed; and their slots."""
    rng = np.random.default_rng(3)
    prompts = [rng.integers(3, VOCAB, length).tolist() for length in (1, 5, 30, 12, 5)]
    prompts += [[*prompts[2][:17], *rng.integers(3, VOCAB, length)] for length in (1, 6)]
    pairs = [(prompt, slot) for prompt in prompts for slot in (BASE_SLOT, 0, 1, 2)]
    order = rng.permutation(len(pairs))
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


def tiny_models(dtype: torch.dtype) -> tuple[Any, WideAdapter, dict[int, Any]]:
    """pronk's model with its adapters, and the plain model of each slot."""
    model = packed_model(dtype)
    adapter = attach(model, SHAPES)
    states: dict[int, State] = {slot: random_state(adapter.state(slot), f"run {slot}", 0.2) for slot in range(3)}
    for slot, state in states.items():
        adapter.load(slot, state)
    plain = {slot: peft_model(plain_model(dtype), SHAPES[slot], states[slot]).eval() for slot in states}
    return model, adapter, {BASE_SLOT: plain_model(dtype), **plain}


@torch.no_grad()
def plain_score(model: Any, prompt: Sequence[int], label: Sequence[int]) -> float:
    """Log-probability of a label in full, by one forward pass over prompt and label."""
    ids = torch.tensor([[*prompt, *label]])
    logits = model(input_ids=ids, use_cache=False).logits[0]
    log_p = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
    return log_p[torch.arange(len(label)), torch.tensor(label)].sum().item()


@torch.no_grad()
def plain_answer(model: Any, prompt: Sequence[int], new: int, end: int, pad: int = 0) -> list[int]:
    """What `generate` writes greedily, up to the end token."""
    ids = torch.tensor([list(prompt)])
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
        eos_token_id=end, pad_token_id=pad,
    )[0, len(prompt) :].tolist()  # fmt: skip
    return written[: written.index(end)] if end in written else written


def score_difference(answers: Answers, models: dict[int, Any]) -> float:
    prompts, slots = rows()
    expected = torch.tensor(
        [[plain_score(models[slot], prompt, label) for label in LABELS]
         for prompt, slot in zip(prompts, slots, strict=True)], dtype=torch.float64,
    )  # fmt: skip
    return float((answers.scores_NC.double() - expected).abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_scores_are_those_of_a_plain_forward(dtype: torch.dtype, tolerance: float) -> None:
    model, adapter, models = tiny_models(dtype)
    assert score_difference(score_and_answer(model, adapter, pack_prompts(*rows()), LABELS), models) < tolerance


@pytest.mark.parametrize("labels", [LABELS[:1], [[7], [8]], [[5, 6, 7, 2]]])
def test_scores_do_not_hang_on_the_other_labels(labels: list[list[int]]) -> None:
    model, adapter, models = tiny_models(torch.float64)
    prompts, slots = rows()
    scores = score_and_answer(model, adapter, pack_prompts(prompts, slots), labels, NEW, 2).scores_NC
    for prompt, slot, row in zip(prompts, slots, scores.tolist(), strict=True):
        assert row == pytest.approx([plain_score(models[slot], prompt, label) for label in labels], abs=1e-10)


def free_and_ended(models: dict[int, Any]) -> tuple[int, list[list[int]]]:
    """An end token that random models do reach, some rows at once, some late and some never; and what
    `generate` then answers."""
    prompts, slots = rows()
    free = [plain_answer(models[slot], prompt, NEW, -1) for prompt, slot in zip(prompts, slots, strict=True)]
    tokens = [token for answer in free for token in answer]
    end = max(set(tokens), key=lambda token: len({answer.index(token) for answer in free if token in answer}))
    return end, [plain_answer(models[slot], prompt, NEW, end) for prompt, slot in zip(prompts, slots, strict=True)]


@pytest.mark.parametrize("labels", [[], LABELS])
def test_greedy_answers_are_those_of_generate(labels: list[list[int]]) -> None:
    """Exactly, whether labels were scored in the same reading or not."""
    model, adapter, models = tiny_models(torch.float64)
    end, expected = free_and_ended(models)
    answers = score_and_answer(model, adapter, pack_prompts(*rows()), labels, NEW, end)
    assert answers.ids == expected
    assert answers.ended == [len(ids) < NEW for ids in expected]
    assert len({len(ids) for ids in expected}) > 2
    assert len({tuple(ids) for ids in expected}) > len(rows()[0]) // 2


def test_rows_that_ended_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows end, the most of them early; with the cache's rows mixed up the answers are others."""
    model, adapter, models = tiny_models(torch.float64)
    end, expected = free_and_ended(models)
    ending = [row for row, ids in enumerate(expected) if len(ids) < NEW]
    prompts, slots = ([part[row] for row in ending] for part in rows())
    sizes: list[int] = []
    original = PromptCache.keep

    def spied(self: PromptCache, chosen_N: Tensor, turn: bool = False) -> None:
        sizes.append(int(chosen_N.sum()))
        original(self, chosen_N.flip(0) if turn else chosen_N)

    monkeypatch.setattr(PromptCache, "keep", spied)
    answers = score_and_answer(model, adapter, pack_prompts(prompts, slots), (), NEW, end)
    assert answers.ids == [expected[row] for row in ending]
    assert sizes
    assert sizes[0] <= len(ending) // 2
    monkeypatch.setattr(PromptCache, "keep", partialmethod(spied, turn=True))
    assert score_and_answer(model, adapter, pack_prompts(prompts, slots), (), NEW, end).ids != answers.ids


def test_a_row_does_not_hang_on_its_company() -> None:
    model, adapter, _ = tiny_models(torch.float64)
    prompts, slots = rows()
    together = score_and_answer(model, adapter, pack_prompts(prompts, slots), LABELS, NEW, 2)
    for row, (prompt, slot) in enumerate(zip(prompts, slots, strict=True)):
        alone = score_and_answer(model, adapter, pack_prompts([prompt], [slot]), LABELS, NEW, 2)
        assert (alone.scores_NC[0] - together.scores_NC[row]).abs().max() < 1e-10
        assert alone.ids[0] == together.ids[row]


def slots_shifted(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.generate.read_prompts

    def faulty(model: Any, adapter: Any, reading: MicroBatch, cache: Any) -> Tensor:
        return original(model, adapter, dataclasses.replace(reading, slots_T=np.roll(reading.slots_T, 1)), cache)

    patch.setattr(pronk.model.generate, "read_prompts", faulty)


def beginnings_not_laid_out(patch: pytest.MonkeyPatch) -> None:
    """Rows hold the keys of their own segment only, as if no beginning were shared."""
    original = pronk.model.generate.PromptCache.__init__

    def faulty(self: Any, reading: MicroBatch, *args: Any) -> None:
        parents = [-1] * len(reading.parents_S)
        original(self, dataclasses.replace(reading, parents_S=tuple(parents)), *args)

    patch.setattr(pronk.model.generate.PromptCache, "__init__", faulty)


def branches_see_one_another(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.generate.extend

    def faulty(*args: Any) -> Tensor:
        return original(*args[:-1], torch.ones_like(args[-1]).tril())

    patch.setattr(pronk.model.generate, "extend", faulty)


def positions_from_the_longest(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.generate.extend

    def faulty(model: Any, adapter: Any, cache: Any, slots: Any, ids: Any, positions: Tensor, seen: Any) -> Tensor:
        return original(model, adapter, cache, slots, ids, positions - positions[:, :1] + cache.longest, seen)

    patch.setattr(pronk.model.generate, "extend", faulty)


def padding_seen(patch: pytest.MonkeyPatch) -> None:
    original = pronk.model.generate.PromptCache.__init__

    def faulty(self: Any, *args: Any) -> None:
        original(self, *args)
        self.filled_NL = torch.ones_like(self.filled_NL)

    patch.setattr(pronk.model.generate.PromptCache, "__init__", faulty)


FAULTS = [
    slots_shifted, beginnings_not_laid_out, branches_see_one_another, positions_from_the_longest, padding_seen,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    model, adapter, models = tiny_models(torch.float64)
    fault(monkeypatch)
    assert score_difference(score_and_answer(model, adapter, pack_prompts(*rows()), LABELS), models) > 1e-3


@pytest.mark.slow
def test_smollm2_agrees_with_transformers() -> None:
    """fp32, thirty layers: scores within 1e-3 nats, greedy ids exactly."""
    try:
        base = find_base("smollm2")
    except BaseModelError as error:
        pytest.skip(str(error))
    tokenizer = load_tokenizer(base)
    model = load_model(base, torch.float32, torch.device("cpu"))
    shape = AdapterShape(8, 16)
    adapter = attach(model, [shape])
    state = random_state(adapter.state(0), "smollm2", 0.02)
    adapter.load(0, state)
    texts = ["Classify the sentiment: profit rose by 12 %.", "공장이 문을 닫는다. 이 문장은 긍정인가?"]
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template([{"role": "user", "content": t}], tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        ).input_ids
        for t in texts
    ] * 2
    slots = [BASE_SLOT] * 2 + [0] * 2
    labels = [[*tokenizer(text).input_ids, 2] for text in ("positive", "negative", "neutral, I think")]
    answers = score_and_answer(model, adapter, pack_prompts(prompts, slots), labels, 8, 2)

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(base.location, dtype=torch.float32).eval()

    models = {BASE_SLOT: load(), 0: peft_model(load(), shape, state).eval()}
    for row, (prompt, slot) in enumerate(zip(prompts, slots, strict=True)):
        expected = [plain_score(models[slot], prompt, label) for label in labels]
        assert answers.scores_NC[row].tolist() == pytest.approx(expected, abs=1e-3)
        assert answers.ids[row] == plain_answer(models[slot], prompt, 8, 2)
    assert (answers.scores_NC[:2] - answers.scores_NC[2:]).abs().min() > 0.01
