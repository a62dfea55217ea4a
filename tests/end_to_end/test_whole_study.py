"""One study through the command line, in a process of its own, and everything that it must leave behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Told, Workplace
from safetensors.torch import load_file

TARGETS = (["q_proj", "v_proj"], "all-linear")
NAMES = [f"targets-{t}_epochs-{e}" for t in ("q_proj+v_proj", "all-linear") for e in (1, 2)]
METRICS = {"accuracy", "macro_f1", "generated_accuracy", "unparsable", "nll", "perplexity"}
CONTRACT = {"name", "base", "baseline", "settings", "metrics", "status"}
TRAINED = {"trainable_parameters", "train_tokens", "train_seconds", "tokens_per_second", "peak_memory_bytes"}
COMPARISON = {"a", "b", "metric", "difference", "interval", "p_value", "p_adjusted", "verdict", "items_needed"}


@dataclass(frozen=True)
class Finished:
    place: Workplace
    done: subprocess.CompletedProcess[str]
    json: dict[str, Any]

    def run(self, name: str) -> dict[str, Any]:
        return next(run for run in self.json["runs"] if run["name"] == name)

    def folder(self, name: str) -> Path:
        return self.place.out / "runs" / name


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, pronk_process: Any) -> Finished:
    place = Workplace(tmp_path_factory.mktemp("whole"), tiny_base)
    place.recipe["study"] = {"adapter.targets": list(TARGETS), "train.epochs": [1, 2]}
    done = pronk_process(*place.arguments("--json"))
    assert done.returncode == 0, done.stderr
    return Finished(place, done, place.study())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_stdout_is_json_and_nothing_else(study: Finished) -> None:
    assert json.loads(study.done.stdout) == study.json


def test_progress_is_told_on_stderr(study: Finished) -> None:
    assert "4 runs, 2 of them trained" in study.done.stderr
    assert "42 rows to train on, 6 for validation, 12 for the test" in study.done.stderr
    assert study.done.stderr.count("validation loss") == 4
    assert "Warning" not in study.done.stderr
    assert max(map(len, study.done.stderr.splitlines())) <= max(80, len(f"writing to {study.place.out}"))


def test_every_run_has_the_keys_of_the_contract(study: Finished) -> None:
    assert [run["name"] for run in study.json["runs"]] == ["base", *NAMES]
    for run in study.json["runs"]:
        assert run.keys() >= CONTRACT | (set() if run["baseline"] else TRAINED)
        assert run["metrics"].keys() >= METRICS
        assert run["status"] == "finished"
        assert run["baseline"] == (run["name"] == "base")
    assert study.run(NAMES[0])["settings"] == {"adapter.targets": TARGETS[0], "train.epochs": 1}
    assert study.json["environment"]["torch"] == torch.__version__
    assert study.json["environment"]["attention"] == "PyTorch's own, a call for each sequence"


def test_comparisons_have_the_keys_of_the_contract(study: Finished) -> None:
    assert study.json["comparisons"]
    for entry in study.json["comparisons"]:
        assert entry.keys() >= COMPARISON
        assert entry["verdict"] in ("better", "worse", "tie")
        assert entry["interval"][0] <= entry["difference"] <= entry["interval"][1]
        assert {entry["a"], entry["b"]} <= {"base", *NAMES}


def test_shared_runs_name_each_other_and_are_charged_by_tokens(study: Finished) -> None:
    for short, long in (NAMES[:2], NAMES[2:]):
        assert study.run(short)["shared_with"] == [long]
        assert study.run(long)["shared_with"] == [short]
        assert study.run(long)["train_tokens"] == 2 * study.run(short)["train_tokens"]
        assert (study.run(short)["steps"], study.run(long)["steps"]) == (6, 12)


@pytest.mark.parametrize(("name", "targets"), [(NAMES[0], TARGETS[0]), (NAMES[2], TARGETS[1])])
def test_a_shared_run_equals_the_same_run_alone(
    study: Finished, workplace: Workplace, pronk: Callable[..., Told], name: str, targets: Any
) -> None:
    """Bit for bit if only the number of epochs was shared; within fp32 rounding beside other runs,
    whose rows change how sums are ordered (measured: 1.9e-6 after six steps with rate 0.01)."""
    workplace.recipe["adapter"]["targets"] = targets
    adapters = {}
    for folder, axes in (("alone", {}), ("pair", {"train.epochs": [1, 2]})):
        workplace.out, workplace.recipe["study"] = workplace.folder / folder, axes
        assert pronk(*workplace.arguments()).code == 0
        run = workplace.out / "runs" / ("epochs-1" if axes else "tuned")
        adapters[folder] = load_file(run / "adapter" / "adapter_model.safetensors")
    company = load_file(study.folder(name) / "adapter" / "adapter_model.safetensors")
    alone = adapters["alone"]
    assert any(values.abs().max() > 1e-3 for key, values in alone.items() if "lora_B" in key)
    torch.testing.assert_close(adapters["pair"], alone, rtol=0, atol=0)
    torch.testing.assert_close(company, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_logged_for_every_step(study: Finished, name: str) -> None:
    records = lines(study.folder(name) / "metrics.jsonl")
    steps = study.run(name)["steps"]
    train = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in train] == list(range(1, steps + 1))
    assert sum(record["tokens"] for record in train) == study.run(name)["train_tokens"]
    assert all(record["learning_rate"] == 1e-2 and record["gradient_norm"] > 0 for record in train)
    assert train[-1]["loss"] < train[0]["loss"]
    validation = [record for record in records if record["kind"] == "validation"]
    assert [record["step"] for record in validation] == list(range(6, steps + 1, 6))
    assert [record["epoch"] for record in validation] == list(range(1, steps // 6 + 1))
    assert len(train) + len(validation) == len(records)


@pytest.mark.parametrize("evaluation", ["likelihood", "classify"])
def test_all_runs_answered_the_same_items(study: Finished, evaluation: str) -> None:
    ids = [item["id"] for item in lines(study.place.out / "items.jsonl")]
    assert len(set(ids)) == 12
    for name in ("base", *NAMES):
        assert [row["id"] for row in lines(study.folder(name) / "items" / f"{evaluation}.jsonl")] == ids


def test_the_test_rows_are_balanced_and_keep_their_place(study: Finished) -> None:
    items = lines(study.place.out / "items.jsonl")
    assert sorted(item["label"] for item in items) == sorted(["negative", "neutral", "positive"] * 4)
    source = (study.place.folder / "rows.jsonl").read_text().splitlines()
    for item in items:
        name, number = item["place"].split(":")
        assert name == "rows.jsonl"
        row = json.loads(source[int(number) - 1])
        assert (row["text"], row["label"]) == (item["input"], item["label"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21
def test_adapters_load_with_peft(study: Finished, tiny_base: Path, name: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    model = PeftModel.from_pretrained(base, study.folder(name) / "adapter")
    saved = load_file(study.folder(name) / "adapter" / "adapter_model.safetensors")
    loaded = {key.replace(".default", ""): value for key, value in model.state_dict().items() if "lora_" in key}
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[key], value) for key, value in saved.items())
    assert study.run(name)["trainable_parameters"] == sum(value.numel() for value in saved.values())


def test_checkpoints_hold_adapter_and_optimizer(study: Finished) -> None:
    for name in (NAMES[1], NAMES[3]):
        for step in (6, 12):
            folder = study.folder(name) / "checkpoints" / f"step-{step}"
            assert {file.name for file in folder.iterdir()} == {
                "adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors",
            }  # fmt: skip
            optimizer = load_file(folder / "optimizer.safetensors")
            assert optimizer["random.step"] == step
            assert optimizer["random.seed"] == 42
        last = load_file(folder / "adapter_model.safetensors")
        final = load_file(study.folder(name) / "adapter" / "adapter_model.safetensors")
        assert all(torch.equal(last[key], final[key]) for key in final)


def test_nothing_is_pickled_and_nothing_is_left_aside(study: Finished) -> None:
    files = [file for file in study.place.out.rglob("*") if file.is_file()]
    assert len(files) > 40
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")]
    assert not list(study.place.out.rglob(".*"))
    assert not [file for file in files if file.read_bytes()[:2] in (b"PK", b"\x80\x04", b"\x80\x02")]


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_tokenizer_pads_with_no_end_token(study: Finished, name: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(study.folder(name) / "adapter")
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.chat_template


def test_each_run_folder_holds_its_full_recipe(study: Finished) -> None:
    from pronk.recipe import read_recipe

    for name in NAMES:
        recipe = read_recipe(study.folder(name) / "recipe.yaml")
        settings = study.run(name)["settings"]
        assert (recipe.adapter.targets, recipe.train.epochs) == tuple(settings.values())
        assert recipe.study == {}


def test_the_report_stands_alone(study: Finished) -> None:
    page = (study.place.out / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("base", *NAMES))
    assert "<script src" not in page
    assert 'href="http' not in page.partition("</head>")[0]


def test_reporting_again_changes_nothing(study: Finished, pronk: Callable[..., Told]) -> None:
    told = pronk("report", str(study.place.out), "--json")
    assert told.code == 0
    assert json.loads(told.out) == study.json
    assert study.place.study() == study.json
