"""Memory that runs out is one message, and what was trained before stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from command_line import Told, Workplace

from pronk.evaluate import classify
from pronk.train.fleet import Fleet


def runs_out(error: Exception, after: int = 0) -> Callable[..., Any]:
    """A function that raises the error, the first few calls apart."""
    calls = []

    def raising(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return original(*args, **kwargs)

    return raising


def plant(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, raising: Callable[..., Any]) -> None:
    original = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *args, **kwargs: raising(original, *args, **kwargs))


GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()], ids=["gpu", "cpu", "python"])
def test_at_the_first_step_nothing_is_left(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plant(monkeypatch, Fleet, "play_round", runs_out(error))
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert "training: " in told.err
    assert "memory" in told.err
    assert "quantize: nf4" in told.err
    assert "Traceback" not in told.err
    assert not workplace.out.exists()


def test_after_a_checkpoint_it_is_kept(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.recipe["train"]["save_every"] = 2
    plant(monkeypatch, Fleet, "play_round", runs_out(GPU, after=3))
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert (workplace.out / "runs/tuned/checkpoints/step-2/adapter_model.safetensors").is_file()


def test_in_the_evaluation_what_was_trained_is_kept(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, classify, "score_and_answer", runs_out(GPU))
    told = pronk(*workplace.arguments())
    assert "evaluating: " in told.err
    assert (workplace.out / "runs/tuned/adapter/adapter_model.safetensors").is_file()
    (run,) = workplace.study()["runs"]
    assert (run["status"], run["metrics"]) == ("finished", {})
    assert (workplace.out / "report.html").is_file()


def test_in_a_later_fleet_it_is_the_reason_of_that_fleet(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trained before stays; what was not begun is told apart from what failed."""
    workplace.recipe["study"] = {"quantize": ["nf4", "int8", "none"]}
    workplace.recipe["train"]["max_steps"] = 2
    plant(monkeypatch, Fleet, "play_round", runs_out(GPU, after=2))
    told = pronk(*workplace.arguments())
    assert "training: " in told.err
    runs = {run["name"]: run for run in workplace.study()["runs"] if not run["baseline"]}
    assert [runs[f"quantize-{kind}"]["status"] for kind in ("nf4", "int8", "none")] == [
        "finished", "failed", "interrupted",
    ]  # fmt: skip
    assert "memory" in runs["quantize-int8"]["message"]
    assert runs["quantize-none"]["message"] == "not begun"
    assert told.code == 1
    assert "2 of 3 runs were not trained; the report says why: quantize-int8, quantize-none" in told.err


def test_it_is_told_of_the_last_fleet_too(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.recipe["study"] = {"quantize": ["nf4", "int8"]}
    workplace.recipe["train"]["max_steps"] = 2
    plant(monkeypatch, Fleet, "play_round", runs_out(GPU, after=2))
    told = pronk(*workplace.arguments())
    assert told.code == 1
    assert "1 of 2 runs were not trained; the report says why: quantize-int8" in told.err
    assert (workplace.out / "runs/quantize-nf4/adapter/adapter_model.safetensors").is_file()


def test_where_the_base_is_measured_before_it_is_trained(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    del workplace.recipe["adapter"]
    workplace.recipe["full"] = True
    plant(monkeypatch, classify, "score_and_answer", runs_out(GPU))
    told = pronk(*workplace.arguments())
    assert told.code == 2
    assert "evaluating: " in told.err
    assert "Traceback" not in told.err
    assert not workplace.out.exists()


def test_another_error_is_not_taken_for_it(
    workplace: Workplace, pronk: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, Fleet, "play_round", runs_out(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        pronk(*workplace.arguments())
