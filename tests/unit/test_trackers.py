"""Trackers: the same tags everywhere, the official calls, and no failure that reaches training.

wandb, mlflow and trackio are stood in for by modules with their signatures (wandb 0.31, mlflow 3.17,
trackio 0.43): a call that the real one would not take fails here too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pronk.errors import RecipeError
from pronk.train import background
from pronk.train.trackers import Opening, Trackers, check_installed, flat, without_secrets

SETTINGS = {"adapter": {"rank": 4, "targets": ["q_proj"]}, "train": {"clip": None}}
RECORDS = [
    {"kind": "train", "step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-3, "gradient_norm": 0.5, "tokens": 9},
    {"kind": "train", "step": 2, "epoch": 1.0, "loss": 1.5, "learning_rate": 2e-3, "gradient_norm": 0.4, "tokens": 9},
    {"kind": "validation", "step": 2, "epoch": 1.0, "loss": 1.75, "tokens": 30},
]
METRICS = {"accuracy": 0.75, "nll": 1.25}
TAGS = {"train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss", "test/accuracy", "test/nll"}


def opening(folder: Path, run: str = "rank-4") -> Opening:
    return Opening("my study", run, folder / run, flat(SETTINGS), {"adapter.rank": 4, "adapter.targets": ["q_proj"]})


def track(name: str, folder: Path, runs: tuple[str, ...] = ("rank-4", "rank-8")) -> list[str]:
    """Log the records of some runs side by side, as a fleet does; what the user was told."""
    told: list[str] = []
    trackers = Trackers([name], told.append)
    for run in runs:
        trackers.start(opening(folder, run))
    for record in RECORDS:
        for run in runs:
            trackers.log(run, record)
    trackers.finish({runs[0]: METRICS, "base": METRICS})
    return told


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track("tensorboard", tmp_path) == []
    scalars = {}
    for run in ("rank-4", "rank-8"):
        events = EventAccumulator(str(tmp_path / run / "tensorboard"))
        events.Reload()
        tags = events.Tags()["scalars"]
        scalars[run] = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    assert scalars["rank-4"].keys() == TAGS
    assert scalars["rank-8"].keys() == {tag for tag in TAGS if not tag.startswith("test/")}
    ours = scalars["rank-4"]
    assert ours["train/loss"] == [(1, 2.0), (2, 1.5)]
    assert ours["train/learning_rate"] == [(1, pytest.approx(1e-3)), (2, pytest.approx(2e-3))]
    assert ours["validation/loss"] == [(2, 1.75)]
    assert ours["test/accuracy"] == [(2, 0.75)]
    assert "_hparams_/session_start_info" in events_metadata(tmp_path / "rank-4" / "tensorboard")
    assert {path.name for path in (tmp_path / "rank-4").iterdir()} == {"tensorboard"}


def events_metadata(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return set(events.PluginTagToContent("hparams"))


class Calls(list[tuple[Any, ...]]):
    """What a stand-in was asked to do, in order."""

    def of(self, *begin: Any) -> list[tuple[Any, ...]]:
        return [call[len(begin) :] for call in self if call[: len(begin)] == begin]


def wandb_stand_in(calls: Calls) -> dict[str, ModuleType]:
    module = ModuleType("wandb")

    class Run:
        def __init__(self, name: str) -> None:
            self.name = name

        def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
            assert commit is None
            calls.append(("log", self.name, data, step))

        def finish(self, exit_code: int | None = None) -> None:
            assert exit_code is None
            calls.append(("finish", self.name))

    def init(
        entity: Any = None, project: Any = None, dir: Any = None, id: Any = None, name: Any = None, notes: Any = None,
        config: Any = None, group: Any = None, mode: Any = None, reinit: Any = None, settings: Any = None,
    ) -> Run:  # fmt: skip
        assert (entity, id, notes, mode) == (None,) * 4
        assert Path(dir).is_dir()
        assert reinit == "create_new"  # else the second run of a fleet would end the first
        calls.append(("init", name, project, group, config, settings))
        return Run(name)

    module.init = init  # type: ignore[attr-defined]
    module.Settings = lambda console, silent: (console, silent)  # type: ignore[attr-defined]
    return {"wandb": module}


def trackio_stand_in(calls: Calls) -> dict[str, ModuleType]:
    import contextvars

    module, current = ModuleType("trackio"), contextvars.ContextVar[Any]("current", default=None)

    class Run:
        def __init__(self, name: str) -> None:
            self.name = name

        def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
            calls.append(("log", self.name.partition("/")[2], metrics, step))

        def finish(self) -> None:
            print("* Run finished")
            calls.append(("finish", self.name.partition("/")[2]))

    def init(project: str, name: str | None = None, group: str | None = None, config: dict[str, Any] | None = None,
             resume: str = "never", embed: bool = True) -> Run:  # fmt: skip
        assert (resume, embed) == ("never", False)
        if current.get() is not None:
            current.get().finish()
        print("* Trackio project initialized")
        run = Run(name or "")
        current.set(run)
        calls.append(("init", run.name.partition("/")[2], project, group, config, None))
        return run

    module.init = init  # type: ignore[attr-defined]
    return {"trackio": module}


def mlflow_stand_in(calls: Calls) -> dict[str, ModuleType]:
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")

    class MlflowClient:
        def __init__(self, tracking_uri: str | None = None) -> None:
            assert tracking_uri is None  # MLFLOW_TRACKING_URI decides

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id=name) if ("experiment", name) in calls else None

        def create_experiment(self, name: str) -> str:
            calls.append(("experiment", name))
            return name

        def create_run(self, experiment_id: str, start_time: Any = None, tags: Any = None, run_name: Any = None) -> Any:
            assert (start_time, tags) == (None, None)
            calls.append(("init", run_name, "pronk", experiment_id))
            return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            if params:
                calls.append(("params", run_id, dict(params)))
            if metrics:
                assert all(abs(stamp / 1000 - time.time()) < 60 for _, _, stamp, _ in metrics)
                calls.append(("log", run_id, {key: value for key, value, _, _ in metrics}, metrics[0][3]))

        def set_terminated(self, run_id: str, status: str | None = None) -> None:
            assert status is None
            calls.append(("finish", run_id))

    module.MlflowClient = MlflowClient  # type: ignore[attr-defined]
    entities.Metric = lambda key, value, timestamp, step: (key, value, timestamp, step)  # type: ignore[attr-defined]
    entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
    return {"mlflow": module, "mlflow.entities": entities}


STAND_INS: dict[str, Callable[[Calls], dict[str, ModuleType]]] = {
    "wandb": wandb_stand_in,
    "mlflow": mlflow_stand_in,
    "trackio": trackio_stand_in,
}


@pytest.fixture(params=list(STAND_INS))
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Calls]]:
    calls = Calls()
    for key in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(key, raising=False)
    for name, module in STAND_INS[request.param](calls).items():
        monkeypatch.setitem(sys.modules, name, module)
    return request.param, calls


def test_every_tool_gets_the_same_numbers(
    tool: tuple[str, Calls], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, calls = tool
    assert track(name, tmp_path) == []
    train = [
        ({"train/loss": 2.0, "train/learning_rate": 1e-3, "train/gradient_norm": 0.5}, 1),
        ({"train/loss": 1.5, "train/learning_rate": 2e-3, "train/gradient_norm": 0.4}, 2),
    ]
    logged = [*train, ({"validation/loss": 1.75}, 2)]
    assert calls.of("log", "rank-4") == [*logged, ({"test/accuracy": 0.75, "test/nll": 1.25}, 2)]
    assert [call for call in calls.of("log", "rank-8") if call[0]] == logged
    assert len(calls.of("init")) == 2
    assert [call[0] for call in calls.of("finish")] == ["rank-4", "rank-8"]  # once, and only at the end
    assert calls[-1] == ("finish", "rank-8")
    assert capsys.readouterr().out == ""  # stdout belongs to --json


def test_runs_are_named_and_grouped_and_carry_their_recipe(tool: tuple[str, Calls], tmp_path: Path) -> None:
    name, calls = tool
    track(name, tmp_path)
    (run, project, group, *rest), *_ = calls.of("init")
    assert (run, project, group) == ("rank-4", "pronk", "my study")
    config = calls.of("params", "rank-4")[0][0] if name == "mlflow" else rest[0]
    assert str(config["adapter.rank"]) == "4"
    assert str(config["adapter.targets"]) == "['q_proj']"


def test_a_tool_that_breaks_is_told_of_once_and_left_out(
    tool: tuple[str, Calls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, calls = tool
    monkeypatch.setenv("SOME_API_KEY", "key-of-mine")

    class BrokenError(Exception):
        pass

    def breaks(*_: Any, **__: Any) -> None:
        raise BrokenError("no route to https://me:word@host/api?key=key-of-mine\nand more")

    entry = "MlflowClient" if name == "mlflow" else "init"
    monkeypatch.setattr(sys.modules[name], entry, breaks)
    (line,) = track(name, tmp_path)
    assert line == (
        f"warning: {name} failed (BrokenError: no route to https://***@host/api?key=***); going on without it"
    )
    assert calls == []


def test_a_tool_that_hangs_holds_up_neither_training_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, forever, answered = Calls(), threading.Event(), list[bool]()
    for name, module in mlflow_stand_in(calls).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        sys.modules["mlflow"].MlflowClient, "create_run", lambda *_, **__: answered.append(forever.wait(30))
    )
    monkeypatch.setattr(background, "LAST_WAIT", 0.2)
    (line,) = track("mlflow", tmp_path)
    assert "did not answer" in line
    assert answered == []  # it hangs still, and nobody waits for it
    forever.set()


def test_a_failing_tool_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, told = Calls(), list[str]()
    monkeypatch.setitem(sys.modules, "wandb", wandb_stand_in(calls)["wandb"])
    monkeypatch.setitem(sys.modules, "trackio", None)  # importing it is an ImportError
    trackers = Trackers(["trackio", "wandb"], told.append)
    trackers.start(opening(tmp_path))
    trackers.log("rank-4", RECORDS[0])
    trackers.finish({})
    assert len(told) == 1
    assert calls.of("finish") == [("rank-4",)]


def test_figures_that_are_no_number_are_not_sent(tool: tuple[str, Calls], tmp_path: Path) -> None:
    name, calls = tool
    trackers = Trackers([name], lambda _: None)
    trackers.start(opening(tmp_path))
    trackers.log("rank-4", {**RECORDS[0], "loss": float("nan")})
    trackers.finish({})
    assert "train/loss" not in calls.of("log", "rank-4")[0][0]


def test_a_missing_package_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else object())
    check_installed(["tensorboard", "wandb"])
    with pytest.raises(RecipeError, match=r"train\.trackers: mlflow is not installed; `pip install mlflow`"):
        check_installed(["tensorboard", "mlflow"])


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("EMPTY_TOKEN", "")
    assert without_secrets("bearer hf_abcdef at http://a:b@c/d") == "bearer *** at http://***@c/d"
