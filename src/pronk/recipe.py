"""The recipe: what to train, on what, and how, from one YAML file.

Every default lives here and nowhere else; every field's description is the text of its help
and of the generated reference page. Unknown keys and wrong types are errors that name the key.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from pronk.errors import RecipeError

Rows = int | float
Every = PositiveInt | Literal["epoch"]

# A study may vary these; everything else must be the same for the runs to be comparable.
STUDY_SECTIONS = ("adapter", "train")
NOT_STUDIED = ("train.dtype", "train.device")


class Section(BaseModel):
    """Strict: no unknown keys, no silent conversion of types, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


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


class Adapter(Section):
    """Low-rank adaptation (LoRA, Hu et al. 2021, arXiv:2106.09685) of linear layers."""

    rank: PositiveInt = Field(16, description="Rank r of the update B·A.")
    alpha: float = Field(16.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs dropped while training.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear",
        description="Names of the linear layers that get an adapter, or all-linear: all but the output head.",
    )

    @model_validator(mode="after")
    def _some_target(self) -> Self:
        if not self.targets:
            raise ValueError("targets: name at least one linear layer, or write all-linear")
        return self


class Train(Section):
    """How a run is trained. A step is one update of one run, over `batch_size` of its examples."""

    epochs: PositiveInt = Field(2, description="Passes over the training rows.")
    max_steps: PositiveInt | None = Field(None, description="Stop after this many steps, whatever epochs says.")
    batch_size: PositiveInt = Field(
        16, description="Examples per step; how they are cut into micro-batches is pronk's business."
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "constant",
        description="Course of the learning rate after the warm-up; constant and constant_with_warmup are the same.",
    )
    warmup_steps: int = Field(
        0, ge=0, description="Steps over which the learning rate rises from 0, with any schedule."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm of a run; null for no clipping.")
    seed: int = Field(42, ge=0, description="Seed of the adapter's start, the data order and dropout.")
    max_length: PositiveInt | None = Field(
        None,
        description="Longest example in tokens; longer answers are cut and counted. "
        "2048, or what the base model can read if that is less, when absent.",
    )
    evaluate_every: Every = Field("epoch", description="Steps between validation losses, or epoch.")
    save_every: Every = Field("epoch", description="Steps between checkpoints, or epoch.")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Type of the base model's weights and products; auto: bf16 on a GPU that has it, else fp32. "
        "Adapters and optimizer are always fp32.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to run; auto: the GPU when there is one.")


