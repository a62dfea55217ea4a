"""What settings do: lines, leaders, two-axis tables, the Pareto front, flips by class, seed noise."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_builder import SEEDS, SWEEP, build_study

from pronk.compare import axes, axis_views, flips, quality, report
from pronk.compare.axis_views import Figures
from pronk.compare.flips import flips_by_class
from pronk.compare.items import read_items
from pronk.compare.languages import ENGLISH
from pronk.compare.pairs import compare_study
from pronk.compare.quality import Priced, cost_unit, pareto_front
from pronk.compare.seed_view import Scale, seed_view

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def run(name: str, **settings: Any) -> dict[str, Any]:
    keys = {"lr": "train.learning_rate", "rank": "adapter.rank", "seed": "train.seed", "targets": "adapter.targets"}
    return {"name": name, "base": "b", "baseline": False, "settings": {keys[key]: of for key, of in settings.items()}}


def entry(a: str, b: str, verdict: str, difference: float = 0.1) -> dict[str, Any]:
    return {"a": a, "b": b, "metric": "accuracy", "verdict": verdict, "difference": difference, "reasons": []}


THREE = [run("low", lr=1e-5), run("middle", lr=1e-4), run("high", lr=1e-3)]
FIGURES: Figures = {"low": (0.5, (0.4, 0.6)), "middle": (0.8, (0.7, 0.9)), "high": (0.6, None)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_comparisons(build_study(tmp_path_factory.mktemp("sweep"), 40, tuple(SWEEP), validation=True))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_comparisons(build_study(tmp_path_factory.mktemp("seeds"), 40, tuple(SEEDS)))


def with_comparisons(folder: Path) -> Path:
    study = json.loads((folder / "study.json").read_text())
    study["comparisons"] = compare_study(folder)
    (folder / "study.json").write_text(json.dumps(study))
    return folder


def section(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_a_line_shares_every_other_setting() -> None:
    runs = [run(f"{lr}{rank}", lr=lr, rank=rank) for lr in (1e-3, 1e-4) for rank in (8, 16)]
    found = axes.lines(runs, "train.learning_rate", {one["name"]: (0.5, None) for one in runs})
    assert [line.settings for line in found] == [{"adapter.rank": 8}, {"adapter.rank": 16}]
    assert [[point.value for point in line.points] for line in found] == [[1e-4, 1e-3]] * 2
    assert axes.numeric(runs) == {"train.learning_rate": [1e-4, 1e-3], "adapter.rank": [8, 16]}


def test_what_is_no_number_is_no_axis_and_seeds_are_none() -> None:
    runs = [run("a", targets=["q_proj"], seed=1), run("b", targets="all-linear", seed=2)]
    assert axes.varied(runs) == {"adapter.targets": [["q_proj"], "all-linear"]}
    assert axes.numeric(runs) == {}
    assert axes.numeric([run("a", rank=True), run("b", rank=float("nan"))]) == {}


@pytest.mark.parametrize(
    ("against_low", "against_high", "told", "said"),
    [
        ("better", "better", True, "better beyond chance than every other value"),
        ("better", "tie", False, "better beyond chance than 1e-5; it cannot be told from 0.001"),
        ("tie", "tie", False, "cannot be told from 1e-5, 0.001"),
    ],
)
def test_the_best_is_marked_only_where_it_is_told_from_all_others(
    against_low: str, against_high: str, told: bool, said: str
) -> None:
    flipped = {"better": "worse", "tie": "tie"}[against_high]  # that entry speaks of `high`, against `middle`
    comparisons = [entry("low", "middle", against_low), entry("middle", "high", flipped, -0.1)]
    (line,) = axes.lines(THREE, "train.learning_rate", FIGURES)
    found = axes.leader(line, comparisons, "accuracy", lower=False)
    assert (found.value, found.told) == (1e-4, told)
    (view,) = axis_views.axis_views(Path("nowhere"), THREE, comparisons, "accuracy", FIGURES, ENGLISH)
    assert any(said in sentence for sentence in view["said"])
    assert rings(view) == told
    assert not view["validation"]


def rings(view: dict[str, Any]) -> int:
    """How many rings the first chart has."""
    return len(re.findall(r'id="[\w-]*-ring-\d+"', view["charts"][0]["svg"]))


def test_a_mark_that_goes_by_the_difference_alone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(comparisons: list[dict[str, Any]], metric: str) -> dict[tuple[str, str], bool]:
        known = [(e["a"], e["b"], e["difference"]) for e in comparisons if e["metric"] == metric]
        return {(b, a): by > 0 for a, b, by in known} | {(a, b): by < 0 for a, b, by in known}

    monkeypatch.setattr(axes, "told_better", careless)
    with pytest.raises(AssertionError):
        test_the_best_is_marked_only_where_it_is_told_from_all_others("tie", "tie", False, "cannot be told")


def test_the_lowest_loss_is_ahead() -> None:
    (line,) = axes.lines(THREE, "train.learning_rate", FIGURES)
    assert axes.leader(line, [], "nll", lower=True).value == 1e-5
    assert not axes.leader(line, [], "nll", lower=True).compared


def test_several_seeds_are_compared_as_a_group() -> None:
    runs = [run(f"rank-{rank}_seed-{seed}", rank=rank, seed=seed) for rank in (4, 16) for seed in (1, 2)]
    figures: Figures = {one["name"]: (0.5 + 0.01 * k, None) for k, one in enumerate(runs)}
    (line,) = axes.lines(runs, "adapter.rank", figures)
    assert line.means == [(4, pytest.approx(0.505)), (16, pytest.approx(0.525))]
    single = [entry("rank-4_seed-1", "rank-16_seed-1", "better")]
    assert not axes.leader(line, single, "accuracy", lower=False).told
    group = [entry("rank-4 (2 seeds)", "rank-16 (2 seeds)", "better")]
    assert axes.leader(line, group, "accuracy", lower=False).told


def test_the_sweep_is_shown_with_intervals_and_validation_loss(sweep: Path) -> None:
    page = report.render(sweep)
    shown = section(page, "axes")
    assert "Learning rate" in shown
    assert shown.count("<figure>") == 2
    for svg in SVG.findall(shown):
        ElementTree.fromstring(svg)
    first = next(svg for svg in SVG.findall(shown) if "Learning rate" in svg)
    ticks = "".join(ElementTree.fromstring(first).itertext())
    assert all(tick in ticks for tick in ("5e-5", "0.0002", "0.001"))
    assert not re.search(r"\b(nan|inf)\b", page, re.IGNORECASE)


def test_the_table_of_two_settings_holds_the_figures_of_the_runs(sweep: Path) -> None:
    study = json.loads((sweep / "study.json").read_text())
    shown = section(report.render(sweep), "grid")
    cells = re.findall(r'class="cell[^>]*>([\d.]+)<', shown)
    expected = [f"{one['metrics']['accuracy']:.3f}" for one in study["runs"][1:]]
    assert cells == expected
    shares = [float(share) for share in re.findall(r"--share: ([\d.]+)", shown)]
    assert np.argmax(shares) == np.argmax([float(value) for value in expected])
    assert (min(shares), max(shares)) == (0.0, 1.0)


@pytest.mark.parametrize("verdict", ["better", "tie"])
def test_the_best_cell_is_framed_only_where_it_is_told_from_all(sweep: Path, verdict: str) -> None:
    study = json.loads((sweep / "study.json").read_text())
    runs = study["runs"]
    best = max(runs[1:], key=lambda one: one["metrics"]["accuracy"])["name"]
    comparisons = [entry(one["name"], best, "better") for one in runs[1:] if one["name"] != best]
    comparisons[0]["verdict"] = verdict
    figures = axis_views.figures_of(runs, "accuracy", {})
    view = axis_views.grid_view(runs, comparisons, "accuracy", figures, ENGLISH)
    assert view is not None
    framed = [cell for table in view["tables"] for row in table["rows"] for cell in row["cells"] if cell["best"]]
    assert [cell["value"] for cell in framed] == ([f"{figures[best][0]:.3f}"] if verdict == "better" else [])


def test_the_pareto_front_is_what_no_other_run_dominates() -> None:
    random = np.random.default_rng(3)
    for lower in (False, True):
        for _ in range(50):
            priced = [
                Priced({"name": str(k)}, float(random.integers(1, 6)), float(random.integers(0, 8)), None)
                for k in range(12)
            ]
            front = {(one.cost, one.figure) for one in pareto_front(priced, lower)}
            sign = -1 if lower else 1
            expected = {
                (one.cost, one.figure)
                for one in priced
                if not any(
                    other.cost <= one.cost and sign * other.figure >= sign * one.figure
                    and (other.cost, other.figure) != (one.cost, one.figure)
                    for other in priced
                )
            }  # fmt: skip
            assert front == expected


def test_cost_is_tokens_unless_seconds_are_worth_differently_many() -> None:
    alike = [{"train_tokens": 100, "train_seconds": 1.0}, {"train_tokens": 300, "train_seconds": 3.0}]
    assert cost_unit(alike) == "train_tokens"
    assert cost_unit([*alike, {"train_tokens": 100, "train_seconds": 4.0}]) == "train_seconds"
    assert cost_unit([{}]) == "train_tokens"


def test_costs_far_apart_are_labelled_in_words_alone() -> None:
    """On a logarithmic axis matplotlib labels small ticks of its own: 2.5 × 10⁵ between 200 k and 300 k."""
    priced = [Priced({"name": str(k)}, 57_000.0 * k, 0.5 + 0.01 * k, None) for k in range(1, 9)]
    svg = quality.chart(priced, pareto_front(priced, lower=False), None, ("tokens", ""))
    assert ">300 k<" in svg
    assert "tspan" not in svg


def test_a_step_along_the_front_carries_its_verdict_whichever_way_round() -> None:
    runs = [{**run(name, rank=rank), "train_tokens": cost} for name, rank, cost in (("a", 4, 100), ("b", 8, 200))]
    figures: Figures = {"a": (0.5, (0.4, 0.6)), "b": (0.7, (0.6, 0.8))}
    for comparison, sign in ((entry("a", "b", "better", 0.2), "+"), (entry("b", "a", "worse", -0.2), "+")):
        view = quality.quality_view(runs, [comparison], "accuracy", figures, ENGLISH)
        assert view is not None
        assert (view["rows"][1]["step"]["verdict"], view["rows"][1]["step"]["difference"]) == ("better", f"{sign}0.200")
    same = [{**one, "train_tokens": 100} for one in runs]
    assert quality.quality_view(same, [], "accuracy", figures, ENGLISH) == {"chart": None}
    assert quality.quality_view(runs[:1], [], "accuracy", figures, ENGLISH) is None


def test_flips_by_class_are_those_of_the_comparison(sweep: Path) -> None:
    study = json.loads((sweep / "study.json").read_text())
    base = read_items(sweep, "smollm2").classified
    assert base is not None
    assert base.predicted is not None
    for name in SWEEP:
        after = read_items(sweep, name).classified
        assert after is not None
        assert after.predicted is not None
        found = flips_by_class(after.labels, base.predicted, after.predicted, after.classes)
        pair = next(e for e in study["comparisons"] if (e["a"], e["b"], e["metric"]) == ("smollm2", name, "accuracy"))
        assert sum(one.lost for one in found) == pair["only_a_right"]
        assert sum(one.gained for one in found) == pair["only_b_right"]
        for one in found:
            right = [
                p == one.label for p, label in zip(after.predicted, after.labels, strict=True) if label == one.label
            ]
            assert (one.items, one.after) == (len(right), sum(right))


def test_flips_from_answers_where_nothing_was_scored(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=20, runs=("qv-2",))
    for name in ("smollm2", "qv-2"):
        path = folder / "runs" / name / "items" / "classify.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "predicted"}) + "\n" for row in rows))
    items = {name: read_items(folder, name) for name in ("smollm2", "qv-2")}
    runs = json.loads((folder / "study.json").read_text())["runs"]
    (view,) = flips.class_views(runs, items, [], ENGLISH)
    assert view["kind"] == "by the generated answer"


def test_the_classes_of_the_best_run_are_open(sweep: Path) -> None:
    shown = section(report.render(sweep), "classes")
    assert shown.count("<details open>") == 1
    assert shown.count("<details") == len(SWEEP)


def test_the_page_says_what_seeds_do(seeds: Path) -> None:
    page = report.render(seeds)
    shown = section(page, "seeds")
    assert "The seed alone moves accuracy by about" in shown
    assert shown.count("<circle") == len(SEEDS)
    assert "comparisons are of all seeds together" in section(page, "axes")
    assert "Every setting was trained with one seed" not in page


def test_one_seed_is_a_limit_of_the_study(sweep: Path) -> None:
    page = report.render(sweep)
    assert section(page, "seeds") == ""
    assert "Every setting was trained with one seed" in page


def test_intervals_of_seeds_stay_within_what_a_share_can_be() -> None:
    noise = {
        "group": "a (2 seeds)", "metric": "accuracy", "values": [0.5, 0.7], "mean": 0.6, "deviation": 0.1414,
        "lowest": 0.5, "highest": 0.7, "interval": [-0.3, 1.5],
    }  # fmt: skip
    view = seed_view([noise], "accuracy", ENGLISH)
    assert view is not None
    assert view["rows"][0]["interval"] == "0.000 to 1.000"
    assert seed_view([noise], "nll", ENGLISH) is None
    assert (Scale(0.5, 0.7)(-9.0), Scale(0.5, 0.7)(9.0)) == (4.0, 136.0)
    assert Scale(0.5, 0.5)(0.5) == 70.0


def test_the_same_folder_gives_the_same_page(sweep: Path) -> None:
    first, again = (report.render(sweep, "ko") for _ in range(2))
    assert first == again


def test_hostile_settings_stay_text(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=20, runs=tuple(SWEEP)[:4], validation=True)
    study = json.loads((folder / "study.json").read_text())
    bad = "</svg><script>alert(1)</script>"
    for one in study["runs"][1:]:
        one["settings"] = {bad: one["settings"]["train.learning_rate"], "t": one["settings"]["adapter.targets"] + [bad]
                           if isinstance(one["settings"]["adapter.targets"], list) else bad}  # fmt: skip
    (folder / "study.json").write_text(json.dumps(study))
    page = report.render(folder)
    assert "<script" not in page
    assert "&lt;/svg&gt;&lt;script&gt;" in section(page, "axes")
    assert "&lt;/svg&gt;&lt;script&gt;" in section(page, "grid")
    for svg in SVG.findall(page):
        ElementTree.fromstring(svg)


def test_numbers_that_are_none_do_not_reach_a_chart(tmp_path: Path) -> None:
    folder = build_study(tmp_path, items=20, runs=tuple(SWEEP)[:4], validation=True)
    study = json.loads((folder / "study.json").read_text())
    study["runs"][1]["metrics"]["accuracy"] = float("nan")
    study["runs"][2] |= {"train_tokens": None, "train_seconds": 0}
    study["runs"][3] |= {"status": "interrupted", "metrics": {}}
    losses = folder / "runs" / study["runs"][4]["name"] / "items" / "likelihood.jsonl"
    losses.write_text(losses.read_text().replace('"loss": ', '"loss": Infinity, "was": ', 1))
    (folder / "study.json").write_text(json.dumps(study))
    assert not re.search(r"\b(nan|inf)\b", report.render(folder), re.IGNORECASE)
