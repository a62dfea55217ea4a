"""`pronk eval`: what was trained, measured afterwards, is what `pronk run` measured; and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace, labelled_rows
from study_files import contents, items

import pronk.api as pronk_api
import pronk.measure.again as pronk_again
import pronk.measure.items as pronk_items
import pronk.measure.together as pronk_together
from pronk.evaluate import classify
from pronk.evaluate.evaluation import Evaluation
from pronk.runs import StudyFolder

Pronk = Callable[..., Told]
ROWS = ("base", "base_2-shot", "rank-2", "rank-4")


# --- into the study itself -----------------------------------------------------------------------


def test_an_untouched_study_measures_the_same_byte_for_byte(study: Path, pronk: Pronk) -> None:
    before, told_before = items(study), json.loads((study / "study.json").read_text())
    shutil.rmtree(study / "runs" / "base")
    for file in study.glob("runs/*/items/*"):
        file.unlink()
    told = pronk("eval", str(study), "--json")
    assert told.code == 0, told.err
    assert items(study) == before
    assert set(before) == {f"{run}/{kind}" for run in ROWS for kind in ("classify", "likelihood")}
    after = json.loads(told.out)
    assert after.pop("evaluation")["evaluations"] == ["likelihood", "classify"]
    assert after == told_before


def test_two_at_once_lose_nothing(study: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it measures, a second `pronk eval` is told so; a report is written anew, and a judge's result stays."""
    original, told = pronk_together._of_group, []

    def meanwhile(*given: Any, **named: Any) -> Any:
        if not told:
            told.append(pronk("eval", str(study)))
            told.append(pronk("report", str(study)))
            folder = StudyFolder.open(study)
            with folder.changing():
                folder.write({**folder.read(), "judged": []})
        return original(*given, **named)

    monkeypatch.setattr(pronk_together, "_of_group", meanwhile)
    first = pronk("eval", str(study), "--evaluate", "likelihood")
    assert [one.code for one in (first, *told)] == [0, 2, 0]
    assert f"another pronk is writing this (process {os.getpid()})" in " ".join(told[0].err.split())
    summary = json.loads((study / "study.json").read_text())
    assert summary["judged"] == []
    assert summary["evaluation"]["evaluations"] == ["likelihood"]
    assert not list(study.glob(".*.lock"))


def test_a_report_waits_until_study_json_is_written(study: Path, pronk: Pronk) -> None:
    """Otherwise it would write what it read before over what was written in the meantime."""
    folder, told = StudyFolder.open(study), []
    with folder.changing():
        other = threading.Thread(target=lambda: told.append(pronk_api.report(study)))
        other.start()
        other.join(1)
        assert not told
        folder.write({**folder.read(), "judged": []})
    other.join(60)
    assert told[0].details["judged"] == []
    assert pronk("report", str(study)).code == 0


def swapped(patch: pytest.MonkeyPatch) -> None:
    """The adapters of two runs change places."""
    original = Evaluation.__init__

    def faulty(self: Evaluation, model: Any, adapters: Any, budget: Any = None) -> None:
        shapes, states = [one[0] for one in adapters], [one[1] for one in adapters]
        original(self, model, list(zip(shapes[::-1], states[::-1], strict=True)), budget)

    patch.setattr(Evaluation, "__init__", faulty)


def no_adapter(patch: pytest.MonkeyPatch) -> None:
    """Every run is measured as its base."""
    original = Evaluation.__init__

    def faulty(self: Evaluation, model: Any, adapters: Any, budget: Any = None) -> None:
        zero = [(shape, {name: torch.zeros_like(t) for name, t in state.items()}) for shape, state in adapters]
        original(self, model, zero, budget)

    patch.setattr(Evaluation, "__init__", faulty)


