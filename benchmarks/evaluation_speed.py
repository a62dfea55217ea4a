"""Evaluating all runs of a study and their base: pronk against transformers and PEFT, one run after another.

    python benchmarks/evaluation_speed.py STUDY RESULT.json [--batch 128] [--dtype fp32]

STUDY is a finished study of one base over a classification set. Both sides have the same ids, the same items in a
batch (pronk's holds them once for each model) and the same adapters, and score and answer every item; each is timed
after a warm-up. Scores and answers of the other side are told apart. Predictions are counted where they differ: in
half precision, near ties fall either way.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import serial_study
import torch

from pronk.evaluate.classify import EXTRA_TOKENS, parse_label

Found = dict[str, list[tuple[str, str | None]]]  # by run: the likeliest label and the one that was answered


def main(path: Path, batch: int, dtype: str | None) -> dict[str, Any]:
    """Seconds of both sides, their ratio, and how many predictions differ."""
    from pronk.data.split import read_splits
    from pronk.doctor.environment import device_name
    from pronk.model.load import find_base, resolve_device
    from pronk.model.memory.sizes import release
    from pronk.recipe import read_recipe
    from pronk.runs import StudyFolder
    from pronk.train.session import load_examples

    folder = StudyFolder.open(path)
    names = [run["name"] for run in folder.read()["runs"] if not run["baseline"]]
    overrides = [f"train.dtype={dtype}"] if dtype else []
    recipe = read_recipe(folder.run(names[0]).path / "recipe.yaml", overrides)
    splits, labels = read_splits(recipe.data)
    base, device = find_base(recipe.base), resolve_device(recipe.train.device)
    examples = load_examples(base, [recipe], splits, labels)
    adapters = {name: folder.run(name).path / "adapter" for name in names}
    ours, mine = _ours(recipe, base, examples, adapters, batch, [one.answer for one in splits.test])
    gc.collect()
    release(device)
    theirs, (scoring, answering) = _theirs(recipe, base, examples, adapters, batch)
    differ = {
        kind: sum(a[kind] != b[kind] for name in ours for a, b in zip(ours[name], theirs[name], strict=True))
        for kind in (0, 1)
    }
    return {
        "models": len(ours), "items": len(splits.test), "batch": batch, "device": device_name(device),
        "dtype": recipe.train.dtype, "quantize": recipe.quantize, "pronk": mine,
        "transformers and PEFT": {"scores": scoring, "answers": answering},
        "ratio": (scoring + answering) / mine, "ratio to answers alone": answering / mine,
        "predictions that differ": {"by likelihood": differ[0], "answered": differ[1]},
    }  # fmt: skip


def _seconds(work: Callable[..., Any], warm_up: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """What some work gives, and how long it takes after a warm-up."""
    warm_up(*given)
    _wait()
    begun = time.perf_counter()
    found = work(*given)
    _wait()
    return found, time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _ours(
    recipe: Any, base: Any, examples: Any, adapters: dict[str, Path], batch: int, truths: Sequence[str]
) -> tuple[Found, float]:
    from pronk.evaluate.evaluation import Evaluation
    from pronk.model.load import load_model, resolve_device, resolve_dtype
    from pronk.model.saved import read_adapter

    device = resolve_device(recipe.train.device)
    model = load_model(base, resolve_dtype(recipe.train.dtype, device), device, recipe.quantize)
    read = [read_adapter(path) for path in adapters.values()]
    longest = max(len(example.prompt_ids) for example in examples.test)
    room = max(map(len, examples.label_ids())) + EXTRA_TOKENS
    evaluation = Evaluation(
        model, [(one.shape, one.weights()) for one in read], batch * (len(read) + 1) * (longest + room)
    )
    results, seconds = _seconds(evaluation.run, evaluation.run, examples, truths, ["classify"], lambda _: None)
    evaluation.close()
    found = {
        name: [(item.predicted, item.generated_label) for item in result.classified]
        for name, result in zip(["base", *adapters], results, strict=True)
    }
    return found, seconds


def _theirs(
    recipe: Any, base: Any, examples: Any, adapters: dict[str, Path], batch: int
) -> tuple[Found, tuple[float, float]]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from pronk.model.load import resolve_device, resolve_dtype
    from pronk.model.quantize import loading_config

    device = resolve_device(recipe.train.device)
    dtype = resolve_dtype(recipe.train.dtype, device)
    more = {} if recipe.quantize == "none" else {"quantization_config": loading_config(recipe.quantize, True, dtype)}
    place: Any = torch.cuda.current_device() if device.type == "cuda" else device  # bitsandbytes wants a number
    model = AutoModelForCausalLM.from_pretrained(base.location, dtype=dtype, device_map={"": place}, **more)
    (first, folder), *others = adapters.items()
    model = PeftModel.from_pretrained(model, str(folder), adapter_name=_plain(first)).eval()
    for name, path in others:
        model.load_adapter(str(path), adapter_name=_plain(name))
    found: Found = {}

    def each(names: Sequence[str], work: Callable[[Any, Any, int], list[Any]]) -> dict[str, list[Any]]:
        with torch.inference_mode():
            with model.disable_adapter():
                results = {"base": work(model, examples, batch)}
            for name in names:
                model.set_adapter(_plain(name))
                results[name] = work(model, examples, batch)
        return results

    # nothing is compiled: once through one adapter warms up for all
    scores, scoring = _seconds(partial(each, list(adapters)), partial(each, [first]), serial_study.label_scores)
    answers, answering = _seconds(partial(each, list(adapters)), partial(each, [first]), serial_study.generated)
    for name, rows in scores.items():
        likeliest = [examples.labels[row.index(max(row))] for row in rows]
        said = [parse_label(text, examples.labels) for text in answers[name]]
        found[name] = list(zip(likeliest, said, strict=True))
    return found, (scoring, answering)


def _plain(name: str) -> str:
    """A run's name as PEFT allows it: it becomes the name of a module."""
    return name.replace(".", "_")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--batch", type=int, default=serial_study.BATCH)
    parser.add_argument("--dtype", help="in place of the study's")
    given = parser.parse_args()
    result = main(given.study, given.batch, given.dtype)
    given.result.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))
