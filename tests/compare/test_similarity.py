"""ROUGE-L and chrF of free answers: metrics, comparisons, and where they are shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test
from study_builder import HOSTILE, build_study
from test_report import Page, assert_harmless

from pronk.compare import item_by_item
from pronk.compare.items import RunItems, Similarity, read_items
from pronk.compare.pairs import compare_runs, primary_metric
from pronk.compare.report import write_report
from pronk.compare.summary import run_metrics
from pronk.compare.terminal import terminal_summary
from pronk.errors import StudyError


def compared(name: str, figures: np.ndarray, ids: str = "") -> RunItems:
    keys = tuple(f"{ids}{k:03}" for k in range(len(figures)))
    ended = np.arange(len(figures)) > 2
    return RunItems(name, similarity=Similarity(keys, ("yes",) * len(figures), figures, figures / 2, ended))


def run(name: str, items: RunItems, base: str = "llama") -> dict[str, Any]:
    plain = {"name": name, "base": base, "baseline": name == base, "status": "finished", "settings": {}}
    return {**plain, "metrics": run_metrics(items)}


def study(n: int = 9, gain: float = 0.1) -> tuple[list[dict[str, Any]], dict[str, RunItems]]:
    random = np.random.default_rng(3)
    before = random.random(n) * 0.5
    items = {"llama": compared("llama", before), "tuned": compared("tuned", before + gain * random.random(n))}
    return [run(name, found) for name, found in items.items()], items


def test_metrics_are_means_over_items_and_a_count() -> None:
    assert run_metrics(compared("a", np.array([0.0, 0.2, 0.4, 1.0]))) == {
        "rouge_l": pytest.approx(0.4), "chrf": pytest.approx(0.2), "unended": 3,
    }  # fmt: skip


def test_the_p_value_is_that_of_scipys_exact_permutation_test() -> None:
    runs, items = study()
    rouge, chrf = compare_runs(runs, items)
    a, b = (items[name].similarity.rouge_l for name in ("llama", "tuned"))
    exact = permutation_test(
        (a, b), lambda x, y, axis: np.mean(y - x, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert (rouge["metric"], chrf["metric"]) == ("rouge_l", "chrf")
    assert rouge["difference"] == pytest.approx(float(np.mean(b - a))) == 2 * chrf["difference"]
    assert rouge["p_value"] == pytest.approx(exact, abs=0.002)
    assert rouge["interval"][0] < rouge["difference"] < rouge["interval"][1]
    assert rouge["verdict"] == "better"  # more is better, unlike a loss


def test_a_loss_of_overlap_is_worse_and_chance_is_a_tie() -> None:
    assert {entry["verdict"] for entry in compare_runs(*study(20, -0.2))} == {"worse"}
    runs, items = study(20, 0.0)
    assert {entry["verdict"] for entry in compare_runs(runs, items)} == {"tie"}


def test_a_verdict_with_the_wrong_sign_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    original = item_by_item._ratios
    monkeypatch.setattr(item_by_item, "_ratios", lambda a, b, items: original(b, a, items))
    with pytest.raises(AssertionError):
        test_the_p_value_is_that_of_scipys_exact_permutation_test()


def test_other_items_cannot_be_compared() -> None:
    runs, items = study()
    items["tuned"] = compared("tuned", np.full(9, 0.5), ids="other ")
    with pytest.raises(StudyError, match="different items"):
        compare_runs(runs, items)


def test_rouge_ranks_where_there_is_neither_accuracy_nor_loss() -> None:
    runs, _ = study()
    assert primary_metric(runs) == "rouge_l"
    runs[0]["metrics"]["nll"] = 1.0
    assert primary_metric(runs) == "nll"


def test_items_survive_the_file(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=12, similarity=True)
    found = read_items(folder, "qv-2").similarity
    assert found is not None
    assert found.answers[1] == "A summary of 1"
    assert found.ended.sum() == 11
    assert np.allclose(found.chrf, found.rouge_l / 2)


def test_report_and_terminal_show_them(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=40, classify=False, similarity=True)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.section("answers")
    for text in ("ROUGE-L", "chrF", "A summary of 3", "Answers without an end", "Lin 2004", ", cut"):
        assert text in page.text
    said = terminal_summary(json.loads((folder / "study.json").read_text()))
    assert "ROUGE-L   chrF" in said
    assert max(map(len, said.splitlines())) <= 80


def test_hostile_answers_are_shown_and_never_run(tmp_path: Path) -> None:
    page = assert_harmless(write_report(build_study(tmp_path, 12, hostile=True, similarity=True)).read_text("utf-8"))
    answers = page.text[page.text.index("Answers side by side") :]
    assert all(text in answers for text in HOSTILE)


def test_no_section_without_answers(tmp_path: Path) -> None:
    page = Page(write_report(build_study(tmp_path, 12)).read_text(encoding="utf-8"))
    assert not page.section("answers")
    assert "Popović" not in page.text
