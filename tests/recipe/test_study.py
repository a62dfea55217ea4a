"""From a recipe to runs, trained runs and fleets."""

import pytest

from pronk.errors import RecipeError
from pronk.recipe import Recipe
from pronk.study import plan_study


def plan(study=None, base="smollm2", full=False, adapter=None, **train):
    return plan_study(
        Recipe.model_validate(
            {
                "base": base,
                "data": {"source": "a.jsonl", "format": "pairs"},
                "train": train,
                "study": study or {},
                "full": full,
                **({"adapter": adapter} if adapter else {}),
            }
        )
    )


def names(study):
    return [run.name for run in study.runs]


def trained(study):
    """The names of the runs that are trained as one, by fleet."""
    return [[[run.name for run in group.runs] for group in fleet.trained] for fleet in study.fleets]


# --- full fine-tuning -------------------------------------------------------------------------------


def test_runs_that_train_the_base_itself_have_a_fleet_each():
    study = plan({"full": [True, False], "train.learning_rate": [1e-4, 1e-5], "train.epochs": [1, 2]})
    assert trained(study) == [
        [[f"full-false_learning_rate-{rate}_epochs-{epochs}" for epochs in (1, 2)] for rate in ("0.0001", "1e-05")],
        *([[f"full-true_learning_rate-{rate}_epochs-{epochs}" for epochs in (1, 2)]] for rate in ("0.0001", "1e-05")),
    ]
    assert [fleet.full for fleet in study.fleets] == [False, True, True]
    assert [fleet.measures_base for fleet in study.fleets] == [True, False, False]
    assert {fleet.baseline for fleet in study.fleets} == {"base"}


def test_every_base_is_measured_once():
    study = plan({"base": ["a", "b"], "train.seed": [1, 2]}, full=True)
    assert [(fleet.base, fleet.baseline, fleet.measures_base) for fleet in study.fleets] == [
        ("a", "base_a", True), ("a", "base_a", False), ("b", "base_b", True), ("b", "base_b", False),
    ]  # fmt: skip


def test_the_adapter_of_a_study_is_that_of_its_other_runs():
    study = plan({"full": [False, True]}, adapter={"rank": 8})
    assert [run.recipe.full for run in study.runs] == [False, True]
    assert study.runs[0].recipe.adapter.rank == 8
    assert "adapter" not in study.runs[1].recipe.to_yaml()
    with pytest.raises(ValueError, match=r"study\.full: .*no adapter to vary"):
        plan({"full": [False, True], "adapter.rank": [1, 2]})


# --- grid -------------------------------------------------------------------------------------------


def test_a_recipe_without_a_study_is_one_run_and_its_baseline():
    study = plan(epochs=3)
    assert (names(study), study.runs[0].settings) == (["tuned"], {})
    assert study.runs[0].recipe == study.recipe
    assert (study.fleets[0].base, study.fleets[0].baseline) == ("smollm2", "base")
    assert trained(study) == [[["tuned"]]]


def test_every_combination_is_a_run_the_last_axis_fastest():
    study = plan({"adapter.targets": [["q_proj", "v_proj"], "all-linear"], "train.learning_rate": [1e-4, 0.5]})
    assert names(study) == [
        "targets-q_proj+v_proj_learning_rate-0.0001",
        "targets-q_proj+v_proj_learning_rate-0.5",
        "targets-all-linear_learning_rate-0.0001",
        "targets-all-linear_learning_rate-0.5",
    ]
    run = study.runs[1]
    assert run.settings == {"adapter.targets": ["q_proj", "v_proj"], "train.learning_rate": 0.5}
    assert (run.recipe.adapter.targets, run.recipe.train.learning_rate) == (["q_proj", "v_proj"], 0.5)
    assert {run.recipe.study == {} for run in study.runs} == {True}


def test_runs_keep_what_the_study_does_not_vary():
    study = plan({"adapter.rank": [4, 8]}, batch_size=3, dtype="fp32")
    assert [(run.recipe.train.batch_size, run.recipe.adapter.rank) for run in study.runs] == [(3, 4), (3, 8)]
    assert study.fleets[0].dtype == "fp32"


@pytest.mark.parametrize(
    ("axis", "name"),
    [
        ({"base": ["meta-llama/Llama-3-8B", "other"]}, "base-Llama-3-8B"),
        ({"base": ["/models/a b", "other"]}, "base-a-b"),
        ({"base": ["/models/tiny.gguf", "other"]}, "base-tiny.gguf"),
        ({"adapter.targets": [["model.layers.0/q"], "all-linear"]}, "targets-q"),
        ({"train.clip": [None, 1.0]}, "clip-none"),  # as recipes write them, not as Python does
        ({"full": [True, False]}, "full-true"),
        ({"train.evaluate_every": ["epoch", 5]}, "evaluate_every-epoch"),
        ({"train.learning_rate": [1e-5, 1e-4]}, "learning_rate-1e-05"),
    ],
)
def test_names_can_be_folders(axis, name):
    assert names(plan(axis))[0] == name


def test_an_axis_of_one_value_sets_it_and_tells_no_runs_apart():
    study = plan({"adapter.rank": [4], "train.epochs": [1, 2]})
    assert names(study) == ["epochs-1", "epochs-2"]
    assert [run.settings for run in study.runs] == [{"train.epochs": 1}, {"train.epochs": 2}]
    assert {run.recipe.adapter.rank for run in study.runs} == {4}


def test_a_value_that_cannot_work_names_its_key():
    with pytest.raises(RecipeError, match=r"^study: train\.epochs: found 'two', expected a whole number$"):
        plan({"train.epochs": [1, "two"]})


