"""`pronk eval --lm-eval`: what the harness is given, and what becomes of its results; the real one where installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LABELS, Told, Workplace, labelled_rows
from safetensors.torch import load_file, save_file

import pronk as pronk_api
from pronk.measure.harness import as_lines

Pronk = Callable[..., Told]
# PEFT 0.21 asks a transformers 5.23 model by an old name
PEFT_WARNS = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
INSTALLED = importlib.util.find_spec("lm_eval") is not None

# What stands for lm-eval where only what goes in and out is looked at: it gives back what it was given.
FAKE = {
    "__init__.py": """
import time
def simple_evaluate(model, **given):
    manager = given.pop("task_manager")
    if given["tasks"] == ["slow"]:
        open(manager.include_path, "w").close()
        time.sleep(60)
    if given["tasks"] == ["broken"]:
        raise ConnectionError("the hub <b>cannot</b> be reached\\n\\x1b[31mtry later")
    return {"results": {name: {"alias": name, "acc,none": 0.5, "acc_stderr,none": 0.1} for name in given["tasks"]},
            "given": given, "model": model.given, "include": manager.include_path}
""",
    "tasks.py": """
class TaskManager:
    def __init__(self, include_path=None):
        self.include_path = include_path
    def match_tasks(self, names):
        return [name for name in names if name != "mmul"]
""",
    "models/__init__.py": "",
    "models/huggingface.py": """
class HFLM:
    def __init__(self, pretrained, **given):
        self.given = {"pretrained": pretrained, **given}