@pytest.mark.parametrize("fault", [swapped, no_adapter])
def test_a_planted_fault_shows(study: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    before = items(study)
    fault(monkeypatch)
    assert pronk("eval", str(study)).code == 0
    after = items(study)
    assert after["base/likelihood"] == before["base/likelihood"]
    assert after["rank-2/likelihood"] != before["rank-2/likelihood"]
    assert after["rank-4/likelihood"] != before["rank-4/likelihood"]


def test_the_wrong_rows_are_refused(
    place: Workplace, study: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation taken for test; then the data itself changed."""
    before = contents(study)
    with monkeypatch.context() as patch:
        original = pronk_items.own_items
        patch.setattr(pronk_again, "own_items", lambda recipe, _, tell: original(recipe, "validation", tell))
        told = pronk("eval", str(study))
    assert told.code == 2
    assert "other test items than when it ran (now 6, then 12)" in told.err
    place.write_rows([{**row, "text": row["text"] + "!"} for row in labelled_rows(60)], "changed.jsonl")
    told = pronk("eval", str(study), "--set", f"data.source={place.folder / 'changed.jsonl'}")
    assert told.code == 2
    assert "item 0 is now" in told.err
    assert contents(study) == before


@pytest.mark.slow  # what is compared grows with the measures
def test_evaluations_are_added_and_what_is_there_is_kept(study: Path, pronk: Pronk) -> None:
    before, added = items(study), ("exact", "forgetting", "similarity")
    told = pronk("eval", str(study), "--evaluate", ",".join(added), "--set", "max_new_tokens=4", "--json")
    assert told.code == 0, told.err
    after = items(study)
    assert {name: text for name, text in after.items() if not name.endswith(added)} == before
    # of general text examples in a prompt say nothing
    expected = {f"{run}/{kind}" for run in ROWS for kind in added} - {"base_2-shot/forgetting"}
    assert after.keys() - before.keys() == expected
    for run in json.loads(told.out)["runs"]:
        assert {"accuracy", "nll", "rouge_l", "exact_match"} <= set(run["metrics"])
    assert "ROUGE-L" in (study / "report.html").read_text()


@pytest.mark.slow
def test_a_study_of_whole_models_and_quantized_bases_measures_the_same(
    tmp_path: Path, tiny_base: Path, pronk: Pronk
) -> None:
    """Several bases in memory, one after another; whole models in the place of adapters."""
    place = Workplace(tmp_path, tiny_base)
    place.recipe["study"] = {"quantize": ["none", "nf4"]}
    place.recipe["train"]["max_steps"] = 2
    assert pronk(*place.arguments()).code == 0
    before = items(place.out)
    assert pronk("eval", str(place.out)).code == 0
    assert items(place.out) == before
    place.out = tmp_path / "whole"
    del place.recipe["adapter"], place.recipe["study"]
    place.recipe["full"] = True
    assert pronk(*place.arguments()).code == 0
    before = items(place.out)
    assert pronk("eval", str(place.out)).code == 0
    assert items(place.out) == before


# --- what a run could not finish -----------------------------------------------------------------


def plant(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 0) -> None:
    """Reading a batch raises, but for the first few."""
    original, calls = classify.score_and_answer, []

    def raising(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(classify, "score_and_answer", raising)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("killed")])
def test_what_an_evaluation_left_is_completed(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It ran out of memory, which is told with the command that completes it; or the process came to a sudden end."""
    workplace.recipe["train"]["max_steps"] = 2
    with monkeypatch.context() as patch:
        plant(patch, error)
        if isinstance(error, torch.OutOfMemoryError):
            told = pronk(*workplace.arguments())
            assert told.code == 1
            assert "1 of 1 runs are trained but not measured" in told.err
            assert f"pronk eval {workplace.out}" in told.err
        else:
            with pytest.raises(RuntimeError, match="killed"):
                pronk(*workplace.arguments())
    assert not list(workplace.out.glob("runs/*/items"))
    told = pronk("eval", str(workplace.out))
    assert told.code == 0, told.err
    assert [run["name"] for run in workplace.study()["runs"]] == ["base", "tuned"]
    assert all(run["metrics"]["accuracy"] >= 0 for run in workplace.study()["runs"])
    whole = items(workplace.out)
    workplace.out = workplace.folder / "at-once"
    assert pronk(*workplace.arguments()).code == 0
    assert items(workplace.out) == whole


def test_memory_that_runs_out_halves_the_batches(study: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figures in smaller batches, up to how products of other sizes round."""
    before = {name: text for name, text in items(study).items() if name.endswith("classify")}
    original, sizes = Evaluation.__init__, []

    def small(self: Evaluation, model: Any, adapters: Any, budget: int | None) -> None:
        sizes.append(budget)
        if budget and budget > 2048:  # rows with examples ask for as many as there is room for
            raise torch.OutOfMemoryError("CUDA out of memory")
        original(self, model, adapters, budget)

    monkeypatch.setattr(Evaluation, "__init__", small)
    told = pronk("eval", str(study))
    assert told.code == 0, told.err
    assert sizes[:3] == [8192, 4096, 2048]
    assert "evaluating: memory ran out; again in batches of 2,048 tokens" in told.err
    after = items(study)
    for name, text in before.items():
        for one, other in zip(text.splitlines(), after[name].splitlines(), strict=True):
            row, again = json.loads(one), json.loads(other)
            assert again["scores"] == pytest.approx(row["scores"], abs=1e-4)


def test_ctrl_c_keeps_what_is_whole(study: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first base nothing is written; in the second the first is, and study.json says what the files say."""
    before = contents(study)

    def pressed(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*_, **__)

    original = classify.score_and_answer
    monkeypatch.setattr(classify, "score_and_answer", pressed)
    told = pronk("eval", str(study))
    assert told.code == 130
    assert "Traceback" not in told.err
    assert "nothing was measured, so nothing has changed" in told.err
    assert contents(study) == before
    told = pronk("eval", str(study), "--split", "validation", "--out", str(study.parent / "other"))
    assert told.code == 130
    assert "nothing was measured" in told.err
    assert not (study.parent / "other").exists()


def test_ctrl_c_between_two_bases_keeps_the_first(
    study: Path, tiny_base: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_base, study.parent / "second")
    original, calls = pronk_together._of_group, []

    def pressed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(pronk_together, "_of_group", pressed)
    out = study.parent / "other"
    told = pronk("eval", str(study / "runs" / "rank-2"), str(study.parent / "second"), "--out", str(out))
    assert told.code == 130
    assert f"interrupted; what was measured is saved in {out}" in told.err
    runs = {run["name"]: run for run in json.loads((out / "study.json").read_text())["runs"]}
    assert {name: run["status"] for name, run in runs.items()} == {
        "base": "finished", "rank-2": "finished", "second": "interrupted",
    }  # fmt: skip
    assert runs["rank-2"]["metrics"]
    assert not runs["second"]["metrics"]
    assert not (out / "runs" / "second").exists()


# --- what is wrong is one message, before anything is loaded -------------------------------------


def refusal(pronk: Pronk, *arguments: str) -> str:
    told = pronk("eval", *arguments)
    assert told.code == 2
    assert "Traceback" not in told.err
    assert "loading" not in told.err
    return told.err


def test_what_is_missing_is_told(study: Path, place: Workplace, tmp_path: Path, pronk: Pronk) -> None:
    run, rows = str(study / "runs" / "rank-2"), str(place.folder / "rows.jsonl")
    assert "a base or an adapter has no items of its own" in refusal(pronk, str(place.recipe["base"]))
    assert "there is no such folder" in refusal(pronk, str(tmp_path / "none"))
    assert "--split: found 'train', expected one of test, validation" in refusal(pronk, str(study), "--split", "train")
    assert "leave one of them out" in refusal(pronk, str(study), "--split", "validation", "--data", rows)
    assert "evaluate: found 'bleu'" in refusal(pronk, str(study), "--evaluate", "bleu")
    assert "add --out DIR" in refusal(pronk, str(study), "--set", "quantize=nf4")
    assert "this folder is not empty" in refusal(pronk, run, "--out", str(study))
    shutil.move(study / "runs" / "rank-2" / "adapter", tmp_path / "gone")
    before = contents(study)
    assert "its weights are gone" in refusal(pronk, str(study))
    assert "this run has no weights" in refusal(pronk, run, "--data", rows)
    assert contents(study) == before


def test_a_base_that_is_gone_is_told_with_the_run_and_the_remedy(study: Path, tiny_base: Path, pronk: Pronk) -> None:
    for file in study.glob("runs/*/recipe.yaml"):
        file.write_text(file.read_text().replace(str(tiny_base), "/gone/tiny"))
    for arguments in ([str(study)], [str(study / "runs" / "rank-2"), "--out", str(study.parent / "out")]):
        said = refusal(pronk, *arguments)
        assert "/gone/tiny" in said
        assert "if it lies elsewhere now: --set base=" in said
    assert not (study.parent / "out").exists()
    before = items(study)
    assert pronk("eval", str(study), "--set", f"base={tiny_base}").code == 0
    assert items(study) == before


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"sentence": "a", "label": "neutral"}], "there is no column 'text' for text; the columns are"),
        ([{"text": "a", "label": "good"}], "the label 'good' is not one of negative, neutral and positive"),
        (["{"], "bad.jsonl"),
        ([], "bad.jsonl"),
    ],
)
def test_items_in_the_wrong_form(study: Path, place: Workplace, pronk: Pronk, rows: list[Any], said: str) -> None:
    place.write_rows(rows, "bad.jsonl")
    out = study.parent / "out"
    assert said in refusal(pronk, str(study), "--data", str(place.folder / "bad.jsonl"), "--out", str(out))
    assert not out.exists()


def test_runs_with_different_items_are_not_compared(study: Path, pronk: Pronk) -> None:
    other = study.parent / "other"
    shutil.copytree(study, other)
    for file in other.glob("runs/*/recipe.yaml"):
        file.write_text(file.read_text().replace("test: 12", "test: 9"))
    said = refusal(pronk, str(study), str(other), "--out", str(study.parent / "out"))
    assert "have different items (12 and 9 rows)" in said
    assert "--data FILE" in said
