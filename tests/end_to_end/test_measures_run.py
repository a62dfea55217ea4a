"""Whole studies with choices, exact answers and general text: figures as transformers gives them, bad input refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Told, Workplace

ANIMALS = ["llama", "alpaca", "guanaco", "vicuña"]
ALL = ["likelihood", "choice", "exact", "answers", "similarity", "forgetting"]


def questions(count: int) -> list[dict[str, Any]]:
    """Three or four choices each, the right one named in all the ways that there are."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        choices = [f"{ANIMALS[(n + k) % 4]} {n * 7}" for k in range(3 + n % 2)]
        answer = [n % 3, "ABC"[n % 3], choices[n % 3]][n % 3]
        rows.append({"question": f"Who won race {n}?", "choices": choices, "answer": answer})
    return rows


@pytest.fixture
def choosing(workplace: Workplace) -> Workplace:
    workplace.write_rows(questions(40))
    workplace.recipe["data"] = {"source": "rows.jsonl", "split": {"validation": 0, "test": 9}}
    workplace.recipe["evaluate"] = ALL
    workplace.recipe["max_new_tokens"] = 6
    (workplace.folder / "general.txt").write_text("It rained all day.\n\nThe kettle sang.\n\nOne.", encoding="utf-8")
    workplace.recipe["forgetting"] = {"text": "general.txt"}
    return workplace


def rows_of(workplace: Workplace, run: str, evaluation: str) -> list[dict[str, Any]]:
    path = workplace.out / "runs" / run / "items" / f"{evaluation}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Oracle:
    """transformers' model and PEFT's adapter, asked one text at a time."""

    def __init__(self, base: Path, adapter: Path | None) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base)
        if adapter is not None:
            self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def score(self, prompt: str, answer: str) -> float:
        import torch

        asked, said = self.ids(prompt), self.ids(answer)
        with torch.no_grad():
            logits = self.model(torch.tensor([[*asked, *said]])).logits[0].double()
        log_p = torch.log_softmax(logits[len(asked) - 1 : -1], dim=-1)
        return float(log_p[torch.arange(len(said)), torch.tensor(said)].sum())

    def loss(self, text: str) -> float:
        import torch

        ids = torch.tensor([self.ids(text)])
        with torch.no_grad():
            return float(self.model(ids, labels=ids).loss) * (ids.shape[1] - 1)


