"""Law 10: what the planner predicts, beside what is really reserved, on settings that it was not calibrated on.

Each setting is a process of its own that may use a part of the GPU only: it predicts from one and two layers and a
quarter of the budget, then makes a whole model with random weights, trains, reads validation rows between two rounds,
scores and answers, as a study does, and compares the peak of reserved memory. Prints a Markdown table, and ends with 1
where an error is beyond 5%. The JSON, written after each setting, has predicted and measured peaks of every phase, in
use (allocated) and reserved, and where the seconds of a prediction go.

    python benchmarks/plan_error.py [--only N …] [--json FILE] [--jobs N]     on a GPU of 80 GB or more: four minutes
    python benchmarks/plan_error.py --diagnose [--json FILE]                  other settings: to find out, not to tell
    python benchmarks/plan_error.py --self-test                               on the CPU, without any figures
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plan_trials import DIAGNOSES, SELF_TEST, TRIALS, Trial, config_of, plans

TOLERANCE = 0.05
ITEMS, VALIDATION_ITEMS, ANSWER = 200, 60, 8
LABELS = ([5, 6, 7], [8, 9], [10])  # token ids of the answers that are scored
LIMIT_SECONDS = 120


def predict(trial: Trial, device: Any, memory: int) -> dict[str, Any]:
    """What the planner says: `setting`, the peaks of every `phase` by its figures, and the `seconds` it took."""
    from pronk.doctor.calibration import Bench, calibration_tokens, measure, reading_tokens
    from pronk.doctor.workload import trainings
    from pronk.model.memory.choice import settings
    from pronk.model.memory.fit import fitted

    laps = [time.perf_counter()]
    config, runs = config_of(trial), plans(trial)
    start = analytic_costs(trial, config, device)
    laps.append(time.perf_counter())
    (workload,) = trainings(runs, [trial.budget])
    largest = max(workload.largest, key=lambda load: load.tokens)
    work = work_of(trial, runs, workload)
    laps.append(time.perf_counter())
    bench = Bench(config, typing.cast(Any, trial.quantize), True, dtype_on(device), device, start.recorded)
    tokens = calibration_tokens(start, largest, memory)
    reading = reading_tokens(start, [tokens for tokens, _ in work.evaluations], memory)
    costs = fitted(start, measure(bench, runs, tokens, reading), config.num_hidden_layers)
    laps.append(time.perf_counter())
    (setting,) = settings({trial.quantize: costs}, work, trial.recompute, memory)
    names = ("kernels and shapes", "work", "measurement")
    seconds = {name: after - before for name, before, after in zip(names, laps, laps[1:], strict=False)}
    found = {"setting": setting, "phases": phases_of(costs, work, setting), "seconds": seconds}
    return {**found, "measured tokens": tokens, "costs": asdict(costs)}


def work_of(trial: Trial, runs: Sequence[Any], workload: Any) -> Any:
    """What the trial does, as the planner counts it."""
    from pronk.doctor.workload import answered, only_read
    from pronk.model.memory.choice import BUDGETS, Work

    test, validation = runs[0].examples[:ITEMS], runs[0].examples[:VALIDATION_ITEMS]
    slots = range(-1, trial.runs)
    evaluations = tuple(
        (tokens, (answered(test, slots, tokens, ANSWER, LABELS), only_read(test, len(slots), tokens)))
        for tokens in (2048, 8192, 32768, 131072)
    )
    validations = tuple((tokens, only_read(validation, trial.runs, tokens)) for tokens in BUDGETS if tokens <= 16384)
    return Work((workload,), evaluations, trial.rounds, 1.0, validations)


def phases_of(costs: Any, work: Any, setting: Any) -> dict[str, dict[str, int]]:
    """The peaks that a setting's figures give for each phase, reserved and allocated."""
    from dataclasses import replace

    from pronk.model.memory.costs import SEGMENTS

    training = work.trainings[0]

    def peaks(one: Any, recordings: float) -> dict[str, int]:
        answering, reading = dict(work.evaluations)[setting.evaluation_tokens]
        validation = dict(work.validations)[setting.validation_tokens]
        return {
            "load": one.loading_peak(),
            "train": one.training_peak(training.largest, setting.recompute, training.sequence),
            "validate": one.validation_peak(validation, recordings),
            "likelihood": one.evaluation_peak(reading), "answer": one.evaluation_peak(answering),
        }  # fmt: skip

    pool = costs.recordings(training.largest, setting.recompute, training.sequence)
    reserved, allocated = peaks(costs, pool), peaks(replace(costs.without_slack(), recorded=False), 0.0)
    return {name: {"reserved": reserved[name], "allocated": allocated[name] - SEGMENTS} for name in reserved}


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
    costs = analytic(one, trainees, typing.cast(Any, trial.quantize), True, dtype.itemsize)
    return replace(costs, recorded=records(one.parameters, kernels_for(config, device, dtype)))


