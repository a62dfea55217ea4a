"""`pronk predict` of a run that was trained on multiple choice: what `pronk eval` chooses, with its scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from predicted import lines, write
from safetensors.torch import load_file, save_file

import pronk.ship.predict.choosing as subject
from pronk import api

Pronk = Callable[..., Told]


def questions(count: int) -> list[dict[str, Any]]:
    """Two to four choices of many lengths, the right one told by its place."""
    words = ["yes", "no", "it depends on the weather", "9"]
    return [{"question": f"Is {i} + {i} even?", "choices": words[: 2 + i % 3], "answer": i % 2} for i in range(count)]


@pytest.fixture(scope="module", params=["listed", "letters"])
def study(request: Any, tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, finish: Any) -> Workplace:
    """A run whose adapter is then made loud, measured again."""
    place = Workplace(tmp_path_factory.mktemp("choosing"), tiny_base)
    place.write_rows(questions(40))
    place.recipe["data"] |= {"format": "choice", "choices": request.param, "split": {"validation": 4, "test": 15}}
    place.recipe["train"]["max_steps"] = place.recipe["train"].pop("epochs")
    finish(place)
    (file,) = place.out.glob("runs/*/adapter/*.safetensors")
    draw = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}, file)
    api.evaluate(place.out)
    return place


def asked(study: Workplace, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The test rows without their answers, and what `pronk eval` chose."""
    measured = lines(study.out / "runs" / "tuned" / "items" / "choice.jsonl")
    places = [item["input"] for item in lines(study.out / "items.jsonl")]
    rows = [next(row for row in questions(40) if row["question"] in place) for place in places]
    return write(folder / "rows.jsonl", [{k: row[k] for k in ("question", "choices")} for row in rows]), measured


def agrees_with_eval(study: Workplace, pronk: Pronk, folder: Path) -> None:
    file, measured = asked(study, folder)
    out = folder / "out.jsonl"
    told = pronk("predict", str(study.out), "--input", str(file), "--output", str(out))
    assert told.code == 0, told.err
    assert "chosen 15" in told.err
    found = lines(out)
    for row, item in zip(found, measured, strict=True):
        assert list(row) == ["question", "choices", "choice", "choice_normalised", "scores"]
        assert row["choice"] == item["predicted"]
        assert row["choice_normalised"] == item["predicted_normalised"]
        assert row["scores"] == pytest.approx(item["scores"], rel=1e-4)
    assert len({row["choice"] for row in found}) > 1


def test_choices_are_those_of_eval(study: Workplace, pronk: Pronk, tmp_path: Path) -> None:
    agrees_with_eval(study, pronk, tmp_path)


def first_of_all(patch: pytest.MonkeyPatch) -> None:
    """Every row is given the choices of the first."""
    original = subject.choose

    def faulty(model: Any, adapter: Any, prompts: Any, choices: Any, *more: Any) -> Any:
        return original(model, adapter, prompts, [list(choices[0])[: len(one)] * 2 for one in choices], *more)

    patch.setattr(subject, "choose", faulty)


def by_length(patch: pytest.MonkeyPatch) -> None:
    """Scores come in the order of the rows' lengths."""
    original = subject.choose

    def faulty(model: Any, adapter: Any, prompts: Any, choices: Any, slots: Any, *more: Any) -> Any:
        found = original(model, adapter, prompts, choices, slots, *more)
        return {slot: sorted(scores, key=len) for slot, scores in found.items()}

    patch.setattr(subject, "choose", faulty)


@pytest.mark.parametrize("fault", [first_of_all, by_length])
def test_a_planted_fault_shows(
    study: Workplace, pronk: Pronk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        agrees_with_eval(study, pronk, tmp_path)


def test_csv_parquet_and_python(study: Workplace, pronk: Pronk, tmp_path: Path) -> None:
    import pyarrow.parquet

    file, measured = asked(study, tmp_path)
    run = study.out / "runs" / "tuned"
    for ending in ("csv", "parquet"):
        told = pronk("predict", str(run), "--input", str(file), "--output", str(tmp_path / f"out.{ending}"))
        assert told.code == 0, told.err
    with (tmp_path / "out.csv").open(newline="") as table:
        in_csv = list(csv.DictReader(table))
    in_parquet = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    in_python = api.predict(run, lines(file))
    for one, other, third, item in zip(in_csv, in_parquet, in_python, measured, strict=True):
        assert one["choice"] == other["choice"] == third["choice"] == item["predicted"]
        assert json.loads(one["scores"]) == json.loads(other["scores"]) == third["scores"]


def test_what_cannot_be_chosen_is_told(study: Workplace, pronk: Pronk, tmp_path: Path) -> None:
    run = str(study.out / "runs" / "tuned")
    rows = write(tmp_path / "rows.jsonl", [questions(1)[0], {"question": "Why?", "choices": ["alone"]}])
    out = tmp_path / "out.jsonl"
    told = pronk("predict", run, "--input", str(rows), "--output", str(out))
    assert told.code == 2
    assert "rows.jsonl:2: there must be 2 to 26 choices; found 1" in " ".join(told.err.split())
    told = pronk("predict", run, "--input", str(rows), "--output", str(out), "--max-new-tokens", "9")
    assert told.code == 2
    assert "picks one of each row's choices" in " ".join(told.err.split())
    assert pronk("predict", run, "--input", str(rows), "--output", str(out), "--skip-bad").code == 0
    assert [row["choice"] is None for row in lines(out)] == [False, True]