# --- shared prefixes --------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "constant_with_warmup"])
def test_runs_that_differ_in_epochs_alone_are_one_with_snapshots(schedule):
    study = plan({"train.epochs": [5, 2, 3]}, schedule=schedule, warmup_steps=5)
    assert names(study) == ["epochs-5", "epochs-2", "epochs-3"]
    assert trained(study) == [[["epochs-2", "epochs-3", "epochs-5"]]]
    group = study.fleets[0].trained[0]
    assert (group.name, group.recipe.train.epochs) == ("epochs-5", 5)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_not_under_a_schedule_that_looks_ahead(schedule):
    assert trained(plan({"train.epochs": [2, 3]}, schedule=schedule)) == [[["epochs-2"], ["epochs-3"]]]


def test_epochs_as_an_axis_beside_a_limit_of_steps_are_refused():
    with pytest.raises(ValueError, match=r"train\.max_steps sets the length"):
        plan({"train.epochs": [2, 3]}, max_steps=10)


def test_not_with_a_limit_of_steps():
    study = plan({"train.max_steps": [10], "train.seed": [1, 2]})
    assert trained(study) == [[["seed-1"], ["seed-2"]]]


def test_with_schedules_as_an_axis_each_is_judged_by_itself():
    study = plan({"train.epochs": [2, 3], "train.schedule": ["cosine", "constant"]})
    assert trained(study) == [
        [
            ["epochs-2_schedule-cosine"],
            ["epochs-2_schedule-constant", "epochs-3_schedule-constant"],
            ["epochs-3_schedule-cosine"],
        ]
    ]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("adapter.rank", [4, 8]),
        ("adapter.targets", [["q_proj"], "all-linear"]),
        ("train.seed", [1, 2]),
        ("train.learning_rate", [1e-4, 2e-4]),
        ("train.batch_size", [1, 2]),
        ("train.warmup_steps", [0, 5]),
        ("train.max_length", [64, 128]),
    ],
)
def test_runs_that_differ_in_anything_else_are_apart(key, values):
    study = plan({"train.epochs": [3, 2], key: values})
    groups = study.fleets[0].trained
    assert [[run.recipe.train.epochs for run in group.runs] for group in groups] == [[2, 3], [2, 3]]
    assert [[run.settings[key] for run in group.runs] for group in groups] == [[value] * 2 for value in values]


def test_groups_follow_the_order_of_their_first_run():
    study = plan({"adapter.rank": [8, 4], "train.epochs": [3, 1]})
    assert trained(study) == [[["rank-8_epochs-1", "rank-8_epochs-3"], ["rank-4_epochs-1", "rank-4_epochs-3"]]]


# --- fleets -----------------------------------------------------------------------------------------


def test_one_fleet_for_each_base_with_a_baseline_of_its_own():
    study = plan({"train.epochs": [1, 2], "base": ["org/a", "org/b"]})
    assert [(fleet.base, fleet.baseline) for fleet in study.fleets] == [
        ("org/a", "base_a"),
        ("org/b", "base_b"),
    ]
    assert trained(study) == [
        [["epochs-1_base-a", "epochs-2_base-a"]],
        [["epochs-1_base-b", "epochs-2_base-b"]],
    ]


def test_one_base_in_the_study_replaces_that_of_the_recipe():
    study = plan({"base": ["org/a"]}, base="org/b")
    assert [(fleet.base, fleet.baseline) for fleet in study.fleets] == [("org/a", "base")]


@pytest.mark.parametrize(
    "study",
    [
        {"base": ["org/model", "other/model"]},
        {"adapter.targets": [["a", "b"], ["a+b"]]},
        {"adapter.targets": [["a b"], ["a-b"]]},
    ],
)
def test_two_runs_of_one_name_are_refused(study):
    with pytest.raises(RecipeError, match=r"^study: two runs would get the same name: "):
        plan(study)


# --- quantized bases --------------------------------------------------------------------------------


def quantized(**keys):
    recipe = {"data": {"source": "a.jsonl", "format": "pairs"}, **keys}
    return plan_study(Recipe.model_validate(recipe))


def test_each_kind_of_a_base_is_a_fleet_with_its_own_baseline():
    study = quantized(study={"quantize": ["none", "nf4"], "train.epochs": [1, 2]}, double_quantization=False)
    kept = [(fleet.base, fleet.quantize, fleet.double_quantization, fleet.baseline) for fleet in study.fleets]
    assert kept == [("smollm2", "none", True, "base_none"), ("smollm2", "nf4", False, "base_nf4")]
    assert trained(study)[1] == [["quantize-nf4_epochs-1", "quantize-nf4_epochs-2"]]


def test_bases_and_kinds_together():
    study = quantized(study={"base": ["a/x", "a/y"], "quantize": ["int8", "nf4"]})
    assert [fleet.baseline for fleet in study.fleets] == ["base_x_int8", "base_x_nf4", "base_y_int8", "base_y_nf4"]


def test_one_kind_names_nothing():
    (fleet,) = quantized(quantize="nf4").fleets
    assert (fleet.baseline, fleet.quantize, fleet.double_quantization) == ("base", "nf4", True)


@pytest.mark.parametrize("keys", [{"quantize": "int8"}, {}, {"study": {"quantize": ["none", "int8"]}}])
def test_double_quantization_belongs_to_nf4(keys):
    with pytest.raises(ValueError, match="double_quantization: it belongs to quantize: nf4"):
        quantized(double_quantization=True, **keys)
