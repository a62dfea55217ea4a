"""`pronk eval` into a folder of its own: several studies, other items, any base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LABELS, Told, Workplace, labelled_rows
from safetensors.torch import load_file, save_file
from study_files import contents, items

from pronk.data.split import read_splits
from pronk.errors import OptionError
from pronk.measure.items import own_items
from pronk.recipe import read_recipe

Pronk = Callable[..., Told]


def loud(study: Path) -> None:
    """Make the adapters of a study large and different: a tiny model's barely change anything."""
    for number, file in enumerate(sorted(study.glob("runs/*/adapter/*.safetensors"))):
        draw = torch.Generator().manual_seed(number)
        state = {name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}
        save_file(state, file)


def measured(pronk: Pronk, *arguments: str) -> dict[str, dict[str, Any]]:
    """The runs of what was measured, by name."""
    told = pronk("eval", *arguments, "--json")
    assert told.code == 0, told.err
    return {run["name"]: run for run in json.loads(told.out)["runs"]}


def alike(one: Path, other: Path) -> None:
    """The same answers, and likelihoods up to how products of other sizes round."""
    for name in ("classify.jsonl", "likelihood.jsonl"):
        pairs = zip((one / name).read_text().splitlines(), (other / name).read_text().splitlines(), strict=True)
        for row, again in ((json.loads(a), json.loads(b)) for a, b in pairs):
            assert row.keys() == again.keys()
            for key in ("id", "tokens", "label", "predicted", "generated", "generated_label"):
                assert row.get(key) == again.get(key)
            assert again.get("loss") == pytest.approx(row.get("loss"), abs=1e-4)
            assert again.get("scores") == pytest.approx(row.get("scores"), abs=1e-4)


@pytest.fixture
def second(study: Path, pronk: Pronk) -> Path:
    """Another study of the same rows, with other adapters."""
    other = study.parent / "second"
    shutil.copytree(study, other)
    loud(other)
    assert pronk("eval", str(other)).code == 0
    return other


def test_runs_of_two_studies_are_measured_as_each_measures_itself(study: Path, second: Path, pronk: Pronk) -> None:
    out = study.parent / "both"
    runs = measured(pronk, str(study / "runs" / "rank-2"), str(second), "--out", str(out))
    assert list(runs) == ["base", "study_rank-2", "second_rank-2", "rank-4"]
    alike(study / "runs" / "base" / "items", out / "runs" / "base" / "items")
    alike(study / "runs" / "rank-2" / "items", out / "runs" / "study_rank-2" / "items")
    for name, row in (("rank-2", "second_rank-2"), ("rank-4", "rank-4")):
        alike(second / "runs" / name / "items", out / "runs" / row / "items")
        own = next(run for run in json.loads((second / "study.json").read_text())["runs"] if run["name"] == name)
        assert runs[row]["metrics"] == pytest.approx(own["metrics"], rel=1e-4)
        assert runs[row]["train_tokens"] == own["train_tokens"]
        assert runs[row]["source"] == str(second / "runs" / name)
    assert runs["rank-4"]["settings"]["adapter.rank"] == 4
    assert (out / "items.jsonl").read_text() == (study / "items.jsonl").read_text()
    before = contents(out)
    assert pronk("report", str(out)).code == 0
    assert contents(out) == before
    told = pronk("generate", str(out), "--questions", "Why?", "--max-new-tokens", "2", "--json")
    assert [one["model"] for one in json.loads(told.out)["answers"]] == ["study/rank-2", "second/rank-2", "rank-4"]


def test_other_items_are_read_as_the_run_reads_its_own(study: Path, pronk: Pronk) -> None:
    """The test rows in a file of their own give the study's own figures; a file without one of the labels has them
    among the choices all the same."""
    rows = [json.loads(line) for line in (study / "items.jsonl").read_text().splitlines()]
    file, out = study.parent / "mine.jsonl", study.parent / "mine"
    file.write_text("".join(json.dumps({"text": row["input"], "label": row["label"]}) + "\n" for row in rows))
    told = pronk("eval", str(study), "--data", str(file), "--out", str(out))
    assert told.code == 0, told.err
    assert "trained on" not in told.err
    for run in ("base", "rank-2", "rank-4"):
        alike(study / "runs" / run / "items", out / "runs" / run / "items")
    few = [row for row in labelled_rows(60) if row["label"] != "neutral"]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*few, few[0]]))
    told = pronk("eval", str(study / "runs" / "rank-2"), "--data", str(file), "--no-base", "--out", f"{out}-2")
    assert told.code == 0, told.err
    (row, *_) = (Path(f"{out}-2") / "runs" / "rank-2" / "items" / "classify.jsonl").read_text().splitlines()
    assert tuple(json.loads(row)["scores"]) == LABELS
    assert "warning: items that were trained on: 33 of 41 by rank-2" in told.err
    assert "items that ask what another one asks: 1" in told.err


