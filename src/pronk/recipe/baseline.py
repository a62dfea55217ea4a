"""The section `baseline`: how the untouched base is asked, beside the plain prompt."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pronk.recipe.section import Section

SHOTS = (0, 2, 4, 8)  # what `pronk check --baseline` asks with where the recipe names none
MOST_SHOTS = 64


class Baseline(Section):
    """The untouched base beside the runs: with examples in its prompt."""

    shots: list[Annotated[int, Field(ge=0, le=MOST_SHOTS)]] = Field(
        [],
        description="Numbers of examples to put into the base's prompt, e.g. [2, 4, 8], each a row of the study: does "
        "it need fine-tuning at all? They are rows of train, the same for every question, labels in turn. 0 is the "
        "plain prompt, which is always measured. `pronk check --baseline` asks with 0, 2, 4 and 8 when empty.",
    )
    seed: int = Field(42, ge=0, description="Seed of the drawing of these examples.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots: a number appears twice in {self.shots}")
        return self