def dtype_on(device: Any) -> Any:
    """bf16 on a GPU."""
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


class Phases:
    """Peaks of memory, phase by phase; zeros on a CPU."""

    def __init__(self, device: Any) -> None:
        self.device, self.peaks, self.now = device, {}, ""  # type: ignore[var-annotated]
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.rests: dict[str, dict[str, int]] = {}  # when each began first

    def begin(self, name: str) -> None:
        """End the phase before, and count anew."""
        import torch

        found = {"reserved": 0, "allocated": 0}
        rest = found
        if self.device.type == "cuda":
            rest = {
                "reserved": torch.cuda.memory_reserved(self.device),
                "allocated": torch.cuda.memory_allocated(self.device),
            }
            torch.cuda.synchronize(self.device)
            found = {
                "reserved": torch.cuda.max_memory_reserved(self.device),
                "allocated": torch.cuda.max_memory_allocated(self.device),
            }
            torch.cuda.reset_peak_memory_stats(self.device)
        now = time.perf_counter()
        if self.now:
            before = self.peaks.get(self.now, found)
            self.peaks[self.now] = {key: max(before[key], found[key]) for key in found}
            self.seconds[self.now] = self.seconds.get(self.now, 0.0) + now - self.started
        self.now, self.started = name, now
        self.rests.setdefault(name, rest)


def really(trial: Trial, device: Any, setting: Any) -> Phases:
    """Load, train, validate between two rounds, score and answer, as a study does; the peaks of each."""
    from pronk.evaluate.evaluation import validation_losses
    from pronk.evaluate.likelihood import answer_losses
    from pronk.model.adapter import attach
    from pronk.model.memory.sizes import begin_peak, give_back, release
    from pronk.model.random_model import random_model
    from pronk.train.fleet import Fleet

    begin_peak(device)
    phases, config, runs = Phases(device), config_of(trial), plans(trial)
    phases.begin("load")
    quantize = typing.cast(Any, trial.quantize)
    model = random_model(config, config.num_hidden_layers, dtype_on(device), device, quantize)
    phases.begin("train")
    fleet = Fleet(model, runs, trial.budget, trial.recompute)
    adapter = fleet.adapter

    def validate(steps: Sequence[Any]) -> None:
        if steps[0].number == trial.rounds - 1:  # at least one round comes after it
            give_back(device)  # as `validation_losses` does first
            phases.begin("validate")
            rows = {slot: run.examples[:VALIDATION_ITEMS] for slot, run in enumerate(runs)}
            validation_losses(model, adapter, range(trial.runs), rows, setting.validation_tokens)
            phases.begin("train")

    fleet.train(validate)
    adapter.detach()
    del fleet, adapter, validate  # each holds on to the moments
    release(device)
    test = runs[0].examples[:ITEMS]
    phases.begin("likelihood")
    adapter = attach(model, [plan.shape for plan in runs])
    answer_losses(model, adapter, dict.fromkeys(range(-1, trial.runs), test), setting.evaluation_tokens)
    phases.begin("answer")
    answer(model, adapter, [row.prompt_ids.tolist() for row in test], trial, setting.evaluation_tokens)
    phases.begin("")
    return phases


def answer(model: Any, adapter: Any, prompts: Sequence[Any], trial: Trial, budget: int) -> None:
    """Score labels and answer, as `evaluate.classify` does; the first two batches, as they are the largest."""
    from pronk.evaluate.batches import prompt_batches
    from pronk.model.generate import score_and_answer
    from pronk.tokens.pack import pack_prompts

    for batch in prompt_batches(prompts, range(-1, trial.runs), budget, ANSWER)[:2]:
        reading = pack_prompts([prompts[item] for item, _ in batch], [slot for _, slot in batch])
        score_and_answer(model, adapter, reading, LABELS, ANSWER)


