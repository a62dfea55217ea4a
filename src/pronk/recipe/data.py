"""The section `data`: where the examples come from, how they are read, how they are divided."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pronk.recipe.section import Section

Rows = int | float


class Split(Section):
    """How many rows go where. A number of 1 or more is rows, one below 1 a share."""

    train: Rows | None = Field(
        None, gt=0, description="Rows for training, validation included; all that test leaves, when absent."
    )
    validation: Rows = Field(0.1, ge=0, description="Rows taken from train to watch the loss on; 0 for none.")
    test: Rows = Field(0.1, ge=0, description="Rows kept apart for the comparison; 0 for none.")
    balanced: bool = Field(False, description="As many rows of each label in train and in test (classify only).")
    seed: int = Field(42, ge=0, description="Seed of the shuffle before the split.")

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        for name in ("train", "validation", "test"):
            value = getattr(self, name)
            if isinstance(value, float) and value >= 1:
                raise ValueError(f"{name}: {value} is neither a whole number of rows nor a share below 1")
        return self


class Data(Section):
    """Where the examples come from and how they are read."""

    source: str | list[str] = Field(description="File or files, .jsonl or .csv; paths are relative to the recipe.")
    format: Literal["classify", "alpaca", "pairs"] = Field(
        description="classify: a text and its label. alpaca: instruction, input, output. "
        "pairs: a prompt and its response."
    )
    columns: dict[str, str] = Field(
        {}, description="Where a format's field has another name in the file, e.g. {text: sentence}."
    )
    labels: dict[str, str | int] | list[str] | None = Field(
        None,
        description="classify: the labels; {answer: value in the file} or a list of answers. "
        "Those found in the file, when absent.",
    )
    instruction: str | None = Field(
        None,
        description="What the model is asked to do with each text (classify, pairs); "
        "classify names the labels by default.",
    )
    system: str | None = Field(None, description="A system message before each conversation.")
    split: Split = Field(Split(), description="How the rows are divided.")

    @model_validator(mode="after")
    def _labels_only_for_classify(self) -> Self:
        if self.format != "classify":
            if self.labels is not None:
                raise ValueError(f"labels: only the format classify has labels, not {self.format}")
            if self.split.balanced:
                raise ValueError(f"split.balanced: only the format classify can be balanced, not {self.format}")
        if self.format == "alpaca" and self.instruction is not None:
            raise ValueError("instruction: rows of the format alpaca bring their own instruction")
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError("labels: classification needs at least two labels")
        return self
