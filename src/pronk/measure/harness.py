"""`pronk eval … --lm-eval TASKS`: EleutherAI's lm-eval on bases and runs, each in a process of its own.

Only its official interface is used (harness_process.py). Its figures are its own: its prompts, its metrics.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.models import Model, find_models
from pronk.data.terminal import plain
from pronk.errors import OptionError
from pronk.measure.together import found_base
from pronk.runs import disk_guard, new_folder, write_text
from pronk.study import slug
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

PACKAGE, INSTALL = "lm_eval", "pip install 'lm_eval>=0.4.13,<0.5'"
QUANTIZES = ("none", "nf4", "int8")  # what transformers loads without pronk


@dataclass(frozen=True)
class Tasks:
    """names: lm-eval's tasks and groups. include_path: a folder of more of them. limit: items of a task, or a share
    below 1. fewshot: examples in the prompt, the task's own number when None. chat_template: ask in the model's chat
    template."""

    names: tuple[str, ...]
    include_path: str | None = None
    limit: float | None = None
    fewshot: int | None = None
    chat_template: bool = False


@dataclass(frozen=True)
class Work:
    """What a process is given. tokenizer: a folder or a hub id; peft: an adapter's folder, if any."""

    pretrained: str
    tokenizer: str
    peft: str | None
    quantize: str
    double_quantization: bool
    dtype: str
    device: str
    tasks: Tasks


def run_harness(
    targets: Sequence[str], tasks: Tasks, overrides: Sequence[str], out: Path | None, console: Console
) -> list[dict[str, Any]]:
    """lm-eval's results of each model, each written as JSON when it is there: beside its run, else into `out`.

    Returns records with `name`, `file`, and what lm-eval gives (`results` by task, `versions`, …). Raises
    OptionError where lm-eval is not installed, knows no such task, or fails; KeyboardInterrupt.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise OptionError(f"--lm-eval needs the package {PACKAGE}, which is not installed here: {INSTALL}")
    if not tasks.names:
        raise OptionError("--lm-eval: name at least one task, such as mmlu or gsm8k (`lm_eval ls tasks` lists them)")
    models = find_models(targets, overrides=overrides)
    works = [_work(model, tasks, console) for model in models]
    elsewhere = out or new_folder("evaluations/lm_eval")
    records = []
    for model, work in zip(models, works, strict=True):
        say(console, f"{model.name}: lm-eval on {', '.join(tasks.names)}")
        place = elsewhere if out or model.run is None else model.run / "lm_eval"
        with disk_guard(place):
            record = {"name": model.name, **_measured(model.name, work)}
            file = _new_file(place, model.name if place is elsewhere else "")
            write_text(file, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        records.append({**record, "file": str(file)})
    return records


def _work(model: Model, tasks: Tasks, console: Console) -> Work:
    """How lm-eval loads a model. Raises BaseModelError, StudyError, or OptionError for one that it cannot load."""
    recipe = model.recipe
    if recipe.quantize not in QUANTIZES:
        raise OptionError(
            f"{model.name}: lm-eval loads bases through transformers, which does not know quantize: {recipe.quantize}; "
            "add --set quantize=none"
        )
    base = found_base(model, lambda line: say(console, line))
    adapter = None if model.adapter is None else str(model.adapter.folder.absolute())
    kept = recipe.quantize, recipe.double_quantization is not False, recipe.train.dtype, recipe.train.device
    beside = adapter if adapter and (Path(adapter) / "tokenizer_config.json").is_file() else None
    return Work(base.location, beside or model.form.tokens or base.location, adapter, *kept, tasks)


def _measured(name: str, work: Work) -> dict[str, Any]:
    """What the process found; its progress goes to stderr as it comes."""
    with tempfile.TemporaryDirectory(prefix="pronk-") as folder:
        source, target = Path(folder) / "work.json", Path(folder) / "result.json"
        source.write_text(json.dumps(asdict(work)), encoding="utf-8")
        # -P: a file named lm_eval.py in the working folder is not lm-eval
        command = [sys.executable, "-P", "-m", "pronk.measure.harness_process", str(source), str(target)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
        try:
            code = process.wait()
        finally:
            if process.poll() is None:  # Ctrl-C came to us alone
                process.terminate()
                process.wait()
        found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    if "fault" in found or not found:
        raise OptionError(f"--lm-eval: {name}: {plain(found.get('fault') or f'its process ended with code {code}')}")
    return found


def _new_file(folder: Path, name: str) -> Path:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    stem = "_".join(filter(None, (slug(name.replace("/", "_")), now)))
    names = (f"{stem}{f'-{number}' if number else ''}.json" for number in itertools.count())
    return next(folder / one for one in names if not (folder / one).exists())


def as_lines(records: Sequence[dict[str, Any]]) -> list[str]:
    """A table for the terminal: tasks and groups down, models across; the parts of a group are in the files alone."""
    heads = ["task", "shots", "metric", *(record["name"] for record in records)]
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for record in records:
        for key, value in _figures(record):
            rows.setdefault(key, {})[record["name"]] = value
    cells = [heads, *([*key, *(row.get(record["name"], "–") for record in records)] for key, row in rows.items())]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return ["  ".join(map(str.ljust, map(plain, row), widths)).rstrip() for row in cells]


def _figures(record: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Task, number of examples and metric, with value and standard error as text."""
    groups: dict[str, list[str]] = record.get("group_subtasks") or {}
    parts = {part for name, members in groups.items() for part in members if part != name}
    for task, figures in (record.get("results") or {}).items():
        for metric, value in figures.items() if task not in parts else ():
            name, comma, filtered = metric.partition(",")
            if not comma or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = figures.get(f"{name}_stderr,{filtered}")
            shown = f"{value:.4f}" + (f" ± {error:.4f}" if isinstance(error, int | float) else "")
            label = name if filtered == "none" else f"{name} ({filtered})"
            yield (task, str((record.get("n-shot") or {}).get(task, "")), label), shown
