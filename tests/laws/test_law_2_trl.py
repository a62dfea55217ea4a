"""Law 2: one run equals TRL's SFTTrainer: the same ids, masks, start, order, schedule and clipping.

Five runs of one fleet against five trainers, so that what runs do to one another shows as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import (
    Fault,
    attention_across,
    beginnings_unlearned,
    beginnings_unseen,
    columns_shifted,
    end_token_unsupervised,
    mean_of_examples,
    mean_of_micro_batches,
    one_clip_for_all,
    order_changed,
    positions_not_restarted,
    shared_adam_step,
    targets_shifted,
)
from oracle_trl import DoubleLoss, Recording, train_with_trl, word_tokenizer
from tiny import (
    TIGHT,
    State,
    apart,
    make_examples,
    packed_model,
    plain_model,
    random_state,
    shorter,
    start_fleet,
    train,
)
from transformers import AutoModelForCausalLM

from pronk.data.conversation import Conversation, Message
from pronk.errors import BaseModelError
from pronk.model.adapter import AdapterShape
from pronk.model.load import find_base, load_model, load_tokenizer
from pronk.tokens.prompt import Example, Prompt
from pronk.train.fleet import Fleet, RunPlan, Step

# transformers 5.23 warns of its own arguments, which TRL 1.16 uses
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning"),
]

BUDGET = 40  # several micro-batches in each round
# Single precision: roundings of 1e-7 of losses around 5, and of gradients, which Adam makes larger
# where a gradient is nearly zero (6e-7 seen after 50 steps of 1e-3).
SINGLE_LOSS, SINGLE_WEIGHT = 1e-5, 2e-5
# TRL's own log-probabilities are float32 in a float64 model.
TRL_WEIGHT = 1e-6


def plans() -> list[RunPlan]:
    """As in the other laws, but dropout 0, since the generators differ, and epochs of whole batches."""
    return [
        RunPlan(
            "attention", make_examples(12, 1, beginning=10),
            AdapterShape(4, 8, ("q_proj", "v_proj")), 50, 3, 1e-3, clip=1.0,
        ),
        RunPlan("all", make_examples(16, 2), AdapterShape(6, 3), 50, 4, 1e-3, clip=None, seed=3),
        RunPlan(
            "down", make_examples(8, 3, beginning=13),
            AdapterShape(2, 16, ("down_proj",)), 37, 2, 2e-3, clip=0.2, seed=4,
        ),
        RunPlan(
            "linear", make_examples(15, 4, beginning=9),
            AdapterShape(3, 3, ("k_proj", "o_proj", "gate_proj")), 50, 5, 1e-3,
            schedule="linear", warmup_steps=7, weight_decay=0.1, clip=0.05, seed=5,
        ),
        RunPlan(
            "cosine", make_examples(7, 5), AdapterShape(1, 2), 23, 1, 1e-3,
            schedule="cosine", warmup_steps=3, clip=0.5, seed=6,
        ),
    ]  # fmt: skip


def starts(runs: Sequence[RunPlan], dtype: torch.dtype) -> list[State]:
    fleet = start_fleet(packed_model(dtype), runs, BUDGET)
    return [fleet.adapter.state(slot) for slot in range(len(runs))]


def by_pronk(runs: Sequence[RunPlan], dtype: torch.dtype) -> tuple[dict[str, State], dict[str, list[Step]]]:
    return train(start_fleet(packed_model(dtype), runs, BUDGET))


Trained = dict[str, tuple[State, list[dict[str, float]]]]


def by_trl(
    runs: Sequence[RunPlan], dtype: torch.dtype, folder: Path, trainer: type[Recording], accumulate: int = 1
) -> Trained:
    tokenizer = word_tokenizer()
    return {
        plan.name: train_with_trl(plain_model(dtype), plan, start, folder, tokenizer, accumulate, trainer)
        for plan, start in zip(runs, starts(runs, dtype), strict=True)
    }


def differences(
    ours: tuple[dict[str, State], dict[str, list[Step]]], theirs: Trained
) -> tuple[float, float, float, float]:
    """The largest of all runs and steps: in weights, losses, gradient norms and learning rates."""
    weights, steps = ours
    weight = max(apart(weights[name], state) for name, (state, _) in theirs.items())
    pairs = [
        (mine, other)
        for name, (_, logged) in theirs.items()
        for mine, other in zip(steps[name], logged, strict=True)
    ]  # fmt: skip
    return (
        weight,
        max(abs(mine.loss - other["loss"]) for mine, other in pairs),
        max(abs(mine.gradient_norm - other["gradient_norm"]) for mine, other in pairs),
        max(abs(mine.learning_rate - other["learning_rate"]) for mine, other in pairs),
    )


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """TRL in float64, log-probabilities included."""
    return by_trl(plans(), torch.float64, tmp_path_factory.mktemp("trl"), DoubleLoss)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same for twelve steps, to show faults against."""
    return by_trl(shorter(plans(), 12), torch.float64, tmp_path_factory.mktemp("trl"), DoubleLoss)