def test_validation_rows_are_those_of_the_training(study: Path, place: Workplace, pronk: Pronk) -> None:
    out = study.parent / "validation"
    measured(pronk, str(study), "--split", "validation", "--out", str(out))
    splits, _ = read_splits(read_recipe(place.folder / "recipe.yaml").data)
    inputs = [json.loads(line)["input"] for line in (out / "items.jsonl").read_text().splitlines()]
    assert inputs == [row.subject for row in splits.validation]


def test_an_adapter_from_elsewhere_and_its_base_by_another_name(study: Path, tiny_base: Path, pronk: Pronk) -> None:
    """A copy of a run's adapter is measured as the run; a base that is named is the base of the runs over it."""
    shutil.copytree(study / "runs" / "rank-4" / "adapter", study.parent / "theirs")
    out = study.parent / "out"
    targets = [str(tiny_base), str(study / "runs" / "rank-4"), str(study.parent / "theirs")]
    runs = measured(pronk, *targets, "--prompt", "alpaca", "--out", str(out))
    assert [(name, run["baseline"]) for name, run in runs.items()] == [
        ("tiny", True), ("base", True), ("rank-4", False), ("theirs", False),
    ]  # fmt: skip
    assert len({run["base"] for run in runs.values()}) == 1
    alike(out / "runs" / "rank-4" / "items", out / "runs" / "theirs" / "items")
    alike(out / "runs" / "tiny" / "items", out / "runs" / "base" / "items")
    runs = measured(pronk, *targets[:2], "--out", f"{out}-2")
    assert list(runs) == ["base", "rank-4"]


def test_a_base_alone_on_a_file(place: Workplace, tiny_base: Path, tmp_path: Path, pronk: Pronk) -> None:
    """How the file is read is found from its columns; what is measured may be said."""
    arguments = [str(tiny_base), "--data", str(place.folder / "rows.jsonl"), "--prompt", "alpaca"]
    runs = measured(pronk, *arguments, "--evaluate", "likelihood", "--out", str(tmp_path / "out"))
    assert list(runs) == ["tiny"]
    assert "nll" in runs["tiny"]["metrics"]
    assert "accuracy" not in runs["tiny"]["metrics"]
    assert len((tmp_path / "out" / "items.jsonl").read_text().splitlines()) == 60


def test_multiple_choice_is_measured_the_same_again_and_from_a_file(workplace: Workplace, pronk: Pronk) -> None:
    rows = [{"question": f"{i} + 1?", "choices": [str(i), str(i + 1), "9"], "answer": 1} for i in range(8)]
    workplace.write_rows(rows)
    workplace.recipe["data"] |= {"format": "choice", "split": {"validation": 0, "test": 4}}
    workplace.recipe["train"]["max_steps"] = 1
    assert pronk(*workplace.arguments()).code == 0
    before = items(workplace.out)
    assert "tuned/choice" in before
    assert pronk("eval", str(workplace.out)).code == 0
    assert items(workplace.out) == before
    file = str(workplace.folder / "rows.jsonl")
    runs = measured(pronk, str(workplace.out), "--data", file, "--out", str(workplace.folder / "other"))
    assert runs.keys() == {"base", "tuned"}
    assert len((workplace.folder / "other" / "items.jsonl").read_text().splitlines()) == 8


def test_a_part_without_rows_says_which_rows_there_are(tmp_path: Path) -> None:
    """General text wants no test items, but a study folder does."""
    place = Workplace(tmp_path, tmp_path)
    place.recipe |= {"evaluate": ["forgetting"]}
    place.recipe["data"]["split"] = {"test": 0, "validation": 6}
    _, recipe, *_ = place.arguments()
    said = r"the test part of this data has no rows \(data\.split\.test\).*forgetting included.*--split validation or"
    with pytest.raises(OptionError, match=said):
        own_items(read_recipe(Path(recipe)), "test")
