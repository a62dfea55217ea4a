"""What `pronk eval` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pronk.errors import OptionError

Part = Literal["test", "validation"]


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
    def is_one_study(self) -> bool:
        """Whether a study alone was named, to be measured as it measures itself."""
        as_it_is = self.data is None and self.part == "test" and self.prompt is None and self.base
        return as_it_is and len(self.targets) == 1 and (Path(self.targets[0]) / "study.json").is_file()
