"""How examples are made up: no part of a recipe, but the one place of these defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from pronk.errors import OptionError
from pronk.recipe.generation import COLDEST
from pronk.recipe.problems import explained
from pronk.recipe.section import Section

Task = Literal["classify", "instruct"]
RequestForm = Literal["json", "continue"]


class Synthesis(Section):
    """What is made up, from how many examples at a time, and how much of it there may be."""

    task: Task | None = Field(None, description="classify: texts and labels. instruct: instruction, input, output.")
    count: PositiveInt = Field(100, description="Rows in all, those that the file has already included.")
    shots: PositiveInt = Field(4, description="Seeds shown in a request.")
    per_request: PositiveInt = Field(4, le=50, description="New examples that a request asks for (json).")
    form: RequestForm | None = Field(
        None,
        description="json: an instruction that asks for JSON. continue: a list of examples to go on with, one new "
        "example a request, for models that were never tuned to follow instructions.",
    )
    temperature: float = Field(0.8, ge=0, le=2, description="Of the drawing; higher is more varied and more broken.")
    seed: int = Field(42, ge=0, description="Of the seeds that a request shows, and of a local model's drawing.")
    max_length: PositiveInt = Field(2000, description="Characters that an example may have.")
    max_new_tokens: PositiveInt | None = Field(
        None, description="Most tokens of an answer; room for twice what such seeds take, when absent."
    )
    verify: bool = Field(False, description="Ask the same model for each text's label, blind; keep those it confirms.")
    limit_tokens: PositiveInt | None = Field(None, description="Stop before more tokens are read and written.")
    limit_cost: PositiveFloat | None = Field(None, description="Stop before more money is spent; needs the prices.")
    price_in: float = Field(0.0, ge=0, description="Of a million tokens that the model reads.")
    price_out: float = Field(0.0, ge=0, description="Of a million tokens that the model writes.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if 0 < self.temperature < COLDEST:
            raise ValueError(f"temperature: {self.temperature:g} would only overflow; write 0 for the likeliest token")
        if self.limit_cost is not None and not (self.price_in or self.price_out):
            raise ValueError(
                "limit_cost: needs what a million tokens cost; add --price-in and --price-out, or limit tokens"
            )
        if self.form == "continue" and "per_request" in self.model_fields_set and self.per_request > 1:
            raise ValueError("per_request: a list to go on with gives one example a request; leave it out")
        return self


def synthesis_settings(given: Mapping[str, Any]) -> Synthesis:
    """Checked settings. Raises OptionError with a line for each problem."""
    try:
        return Synthesis.model_validate(dict(given))
    except ValidationError as error:
        raise OptionError("\n".join(explained(error.errors(), list(Synthesis.model_fields)))) from None
