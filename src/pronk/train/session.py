"""One fleet from plan to adapters: the study's trained runs, their examples, their folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from torch import Tensor

from pronk.data.general import Passage, general_text
from pronk.data.split import Splits
from pronk.model.adapter import AdapterShape
from pronk.model.hub import Base
from pronk.model.load import context_length, load_config, load_tokenizer
from pronk.recipe import Recipe
from pronk.runs import RunFolder, StudyFolder
from pronk.study import TrainedRun
from pronk.tokens.examples import Examples, make_examples
from pronk.tokens.prompt import NO_ROOM
from pronk.train.checkpoint import AdapterFiles, ModelFiles, TokenizerFiles, WeightFiles
from pronk.train.fleet import Fleet, RunPlan, Step
from pronk.train.order import steps_per_epoch
from pronk.train.progress import work
from pronk.train.recorder import Ending, Journal, Recorder, RowLosses
from pronk.train.start import read_start, start_weights
from pronk.train.stopping import early, never
from pronk.train.writer import Writer

Validate = Callable[[Any, Sequence[int]], Mapping[int, RowLosses]]


@dataclass(frozen=True, slots=True)
class Watchers:
    """Who is told while a fleet trains: validate gets the fleet's adapter and slots, and gives each slot's
    validation row by row; log gets a run's name and each of its records; mirror the folders that changed."""

    validate: Validate | None
    log: Callable[[str, Mapping[str, Any]], None] = lambda *_: None
    mirror: Callable[[Sequence[RunFolder]], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run of the study. adapter: its weights by name, None if the run did not get there;
    shape: None where they are those of the whole model.

    best_step: where validation loss was lowest, best_loss; adapter_step: the step that adapter is from.
    """

    name: str
    shape: AdapterShape | None
    status: str  # finished, stopped_early, failed, interrupted
    message: str
    adapter: dict[str, Tensor] | None
    trainable_parameters: int
    cost: dict[str, float]  # steps, train_tokens, train_seconds
    best_step: int | None = None
    best_loss: float | None = None
    adapter_step: int | None = None


def load_examples(
    base: Base, recipes: Sequence[Recipe], splits: Splits, labels: tuple[str, ...], leave_out: bool = False,
    passages: Sequence[Passage] | None = None,
) -> Examples:  # fmt: skip
    """The splits as ids and masks of a base, for recipes that differ in their training only.

    leave_out: do without rows whose prompt leaves no room for the answer, as where the recipes allow that.
    passages: the general text, if it is read already.
    """
    config = load_config(base)
    if passages is None:
        passages = passages_of(recipes[0], splits)
    lengths = dict.fromkeys(recipe.train.max_length for recipe in recipes)
    return make_examples(
        recipes[0].prompt,
        load_tokenizer(base),
        context_length(config),
        config.vocab_size,
        splits,
        labels,
        list(lengths),
        leave_out or NO_ROOM in recipes[0].allow,
        passages,
        recipes[0].exact,
    )


def passages_of(recipe: Recipe, splits: Splits, tell: Callable[[str], None] = lambda _: None) -> list[Passage]:
    """The general text of a recipe that measures forgetting; nothing for others."""
    if "forgetting" not in recipe.evaluations:
        return []
    return general_text(recipe.forgetting.text, [*splits.train, *splits.validation], tell)


def train_fleet(
    model: Any, base: str, trained: Sequence[TrainedRun], examples: Examples, folder: StudyFolder,
    token_budget: int, watchers: Watchers, console: Console, check: Callable[[], None], writer: Writer,
    recompute: int | str = "none",
) -> tuple[list[Outcome], bool]:  # fmt: skip
    """Train all runs of a fleet; also whether it was interrupted, in which case the state is saved.

    check is called between rounds and raises KeyboardInterrupt if the user wants to stop. writer: has weights to write
    yet when this is over. recompute: how many layers, or none or all.
    """
    fleet = Fleet(model, [run_plan(run, examples) for run in trained], token_budget, recompute)
    tokenizer = TokenizerFiles(examples.prompt.tokenizer)
    journals = [_journal(run, weight_files(model, base, run.recipe), examples, folder, tokenizer) for run in trained]
    interrupted = False
    with work(console, "training", sum(run.plan.steps for run in fleet.runs)) as bar:
        validate = partial(watchers.validate, fleet.adapter) if watchers.validate else None
        recorder = Recorder(fleet, journals, validate, bar, watchers.log, watchers.mirror, writer)

        def after_round(steps: list[Step]) -> None:
            recorder.after_round(steps)
            check()

        try:
            fleet.train(after_round)
        except KeyboardInterrupt:
            interrupted = True
            recorder.save_all()
    outcomes = _outcomes(fleet, trained, journals, interrupted)
    fleet.adapter.detach()
    return outcomes, interrupted


def run_plan(trained: TrainedRun, examples: Examples) -> RunPlan:
    """The plain values of a run that the fleet needs."""
    train, start = trained.recipe.train, trained.recipe.adapter.from_
    rows = examples.train(train.max_length, train.train_on_prompt)
    return RunPlan(
        name=trained.name,
        examples=rows,
        shape=adapter_shape(trained.recipe),
        start=None if start is None else start_weights(start),
        steps=total_steps(trained.recipe, len(rows)),
        batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        optimizer=train.optimizer,
        schedule=train.schedule,
        warmup_steps=train.warmup_steps,
        lora_plus_ratio=train.lora_plus_ratio,
        weight_decay=train.weight_decay,
        clip=train.clip,
        dropout=0.0 if trained.recipe.full else trained.recipe.adapter.dropout,
        seed=train.seed,
    )


def weight_files(model: Any, base: str, recipe: Recipe) -> WeightFiles:
    """How a run's weights are written: an adapter, or the whole model."""
    shape = adapter_shape(recipe)
    return ModelFiles(model) if shape is None else AdapterFiles(shape, base, recipe.adapter.dropout)


def adapter_shape(recipe: Recipe) -> AdapterShape | None:
    """The adapter that a recipe asks for: its own, or that of the adapter to go on with; None for full: true."""
    wanted = recipe.adapter
    if recipe.full:
        return None
    if wanted.from_ is not None:
        return read_start(wanted.from_).shape
    targets = wanted.targets if isinstance(wanted.targets, str) else tuple(wanted.targets)
    return AdapterShape(wanted.rank, wanted.alpha, targets, wanted.use_rslora)


def total_steps(recipe: Recipe, examples: int) -> int:
    """Optimizer steps of a run."""
    return recipe.train.max_steps or recipe.train.epochs * steps_per_epoch(examples, recipe.train.batch_size)


def _journal(
    trained: TrainedRun, files: WeightFiles, examples: Examples, folder: StudyFolder, tokenizer: TokenizerFiles
) -> Journal:
    train = trained.recipe.train
    rows = len(examples.train(train.max_length))
    endings = [Ending(total_steps(run.recipe, rows), folder.run(run.name)) for run in trained.runs]
    return Journal(
        endings, files, train.evaluate_every, train.save_every, tokenizer.write,
        rule=early(train.patience, train.min_delta) if train.stop == "early" else never(),
        restore_best=train.stop == "early", keep=train.keep,
    )  # fmt: skip


def _outcomes(
    fleet: Fleet, trained: Sequence[TrainedRun], journals: Sequence[Journal], interrupted: bool
) -> list[Outcome]:
    outcomes = []
    for slot, (run, journal) in enumerate(zip(trained, journals, strict=True)):
        state, size = fleet.runs[slot], fleet.adapter.size(slot)
        for member, end in zip(run.runs, journal.endings, strict=True):
            status = _status(end, state.error, interrupted)
            cost = end.cost or journal.cost(state.step)
            best_loss = None if end.watch.best_step is None else end.watch.best_loss
            outcomes.append(
                Outcome(member.name, state.plan.shape, status, "" if end.done else state.error, end.adapter, size, cost,
                        end.watch.best_step, best_loss, end.adapter_step)
            )  # fmt: skip
    return outcomes


def _status(end: Ending, error: str, interrupted: bool) -> str:
    if end.done:
        return "stopped_early" if end.cost["steps"] < end.step else "finished"
    return "interrupted" if interrupted and not error else "failed"
