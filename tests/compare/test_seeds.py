"""Runs that differ in their seed alone: which are a group, what is said of it, and where it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import f1_score

from pronk.compare.crossed import Side, crossed, least_variance
from pronk.compare.items import Classified, Likelihood, RunItems
from pronk.compare.measures import Measure, measures
from pronk.compare.metrics import encode
from pronk.compare.pairs import compare_runs
from pronk.compare.sample_size import items_over_seeds
from pronk.compare.seeds import groups, seed_noise
from pronk.compare.summary import run_metrics
from pronk.compare.terminal import terminal_summary

LABELS = ("no", "maybe", "yes")


def answered(name: str, level: float, seed: int, n: int = 240, tokens: int = 3) -> RunItems:
    """A run that knows a share of the items, the easy ones first; the seed blurs which."""
    ease = np.random.default_rng(0).random(n)
    own = np.random.default_rng(seed)
    right = ease + own.normal(0, 0.15, n) < level
    keys = tuple(f"{k:03}" for k in range(n))
    labels = tuple(LABELS[k % 3] for k in range(n))
    said = tuple(LABELS[(k + (0 if ok else 1)) % 3] for k, ok in enumerate(right))
    loss = own.gamma(2.0, 1.0 - level, n) * tokens
    likelihood = Likelihood(np.array(keys), loss, np.full(n, tokens) + np.arange(n) % 4)
    return RunItems(name, likelihood, Classified(keys, labels, said, LABELS, None, None))


def study(
    rates: tuple[float, ...] = (0.6, 0.8), seeds: tuple[int, ...] = (1, 2, 3)
) -> tuple[list[Any], dict[str, Any]]:
    """A base and a run for each learning rate and seed, of which a higher rate knows more."""
    items = {"base": answered("base", 0.4, 99)}
    runs = [{"name": "base", "base": "llama", "baseline": True, "status": "finished", "settings": {}}]
    for rate in rates:
        for seed in seeds:
            name = f"learning_rate-{rate}_seed-{seed}"
            settings = {"train.learning_rate": rate, "train.seed": seed}
            runs.append({"name": name, "base": "llama", "baseline": False, "status": "finished", "settings": settings})
            items[name] = answered(name, rate, int(1000 * rate) + seed)
    for run in runs:
        run["metrics"] = run_metrics(items[run["name"]])
    return runs, items


def of_groups(comparisons: list[Any]) -> dict[tuple[str, str, str], Any]:
    return {(c["a"], c["b"], c["metric"]): c for c in comparisons if "seeds" in c}


def test_runs_that_differ_in_their_seed_alone_are_a_group() -> None:
    runs, _ = study()
    found = groups(runs)
    assert [(group.name, group.seeds) for group in found] == [
        ("learning_rate-0.6 (3 seeds)", (1, 2, 3)), ("learning_rate-0.8 (3 seeds)", (1, 2, 3)),
    ]  # fmt: skip
    assert found[0].settings == {"train.learning_rate": 0.6}
    assert found[0].names() == [run["name"] for run in runs[1:4]]


def test_seeds_alone_make_a_group_of_the_whole_study_and_one_run_is_none() -> None:
    runs = [{"name": f"seed-{k}", "base": "b", "settings": {"train.seed": k}} for k in (7, 8)]
    assert [group.name for group in groups(runs)] == ["tuned (2 seeds)"]
    assert groups(runs[:1]) == []
    assert groups([{"name": "tuned", "base": "b", "settings": {}}]) == []
    other = {**runs[1], "quantize": "nf4"}
    assert groups([runs[0], other]) == []


def test_groups_are_compared_with_base_best_and_neighbour_and_join_the_family() -> None:
    runs, items = study((0.6, 0.7, 0.8))
    comparisons = compare_runs(runs, items)
    found = of_groups(comparisons)
    names = {rate: f"learning_rate-{rate} (3 seeds)" for rate in (0.6, 0.7, 0.8)}
    assert {key[:2]: entry["reasons"] for key, entry in found.items()} == {
        **{("base", name): ["base"] for name in names.values()},
        (names[0.6], names[0.7]): ["one key: train.learning_rate"],
        (names[0.6], names[0.8]): ["best group", "one key: train.learning_rate"],
        (names[0.7], names[0.8]): ["best group", "one key: train.learning_rate"],
    }
    assert {key[2] for key in found} == {"accuracy", "macro_f1", "nll"}
    entry = found["base", names[0.8], "accuracy"]
    assert (entry["seeds"], entry["n"]) == ({"a": [], "b": [1, 2, 3]}, 240)
    assert entry["runs"] == {"a": ["base"], "b": [f"learning_rate-0.8_seed-{k}" for k in (1, 2, 3)]}
    accuracies = [run["metrics"]["accuracy"] for run in runs]
    assert entry["difference"] == pytest.approx(np.mean(accuracies[7:]) - accuracies[0])
    assert entry["verdict"] == "better"
    ranked = sorted(comparisons, key=lambda one: one["p_value"])
    assert ranked[0]["p_adjusted"] == pytest.approx(min(1.0, ranked[0]["p_value"] * len(comparisons)))
    assert json.loads(json.dumps(comparisons, allow_nan=False)) == comparisons


def test_two_seeds_of_one_setting_are_not_set_against_each_other() -> None:
    runs, items = study((0.8,), (1, 2, 3))
    reasons = {(c["a"], c["b"]): c["reasons"] for c in compare_runs(runs, items) if "seeds" not in c}
    assert not any("train.seed" in reason for found in reasons.values() for reason in found)


def test_without_seeds_a_study_is_compared_as_before() -> None:
    runs, items = study((0.6, 0.8), (1,))
    assert of_groups(compare_runs(runs, items)) == {}
    assert seed_noise(runs, items) == []


def test_a_group_of_which_one_run_lacks_an_evaluation_is_not_compared_in_it() -> None:
    runs, items = study((0.8,))
    lacking = items[runs[1]["name"]]
    items[runs[1]["name"]] = RunItems(lacking.name, None, lacking.classified)
    assert {key[2] for key in of_groups(compare_runs(runs, items))} == {"accuracy", "macro_f1"}


def test_losses_over_other_tokens_are_not_compared_and_never_across_bases() -> None:
    runs, items = study((0.6, 0.8))
    for run in runs[4:]:
        run["base"] = "other"
    assert not any(key[2] == "nll" and key[0] != "base" for key in of_groups(compare_runs(runs, items)))
    name = runs[2]["name"]
    items[name] = answered(name, 0.6, 5, tokens=4)
    assert {entry["metric"] for entry in seed_noise(runs[:4], items)} == {"accuracy", "macro_f1"}


def test_paired_seeds_without_anything_of_the_items_are_students_paired_test() -> None:
    """Where every item says the same, seeds are all the chance there is: scipy's paired t-test."""
    random = np.random.default_rng(3)
    a, b = random.normal(0, 1, (2, 6))
    flat = np.zeros((6, 200))
    found = crossed(Side(b, flat), Side(a, flat), paired=True)
    oracle = ttest_rel(b, a)
    assert found.degrees_of_freedom == pytest.approx(5 * (1 + 0.5**4))
    half = found.interval[1] - found.value
    assert half == pytest.approx(oracle.confidence_interval().high - found.value, rel=0.02)


