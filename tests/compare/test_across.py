"""`pronk compare`: runs of several studies on the same items, and refusal where the items differ."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from study_builder import build_study
from test_report import Page, assert_harmless

from pronk.compare import across
from pronk.compare.across import compare_across
from pronk.compare.across_page import render_across, write_across
from pronk.compare.across_terminal import across_summary
from pronk.compare.pairs import compare_study
from pronk.errors import OptionError, StudyError

RECIPE = {"base": "smollm2", "data": {"source": "fpb.jsonl", "format": "classify"}, "train": {"epochs": 2, "seed": 42}}


def with_recipes(folder: Path, **changed: Any) -> Path:
    """Write recipes as `pronk run` does: the study's settings, and keys that this study has changed."""
    study = json.loads((folder / "study.json").read_text())
    for run in study["runs"]:
        if not run["baseline"]:
            recipe = json.loads(json.dumps(RECIPE))
            for key, value in {**run["settings"], **changed}.items():
                section, _, name = key.partition(".")
                (recipe.setdefault(section, {}) if name else recipe)[name or section] = value
            (folder / "runs" / run["name"] / "recipe.yaml").write_text(yaml.dump(recipe))
    return folder


def restudied(folder: Path, **changes: Any) -> None:
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**study, **changes}))


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two studies of the same 150 items: the second, a month later, with a higher learning rate and another PyTorch."""
    first = with_recipes(build_study(tmp_path / "october", 150, ("qv-2", "all-linear-2")))
    second = with_recipes(
        build_study(tmp_path / "november", 150, ("all-linear-2", "all-linear-3")), **{"train.learning_rate": 3e-4}
    )
    for kind in ("items.jsonl", "runs/smollm2"):  # the base does not change
        source, target = first / kind, second / kind
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)
    labels = {row["id"]: row["label"] for row in map(json.loads, (first / "items.jsonl").read_text().splitlines())}
    for name in ("all-linear-2", "all-linear-3"):
        file = second / "runs" / name / "items" / "classify.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**row, "label": labels[row["id"]]}) + "\n" for row in rows))
        losses = second / "runs" / name / "items" / "likelihood.jsonl"
        tokens = [json.loads(line) for line in (first / "runs/smollm2/items/likelihood.jsonl").read_text().splitlines()]
        rows = [json.loads(line) for line in losses.read_text().splitlines()]
        losses.write_text(
            "".join(json.dumps({**row, "tokens": of["tokens"]}) + "\n" for row, of in zip(rows, tokens, strict=True))
        )
    environment = {"torch": "2.13.0", "transformers": "5.17.0", "python": "3.11.9", "device": "NVIDIA H200"}
    restudied(second, created="2026-11-20T08:00:00+00:00", environment=environment)
    return [first, second]


def test_the_base_is_one_row_and_runs_say_where_they_are_from(two: list[Path]) -> None:
    record = compare_across(two)
    assert [run["name"] for run in record["runs"]] == [
        "smollm2", "october/qv-2", "october/all-linear-2", "november/all-linear-2", "november/all-linear-3",
    ]  # fmt: skip
    assert record["runs"][0]["studies"] == ["october", "november"]
    assert [run["created"][:7] for run in record["runs"][1:]] == ["2026-10", "2026-10", "2026-11", "2026-11"]
    assert (record["items"], record["notes"]) == (150, [])
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_comparisons_are_paired_over_studies_and_holm_allows_for_all(two: list[Path]) -> None:
    record = compare_across(two)
    found = {(c["a"], c["b"], c["metric"]): c for c in record["comparisons"]}
    assert {(a, b) for a, b, _ in found if a == "smollm2"} == {("smollm2", run["name"]) for run in record["runs"][1:]}
    again = found["october/all-linear-2", "november/all-linear-2", "accuracy"]
    assert "one key: train.learning_rate" in again["reasons"]
    by_study = {(c["a"], c["b"], c["metric"]): c for c in compare_study(two[0])}
    alone = by_study["smollm2", "qv-2", "accuracy"]
    together = found["smollm2", "october/qv-2", "accuracy"]
    assert [together[key] for key in ("difference", "interval", "p_value")] == [
        alone[key] for key in ("difference", "interval", "p_value")
    ]
    smallest = min(record["comparisons"], key=lambda c: c["p_value"])
    assert smallest["p_adjusted"] == pytest.approx(min(1.0, smallest["p_value"] * len(record["comparisons"])))


def test_the_same_recipe_run_again_is_compared_for_that(two: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(two[0], tmp_path / "again"))
    record = compare_across([two[0], copy])
    reasons = {(c["a"], c["b"]): c["reasons"] for c in record["comparisons"]}
    assert reasons["october/qv-2", "again/qv-2"] == ["again"]
    assert record["differences"] == []
    assert "do not differ" in across_summary(record)


def test_seeds_of_several_studies_are_one_group_and_a_seed_counts_once(two: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(two[0], tmp_path / f"seed-{seed}")) for seed in (1, 2)]
    for seed, copy in enumerate(copies, start=1):
        with_recipes(copy, **{"train.seed": seed})
    twice = Path(shutil.copytree(copies[0], tmp_path / "twice"))
    record = compare_across([*copies, twice])
    groups = {c["b"]: c["seeds"] for c in record["comparisons"] if "seeds" in c and c["a"] == "smollm2"}
    assert groups == {name: {"a": [], "b": [1, 2]} for name in ("qv-2 (2 seeds)", "all-linear-2 (2 seeds)")}


def test_what_differs_is_said(two: list[Path]) -> None:
    found = {one["key"]: one["values"] for one in compare_across(two)["differences"]}
    assert found["train.learning_rate"][1] == "0.0003"
    assert found["torch"] == ["2.11.0", "2.13.0"]
    assert found["train.epochs"] == ["2", "2; 3"]
    assert "device" not in found
    assert "seed" not in found


def test_keys_of_another_version_of_pronk_are_their_defaults(two: list[Path]) -> None:
    for path in (two[0] / "runs").glob("*/recipe.yaml"):
        recipe = yaml.safe_load(path.read_text())
        path.write_text(yaml.dump({**recipe, "prompt": "alpaca"}))  # what the other study leaves out
    found = {one["key"] for one in compare_across(two)["differences"]}
    assert "prompt" not in found
    assert len(compare_across(two)["runs"]) == 5


def test_a_base_that_was_asked_in_another_form_is_another_row(two: list[Path]) -> None:
    with_recipes(two[1], prompt="chat")
    record = compare_across(two)
    bases = [run["name"] for run in record["runs"] if run["baseline"]]
    assert bases == ["smollm2 (as asked in october)", "smollm2 (as asked in november)"]
    pairs = {(c["a"], c["b"]) for c in record["comparisons"] if "base" in c["reasons"]}
    assert (bases[0], "october/qv-2") in pairs
    assert (bases[1], "november/all-linear-3") in pairs
    assert (bases[0], "november/all-linear-3") not in pairs


def test_a_base_with_other_figures_is_one_row_with_a_note(two: list[Path]) -> None:
    file = two[1] / "runs" / "smollm2" / "items" / "classify.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["predicted"] = next(name for name in rows[0]["scores"] if name != rows[0]["predicted"])
    rows[1]["predicted"] = rows[1]["label"]
    rows[2]["predicted"] = rows[2]["label"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = compare_across(two)
    (note,) = record["notes"]
    assert (note["row"], note["metric"]) == ("smollm2", "accuracy")
    assert "in november" in across_summary(record).replace("\n", " ")


def test_other_items_are_refused_in_one_message(two: list[Path]) -> None:
    file = two[1] / "items.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[7]["input"] = "Something else <b>entirely</b>"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StudyError) as refused:
        compare_across(two)
    message = str(refused.value)
    assert "item '7': 'The company said that" in message
    assert "'Something else <b>entirely</b>' → " in message
    assert "149 items of 150 and 150 are in both" in message
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:100]))
    with pytest.raises(StudyError, match="99 items of 150 and 100 are in both"):
        compare_across(two)


def test_ids_alone_would_not_notice(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: another split has the same ids, 0 to n - 1."""
    original = across._texts
    monkeypatch.setattr(across, "_texts", lambda folder: dict.fromkeys(original(folder), ("", "", "")))
    with pytest.raises(pytest.fail.Exception):
        test_other_items_are_refused_in_one_message(two)


