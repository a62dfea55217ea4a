"""The keys that say when a run stops, what is kept of it, and who is told."""

import pytest

from pronk.errors import RecipeError
from pronk.recipe import Recipe
from pronk.recipe.schema import validated

PLAIN = {"data": {"source": "a.jsonl", "format": "pairs"}}


def recipe(**train: object) -> Recipe:
    return validated({**PLAIN, "train": train}, "r.yaml")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"stop": "late"}, "train.stop: found 'late', expected one of none, early"),
        ({"patience": 0}, "train.patience: found 0"),
        ({"min_delta": -0.1}, "train.min_delta: found -0.1"),
        ({"keep": 0}, "train.keep: found 0"),
        ({"early_stopping": 3}, "unknown key train.early_stopping"),
        ({"trackers": ["tensorbord"]}, "train.trackers: found 'tensorbord', expected one of tensorboard, wandb"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(train: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(**train)
    assert message in str(caught.value)


def test_early_stopping_without_validation_is_refused_in_a_study_too() -> None:
    data = {**PLAIN["data"], "split": {"validation": 0}}
    with pytest.raises(RecipeError, match=r"train\.stop: early needs validation rows"):
        validated({"data": data, "train": {"stop": "early"}}, "r.yaml")
    from pronk.study import plan_study

    with pytest.raises(RecipeError, match=r"train\.stop: early needs validation rows"):
        plan_study(validated({"data": data, "study": {"train.stop": ["none", "early"]}}, "r.yaml"))


def test_runs_that_stop_differently_share_no_prefix() -> None:
    from pronk.study import plan_study

    study = {"train.epochs": [2, 5], "train.stop": ["none", "early"], "train.patience": [1, 2]}
    (fleet,) = plan_study(validated({**PLAIN, "study": study}, "r.yaml")).fleets
    assert [len(trained.runs) for trained in fleet.trained] == [2, 2, 2, 2]