PROMPT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:\n"
)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks by it
def test_a_study_of_multiple_choice(choosing: Workplace, pronk: Callable[..., Told], tiny_base: Path) -> None:
    """The format is found, every measure is made, and the base and the run are what transformers and PEFT say."""
    told = pronk(*choosing.arguments())
    assert told.code == 0, told.err
    assert "read as choice, from the columns 'question', 'choices' and 'answer'" in told.err
    runs = choosing.study()["runs"]
    items = [json.loads(line) for line in (choosing.out / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    for run in runs:
        adapter = None if run["baseline"] else choosing.out / "runs" / run["name"] / "adapter"
        oracle = Oracle(tiny_base, adapter)
        raw, normalised = [], []
        for item, found in zip(items, rows_of(choosing, run["name"], "choice"), strict=True):
            scores = np.array([oracle.score(PROMPT.format(item["input"]), choice) for choice in item["choices"]])
            assert found["scores"] == pytest.approx(scores, abs=1e-4)  # fp32
            raw.append(item["choices"][int(scores.argmax())] == item["reference"])
            by_letter = scores / [len(choice) for choice in item["choices"]]
            normalised.append(item["choices"][int(by_letter.argmax())] == item["reference"])
        metrics = run["metrics"]
        assert metrics["choice_accuracy"] == np.mean(raw)
        assert metrics["choice_accuracy_normalised"] == np.mean(normalised)
        general = rows_of(choosing, run["name"], "forgetting")
        texts = ["It rained all day.", "The kettle sang.", "One."]
        assert [row["id"] for row in general] == ["general.txt:1", "general.txt:3", "general.txt:5"]
        assert [row["loss"] for row in general] == pytest.approx([oracle.loss(text) for text in texts], abs=1e-4)
        assert metrics["forgetting_nll"] == sum(row["loss"] for row in general) / sum(row["tokens"] for row in general)
        answers = rows_of(choosing, run["name"], "likelihood")
        assert [row["bytes"] for row in answers] == [len(item["reference"].encode()) for item in items]
        exact, similar, free = (rows_of(choosing, run["name"], kind) for kind in ("exact", "similarity", "answers"))
        assert [row["answer"] for row in exact] == [row["answer"] for row in similar] == [row["answer"] for row in free]
        assert metrics["answer_length"] == np.mean([len(row["answer"]) for row in free])
        assert metrics["unended"] == sum(not row["ended"] for row in free)
        assert {row["expected"] for row in exact} == {item["reference"].casefold() for item in items}
    assert {one["metric"] for one in choosing.study()["comparisons"]} >= {
        "nll", "choice_accuracy", "choice_accuracy_normalised", "exact_match", "rouge_l", "forgetting_nll",
    }  # fmt: skip
    assert "choice" in told.out
    assert "general" in told.out


def test_the_base_with_examples_in_its_prompt_chooses_as_well(choosing: Workplace, pronk: Callable[..., Told]) -> None:
    choosing.recipe["data"]["choices"] = "letters"
    choosing.recipe |= {"baseline": {"shots": [1]}, "evaluate": ["choice", "exact", "forgetting"]}
    told = pronk(*choosing.arguments())
    assert told.code == 0, told.err
    few = next(run for run in choosing.study()["runs"] if run.get("shots"))
    assert set(few["metrics"]) == {
        "choice_accuracy", "choice_accuracy_normalised", "exact_match", "exact_unparsable", "unended",
    }  # fmt: skip
    assert all(row["choices"] in ([*"ABC"], [*"ABCD"]) for row in rows_of(choosing, few["name"], "choice"))


def test_check_and_plan_know_the_measures(choosing: Workplace, pronk: Callable[..., Told]) -> None:
    _, recipe, *_ = choosing.arguments()
    told = pronk("check", recipe)
    assert told.code in (0, 1), told.err
    assert "Traceback" not in told.err + told.out
    planned = pronk("plan", recipe, "--gpu", "8GiB")
    assert planned.code == 0, planned.err


def changed(section: str, **values: Any) -> Callable[[Workplace], None]:
    def change(workplace: Workplace) -> None:
        workplace.recipe[section] = {**workplace.recipe.get(section, {}), **values}

    return change


def no_choices(workplace: Workplace) -> None:
    workplace.write_rows([{"prompt": f"{n}?", "response": "so"} for n in range(40)])


def long_choices(workplace: Workplace) -> None:
    workplace.recipe["data"]["choices"] = "unlisted"
    rows = [{**row, "choices": [f"a {n}", "b " * 400], "answer": 0} for n, row in enumerate(questions(40))]
    workplace.write_rows(rows)


WRONG: dict[str, tuple[Callable[[Workplace], None], list[str]]] = {
    "choice without choices": (no_choices, ["evaluate: choice needs data.format: choice, not pairs"]),
    "a choice that does not fit": (long_choices, ["question and longest choice take", "the base reads 256"]),
    "references without a number": (
        changed("exact", pattern="#### (.+)"), ["exact: the reference answer of rows.jsonl:", "'#### (.+)'"]
    ),
    "a broken pattern": (changed("exact", pattern="("), ["recipe.yaml: exact.pattern: '(' is no regular expression"]),
    "general text that is gone": (changed("forgetting", text="gone.txt"), ["forgetting.text: there is no file"]),
    "an empty file of general text": (changed("forgetting", text="empty.txt"), ["forgetting.text:", "holds no text"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_before_anything_is_trained(
    case: str, choosing: Workplace, pronk: Callable[..., Told]
) -> None:
    change, expected = WRONG[case]
    (choosing.folder / "empty.txt").write_text(" \n", encoding="utf-8")
    change(choosing)
    told = pronk(*choosing.arguments())
    assert told.code == 2
    for part in expected:
        assert part in told.err
    assert "Traceback" not in told.err
    assert not choosing.out.exists()