def test_without_chance_in_the_seeds_the_items_decide() -> None:
    parts = np.random.default_rng(4).normal(0, 1, 400)
    parts -= parts.mean()
    found = crossed(Side(np.array([0.5, 0.5]), np.array([parts, parts])))
    error = parts.std(ddof=1) / 20
    assert found.interval == pytest.approx((0.5 - 1.96 * error, 0.5 + 1.96 * error), rel=1e-3)
    assert found.seed_share == 0


def test_where_nothing_differs_at_all_two_more_items_keep_it_from_being_certain() -> None:
    same = Side(np.array([0.8, 0.8]), np.zeros((2, 300)))
    none = crossed(same, same, paired=True)
    assert (none.interval, none.p_value) == ((0.0, 0.0), 1.0)
    counted = crossed(same, same, paired=True, least=least_variance(300))
    assert counted.interval == pytest.approx((-1.96 * 2**0.5 / 300, 1.96 * 2**0.5 / 300), rel=1e-3)


def test_the_parts_of_macro_f1_are_what_leaving_an_item_out_does() -> None:
    """Jackknife by scikit-learn: figure without item k is about the figure - part / (n - 1)."""
    items = answered("x", 0.7, 5, n=90)
    assert items.classified is not None
    true, said = (encode(names, LABELS) for names in (items.classified.labels, items.classified.predicted or ()))
    parts = measures(items)["macro_f1"].parts
    whole = f1_score(true, said, average="macro")
    without = [f1_score(np.delete(true, k), np.delete(said, k), average="macro") for k in range(90)]
    assert parts == pytest.approx((whole - np.array(without)) * 89, abs=0.06)
    assert parts.mean() == pytest.approx(0, abs=1e-12)


