"""What a fleet has to do, in numbers: its micro-batches under each token budget, its evaluation batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from pronk.evaluate.answers import answer_rooms
from pronk.evaluate.batches import prompt_batches
from pronk.evaluate.choice import choice_example, choice_tokens
from pronk.evaluate.classify import EXTRA_TOKENS
from pronk.evaluate.evaluation import LARGEST_BATCH
from pronk.model.generate import columns_behind
from pronk.model.memory.choice import BUDGETS, Work, Workload
from pronk.model.memory.costs import EvaluationLoad, Load
from pronk.model.rounding import Shape, rounded_shape
from pronk.recipe import ANSWERING, Recipe
from pronk.tokens.examples import Examples
from pronk.tokens.pack import BASE_SLOT, TOKEN_BUDGET, Member, MicroBatch, pack, pack_prompts
from pronk.tokens.prompt import Example
from pronk.train.fleet import RunPlan
from pronk.train.order import batch_indices

# Rounds that are laid out to know all of them: the longest ones for the peak, some at even distances for the time.
LONGEST_ROUNDS, EVEN_ROUNDS = 12, 12
COUNTED_ROUNDS = 2000  # a longer study repeats itself
SMALLEST_EVALUATION = 2048
# Examples that are packed to know their batches, which takes a tenth of a second; of more, batches are taken for full.
PACKED = 4000


def work_of(
    plans: Sequence[RunPlan], examples: Examples, recipe: Recipe, models: int, largest: int = BUDGETS[-1]
) -> Work:
    """The work of a fleet. models: how many are evaluated together, the base among them. largest: token budget."""
    rounds = max(plan.steps for plan in plans)
    longest = longest_example(plans)
    budgets = [budget for budget in BUDGETS if longest <= budget <= largest]
    if longest > BUDGETS[0] and longest not in budgets:
        budgets = [longest, *budgets]
    return Work(
        trainings=tuple(trainings(plans, budgets)),
        evaluations=tuple(_evaluations(examples, recipe, models)),
        validations=tuple(_validations(plans, examples, recipe)),
        rounds=rounds,
        example_tokens=float(sum(plan.steps * plan.batch_size * _mean_length(plan) for plan in plans)),
    )


def longest_example(plans: Sequence[RunPlan]) -> int:
    """Tokens of the longest example as it lies in a micro-batch: its last id is only a target."""
    return max(len(example.ids) - 1 for plan in plans for example in plan.examples)


def load_of(batch: MicroBatch) -> Load:
    """A micro-batch in numbers."""
    lengths_S, behind_S = _lengths(batch)
    seen = int((lengths_S + behind_S).sum()) if behind_S.any() else 0
    pairs = int((lengths_S * (lengths_S + 2 * behind_S)).sum() // 2)  # a token sees what is before it
    return Load(len(batch.ids_T), len(batch.rows_N), seen, pairs)


def shape_of(batch: MicroBatch) -> Shape:
    """The shape in which a micro-batch would be recorded."""
    (lengths_S, behind_S), load = _lengths(batch), load_of(batch)
    longest, longest_seen = int(lengths_S.max()), int((lengths_S + behind_S).max())
    return rounded_shape(load.tokens, load.targets, len(lengths_S), longest, load.seen, longest_seen)


def _lengths(batch: MicroBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each segment its length, and that of the beginning that it looks back at."""
    lengths_S, parents_S = np.array(batch.lengths_S), np.array(batch.parents_S)
    return lengths_S, np.where(parents_S < 0, 0, lengths_S[parents_S])


def round_members(plans: Sequence[RunPlan], step: int) -> Iterator[Member]:
    """The examples of a round, each in the slot of its run."""
    for slot, plan in enumerate(plans):
        if step < plan.steps:
            for index in batch_indices(len(plan.examples), plan.batch_size, plan.seed, step):
                yield Member(plan.examples[index], slot, key=index if plan.dropout else None)


