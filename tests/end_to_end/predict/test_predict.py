"""`pronk predict`: what transformers and PEFT say of the same rows, what `pronk eval` says, and what can go wrong."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from command_line import LABELS, Told
from peft import PeftModel
from predicted import lines, texts, write
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from pronk.model.saved import WEIGHTS
from pronk.ship.predict import answers as predict_answers
from pronk.ship.predict import calibrating as predict_calibration
from pronk.ship.predict.answers import Labels

Pronk = Callable[..., Told]
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nClassify the text as negative, neutral or positive. Answer with the label alone.\n\n"
    "### Input:\n{}\n\n### Response:\n"
)


def predicted(pronk: Pronk, run: Path, rows: Path, *more: str) -> list[dict[str, Any]]:
    """The rows of a new output file."""
    out = rows.with_name(f"{rows.stem}-out.jsonl")
    out.unlink(missing_ok=True)
    told = pronk("predict", str(run), "--input", str(rows), "--output", str(out), *more)
    assert told.code == 0, told.err
    return lines(out)


def test_rows(study: Path, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The test rows of a study as a file, and what `pronk eval` found of them."""
    items = lines(study / "items.jsonl")
    file = write(folder / "rows.jsonl", [{"id": item["id"], "text": item["input"]} for item in items])
    return file, lines(study / "runs" / "tuned" / "items" / "classify.jsonl")


test_rows.__test__ = False  # type: ignore[attr-defined]


