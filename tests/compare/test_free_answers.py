"""evaluate: [answers]: counted, shown side by side, and never scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_builder import HOSTILE, build_study
from test_report import Page, assert_harmless

from pronk.compare import side_by_side
from pronk.compare.conclude import conclude
from pronk.compare.items import FreeAnswers, RunItems, read_items
from pronk.compare.languages import ENGLISH
from pronk.compare.pairs import compare_runs
from pronk.compare.report import write_report
from pronk.compare.summary import run_metrics
from pronk.compare.terminal import terminal_summary
from pronk.errors import StudyError
from pronk.runs import StudyFolder

WROTE = {
    "smollm2": ["", "A llama.", "a" * 40],
    "qv-2": ["Two.", " ", "b" * 40],
    "qv-3": ["Three.", "Alpaca.", "<i>c</i>"],
}


def only_answers(folder: Path, runs: tuple[str, ...] = ("qv-2", "qv-3"), wrote: dict[str, list[str]] = WROTE) -> Path:
    """A study that measured nothing else."""
    build_study(folder, items=3, runs=runs, classify=False)
    study = json.loads((folder / "study.json").read_text())
    for run in study["runs"]:
        items = folder / "runs" / run["name"] / "items"
        (items / "likelihood.jsonl").unlink()
        rows = [{"id": str(k), "answer": one, "ended": k < 2} for k, one in enumerate(wrote[run["name"]])]
        (items / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    conclude(StudyFolder.open(folder), study)
    return folder


def test_answers_are_counted() -> None:
    found = FreeAnswers(("0", "1", "2"), ("네.", " \n", "fours"), np.array([True, True, False]))
    assert run_metrics(RunItems("a", answered=found)) == {"answer_length": 3, "empty_answers": 1, "unended": 1}


def test_a_study_of_answers_alone_says_that_nothing_was_scored(tmp_path: Path) -> None:
    folder = only_answers(tmp_path)
    page, study = Page((folder / "report.html").read_text("utf-8")), json.loads((folder / "study.json").read_text())
    assert study["comparisons"] == []
    assert [run["metrics"]["empty_answers"] for run in study["runs"]] == [1, 1, 0]
    for text in ("nothing was scored", "which are counted here and not scored", "Length of answers (characters)"):
        assert text in page.text
    for text in ("A llama.", "Three.", "<i>c</i>", "empty", "cut"):
        assert text in page.text
    assert "Loss (nats" not in page.text
    assert "Popović" not in page.text
    said = terminal_summary(study).splitlines()
    assert said[0].split() == ["run", "characters", "empty", "without", "an", "end", "against", "base"]
    assert max(map(len, said)) <= 80
    assert "점수는 매기지 않았" in write_report(folder, "ko").read_text("utf-8")


def test_a_score_of_answers_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if the longest answer were the best one."""
    monkeypatch.setattr("pronk.compare.pairs.PRIMARY", ("answer_length",))
    with pytest.raises(AssertionError):
        test_a_study_of_answers_alone_says_that_nothing_was_scored(tmp_path)


def test_beside_a_score_base_and_best_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "ANSWERERS_SHOWN", 3)
    names = ("qv-2", "qv-3", "all-linear-2")
    folder = build_study(tmp_path, items=12, runs=names)
    for name in ("smollm2", *names):
        rows = [{"id": str(k), "answer": f"{name} on {k}"} for k in range(12)]
        (folder / "runs" / name / "items" / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(write_report(folder).read_text("utf-8"))
    shown = page.text[page.text.index("Answers side by side") :]
    assert shown.index("smollm2 on 0") < shown.index("all-linear-2 on 0") < shown.index("qv-2 on 0")
    assert "qv-2 on 9" in shown
    assert "qv-2 on 10" not in shown
    assert "qv-3 on 0" not in shown
    assert "What 1 more model wrote" in shown


def test_hostile_answers_are_text(tmp_path: Path) -> None:
    wrote = dict.fromkeys(("smollm2", "qv-2"), HOSTILE[:3])
    page = assert_harmless((only_answers(tmp_path, ("qv-2",), wrote) / "report.html").read_text("utf-8"))
    assert all(text in page.text for text in HOSTILE[:3])


def test_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    folder = only_answers(tmp_path)
    file = folder / "runs" / "qv-2" / "items" / "answers.jsonl"
    file.write_text('{"id": "0"}\n')
    with pytest.raises(StudyError, match=r"answers\.jsonl, line 1: no 'answer'"):
        read_items(folder, "qv-2")
    file.write_text("")
    assert read_items(folder, "qv-2").answered is None


def test_answers_take_part_in_no_comparison() -> None:
    def run(name: str) -> dict[str, Any]:
        return {"name": name, "base": "llama", "baseline": name == "llama", "status": "finished", "metrics": {}}

    answered = FreeAnswers(("0",), ("yes",), np.array([True]))
    assert (
        compare_runs([run("llama"), run("a")], {name: RunItems(name, answered=answered) for name in ("llama", "a")})
        == []
    )


def test_without_answers_there_is_no_table(tmp_path: Path) -> None:
    items = {"a": RunItems("a")}
    assert side_by_side.answers(tmp_path, [{"name": "a", "metrics": {}}], items, ENGLISH) is None
