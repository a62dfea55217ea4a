"""What the planner takes for the work is what the fleet and the evaluation will really be given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pronk.doctor import workload
from pronk.doctor.workload import answered, load_of, longest_example, only_read, round_members, trainings, work_of
from pronk.evaluate import likelihood
from pronk.evaluate.batches import prompt_batches
from pronk.evaluate.choice import choose
from pronk.model.adapter import AdapterShape
from pronk.model.memory.choice import BUDGETS
from pronk.model.memory.costs import Load
from pronk.model.random_model import random_model
from pronk.tokens.pack import Member, pack
from pronk.tokens.prompt import Example
from pronk.train.fleet import Fleet, RunPlan


def examples(count: int, most: int, beginning: int = 0) -> list[Example]:
    draw = np.random.default_rng(count)
    common, made = draw.integers(3, 500, beginning), []
    for _ in range(count):
        ids = np.concatenate([common, draw.integers(3, 500, int(draw.integers(8, most)))])
        made.append(Example(ids, np.arange(len(ids)) > len(ids) - 4))
    return made


def runs(count: int = 3, most: int = 90, beginning: int = 0) -> list[RunPlan]:
    rows = examples(50, most, beginning)
    return [
        RunPlan(f"r{k}", rows, AdapterShape(4, 8.0), 7 + 3 * k, 8, 1e-3, seed=k, dropout=0.1 * (k == 1))
        for k in range(count)
    ]


def test_rounds_are_those_of_the_fleet() -> None:
    from transformers import LlamaConfig

    plans = runs(beginning=20)
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1
    )
    fleet = Fleet(random_model(config, 1, torch.float32, torch.device("cpu")), plans, 300)
    for step in (0, 4, 8, 12):
        theirs = fleet._packed({slot: step for slot, plan in enumerate(plans) if step < plan.steps}).batches
        ours = pack([*round_members(plans, step)], 300)
        assert [load_of(batch) for batch in ours] == [load_of(batch) for batch in theirs]


@pytest.mark.parametrize("beginning", [0, 30])
def test_a_study_s_sums_and_largest_micro_batches(beginning: int) -> None:
    """All rounds of a short study laid out, against what is told of it."""
    plans = runs(beginning=beginning)
    (found,) = trainings(plans, [512])
    everything = [load_of(batch) for step in range(13) for batch in pack([*round_members(plans, step)], 512)]
    assert found.largest[0].tokens == max(load.tokens for load in everything)
    assert max(load.targets for load in found.largest) == max(load.targets for load in everything)
    assert max(load.seen for load in found.largest) == max(load.seen for load in everything)
    assert found.batches == pytest.approx(len(everything), rel=0.1)
    assert found.tokens == pytest.approx(sum(load.tokens for load in everything), rel=0.1)


def test_budgets_that_change_nothing_are_left_out() -> None:
    """Three runs of eight short examples: no round has 2,048 tokens."""
    found = [*trainings(runs(), BUDGETS)]
    assert [one.budget for one in found] == [1024, 2048]
    assert found[-1].batches == 13


def test_attention_is_counted_in_pairs() -> None:
    """Two sequences of 4 and 6 tokens; and two of 12 that look back at their common 10."""
    plain = [Member(Example(np.arange(n + 1), np.arange(n + 1) == n), key=0) for n in (4, 6)]
    assert load_of(pack(plain, 100)[0]) == Load(10, 2, 0, (16 + 36) // 2)
    common = np.arange(10)
    ends = [np.array([20, 21, 22]), np.array([30, 31, 32])]
    alike = [Member(Example(np.concatenate([common, end]), np.arange(13) == 12)) for end in ends]
    # 10 of the beginning, and twice 2 that see 10 others and themselves
    assert load_of(pack(alike, 100)[0]) == Load(14, 2, 10 + 12 + 12, (100 + 2 * (4 + 2 * 2 * 10)) // 2)


@pytest.fixture
def prepared(tmp_path: Path, tiny_base: Path) -> Callable[..., Any]:
    """Examples of a small study, and its recipe with some keys of its own."""
    from pronk.data.split import read_splits
    from pronk.doctor.ready import prepare
    from pronk.recipe.schema import validated
    from pronk.study import plan_study

    def make(**keys: Any) -> tuple[Any, Any]:
        lines = [f'{{"text": "Item {n} was {n * n}.", "label": "{"ab"[n % 2]}"}}\n' for n in range(60)]
        (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
        data = {"source": str(tmp_path / "rows.jsonl"), "format": "classify", "split": {"validation": 4, "test": 20}}
        recipe = validated({"base": str(tiny_base), "data": data, **keys}, "recipe")
        (ready,) = prepare(plan_study(recipe), *read_splits(recipe.data), lambda _: None, elsewhere=True)
        return ready.examples, recipe

    return make


@pytest.mark.parametrize("evaluate", [["likelihood"], ["likelihood", "classify"], ["similarity"], ["exact"]])
def test_evaluation_batches_grow_until_one_holds_all(prepared: Callable[..., Any], evaluate: list[str]) -> None:
    made, recipe = prepared(evaluate=evaluate)
    plans = [RunPlan("r", made.train(None), AdapterShape(4, 8.0), 3, 8, 1e-3)]
    work = work_of(plans, made, recipe, models=4)
    sizes = [(load.tokens, load.rows, load.cells) for _, (load, *_) in work.evaluations]
    assert sizes == sorted(sizes)
    last = work.evaluations[-1][1][0]
    if evaluate != ["likelihood"]:
        assert last.rows == 3 * 20  # the base answers in a batch of its own
        longest = max(len(example.prompt_ids) for example in made.test)
        assert last.cells >= last.rows * longest
    assert work.rounds == 3
    assert longest_example(plans) < 128


def test_the_most_of_any_batch_counts() -> None:
    """One long prompt is in the first batch, with few rows; of the short ones there are far more in another."""
    (long,), short = examples(1, 3000), examples(300, 20)
    found = answered([long, *short], [-1, 0], 2000, 10, [[5, 6, 2], [7, 2]])
    batches = prompt_batches([one.prompt_ids.tolist() for one in [long, *short]], [-1, 0], 2000, 10)
    assert len(batches[0]) < 6
    assert found.rows == max(map(len, batches)) > 50
    assert found.targets == found.rows * 5
    assert found.tokens > 1000


@pytest.mark.parametrize("beginning", [0, 30])
def test_what_is_only_read_comes_in_the_batches_that_will_come(beginning: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Common beginnings are read once, and no batch is fuller than the items make it; many items are taken for more."""
    rows = examples(40, 90, beginning)
    batches = pack([Member(row, slot) for slot in (-1, 0) for row in rows], 700)
    found = only_read(rows, 2, 700)
    assert found.tokens == max(len(batch.ids_T) for batch in batches)
    assert found.targets == max(len(batch.rows_N) for batch in batches)
    monkeypatch.setattr(workload, "PACKED", 0)
    assert only_read(rows, 2, 700).tokens == 700 >= found.tokens
    assert only_read(rows, 2, 10**6).tokens >= only_read(rows[:1], 1, 10**6).tokens