class Recipe(Section):
    """A whole recipe, checked."""

    base: str = Field(
        "smollm2",
        description="The base model: smollm2 (embedded), a local folder, a .gguf file, or a hub id.",
    )
    data: Data = Field(description="The examples.")
    prompt: Literal["alpaca", "chat"] = Field(
        "alpaca",
        description="How an example becomes text: the Alpaca form, or chat, the base model's own template.",
    )
    adapter: Adapter = Field(Adapter(), description="The LoRA adapter.")
    train: Train = Field(Train(), description="The training.")
    evaluate: list[Literal["likelihood", "classify"]] | None = Field(
        None,
        description="What is measured on the test rows; likelihood, and classify for that format, when absent.",
    )
    study: dict[str, list[Any]] = Field(
        {}, description="Keys to vary and the values to try; every combination is a run."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.evaluate == []:
            raise ValueError("evaluate: name at least one measure, or leave the key out")
        if self.train.max_steps is not None and "train.epochs" in self.study:
            raise ValueError("study.train.epochs: train.max_steps sets the length, so epochs would change nothing")
        if self.evaluate is not None and "classify" in self.evaluate and self.data.format != "classify":
            raise ValueError(f"evaluate: classify needs data.format: classify, not {self.data.format}")
        for key, values in self.study.items():
            _check_axis(key, values)
        return self

    @property
    def evaluations(self) -> tuple[str, ...]:
        """What is measured, the default resolved."""
        if self.evaluate is not None:
            return tuple(self.evaluate)
        return ("likelihood", "classify") if self.data.format == "classify" else ("likelihood",)

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """A copy with dotted keys replaced and everything checked again."""
        plain = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            _assign(plain, key, value)
        return _validated(plain, "study")

    def to_yaml(self) -> str:
        """The recipe with every default written out; reading it back gives the same recipe."""
        return yaml.dump(self.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe file.

    overrides are texts `key=value` with dotted keys; values are YAML. Paths in the file are
    relative to it, paths in an override to the current folder.

    Raises RecipeError with one message that names the file and the key.
    """
    path = Path(path)
    plain = _load_yaml(path)
    _resolve_paths(plain, path.absolute().parent)
    for override in overrides:
        _override(plain, override)
    return _validated(plain, str(path))


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """All dotted keys of the schema, sections before their fields."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in YAML 1.2, and a key may appear only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes the texts that _Loader would read as numbers."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe file") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: this is a folder; a recipe is a YAML file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save the recipe as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    plain = _parse_yaml(text, str(path))
    if plain is None:
        raise RecipeError(f"{path}: the recipe is empty")
    if not isinstance(plain, dict):
        raise RecipeError(f"{path}: a recipe is made of keys and values, such as `base: smollm2`")
    return plain


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain values only
    except (yaml.YAMLError, ValueError, TypeError) as error:  # impossible dates, lists as keys
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _resolve_paths(plain: dict[str, Any], folder: Path) -> None:
    """Make the paths of a recipe file relative to its own folder."""
    for section, key in ((plain, "base"), (plain.get("study"), "base"), (plain.get("data"), "source")):
        if isinstance(section, dict) and key in section:
            section[key] = _resolved(key, section[key], folder)


def _resolved(key: str, value: Any, folder: Path) -> Any:
    """A path or a list of them, from folder; what is neither is left for the schema to refuse."""
    if isinstance(value, list):
        return [_resolved(key, item, folder) for item in value]
    if not isinstance(value, str):
        return value
    return _base_path(value, folder) if key == "base" else os.path.normpath(folder / Path(value).expanduser())


def _base_path(base: str, folder: Path) -> str:
    """A base that looks like a path is one; any other name is left for the hub."""
    looks_like_path = base.endswith(".gguf") or base.startswith((".", "/", "~"))
    if looks_like_path or (folder / base / "config.json").exists():
        return os.path.normpath(folder / Path(base).expanduser())
    return base


def _override(plain: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected key=value, such as train.epochs=3")
    key, value = key.strip(), _parse_yaml(text, f"--set {key}")
    if key in ("base", "study.base", "data.source"):
        value = _resolved(key.rsplit(".", 1)[-1], value, Path.cwd())
    if key == "study.base" and isinstance(value, str):
        value = [value]
    axis, _, studied = key.partition(".")
    if axis == "study" and studied:
        plain["study"] = {**_section(plain, "study"), studied: value}
    else:
        _assign(plain, key, value)


def _assign(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, making sections as needed."""
    *sections, last = key.split(".")
    for section in sections:
        plain[section] = inner = _section(plain, section)
        plain = inner
    plain[last] = value


def _section(plain: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy of a section, to be changed; empty where there is none."""
    section = plain.get(name)
    if section is not None and not isinstance(section, dict):
        raise RecipeError(f"{name}: found {section!r}, expected keys and values")
    return dict(section or {})


def _check_axis(key: str, values: list[Any]) -> None:
    allowed = [name for name in known_keys() if name.split(".")[0] in STUDY_SECTIONS and "." in name]
    allowed = ["base", *(name for name in allowed if name not in NOT_STUDIED)]
    if key not in allowed:
        hint = "" if key in known_keys() else _suggestion(key, allowed)
        raise ValueError(f"study.{key}: a study varies base or a key of adapter or train{hint or ', not this one'}")
    if not values:
        raise ValueError(f"study.{key}: list at least one value to try")
    if any(value in values[:position] for position, value in enumerate(values)):
        raise ValueError(f"study.{key}: a value appears twice in {values}")


def _validated(plain: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(plain)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
    # a key that may be of several types fails once for each: one line says them all
    merged: dict[tuple[str, str], list[str]] = {}
    for subject, found, expected in problems:
        merged.setdefault((subject, found), []).append(expected)
    lines = [subject + found + " or ".join(dict.fromkeys(expected)) for (subject, found), expected in merged.items()]
    raise RecipeError("\n".join(f"{where}: {line}" for line in lines))


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "model_type": "a section with keys of its own",
    "list_type": "a list",
}


def _explain(problem: Any) -> tuple[str, str, str]:
    """One problem that pydantic found, as subject, what was found, and what is expected."""
    place = [str(part) for part in problem["loc"]]
    known, kind = set(known_keys()), problem["type"]
    if kind == "extra_forbidden":
        return f"unknown key {'.'.join(place)}", _suggestion(".".join(place), sorted(known)), ""
    if kind == "missing":
        return f"{'.'.join(place)} is missing", "", ""
    # inside a union pydantic appends the names of the tried types; they are no part of the key
    while len(place) > 1 and ".".join(place) not in known and (place[0] != "study" or len(place) > 2):
        place.pop()
    key = ".".join(place)
    if kind == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{key}.{message}" if key else message, "", ""
    if kind == "literal_error":
        expected = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        expected = f"one of {expected}" if "," in expected else expected
    else:
        expected = _EXPECTED.get(kind) or problem["msg"].removeprefix("Input should be ")
    return f"{key}: ", f"found {problem['input']!r}, expected ", expected


def _suggestion(key: str, known: Sequence[str]) -> str:
    """`; did you mean …?` for the known key of that name, else the most similar name, nearest first."""
    section, _, last = key.rpartition(".")
    same = [name for name in known if name.rpartition(".")[2] == last]
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    anywhere = {name.rpartition(".")[2]: name for name in known}
    for names in (beside, anywhere):
        same += [names[near] for near in difflib.get_close_matches(last, list(names), n=1, cutoff=0.6)]
    return f"; did you mean {same[0]}?" if same else ""
