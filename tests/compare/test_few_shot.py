"""The untouched base with examples in its prompt as rows of a study, and models that only answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from study_builder import build_study

from pronk.compare.baseline import baseline_table, intervals
from pronk.compare.conclusion import conclusion
from pronk.compare.items import read_items
from pronk.compare.pairs import best_few_shot, best_run, compare_study
from pronk.compare.report import render
from pronk.compare.summary import run_metrics
from pronk.compare.terminal import terminal_summary
from pronk.errors import StudyError
from pronk.runs import StudyFolder


def as_few_shot(folder: Path, changes: dict[str, int]) -> dict[str, Any]:
    """Some runs of a study made rows of its base with so many examples."""
    study = StudyFolder.open(folder).read()
    for run in study["runs"]:
        if run["name"] in changes:
            run |= {"baseline": True, "shots": changes[run["name"]], "settings": {}}
    StudyFolder.open(folder).write(study)
    return study


@pytest.fixture
def study(tmp_path: Path) -> dict[str, Any]:
    build_study(tmp_path, items=300)
    return as_few_shot(tmp_path, {"qv-2": 2, "qv-3": 4})


def test_pairs(study: dict[str, Any], tmp_path: Path) -> None:
    found = {(c["a"], c["b"]): c["reasons"] for c in compare_study(tmp_path)}
    assert found["smollm2", "qv-2"] == found["smollm2", "qv-3"] == ["base"]
    tuned = {"all-linear-2", "all-linear-3", "all-linear-5"}
    assert {pair for pair, reasons in found.items() if "few-shot" in reasons} == {("qv-3", run) for run in tuned}
    assert {b for (a, b), reasons in found.items() if "base" in reasons and a == "smollm2"} == tuned | {"qv-2", "qv-3"}
    assert ("qv-2", "qv-3") not in found
    base = study["runs"][0]
    best = best_few_shot(base, study["runs"])
    assert best is not None
    assert best["name"] == "qv-3"
    winner = best_run(study["runs"])
    assert winner is not None
    assert winner["name"].startswith("all-linear")


def test_without_examples_a_study_is_compared_as_before(tmp_path: Path) -> None:
    build_study(tmp_path)
    assert not any("few-shot" in entry["reasons"] for entry in compare_study(tmp_path))


def test_report_and_terminal_say_which_rows_they_are(study: dict[str, Any], tmp_path: Path) -> None:
    study["comparisons"] = compare_study(tmp_path)
    StudyFolder.open(tmp_path).write(study)
    page = render(tmp_path)
    assert page.count("untouched base, 4 examples in its prompt") == 1
    assert "With 4 examples in its prompt the untouched base reaches" in page
    rows = {line.split()[0]: line for line in terminal_summary(study).splitlines()}
    assert rows["smollm2"].endswith("(the base)")
    assert rows["qv-3"].endswith(("better", "worse", "tie"))


@pytest.mark.parametrize(
    ("verdict", "said"), [("better", "is better than that"), ("worse", "no fine-tuning is needed"), ("tie", "chance")]
)
def test_the_conclusion_says_whether_the_run_is_beyond_the_examples(
    study: dict[str, Any], tmp_path: Path, verdict: str, said: str
) -> None:
    comparisons = compare_study(tmp_path)
    for entry in comparisons:
        entry["verdict"] = verdict if "few-shot" in entry["reasons"] else entry["verdict"]
    assert said in " ".join(conclusion(study["runs"], comparisons, 300))


def only_answers(folder: Path, name: str) -> None:
    path = folder / "runs" / name / "items" / "classify.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["predicted"]
        row["scores"] = dict.fromkeys(row["scores"]) if row.get("scores") else {}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_model_that_only_answers_has_generated_figures_alone(tmp_path: Path) -> None:
    build_study(tmp_path)
    before = run_metrics(read_items(tmp_path, "qv-2"))
    only_answers(tmp_path, "qv-2")
    after = run_metrics(read_items(tmp_path, "qv-2"))
    assert {key: before[key] for key in after} == after
    assert before.keys() - after.keys() == {"accuracy", "macro_f1", "weighted_f1"}
    metrics = {c["metric"] for c in compare_study(tmp_path) if (c["a"], c["b"]) == ("smollm2", "qv-2")}
    assert metrics == {"generated_accuracy", "nll"}
    assert "<h2>Ranking" in render(tmp_path)


def test_a_row_with_neither_is_told(tmp_path: Path) -> None:
    build_study(tmp_path)
    path = tmp_path / "runs" / "qv-2" / "items" / "classify.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[3]["predicted"], rows[4]["generated_label"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StudyError, match="neither 'predicted' nor 'generated_label'"):
        read_items(tmp_path, "qv-2")


def test_intervals_are_wilsons_and_hold_the_figures(tmp_path: Path) -> None:
    build_study(tmp_path, items=150, similarity=True)
    items = read_items(tmp_path, "qv-2")
    metrics, found = run_metrics(items), intervals(items)
    for metric, (low, high) in found.items():
        assert low <= metrics[metric] <= high
    z, share, n = float(norm.ppf(0.975)), metrics["accuracy"], 150
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)  # Wilson (1927), by hand
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    assert found["accuracy"] == pytest.approx([middle - half, middle + half], abs=1e-9)
    assert np.log(found["perplexity"]) == pytest.approx(found["nll"])


def test_the_table_is_80_columns_wide_whatever_the_names(study: dict[str, Any], tmp_path: Path) -> None:
    rows = []
    for run in study["runs"][:3]:
        items = read_items(tmp_path, run["name"])
        rows.append({**run, "quantize": "none", "metrics": run_metrics(items), "intervals": intervals(items)})
    served = {**rows[2], "name": "organisation/a-model-with-a-very-long-name-12B (served)", "served": "host"}
    del served["shots"]
    record = {
        "items": 300,
        "rows": [*rows, served],
        "comparisons": compare_study(tmp_path),
        "left_out": ["8: too long"],
    }
    table = baseline_table(record)
    assert max(map(len, table.splitlines())) <= 80
    assert "2 examples" in table
    assert "▲ better" in table
    assert "That is what a fine-tune has to beat." in table
    assert f"Verdicts allow for all {len(record['comparisons'])} comparisons (Holm)" in table
    assert table.endswith("8: too long")
    assert "too narrow" not in table
    few = baseline_table({**record, "items": 12})
    assert "from them are too narrow" in few
    assert max(map(len, few.splitlines())) <= 80