def test_without_a_test_nothing_is_evaluated(prepared: Callable[..., Any]) -> None:
    made, recipe = prepared()
    made.test.clear()
    plans = [RunPlan("r", made.train(None), AdapterShape(4, 8.0), 3, 8, 1e-3)]
    assert work_of(plans, made, recipe, models=2).evaluations == ()


@pytest.mark.parametrize("budget", [64, 200, 10**5])
def test_batches_of_choices_are_those_that_will_come(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `choose` reads and scores at once; many questions are taken for full batches."""
    rng = np.random.default_rng(2)
    prompts = [rng.integers(3, 90, length) for length in rng.integers(5, 40, 30)]
    ids = [[rng.integers(3, 90, size).tolist() for size in rng.integers(1, 7, 4)] for _ in prompts]
    tests = [Example(np.append(one, 2), np.arange(len(one) + 1) == len(one)) for one in prompts]
    made = SimpleNamespace(test=tests, choice_ids=lambda: ids)
    seen: list[Any] = []
    monkeypatch.setattr(likelihood, "evaluation_losses", lambda _, __, batch: seen.append(batch) or torch.zeros(1))
    choose(None, None, [one.tolist() for one in prompts], ids, (-1, 0, 1), budget)  # type: ignore[arg-type]
    found = workload.chosen_from(made, 3, budget)  # type: ignore[arg-type]
    assert found.tokens == max(len(batch.ids_T) for batch in seen)
    assert found.targets == max(len(batch.rows_N) for batch in seen)
    monkeypatch.setattr(workload, "PACKED", 0)
    assert workload.chosen_from(made, 3, budget).tokens >= 0.9 * min(found.tokens, budget)  # type: ignore[arg-type]