def test_losses_per_token_never_cross_bases(two: list[Path]) -> None:
    study = json.loads((two[1] / "study.json").read_text())
    for run in study["runs"]:
        run["base"] = "another"
    (two[1] / "study.json").write_text(json.dumps(study))
    found = compare_across(two)["comparisons"]
    crossing = [c for c in found if c["a"].startswith("october/") and c["b"].startswith("november/")]
    assert crossing
    assert {c["metric"] for c in crossing}.isdisjoint({"nll", "perplexity"})


def test_runs_can_be_named_one_by_one(two: list[Path]) -> None:
    record = compare_across([two[0] / "runs" / "qv-2", two[1] / "runs" / "all-linear-3"])
    assert [run["name"] for run in record["runs"]] == ["smollm2", "october/qv-2", "november/all-linear-3"]
    record = compare_across([two[0] / "runs" / "qv-2", two[0] / "runs" / "all-linear-2"])
    assert [run["run"] for run in record["runs"]] == ["smollm2", "qv-2", "all-linear-2"]


def test_folders_of_one_name_are_told_apart(two: list[Path], tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(one, tmp_path / place / "fpb")) for one, place in zip(two, "ab", strict=True)]
    assert [one["label"] for one in compare_across(folders)["studies"]] == ["a/fpb", "b/fpb"]


