"""The whole recipe, and its keys as dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, PositiveInt, ValidationError, model_validator

from pronk.errors import RecipeError
from pronk.recipe.baseline import Baseline
from pronk.recipe.checks import check_allowed
from pronk.recipe.data import Data, Source
from pronk.recipe.measures import Exact, Forgetting
from pronk.recipe.notation import Dumper, assign
from pronk.recipe.problems import explained, suggestion
from pronk.recipe.section import Section
from pronk.recipe.training import Adapter, Train

Quantize = Literal["none", "int8", "nf4", "fp8"]

# A study may vary these; everything else must be the same for the runs to be comparable.
STUDY_SECTIONS = ("adapter", "train")
STUDY_KEYS = ("base", "quantize", "full")
NOT_STUDIED = (
    "train.dtype", "train.fp8_products", "train.device", "train.deterministic", "train.recompute", "train.keep",
    "train.trackers",
)  # fmt: skip


Evaluation = Literal["likelihood", "classify", "choice", "exact", "answers", "similarity", "forgetting"]
ANSWERING = ("exact", "answers", "similarity")  # evaluations for which models answer freely
PROMPTS = ("alpaca", "chat", "llama2", "llama3")  # and the path of a template


class Recipe(Section):
    """A whole recipe, checked."""

    base: str = Field(
        "smollm2",
        description="The base model: smollm2 (embedded), a local folder, a .gguf file, or a hub id.",
    )
    quantize: Quantize = Field(
        "none",
        description="How the base's linear layers are kept, the output head apart: as they are, or in 8 bits (rows "
        "of int8 or of fp8) or 4 (NF4, as in QLoRA) a weight. Products are in train.dtype, with fp8 in FP8; adapters "
        "are as ever.",
    )
    double_quantization: bool | None = Field(
        None,
        description="nf4: quantize the scales too, which saves 0.37 bits a weight. true when absent.",
    )
    data: Data = Field(description="The examples.")
    prompt: str = Field(
        "alpaca",
        description="How a conversation becomes text: alpaca; llama2 or llama3, their chat forms; chat, the base "
        "model's own template; or the path of a template of your own, ending in .jinja.",
    )
    full: bool = Field(
        False,
        description="Train all weights of the base instead of an adapter. Takes 18 bytes of memory a weight (fp32 "
        "weights, gradients and two moments, and bf16 copies; 12 with adamw_8bit), and wants a learning rate ten "
        "times lower. Such runs train one after another.",
    )
    adapter: Adapter = Field(Adapter(), description="The LoRA adapter.")
    train: Train = Field(Train(), description="The training.")
    evaluate: list[Evaluation] | None = Field(
        None,
        description="What is measured on the test rows. likelihood: loss, perplexity and bits per byte of the "
        "reference answers. classify: labels, by likelihood and by answer. choice: multiple choice, the likeliest "
        "choice, as it is and by the letter (acc and acc_norm of lm-evaluation-harness). exact: greedy answers "
        "that are the reference or not. answers: greedy answers side by side in the report, to be read; counted, not "
        "scored. similarity: ROUGE-L and chrF of greedy answers against the reference answers. "
        "forgetting: the loss on general text outside the data. likelihood, and classify or choice for those formats, "
        "when absent.",
    )
    exact: Exact = Field(Exact(), description="How short answers are compared.")
    forgetting: Forgetting = Field(Forgetting(), description="The general text.")
    max_new_tokens: PositiveInt | None = Field(
        None,
        description="exact, answers, similarity: the longest answer in tokens, its end token included; as long as the "
        "longest reference answer of the test when absent.",
    )
    allow: list[str] = Field(
        [],
        description="Names of checks whose errors are accepted, e.g. [truncated-answers]: `pronk run` begins all the "
        "same. `pronk check` gives the names.",
    )
    baseline: Baseline = Field(Baseline(), description="How the untouched base is asked.")
    study: dict[str, list[Any]] = Field(
        {}, description="Keys to vary and the values to try; every combination is a run."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.prompt not in PROMPTS and not self.prompt.endswith(".jinja"):
            raise ValueError(
                f"prompt: found {self.prompt!r}, expected one of {', '.join(PROMPTS)}, or a template's path "
                f"ending in .jinja{suggestion(self.prompt, PROMPTS)}"
            )
        check_allowed(self.allow)
        if self.evaluate == []:
            raise ValueError("evaluate: name at least one measure, or leave the key out")
        if self.full and "adapter" in self.model_fields_set:
            raise ValueError("full: true trains the base itself, so there is no adapter; leave one of the two out")
        if self.full and self.quantize != "none":
            raise ValueError(f"full: quantized weights cannot be trained; leave out quantize: {self.quantize} or full")
        if self.full and self.train.lora_plus_ratio != 1:
            raise ValueError("train.lora_plus_ratio: full: true has no matrices A and B; leave one of the two out")
        if self.train.max_steps is not None and "train.epochs" in self.study:
            raise ValueError("study.train.epochs: train.max_steps sets the length, so epochs would change nothing")
        self._measures_fit()
        if any(self.baseline.shots) and any(one.format == "text" for one in self.data.sources):
            raise ValueError("baseline.shots: rows of the format text have no question to show examples of")
        if self.train.stop == "early" and not self.data.split.validation:
            raise ValueError("train.stop: early needs validation rows to watch; data.split.validation takes none")
        for key, values in self.study.items():
            _check_axis(key, values)
        kinds = self.study.get("quantize", [self.quantize])
        if self.double_quantization is not None and "nf4" not in kinds:
            raise ValueError(f"double_quantization: it belongs to quantize: nf4, not {kinds[0]}; leave it out")
        dense = [kind for kind in kinds if kind in ("none", "int8")]
        if self.train.fp8_products and dense:
            raise ValueError(
                f"train.fp8_products: found quantize: {dense[0]}, but FP8 products need a base that is kept in FP8 or "
                "NF4; write quantize: fp8 (8 bits a weight) or quantize: nf4 (4 bits), or leave fp8_products out"
            )
        if True in self.study.get("full", []) and any(key.startswith("adapter.") for key in self.study):
            raise ValueError("study.full: runs with full: true have no adapter to vary; make two studies")
        return self

    def _measures_fit(self) -> None:
        """What is measured, and how, goes with the data and with one another."""
        wanted, formats = self.evaluate or [], [one.format for one in self.data.sources]
        for kind, known in (("classify", self.data.classifies), ("choice", self.data.chooses)):
            if kind in wanted and known is False:
                other = next(format for format in formats if format != kind)
                raise ValueError(f"evaluate: {kind} needs data.format: {kind}, not {other}")
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"evaluate: a measure appears twice in {wanted}")
        answering = [one for one in wanted if one in ANSWERING]
        if answering and "text" in formats:
            raise ValueError(
                f"evaluate: {answering[0]} needs questions to answer, and rows of the format text have none"
            )
        if self.max_new_tokens is not None and not answering:
            raise ValueError(
                "max_new_tokens: only evaluate: [similarity], [answers] and [exact] answer freely; add one, or leave "
                "the key out"
            )
        for key, changed in (("exact", self.exact != Exact()), ("forgetting", self.forgetting != Forgetting())):
            if changed and key not in wanted:
                raise ValueError(f"{key}: evaluate does not measure it; add evaluate: [{key}], or leave {key} out")

    @property
    def evaluations(self) -> tuple[str, ...]:
        """What is measured, the default resolved."""
        if self.evaluate is not None:
            return tuple(self.evaluate)
        own = "classify" if self.data.classifies else "choice" if self.data.chooses else None
        return ("likelihood", own) if own else ("likelihood",)

    def with_values(self, values: Mapping[str, Any], where: str = "study") -> Recipe:
        """A copy with dotted keys replaced and everything checked again; where: what a message begins with."""
        plain = self.model_dump(exclude_unset=True)
        if values.get("full"):  # the adapter is that of the study's other runs
            plain.pop("adapter", None)
        for key, value in values.items():
            assign(plain, key, value)
        return validated(plain, where)

    def to_yaml(self) -> str:
        """The recipe with every default written out; reading it back gives the same recipe."""
        plain = self.model_dump()
        if self.full:
            del plain["adapter"]
        elif self.adapter.from_ is not None:  # then a key left out is what that adapter has, not its default
            plain["adapter"] = self.adapter.model_dump(exclude_unset=True)
        return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """All dotted keys of the schema, sections before their fields."""
    for name, field in model.model_fields.items():
        yield prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")


def _check_axis(key: str, values: list[Any]) -> None:
    allowed = [name for name in known_keys() if name.split(".")[0] in STUDY_SECTIONS and "." in name]
    allowed = [*STUDY_KEYS, *(name for name in allowed if name not in NOT_STUDIED)]
    if key not in allowed:
        hint = "" if key in known_keys() else suggestion(key, allowed)
        varied = ", ".join(STUDY_KEYS) + ", or a key of adapter or train"
        raise ValueError(f"study.{key}: a study varies {varied}{hint or ', not this one'}")
    if not values:
        raise ValueError(f"study.{key}: list at least one value to try")
    if any(value in values[:position] for position, value in enumerate(values)):
        raise ValueError(f"study.{key}: a value appears twice in {values}")


def validated(plain: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain values. Raises RecipeError with a line for each problem."""
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        of_a_source = [f"data.source.{name}" for name in Source.model_fields]
        problems = explained(error.errors(), [*known_keys(), *of_a_source])
    raise RecipeError("\n".join(f"{where}: {line}" for line in problems))
