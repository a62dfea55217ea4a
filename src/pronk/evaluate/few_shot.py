"""The untouched base with examples in its prompt, all numbers of examples together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pronk.data.conversation import Conversation
from pronk.data.words import counted
from pronk.evaluate.classify import EXTRA_TOKENS
from pronk.evaluate.evaluation import Evaluated, Evaluation, tokens_to_read
from pronk.model.memory.guard import memory_guard
from pronk.recipe import Recipe
from pronk.tokens.examples import Examples
from pronk.tokens.prompt import Example
from pronk.tokens.shots import ShotPrompts, shot_prompts


def fitting(
    examples: Examples, shots: Sequence[Conversation], counts: Sequence[int], evaluations: Sequence[str],
    tell: Callable[[str], None],
) -> dict[int, list[Example]]:  # fmt: skip
    """The test rows with each number of examples before them, where all of them fit; the others are told.

    A number for which some rows do not fit is left out: on the rest alone it could not be compared.
    """
    room = max(map(len, examples.label_ids())) + EXTRA_TOKENS if "classify" in evaluations else 0
    if "choice" in evaluations:
        room = max((len(ids) for choices in examples.choice_ids() for ids in choices), default=0)
    made = {count: shot_prompts(examples, shots[:count], room) for count in counts}
    for one in made.values():
        if one.too_long:
            tell(does_not_fit(one))
    return {count: one.examples for count, one in made.items() if not one.too_long}


def does_not_fit(prompts: ShotPrompts) -> str:
    """Why a number of examples is left out."""
    return (
        f"{counted(prompts.shots, 'example')} in the prompt: left out, as {counted(prompts.too_long, 'row')} of "
        f"{len(prompts.examples):,} would take up to {prompts.longest:,} tokens, and the base reads {prompts.context:,}"
    )


def tokens_of(prompts: Mapping[int, list[Example]], evaluations: Sequence[str]) -> int:
    """How many tokens `measure_shots` reads, as its progress counts them."""
    return sum(tokens_to_read(rows, evaluations) for rows in prompts.values())


def measure_shots(
    model: Any, examples: Examples, prompts: Mapping[int, list[Example]], recipe: Recipe,
    progress: Callable[[int], None], token_budget: int | None = None,
) -> dict[int, Evaluated]:  # fmt: skip
    """What the base comes to on the test rows, by the number of examples in its prompt.

    prompts: see `fitting`. token_budget: see Evaluation. Raises OutOfMemoryError.
    """
    if not prompts:
        return {}
    truths = [row.answer for row in examples.splits.test]
    with memory_guard("evaluating"):
        evaluation = Evaluation(model, [], token_budget)
        try:
            return evaluation.with_shots(examples, prompts, truths, recipe.evaluations, progress, recipe.max_new_tokens)
        finally:
            evaluation.close()