def test_seed_noise_says_what_a_group_does() -> None:
    runs, items = study((0.8,), (1, 2, 3, 4))
    accuracy = next(entry for entry in seed_noise(runs, items) if entry["metric"] == "accuracy")
    values = [run["metrics"]["accuracy"] for run in runs[1:]]
    assert accuracy["values"] == pytest.approx(values)
    assert accuracy["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert (accuracy["lowest"], accuracy["highest"]) == (min(values), max(values))
    assert accuracy["mean"] == pytest.approx(np.mean(values))
    assert accuracy["interval"][0] < accuracy["mean"] < accuracy["interval"][1]
    assert accuracy["group"] == "learning_rate-0.8 (4 seeds)"
    assert 0 <= accuracy["seed_share"] <= 1
    assert json.loads(json.dumps(seed_noise(runs, items))) == seed_noise(runs, items)


def test_a_measure_is_the_metric_that_the_summary_has() -> None:
    items = answered("x", 0.7, 5)
    found, metrics = measures(items), run_metrics(items)
    assert {metric: one.value for metric, one in found.items()} == pytest.approx(
        {metric: metrics[metric] for metric in found}
    )
    assert all(abs(float(one.parts.mean())) < 1e-12 for one in found.values() if isinstance(one, Measure))


def test_items_over_seeds_reach_what_they_promise_and_no_number_helps_against_seeds() -> None:
    assert items_over_seeds(0.1, 0.01, 0.0001, 3, 200, 0.05) is None
    assert items_over_seeds(0.0, 0.0, 0.01, 3, 200, 0.05) is None
    found = items_over_seeds(0.05, 0.0, 0.0025, 3, 200, 0.05)
    assert found == pytest.approx(200 * 0.0025 * (1.959964 + 0.841621) ** 2 / 0.05**2, rel=0.02)
    few, many = (items_over_seeds(0.05, 0.0001, 0.0025, seeds, 200, 0.05) for seeds in (3, 10))
    assert few is None  # Student's t with two degrees of freedom asks for 5.1 deviations of the seeds
    assert many is not None


def test_the_terminal_shows_groups_within_eighty_columns() -> None:
    runs, items = study()
    text = terminal_summary({"runs": runs, "comparisons": compare_runs(runs, items)})
    assert "over seeds" in text
    line = next(line for line in text.splitlines() if line.startswith("learning_rate-0.8 (3 seeds)"))
    assert "±" in line
    assert line.endswith("▲ better")
    assert max(map(len, text.splitlines())) <= 80


def test_the_report_shows_groups_among_the_comparisons(tmp_path: Path) -> None:
    from pronk.compare.report import render

    runs, items = study()
    comparisons = compare_runs(runs, items)
    (tmp_path / "study.json").write_text(json.dumps({"runs": runs, "comparisons": comparisons}))
    page = render(tmp_path)
    assert "learning_rate-0.6 (3 seeds) <span" in page
    assert "the best group of seeds" in page
    assert "crossed random effects" in page
