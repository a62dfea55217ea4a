"""`pronk predict` on a GPU: the labels of `pronk eval`, and the same bytes after a stop. Run with `pytest -m gpu`."""

import json

import pytest
import torch
import yaml

import pronk
from pronk.ship.predict import answers as predict_answers
from pronk.ship.predict.journal import Journal
from pronk.ship.predict.predicting import Wanted, predict_file

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),
]


def _lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_labels_are_those_of_eval_and_going_on_gives_the_same_bytes(tiny_base, worded, monkeypatch):
    from rich.console import Console

    recipe = {
        "base": str(tiny_base), "allow": ["unknown-tokens"],
        "data": {"source": "rows.jsonl", "split": {"test": 60, "validation": 60}},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 0.02, "dtype": "fp32", "device": "cuda"},
    }  # fmt: skip
    (worded / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    study = pronk.run(worded / "recipe.yaml", out=worded / "study")
    run = study.best
    items = _lines(study.path / "items.jsonl")
    measured = [one["predicted"] for one in _lines(run.path / "items" / "classify.jsonl")]
    found = pronk.predict(run, [item["input"] for item in items])
    assert [one["label"] for one in found] == measured
    assert all(abs(sum(one["probabilities"].values()) - 1) < 1e-4 for one in found)

    monkeypatch.setattr(predict_answers, "WINDOW_BATCHES", 1)
    monkeypatch.setattr("pronk.evaluate.evaluation.CPU_BATCH", 1024)
    monkeypatch.setattr("pronk.evaluate.evaluation.LARGEST_BATCH", 1024)
    wanted, console = Wanted(str(run.path)), Console(stderr=True)
    given, whole, out = (str(worded / name) for name in ("rows.jsonl", "whole.csv", "out.csv"))
    predict_file(wanted, given, whole, console, "p_")
    original = Journal.add

    def stops(self, records):
        original(self, records)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stops)
        with pytest.raises(KeyboardInterrupt, match="rows are done"):
            predict_file(wanted, given, out, console, "p_")
    assert predict_file(wanted, given, out, console, "p_").made < 200
    assert (worded / "out.csv").read_bytes() == (worded / "whole.csv").read_bytes()


def test_texts_on_a_gpu(tiny_base):
    questions = ["Why?", "What is a llama, and where does it live?", "How?"]
    settings = {"max_new_tokens": 8, "overrides": {"train.dtype": "fp32"}, "prompt": "alpaca"}
    found = pronk.predict(tiny_base, questions, column="question", **settings)
    answers = pronk.generate(tiny_base, questions=questions, **settings)
    assert [one["text"] for one in found] == [one["answer"] for one in answers]
