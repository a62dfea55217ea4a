"""Ctrl-C: what was trained is saved, and nothing is ever half a file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Told, Workplace
from safetensors.torch import load_file

INTERRUPTED = 130


def start(workplace: Workplace) -> subprocess.Popen[str]:
    workplace.recipe["train"]["max_steps"] = 100_000
    workplace.recipe["train"]["evaluate_every"] = workplace.recipe["train"]["save_every"] = 1_000_000
    return subprocess.Popen(
        [sys.executable, "-m", "pronk", *workplace.arguments()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the study did not get so far"
        time.sleep(0.02)


def steps_logged(workplace: Workplace) -> int:
    file = workplace.out / "runs" / "tuned" / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def interrupt(process: subprocess.Popen[str], *pauses: float) -> Told:
    process.send_signal(signal.SIGINT)
    for pause in pauses:
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return Told(process.returncode, out, err)


def whole(workplace: Workplace) -> None:
    """Every file that is there can be read, and nothing was left aside."""
    for file in workplace.out.rglob("*"):
        assert not file.name.startswith(".")
        if file.suffix == ".safetensors":
            assert load_file(file)
        elif file.suffix == ".json":
            assert json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            assert all(json.loads(line) for line in file.read_text().splitlines())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> tuple[Workplace, Told]:
    workplace = Workplace(tmp_path_factory.mktemp("stopped"), tiny_base)
    process = start(workplace)
    wait_for(lambda: steps_logged(workplace) >= 5, process)
    return workplace, interrupt(process)


def test_the_end_is_told_without_a_traceback(stopped: tuple[Workplace, Told]) -> None:
    workplace, told = stopped
    assert told.code == INTERRUPTED
    assert "Traceback" not in told.err
    assert f"interrupted; what was trained is saved in {workplace.out}" in told.err
    assert told.out == ""


def test_the_study_says_interrupted(stopped: tuple[Workplace, Told]) -> None:
    (run,) = [run for run in stopped[0].study()["runs"] if not run["baseline"]]
    assert (run["name"], run["status"]) == ("tuned", "interrupted")
    assert run["steps"] >= 5
    assert "interrupted" in (stopped[0].out / "report.html").read_text(encoding="utf-8")


def test_the_checkpoint_is_whole(stopped: tuple[Workplace, Told], tiny_base: Path) -> None:
    """Adapter and optimizer load, belong to the step that they are named after, and fit the model."""
    import torch

    from pronk.model.adapter import AdapterShape, attach
    from pronk.model.hub import Base
    from pronk.model.load import load_model
    from pronk.train.checkpoint import load_adapter, load_optimizer
    from pronk.train.optimizer import FleetOptimizer, Settings

    workplace = stopped[0]
    whole(workplace)
    (folder,) = (workplace.out / "runs" / "tuned" / "checkpoints").iterdir()
    step = workplace.study()["runs"][-1]["steps"]
    assert folder.name == f"step-{step}"
    saved = load_optimizer(folder)
    assert saved["random.step"] == step
    assert {int(value) for key, value in saved.items() if key.endswith(".step") and key != "random.step"} == {step}
    model = load_model(Base("tiny", str(tiny_base), local=True), torch.float32, torch.device("cpu"))
    adapter = attach(model, [AdapterShape(4, 16.0)])
    adapter.load(0, load_adapter(folder))
    (optimizer,) = FleetOptimizer(adapter, [Settings(1e-2, 0.0, 1.0, 1.0, "adamw")]).runs
    optimizer.load(saved)
    assert all(torch.equal(value, saved[name]) for name, value in optimizer.state().items())


def test_the_study_can_be_reported_again(stopped: tuple[Workplace, Told], pronk: Callable[..., Told]) -> None:
    told = pronk("report", str(stopped[0].out))
    assert told.code == 0
    assert "interrupted" in told.out


def test_a_second_signal_spoils_no_file(workplace: Workplace) -> None:
    process = start(workplace)
    wait_for(lambda: steps_logged(workplace) >= 5, process)
    told = interrupt(process, 0.02)
    assert told.code == INTERRUPTED
    assert "Traceback" not in told.err
    whole(workplace)


def test_two_signals_at_once_spoil_no_file(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pronk.train.fleet import Fleet

    rounds = []

    def interrupted(fleet: Fleet) -> Any:
        rounds.append(fleet)
        if len(rounds) == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return original(fleet)

    original = Fleet.play_round
    monkeypatch.setattr(Fleet, "play_round", interrupted)
    told = pronk(*workplace.arguments())
    assert told.code == INTERRUPTED
    assert told.err.count("stopping as soon as everything is saved") == 1
    assert "Traceback" not in told.err
    whole(workplace)


def interrupted_inside(
    monkeypatch: pytest.MonkeyPatch, workplace: Workplace, pronk: Callable[..., Told], place: Any, name: str
) -> Told:
    """Run a study in which Ctrl-C comes at the moment in which a function is called."""
    monkeypatch.setattr(place, name, signalled(getattr(place, name)))
    return pronk(*workplace.arguments())


def signalled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with Ctrl-C just before it does its work."""

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    return interrupted


