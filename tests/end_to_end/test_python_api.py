"""pronk from Python: results are objects, errors are exceptions, and importing it costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Workplace

import pronk
import pronk.train.recorder
from pronk.errors import DataError, OptionError, PronkError, RecipeError, StudyError


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Workplace:
    made = Workplace(tmp_path_factory.mktemp("python"), tiny_base)
    made.recipe["data"]["format"], made.recipe["train"]["max_steps"] = "classify", 4
    del made.recipe["train"]["epochs"]
    made.arguments()  # writes the recipe
    return made


@pytest.fixture(scope="module")
def study(place: Workplace) -> Any:
    overrides = {"study.adapter.rank": [2, 4], "train.learning_rate": 1e-2, "data.split.balanced": False}
    drive = place.folder / "drive"
    drive.mkdir()
    return pronk.run(place.folder / "recipe.yaml", out=place.out, overrides=overrides, copy_to=drive)


def test_import_loads_nothing_heavy() -> None:
    code = "import pronk, sys; print([m for m in ('torch', 'transformers', 'pydantic', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_names_that_pronk_does_not_have() -> None:
    assert {"run", "report", "generate"} <= set(pronk.__all__)
    with pytest.raises(AttributeError, match="'pronk' has no attribute 'train_all'"):
        _ = pronk.train_all


def test_a_study_is_what_its_folder_says(study: Any, place: Workplace) -> None:
    whole = place.study()
    assert [one.name for one in study.runs] == ["base", "rank-2", "rank-4"]
    assert [one.metrics for one in study.runs] == [one["metrics"] for one in whole["runs"]]
    assert [one.status for one in study.runs] == ["finished"] * 3
    assert study["rank-2"].settings == {"adapter.rank": 2}
    assert study["rank-2"].details["train_tokens"] == whole["runs"][1]["train_tokens"] > 0
    assert (study["base"].baseline, study["base"].adapter) == (True, None)
    assert (study["rank-4"].adapter / "adapter_config.json").is_file()
    assert len(study.comparisons) == len(whole["comparisons"]) > 0
    first, entry = study.comparisons[0], whole["comparisons"][0]
    assert (first.a, first.verdict, first.interval) == (entry["a"], entry["verdict"], tuple(entry["interval"]))
    assert [one.items_needed for one in study.comparisons] == [one["items_needed"] for one in whole["comparisons"]]
    assert (study.path, study.name) == (place.out, "study")
    assert study.report.is_file()


def test_the_best_run_ranks_first_and_is_no_base(study: Any) -> None:
    tuned = [one for one in study.runs if not one.baseline]
    assert study.best.metrics["accuracy"] == max(one.metrics["accuracy"] for one in tuned)
    assert study.best in tuned


def test_overrides_reach_the_recipe(study: Any) -> None:
    recipe = (study["rank-2"].path / "recipe.yaml").read_text(encoding="utf-8")
    assert "learning_rate: 0.01" in recipe
    assert "balanced: false" in recipe


def test_a_study_is_copied_to_a_drive(study: Any) -> None:
    assert list((study.path.parent / "drive").rglob("report.html"))


def test_a_study_shows_itself(study: Any) -> None:
    assert "against base" in repr(study)
    assert str(study.report) in repr(study)
    page = study._repr_html_()
    assert page.count("<tr>") == 4
    assert "<td>rank-2</td>" in page
    assert "Accuracy" in page


def test_a_hostile_study_is_escaped(study: Any, tmp_path: Path) -> None:
    shutil.copytree(study.path, tmp_path / "copy")
    whole = json.loads((tmp_path / "copy" / "study.json").read_text())
    whole["runs"][1] |= {"status": "<script>x</script>"}
    (tmp_path / "copy" / "study.json").write_text(json.dumps(whole))
    page = pronk.report(tmp_path / "copy")._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_study_is_opened_again(study: Any) -> None:
    again = pronk.report(str(study.path))
    assert [one.metrics for one in again.runs] == [one.metrics for one in study.runs]
    assert again.best == study.best


def test_eval_takes_what_run_gave(study: Any, place: Workplace) -> None:
    """Runs on other rows into a new folder; the study itself comes out as it went in."""
    out = place.folder / "other"
    other = pronk.eval(study["rank-4"], data=place.folder / "rows.jsonl", evaluations=["likelihood"], out=out)
    assert [one.name for one in other.runs] == ["base", "rank-4"]
    assert "nll" in other["rank-4"].metrics
    assert "accuracy" not in other["rank-4"].metrics
    assert other.path == out
    again = pronk.eval(study)
    assert [one.metrics for one in again.runs] == [one.metrics for one in study.runs]
    assert again.path == study.path
    with pytest.raises(OptionError, match="name at least one run, study, adapter or base to measure"):
        pronk.eval()
    with pytest.raises(OptionError, match="--split: found 'train', expected one of test, validation"):
        pronk.eval(study, split="train")


def test_generate_takes_what_run_gave(study: Any) -> None:
    answers = pronk.generate(study, questions=["Why?", "How?"], base=True, max_new_tokens=3)
    assert [one["model"] for one in answers] == ["base", "rank-2", "rank-4"] * 2
    assert len(answers) == 6
    by_run = pronk.generate(study.best, questions="How?", max_new_tokens=3)
    assert by_run[0] == next(one for one in answers.records[3:] if one["model"] == study.best.name)
    assert "1. Why?" in repr(answers)
    assert answers._repr_html_().count("<tr>") == 3
    base = pronk.generate(study["base"], questions="How?", max_new_tokens=3, prompt="alpaca", temperature=1.0)
    assert base[0]["model"] == "tiny"


def test_predict_takes_what_run_gave(study: Any) -> None:
    items = [json.loads(line) for line in (study.path / "items.jsonl").read_text().splitlines()]
    measured = study["rank-2"].path / "items" / "classify.jsonl"
    expected = [json.loads(line)["predicted"] for line in measured.read_text().splitlines()]
    found = pronk.predict(
        study["rank-2"], [{"text": one["input"], "label": one["label"]} for one in items], prefix="p_"
    )
    assert [one["p_label"] for one in found] == expected
    assert [one["label"] for one in found] == [one["label"] for one in items]
    texts = pronk.predict(study["rank-2"].path, [one["input"] for one in items[:2]], calibrate=False)
    assert list(texts[0]) == ["text", "label", "probability", "probabilities"]
    assert pronk.predict(study["rank-2"], []) == []
    with pytest.raises(DataError, match="row 2: the text is empty"):
        pronk.predict(study["rank-2"], ["a", ""])
    with pytest.raises(OptionError, match="name one of them"):
        pronk.predict(study.path, ["a"])


def test_a_run_is_exported(study: Any, tmp_path: Path) -> None:
    told = pronk.export(study["rank-2"], to=["adapter", "merged"], out=tmp_path / "shipped", rows=2)
    assert told["passed"]
    assert [one["name"] for one in told["artifacts"]] == ["adapter", "merged"]
    written = json.loads((told["folder"] / "export.json").read_text())
    assert written["artifacts"] == json.loads(json.dumps(told["artifacts"]))
    assert (tmp_path / "shipped" / "adapter" / "adapter_config.json").is_file()
    with pytest.raises(OptionError, match=r"--to mergd.*did you mean 'merged'"):
        pronk.export(study["rank-2"], to="mergd")
    with pytest.raises(StudyError, match="stands here already"):
        pronk.export(study["rank-2"], out=tmp_path / "shipped")


def test_errors_are_exceptions(study: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such recipe file"):
        pronk.run(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"unknown key train\.epoch; did you mean train\.epochs"):
        pronk.run(study.path.parent / "recipe.yaml", overrides={"train.epoch": 3})
    with pytest.raises(StudyError, match=r"there is no study\.json here"):
        pronk.report(tmp_path)
    with pytest.raises(OptionError, match="unknown key temprature; did you mean temperature"):
        pronk.generate(study, temprature=1)
    with pytest.raises(OptionError, match="name at least one run"):
        pronk.generate()
    with pytest.raises(OptionError, match="no question"):
        pronk.generate(study, questions=[])
    with pytest.raises(PronkError, match="this folder is not empty"):
        pronk.run(study.path.parent / "recipe.yaml", out=study.path)
    with pytest.raises(KeyError, match="there are base, rank-2, rank-4"):
        _ = study["rank-3"]


def test_an_interrupted_run_says_where_it_lies(place: Workplace, tmp_path: Path, monkeypatch: Any) -> None:
    original = pronk.train.recorder.Recorder.after_round

    def pressed(self: Any, steps: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        original(self, steps)

    monkeypatch.setattr(pronk.train.recorder.Recorder, "after_round", pressed)
    with pytest.raises(KeyboardInterrupt, match=r"what was trained is saved; open it with pronk\.report"):
        pronk.run(place.folder / "recipe.yaml", out=tmp_path / "stopped")
    assert pronk.report(tmp_path / "stopped").runs[-1].status == "interrupted"
    assert pronk.report(tmp_path / "stopped").best is None
