"""How answers are written: no part of a recipe, but the one place of these defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from pronk.errors import OptionError
from pronk.recipe.problems import explained
from pronk.recipe.section import Section

COLDEST = 0.001  # logits divided by less may leave the range of fp32
DRAWING = ("top_k", "top_p", "seed")  # what means nothing where nothing is drawn


class Generation(Section):
    """How answers are written. Greedy by default, so that the same question gets the same answer."""

    temperature: float = Field(
        0.0,
        ge=0,
        description="0 takes the likeliest token each time; above, tokens are drawn, 1 being the model's own.",
    )
    top_k: PositiveInt | None = Field(None, description="Draw from this many of the likeliest tokens only.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw from the likeliest tokens that together have this probability only."
    )
    max_new_tokens: PositiveInt = Field(256, description="Most tokens of an answer.")
    stop: list[str] = Field([], description="Texts at which an answer ends; they are cut off.")
    seed: int = Field(42, ge=0, description="Seed of the drawing.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = [key for key in DRAWING if key in self.model_fields_set]
        if not self.draws and given:
            raise ValueError(
                f"{given[0]}: without a temperature answers are greedy and nothing is drawn; "
                f"add a temperature such as 0.7, or leave {given[0]} out"
            )
        if 0 < self.temperature < COLDEST:
            raise ValueError(f"temperature: {self.temperature:g} would only overflow; write 0 for the likeliest token")
        if "" in self.stop:
            raise ValueError("stop: an empty text would end every answer at once")
        return self

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature > 0


def generation_settings(given: Mapping[str, Any]) -> Generation:
    """Checked settings. Raises OptionError with a line for each problem."""
    try:
        return Generation.model_validate(dict(given))
    except ValidationError as error:
        raise OptionError("\n".join(explained(error.errors(), list(Generation.model_fields)))) from None