""",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A run whose adapter is large and random, so that it answers otherwise than its base."""
    place = Workplace(tmp_path_factory.mktemp("harness"), tiny_base)
    place.recipe["train"]["max_steps"] = 1
    place.recipe["data"]["split"]["test"] = 0
    _, recipe, *_ = place.arguments()
    pronk_api.run(recipe, out=place.out)
    (file,) = place.out.glob("runs/*/adapter/*.safetensors")
    draw = torch.Generator().manual_seed(1)
    save_file({name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in load_file(file).items()}, file)
    return file.parents[1]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which lm_eval is found, here and in processes of their own."""
    for name, text in FAKE.items():
        file = tmp_path / "packages" / "lm_eval" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    about = tmp_path / "packages" / "lm_eval-0.4.13.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.13\n")
    monkeypatch.syspath_prepend(str(about.parents[1]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(about.parents[1]), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("fake")
def test_runs_and_bases_are_given_as_they_are(run: Path, tiny_base: Path, pronk: Pronk) -> None:
    told = pronk(
        "eval", str(run), str(tiny_base), "--lm-eval", "mmlu, gsm8k", "--limit", "7", "--fewshot", "2", "--json"
    )
    assert told.code == 0, told.err
    of_run, of_base = json.loads(told.out)
    adapter = str(run / "adapter")
    assert of_run["model"] | {"dtype": 0} == {
        "pretrained": str(tiny_base), "tokenizer": adapter, "peft": adapter, "dtype": 0, "device": "cpu",
        "batch_size": 4,
    }  # fmt: skip
    assert "float32" in of_run["model"]["dtype"]
    assert (of_base["model"]["tokenizer"], of_base["model"]["peft"]) == (str(tiny_base), None)
    given = {"tasks": ["mmlu", "gsm8k"], "num_fewshot": 2, "limit": 7.0, "apply_chat_template": False}
    assert of_run["given"] | given == of_run["given"]
    assert [one["name"] for one in (of_run, of_base)] == [run.name, "tiny"]
    (written,) = (run / "lm_eval").glob("*.json")
    assert json.loads(written.read_text()) | {"file": str(written)} == of_run
    assert Path(of_base["file"]).parent == Path("evaluations/lm_eval")
    shutil.rmtree(run / "lm_eval")


def test_what_fails_is_one_message_and_nothing_is_written(run: Path, fake: Path, pronk: Pronk) -> None:
    for tasks, said in (
        ("mmul", "lm-eval has no task mmul; `lm_eval ls tasks` lists those that it has"),
        ("broken", "ConnectionError: the hub <b>cannot</b> be reached"),
        (" ,", "name at least one task"),
    ):
        told = pronk("eval", str(run), "--lm-eval", tasks, "--out", str(fake / "out"))
        assert told.code == 2
        assert said in told.err
    told = pronk("eval", str(run), "--lm-eval", "mmlu", "--data", "rows.jsonl")
    assert (told.code, "--data: the tasks of --lm-eval bring their own" in told.err) == (2, True)
    told = pronk("eval", str(run), "--limit", "3")
    assert (told.code, "--limit belongs to --lm-eval" in told.err) == (2, True)
    told = pronk("eval", str(run), "--lm-eval", "mmlu", "--set", "quantize=fp8")
    assert (told.code, "does not know quantize: fp8" in told.err) == (2, True)
    assert not (fake / "out").exists()
    assert not (run / "lm_eval").exists()


def test_ctrl_c_ends_the_process_too(run: Path, fake: Path, pronk: Pronk) -> None:
    begun = fake / "begun"

    def press() -> None:
        while not begun.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    started = time.monotonic()
    told = pronk("eval", str(run), "--lm-eval", "slow", "--include-path", str(begun), "--out", str(fake / "out"))
    assert told.code == 130
    assert time.monotonic() - started < 50
    assert not (fake / "out").exists()


@pytest.mark.skipif(INSTALLED, reason="lm_eval is installed")
def test_without_lm_eval_the_command_that_installs_it_is_told(run: Path, pronk: Pronk) -> None:
    told = pronk("eval", str(run), "--lm-eval", "mmlu")
    assert told.code == 2
    assert "lm_eval, which is not installed here: pip install 'lm_eval>=0.4.13,<0.5'" in told.err


def test_the_table_shows_groups_without_their_parts() -> None:
    record = {
        "name": "tuned", "group_subtasks": {"mmlu": ["law", "physics"], "gsm8k": []}, "n-shot": {"mmlu": 5},
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.25, "acc_stderr,none": 0.01}, "law": {"acc,none": 0.1},
            "gsm8k": {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A"},
        },
    }  # fmt: skip
    assert as_lines([record, {"name": "base", "results": {}}]) == [
        "task   shots  metric                      tuned            base",
        "mmlu   5      acc                         0.2500 ± 0.0100  –",
        "gsm8k         exact_match (strict-match)  0.5000           –",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="lm_eval is not installed: pip install 'lm_eval>=0.4.13,<0.5'")
@pytest.mark.filterwarnings(PEFT_WARNS)
@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_the_real_one_scores_as_transformers_and_peft_do(
    run: Path, tiny_base: Path, tmp_path: Path, pronk: Pronk, quantize: str
) -> None:
    """A task of our own; the oracle adds up the log-probabilities of each choice."""
    rows = labelled_rows(24)
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(f"""
task: local_labels
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "items.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}. It is"
doc_to_target: label
doc_to_choice: {json.dumps(LABELS)}
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""")
    told = pronk(
        "eval", str(run), str(tiny_base), "--lm-eval", "local_labels", "--include-path", str(tmp_path), "--json",
        "--out", str(tmp_path / "out"), "--set", f"quantize={quantize}",
    )  # fmt: skip
    assert told.code == 0, told.err
    found = [record["results"]["local_labels"]["acc,none"] for record in json.loads(told.out)]
    expected = [oracle(tiny_base, adapter, rows, quantize) for adapter in (run / "adapter", None)]
    assert found == pytest.approx(expected)
    assert found[0] != found[1]


def oracle(base: Path, adapter: Path | None, rows: list[dict[str, str]], quantize: str) -> float:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    tokenizer = AutoTokenizer.from_pretrained(base)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    more: dict[str, Any] = {} if quantize == "none" else {"quantization_config": config}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **more).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    right = 0
    for row in rows:
        context = tokenizer(f"{row['text']}. It is").input_ids
        scores = []
        for label in LABELS:
            ids = tokenizer(f"{row['text']}. It is {label}").input_ids
            with torch.no_grad():
                log = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(log[at - 1, ids[at]]) for at in range(len(context), len(ids))))
        right += scores.index(max(scores)) == LABELS.index(row["label"])
    return right / len(rows)
