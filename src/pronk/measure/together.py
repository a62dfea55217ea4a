"""All models over one base on the same items in one batch; bases one after another."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import over_one_base, prompt_of
from pronk.ask.models import Model
from pronk.data.split import Splits
from pronk.errors import BaseModelError, OutOfMemoryError
from pronk.recipe import Recipe
from pronk.train.progress import say, work

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.evaluate.evaluation import Evaluated
    from pronk.model.adapter import AdapterShape
    from pronk.tokens.examples import Examples

SMALLEST_BATCH = 1024  # tokens: where even this runs out of memory, smaller batches do not help


@dataclass(frozen=True)
class Wanted:
    """What is measured. max_new_tokens: see the recipe's key."""

    evaluations: tuple[str, ...]
    max_new_tokens: int | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Wanted:
        """What a recipe wants."""
        return cls(recipe.evaluations, recipe.max_new_tokens)


@dataclass(frozen=True)
class Column:
    """A model under the name of its results. base: where the weights of its base (or its own) lie, a
    pronk.model.hub.Base. examples: the items as it reads them; models that share them are asked in one form."""

    name: str
    model: Model
    base: Any
    examples: Examples


def measure(
    model: Any, adapters: Sequence[tuple[AdapterShape, Mapping[str, Any]]], examples: Examples, wanted: Wanted,
    console: Console, check: Callable[[], None], token_budget: int | None = None,
) -> list[Evaluated]:  # fmt: skip
    """Results of the model as it stands and of the given adapters, in this order, on the test rows of the examples.

    check: called between batches. token_budget: of a batch; as many as the free memory holds when absent. Where that
    runs out of memory it is tried again with half of it. Raises OutOfMemoryError where that does not help.
    """
    from pronk.evaluate.evaluation import evaluation_budget
    from pronk.model.memory.sizes import release

    budget = token_budget or evaluation_budget(model)
    while True:
        try:
            return _measured(model, adapters, examples, wanted, console, check, budget)
        except OutOfMemoryError:
            if budget <= SMALLEST_BATCH:
                raise
        budget //= 2  # here, where the error no longer holds what did not fit
        release(next(model.parameters()).device)
        say(console, f"evaluating: memory ran out; again in batches of {budget:,} tokens", "yellow")


def _measured(
    model: Any, adapters: Sequence[tuple[AdapterShape, Mapping[str, Any]]], examples: Examples, wanted: Wanted,
    console: Console, check: Callable[[], None], budget: int,
) -> list[Evaluated]:  # fmt: skip
    from pronk.evaluate.evaluation import Evaluation
    from pronk.model.memory.guard import memory_guard

    truths = [row.answer for row in examples.splits.test]
    with memory_guard("evaluating"):
        evaluation = Evaluation(model, adapters, budget)
        try:
            with work(console, "evaluating", evaluation.work(examples, wanted.evaluations)) as bar:

                def advance(tokens: int) -> None:
                    bar.advance(tokens)
                    check()

                return evaluation.run(examples, truths, wanted.evaluations, advance, wanted.max_new_tokens)
        finally:
            evaluation.close()


Results = list[tuple[str, "Evaluated"]]


def measure_columns(
    columns: Sequence[Column], wanted: Wanted, console: Console, check: Callable[[], None],
    beside: Callable[[Column, Any], Results] = lambda *_: [],
) -> Iterator[tuple[Results, dict[str, str]]]:  # fmt: skip
    """The results of all columns, base after base, each time with what study.json says of the environment.

    beside: what else is measured while the base of a column without an adapter is in memory.
    Raises OutOfMemoryError, StudyError for an adapter that is not finite, KeyboardInterrupt from check.
    """
    for group in over_one_base(columns):
        yield _of_group(group, wanted, console, check, beside)
        gc.collect()  # a base of several gigabytes goes before the next one comes