def _mean_length(plan: RunPlan) -> float:
    return sum(len(example.ids) for example in plan.examples) / len(plan.examples)


def trainings(plans: Sequence[RunPlan], budgets: Sequence[int]) -> Iterator[Workload]:
    """A workload for each token budget, by rising size; none for those that lay the rounds out as a smaller one."""
    rounds = max(plan.steps for plan in plans)
    lengths = [np.array([len(example.ids) - 1 for example in plan.examples]) for plan in plans]

    def size(step: int) -> int:
        running = [(plan, sizes) for plan, sizes in zip(plans, lengths, strict=True) if step < plan.steps]
        return sum(int(sizes[batch_indices(len(sizes), p.batch_size, p.seed, step)].sum()) for p, sizes in running)

    counted = range(min(rounds, COUNTED_ROUNDS))
    longest = sorted(counted, key=size)[-LONGEST_ROUNDS:]
    even = [rounds * number // EVEN_ROUNDS for number in range(EVEN_ROUNDS)] if rounds > EVEN_ROUNDS else [*counted]
    before: list[Load] = []
    for budget in budgets:
        packed = {step: pack([*round_members(plans, step)], budget) for step in sorted({*longest, *even})}
        laid = {step: [load_of(batch) for batch in batches] for step, batches in packed.items()}
        every = [load for loads in laid.values() for load in loads]
        if every == before:
            return
        before, share = every, rounds / len(even)
        some = [load for step in even for load in laid[step]]
        shapes = [shape_of(batch) for batches in packed.values() for batch in batches] if len(laid) == rounds else []
        yield Workload(
            budget, _extremes(every), share * len(some), share * sum(load.tokens for load in some),
            share * sum(load.pairs for load in some), tuple(zip(shapes, every, strict=False)),
        )  # fmt: skip


def _extremes(loads: Sequence[Load]) -> tuple[Load, ...]:
    """The micro-batches that may be the peak: with most tokens, targets, keys looked back at; and the second most
    tokens, which another recording may hold."""
    by_tokens = sorted(set(loads), key=lambda load: load.tokens, reverse=True)
    chosen = [*by_tokens[:2], max(loads, key=lambda load: load.targets), max(loads, key=lambda load: load.seen)]
    return tuple(dict.fromkeys(chosen))


def _validations(plans: Sequence[RunPlan], examples: Examples, recipe: Recipe) -> Iterator[tuple[int, EvaluationLoad]]:
    """Loads of a validation batch, which all runs share, for the token budgets of training up to the usual one."""
    rows = examples.validation(recipe.train.max_length, recipe.train.train_on_prompt)
    if rows:
        for budget in BUDGETS:
            if budget <= TOKEN_BUDGET["cuda"]:
                yield budget, only_read(rows, len(plans), budget)


def _evaluations(examples: Examples, recipe: Recipe, models: int) -> Iterator[tuple[int, tuple[EvaluationLoad, ...]]]:
    """Loads of the largest evaluation batches, for token budgets that double twice each time."""
    if not examples.test:
        return
    largest_of = _largest_batch(examples, recipe, models)
    budget, before = SMALLEST_EVALUATION, None
    while budget <= LARGEST_BATCH:
        load = largest_of(budget)
        if load == before:
            return
        yield budget, load
        budget, before = 4 * budget, load
    if budget < 4 * LARGEST_BATCH:
        yield LARGEST_BATCH, largest_of(LARGEST_BATCH)


def _largest_batch(examples: Examples, recipe: Recipe, models: int) -> Callable[[int], tuple[EvaluationLoad, ...]]:
    """A function from a token budget to the largest batch of each evaluation."""
    kinds = recipe.evaluations
    slots = [BASE_SLOT, *range(models - 1)]
    answers = examples.label_ids() if "classify" in kinds else []
    rooms = [max(len(ids) for ids in answers) + EXTRA_TOKENS] if answers else []
    if {*ANSWERING} & {*kinds}:
        truths = [conversation.answer for conversation in examples.splits.test]
        sizes = [len(ids) for ids in examples.prompt.answer_ids(truths)]
        prompts = [example.prompt_ids.tolist() for example in examples.test]
        rooms.append(max(answer_rooms(prompts, sizes, examples.context, recipe.max_new_tokens)))

    @cache
    def largest_of(budget: int) -> tuple[EvaluationLoad, ...]:
        loads = [answered(examples.test, slots, budget, room, answers) for room in rooms]
        if "likelihood" in kinds and not answers:
            loads.append(only_read(examples.test, models, budget))
        if "choice" in kinds:
            loads.append(chosen_from(examples, models, budget))
        if "forgetting" in kinds:
            loads.append(only_read([one for _, one in examples.general()], models, budget))
        return tuple(loads)

    return largest_of


def answered(
    items: Sequence[Example], slots: Sequence[int], budget: int, room: int, answers: Sequence[Sequence[int]]
) -> EvaluationLoad:
    """The most that any batch of prompts takes in each respect; scoring reads all answers behind each."""
    prompts = [example.prompt_ids.tolist() for example in items]
    behind, scored = columns_behind(room, answers), sum(len(ids) - 1 for ids in answers)
    batches = prompt_batches(prompts, slots, budget, behind)
    asked = [sum(len(prompts[item]) for item, _ in batch) for batch in batches]
    # packing all of them would take too long: the first, that with most rows and that with most tokens
    places = {0, max(range(len(batches)), key=lambda k: len(batches[k])), asked.index(max(asked))}
    tokens = max(len(_packed(prompts, batches[place]).ids_T) for place in places)
    rows = max(map(len, batches))
    cells = max(len(batch) * (max(len(prompts[item]) for item, _ in batch) + behind) for batch in batches)
    return EvaluationLoad(max(tokens, rows * scored), rows * (scored + len(answers)), rows, cells)


def _packed(prompts: Sequence[Sequence[int]], batch: Sequence[tuple[int, int]]) -> MicroBatch:
    return pack_prompts([prompts[item] for item, _ in batch], [slot for _, slot in batch])


def chosen_from(examples: Examples, models: int, budget: int) -> EvaluationLoad:
    """Multiple choice under `models` at once, each question packed with its choices."""
    prompts, ids = [example.prompt_ids.tolist() for example in examples.test], examples.choice_ids()
    sizes = [choice_tokens(prompt, choices) for prompt, choices in zip(prompts, ids, strict=True)]
    if models * sum(map(len, ids)) <= PACKED:
        members = [
            Member(choice_example(prompts[item], one), slot, family=item)
            for item in sorted(range(len(prompts)), key=lambda item: -sizes[item])
            for slot in range(models)
            for one in ids[item]
        ]
        loads = [load_of(batch) for batch in pack(members, budget)]
        return EvaluationLoad(max(load.tokens for load in loads), max(load.targets for load in loads))
    tokens = min(max(budget, *sizes), models * sum(sizes))
    share = sum(len(one) for choices in ids for one in choices) / sum(sizes)
    return EvaluationLoad(tokens, int(tokens * share))


def only_read(items: Sequence[Example], models: int, budget: int) -> EvaluationLoad:
    """Answers that are only read, by `models` at once."""
    if models * len(items) <= PACKED:
        loads = [load_of(b) for b in pack([Member(one, slot) for slot in range(models) for one in items], budget)]
        return EvaluationLoad(max(load.tokens for load in loads), max(load.targets for load in loads))
    longest = max(len(example.ids) - 1 for example in items)
    tokens = min(max(budget, longest), models * sum(len(example.ids) - 1 for example in items))
    learned = sum(int(example.target.sum()) for example in items) / sum(len(example.ids) for example in items)
    return EvaluationLoad(tokens, int(tokens * learned))