@pytest.fixture(scope="module")
def own_loss(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three of the runs by TRL in float64, its log-probabilities in float32."""
    return by_trl(plans()[1:4], torch.float64, tmp_path_factory.mktemp("trl"), Recording)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two of the runs by TRL in float32."""
    return by_trl([plans()[1], plans()[3]], torch.float32, tmp_path_factory.mktemp("trl"), Recording)


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run by TRL whose steps are two micro-batches each."""
    return by_trl(plans()[1:2], torch.float64, tmp_path_factory.mktemp("trl"), DoubleLoss, accumulate=2)


def test_runs_equal_trl_in_double_precision(double: Trained) -> None:
    weight, loss, norm, rate = differences(by_pronk(plans(), torch.float64), double)
    assert weight < TIGHT
    assert loss < TIGHT
    assert norm < TIGHT
    assert rate < 1e-15


def test_runs_equal_trl_with_trls_own_loss(own_loss: Trained) -> None:
    weight, loss, norm, rate = differences(by_pronk(plans()[1:4], torch.float64), own_loss)
    assert weight < TRL_WEIGHT
    assert loss < SINGLE_LOSS
    assert norm < SINGLE_LOSS
    assert rate < 1e-15


def test_runs_equal_trl_in_single_precision(single: Trained) -> None:
    weight, loss, norm, _ = differences(by_pronk([plans()[1], plans()[3]], torch.float32), single)
    assert weight < SINGLE_WEIGHT
    assert loss < SINGLE_LOSS
    assert norm < SINGLE_LOSS


def test_a_run_equals_trl_with_gradient_accumulation(accumulated: Trained) -> None:
    """Four examples at once are two and two: TRL divides by the target tokens of the whole step."""
    weight, loss, _, _ = differences(by_pronk(plans()[1:2], torch.float64), accumulated)
    assert weight < TIGHT
    assert loss < TIGHT


@pytest.mark.parametrize(
    "fault",
    [targets_shifted, end_token_unsupervised, columns_shifted, mean_of_micro_batches, mean_of_examples,
     one_clip_for_all, shared_adam_step, attention_across, beginnings_unseen, beginnings_unlearned, order_changed],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_a_fault_shows(few: Trained, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    weight, loss, _, _ = differences(by_pronk(shorter(plans(), 12), torch.float64), few)
    assert weight > 100 * TRL_WEIGHT
    assert loss > 100 * SINGLE_LOSS


def test_positions_that_are_not_restarted_show(double: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotary positions only count as differences, so without dropout this fault is nothing but the
    rounding of larger angles (to float32, in transformers): small, and still seen. Law 4 shows it in the
    large, on a model whose frequencies depend on the length."""
    positions_not_restarted(monkeypatch)
    weight, loss, _, _ = differences(by_pronk(plans(), torch.float64), double)
    assert max(weight, loss) > TIGHT


@dataclass(frozen=True)
class Real:
    """A run of three steps on SmolLM2, and what TRL makes of it."""

    base: Any
    plan: RunPlan
    start: State
    trained: State
    logged: list[dict[str, float]]


@pytest.fixture(scope="module")
def on_smollm2(tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Real text, two examples a step, in fp32."""
    try:
        base = find_base("smollm2")
    except BaseModelError as error:
        pytest.skip(str(error))
    tokenizer = load_tokenizer(base)
    texts = ["Profit rose.", "Sales fell by 12 % in Q3.", "매출이 늘었다.", "The plant will close in May; 300 jobs go."]
    conversations = [
        Conversation((Message("user", text), Message("assistant", text[::-1])), f"row {i}")
        for i, text in enumerate(texts)
    ]
    examples = Prompt("chat", tokenizer).examples(conversations, 256)
    plan = RunPlan("smollm2", examples, AdapterShape(8, 16), 3, 2, 1e-3, clip=1.0)
    model = load_model(base, torch.float32, torch.device("cpu"))
    start = random_state(Fleet(model, [plan], 150).adapter.state(0), plan.name, 0.02)
    plain = AutoModelForCausalLM.from_pretrained(base.location, dtype=torch.float32)
    trained, logged = train_with_trl(plain, plan, start, tmp_path_factory.mktemp("trl"), tokenizer)
    return Real(base, plan, start, trained, logged)


@pytest.mark.slow
def test_smollm2_equals_trl(on_smollm2: Real) -> None:
    """Three steps of a real model, in fp32, on real text."""
    real, plan = on_smollm2, on_smollm2.plan
    endless = [
        Example(e.ids, e.target & (np.arange(len(e.ids)) < len(e.ids) - 1)) for e in plan.examples
    ]  # fmt: skip
    model = load_model(real.base, torch.float32, torch.device("cpu"))
    fleet = Fleet(model, [replace(plan, examples=endless), plan], 150)
    for slot in (0, 1):
        fleet.adapter.load(slot, real.start)
    steps: list[Step] = []
    fleet.train(steps.extend)
    ours, theirs = [step for step in steps if step.slot == 1], real.logged
    assert [step.loss for step in ours] == pytest.approx([step["loss"] for step in theirs], abs=1e-4)
    assert [step.gradient_norm for step in ours] == pytest.approx([step["gradient_norm"] for step in theirs], rel=1e-3)
    moved, error = _moved(fleet.adapter.state(1), real.trained, real.start)
    assert error < 0.01 * moved
    # the run beside it, which does not learn to stop, ends elsewhere: the comparison can tell
    assert _moved(fleet.adapter.state(0), real.trained, real.start)[1] > 0.1 * moved


def _moved(ours: State, theirs: State, start: State) -> tuple[float, float]:
    """Root mean square of how far TRL's weights moved, and of how far ours end from them.

    Not the maximum: where a gradient is nearly zero Adam turns its rounding into a full step.
    """

    def size(one: State, other: State) -> float:
        return float(torch.cat([(one[key] - other[key]).flatten() for key in one]).square().mean().sqrt())

    return size(theirs, start), size(ours, theirs)