def test_a_signal_while_saving_still_ends_in_a_study(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pronk.train import recorder
    from pronk.train.fleet import Fleet

    monkeypatch.setattr(Fleet, "train", signalled(Fleet.train))
    told = interrupted_inside(monkeypatch, workplace, pronk, recorder.Recorder, "save_all")
    assert told.code == INTERRUPTED
    assert workplace.study()["runs"]


@pytest.mark.parametrize("name", ["run", "_answered"])
def test_a_signal_while_evaluating_keeps_what_was_trained(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from pronk.evaluate.evaluation import Evaluation

    workplace.recipe["evaluate"] = ["likelihood", "similarity"]
    told = interrupted_inside(monkeypatch, workplace, pronk, Evaluation, name)
    assert told.code == INTERRUPTED
    assert "saved in" in told.err
    (run,) = [run for run in workplace.study()["runs"] if not run["baseline"]]
    assert (run["status"], run["steps"]) == ("finished", 6)


def test_a_signal_while_loading_leaves_nothing_in_the_way(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pronk.model import load

    told = interrupted_inside(monkeypatch, workplace, pronk, load, "load_model")
    assert told.code == INTERRUPTED
    monkeypatch.undo()
    assert pronk(*workplace.arguments()).code == 0


def test_a_signal_inside_a_step_saves_a_state_that_is_of_one_step(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is that of three steps, the folder and the counter say two: going on would repeat one."""
    from pronk.train.checkpoint import load_optimizer
    from pronk.train.optimizer import FleetOptimizer

    calls = []

    def interrupted(optimizer: FleetOptimizer, *arguments: Any) -> Any:
        calls.append(optimizer)
        updated = original(optimizer, *arguments)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return updated

    original = FleetOptimizer.update
    monkeypatch.setattr(FleetOptimizer, "update", interrupted)
    assert pronk(*workplace.arguments()).code == INTERRUPTED
    (folder,) = (workplace.out / "runs" / "tuned" / "checkpoints").iterdir()
    saved = load_optimizer(folder)
    updates = {int(value) for key, value in saved.items() if key.endswith(".step")}
    assert updates == {int(folder.name.removeprefix("step-"))}


def test_runs_that_had_not_begun_are_listed_too(
    workplace: Workplace,
    pronk: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
    tiny_base: Path,
    make_tiny_base: Callable[[str, int], Path],
) -> None:
    from pronk.train.fleet import Fleet

    workplace.recipe["study"] = {"base": [str(tiny_base), str(make_tiny_base("later", 1))]}
    assert interrupted_inside(monkeypatch, workplace, pronk, Fleet, "train").code == INTERRUPTED
    assert {"base-tiny", "base-later"} <= {run["name"] for run in workplace.study()["runs"]}


def slow_weights(monkeypatch: pytest.MonkeyPatch, until: threading.Event) -> None:
    """Weights at the end of a run are written only once something has happened."""
    from pronk.train.recorder import Recorder

    original = Recorder._write_weights

    def waiting(self: Recorder, *arguments: Any) -> None:
        until.wait(20)
        original(self, *arguments)

    monkeypatch.setattr(Recorder, "_write_weights", waiting)


def test_insisting_while_the_last_weights_are_written_keeps_what_was_measured(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three signals after the evaluation: what has not been begun is left, and said to be missing."""
    from pronk.train.writer import Writer

    go_on = threading.Event()
    slow_weights(monkeypatch, go_on)
    original_wait, original_drop = Writer.wait, Writer.drop

    def interrupted(self: Writer) -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        original_wait(self)

    def dropped(self: Writer) -> None:
        original_drop(self)
        go_on.set()

    monkeypatch.setattr(Writer, "wait", interrupted)
    monkeypatch.setattr(Writer, "drop", dropped)
    workplace.recipe["study"] = {"train.learning_rate": [1e-3, 2e-3]}
    told = pronk(*workplace.arguments())
    assert told.code == INTERRUPTED
    assert "saved in" in told.err
    runs = {run["name"]: run for run in workplace.study()["runs"] if not run["baseline"]}
    (there,) = [name for name in runs if (workplace.out / "runs" / name / "adapter").is_dir()]  # the one in hand
    (left,) = runs.keys() - {there}
    assert runs[there]["metrics"]["accuracy"] >= 0
    assert (runs[left]["status"], runs[left]["message"]) == ("interrupted", "stopped before its weights were written")
    whole(workplace)


def test_a_write_that_fails_is_heard_before_everything_is_measured(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pronk.evaluate import classify
    from pronk.train.recorder import Recorder
    from pronk.train.writer import Writer

    measured, writers = [], list[Writer]()
    original = classify.score_and_answer

    def full(self: Recorder, *_: Any) -> None:
        writers.append(self._writer)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def counted(*arguments: Any, **options: Any) -> Any:
        measured.append(arguments)
        while not writers or writers[0]._failure is None:
            time.sleep(0.01)
        return original(*arguments, **options)

    monkeypatch.setattr(Recorder, "_write_weights", full)
    monkeypatch.setattr(classify, "score_and_answer", counted)
    monkeypatch.setattr("pronk.evaluate.evaluation.CPU_BATCH", 200)
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert "no space left on this disk" in told.err
    assert len(measured) == 1, "one batch was under way; the others are for nothing"


def test_what_others_add_to_a_study_that_runs_stays(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge may have read the weights while the last of the evaluation goes on."""
    from pronk import pipeline
    from pronk.runs import StudyFolder

    original = pipeline._all_written

    def judged(*arguments: Any) -> bool:
        done = original(*arguments)
        folder = StudyFolder.open(workplace.out)
        with folder.changing():
            folder.write({**folder.read(), "noted": "by somebody"})
        return done

    monkeypatch.setattr(pipeline, "_all_written", judged)
    assert pronk(*workplace.arguments()).code == 0
    study = workplace.study()
    assert study["noted"] == "by somebody"
    assert all("metrics" in run for run in study["runs"])
