"""The section `data`: where the examples come from, how they are read, how they are divided."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pronk.recipe.section import Section

Rows = int | float
Format = Literal["classify", "choice", "alpaca", "pairs", "messages", "sharegpt", "text"]
ChoiceForm = Literal["listed", "letters", "unlisted"]
FILE_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
# Not read, but plainly files: a name that ends so is never taken for a hub id.
OTHER_ENDINGS = (".arrow", ".gz", ".jsonlines", ".ndjson", ".tsv", ".txt", ".xls", ".xlsx", ".yaml", ".yml", ".zip")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


class Split(Section):
    """How many rows go where. A number of 1 or more is rows, one below 1 a share."""

    train: Rows | None = Field(
        None, gt=0, description="Rows for training, validation included; all that test leaves, when absent."
    )
    validation: Rows = Field(0.1, ge=0, description="Rows taken from train to watch the loss on; 0 for none.")
    test: Rows = Field(0.1, ge=0, description="Rows kept apart for the comparison; 0 for none.")
    balanced: bool = Field(False, description="As many rows of each label in train and in test (classify only).")
    shuffle: bool = Field(
        True,
        description="Shuffle the rows before dividing them. false: train takes the first rows, test the last ones, "
        "each in the order of the files. Training draws its batches in a seeded order (train.seed) either way.",
    )
    keep_openings: bool = Field(
        True,
        description="Conversations that open with the same user turn stay in one part, so that the test asks nothing "
        "that training has seen. false: where most open alike, with a greeting.",
    )
    seed: int = Field(42, ge=0, description="Seed of the shuffle, and of the rows drawn by source weights.")

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        for name in ("train", "validation", "test"):
            value = getattr(self, name)
            if isinstance(value, float) and value >= 1:
                raise ValueError(f"{name}: {value} is neither a whole number of rows nor a share below 1")
        return self


class Source(Section):
    """A file or a hub data set with keys of its own, as `source` or as one of its list."""

    path: str | None = Field(None, description="A file; relative to the recipe. Either this or id.")
    id: str | None = Field(None, description="A data set on the Hugging Face hub, such as owner/name.")
    name: str | None = Field(None, description="id: which configuration (subset) of the set.")
    split: str = Field("train", description="id: which of the set's own splits is read; pronk divides it anew.")
    revision: str | None = Field(
        None, description="id: branch, tag or commit; refs/convert/parquet is the hub's own conversion."
    )
    weight: float | None = Field(
        None,
        gt=0,
        description="Share of this source in the mix. Rows stand in the proportion of the weights and none is "
        "repeated: the source with the fewest rows for its weight gives all, the others a seeded draw. Absent "
        "everywhere: all rows of all sources; absent here only: 1.",
    )
    format: Format | None = Field(None, description="In place of data.format, for this source.")
    columns: dict[str, str] | None = Field(None, description="In place of data.columns, for this source.")
    where: str | None = Field(None, description="In place of data.where, for this source.")
    part: Literal["train"] | None = Field(
        None,
        description="train: rows of this source are trained on and nothing else, beside those of data.split.train; "
        "the other sources are divided as if it were not there, so that the test stays the same. For made-up rows.",
    )

    @model_validator(mode="after")
    def _file_or_set(self) -> Self:
        if (self.path is None) == (self.id is None):
            raise ValueError("path: a source has either a path (file) or an id (hub data set)")
        for key, usual in (("name", None), ("split", "train"), ("revision", None)):
            if self.path is not None and getattr(self, key) != usual:
                raise ValueError(f"{key}: only a hub data set (id) has this, not a file (path)")
        return self


def _kind_of_source(value: Any) -> str:
    return "(list)" if isinstance(value, list) else "(keys)" if isinstance(value, dict | Source) else "(text)"


# The tags tell pydantic which type to try, so that it complains about that one alone; problems.py drops them.
OneSource = Annotated[Annotated[str, Tag("(text)")] | Annotated[Source, Tag("(keys)")], Discriminator(_kind_of_source)]
Sources = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[Source, Tag("(keys)")] | Annotated[list[OneSource], Tag("(list)")],
    Discriminator(_kind_of_source),
]


class Data(Section):
    """Where the examples come from and how they are read."""

    source: Sources = Field(
        description="A file (.jsonl, .json, .csv or .parquet; relative to the recipe), a hub data set (owner/name), "
        "one of them with keys of its own (see data.source), or a list of these. A text is a file if it exists or "
        "ends like one; else owner/name is a hub id."
    )
    format: Format | None = Field(
        None,
        description="classify: a text and its label. choice: a question, its choices (a list of texts) and the answer "
        "(its place counted from 0, its letter, or its text). alpaca: instruction, input, output. pairs: a prompt and "
        "its response. messages: OpenAI's list of {role, content}. sharegpt: a list of {from, value}. text: plain text "
        "to go on with. Found out from the columns where they leave no doubt, when absent.",
    )
    columns: dict[str, str] = Field(
        {}, description="Where a format's field has another name in the file, e.g. {text: sentence}."
    )
    where: str | None = Field(
        None,
        description="Which rows to keep, e.g. \"input == ''\" or \"label in ['a', 'b'] and len(document) < 4000\". "
        "Column names (column('first turn') where one is no plain word), texts, numbers, true, false, null; "
        "== != < <= > >= in, and or not; len(), lower(), number(). An absent value is null.",
    )
    labels: dict[str, str | int] | list[str] | None = Field(
        None,
        description="classify: the labels; {answer: value in the file} or a list of answers. "
        "Those found in the file, when absent.",
    )
    choices: ChoiceForm = Field(
        "listed",
        description="choice: how a question is asked, and what its answer is. listed: the question, an empty line, and "
        "the choices, a line each behind `A. `, `B. ` …; the answer is the text of the right one. letters: the same, "
        "the answer is its letter, as MMLU is mostly asked. unlisted: the question alone; the answer is the text, as "
        "ARC and HellaSwag are asked. Training learns this answer; evaluate: [choice] compares the likelihoods of all.",
    )
    instruction: str | None = Field(
        None,
        description="What the model is asked to do with each text (classify, choice, pairs); "
        "classify names the labels by default.",
    )
    system: str | None = Field(None, description="A system message before each conversation that has none of its own.")
    split: Split = Field(Split(), description="How the rows are divided.")

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources one by one, each with its own format, columns and where or else the section's."""
        given = self.source if isinstance(self.source, list) else [self.source]
        return tuple(self._complete(one) for one in given)

    def of_part(self, part: Literal["train"] | None) -> Data | None:
        """The section with the sources of one part alone, as a section of its own: those of `part: train`, or those
        that are divided (None). None where there is none."""
        given = self.source if isinstance(self.source, list) else [self.source]
        chosen = [one for one in given if (one.part if isinstance(one, Source) else None) == part]
        if len(chosen) == len(given):
            return self
        own = [one if isinstance(one, str) else one.model_copy(update={"part": None}) for one in chosen]
        return self.model_copy(update={"source": own}) if own else None

    @property
    def classifies(self) -> bool | None:
        """Whether the examples have labels; None while a format still has to be found out."""
        formats = {source.format for source in self.sources}
        return None if None in formats else formats == {"classify"}

    @property
    def chooses(self) -> bool | None:
        """Whether all examples are multiple choice; None while a format still has to be found out."""
        formats = {source.format for source in self.sources}
        return None if None in formats else formats == {"choice"}

    def _complete(self, given: str | Source) -> Source:
        if isinstance(given, str):
            given = Source(id=given) if is_hub_id(given) else Source(path=given)
        # the section's columns belong to the section's format
        inherited = self.columns if given.format in (None, self.format) else {}
        return given.model_copy(
            update={
                "format": given.format or self.format,
                "columns": inherited if given.columns is None else given.columns,
                "where": self.where if given.where is None else given.where,
            }
        )

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        formats = [source.format for source in self.sources if source.format]
        for format in formats:
            if format != "classify":
                if self.labels is not None:
                    raise ValueError(f"labels: only the format classify has labels, not {format}")
                if self.split.balanced:
                    raise ValueError(f"split.balanced: only the format classify can be balanced, not {format}")
            if format not in ("classify", "choice", "pairs") and self.instruction is not None:
                raise ValueError(f"instruction: rows of the format {format} bring their own instruction")
            if format == "text" and self.system is not None:
                raise ValueError("system: rows of the format text are plain text, without a system message")
        if formats and "choice" not in formats and len(formats) == len(self.sources) and self.choices != "listed":
            raise ValueError(f"choices: only the format choice has choices, not {formats[0]}")
        if "classify" in formats and set(formats) != {"classify"}:
            other = next(format for format in formats if format != "classify")
            raise ValueError(f"source: rows to classify and rows of the format {other} cannot be mixed")
        if self.sources and all(source.part for source in self.sources):
            raise ValueError("source: every source has `part: train`; leave it out of those that are to be divided")
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError("labels: classification needs at least two labels")
        return self


def is_hub_id(text: str, folder: Path | None = None) -> bool:
    """Whether a source given as text is a hub data set: owner/name, no file ending, and nothing of that name here."""
    is_file = text.lower().endswith((*FILE_ENDINGS, *OTHER_ENDINGS)) or ((folder or Path()) / text).exists()
    return HUB_ID.fullmatch(text) is not None and not is_file
