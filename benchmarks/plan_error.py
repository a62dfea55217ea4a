"""Law 10: what the planner predicts, beside what is really reserved, on settings that it was not calibrated on.

Each setting is a process of its own that may use a part of the GPU only: it predicts from one and two layers and a
quarter of the budget, then makes a whole model with random weights, trains some rounds, scores and answers, and
compares the peak of reserved memory. Prints a Markdown table, and ends with 1 where an error is beyond 5%.

    python benchmarks/plan_error.py [--only N …] [--json FILE]       on a GPU of 80 GB or more: four minutes
    python benchmarks/plan_error.py --self-test                      a tiny shape on the CPU, without any figures
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TOLERANCE = 0.05
ROUNDS, ITEMS, ANSWER = 3, 400, 8
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "llama3-1b": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
    "llama3-8b": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A setting. gpu: the size that the process may use. beginning: tokens that all examples begin with."""

    shape: str
    quantize: str
    budget: int
    recompute: int
    runs: int
    rank: int
    gpu: str
    beginning: int = 0
    longest: int = 600
    optimizer: str = "adamw"


TRIALS = (
    Trial("smollm2-135m", "none", 10240, 0, 8, 16, "24GB"),
    Trial("smollm2-135m", "int8", 4096, 10, 1, 64, "16GB", beginning=40),
    Trial("smollm2-135m", "nf4", 8192, 30, 3, 8, "8GB"),
    Trial("smollm2-135m", "fp8", 6144, 0, 2, 32, "16GB"),
    Trial("llama3-1b", "none", 8192, 0, 1, 16, "48GB", optimizer="adamw_8bit"),
    Trial("llama3-1b", "int8", 4096, 8, 4, 8, "24GB"),
    Trial("llama3-1b", "nf4", 16384, 16, 1, 64, "24GB", longest=2048),
    Trial("llama3-1b", "fp8", 2048, 0, 2, 16, "16GB", beginning=60),
    Trial("llama3-8b", "none", 4096, 16, 1, 16, "80GB"),
    Trial("llama3-8b", "int8", 2048, 32, 2, 16, "24GB"),
    Trial("llama3-8b", "nf4", 8192, 0, 1, 16, "80GB", beginning=40),
    Trial("llama3-8b", "fp8", 12288, 32, 4, 32, "40GB"),
)
SELF_TEST = Trial("tiny", "none", 256, 2, 2, 4, "8GB", beginning=10, longest=60)


