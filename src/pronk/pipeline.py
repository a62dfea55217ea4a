"""The story: recipe → examples → fleet training → evaluation → comparison → report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.data.sources import read_conversations
from pronk.data.split import Splits, split_conversations
from pronk.recipe import Recipe
from pronk.runs import StudyFolder, disk_guard, write_text
from pronk.study import Fleet, Study, plan_study

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.evaluate.evaluation import Evaluated
    from pronk.tokens.examples import Examples
    from pronk.train.session import Outcome


class Clock:
    """Seconds of each phase, several laps of one phase summed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Count the time since the last lap to a phase."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class Ready:
    """A fleet whose base is found and whose examples are made; nothing heavy is loaded yet."""

    fleet: Fleet
    base: Any
    tokenizer: Any
    examples: Examples


def run_study(recipe: Recipe, out: Path, console: Console) -> tuple[StudyFolder, bool]:
    """Run a whole study into a new folder; also whether it was interrupted (its state is then saved).

    Everything that can be wrong with recipe, data and base is found before the folder is made.
    """
    clock = Clock()
    study = plan_study(recipe)
    conversations, labels = read_conversations(recipe.data)
    splits = split_conversations(conversations, labels, recipe.data.split)
    ready = [_prepare(fleet, recipe, splits, labels, console) for fleet in study.fleets]
    clock.lap("prepare")
    with disk_guard(out):
        folder = StudyFolder.create(out)
        _tell_plan(study, splits, ready, out, console)
        summary = _summary(splits, labels, ready, out)
        folder.write_items(_test_items(splits))
        for run in study.runs:
            write_text(folder.run(run.name).path / "recipe.yaml", run.recipe.to_yaml())
        interrupted = False
        for one in ready:
            interrupted = _run_fleet(one, study, splits, folder, summary, clock, console)
            if interrupted:
                break
        summary["phases"], summary["total_seconds"] = clock.seconds, sum(clock.seconds.values())
        _conclude(folder, summary)
    return folder, interrupted


def report(path: Path) -> Path:
    """Compare a study's runs anew and write its report; needs neither torch nor the base model."""
    folder = StudyFolder.open(path)
    with disk_guard(path):
        return _conclude(folder, folder.read())


def _prepare(fleet: Fleet, recipe: Recipe, splits: Splits, labels: tuple[str, ...], console: Console) -> Ready:
    from pronk.model.load import find_base, load_config, load_tokenizer
    from pronk.tokens.examples import make_examples

    with console.status(f"reading {fleet.base} and the data"):
        base = find_base(fleet.base)
        tokenizer, context = load_tokenizer(base), load_config(base).max_position_embeddings
        lengths = dict.fromkeys(run.recipe.train.max_length for run in fleet.trained)
        examples = make_examples(recipe.prompt, tokenizer, context, splits, labels, list(lengths))
    return Ready(fleet, base, tokenizer, examples)


def _run_fleet(
    ready: Ready, study: Study, splits: Splits, folder: StudyFolder, summary: dict[str, Any], clock: Clock,
    console: Console,
) -> bool:  # fmt: skip
    """Train and evaluate one fleet and add its runs to the summary."""
    from pronk.doctor.environment import environment, peak_memory
    from pronk.evaluate.evaluation import validation_losses
    from pronk.model.load import load_model, resolve_device, resolve_dtype
    from pronk.tokens.pack import TOKEN_BUDGET
    from pronk.train.session import train_fleet

    fleet, examples = ready.fleet, ready.examples
    device = resolve_device(study.recipe.train.device)
    dtype = resolve_dtype(study.recipe.train.dtype, device)
    budget = TOKEN_BUDGET[device.type]
    with console.status(f"loading {fleet.base}"):
        model = load_model(ready.base, dtype, device)
    summary["environment"] = environment(device, dtype)
    clock.lap("load")
    validation = {s: examples.validation(run.recipe.train.max_length) for s, run in enumerate(fleet.trained)}

    def validate(adapter: Any, slots: Sequence[int]) -> dict[int, tuple[float, int]]:
        return validation_losses(model, adapter, slots, validation, budget)

    outcomes, interrupted = train_fleet(
        model, ready.base.location, fleet.trained, examples, folder, budget,
        validate if splits.validation else None, ready.tokenizer, console,
    )  # fmt: skip
    clock.lap("train")
    evaluated = [] if interrupted else _evaluate(ready, model, outcomes, study, splits, console)
    clock.lap("evaluate")
    _write_runs(ready, study, outcomes, evaluated, folder, summary, peak_memory(device))
    return interrupted


