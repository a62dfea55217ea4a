"""Will it fit? For each fleet of a study: how to train it on a GPU of some size, and what else would do.

On a GPU a few seconds of measurement tell (doctor/calibration.py); elsewhere, or where everything fits many times
over, the base's shapes do. What is printed is made in doctor/planned.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pronk.doctor.planned import Fit, refusal
from pronk.doctor.ready import Ready
from pronk.errors import BaseModelError, OptionError, PronkError, RecipeError, RefusedError
from pronk.model.memory.choice import BUDGETS, Setting, Work, Workload, best, settings, smallest
from pronk.model.memory.costs import Costs, Load
from pronk.model.memory.sizes import SOLD, available, begin_peak, usable
from pronk.recipe import Quantize, Recipe

if TYPE_CHECKING:
    import torch

    from pronk.model.memory.shapes import Architecture
    from pronk.train.fleet import RunPlan

# What is tried where the recipe leaves quantization open: the ways that store fewer bits and compute alike.
KINDS: tuple[Quantize, ...] = ("none", "int8", "nf4")
# A measured prediction may be off by 5% (law 10): so much of the memory is left alone, and only what is predicted to
# need so much more than there is is refused.
HEADROOM = 0.05
# Where so many times the memory computed from shapes is there, nothing is measured before training.
PLENTY = 3
SHORTER = (1536, 1024, 768, 512, 384, 256, 128)  # of train.max_length, tried when nothing fits


@dataclass(frozen=True)
class Subject:
    """A fleet as the planner sees it. one: None for a base that is not built like a Llama."""

    ready: Ready
    recipe: Recipe
    plans: Sequence[RunPlan]
    one: Architecture | None
    dtype: torch.dtype
    records: bool
    work: Work


def plan_fleets(ready: Sequence[Ready], recipe: Recipe, gpu: int | None, tell: Callable[[str], None]) -> list[Fit]:
    """All fleets of a study on this GPU, or on one of so many bytes; every quantization that the recipe allows."""
    fits = []
    for one in ready:
        subject = _subject(one, recipe, one.device.type == "cuda" or gpu is not None)
        limit = _limit(one.device, gpu)
        costs: dict[str, Costs]
        kinds = KINDS if _open(recipe) else (one.fleet.quantize,)
        if one.device.type == "cuda":
            costs = {kind: found for kind in kinds if (found := _measured(subject, kind, limit, tell)) is not None}
        else:
            costs = {kind: _from_shapes(subject, kind) for kind in kinds}
        fits.append(_fit(subject, costs, limit))
    return fits


def plan_run(ready: Ready, recipe: Recipe, gpu: int | None = None) -> Fit | None:
    """How `pronk run` trains a fleet on this GPU, or in so many bytes of it; None on a CPU, and where nothing can be
    predicted. If nothing fits by the prediction, what takes the least, as long as the prediction may be that far off;
    beyond that, RefusedError.
    """
    if ready.device.type != "cuda":
        return None
    subject = _subject(ready, recipe, gpu=True)
    limit, kind = _limit(ready.device, gpu), ready.fleet.quantize
    start = None if subject.one is None else _from_shapes(subject, kind)
    if start is not None:
        fit = _fit(subject, {kind: start}, limit // PLENTY)
        if fit.chosen is not None and fit.chosen.recompute == _least_recompute(recipe, fit.chosen.layers):
            return replace(_fit(subject, {kind: start}, limit), memory=_memory(ready.device, gpu))
    costs = _measured(subject, kind, limit, lambda _: None)
    if costs is None:
        return None
    fit = replace(_fit(subject, {kind: costs}, limit), memory=_memory(ready.device, gpu))
    if fit.chosen is not None:
        return fit
    least = smallest(fit.settings)
    if fit.calibrated and least.peak > (1 + HEADROOM) * fit.memory:
        raise RefusedError(refusal(fit))
    return replace(fit, chosen=least, tight=True)


def _limit(device: Any, gpu: int | None) -> int:
    """Bytes that a prediction must stay below. One from shapes alone says itself how far it may be off."""
    if device.type != "cuda":
        assert gpu is not None, "here_or_named comes first"
        return usable(gpu)
    return int((1 - HEADROOM) * _memory(device, gpu))


def _memory(device: Any, gpu: int | None) -> int:
    return available(device) if gpu is None else usable(gpu)


def here_or_named(recipe: Recipe, gpu: int | None) -> bool:
    """Whether the plan is for a GPU elsewhere, as there is none here.

    Raises OptionError where there is none and no size is named.
    """
    import torch

    if torch.cuda.is_available() and recipe.train.device != "cpu":
        return False
    if gpu is None and torch.cuda.is_available():
        raise OptionError("plan: train.device is cpu, which needs no plan; use --set train.device=auto or --gpu 24GB")
    if gpu is None:
        raise OptionError("plan: there is no GPU here; name the size of the one that you mean, such as --gpu 24GB")
    return True


def _open(recipe: Recipe) -> bool:
    """Whether the recipe leaves it to the planner how the base is kept."""
    return "quantize" not in recipe.model_fields_set and "quantize" not in recipe.study and not recipe.full


def _least_recompute(recipe: Recipe, layers: int) -> int:
    wanted = recipe.train.recompute
    return {"auto": 0, "none": 0, "all": layers}[wanted] if isinstance(wanted, str) else wanted


def _subject(ready: Ready, recipe: Recipe, gpu: bool) -> Subject:
    import torch

    from pronk.doctor.workload import work_of
    from pronk.model.attention import kernels_for
    from pronk.model.load import outline, resolve_dtype
    from pronk.model.memory.shapes import architecture
    from pronk.model.step import GRAPH_TOKENS, records
    from pronk.train.session import run_plan

    device = ready.device
    # a GPU that is not here has bf16, unless the recipe says otherwise
    far = gpu and device.type != "cuda" and recipe.train.dtype == "auto"
    dtype = torch.bfloat16 if far else resolve_dtype(recipe.train.dtype, device)
    wanted = recipe.train.recompute
    model = outline(ready.base, dtype)
    try:
        one = architecture(model)
    except BaseModelError:
        if device.type != "cuda":
            raise
        one = None
    if one is not None and isinstance(wanted, int) and wanted > one.layers:
        raise RecipeError(f"train.recompute: {wanted}, but this base has {one.layers} layers; write at most that many")
    weights = sum(weight.numel() for weight in model.parameters())
    there = device if device.type == "cuda" or not gpu else torch.device("cuda")
    recorded = records(weights, kernels_for(model.config, there, dtype))
    plans = [run_plan(run, ready.examples) for run in ready.fleet.trained]
    models = 1 if ready.fleet.full else 1 + sum(len(run.runs) for run in ready.fleet.trained)
    largest = GRAPH_TOKENS if recorded else BUDGETS[-1]  # what is longer is not recorded
    work = work_of(plans, ready.examples, recipe, models, largest)
    return Subject(ready, recipe, plans, one, dtype, recorded, work)


def _from_shapes(subject: Subject, kind: Quantize) -> Costs:
    from pronk.model.memory.shapes import Trainee, analytic

    assert subject.one is not None
    trainees = [Trainee(plan.shape, plan.optimizer, plan.dropout > 0) for plan in subject.plans]
    double, size = subject.ready.fleet.double_quantization, subject.dtype.itemsize
    costs = analytic(subject.one, trainees, kind, double, size, subject.ready.fleet.fp8_products)
    return replace(_with_snapshots(costs, subject), recorded=subject.records)


def _with_snapshots(costs: Costs, subject: Subject) -> Costs:
    """Earlier points of a trained run are evaluated as adapters of their own."""
    runs = [len(run.runs) for run in subject.ready.fleet.trained]
    return replace(costs, adapters=costs.adapters * sum(runs) / len(runs))


def _measured(subject: Subject, kind: Quantize, memory: int, tell: Callable[[str], None]) -> Costs | None:
    """What a few seconds on this GPU say; None, with the reason told, where they say nothing."""
    import torch

    from pronk.doctor.calibration import Bench, calibration_tokens, measure, reading_tokens
    from pronk.model.load import load_config
    from pronk.model.memory.fit import fitted
    from pronk.model.quantize import check_quantization

    fleet, device = subject.ready.fleet, subject.ready.device
    if subject.one is None:
        return None
    start = _from_shapes(subject, kind)
    try:
        check_quantization(kind, device, fleet.fp8_products)
        bench = Bench(
            load_config(subject.ready.base), kind, fleet.double_quantization, subject.dtype, device, subject.records,
            fleet.fp8_products,
        )  # fmt: skip
        loads = [load for workload in subject.work.trainings for load in workload.largest]
        largest = max(loads, key=lambda load: load.tokens)
        reading = reading_tokens(start, [tokens for tokens, _ in subject.work.evaluations], memory)
        found = measure(bench, subject.plans, calibration_tokens(start, largest, memory), reading)
    except (RecipeError, torch.OutOfMemoryError):  # targets that two layers do not have; or too little for even those
        return start
    except PronkError as error:
        tell(f"{kind} is left out: {error}")
        return None
    finally:
        begin_peak(device)
    return _with_snapshots(fitted(start, found, subject.one.layers), subject)


def _fit(subject: Subject, costs: dict[str, Costs], limit: int) -> Fit:
    wanted = subject.recipe.train.recompute
    found = settings(costs, subject.work, wanted, limit)
    chosen = best(found, limit)
    fit = Fit(
        base=subject.ready.fleet.base,
        quantize=subject.ready.fleet.quantize,
        runs=sum(len(run.runs) for run in subject.ready.fleet.trained),
        limit=limit,
        memory=limit,
        chosen=chosen,
        settings=tuple(found),
        calibrated=all(one.calibrated for one in costs.values()),
        device=_device_name(subject.ready.device),
        nearest=(),
    )
    return fit if chosen else replace(fit, nearest=tuple(_nearest(subject, costs, found, limit)))


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _nearest(subject: Subject, costs: dict[str, Costs], found: Sequence[Setting], limit: int) -> list[tuple[str, int]]:
    """What to change so that it fits, and the peak then: what costs least first."""
    changes: list[tuple[str, int]] = []
    recompute, full = subject.recipe.train.recompute, subject.ready.fleet.full
    if recompute not in ("auto", "all"):
        changes += _first_fit("train.recompute: auto", costs, subject.work, "auto", limit)
    smaller: tuple[Quantize, ...] = ("nf4",) if subject.ready.fleet.fp8_products else ("int8", "nf4")
    others = [] if full else [kind for kind in smaller if kind not in costs]
    everything = dict(costs)
    for kind in others:
        everything[kind] = _from_shapes(subject, kind)
        changes += _first_fit(f"quantize: {kind}", {kind: everything[kind]}, subject.work, recompute, limit)
        if changes:
            break
    changes += _shorter(subject, costs, recompute, limit)
    if full:
        changes += [("LoRA in place of full: true", 0)]
    least = min(one.peak for one in found)
    changes += [(f"a GPU of {size} GB", least) for size in SOLD if usable(size * 10**9) >= least][:1]
    return changes


def _first_fit(
    what: str, costs: dict[str, Costs], work: Work, recompute: str | int, limit: int
) -> list[tuple[str, int]]:
    chosen = best(settings(costs, work, recompute, limit), limit)
    return [(what, chosen.peak)] if chosen else []


def _shorter(subject: Subject, costs: dict[str, Costs], recompute: str | int, limit: int) -> list[tuple[str, int]]:
    """The largest train.max_length that would fit."""
    longest = max(load.tokens for load in subject.work.trainings[0].largest)
    share = max(load.targets / load.tokens for load in subject.work.trainings[0].largest)
    for length in SHORTER:
        if length < longest:
            load = Load(length, int(length * share) + 1, length if subject.work.trainings[0].largest[0].seen else 0)
            work = replace(subject.work, trainings=(Workload(length, (load, load), 1, length),))
            if found := _first_fit(f"train.max_length: {length}", costs, work, recompute, limit):
                return found
    return []