def plain_scores(run: Path, base: str, rows: list[dict[str, Any]]) -> np.ndarray:
    """The log-probability of each label in full by transformers and PEFT, one row at a time (N, C)."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(run / "adapter")).eval()
    end = tokenizer.eos_token_id
    found = []
    for row in rows:
        prompt = [tokenizer.bos_token_id] * 0 + tokenizer(ALPACA.format(row["text"])).input_ids
        for label in LABELS:
            ids = [*prompt, *tokenizer(label).input_ids, end]
            with torch.no_grad():
                log_p_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            targets = range(len(prompt), len(ids))
            found.append(sum(float(log_p_TV[place - 1, ids[place]]) for place in targets))
    return np.array(found).reshape(len(rows), len(LABELS))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_probabilities_are_those_of_transformers_and_peft(run: Path, pronk: Pronk, tmp_path: Path) -> None:
    file, _ = test_rows(run.parents[1], tmp_path)
    found = predicted(pronk, run, file, "--no-calibration")
    base = str(json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"])
    p_NC = softmax(plain_scores(run, base, lines(file)), axis=1)
    for row, expected in zip(found, p_NC, strict=True):
        assert [row["probabilities"][label] for label in LABELS] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)
        assert row["label"] == LABELS[int(expected.argmax())]
        assert row["probability"] == row["probabilities"][row["label"]] == max(row["probabilities"].values())
    assert len({row["label"] for row in found}) > 1


def agrees_with_eval(pronk: Pronk, run: Path, folder: Path) -> None:
    file, measured = test_rows(run.parents[1], folder)
    found = predicted(pronk, run, file)
    assert [row["id"] for row in found] == [item["id"] for item in measured]
    assert [row["label"] for row in found] == [item["predicted"] for item in measured]
    for row, item in zip(found, measured, strict=True):
        expected = softmax(np.array([item["scores"][label] for label in LABELS]) / 2.5)
        assert list(row["probabilities"].values()) == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)


def test_labels_are_those_of_eval(run: Path, pronk: Pronk, tmp_path: Path) -> None:
    """Exactly; and probabilities are its scores, calibrated."""
    agrees_with_eval(pronk, run, tmp_path)


def normalised_by_length(patch: pytest.MonkeyPatch) -> None:
    """A label's score is the mean of its tokens', as if long labels were to be helped."""
    original = Labels.scores

    def faulty(self: Labels, *args: Any) -> Any:
        return original(self, *args) / np.array([len(ids) for ids in self.ids])

    patch.setattr(Labels, "scores", faulty)


def without_end(patch: pytest.MonkeyPatch) -> None:
    """Labels are scored without their end token."""
    original = Labels.__init__

    def faulty(self: Labels, *args: Any) -> None:
        original(self, *args)
        self.ids = [ids[:-1] for ids in self.ids]

    patch.setattr(Labels, "__init__", faulty)


def order_changed(patch: pytest.MonkeyPatch) -> None:
    """Records come in the order of their lengths."""
    original = Labels.records

    def faulty(self: Labels, items: Any, *args: Any) -> Any:
        return original(self, sorted(items, key=lambda item: -len(item.ids)), *args)

    patch.setattr(Labels, "records", faulty)


def wrong_side(patch: pytest.MonkeyPatch) -> None:
    """Scores are multiplied by the temperature."""
    original = predict_answers.log_probabilities
    patch.setattr(predict_answers, "log_probabilities", lambda scores, t: original(scores, 1 / t))


@pytest.mark.parametrize("fault", [normalised_by_length, without_end, order_changed, wrong_side])
def test_a_fault_shows(run: Path, pronk: Pronk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        agrees_with_eval(pronk, run, tmp_path)


# --- calibration -----------------------------------------------------------------------------------


def test_calibration_is_made_once_and_again_when_anything_changes(
    run: Path, pronk: Pronk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = predict_calibration.calibrate

    def counted(scores_NC: Any, right_N: Any) -> Any:
        made.append(len(right_N))
        return original(scores_NC, right_N)

    monkeypatch.setattr(predict_calibration, "calibrate", counted)
    file = write(tmp_path / "rows.jsonl", texts(3))
    predicted(pronk, run, file)
    assert made == []
    weights = run / "adapter" / "adapter_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\0\0\0\0")
    predicted(pronk, run, file)
    assert made == [30]
    (run / "calibration.json").write_text("{")
    predicted(pronk, run, file)
    assert made == [30] * 2
    # the data is gone: what is kept still holds; other data is no data
    told = pronk(
        "predict", str(run), "--input", str(file), "--output", "-", "--set", f"data.source={tmp_path}/no.jsonl"
    )
    assert "calibration: as kept in" in told.err
    write(tmp_path / "other.jsonl", [{"text": f"t {i}", "label": LABELS[i % 3]} for i in range(100)])
    (run / "calibration.json").unlink()
    other = f"data.source={tmp_path}/other.jsonl"
    told = pronk("predict", str(run), "--input", str(file), "--output", "-", "--set", other)
    assert (
        "not calibrated: the validation rows cannot be read (its data is no longer what it was trained on)" in told.err
    )
    assert made == [30] * 2


def test_what_cannot_be_calibrated_is_said(run: Path, tiny_base: Path, pronk: Pronk, tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", texts(2))
    base = [
        "predict",
        str(tiny_base),
        "--input",
        str(file),
        "--output",
        "-",
        "--column",
        "text",
        "--set",
        "data.format=classify",
    ]
    told = pronk(*base, "--set", "data.labels=[good, bad]")
    assert told.code == 0, told.err
    assert "probabilities are not calibrated: only runs of pronk have validation rows of their own" in told.err
    assert list(json.loads(told.out.splitlines()[0])["probabilities"]) == ["good", "bad"]
    told = pronk(*base)
    assert told.code == 2
    assert "name them: --set 'data.labels=[first, second]'" in told.err
    told = pronk("predict", str(run), "--input", str(file), "--output", "-", "--no-calibration")
    assert "calibrat" not in told.err


# --- files -----------------------------------------------------------------------------------------


def test_every_kind_of_file_holds_the_same(run: Path, pronk: Pronk, tmp_path: Path) -> None:
    rows = [{"n": i, "text": row["text"], "share": i / 4, "more": [i]} for i, row in enumerate(texts(5))]
    rows[3] |= {"n": None, "ok": True}
    file = write(tmp_path / "rows.jsonl", rows)
    as_json = predicted(pronk, run, file)
    assert [{key: row[key] for key in given} for row, given in zip(as_json, rows, strict=True)] == rows
    for name in ("a.csv", "a.parquet"):
        told = pronk("predict", str(run), "--input", str(file), "--output", str(tmp_path / name))
        assert told.code == 0, told.err
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    with (tmp_path / "a.csv").open(newline="") as lines_of:
        sheet = list(csv.DictReader(lines_of))
    new = ["label", "probability", *(f"probabilities.{label}" for label in LABELS)]
    assert list(table[0]) == list(sheet[0]) == ["n", "text", "share", "more", "ok", *new]
    for row, cells, given in zip(table, sheet, as_json, strict=True):
        assert (row["n"], row["share"], row["more"], row["ok"]) == (
            given["n"],
            given["share"],
            str(given["more"]),
            given.get("ok"),
        )
        assert row["label"] == cells["label"] == given["label"]
        for label in LABELS:
            assert (
                row[f"probabilities.{label}"] == float(cells[f"probabilities.{label}"]) == given["probabilities"][label]
            )
    # and from those: CSV, Parquet, .json and stdin are read alike
    for source in ("a.csv", "a.parquet"):
        told = pronk("predict", str(run), "--input", str(tmp_path / source), "--output", "-", "--prefix", "again_")
        assert [json.loads(line)["again_label"] for line in told.out.splitlines()] == [row["label"] for row in as_json]
    again = tmp_path / "again.parquet"
    told = pronk(
        "predict", str(run), "--input", str(tmp_path / "a.parquet"), "--output", str(again), "--prefix", "again_"
    )
    assert told.code == 0, told.err
    schema, before = pyarrow.parquet.read_schema(again), pyarrow.parquet.read_schema(tmp_path / "a.parquet")
    assert [schema.field(name) for name in before.names] == list(before)


def test_stdin_to_stdout(run: Path, pronk: Pronk, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'{"text": "a"}\n\n{"text": "b\\u001b[2J"}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    told = pronk("predict", str(run), "--input", "-", "--output", "-")
    assert told.code == 0, told.err
    assert [json.loads(line)["text"] for line in told.out.splitlines()] == ["a", "b\x1b[2J"]
    assert "\x1b" not in told.out
    assert "2 rows: negative " in told.err


def test_a_row_that_cannot_be_read(run: Path, pronk: Pronk, tmp_path: Path) -> None:
    """Stops everything before weights are loaded; or all are told, in their places."""
    good = texts(2)
    rows = [good[0], {"text": ""}, '{"text": ', {"text": "long " * 400, "n": "\ud800"}, {"other": 1}, good[1]]
    file, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    told = pronk("predict", str(run), "--input", str(file), "--output", str(out))
    assert told.code == 2
    assert "rows.jsonl:2: the text is empty (4 of 6 rows cannot be read); mend the file, or" in told.err
    assert list(tmp_path.glob("out*")) == []
    found = predicted(pronk, run, file, "--skip-bad")
    assert [row["error"] and row["error"].split(":")[1] for row in found] == [None, "2", "3", "4", "5", None]
    assert "tokens are too long: the base reads 256" in found[3]["error"]
    assert [row["label"] is None for row in found] == [False, True, True, True, True, False]
    assert found[3]["n"] == "\ud800"
    alone = predicted(pronk, run, write(tmp_path / "good.jsonl", good))
    assert [found[0]["label"], found[5]["label"]] == [row["label"] for row in alone]
    told = pronk("predict", str(run), "--input", str(file), "--output", str(tmp_path / "a.csv"), "--skip-bad")
    assert told.code == 0, told.err
    assert "4 rows could not be read (column error)" in told.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--output", "a.txt"], "--output a.txt: expected a file ending in .jsonl, .csv or .parquet, or - for stdout"),
        (["--input", "a.tsv", "--output", "a.csv"], "--input a.tsv: expected a file ending in .jsonl, .json, .csv"),
        (["--input", "no.csv", "--output", "a.csv"], "no.csv: there is no such file"),
        (["--input", "empty.jsonl", "--output", "a.csv"], "empty.jsonl: there are no rows"),
        (["--output", "a.csv", "--column", "txt"], "there is no column 'txt' for text; the columns are 'n', "),
        (["--output", "a.csv"], "the input has a column 'label' already; name the new columns apart, such as --prefix"),
        (["--output", "rows.jsonl/a.csv", "--prefix", "p_"], "there (part of the path is a file)"),
        (["--output", "study"], "--output study: this is a folder; name a file in it"),
        (["--input", "bad.jsonl", "--output", "a.csv", "--skip-bad"], "the text is empty (none of 1 row can be read)"),
        (["--output", "rows.jsonl"], "--output rows.jsonl: this file exists already; choose another name, or"),
        (["--output", "a.csv", "--temperature", "1"], "--temperature is for models that write text"),
        (["--output", "-", "--json"], "--json and --output - would both print to stdout"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_loaded(
    run: Path, pronk: Pronk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], why: str
) -> None:
    monkeypatch.setattr(predict_answers, "load_group", lambda *_: pytest.fail("weights are loaded"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", [{**row, "label": "x"} for row in texts(2)])
    (tmp_path / "empty.jsonl").write_text("\n")
    write(tmp_path / "bad.jsonl", [{"text": ""}])
    given = [] if "--input" in arguments else ["--input", "rows.jsonl"]
    told = pronk("predict", str(run), *given, *arguments)
    assert told.code == 2
    assert why in " ".join(told.err.split())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "empty.jsonl", "rows.jsonl", "study"]


def test_scores_that_are_not_finite_are_no_predictions(run: Path, pronk: Pronk, tmp_path: Path) -> None:
    for parameter in (file := load_file(run / "adapter" / WEIGHTS)):
        file[parameter] = file[parameter] * 1e30
    save_file(file, run / "adapter" / WEIGHTS)
    out = tmp_path / "out.csv"
    rows = write(tmp_path / "rows.jsonl", texts(2))
    told = pronk("predict", str(run), "--input", str(rows), "--output", str(out), "--no-calibration")
    assert told.code == 2
    assert "tuned: its scores are not finite numbers in auto" in told.err
    assert list(tmp_path.glob("*out*")) == []


def test_a_study_of_several_runs_is_asked_which(run: Path, pronk: Pronk, tmp_path: Path) -> None:
    shutil.copytree(run, run.parent / "other")
    file = write(tmp_path / "rows.jsonl", texts(1))
    told = pronk("predict", str(run.parents[1]), "--input", str(file), "--output", "-")
    assert told.code == 2
    assert "this study has 2 runs, and one predicts; name one of them" in told.err


# --- texts -----------------------------------------------------------------------------------------


def test_texts_are_those_of_generate(writer: Path, pronk: Pronk, tmp_path: Path) -> None:
    questions = ["Why?", "What is a llama, and where does it live?", "How?"]
    file = write(tmp_path / "rows.jsonl", [{"prompt": one} for one in questions])
    found = predicted(pronk, writer, file, "--max-new-tokens", "6")
    asked = [part for one in questions for part in ("--questions", one)]
    told = pronk("generate", str(writer), *asked, "--max-new-tokens", "6", "--json")
    answers = json.loads(told.out)["answers"]
    assert [(row["text"], row["ended"]) for row in found] == [(one["answer"], one["ended"]) for one in answers]
    drawn = ["--max-new-tokens", "6", "--temperature", "1.5", "--seed", "7"]
    found = predicted(pronk, writer, file, *drawn)
    answers = json.loads(pronk("generate", str(writer), *asked, *drawn, "--json").out)["answers"]
    assert [row["text"] for row in found] == [one["answer"] for one in answers]


def test_a_text_is_no_formula_in_a_sheet(
    writer: Path, pronk: Pronk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = iter(['=HYPERLINK("http://x")', "@SUM(1)", "-12.5", "- a list", "\t=1", 'plain, "quoted"\nlines'])
    monkeypatch.setattr(
        predict_answers.Texts, "_written",
        lambda _, items, *__: [{"text": next(hostile), "ended": "end"} for _ in items],
    )  # fmt: skip
    file = write(tmp_path / "rows.jsonl", [{"prompt": "=1+1", "ok": True}] * 6)
    told = pronk("predict", str(writer), "--input", str(file), "--output", str(tmp_path / "a.csv"))
    assert told.code == 0, told.err
    with (tmp_path / "a.csv").open(newline="") as sheet:
        rows = list(csv.DictReader(sheet))
    expected = ['\'=HYPERLINK("http://x")', "'@SUM(1)", "-12.5", "'- a list", "'\t=1", 'plain, "quoted"\nlines']
    assert [row["text"] for row in rows] == expected
    assert {(row["prompt"], row["ok"]) for row in rows} == {("=1+1", "true")}  # the user's own cells are left alone
