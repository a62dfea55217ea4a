"""The study of recipes/financial-sentiment.yaml the usual way: TRL, one run after another.

Every run starts from the base model, trains with SFTTrainer, scores the labels and generates answers
with transformers. Ids, masks, order, split and settings are pronk's, so only the tool differs.

    python benchmarks/financial_sentiment_trl.py RECIPE RESULT.json KEY=VALUE …
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pronk.data.split import read_splits
from pronk.doctor.bench_work import work_of
from pronk.doctor.peers.trl import make_trainer
from pronk.evaluate.classify import EXTRA_TOKENS, parse_label
from pronk.model.load import find_base
from pronk.recipe import read_recipe
from pronk.study import plan_study
from pronk.tokens.examples import Examples
from pronk.train.session import load_examples, total_steps

EVALUATION_BATCH = 128


def main(path: str, overrides: list[str]) -> dict[str, Any]:
    """Train and evaluate every run of the recipe, and the base; seconds are by run and in all."""
    started = time.perf_counter()
    recipe = read_recipe(path, overrides)
    study = plan_study(recipe)
    splits, labels = read_splits(recipe.data)
    base = find_base(study.runs[0].recipe.base)
    examples = load_examples(base, [run.recipe for run in study.runs], splits, labels)
    truths = [conversation.answer for conversation in splits.test]
    results: dict[str, Any] = {}
    for run in study.runs:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows = examples.train(run.recipe.train.max_length)
            work = work_of(run.recipe, rows, total_steps(run.recipe, len(rows)))
            trainer = make_trainer(work, folder, callbacks=[])
            model = trainer.model
            if "base" not in results:
                with model.disable_adapter():
                    results["base"] = _evaluate(model, examples, truths)
                begun, results["base"]["seconds"] = time.perf_counter(), time.perf_counter() - begun
            trainer.train()
        trained = time.perf_counter()
        results[run.name] = _evaluate(model, examples, truths)
        results[run.name] |= {"train_seconds": trained - begun, "seconds": time.perf_counter() - begun}
        print(run.name, results[run.name], file=sys.stderr)
        del trainer, model
    return {"total_seconds": time.perf_counter() - started, "runs": results}


@torch.no_grad()
def _evaluate(model: Any, examples: Examples, truths: list[str]) -> dict[str, float]:
    """Accuracy by label likelihood and by generated answer, in padded batches sorted by length."""
    model.eval()
    prompts = [example.prompt_ids.tolist() for example in examples.test]
    order = sorted(range(len(prompts)), key=lambda item: -len(prompts[item]))
    right = generated_right = unparsable = 0
    for start in range(0, len(order), EVALUATION_BATCH):
        items = order[start : start + EVALUATION_BATCH]
        batch = [prompts[item] for item in items]
        answers = _generate(model, batch, examples)
        for item, scores, answer in zip(items, _scores(model, batch, examples), answers, strict=True):
            right += examples.labels[scores.index(max(scores))] == truths[item]
            label = parse_label(answer, examples.labels)
            unparsable += label is None
            generated_right += label == truths[item]
    count = len(prompts)
    return {"accuracy": right / count, "generated_accuracy": generated_right / count, "unparsable": unparsable}


def _scores(model: Any, prompts: list[list[int]], examples: Examples) -> list[list[float]]:
    """Log-probability of each label in full after each prompt."""
    columns = []
    for label in examples.label_ids():
        rows = [prompt + label for prompt in prompts]
        longest = max(map(len, rows))
        pad = examples.prompt.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=len(label) + 1, use_cache=False).logits
        chances = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        columns.append(chances.gather(2, ids[:, -len(label) :, None])[..., 0].sum(dim=1).tolist())
    return [list(row) for row in zip(*columns, strict=True)]


def _generate(model: Any, prompts: list[list[int]], examples: Examples) -> list[str]:
    tokenizer = examples.prompt.tokenizer
    longest = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=model.device)
    room = max(map(len, examples.label_ids())) + EXTRA_TOKENS
    made = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=room, do_sample=False, pad_token_id=pad,
        eos_token_id=examples.prompt.end_id,
    )  # fmt: skip
    texts: list[str] = tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)
    return texts


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(sys.argv[1], sys.argv[3:]), indent=1), encoding="utf-8")
