"""A study before anything heavy is loaded: bases found, examples made, everything checked that can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pronk.data.general import Passage
from pronk.data.split import Splits
from pronk.study import Fleet, Study
from pronk.tokens.pack import TOKEN_BUDGET

if TYPE_CHECKING:
    from pronk.doctor.planned import Fit
    from pronk.model.memory.choice import Setting
    from pronk.tokens.examples import Examples


@dataclass(frozen=True)
class Ready:
    """A fleet whose base is found and whose examples are made; nothing heavy is loaded yet.

    fit: how it is to be trained on a GPU; None where nothing was predicted.
    """

    fleet: Fleet
    base: Any
    device: Any
    examples: Examples
    fit: Fit | None = None

    @property
    def token_budget(self) -> int:
        """Tokens of a micro-batch."""
        return TOKEN_BUDGET[self.device.type] if self._setting is None else self._setting.budget

    @property
    def recompute(self) -> int | str:
        """How many layers, none, all, or auto where nothing was predicted."""
        return self.fleet.trained[0].recipe.train.recompute if self._setting is None else self._setting.recompute

    @property
    def validation_tokens(self) -> int:
        """Tokens of a validation batch."""
        tokens = None if self._setting is None else self._setting.validation_tokens
        return tokens or self.token_budget

    @property
    def evaluation_tokens(self) -> int | None:
        """Tokens of an evaluation batch; None leaves it to the memory that is free."""
        return None if self._setting is None else self._setting.evaluation_tokens

    @property
    def predicted_peak(self) -> int | None:
        """Bytes of the GPU that will be reserved at most."""
        return None if self._setting is None else self._setting.peak

    @property
    def _setting(self) -> Setting | None:
        return None if self.fit is None else self.fit.chosen


def prepare(
    study: Study, splits: Splits, labels: tuple[str, ...], tell: Callable[[str], None], elsewhere: bool = False,
    leave_out: bool = False,
) -> list[Ready]:  # fmt: skip
    """Everything about the fleets of a study that can be checked without weights.

    elsewhere: the study will run on another machine, so this one need not be able to. leave_out: do without rows
    whose prompt leaves no room for the answer; a check tells of them.
    """
    from pronk.evaluate.exact import check_references
    from pronk.train.session import passages_of

    if "exact" in study.recipe.evaluations:
        check_references(splits.test, study.recipe.exact)
    data = Prepared(splits, labels, passages_of(study.recipe, splits, tell))
    bases = dict.fromkeys(fleet.base for fleet in study.fleets)
    return [one for base in bases for one in _of_base(study, base, data, tell, elsewhere, leave_out)]


@dataclass(frozen=True)
class Prepared:
    """What all bases of a study read. passages: the general text, where forgetting is measured."""

    splits: Splits
    labels: tuple[str, ...]
    passages: Sequence[Passage]


def _of_base(
    study: Study, name: str, data: Prepared, tell: Callable[[str], None], elsewhere: bool, leave_out: bool
) -> list[Ready]:
    from pronk.model.adapter import chosen_layers
    from pronk.model.load import find_base, linear_layer_sizes, resolve_device
    from pronk.model.quantize import check_quantization
    from pronk.train.session import adapter_shape, load_examples
    from pronk.train.start import check_start

    fleets = [fleet for fleet in study.fleets if fleet.base == name]
    device = resolve_device("cpu" if elsewhere else study.recipe.train.device)
    for quantize in dict.fromkeys(fleet.quantize for fleet in fleets):
        if not elsewhere:
            check_quantization(quantize, device, study.recipe.train.fp8_products)
    base = find_base(name, tell)
    recipes = [run.recipe for fleet in fleets for run in fleet.trained]
    examples = load_examples(base, recipes, data.splits, data.labels, leave_out, data.passages)
    if "choice" in study.recipe.evaluations:
        examples.choice_ids()  # raises where a choice does not fit
    layers = linear_layer_sizes(base)
    for one in recipes:
        check_start(one.adapter, layers)
        if shape := adapter_shape(one):
            chosen_layers(list(layers), shape.targets)
    return [Ready(fleet, base, device, examples) for fleet in fleets]
