"""A pretrained model as it is: which task it was made for, and its weights by transformers' own class for that task.

Nothing is made up: a model without the head that a task needs is refused, as transformers would draw one at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pronk.errors import BaseModelError, DataError, OptionError
from pronk.model.saved import CONFIG
from pronk.recipe import Recipe, recipe_of_base

Kind = Literal["causal", "classifier", "translator"]
# the class of transformers that has the weights of a kind, and what people call it
CLASSES: dict[Kind, str] = {
    "causal": "AutoModelForCausalLM",
    "classifier": "AutoModelForSequenceClassification",
    "translator": "AutoModelForSeq2SeqLM",
}
WORDS: dict[Kind, str] = {
    "causal": "a causal language model",
    "classifier": "a classifier",
    "translator": "an encoder-decoder model",
}
TASKS: dict[Kind, str] = {"causal": "generate", "classifier": "classify", "translator": "translate"}
SETTINGS = ("train.device", "train.dtype")  # all of a recipe that counts where a model is read as it is
# their positions begin behind the padding token's id, so they read that many tokens fewer than config.json says
SHIFTED = ("camembert", "data2vec-text", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")
# causal models that pronk reads by itself, and as transformers does: compared; all others are read by transformers
OURS = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3")
NO_LIMIT = 10**6  # a tokenizer that knows no limit says 10³⁰


@dataclass(frozen=True)
class Pretrained:
    """A model found, its weights not yet loaded. base: a pronk.model.hub.Base."""

    base: Any
    config: Any
    kind: Kind
    recipe: Recipe

    @property
    def name(self) -> str:
        """As it was named."""
        return str(self.base.name)


def find_pretrained(name: str, overrides: Sequence[str], tell: Callable[[str], None] = lambda _: None) -> Pretrained:
    """A model by its name (as a recipe's `base`), and what it was made for, from its configuration alone.

    Raises BaseModelError for one that does none of the tasks, RecipeError for an override that is wrong.
    """
    from pronk.ask.models import refuse_missing
    from pronk.model.load import find_base, load_config

    refuse_missing(name, "a pretrained model")
    if any((Path(name).expanduser() / file).is_file() for file in ("recipe.yaml", "study.json", CONFIG)):
        raise OptionError(f"--base {name}: this was tuned already; `pronk generate {name}` asks it, `pronk try` a base")
    recipe = recipe_of_base(name, overrides)
    _refuse_pickled(Path(recipe.base))
    base = find_base(recipe.base, tell)
    config = load_config(base)
    return Pretrained(base, config, kind_of(config, name), recipe)


def kind_of(config: Any, name: str) -> Kind:
    """What a configuration says that the model is for, by the class that saved it. Raises BaseModelError for others."""
    from transformers.models.auto import modeling_auto as auto

    saved_by = str(next(iter(getattr(config, "architectures", None) or ()), ""))
    known: dict[Kind, Any] = {
        "classifier": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "translator": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    for kind, classes in known.items():
        if saved_by in classes.values():
            return kind
    if not saved_by:  # older configurations do not say; the sort of model does, heads apart
        if getattr(config, "is_encoder_decoder", False) and config.model_type in known["translator"]:
            return "translator"
        if config.model_type in known["causal"] and not config.model_type.endswith("bert"):
            return "causal"
    raise BaseModelError(
        f"--base {name}: config.json says {saved_by or config.model_type}, which neither writes text, nor classifies, "
        "nor translates; it was pretrained only, or made for something else: name a model with ForCausalLM "
        "(generate), ForSequenceClassification (classify), or ForConditionalGeneration or MarianMTModel (translate)"
    )


def refuse_other_task(found: Pretrained, task: Kind) -> None:
    """Raise BaseModelError that names the right task for a model of another kind."""
    if found.kind != task:
        raise BaseModelError(
            f"--base {found.name}: this is {WORDS[found.kind]}, and `{TASKS[task]}` needs {WORDS[task]}; "
            f"use `pronk try {TASKS[found.kind]} --base {found.name}`"
        )


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise OptionError for a setting that would be ignored, as transformers' own model is used."""
    for one in overrides:
        if (key := one.partition("=")[0].strip()) not in SETTINGS:
            raise OptionError(f"--set {key}: here the model is taken as it is; only {' and '.join(SETTINGS)} count")


def load_pretrained(found: Pretrained) -> Any:
    """The model, for evaluation, on its device. Raises BaseModelError where a weight is missing or has
    another shape, OutOfMemoryError where it does not fit."""
    import transformers

    from pronk.model.hub import pretrained
    from pronk.model.load import check_weights, resolve_device, resolve_dtype
    from pronk.model.memory.guard import memory_guard

    device = resolve_device(found.recipe.train.device)
    options = {"dtype": resolve_dtype(found.recipe.train.dtype, device), "use_safetensors": True}
    with memory_guard(f"loading {found.name}"):
        model, loading = pretrained(
            getattr(transformers, CLASSES[found.kind]), found.base, **options,
            output_loading_info=True, ignore_mismatched_sizes=True,  # the latter so that we are told their names
        )  # fmt: skip
        check_weights(found.base, loading)
        return model.requires_grad_(False).eval().to(device)


@contextmanager
def at_work(name: str, doing: str) -> Iterator[None]:
    """Inside, a model is at work without gradients: out of memory, and a tokenizer that does not go with the model,
    are one message. doing: such as "translating"."""
    import torch

    from pronk.model.hub import first_line, quiet
    from pronk.model.memory.guard import memory_guard

    with memory_guard(doing), torch.inference_mode(), quiet():
        try:
            yield
        except (IndexError, ValueError) as error:
            why = first_line(error)
            raise BaseModelError(f"--base {name}: the model does not take what its tokenizer gives: {why}") from error


def readable_length(config: Any, tokenizer: Any) -> int | None:
    """Most tokens of a text that the model reads, special ones included; None where nothing limits it."""
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < NO_LIMIT else []
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        shifted = config.model_type in SHIFTED
        limits.append(positions - ((config.pad_token_id or 0) + 1 if shifted else 0))
    return min(limits, default=None)


def check_lengths(name: str, places: Sequence[str], ids: Sequence[Sequence[int]], most: int | None) -> None:
    """Raise DataError for the first text that is too long: nothing is cut off silently."""
    for place, one in zip(places, ids, strict=True):
        if most is not None and len(one) > most:
            raise DataError(f"{place}: the text takes {len(one)} tokens, and {name} reads {most} at most; shorten it")


def _refuse_pickled(folder: Path) -> None:
    """A folder whose weights are pickled, with the conversion for the class that they are of."""
    from pronk.model.hub import pickled

    if not (folder / "config.json").is_file() or any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("pytorch_model*.bin")):
        from pronk.model.hub import Base
        from pronk.model.load import load_config

        config = load_config(Base(str(folder), str(folder), local=True))
        raise BaseModelError(pickled(str(folder), CLASSES[kind_of(config, str(folder))]))
