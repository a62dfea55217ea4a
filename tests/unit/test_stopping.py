"""The stopping rule against transformers', and which checkpoints stay."""

import math

import numpy as np
import pytest

from pronk.train.retention import superfluous
from pronk.train.stopping import Rule, Watch, early, never


def played(rule: Rule, losses: list[float]) -> tuple[Watch, int]:
    """What is known at the end, and after how many evaluations that was."""
    watch = Watch()
    for number, loss in enumerate(losses, start=1):
        watch = rule(watch, 10 * number, loss)
        if watch.stop:
            return watch, number
    return watch, len(losses)


def played_by_transformers(losses: list[float], patience: int, folder: str) -> tuple[float | None, int]:
    """The same by EarlyStoppingCallback, with the best metric kept as its Trainer keeps it."""
    from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

    callback = EarlyStoppingCallback(early_stopping_patience=patience)
    arguments = TrainingArguments(
        folder, load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False,
        eval_strategy="steps", save_strategy="steps", report_to=[], use_cpu=True,
    )  # fmt: skip
    state, control = TrainerState(), TrainerControl()
    for number, loss in enumerate(losses, start=1):
        callback.on_evaluate(arguments, state, control, metrics={"eval_loss": loss})
        if state.best_metric is None or loss < state.best_metric:
            state.best_metric = loss
        if control.should_training_stop:
            return state.best_metric, number
    return state.best_metric, len(losses)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_it_stops_where_transformers_stops(patience: int, tmp_path: object) -> None:
    random = np.random.default_rng(patience)
    for _ in range(40):
        losses = np.round(np.linspace(2, 1, 15) + random.normal(0, 0.2, 15).cumsum() / 2, 1).tolist()
        watch, number = played(early(patience, 0.0), losses)
        assert (watch.best_loss, number) == played_by_transformers(losses, patience, str(tmp_path))
        assert watch.best_step == 10 * (1 + losses.index(min(losses[:number])))


@pytest.mark.parametrize(
    ("losses", "min_delta", "stops_after", "best"),
    [
        ([1.0, 0.99, 0.98, 0.97], 0.1, 3, 30),  # lower each time, never by enough
        ([1.0, 0.95, 0.89, 0.85, 0.84], 0.1, 5, 50),  # what creeps counts once it adds up
        ([1.0, 1.0, 1.0], 0.0, 3, 10),  # equal is no improvement, and the first of equals is the best
        ([math.nan, 2.0, math.nan, 1.9], 0.0, 4, 40),
        ([math.nan, math.nan], 0.0, 2, None),
    ],
)
def test_what_counts_as_an_improvement(
    losses: list[float], min_delta: float, stops_after: int, best: int | None
) -> None:
    watch, number = played(early(2, min_delta), losses)
    assert (number, watch.best_step) == (stops_after, best)


def test_without_early_stopping_the_best_is_followed_to_the_end() -> None:
    watch, number = played(never(), [3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    assert (number, watch.best_step, watch.best_loss, watch.stop) == (6, 20, 1.0, False)


@pytest.mark.parametrize(
    ("keep", "best", "gone"),
    [
        (None, {3}, set()),
        (None, {6}, {3}),  # 3 was saved for being the best of its time only
        (1, {3}, {2, 4, 6}),
        (2, {2}, {3, 4}),
        (1, {8}, {2, 3, 4, 6}),
        (5, {2, 3}, set()),
    ],
)
def test_the_best_and_the_newest_always_stay(keep: int | None, best: set[int], gone: set[int]) -> None:
    assert superfluous([2, 3, 4, 6, 8], {2, 4, 6, 8}, best, keep) == gone


def test_the_newest_stays_even_where_it_was_not_due() -> None:
    assert superfluous([2, 4, 5], {2, 4}, {2}, 1) == set()
