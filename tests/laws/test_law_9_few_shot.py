"""Law 9 with examples in the prompt: scores, losses and greedy answers are those of transformers.

The oracle writes each prompt as one text by hand (or by transformers' own chat template), examples included, and
runs it alone through transformers' model: no packing, no shared beginning, no code of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from test_law_9_transformers import plain_answer, plain_score
from transformers import AutoModelForCausalLM, AutoTokenizer

import pronk.doctor.baseline as subject
import pronk.tokens.shots
from pronk.data.conversation import Conversation
from pronk.data.shots import choose_shots
from pronk.data.split import Splits, read_splits
from pronk.doctor.ready import Ready, prepare
from pronk.evaluate.classify import EXTRA_TOKENS
from pronk.evaluate.evaluation import Evaluated
from pronk.model.load import load_model
from pronk.recipe import Recipe, read_recipe
from pronk.study import plan_study
from pronk.tokens.pack import BASE_SLOT, Member, pack

LABELS = ("fell", "stayed", "rose")
COUNTS = (0, 1, 3)
PREAMBLE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n"
)


@dataclass(frozen=True)
class Prepared:
    recipe: Recipe
    ready: Ready
    shots: tuple[Conversation, ...]

    @property
    def rows(self) -> tuple[Conversation, ...]:
        return self.ready.examples.splits.test

    def measured(self, counts: Sequence[int] = COUNTS) -> dict[int, Evaluated]:
        model = load_model(self.ready.base, torch.float32, torch.device("cpu"))
        console = Console(quiet=True)
        return subject.measure_few_shot(self.ready, model, self.recipe, self.shots, counts, console)


def prepared(folder: Path, base: Path, rows: list[dict[str, str]], **keys: Any) -> Prepared:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"validation": 6, "test": 6}
    data = {"source": "rows.jsonl", "split": split, **keys.pop("data", {})}
    plain = {"base": str(base), "data": data, **keys}
    (folder / "recipe.yaml").write_text(json.dumps(plain))
    recipe = read_recipe(folder / "recipe.yaml", [])
    splits, labels = read_splits(recipe.data)
    shots = choose_shots(splits, max(COUNTS), labels, 3)
    (ready,) = prepare(plan_study(recipe), splits, labels, lambda _: None)
    return Prepared(recipe, ready, shots)


def classified(folder: Path, base: Path, prompt: str) -> Prepared:
    rows = [{"text": f"{k}: it {LABELS[k % 3]} by {7 * k % 50}", "label": LABELS[k % 3]} for k in range(30)]
    data = {"format": "classify", "instruction": "Up or down?"}
    return prepared(folder, base, rows, prompt=prompt, data=data)


def alpaca_text(turns: Sequence[Conversation], end: str) -> str:
    """Everything before the last answer, by hand: the preamble once, further questions behind the end token."""
    asked = []
    for turn in turns:
        question = turn.messages[-2]
        asked.append(f"\n\n### Instruction:\n{question.content}\n\n### Input:\n{question.context}\n\n### Response:\n")
    answers = [f"{turn.answer}{end}" for turn in turns[:-1]] + [""]
    return PREAMBLE.rstrip("\n") + "".join(one + answer for one, answer in zip(asked, answers, strict=True))


def oracle_prompts(case: Prepared, prompt: str, count: int) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(case.ready.base.location)
    found = []
    for row in case.rows:
        turns = [*case.shots[:count], row]
        if prompt == "alpaca":
            text = alpaca_text(turns, tokenizer.eos_token)
        else:
            messages = []
            for turn in turns:
                asked = turn.messages[-2]
                messages += [{"role": "user", "content": f"{asked.content}\n\n{asked.context}"}]
                messages += [{"role": "assistant", "content": turn.answer}]
            text = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        found.append(tokenizer(text, add_special_tokens=False).input_ids)
    return found


def check_classified(case: Prepared, prompt: str) -> None:
    """Asserts scores and answers for every number of examples, against one prompt at a time in transformers."""
    plain = AutoModelForCausalLM.from_pretrained(case.ready.base.location, dtype=torch.float32).eval()
    tokenizer, end = case.ready.examples.prompt.tokenizer, case.ready.examples.prompt.end_id
    names = case.ready.examples.labels
    labels = [[*tokenizer(name, add_special_tokens=False).input_ids, end] for name in names]
    longest = max(map(len, labels)) + EXTRA_TOKENS
    for count, found in case.measured().items():
        assert found.classified is not None
        assert found.losses is not None
        asked = oracle_prompts(case, prompt, count)
        for row, ids, item, loss in zip(case.rows, asked, found.classified, found.losses.loss, strict=True):
            expected = [plain_score(plain, ids, label) for label in labels]
            assert list(item.scores.values()) == pytest.approx(expected, abs=1e-4)
            assert loss == pytest.approx(-expected[names.index(row.answer)], abs=1e-4)
            assert item.predicted == names[int(np.argmax(expected))]
            answer = plain_answer(plain, ids, longest, end)
            assert item.generated == tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("prompt", ["alpaca", "chat"])
def test_labels_and_answers_are_those_of_transformers(tmp_path: Path, tiny_base: Path, prompt: str) -> None:
    check_classified(classified(tmp_path, tiny_base, prompt), prompt)


def test_losses_are_those_of_transformers(tmp_path: Path, tiny_base: Path) -> None:
    """Free answers: the reference alone is measured, not the examples' answers before it."""
    check_losses(free(tmp_path, tiny_base))