def examples(trial: Trial) -> list[Any]:
    """Alpaca-like lengths: most are short, some long; the last third is learned."""
    import numpy as np

    from pronk.tokens.prompt import Example

    draw = np.random.default_rng(len(trial.shape) + trial.budget)
    vocabulary = SHAPES[trial.shape]["vocab_size"]
    beginning = draw.integers(3, vocabulary, trial.beginning)
    made = []
    for _ in range(2000 if trial.shape != "tiny" else 60):
        length = int(np.clip(draw.lognormal(4.6, 0.6), 16, trial.longest))
        ids = np.concatenate([beginning, draw.integers(3, vocabulary, length)])
        made.append(Example(ids, np.arange(len(ids)) >= len(ids) - length // 3))
    return made


def plans(trial: Trial) -> list[Any]:
    """Runs whose rounds fill more than one micro-batch."""
    from pronk.model.adapter import AdapterShape
    from pronk.train.fleet import RunPlan

    rows = examples(trial)
    mean = sum(len(row.ids) for row in rows) / len(rows)
    batch = max(1, round(1.6 * trial.budget / mean / trial.runs))
    shape = AdapterShape(trial.rank, 16.0)
    return [
        RunPlan(f"run{k}", rows, shape, ROUNDS, batch, 1e-4, optimizer=trial.optimizer, seed=k)
        for k in range(trial.runs)
    ]


def answer_batches(trial: Trial, rows: Sequence[Any], budget: int) -> list[Any]:
    """Prompts of the first rows under the base and every run, as an evaluation batches them."""
    from pronk.evaluate.batches import prompt_batches

    prompts = [row.prompt_ids.tolist() for row in rows]
    return [
        ([prompts[item] for item, _ in batch], [slot for _, slot in batch])
        for batch in prompt_batches(prompts, range(-1, trial.runs), budget, ANSWER)
    ]


def predict(trial: Trial, device: Any, limit: int) -> Any:
    """The planner's Setting for a trial."""
    from transformers import LlamaConfig

    from pronk.doctor.calibration import Bench, measure
    from pronk.doctor.workload import answered, trainings
    from pronk.model.memory.choice import Work, settings
    from pronk.model.memory.fit import fitted

    config, runs = LlamaConfig(**SHAPES[trial.shape]), plans(trial)
    start = analytic_costs(trial, config, device)
    bench = Bench(config, typing.cast(Any, trial.quantize), True, dtype_on(device), device, start.recorded)
    (workload,) = trainings(runs, [trial.budget])
    largest = max(load.tokens for load in workload.largest)
    costs = fitted(start, measure(bench, runs, largest), config.num_hidden_layers)
    test, slots = runs[0].examples[:ITEMS], range(-1, trial.runs)
    evaluations = tuple((tokens, answered(test, slots, tokens, ANSWER, [])) for tokens in (2048, 8192, 32768, 131072))
    work = Work((workload,), evaluations, ROUNDS, 1.0)
    (setting,) = settings({trial.quantize: costs}, work, trial.recompute, limit)
    return setting


def analytic_costs(trial: Trial, config: Any, device: Any) -> Any:
    """What the planner says without measuring."""
    from dataclasses import replace

    import torch
    from transformers import AutoModelForCausalLM

    from pronk.model.attention import kernels_for
    from pronk.model.memory.shapes import Trainee, analytic, architecture
    from pronk.model.step import records

    dtype = dtype_on(device)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    one = architecture(model)
    trainees = [Trainee(plan.shape, plan.optimizer) for plan in plans(trial)]
    costs = analytic(one, trainees, trial.quantize, True, dtype.itemsize)
    return replace(costs, recorded=records(one.parameters, kernels_for(config, device, dtype)))


def dtype_on(device: Any) -> Any:
    """bf16 on a GPU."""
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def really(trial: Trial, device: Any, evaluation_tokens: int) -> int:
    """Load, train, score and answer; most bytes reserved on the way (0 on a CPU)."""
    import torch
    from transformers import LlamaConfig

    from pronk.model.adapter import attach
    from pronk.model.generate import score_and_answer
    from pronk.model.memory.sizes import begin_peak, release
    from pronk.model.random_model import random_model
    from pronk.tokens.pack import pack_prompts
    from pronk.train.fleet import Fleet

    begin_peak(device)
    config, runs = LlamaConfig(**SHAPES[trial.shape]), plans(trial)
    quantize = typing.cast(Any, trial.quantize)
    model = random_model(config, config.num_hidden_layers, dtype_on(device), device, quantize)
    fleet = Fleet(model, runs, trial.budget, trial.recompute)
    fleet.train()
    fleet.adapter.detach()
    del fleet
    release(device)
    adapter = attach(model, [plan.shape for plan in runs])
    for prompts, slots in answer_batches(trial, runs[0].examples[:ITEMS], evaluation_tokens)[:2]:
        score_and_answer(model, adapter, pack_prompts(prompts, slots), (), ANSWER)
    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else 0


def child(trial: Trial) -> dict[str, Any]:
    """One trial in this process."""
    from pronk.model.memory.sizes import limit_gpu, read_size, steady_allocator, usable

    steady_allocator()
    import torch

    from pronk.recipe import Quantize

    if trial.quantize not in typing.get_args(Quantize):
        return {"skipped": f"this pronk has no quantize: {trial.quantize}"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = read_size(trial.gpu)
    if device.type == "cuda":
        limit_gpu(size, device)
    started = time.perf_counter()
    setting = predict(trial, device, usable(size))
    planned = time.perf_counter()
    measured = really(trial, device, setting.evaluation_tokens)
    seconds = {"predict": planned - started, "run": time.perf_counter() - planned}
    return {"predicted": setting.peak, "measured": measured, "evaluation_tokens": setting.evaluation_tokens, **seconds}


def run_child(trial: Trial) -> dict[str, Any]:
    """One trial in a process of its own; what went wrong is a result too."""
    command = [sys.executable, __file__, "--child", json.dumps(asdict(trial))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=os.environ)
    except subprocess.TimeoutExpired:
        return {"failed": "not done after 180 seconds"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def error_of(found: dict[str, Any]) -> float | None:
    """(predicted - measured) / measured; None where nothing was measured."""
    return found["predicted"] / found["measured"] - 1 if found.get("measured") else None


def table(results: Sequence[tuple[Trial, dict[str, Any]]]) -> str:
    """All trials as Markdown, and the largest error."""
    lines = ["| shape | base | micro-batch | recomputed | runs × rank | GPU | predicted | measured | error |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for trial, found in results:
        error = error_of(found)
        gib = [f"{found[key] / 2**30:.2f} GiB" if found.get(key) else "–" for key in ("predicted", "measured")]
        said = f"{100 * error:+.1f}%" if error is not None else found.get("skipped") or found.get("failed") or "–"
        layers = f"{trial.recompute} of {SHAPES[trial.shape]['num_hidden_layers']}"
        cells = [
            trial.shape, trial.quantize, f"{trial.budget:,}", layers, f"{trial.runs} × {trial.rank}", trial.gpu, *gib,
            said,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    errors = [abs(error) for _, found in results if (error := error_of(found)) is not None]
    lines.append(f"\nlargest error: {100 * max(errors):.1f}% of {len(errors)} settings" if errors else "\nno figures")
    return "\n".join(lines)


def main(chosen: Sequence[Trial], to: Path | None) -> int:
    """Run the trials and print; 1 where one failed or is too far off."""
    results = []
    for trial in chosen:
        results.append((trial, run_child(trial)))
        print(f"{len(results)} of {len(chosen)}: {results[-1][1]}", file=sys.stderr)
    if to is not None:
        to.write_text(json.dumps([{**asdict(trial), **found} for trial, found in results], indent=1), encoding="utf-8")
    print(table(results))
    errors = [error_of(found) for _, found in results]
    beyond = any(error is not None and abs(error) > TOLERANCE for error in errors)
    return int(beyond or any("failed" in found for _, found in results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="trials by number, from 1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(Trial(**json.loads(given.child)))))
        sys.exit(0)
    numbers = given.only or range(1, len(TRIALS) + 1)
    sys.exit(main([SELF_TEST] if given.self_test else [TRIALS[number - 1] for number in numbers], given.json))
