"""Which runs are compared, and what a study folder's items become."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_builder import build_study

from pronk.compare import item_by_item, pairs
from pronk.compare.items import Classified, Likelihood, RunItems, read_items, read_study
from pronk.compare.pairs import best_run, compare_runs, compare_study
from pronk.errors import StudyError

LABELS = ("no", "yes")


def run(name: str, accuracy: float = 0.5, base: str = "llama", **settings: Any) -> dict[str, Any]:
    plain = {"name": name, "base": base, "baseline": False, "status": "finished"}
    return {**plain, "settings": settings, "metrics": {"accuracy": accuracy}}


def untouched(base: str = "llama") -> dict[str, Any]:
    return {**run(base, 0.4, base), "baseline": True}


def answers(name: str, right: list[bool], losses: list[float] | None = None, ids: str = "") -> RunItems:
    """A run that answers the items `right` correctly; the true labels alternate; nothing was generated."""
    labels = tuple(LABELS[k % 2] for k in range(len(right)))
    predicted = tuple(label if ok else LABELS[1 - LABELS.index(label)] for label, ok in zip(labels, right, strict=True))
    keys = tuple(f"{ids}{k:03}" for k in range(len(right)))
    classified = Classified(keys, labels, predicted, LABELS, None, None)
    if losses is None:
        return RunItems(name, None, classified)
    return RunItems(name, Likelihood(np.array(keys), np.array(losses), np.full(len(right), 2)), classified)


def same_items(runs: list[dict[str, Any]], n: int = 20) -> dict[str, RunItems]:
    return {one["name"]: answers(one["name"], [k < 12 for k in range(n)]) for one in runs}


def chosen(comparisons: list[dict[str, Any]], metric: str = "accuracy") -> dict[tuple[str, str], list[str]]:
    found = [((c["a"], c["b"]), c["reasons"]) for c in comparisons if c["metric"] == metric]
    assert len(found) == len(dict(found)), "a pair appears once per metric"
    return dict(found)


def test_the_base_the_best_and_every_pair_that_differs_in_one_key() -> None:
    runs = [untouched(), run("q2", 0.6, t="q", e=2), run("q3", 0.7, t="q", e=3), run("a2", 0.8, t="a", e=2)]
    runs.append(run("b5", 0.1, t="b", e=5))
    assert chosen(compare_runs(runs, same_items(runs))) == {
        ("llama", "q2"): ["base"],
        ("llama", "q3"): ["base"],
        ("llama", "a2"): ["base"],
        ("llama", "b5"): ["base"],
        ("q2", "a2"): ["best", "one key: t"],
        ("q3", "a2"): ["best"],
        ("a2", "b5"): ["best"],
        ("q2", "q3"): ["one key: e"],
    }


def test_runs_that_did_not_finish_or_have_no_items_are_left_out() -> None:
    runs = [untouched(), run("good", e=1), {**run("bad", e=2), "status": "failed"}, run("empty", e=3)]
    runs.append({**run("cut", e=4), "status": "interrupted"})
    items = same_items(runs) | {"empty": RunItems("empty")}
    assert set(chosen(compare_runs(runs, items))) == {("llama", "good")}


def test_each_run_meets_its_own_base_and_losses_never_cross_bases() -> None:
    runs = [
        untouched("A"),
        untouched("B"),
        run("a", base="A", base_model="A"),
        run("b", 0.6, "B", base_model="B"),
    ]
    items = {one["name"]: answers(one["name"], [True] * 10, [1.0 + k for k in range(10)]) for one in runs}
    comparisons = compare_runs(runs, items)
    assert set(chosen(comparisons)) == {("A", "a"), ("B", "b"), ("a", "b")}
    assert set(chosen(comparisons, "nll")) == {("A", "a"), ("B", "b")}


def test_losses_over_other_tokens_or_that_are_no_number_are_not_compared() -> None:
    runs = [untouched(), run("other"), run("broken")]
    items = {one["name"]: answers(one["name"], [True] * 4, [1.0] * 4) for one in runs}
    other = items["other"].likelihood
    assert other is not None
    items["other"] = RunItems("other", Likelihood(other.ids, other.loss, other.tokens + 1), items["other"].classified)
    items["broken"] = answers("broken", [True] * 4, [1.0, float("nan"), 1.0, 1.0])
    assert chosen(compare_runs(runs, items), "nll") == {}
    assert ("llama", "broken") in chosen(compare_runs(runs, items))


def test_figures_of_one_pair_by_hand() -> None:
    runs = [untouched(), run("tuned", 0.9, e=1)]
    items = {
        "llama": answers("llama", [k < 4 for k in range(40)], [4.0] * 40),
        "tuned": answers("tuned", [k > 0 for k in range(40)], [2.0 - 0.01 * k for k in range(40)]),
    }
    accuracy, f1, nll = compare_runs(runs, items)
    assert (accuracy["only_a_right"], accuracy["only_b_right"], accuracy["n"]) == (1, 36, 40)
    assert accuracy["difference"] == pytest.approx(35 / 40)
    assert accuracy["p_value"] == pytest.approx(2 * (1 + 37) / 2**37)
    assert nll["difference"] == pytest.approx((sum(2 - 0.01 * k for k in range(40)) - 160) / 80)
    assert nll["interval"][0] < nll["difference"] < nll["interval"][1] < 0
    assert nll["perplexity_ratio"] == pytest.approx(np.exp([nll["difference"], *nll["interval"]]).tolist())
    assert [c["verdict"] for c in (accuracy, f1, nll)] == ["better"] * 3  # a lower loss is better


def test_a_worse_run_is_called_worse_and_chance_is_called_a_tie() -> None:
    runs = [untouched(), run("bad", e=1), run("same", e=2)]
    right = [k < 30 for k in range(40)]
    items = {
        "llama": answers("llama", right, [1.0] * 40),
        "bad": answers("bad", [k < 2 for k in range(40)], [3.0] * 40),
        "same": answers("same", [not right[k] if k in (0, 39) else right[k] for k in range(40)], [1.0] * 40),
    }
    verdicts = {(c["b"], c["metric"]): c["verdict"] for c in compare_runs(runs, items) if c["a"] == "llama"}
    assert [verdicts["bad", metric] for metric in ("accuracy", "macro_f1", "nll")] == ["worse"] * 3
    assert [verdicts["same", metric] for metric in ("accuracy", "macro_f1", "nll")] == ["tie"] * 3


def test_holm_runs_over_all_comparisons_and_decides_the_verdict(tmp_path: Path) -> None:
    comparisons = compare_study(build_study(tmp_path, items=60))
    ranked = sorted(comparisons, key=lambda c: c["p_value"])
    floor = 0.0
    for position, entry in enumerate(ranked):
        floor = max(floor, min(1.0, entry["p_value"] * (len(ranked) - position)))
        assert entry["p_adjusted"] == pytest.approx(floor)
        assert (entry["verdict"] == "tie") == (entry["p_adjusted"] >= 0.05 or entry["difference"] == 0)
    assert any(c["p_value"] < 0.05 <= c["p_adjusted"] for c in comparisons)  # else the adjustment is idle


def test_different_items_or_labels_are_an_error_that_names_both_runs() -> None:
    runs = [untouched(), run("tuned")]
    items = {"llama": answers("llama", [True] * 5), "tuned": answers("tuned", [True] * 5, ids="x")}
    with pytest.raises(StudyError, match=r"'llama' and 'tuned' .* different items"):
        compare_runs(runs, items)
    items["tuned"] = answers("tuned", [True] * 6)
    with pytest.raises(StudyError, match=r"'llama' and 'tuned' .* different items \(5 and 6\)"):
        compare_runs(runs, items)
    keys = items["llama"].classified.ids  # type: ignore[union-attr]
    items["tuned"] = RunItems("tuned", None, Classified(keys, ("yes",) * 5, ("yes",) * 5, LABELS, None, None))
    with pytest.raises(StudyError, match="different labels"):
        compare_runs(runs, items)


def test_a_comparison_does_not_depend_on_what_else_the_study_holds(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=50)
    runs = read_study(folder)["runs"]
    items = {one["name"]: read_items(folder, one["name"]) for one in runs}
    alone = compare_runs(runs[:2], items)
    together = compare_runs(runs, items)[: len(alone)]
    for one, other in zip(alone, together, strict=True):
        for key in one.keys() - {"p_adjusted", "verdict", "items_needed"}:  # these allow for how many are compared
            rounded = pytest.approx(one[key], rel=1e-12) if key in ("interval", "perplexity_ratio") else one[key]
            assert other[key] == rounded


def test_each_entry_has_the_figures_of_its_own_pair_whatever_is_resampled_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_study(tmp_path, items=50, similarity=True)
    together = compare_study(folder)
    monkeypatch.setattr(item_by_item, "MOST_AT_ONCE", 1)
    alone = compare_study(folder)
    assert len({one["difference"] for one in together}) > 20
    for one, other in zip(alone, together, strict=True):
        assert {**one, "interval": 0, "perplexity_ratio": 0} == {**other, "interval": 0, "perplexity_ratio": 0}
        assert one["interval"] == pytest.approx(other["interval"], rel=1e-12)
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]


def test_a_big_family_gets_resamples_enough_to_find_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs.resampling, "PERMUTATIONS", 100)
    runs = [untouched(), *(run(f"r{k}", 1.0, e=k) for k in range(8))]
    items = {one["name"]: answers(one["name"], [not one["baseline"]] * 30) for one in runs}
    comparisons = compare_runs(runs, items)
    against_base = [c for c in comparisons if c["reasons"] == ["base"] and c["metric"] == "macro_f1"]
    # 100 resamples and 72 comparisons: (1 / 101) * 72 > 0.05, whatever the data say
    assert len(comparisons) == 72
    assert [c["verdict"] for c in against_base] == ["better"] * 8


def test_the_best_run_goes_by_accuracy_else_by_the_lowest_loss() -> None:
    runs = [
        {**untouched(), "metrics": {"accuracy": 1.0, "nll": 0.1}},
        run("a", 0.7),
        run("b", 0.8),
        run("c", 0.8),
    ]
    assert best_run(runs) is runs[2]
    for one, loss in zip(runs, (0.1, 0.5, float("nan"), 0.4), strict=True):
        one["metrics"] = {"nll": loss}
    assert best_run(runs) is runs[3]
    assert best_run(runs[:1]) is None


def test_no_runs_make_no_comparisons() -> None:
    assert compare_runs([], {}) == []


def test_entries_survive_json(tmp_path: Path) -> None:
    comparisons = compare_study(build_study(tmp_path, items=30, runs=("qv-2",)))
    assert json.loads(json.dumps(comparisons, allow_nan=False)) == comparisons


def test_items_are_read_sorted_so_that_the_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=30, runs=("qv-2",))
    before = compare_study(folder)
    for path in (folder / "runs" / "qv-2" / "items").iterdir():
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert compare_study(folder) == before


def test_items_without_a_label_are_left_out_and_unparsable_stays_none(tmp_path: Path) -> None:
    rows = [
        {
            "id": 1,
            "label": "yes",
            "scores": {"yes": -1, "no": -2},
            "predicted": "yes",
            "generated_label": None,
        },
        {
            "id": 2,
            "label": None,
            "scores": {"yes": -1, "no": -2},
            "predicted": "yes",
            "generated_label": "no",
        },
    ]
    target = tmp_path / "runs" / "r" / "items" / "classify.jsonl"
    target.parent.mkdir(parents=True)
    target.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    found = read_items(tmp_path, "r")
    assert found.likelihood is None
    assert found.classified == Classified(("1",), ("yes",), ("yes",), ("yes", "no"), (None,), ("",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"id": 1, "loss": 1, "tokens": 2}\n{"id": "1", "loss": 1, "tokens": 2}',
            "line 2: the id '1' is there twice",
        ),
        ('{"id": 1, "loss": 1}', "line 1: no 'tokens'"),
        ('{"id": 1, "loss"', "line 1: not JSON"),
        ("[1]", "line 1: expected an object"),
        ('{"id": 1, "loss": "much", "tokens": 2}', "line 1: loss and tokens must be numbers"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    target = tmp_path / "runs" / "r" / "items" / "likelihood.jsonl"
    target.parent.mkdir(parents=True)
    target.write_text(text)
    with pytest.raises(StudyError, match=message):
        read_items(tmp_path, "r")


@pytest.mark.parametrize("text", [None, "{", "[]", '{"runs": {}}', '{"runs": [{}]}'])
def test_a_folder_that_is_no_study_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyError, match=r"study\.json"):
        compare_study(tmp_path)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "..", "", "a\\b"])
def test_a_run_cannot_lie_outside_the_study(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyError, match="cannot be the name"):
        read_items(tmp_path, name)
