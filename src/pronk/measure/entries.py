"""The runs of a fleet as study.json lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pronk.doctor.ready import Ready
from pronk.runs import StudyFolder
from pronk.study import Fleet, Study

if TYPE_CHECKING:
    from pronk.train.session import Outcome


def entries(
    ready: Ready, study: Study, outcomes: Sequence[Outcome], bases: Sequence[str], peak: int
) -> list[dict[str, Any]]:
    """The runs of a fleet as study.json lists them. bases: the rows of the untouched base that were measured."""
    fleet = ready.fleet
    kept = {"base": fleet.base, "quantize": fleet.quantize}
    runs = {run.name: run for run in study.runs}
    group = {run.name: one for one in fleet.trained for run in one.runs}
    found = study.baselines(fleet, bases)
    for outcome in outcomes:
        seconds, tokens = outcome.cost["train_seconds"], outcome.cost["train_tokens"]
        found.append(
            {
                "name": outcome.name,
                **kept,
                "baseline": False,
                "settings": runs[outcome.name].settings,
                "status": outcome.status,
                "message": outcome.message,
                "trainable_parameters": outcome.trainable_parameters,
                **outcome.cost,
                "best_step": outcome.best_step,
                "best_validation_loss": outcome.best_loss,
                "adapter_step": outcome.adapter_step,
                "tokens_per_second": tokens / seconds if seconds else None,
                "peak_memory_bytes": peak,
                "predicted_peak_memory_bytes": ready.predicted_peak,
                "shared_with": [run.name for run in group[outcome.name].runs if run.name != outcome.name],
            }
        )
    return found


def not_trained(fleet: Fleet, why: str) -> list[dict[str, Any]]:
    """The runs of a fleet that failed as a whole, or (no why) was never begun, as study.json lists them."""
    status = {"status": "failed", "message": why} if why else {"status": "interrupted", "message": "not begun"}
    kept = {"base": fleet.base, "quantize": fleet.quantize, "baseline": False}
    return [{"name": run.name, **status, **kept, "settings": run.settings} for run in fleet.runs]


def as_on_disk(outcome: Outcome, folder: StudyFolder) -> Outcome:
    """What became of a run, if its weights were not written after all."""
    if outcome.adapter is None or folder.run(outcome.name).weights is not None:
        return outcome
    return replace(outcome, status="interrupted", message="stopped before its weights were written")
