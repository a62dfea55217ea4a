"""Whole studies in every form that a recipe can take, small enough to run within a second."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told, Workplace
from safetensors.torch import load_file

from pronk.evaluate.overlap import chrf, rouge_l

Pronk = Callable[..., Told]


def finish(workplace: Workplace, pronk: Pronk, *more: str) -> dict[str, dict[str, Any]]:
    """The study's runs by name; all must have finished."""
    told = pronk(*workplace.arguments(*more))
    assert told.code == 0, told.err
    runs = {run["name"]: run for run in workplace.study()["runs"]}
    assert all(run["status"] == "finished" for run in runs.values())
    assert (workplace.out / "report.html").is_file()
    return runs


def records(workplace: Workplace, name: str = "tuned", kind: str = "train") -> list[dict[str, Any]]:
    text = (workplace.out / "runs" / name / "metrics.jsonl").read_text()
    return [record for record in map(json.loads, text.splitlines()) if record["kind"] == kind]


ROWS = {
    "alpaca": [
        {
            "instruction": f"Add {i} and one.",
            "input": "" if i % 2 else f"Shortly, {i}",
            "output": f"{i + 1}\nThat is it.",
        }
        for i in range(30)
    ],
    "pairs": [{"prompt": f'What follows "{i}", and why?', "response": f"{i + 1}, it is next"} for i in range(30)],
}


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("form", ["alpaca", "pairs"])
def test_formats_without_labels(workplace: Workplace, pronk: Pronk, form: str, ending: str) -> None:
    rows, path = ROWS[form], workplace.folder / f"data.{ending}"
    if ending == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        workplace.write_rows(list(rows), path.name)
    workplace.recipe["data"] = {"source": path.name, "format": form, "split": {"validation": 3, "test": 6}}
    runs = finish(workplace, pronk)
    assert runs["tuned"]["metrics"].keys() == {"nll", "perplexity", "bits_per_byte"}
    assert runs["tuned"]["metrics"]["nll"] < runs["base"]["metrics"]["nll"]
    items = [json.loads(line) for line in (workplace.out / "items.jsonl").read_text().splitlines()]
    answers = [row["output" if form == "alpaca" else "response"] for row in rows]
    assert len(items) == 6
    assert all(item["reference"] in answers and item["label"] is None for item in items)