def _evaluate(
    ready: Ready, model: Any, outcomes: Sequence[Outcome], study: Study, splits: Splits, console: Console
) -> list[tuple[str, Evaluated]]:
    from pronk.evaluate.evaluation import Evaluation
    from pronk.train.progress import work

    if not splits.test:
        return []
    trained = [outcome for outcome in outcomes if outcome.adapter is not None]
    evaluation = Evaluation(model, [(one.shape, one.adapter or {}) for one in trained])
    truths = [conversation.answer for conversation in splits.test]
    with work(console, "evaluating", evaluation.work(ready.examples)) as bar:
        results = evaluation.run(ready.examples, truths, study.recipe.evaluations, bar.advance)
    evaluation.close()
    names = [ready.fleet.baseline, *(outcome.name for outcome in trained)]
    return list(zip(names, results, strict=True))


def _write_runs(
    ready: Ready, study: Study, outcomes: Sequence[Outcome], evaluated: Sequence[tuple[str, Evaluated]],
    folder: StudyFolder, summary: dict[str, Any], peak: int,
) -> None:  # fmt: skip
    """Item results to the run folders, and each run's entry to the summary."""
    from pronk.evaluate.classify import records

    ids = [item["id"] for item in folder.read_items()]
    for name, results in evaluated:
        if results.losses is not None:
            folder.run(name).write_items("likelihood", results.losses.records(ids))
        if results.classified is not None:
            folder.run(name).write_items("classify", records(results.classified, ids))
    fleet = ready.fleet
    if evaluated:
        several = len(study.fleets) > 1
        settings = {"base": fleet.base} if several else {}
        summary["runs"].append(
            {
                "name": fleet.baseline,
                "base": fleet.base,
                "baseline": True,
                "settings": settings,
                "status": "finished",
            }
        )
    runs = {run.name: run for run in study.runs}
    shared = {
        run.name: [other.name for other in one.runs if other is not run] for one in fleet.trained for run in one.runs
    }
    for outcome in outcomes:
        seconds = outcome.cost["train_seconds"]
        summary["runs"].append(
            {
                "name": outcome.name,
                "base": fleet.base,
                "baseline": False,
                "settings": runs[outcome.name].settings,
                "status": outcome.status,
                "message": outcome.message,
                "trainable_parameters": outcome.trainable_parameters,
                **outcome.cost,
                "tokens_per_second": outcome.cost["train_tokens"] / seconds if seconds else None,
                "peak_memory_bytes": peak,
                "shared_with": shared[outcome.name],
            }
        )


def _conclude(folder: StudyFolder, summary: dict[str, Any]) -> Path:
    """Metrics, comparisons, study.json and the report, all from the item results in the folder."""
    from pronk.compare.items import read_items
    from pronk.compare.pairs import compare_runs, evaluated
    from pronk.compare.report import write_report
    from pronk.compare.summary import run_metrics

    items = {run["name"]: read_items(folder.path, run["name"]) for run in summary["runs"] if evaluated(run)}
    for run in summary["runs"]:
        run["metrics"] = run_metrics(items[run["name"]]) if run["name"] in items else {}
    summary["comparisons"] = compare_runs(summary["runs"], items)
    folder.write(summary)
    return write_report(folder.path)


def _summary(splits: Splits, labels: tuple[str, ...], ready: Sequence[Ready], out: Path) -> dict[str, Any]:
    """study.json before anything has run."""
    return {
        "name": out.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": list(labels),
        "data": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "duplicates_removed": splits.duplicates_removed,
            "contradictory_removed": splits.contradictory_removed,
            "truncated_answers": sum(one.examples.truncated() for one in ready),
        },
        "runs": [],
        "comparisons": [],
        "environment": {},
    }


def _test_items(splits: Splits) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "input": row.subject,
            "reference": row.answer,
            "label": row.label,
            "place": row.place,
        }
        for number, row in enumerate(splits.test)
    ]


def _tell_plan(study: Study, splits: Splits, ready: Sequence[Ready], out: Path, console: Console) -> None:
    """What is about to happen, in a few lines."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    trained = sum(len(fleet.trained) for fleet in study.fleets)
    shared = (
        f", {trained} of them trained (the others are earlier points of those)" if trained < len(study.runs) else ""
    )
    say(f"{len(study.runs)} runs{shared}" if len(study.runs) > 1 else "1 run")
    counts = len(splits.train), len(splits.validation), len(splits.test)
    say("{} rows to train on, {} for validation, {} for the test".format(*counts))
    removed = splits.duplicates_removed, splits.contradictory_removed
    if any(removed):
        say(f"left out: {removed[0]} duplicates, {removed[1]} rows of one text with different labels")
    if cut := sum(one.examples.truncated() for one in ready):
        say(f"warning: {cut} answers are cut by train.max_length and lose their end; raise it if memory allows")
    say(f"writing to {out}")