def _of_group(
    group: Sequence[Column], wanted: Wanted, console: Console, check: Callable[[], None],
    beside: Callable[[Column, Any], Results],
) -> tuple[Results, dict[str, str]]:  # fmt: skip
    from pronk.doctor.environment import environment
    from pronk.model.load import load_for_recipe
    from pronk.model.memory.guard import memory_guard

    states = {one.name: one.model.adapter.weights() for one in group if one.model.adapter}
    base = group[0].base
    with console.status(f"loading {base.name}"), memory_guard(f"loading {base.name}"):
        model, dtype, device = load_for_recipe(group[0].model.recipe, base)
    check()
    found: Results = []
    for form in {id(one.examples): one.examples for one in group}.values():
        asked = [one for one in group if one.examples is form]
        found += _results(model, asked, states, wanted, console, check)
    found += [row for one in group if not one.model.adapter for row in beside(one, model)]
    return found, environment(device, dtype, model)


def _results(
    model: Any, asked: Sequence[Column], states: Mapping[str, Mapping[str, Any]], wanted: Wanted, console: Console,
    check: Callable[[], None],
) -> Results:  # fmt: skip
    """Of columns over one base that are asked in one form."""
    tuned = [(one.name, one.model.adapter) for one in asked if one.model.adapter]
    adapters = [(adapter.shape, states[name]) for name, adapter in tuned]
    base, *others = measure(model, adapters, asked[0].examples, wanted, console, check)
    by_name = dict(zip([name for name, _ in tuned], others, strict=True))
    return [(one.name, by_name.get(one.name, base)) for one in asked]


def found_base(model: Model, tell: Callable[[str], None]) -> Any:
    """The base of a model, which its adapter fits. Raises BaseModelError for one that is gone, StudyError where the
    adapter is of another."""
    from pronk.model.load import find_base, linear_layer_sizes

    try:
        base = find_base(model.recipe.base, tell)
        layers = linear_layer_sizes(base)
    except BaseModelError as error:
        raise BaseModelError(f"{model.name}: {error} (if it lies elsewhere now: --set base=…)") from None
    if model.adapter:
        model.adapter.check_fits(layers)
    return base


class Reader:
    """Items as models read them; what several models read alike is made once.

    recipe: what is measured, and on which general text. splits: whose test rows are the items. Raises RecipeError or
    DataError where they cannot be measured so.
    """

    def __init__(self, recipe: Recipe, splits: Splits, tell: Callable[[str], None]) -> None:
        from pronk.evaluate.exact import check_references
        from pronk.train.session import passages_of

        self._recipe, self._tell = recipe, tell
        if "exact" in recipe.evaluations:
            check_references(splits.test, recipe.exact)
        self._passages = passages_of(recipe, splits, tell)
        self._made: dict[tuple[Any, ...], Examples] = {}

    def column(self, name: str, model: Model, splits: Splits, labels: tuple[str, ...]) -> Column:
        """A column, with its base found and its adapter checked; no weights are loaded. splits: the items as test.

        Raises BaseModelError for a base that is gone, StudyError for an adapter of another one, DataError for rows
        that are too long for it.
        """
        from pronk.model.load import resolve_device
        from pronk.model.quantize import check_quantization

        train = model.recipe.train
        check_quantization(model.recipe.quantize, resolve_device(train.device), train.fp8_products)
        base = found_base(model, self._tell)
        return Column(name, model, base, self._examples(model, base, splits, labels))

    def _examples(self, model: Model, base: Any, splits: Splits, labels: tuple[str, ...]) -> Examples:
        from pronk.model.load import context_length, load_config
        from pronk.tokens.examples import Examples

        key = (base.location, model.form.kind, model.form.tokens, id(splits), labels)
        if key not in self._made:
            config = load_config(base)
            prompt = prompt_of(base, model.form)
            examples = self._made[key] = Examples(
                prompt, splits, context_length(config), config.vocab_size, labels, passages=self._passages,
                exact=self._recipe.exact,
            )  # fmt: skip
            if "choice" in self._recipe.evaluations:
                examples.choice_ids()  # raises where a choice does not fit
        return self._made[key]
