"""Metrics to TensorBoard, Weights & Biases, MLflow and trackio, behind one small interface.

A tracker is one run's line in such a tool: `log` numbers at a step, then `finish` with what the run was
measured at in the end. Tags are the same for all runs and all tools (train/loss, validation/loss,
train/learning_rate, train/gradient_norm, test/accuracy …), so runs lie over one another in one view.
metrics.jsonl is the truth: a tracker that fails is told of once and left out, and training goes on.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pronk.errors import RecipeError
from pronk.train.background import Background

LOGGED = ("loss", "learning_rate", "gradient_norm")
PROJECT = "pronk"
LONGEST_SETTING = 250  # characters; what the strictest of the tools takes


@dataclass(frozen=True, slots=True)
class Opening:
    """What a tracker is told of a run. settings: the whole recipe by dotted keys; varied: those of the study."""

    study: str
    run: str
    folder: Path
    settings: Mapping[str, Any]
    varied: Mapping[str, Any]


class Tracker(Protocol):
    """One run in one tool. Made where training begins; used from one background thread after that."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Numbers by tag, at a step; steps never fall."""

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        """The last numbers, those of the test, and the end."""


class TensorBoard:
    """`tensorboard --logdir STUDY/runs` shows the runs side by side, their settings under HPARAMS."""

    def __init__(self, opening: Opening) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._varied = _plain(opening.varied)
        self._writer = SummaryWriter(str(opening.folder / "tensorboard"), flush_secs=15)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for tag, value in figures.items():
            self._writer.add_scalar(tag, value, step)

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        if figures and self._varied:  # writes the figures too; "." is the run itself, not one below it
            self._writer.add_hparams(self._varied, dict(figures), run_name=".", global_step=step)
        else:
            self.log(figures, step)
        self._writer.close()


class WeightsAndBiases:
    """A run in the project of WANDB_PROJECT or `pronk`, in a group named after the study."""

    def __init__(self, opening: Opening) -> None:
        import wandb

        opening.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=opening.study, name=opening.run,
            config=dict(opening.settings), dir=str(opening.folder), reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)
        self._run.finish()


class MLflow:
    """A run in the experiment of MLFLOW_EXPERIMENT_NAME or the study's name; where, MLFLOW_TRACKING_URI says."""

    def __init__(self, opening: Opening) -> None:
        self._opening, self._client, self._run_id = opening, None, ""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        client, now = self._connected(), int(time.time() * 1000)
        client.log_batch(self._run_id, metrics=[Metric(tag, value, now, step) for tag, value in figures.items()])

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        self.log(figures, step)
        self._connected().set_terminated(self._run_id)

    def _connected(self) -> Any:
        """The client, with the run made on first use: a server that does not answer holds up no training."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        if self._client is None:
            client, opening = MlflowClient(), self._opening
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", opening.study)
            found = client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else client.create_experiment(name)
            self._run_id = client.create_run(experiment, run_name=opening.run).info.run_id
            settings = _plain(opening.settings)
            client.log_batch(self._run_id, params=[Param(key, str(value)) for key, value in settings.items()])
            self._client = client
        return self._client


class Trackio:
    """A run in the local dashboard's project `pronk`, in a group named after the study."""

    def __init__(self, opening: Opening) -> None:
        import trackio

        # trackio ends the current run of its context before it begins another: each gets a context of its own
        with _stdout_to_stderr():
            self._run = contextvars.Context().run(
                trackio.init, project=PROJECT, group=opening.study, name=f"{opening.study}/{opening.run}",
                config=dict(opening.settings), embed=False,
            )  # fmt: skip

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)
        with _stdout_to_stderr():
            self._run.finish()


TOOLS: dict[str, tuple[str, Callable[[Opening], Tracker]]] = {  # by recipe name: module, and how a run begins
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
    "trackio": ("trackio", Trackio),
}


def check_installed(names: Sequence[str]) -> None:
    """Raise RecipeError for the first tracker whose package is missing; imports none of them."""
    for name in names:
        module = TOOLS[name][0]
        if importlib.util.find_spec(module) is None:
            raise RecipeError(
                f"train.trackers: {name} is not installed; `pip install {module}`, or take it off the list"
            )


class Trackers:
    """All trackers of a fleet's runs. `tell` gets a line when a tool fails, once for each tool."""

    def __init__(self, names: Sequence[str], tell: Callable[[str], None]) -> None:
        self._lines = {name: Background(partial(_tell_failure, tell, name)) for name in names}
        self._open: dict[str, dict[str, Tracker]] = {}
        self._steps: dict[str, int] = {}

    def start(self, opening: Opening) -> None:
        """Begin a run in every tool. Here, not in the background: a tool may have to ask who you are."""
        runs = self._open[opening.run] = {}
        for name, line in self._lines.items():
            tracker = line.now(partial(TOOLS[name][1], opening))
            if tracker is not None:
                runs[name] = tracker

    def log(self, run: str, record: Mapping[str, Any]) -> None:
        """Pass on the numbers of one record of metrics.jsonl."""
        step = self._steps[run] = record["step"]
        figures = _finite({f"{record['kind']}/{name}": record[name] for name in LOGGED if name in record})
        for name, tracker in self._open.get(run, {}).items():
            self._lines[name].later(partial(tracker.log, figures, step))

    def finish(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """End every run, with the test metrics of those that have any, and wait until all is sent."""
        for run, trackers in self._open.items():
            figures = _finite({f"test/{name}": value for name, value in metrics.get(run, {}).items()})
            step = self._steps.get(run, 0)
            for name, tracker in trackers.items():
                self._lines[name].later(partial(tracker.finish, figures, step))
        self._open = {}
        for line in self._lines.values():
            line.close()


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _finite(figures: Mapping[str, Any]) -> dict[str, float]:
    return {tag: float(value) for tag, value in figures.items() if math.isfinite(value)}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as tools take them: numbers and short texts."""
    return {k: v if isinstance(v, bool | int | float) else str(v)[:LONGEST_SETTING] for k, v in settings.items()}


def _tell_failure(tell: Callable[[str], None], name: str, error: BaseException) -> None:
    words = without_secrets(str(error).strip().partition("\n")[0]) or "no reason given"
    tell(f"warning: {name} failed ({type(error).__name__}: {words[:300]}); going on without it")


def without_secrets(text: str) -> str:
    """The text without passwords in addresses and without the values of secret environment variables."""
    text = re.sub(r"//[^/\s@]*@", "//***@", text)
    for key, value in os.environ.items():
        if len(value) > 5 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", key, re.IGNORECASE):
            text = text.replace(value, "***")
    return text


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """stdout belongs to the verb's result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
