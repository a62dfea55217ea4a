"""What transformers loads for us, from this machine or the hub, and its many ways to fail in one message each.

No code and no pickle of a model's author is ever run: remote code is off, weights are safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pronk.errors import BaseModelError, ResourceError
from pronk.hub import cause_names, hub_answers, is_unreachable, silenced

# files of which a tokenizer has one: that of Llama and its like, of Marian and M2M100, of T5, of BERT
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TO_SAFETENSORS = """if you trust its author, convert it once: python -c "from transformers import \
{1} as M, AutoTokenizer as T; M.from_pretrained('{0}').save_pretrained('NEW'); \
T.from_pretrained('{0}').save_pretrained('NEW')", and take ./NEW as the base"""


@dataclass(frozen=True, slots=True)
class Base:
    """A base model found, not yet loaded. location: a folder, or a hub id."""

    name: str
    location: str
    local: bool


def pretrained(kind: Any, base: Base, **options: Any) -> Any:
    """Load with transformers: from this machine if all is here, else from the hub if it can be reached."""
    with one_message(base, kind):
        # a folder, as with an id transformers asks the hub even under local_files_only
        folder = base.location if base.local else downloaded(base.name)
        if folder is None and not hub_answers():
            raise BaseModelError(_unreachable(base))
        location, local = folder or base.location, folder is not None
        return kind.from_pretrained(location, local_files_only=local, trust_remote_code=False, **options)


@contextmanager
def one_message(base: Base, kind: Any) -> Iterator[None]:
    """transformers' many ways to fail, and those of the libraries below it, turned into one message."""
    try:
        with quiet():
            yield
    except (BaseModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what it raises is not listed anywhere; nothing of ours runs inside
        if "can't allocate memory" in str(error):
            raise ResourceError(f"base: {base.name} does not fit into this machine's memory") from error
        raise BaseModelError(_why_not(base, error, kind.__name__)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' load reports, warnings and retries, which say less than our own message."""
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()
    with silenced("transformers", "huggingface_hub"):
        yield


def downloaded(name: str, weights: bool = True) -> str | None:
    """The folder of the hub's cache with configuration, tokenizer and all weights of a model, if it is whole.

    weights: false where a tokenizer is enough.
    """
    from huggingface_hub import try_to_load_from_cache

    def path(file: str) -> Path | None:
        found = try_to_load_from_cache(name, file)
        return Path(found) if isinstance(found, str) else None

    config, index = path("config.json"), path(INDEX)
    tokenizer = any(path(file) for file in TOKENIZERS)
    whole = not weights or path(WHOLE) or (index and all(path(shard) for shard in shards(index)))
    return str(config.parent) if config and tokenizer and whole else None


def commit(name: str) -> str | None:
    """The commit of a hub model's files on this machine, from which all of it is loaded; None if there are none, or no
    model can have that name."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # HFValidationError is one
        return None
    return Path(config).parent.name if isinstance(config, str) else None


def shards(index: Path) -> list[str]:
    """The names of the files that an index lists. Raises what json, KeyError and the like do if it is none."""
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder's weights, whether they are there or not; none where nothing names any. Raises as
    `shards`."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    return [folder / shard for shard in shards(index)] if index.is_file() else []


def pickled(location: str, kind: str = "AutoModelForCausalLM") -> str:
    """What to say of weights that are pickled. kind: the class of transformers that they are of."""
    return (
        f"base: the weights of {location} are pickled (.bin or .pt), and opening a pickle can run anything; "
        f"pronk reads safetensors only; {TO_SAFETENSORS.format(location, kind)}"
    )


def _why_not(base: Base, error: BaseException, kind: str) -> str:
    if base.local:
        return f"base: the model in {base.location} cannot be loaded: {_reason(error, kind)}"
    names = cause_names(error)
    if "GatedRepoError" in names or "gated repo" in str(error):
        return (
            f"base: {base.name} needs its licence accepted: do so at https://huggingface.co/{base.name}, then log in "
            f"with `hf auth login` (or set HF_TOKEN); {_elsewhere(base)}"
        )
    if "RepositoryNotFoundError" in names:
        return (
            f"base: the hub has no model {base.name} that you may read; check the spelling, log in with `hf auth "
            f"login` (or set HF_TOKEN) if it is private, {_elsewhere(base)}"
        )
    if is_unreachable(error):
        return _unreachable(base)
    if "safetensors" in str(error) and isinstance(error, OSError):
        return pickled(base.name, kind)
    return f"base: {base.name} cannot be loaded: {_reason(error, kind)}; {_elsewhere(base)}"


def _unreachable(base: Base) -> str:
    return (
        f"base: {base.name} is not on this machine and the hub cannot be reached; go online (a gated model also "
        f"needs its licence accepted at https://huggingface.co/{base.name} and `hf auth login`), {_elsewhere(base)}"
    )


def _elsewhere(base: Base) -> str:
    return f"or download it elsewhere with `hf download {base.name} --local-dir DIR` and write `base: DIR`"


def _reason(error: BaseException, kind: str) -> str:
    """What transformers said, unless that says nothing to a person."""
    said = str(error)
    if kind == "AutoTokenizer":
        return "its tokenizer files are missing or unreadable (tokenizer.json or tokenizer.model)"
    if "Unrecognized configuration class" in said:
        return "it is not a causal language model; pronk fine-tunes decoder models such as Llama"
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first line that says something; two lines where the first only announces the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
