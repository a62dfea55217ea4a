"""A classification study the usual way: another tool, one run after another.

Every run loads the base anew, trains with SFTTrainer (TRL's, or Unsloth's with its own loader and kernels), and
generates an answer to every test item in padded batches; TRL's side scores the labels too, and measures the base.
Ids, masks, order, split and settings are pronk's, so only the tool differs.

    python benchmarks/serial_study.py trl|unsloth RECIPE RESULT.json [--runs N] [--batch 128] KEY=VALUE …

--runs: play the first N only; the others would take what the last of them took, and `all_seconds` says so much. A
first run is the only one that imports and compiles.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402 - what is imported counts
import contextlib  # noqa: E402
import gc  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from pronk.evaluate.classify import EXTRA_TOKENS, parse_label  # noqa: E402

BATCH = 128


def main(peer: str, recipe_path: str, overrides: list[str], wanted: int | None, batch: int) -> dict[str, Any]:
    """Train and evaluate runs of the recipe, and (TRL) the base; seconds are by run and in all."""
    side = importlib.import_module(f"pronk.doctor.peers.{peer}")  # Unsloth wants to be imported before all else
    import torch

    from pronk.data.split import read_splits
    from pronk.model.load import find_base
    from pronk.recipe import read_recipe
    from pronk.study import plan_study
    from pronk.train.session import load_examples

    recipe = read_recipe(recipe_path, overrides)
    runs = plan_study(recipe).runs
    splits, labels = read_splits(recipe.data)
    examples = load_examples(find_base(runs[0].recipe.base), [run.recipe for run in runs], splits, labels)
    truths = [conversation.answer for conversation in splits.test]
    scored = peer != "unsloth"
    found: dict[str, Any] = {"base": {}}
    for run in runs[:wanted]:
        begun = time.perf_counter() if len(found) > 1 else STARTED
        with tempfile.TemporaryDirectory() as folder:
            trainer = _trainer(side, run.recipe, examples, folder)
            if not found["base"] and scored:
                found["base"] = _measured(trainer, examples, truths, batch, scored, base=True)
                begun += found["base"]["seconds"]
            trainer.train()
        trained = time.perf_counter()
        found[run.name] = _measured(trainer, examples, truths, batch, scored)
        found[run.name] |= {"train_seconds": trained - begun, "seconds": time.perf_counter() - begun}
        print(run.name, found[run.name], file=sys.stderr)
        del trainer
        gc.collect()
        torch.cuda.empty_cache()
    played = [one["seconds"] for one in found.values() if one]
    left = len(runs) - len(runs[:wanted])
    return {"left": left, "all_seconds": sum(played) + left * played[-1], "runs": found}


def _trainer(side: Any, recipe: Any, examples: Any, folder: str) -> Any:
    from pronk.doctor.bench_work import work_of
    from pronk.train.session import total_steps

    rows = examples.train(recipe.train.max_length)
    return side.make_trainer(work_of(recipe, rows, total_steps(recipe, len(rows))), folder, callbacks=[])


def _measured(
    trainer: Any, examples: Any, truths: Sequence[str], batch: int, scored: bool, base: bool = False
) -> dict[str, float]:
    """Accuracy by generated answer, and by label likelihood where asked."""
    import torch

    begun = time.perf_counter()
    model = trainer.model
    with torch.inference_mode(), answering(model), model.disable_adapter() if base else contextlib.nullcontext():
        answers = generated(model, examples, batch)
        scores = label_scores(model, examples, batch) if scored else []
    said = [parse_label(answer, examples.labels) for answer in answers]
    found = {
        "generated_accuracy": sum(map(str.__eq__, truths, map(str, said))) / len(truths),
        "unparsable": said.count(None),
        "seconds": time.perf_counter() - begun,
    }
    likeliest = [examples.labels[row.index(max(row))] for row in scores]
    return found | ({"accuracy": sum(map(str.__eq__, truths, likeliest)) / len(truths)} if scored else {})


@contextlib.contextmanager
def answering(model: Any) -> Iterator[None]:
    """A model of Unsloth in its own form for inference, any other as it is evaluated."""
    if "unsloth" in sys.modules:
        kind = sys.modules["unsloth"].FastLanguageModel
        kind.for_inference(model)
        yield
        kind.for_training(model)
    else:
        model.eval()
        yield
        model.train()


def batches(examples: Any, size: int) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Test items, the longest first, and their prompts, so many at a time."""
    prompts = [example.prompt_ids.tolist() for example in examples.test]
    order = sorted(range(len(prompts)), key=lambda item: -len(prompts[item]))
    for start in range(0, len(order), size):
        items = order[start : start + size]
        yield items, [prompts[item] for item in items]


def label_scores(model: Any, examples: Any, size: int) -> list[list[float]]:
    """Log-probability of each label in full after each prompt."""
    found: list[list[float]] = [[] for _ in examples.test]
    for items, prompts in batches(examples, size):
        for label in examples.label_ids():
            for item, score in zip(items, _scores(model, prompts, label, examples), strict=True):
                found[item].append(score)
    return found


def generated(model: Any, examples: Any, size: int) -> list[str]:
    """The answer to each test item."""
    tokenizer, found = examples.prompt.tokenizer, [""] * len(examples.test)
    room = max(map(len, examples.label_ids())) + EXTRA_TOKENS
    for items, prompts in batches(examples, size):
        ids, mask = _padded(model, prompts, examples)
        made = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=room, do_sample=False,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=examples.prompt.end_id,
        )  # fmt: skip
        for item, text in zip(
            items, tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True), strict=True
        ):
            found[item] = text
    return found


def _scores(model: Any, prompts: Sequence[list[int]], label: list[int], examples: Any) -> list[float]:
    import torch

    ids, mask = _padded(model, [prompt + label for prompt in prompts], examples)
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=len(label) + 1, use_cache=False).logits
    chances = torch.log_softmax(logits[:, :-1].float(), dim=-1)
    found: list[float] = chances.gather(2, ids[:, -len(label) :, None])[..., 0].sum(dim=1).tolist()
    return found


def _padded(model: Any, rows: Sequence[list[int]], examples: Any) -> tuple[Any, Any]:
    """Ids with padding at the left, and which of them are there."""
    import torch

    longest, pad = max(map(len, rows)), examples.prompt.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return ids, mask


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("peer", choices=("trl", "unsloth"))
    parser.add_argument("recipe")
    parser.add_argument("result", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--batch", type=int, default=BATCH)
    given = parser.parse_intermixed_args()
    result = main(given.peer, given.recipe, given.overrides, given.runs, given.batch)
    given.result.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))
