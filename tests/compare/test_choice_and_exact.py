"""Choices, exact answers, bits per byte and general text: metrics, comparisons, and where they are shown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_builder import HOSTILE
from test_report import assert_harmless

from pronk.compare import pairs
from pronk.compare.baseline import intervals
from pronk.compare.items import RunItems, read_items
from pronk.compare.pairs import compare_runs, primary_metric
from pronk.compare.resampling import ratio_bootstrap_interval
from pronk.compare.statistics import mcnemar_exact, tango_interval
from pronk.compare.summary import run_metrics
from pronk.compare.terminal import terminal_summary
from pronk.errors import StudyError
from pronk.pipeline import report
from pronk.runs import RunFolder, StudyFolder

N = 60
Rows = dict[str, list[dict[str, Any]]]


def rows(seed: int, share: float, loss: float, token_bytes: int = 3, hostile: bool = False) -> Rows:
    """What a run's evaluations write: so many of the items right, so much loss a token."""
    random, ids = np.random.default_rng(seed), [str(k) for k in range(N)]
    choices = ["yes", "not at all", HOSTILE[0] if hostile else "maybe"]
    right = random.random((3, N)) < share
    tokens = np.arange(N) % 4 + 2
    losses = random.gamma(4.0, loss / 4.0, N) * tokens
    answer = [choices[k % 3] for k in range(N)]
    other = [choices[(k + 1) % 3] for k in range(N)]
    sizes = 3 * (np.arange(N) % 4 + 2)  # of the texts: the same for any tokens
    return {
        "likelihood": [
            {"id": i, "loss": float(x), "tokens": int(t) * 3 // token_bytes, "bytes": int(s)}
            for i, x, t, s in zip(ids, losses, tokens, sizes, strict=True)
        ],
        "choice": [
            {
                "id": i, "answer": a, "choices": choices, "scores": [-1.0, -2.0, -3.0],
                "predicted": a if raw else b, "predicted_normalised": a if normal else b,
            }
            for i, a, b, raw, normal in zip(ids, answer, other, right[0], right[1], strict=True)
        ],
        "exact": [
            {
                "id": i, "right": bool(ok), "answer": HOSTILE[1] if hostile else f"it is {i}", "ended": k > 4,
                "expected": i, "found": i if ok else None, "slow": False,
            }
            for k, (i, ok) in enumerate(zip(ids, right[2], strict=True))
        ],
        "forgetting": [
            {"id": f"general.en.txt:{k}", "loss": float(losses[k]) * 9, "tokens": 30, "text": "Rain."}
            for k in range(20)
        ],
    }  # fmt: skip


def study(folder: Path, hostile: bool = False, **changed: Any) -> StudyFolder:
    """A base and two runs, the better with the larger number; changed: of what `better` writes."""
    made = StudyFolder.create(folder)
    made.write_items({"id": str(k), "input": f"item {k}", "reference": "yes"} for k in range(N))
    runs = []
    written = {"base": rows(1, 0.4, 1.0, hostile=hostile), "good": rows(2, 0.6, 0.8, hostile=hostile)}
    written["better"] = rows(3, 0.9, 0.5, hostile=hostile) | changed
    for name, evaluations in written.items():
        for evaluation, records in evaluations.items():
            RunFolder(folder / "runs" / name).write_items(evaluation, records)
        settings = {} if name == "base" else {"adapter.rank": len(runs)}
        runs.append({"name": name, "base": "b", "baseline": name == "base", "status": "finished", "settings": settings})
    made.write({"name": "s", "created": "", "labels": [], "runs": runs, "data": {}, "environment": {}})
    report(folder)
    return made


def entry(comparisons: list[dict[str, Any]], metric: str, a: str = "base", b: str = "better") -> dict[str, Any]:
    (found,) = [one for one in comparisons if (one["metric"], one["a"], one["b"]) == (metric, a, b)]
    return found


def test_metrics(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    for run in made.read()["runs"]:
        items = made.run(run["name"]).path / "items"
        lines = {
            name: [*map(json.loads, (items / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())]
            for name in ("likelihood", "choice", "exact", "forgetting")
        }
        loss = sum(row["loss"] for row in lines["likelihood"])
        nll = loss / sum(row["tokens"] for row in lines["likelihood"])
        general = sum(row["loss"] for row in lines["forgetting"]) / 600
        assert run["metrics"] == pytest.approx({
            "nll": nll, "perplexity": math.exp(nll),
            "bits_per_byte": loss / sum(row["bytes"] for row in lines["likelihood"]) / math.log(2),
            "choice_accuracy": np.mean([row["predicted"] == row["answer"] for row in lines["choice"]]),
            "choice_accuracy_normalised": np.mean([
                row["predicted_normalised"] == row["answer"] for row in lines["choice"]
            ]),
            "exact_match": np.mean([row["right"] for row in lines["exact"]]),
            "exact_unparsable": sum(row["found"] is None for row in lines["exact"]), "unended": 5,
            "forgetting_nll": general, "forgetting_perplexity": math.exp(general),
        })  # fmt: skip


def test_comparisons_are_those_of_paired_shares_and_losses(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    found = made.read()["comparisons"]
    base, better = (read_items(made.path, name) for name in ("base", "better"))
    assert {one["metric"] for one in found} == {
        "nll", "choice_accuracy", "choice_accuracy_normalised", "exact_match", "forgetting_nll",
    }  # fmt: skip
    a, b = base.exact.right, better.exact.right
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    exact = entry(found, "exact_match")
    assert exact["p_value"] == mcnemar_exact(only_a, only_b)
    assert exact["interval"] == list(tango_interval(only_a, only_b, N))
    assert exact["difference"] == pytest.approx(b.mean() - a.mean())
    assert (exact["only_a_right"], exact["only_b_right"]) == (only_a, only_b)
    raw = entry(found, "choice_accuracy")
    ok = [
        [p == right for p, right in zip(one.chosen.predicted, one.chosen.answers, strict=True)]
        for one in (base, better)
    ]
    assert raw["difference"] == pytest.approx(np.mean(ok[1]) - np.mean(ok[0]))
    assert {exact["verdict"], raw["verdict"]} == {"better"}
    general = entry(found, "forgetting_nll")
    difference = better.forgetting.loss - base.forgetting.loss
    assert general["difference"] == pytest.approx(difference.sum() / 600)
    assert general["interval"] == list(ratio_bootstrap_interval(difference, np.full(20, 30.0)))
    assert general["difference"] < 0
    assert general["verdict"] == "better"  # less is better
    assert general["perplexity_ratio"][0] == pytest.approx(math.exp(general["difference"]))


def test_bits_per_byte_of_one_base_stand_beside_the_loss(tmp_path: Path) -> None:
    made = study(tmp_path / "s")
    base, better = (read_items(made.path, name).likelihood for name in ("base", "better"))
    bits = (better.loss - base.loss) / math.log(2)
    found = entry(made.read()["comparisons"], "nll")["bits_per_byte"]
    assert found == [bits.sum() / base.bytes.sum(), *ratio_bootstrap_interval(bits, base.bytes.astype(float))]


def of_two_bases(items: dict[str, RunItems]) -> list[dict[str, Any]]:
    runs = [
        {"name": name, "base": base, "baseline": False, "status": "finished", "settings": {"base": base},
         "metrics": run_metrics(items[name])}
        for name, base in (("good", "b"), ("better", "c"))
    ]  # fmt: skip
    return compare_runs(runs, items)


def test_other_tokens_compare_by_the_byte_alone(tmp_path: Path) -> None:
    """Per token the better run would look worse: its tokens are three times as long."""
    made = study(tmp_path / "s", likelihood=rows(3, 0.9, 0.5, token_bytes=9)["likelihood"])
    items = {name: read_items(made.path, name) for name in ("good", "better")}
    metrics = {name: run_metrics(one) for name, one in items.items()}
    assert metrics["better"]["nll"] > metrics["good"]["nll"]
    found = of_two_bases(items)
    assert {one["metric"] for one in found} >= {"bits_per_byte", "exact_match"}
    assert not {"nll", "forgetting_nll"} & {one["metric"] for one in found}
    bits = entry(found, "bits_per_byte", "good")
    assert bits["difference"] == pytest.approx(metrics["better"]["bits_per_byte"] - metrics["good"]["bits_per_byte"])
    assert bits["verdict"] == "better"


def test_other_texts_have_no_common_byte(tmp_path: Path) -> None:
    longer = [{**row, "bytes": row["bytes"] + 1} for row in rows(3, 0.9, 0.5)["likelihood"]]
    made = study(tmp_path / "s", likelihood=longer)
    items = {name: read_items(made.path, name) for name in ("good", "better")}
    assert "bits_per_byte" not in {one["metric"] for one in of_two_bases(items)}
    assert "bits_per_byte" not in entry(made.read()["comparisons"], "nll")


def test_choices_of_one_length_are_tested_once(tmp_path: Path) -> None:
    def letters(name: str) -> list[dict[str, Any]]:
        return [{**row, "choices": ["A", "B", "C"]} for row in rows(len(name), 0.5, 1.0)["choice"]]

    made = study(tmp_path / "s")
    for name in ("base", "good", "better"):
        made.run(name).write_items("choice", letters(name))
    report(made.path)
    assert "choice_accuracy_normalised" not in {one["metric"] for one in made.read()["comparisons"]}


def test_other_items_and_other_general_text_are_refused(tmp_path: Path) -> None:
    for number, (evaluation, key, what) in enumerate(
        (
            ("choice", "answer", "right choices"),
            ("exact", "expected", "expected answers"),
            ("forgetting", "id", "general"),
        )
    ):
        changed = [{**row, key: f"{row[key]} otherwise"} for row in rows(3, 0.9, 0.5)[evaluation]]
        with pytest.raises(StudyError, match=what):
            study(tmp_path / str(number), **{evaluation: changed})


def test_a_wrong_sign_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "lower_is_better", lambda metric: metric == "nll")
    with pytest.raises(AssertionError):
        test_comparisons_are_those_of_paired_shares_and_losses(tmp_path)


def test_their_own_intervals(tmp_path: Path) -> None:
    found = intervals(read_items(study(tmp_path / "s").path, "good"))
    assert set(found) == {
        "nll", "perplexity", "bits_per_byte", "choice_accuracy", "choice_accuracy_normalised", "exact_match",
        "forgetting_nll", "forgetting_perplexity",
    }  # fmt: skip
    metrics = run_metrics(read_items(tmp_path / "s", "good"))
    assert all(low < metrics[name] < high for name, (low, high) in found.items())


def test_what_runs_are_ranked_by() -> None:
    def by(*names: str) -> str:
        return primary_metric([{"name": "r", "metrics": dict.fromkeys(names, 0.5)}])

    assert by("nll", "rouge_l", "exact_match", "choice_accuracy", "accuracy") == "accuracy"
    assert by("nll", "exact_match", "choice_accuracy") == "choice_accuracy"
    assert by("nll", "rouge_l", "exact_match") == "exact_match"


def test_report_and_terminal(tmp_path: Path) -> None:
    made = study(tmp_path / "s", hostile=True)
    page = assert_harmless((made.path / "report.html").read_text(encoding="utf-8"))
    for text in ("Accuracy of choices", "Exact answers", "Perplexity of general text", "Bits per byte"):
        assert text in page.text
    said = terminal_summary(made.read())
    assert said.splitlines()[0].split() == [
        "run", "choice", "by", "length", "exact", "perplexity", "general", "against", "base",
    ]  # fmt: skip
    assert max(map(len, said.splitlines())) <= 80