def test_too_few_or_wrong_folders_are_refused(two: list[Path], tmp_path: Path) -> None:
    for folders in ([two[0]], [two[0], two[0]], [two[0] / "runs" / "qv-2"]):
        with pytest.raises(OptionError, match="two or more study folders"):
            compare_across(folders)
    for wrong in (tmp_path, tmp_path / "none", two[0] / "runs"):
        with pytest.raises(StudyError, match="neither a study folder"):
            compare_across([two[0], wrong])
    (two[1] / "items.jsonl").write_text("")
    with pytest.raises(StudyError, match="has no test items"):
        compare_across(two[::-1])
    shutil.copy(two[0] / "items.jsonl", two[1] / "items.jsonl")
    stray = two[0] / "runs" / "stray"
    stray.mkdir()
    with pytest.raises(StudyError, match="knows no run 'stray'"):
        compare_across([two[1], stray])
    (two[1] / "runs" / "all-linear-2" / "recipe.yaml").write_text("- [1")
    with pytest.raises(StudyError, match=r"recipe\.yaml: cannot be read"):
        compare_across(two)


def test_the_terminal_keeps_to_eighty_columns(two: list[Path]) -> None:
    text = across_summary(compare_across(two))
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^october +2026-10-20 +qv-2 ", text, re.MULTILINE)
    assert "2 studies" in text
    assert "intervals are 95% and unadjusted" in text.replace("\n", " ")
    assert "train.learning_rate" in text
    assert "2.11.0 / 2.13.0" in text


def test_the_page_shows_all_of_it(two: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "compare.html"
    write_across(compare_across(two), target)
    page = Page(target.read_text())
    assert page.open == []
    for section in ("studies", "ranking", "differences", "comparisons", "settings", "cost", "method"):
        assert page.section(section)
    for said in (
        "2 studies compared",
        "november",
        "2026-10-20 09:30",
        "2026-11-20",
        "train.learning_rate",
        "2.13.0",
        "unadjusted",
    ):
        assert said in page.text


def test_the_page_in_korean_has_no_english_sentence(two: list[Path]) -> None:
    text = Page(render_across(compare_across(two), "ko")).text
    assert "실험 2개 비교" in text
    assert not any(word in text for word in ("Ranking", "Comparisons", "What differs", "Study", "unadjusted"))


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    first = build_study(tmp_path / "a", 30, hostile=True, failed=True)
    second = Path(shutil.copytree(first, tmp_path / "b"))
    restudied(second, environment={"device": "<script>alert(1)</script>\x1b[2J"})
    record = compare_across([first, second])
    assert_harmless(render_across(record))
    assert "\x1b" not in across_summary(record)
    assert "alert(1)" in across_summary(record)


def test_reading_takes_the_order_of_neither_items_nor_runs(two: list[Path]) -> None:
    before = compare_across(two)["comparisons"]
    file = two[1] / "items.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(np.random.default_rng(0).permutation(lines)))
    assert compare_across(two)["comparisons"] == before
