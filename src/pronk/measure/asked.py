"""What `pronk eval` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pronk.errors import OptionError
from pronk.recipe import Recipe
from pronk.recipe.notation import parse_yaml

Part = Literal["test", "validation"]
# Overrides of these say which model it is, where it lies and what it reads; all others say what is measured.
OF_MODELS = (
    "base", "quantize", "double_quantization", "full", "adapter", "train", "study", "data", "prompt", "allow",
    "baseline",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """targets: run, study and adapter folders, names of bases. data: other items than the runs' own. part: which of
    their own. evaluations: in place of the recipe's. prompt: of bases, and of adapters that pronk did not train.
    base: also measure the base of each run."""

    targets: Sequence[str]
    data: str | None = None
    part: Part = "test"
    evaluations: Sequence[str] | None = None
    prompt: str | None = None
    overrides: Sequence[str] = ()
    base: bool = True

    def __post_init__(self) -> None:
        """Raises OptionError for what contradicts itself."""
        if not self.targets:
            raise OptionError("name at least one run, study, adapter or base to measure")
        if self.part not in get_args(Part):
            raise OptionError(f"--split: found {self.part!r}, expected one of {', '.join(get_args(Part))}")
        if self.data is not None and self.part != "test":
            raise OptionError("--split chooses among a run's own rows, and --data names others; leave one of them out")
        if self.evaluations is not None and not self.evaluations:
            raise OptionError("--evaluate: name at least one measure, such as likelihood")

    @property
    def of_models(self) -> list[str]:
        """The overrides that say which model it is, where it lies and what it reads."""
        return [one for one in self.overrides if _section(one) in OF_MODELS]

    def measuring(self, recipe: Recipe) -> Recipe:
        """A recipe that measures what was asked for. Raises RecipeError where it cannot."""
        values: dict[str, Any] = {} if self.evaluations is None else {"evaluate": [*self.evaluations]}
        for one in self.overrides:
            if _section(one) not in OF_MODELS:
                key, _, text = one.partition("=")
                values[key.strip()] = parse_yaml(text, f"--set {key.strip()}")
        return recipe.with_values(values, "--evaluate, --set") if values else recipe

    @property
    def is_one_study(self) -> bool:
        """Whether a study alone was named, to be measured as it measures itself."""
        as_it_is = self.data is None and self.part == "test" and self.prompt is None and self.base
        return as_it_is and len(self.targets) == 1 and (Path(self.targets[0]) / "study.json").is_file()


def _section(override: str) -> str:
    """The first part of an override's key."""
    return override.partition("=")[0].strip().partition(".")[0]
