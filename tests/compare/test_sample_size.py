"""How many items would tell: at the number named, simulated studies find the difference four times in five."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from study_builder import build_study

from pronk.compare import pairs, words
from pronk.compare.conclusion import items_needed
from pronk.compare.pairs import compare_study
from pronk.compare.report import render
from pronk.compare.sample_size import items_for_mcnemar, items_from_interval, items_to_tell
from pronk.compare.statistics import holm
from pronk.compare.terminal import terminal_summary

DRAWS = 4000
ERROR = 3 * math.sqrt(0.8 * 0.2 / DRAWS)  # three Monte-Carlo errors: 0.019
TABLES = [(5, 12, 300), (12, 20, 300), (30, 40, 300), (95, 80, 900), (1, 4, 300)]
LEVELS = [0.05, 0.05 / 15]


def power_of_mcnemar(only_a: int, only_b: int, n: int, items: int, level: float) -> float:
    """How often the exact test, as scipy has it, finds the difference in `items` new items."""
    random = np.random.default_rng(5)
    shares = (only_a / n, only_b / n, 1 - (only_a + only_b) / n)
    cells, counts = np.unique(random.multinomial(items, shares, DRAWS)[:, :2], axis=0, return_counts=True)
    found = [x + y > 0 and binomtest(int(x), int(x + y)).pvalue < level for x, y in cells]
    return float(np.average(found, weights=counts))


def planned_without_discordance(only_a: int, only_b: int, n: int, level: float) -> int:
    """The planted fault: as many as if only the difference were discordant."""
    gap = abs(only_b - only_a)
    found = items_for_mcnemar(0, gap, n, level)
    assert found is not None
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("table", TABLES)
def test_at_the_number_named_the_exact_test_finds_it_four_times_in_five(
    table: tuple[int, int, int], level: float
) -> None:
    items = items_for_mcnemar(*table, level)
    assert items is not None
    assert 0.8 - ERROR <= power_of_mcnemar(*table, items, level) <= 0.85 + ERROR


@pytest.mark.parametrize("table", TABLES)
def test_the_simulation_sees_a_number_that_ignores_the_discordance(table: tuple[int, int, int]) -> None:
    assert power_of_mcnemar(*table, planned_without_discordance(*table, 0.05), 0.05) < 0.8 - ERROR


def test_where_only_one_run_is_ever_alone_in_being_right_the_number_is_safe() -> None:
    items = items_for_mcnemar(0, 5, 300, 0.05)
    assert items is not None
    assert 0.85 < power_of_mcnemar(0, 5, 300, items, 0.05) < 0.97


def test_connor_by_hand() -> None:
    # 20% discordant, 5 points apart: (1.95996 sqrt(0.2) + 0.84162 sqrt(0.2 - 0.0025))^2 / 0.0025 = 625.5
    assert items_to_tell(0.05, 0.2, 0.05) == 626
    # with the correction: root = (1.25055 + sqrt(1.25055^2 + 4 * 0.05)) / 0.1 = 25.79, squared 664.9
    assert items_for_mcnemar(15, 25, 200, 0.05) == items_for_mcnemar(25, 15, 200, 0.05) == 665
    # twice the difference at the same discordance takes about a quarter
    assert items_to_tell(0.1, 0.2, 0.05) == pytest.approx(626 / 4, rel=0.05)


def test_at_the_number_named_the_sign_flips_of_a_ratio_find_it_four_times_in_five() -> None:
    """Losses per token: 0.04 apart; answers of 1 to 8 tokens, the longer ones differing by more."""
    mean, spread = 0.04, 0.3
    mean_square = 25.5 * (mean**2 + spread**2) / 4.5**2  # 25.5 and 4.5: the means of tokens squared, and of tokens
    items = items_to_tell(mean, mean_square, 0.05)
    assert items is not None
    random = np.random.default_rng(2)
    difference = random.integers(1, 9, (DRAWS, items)) * random.normal(mean, spread, (DRAWS, items))
    # with so many items a flipped sum is normal, and its deviation the root of the sum of squares
    found = np.abs(difference.sum(axis=1)) > 1.959964 * np.sqrt((difference**2).sum(axis=1))
    assert found.mean() == pytest.approx(0.8, abs=ERROR)


def test_an_interval_gives_what_its_items_would() -> None:
    random = np.random.default_rng(3)
    difference = random.normal(0.03, 0.5, 4000)
    half = 1.959964 * difference.std() / math.sqrt(4000)
    from_items = items_to_tell(difference.mean(), float(np.mean(difference**2)), 0.01)
    mean = float(difference.mean())
    assert items_from_interval(mean, mean - half, mean + half, 4000, 0.01) == pytest.approx(from_items, abs=2)


def test_no_number_for_no_difference_or_beyond_a_million() -> None:
    assert items_for_mcnemar(7, 7, 300, 0.05) is None
    assert items_for_mcnemar(0, 0, 300, 0.05) is None
    assert items_for_mcnemar(400, 401, 900, 0.05) is None
    assert items_to_tell(0.0, 0.0, 0.05) is None
    assert items_to_tell(1e-9, 1.0, 0.05) is None


@pytest.mark.parametrize(("mean", "square", "level"), [(0.5, 0.1, 0.05), (0.1, 0.2, 0.0), (0.1, 0.2, 1.0)])
def test_what_cannot_be_is_refused(mean: float, square: float, level: float) -> None:
    with pytest.raises(ValueError, match="no such differences or level"):
        items_to_tell(mean, square, level)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A study of 150 items, with its comparisons in study.json."""
    folder = build_study(tmp_path_factory.mktemp("study"), items=150)
    comparisons = compare_study(folder)
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**study, "comparisons": comparisons}))
    return folder, comparisons