def free(folder: Path, base: Path) -> Prepared:
    rows = [{"instruction": f"Say {k}", "input": "now", "output": f"word {k * k} and {k}"} for k in range(30)]
    return prepared(folder, base, rows, data={"format": "alpaca"})


def check_losses(case: Prepared) -> None:
    plain = AutoModelForCausalLM.from_pretrained(case.ready.base.location, dtype=torch.float32).eval()
    tokenizer, end = case.ready.examples.prompt.tokenizer, case.ready.examples.prompt.end_id
    for count, found in case.measured().items():
        assert found.losses is not None
        asked = oracle_prompts(case, "alpaca", count)
        for row, ids, loss, tokens in zip(case.rows, asked, found.losses.loss, found.losses.tokens, strict=True):
            answer = [*tokenizer(row.answer, add_special_tokens=False).input_ids, end]
            assert tokens == len(answer)
            assert loss == pytest.approx(-plain_score(plain, ids, answer), abs=1e-3)


def examples_measured_too(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pronk.tokens.shots, "_last_answers", lambda example, _: example)


def examples_in_another_order(patch: pytest.MonkeyPatch) -> None:
    original = pronk.tokens.shots.after_shots
    patch.setattr(pronk.tokens.shots, "after_shots", lambda row, shots: original(row, shots[::-1]))


def one_example_too_few(patch: pytest.MonkeyPatch) -> None:
    original = pronk.tokens.shots.after_shots
    patch.setattr(pronk.tokens.shots, "after_shots", lambda row, shots: original(row, shots[1:]))


@pytest.mark.parametrize("fault", [examples_measured_too, examples_in_another_order, one_example_too_few])
def test_a_fault_shows(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = free(tmp_path, tiny_base)
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        check_losses(case)


def test_examples_are_read_once_for_each_number() -> None:
    """However many questions follow them: without families all would share no more than their common preamble."""
    from pronk.tokens.example import Example

    rng = np.random.default_rng(0)
    preamble, pool = rng.integers(0, 99, 20), rng.integers(0, 99, (8, 30))

    def prompt(count: int) -> Example:
        ids = np.concatenate([preamble, *pool[:count], rng.integers(0, 99, 10)]).astype(np.int64)
        return Example(ids, np.arange(len(ids)) >= len(ids) - 2)

    rows = [(count, prompt(count)) for count in (0, 2, 4, 8) for _ in range(12)]
    (shared,) = pack([Member(example, BASE_SLOT, family=count) for count, example in rows], 10**6)
    (mixed,) = pack([Member(example) for _, example in rows], 10**6)
    once = sum(20 + 30 * count for count in (0, 2, 4, 8))
    assert len(shared.ids_T) <= once + 12 * 4 * 10
    assert len(mixed.ids_T) > 5 * len(shared.ids_T) // 2


# --- which rows are shown


def leaks(splits: Splits, most: int, labels: Sequence[str], seed: int) -> bool:
    """Whether some example is a row of validation or test."""
    asked = {row.place for row in (*splits.validation, *splits.test)}
    return any(row.place in asked for row in choose_shots(splits, most, labels, seed))


def test_examples_are_rows_of_train_alone(tmp_path: Path, tiny_base: Path) -> None:
    splits = classified(tmp_path, tiny_base, "alpaca").ready.examples.splits
    assert not any(leaks(splits, 12, labels, seed) for seed in range(50) for labels in (LABELS, ()))
    # the planted fault: all rows are taken for train
    planted = replace(splits, train=(*splits.train, *splits.validation))
    assert any(leaks(planted, 12, LABELS, seed) for seed in range(50))


def test_examples_are_balanced_nested_and_hang_on_the_seed(tmp_path: Path, tiny_base: Path) -> None:
    splits = classified(tmp_path, tiny_base, "alpaca").ready.examples.splits
    drawn = choose_shots(splits, 9, LABELS, 1)
    assert len({row.place for row in drawn}) == 9
    for count in range(1, 10):
        each = [sum(row.label == label for row in drawn[:count]) for label in LABELS]
        assert max(each) - min(each) <= 1
        assert choose_shots(splits, count, LABELS, 1) == drawn[:count]
    assert choose_shots(splits, 9, LABELS, 2) != drawn


def test_what_the_base_cannot_read_is_told(tmp_path: Path, tiny_base: Path) -> None:
    """The tiny base reads 256 tokens."""
    case = classified(tmp_path, tiny_base, "alpaca")
    model = load_model(case.ready.base, torch.float32, torch.device("cpu"))
    told: list[str] = []
    splits = case.ready.examples.splits
    shots = choose_shots(splits, 12, LABELS, 3)
    console = Console(quiet=True)
    found = subject.measure_few_shot(case.ready, model, case.recipe, shots, [0, 12], console, tell=told.append)
    assert list(found) == [0]
    assert len(told) == 1
    assert told[0].startswith("12 examples in the prompt: left out, as 6 rows of 6 would take up to ")
    assert told[0].endswith("and the base reads 256")