def child(trial: Trial) -> dict[str, Any]:
    """One trial in this process."""
    from pronk.model.memory.sizes import limit_gpu, read_size, steady_allocator, usable

    started = time.perf_counter()
    steady_allocator()
    import torch
    import transformers  # noqa: F401  # any command imports it

    from pronk.recipe import Quantize

    if trial.quantize not in typing.get_args(Quantize):
        return {"skipped": f"this pronk has no quantize: {trial.quantize}"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = read_size(trial.gpu)
    if device.type == "cuda":
        limit_gpu(size, device)
        torch.zeros(1, device=device)
    imported = time.perf_counter()
    found = predict(trial, device, usable(size))
    planned = time.perf_counter()
    setting = found.pop("setting")
    phases = really(trial, device, setting)
    for name, peaks in phases.peaks.items():
        found["phases"][name] |= {f"measured {key}": value for key, value in peaks.items()}
        found["phases"][name] |= {f"{key} when it began": value for key, value in phases.rests[name].items()}
    found["seconds"] |= {"imports": imported - started, "predict": planned - imported, **phases.seconds}
    measured = max(peaks["reserved"] for peaks in phases.peaks.values())
    tokens = {"evaluation_tokens": setting.evaluation_tokens, "validation_tokens": setting.validation_tokens}
    return {"predicted": setting.peak, "measured": measured, **tokens, **found}


def profiled(trial: Trial) -> dict[str, Any]:
    """As `child`, with where most of its time went."""
    import cProfile
    import io
    import pstats

    profile = cProfile.Profile()
    found = profile.runcall(child, trial)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats(90)
    return {**found, "profile": text.getvalue().splitlines()}


def run_child(trial: Trial, profile: bool = False) -> dict[str, Any]:
    """One trial in a process of its own; what went wrong is a result too."""
    command = [sys.executable, __file__, "--child", json.dumps(asdict(trial)), *(["--profile"] if profile else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, env=os.environ
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LIMIT_SECONDS} seconds"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"failed": lines[-1], "stderr": lines[-30:]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def error_of(found: dict[str, Any]) -> float | None:
    """(predicted - measured) / measured; None where nothing was measured."""
    return found["predicted"] / found["measured"] - 1 if found.get("measured") else None


def table(results: Sequence[tuple[Trial, dict[str, Any]]]) -> str:
    """All trials as Markdown, phase by phase below, and the largest error."""
    lines = ["| shape | base | micro-batch | recomputed | runs × rank | GPU | predicted | measured | error |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for trial, found in results:
        error = error_of(found)
        gib = [f"{found[key] / 2**30:.2f} GiB" if found.get(key) else "–" for key in ("predicted", "measured")]
        said = f"{100 * error:+.1f}%" if error is not None else found.get("skipped") or found.get("failed") or "–"
        cells = [
            trial.shape, trial.quantize, f"{trial.budget:,}", str(trial.recompute), f"{trial.runs} × {trial.rank}",
            trial.gpu, *gib, said,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    errors = [abs(error) for _, found in results if (error := error_of(found)) is not None]
    largest = f"largest error: {100 * max(errors):.1f}% of {len(errors)} settings" if errors else "no figures"
    return "\n".join([*lines, "", largest, "", *phase_table(results)])


def phase_table(results: Sequence[tuple[Trial, dict[str, Any]]]) -> list[str]:
    """Predicted → measured GiB of every phase, in use and reserved."""
    lines = ["| setting | phase | in use, predicted | measured | reserved, predicted | measured |"]
    lines.append("|---|---|---|---|---|---|")
    keys = ("allocated", "measured allocated", "reserved", "measured reserved")
    for number, (_, found) in enumerate(results, 1):
        for name, peaks in found.get("phases", {}).items():
            cells = [f"{peaks.get(key, 0) / 2**30:.2f}" for key in keys]
            lines.append(f"| {number} | {name} | " + " | ".join(cells) + " |")
    return lines


def main(chosen: Sequence[Trial], to: Path | None, profile: bool, jobs: int) -> int:
    """Run the trials and print; 1 where one failed or is too far off."""
    results: list[tuple[Trial, dict[str, Any]]] = []
    with ThreadPoolExecutor(jobs) as pool:
        for trial, found in zip(chosen, pool.map(lambda one: run_child(one, profile), chosen), strict=True):
            results.append((trial, found))
            short = {key: found[key] for key in ("predicted", "measured", "seconds", "failed") if key in found}
            print(f"{len(results)} of {len(chosen)}: {short}", file=sys.stderr, flush=True)
            if to is not None:
                everything = [{**asdict(one), **said} for one, said in results]
                to.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    print(table(results))
    errors = [error_of(found) for _, found in results]
    beyond = any(error is not None and abs(error) > TOLERANCE for error in errors)
    return int(beyond or any("failed" in found for _, found in results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="settings by number, from 1")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="settings at a time; what seconds say is then of no use")
    parser.add_argument("--profile", action="store_true", help="where the time goes, into the JSON")
    parser.add_argument("--diagnose", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        one = Trial(**json.loads(given.child))
        print(json.dumps(profiled(one) if given.profile else child(one)))
        sys.exit(0)
    group = (SELF_TEST,) if given.self_test else DIAGNOSES if given.diagnose else TRIALS
    picked = [group[number - 1] for number in given.only or range(1, len(group) + 1)]
    sys.exit(main(picked, given.json, given.profile, given.jobs))