def test_both_file_types_give_the_same_study(workplace: Workplace, pronk: Pronk) -> None:
    adapters = []
    for ending in ("jsonl", "csv"):
        workplace.out = workplace.folder / ending
        test_formats_without_labels(workplace, pronk, "pairs", ending)
        adapters.append((workplace.out / "runs" / "tuned" / "adapter" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_a_template_of_ones_own(workplace: Workplace, pronk: Pronk) -> None:
    """It goes with the adapter, so that whoever serves it asks as training did."""
    own = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    own += "{% if add_generation_prompt %}assistant: {% endif %}"
    (workplace.folder / "own.jinja").write_text(own, encoding="utf-8")
    workplace.recipe["prompt"] = "own.jinja"
    finish(workplace, pronk)
    saved = [path.read_text(encoding="utf-8") for path in workplace.out.glob("runs/tuned/**/chat_template.jinja")]
    assert saved
    assert set(saved) == {own}


def test_the_bases_own_chat_template(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["prompt"] = "chat"
    runs = finish(workplace, pronk)
    assert runs["tuned"]["metrics"]["nll"] < runs["base"]["metrics"]["nll"]


def test_learning_the_prompt_as_well(workplace: Workplace, pronk: Pronk) -> None:
    """In one fleet with a run that does not: the losses it trains on differ, what the test counts does not."""
    workplace.recipe["study"] = {"train.train_on_prompt": [False, True]}
    runs = finish(workplace, pronk)
    assert len(runs) == 3
    names = [name for name, run in runs.items() if not run["baseline"]]
    for kind in ("train", "validation"):
        first = [records(workplace, name, kind)[0] for name in names]
        assert first[0]["loss"] != first[1]["loss"]
    items = [(workplace.out / "runs" / name / "items" / "likelihood.jsonl").read_text().splitlines() for name in runs]
    counted = [[json.loads(line)["tokens"] for line in lines] for lines in items]
    assert counted[0] == counted[1] == counted[2]


def test_max_steps_ends_a_run_whatever_epochs_says(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["train"] |= {"epochs": 50, "max_steps": 4, "evaluate_every": 3, "save_every": 2}
    runs = finish(workplace, pronk)
    assert runs["tuned"]["steps"] == 4
    assert [record["step"] for record in records(workplace)] == [1, 2, 3, 4]
    assert [record["step"] for record in records(workplace, kind="validation")] == [3, 4]
    checkpoints = workplace.out / "runs" / "tuned" / "checkpoints"
    assert sorted(folder.name for folder in checkpoints.iterdir()) == ["step-2", "step-4"]


def test_schedules_beside_each_other(workplace: Workplace, pronk: Pronk) -> None:
    """Constant, linear and cosine in one fleet: each has its own rate at every step."""
    workplace.recipe["train"] |= {"warmup_steps": 2, "learning_rate": 8e-3}
    workplace.recipe["study"] = {"train.schedule": ["constant", "constant_with_warmup", "linear", "cosine"]}
    finish(workplace, pronk)
    rates = {
        schedule: [round(record["learning_rate"] / 8e-3, 6) for record in records(workplace, f"schedule-{schedule}")]
        for schedule in workplace.recipe["study"]["train.schedule"]
    }
    assert rates["constant"] == rates["constant_with_warmup"] == [0, 0.5, 1, 1, 1, 1]
    assert rates["linear"] == [0, 0.5, 1, 0.75, 0.5, 0.25]
    assert rates["cosine"] == [0, 0.5, 1, 0.853553, 0.5, 0.146447]


def test_runs_that_end_at_different_times(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["train"]["schedule"] = "linear"
    workplace.recipe["study"] = {"train.epochs": [1, 2], "adapter.rank": [2, 8], "train.batch_size": [6, 42]}
    runs = finish(workplace, pronk)
    assert len(runs) == 9
    assert runs["epochs-2_rank-8_batch_size-6"]["steps"] == 14
    assert runs["epochs-1_rank-2_batch_size-42"]["steps"] == 1
    assert all(run["shared_with"] == [] for run in runs.values() if not run["baseline"])


def test_dropout_and_bf16(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["adapter"]["dropout"] = 0.2
    workplace.recipe["train"]["dtype"] = "bf16"
    finish(workplace, pronk)
    state = load_file(workplace.out / "runs" / "tuned" / "adapter" / "adapter_model.safetensors")
    assert {str(values.dtype) for values in state.values()} == {"torch.float32"}
    assert workplace.study()["environment"]["dtype"] == "bfloat16"


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_from_training_to_evaluation_and_no_longer(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    import torch

    from pronk.evaluate.evaluation import Evaluation
    from pronk.train import session

    seen: list[bool] = []

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(session, "train_fleet", watched(session.train_fleet))
    monkeypatch.setattr(Evaluation, "run", watched(Evaluation.run))
    workplace.recipe["train"]["deterministic"] = wanted
    finish(workplace, pronk)
    assert seen == [wanted, wanted]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("evaluations", "files"),
    [
        (["likelihood"], {"likelihood.jsonl"}),
        (["classify"], {"classify.jsonl"}),
        (["similarity"], {"similarity.jsonl"}),
        (["similarity", "classify", "likelihood"], {"likelihood.jsonl", "classify.jsonl", "similarity.jsonl"}),
    ],
)
def test_evaluations_that_are_asked_for(
    workplace: Workplace, pronk: Pronk, evaluations: list[str], files: set[str]
) -> None:
    workplace.recipe["evaluate"] = evaluations
    runs = finish(workplace, pronk)
    for name in runs:
        assert {file.name for file in (workplace.out / "runs" / name / "items").iterdir()} == files


def test_free_answers_beside_the_references(workplace: Workplace, pronk: Pronk) -> None:
    workplace.write_rows(ROWS["pairs"])
    workplace.recipe["data"] = {"source": "rows.jsonl", "format": "pairs", "split": {"validation": 3, "test": 6}}
    workplace.recipe |= {"evaluate": ["likelihood", "similarity"], "max_new_tokens": 5}
    runs = finish(workplace, pronk)
    test = map(json.loads, (workplace.out / "items.jsonl").read_text(encoding="utf-8").splitlines())
    references = {item["id"]: item["reference"] for item in test}
    for name, run in runs.items():
        path = workplace.out / "runs" / name / "items" / "similarity.jsonl"
        items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert all(item.keys() == {"id", "answer", "rouge_l", "chrf", "ended"} for item in items)
        for item in items:
            assert item["rouge_l"] == rouge_l(item["answer"], references[item["id"]])
            assert item["chrf"] == chrf(item["answer"], references[item["id"]])
        assert run["metrics"]["rouge_l"] == pytest.approx(sum(item["rouge_l"] for item in items) / 6)
        assert run["metrics"]["chrf"] == pytest.approx(sum(item["chrf"] for item in items) / 6)
        assert run["metrics"]["unended"] == sum(not item["ended"] for item in items)
    assert runs["base"]["metrics"]["unended"] == 6  # an untrained model never stops
    compared = {entry["metric"] for entry in workplace.study()["comparisons"]}
    assert compared == {"nll", "rouge_l", "chrf"}
    told = pronk("report", str(workplace.out))
    assert "ROUGE-L" in told.out
    assert "Answers side by side" in (workplace.out / "report.html").read_text(encoding="utf-8")


def test_no_evaluation_measures_nothing(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["evaluate"] = []
    told = pronk(*workplace.arguments())
    # refused, or taken at its word
    assert told.code == 2 or not list(workplace.out.rglob("items/*.jsonl"))


def test_no_test_rows(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["data"]["split"]["test"] = 0
    runs = finish(workplace, pronk)
    assert runs["tuned"]["metrics"] == {}
    assert records(workplace, kind="validation")
    assert workplace.study()["comparisons"] == []


def test_no_validation_rows(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["data"]["split"]["validation"] = 0
    runs = finish(workplace, pronk)
    assert records(workplace, kind="validation") == []
    assert "accuracy" in runs["tuned"]["metrics"]


def test_a_system_message_and_an_instruction(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["data"] |= {"system": "You are terse.", "instruction": "Judge.", "labels": ["neutral", "positive"]}
    workplace.recipe["data"]["labels"] = {"bad": "negative", "flat": "neutral", "good": "positive"}
    finish(workplace, pronk)
    rows = (workplace.out / "runs" / "tuned" / "items" / "classify.jsonl").read_text().splitlines()
    assert all(json.loads(row)["scores"].keys() == {"bad", "flat", "good"} for row in rows)
    assert workplace.study()["labels"] == ["bad", "flat", "good"]


def test_two_bases_are_an_axis(
    workplace: Workplace, pronk: Pronk, tiny_base: Path, make_tiny_base: Callable[[str, int], Path]
) -> None:
    other = make_tiny_base("other", 1)
    workplace.recipe["study"] = {"base": [str(tiny_base), str(other)], "train.epochs": [1, 2]}
    runs = finish(workplace, pronk)
    assert [run["base"] for run in runs.values()] == [str(tiny_base)] * 3 + [str(other)] * 3
    assert [run["baseline"] for run in runs.values()] == [True, False, False] * 2
    losses = [run["metrics"]["nll"] for run in runs.values() if run["baseline"]]
    assert losses[0] != losses[1]
    adapters = [
        workplace.out / "runs" / f"base-{name}_epochs-1" / "adapter" / "adapter_config.json"
        for name in ("tiny", "other")
    ]
    assert [json.loads(file.read_text())["base_model_name_or_path"] for file in adapters] == [
        str(tiny_base), str(other),
    ]  # fmt: skip
    for entry in workplace.study()["comparisons"]:
        if "perplexity" in entry["metric"] or "nll" in entry["metric"]:
            assert runs[entry["a"]]["base"] == runs[entry["b"]]["base"]


def test_the_base_may_lie_beside_the_recipe(workplace: Workplace, pronk: Pronk, tiny_base: Path) -> None:
    (workplace.folder / "model").symlink_to(tiny_base)
    workplace.recipe["base"] = "model"
    finish(workplace, pronk)


def test_a_study_is_written_where_nothing_is_yet(
    workplace: Workplace, pronk: Pronk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace.folder)
    arguments = workplace.arguments()[:2]
    for _ in range(2):
        assert pronk(*arguments).code == 0
    assert sorted(path.name for path in Path("studies").iterdir()) == ["recipe", "recipe-2"]


def test_the_same_recipe_gives_the_same_bytes(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["adapter"]["dropout"] = 0.1
    adapters = []
    for name in ("one", "two"):
        workplace.out = workplace.folder / name
        finish(workplace, pronk)
        adapters.append((workplace.out / "runs" / "tuned" / "adapter" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_one_diverging_run_does_not_hurt_the_other(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["study"] = {"train.learning_rate": [1e-3, 1e30]}
    told = pronk(*workplace.arguments())
    assert told.code == 0
    assert "learning_rate-1e+30 was taken out: the loss became nan at step 2" in told.err
    runs = {run["name"]: run for run in workplace.study()["runs"]}
    sane, diverged = runs["learning_rate-0.001"], runs["learning_rate-1e+30"]
    assert (sane["status"], diverged["status"]) == ("finished", "failed")
    assert sane["message"] == ""
    assert "became nan at step 2" in diverged["message"]
    assert diverged["metrics"] == {}
    assert not (workplace.out / "runs" / diverged["name"] / "adapter").exists()
    page = (workplace.out / "report.html").read_text(encoding="utf-8")
    assert sane["name"] in page
    assert diverged["name"] in page
    assert "became nan at step 2" in page
    assert "failed" in told.out


def test_a_run_is_the_same_beside_one_that_diverges(workplace: Workplace, pronk: Pronk) -> None:
    adapters = []
    for name, rates in (("alone", [1e-3, 1e-4]), ("beside", [1e-3, 1e30])):
        workplace.out = workplace.folder / name
        workplace.recipe["study"] = {"train.learning_rate": rates}
        assert pronk(*workplace.arguments()).code == 0
        state = load_file(workplace.out / "runs" / "learning_rate-0.001" / "adapter" / "adapter_model.safetensors")
        adapters.append(state)
    for key, values in adapters[0].items():
        assert (values - adapters[1][key]).abs().max() <= 2e-6  # fp32: more columns, another order of sums


def test_a_target_named_in_full_is_the_only_one_that_peft_adapts(workplace: Workplace, pronk: Pronk) -> None:
    workplace.recipe["adapter"]["targets"] = ["model.layers.0.self_attn.q_proj"]
    finish(workplace, pronk)
    folder = workplace.out / "runs" / "tuned" / "adapter"
    assert len(load_file(folder / "adapter_model.safetensors")) == 2
    targets = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert targets == ["model.layers.0.self_attn.q_proj"]