def test_ties_have_a_number_and_nothing_else_has(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    _, comparisons = compared
    ties = [entry for entry in comparisons if entry["verdict"] == "tie"]
    assert 0 < len(ties) < len(comparisons)
    assert {entry["metric"] for entry in ties if entry["items_needed"]} >= {"accuracy", "macro_f1", "nll"}
    assert all(entry["items_needed"] is None for entry in comparisons if entry["verdict"] != "tie")
    assert all(entry["items_needed"] is None or entry["items_needed"] > entry["n"] for entry in ties)
    assert not any("mean_square" in entry for entry in comparisons)


def test_a_tie_that_had_as_many_items_would_be_told_by_holm(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    """At 1.2 times the number, in the proportions seen, its p-value passes, while all others stay what they are."""
    _, comparisons = compared
    p_values = [entry["p_value"] for entry in comparisons]
    known = [k for k, entry in enumerate(comparisons) if entry["items_needed"] and entry["metric"] == "accuracy"]
    assert known
    for k in known:
        entry = comparisons[k]
        factor = entry["items_needed"] * 1.2 / entry["n"]
        alone = [round(entry[key] * factor) for key in ("only_a_right", "only_b_right")]
        told = [*p_values[:k], binomtest(alone[1], sum(alone)).pvalue, *p_values[k + 1 :]]
        assert holm(told)[k] < 0.05


def test_macro_f1_of_balanced_classes_needs_about_what_accuracy_does(
    compared: tuple[Path, list[dict[str, Any]]],
) -> None:
    _, comparisons = compared
    found = {(c["a"], c["b"], c["metric"]): c for c in comparisons if c["items_needed"]}
    both = [(found[key], found.get((*key[:2], "macro_f1"))) for key in found if key[2] == "accuracy"]
    alike = [(one, two) for one, two in both if two and abs(one["difference"] / two["difference"] - 1) < 0.1]
    assert alike
    for one, two in alike:
        assert two["items_needed"] == pytest.approx(one["items_needed"], rel=0.3)


def test_report_and_words_say_it(compared: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, comparisons = compared
    page = render(folder)
    assert "Items to tell" in page
    for entry in comparisons:
        if entry["items_needed"]:
            assert f'<td class="number nowrap">{words.about(entry["items_needed"])}</td>' in page
    assert "test items to tell" in page.split('id="ranking"')[0]


def test_the_sentences() -> None:
    def said(*needed: int | None) -> str:
        return items_needed([{"items_needed": count} for count in needed])

    assert said(2134) == "You would need about 2,200 test items to tell."
    assert said(None) == said(None, None) == " No number of test items that you will ever have would tell."
    assert "about 910 test items to tell the first of these, 15,000 for all" in said(15000, 901)
    assert "the last more than anyone has" in said(None, 901)
    assert items_needed([{"verdict": "tie"}]) == ""  # a study from before
    assert [words.about(count) for count in (7, 99, 100, 101, 98_700, 991_000)] == [
        "7", "99", "100", "110", "99,000", "1,000,000",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "room"), [("run", True), ("a-name-of-a-run-that-is-as-long-as-they-get", False)])
def test_the_terminal_says_it_where_there_is_room(name: str, room: bool) -> None:
    metrics = {"accuracy": 0.5, "generated_accuracy": 0.5, "macro_f1": 0.5, "perplexity": 10.0}
    tuned = {"name": name, "base": "b", "metrics": metrics}
    entry = {"a": "b", "b": name, "metric": "accuracy", "verdict": "tie", "items_needed": 2134}
    study = {"runs": [{**tuned, "name": "b", "baseline": True}, tuned], "comparisons": [entry]}
    text = terminal_summary(study)
    assert "= tie" in text
    assert ("= tie, 2,200 items to tell" in text) == room
    assert max(map(len, text.splitlines())) <= 80


def test_the_number_is_for_the_level_of_holm_s_next_step() -> None:
    def entry(p_value: float, only_a: int, only_b: int) -> dict[str, Any]:
        counts = {"only_a_right": only_a, "only_b_right": only_b, "n": 300}
        return {"metric": "accuracy", "difference": (only_b - only_a) / 300, "p_value": p_value, **counts}

    comparisons = [entry(0.0001, 5, 40), entry(0.2, 12, 20), entry(0.3, 30, 40)]
    pairs.judge(comparisons)
    assert [c["verdict"] for c in comparisons] == ["better", "tie", "tie"]
    assert comparisons[1]["items_needed"] == items_for_mcnemar(12, 20, 300, 0.05 / 2)
    assert comparisons[2]["items_needed"] == items_for_mcnemar(30, 40, 300, 0.05 / 2)
