"""A folder of transformers' → a .gguf file for llama.cpp, tensor by tensor; the inverse of pronk.model.gguf.

Never more than one tensor lies in memory. The file is written under another name, and gets its own when it is whole.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.errors import BaseModelError, ResourceError
from pronk.runs import disk_guard, existing
from pronk.ship.gguf.tokenizer import read_vocabulary, write_vocabulary

if TYPE_CHECKING:
    from torch import Tensor

# What the gguf package writes itself, by llama.cpp's names, and general.file_type of each (LLAMA_FTYPE of llama.h).
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}
ARCHITECTURE = "llama"  # llama.cpp's name for Mistral's, too
MODELS = ("llama", "mistral")
ROPE = ("default", "linear", "llama3")
FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Labels:
    """What a file says of itself. name: of the model. base: what it was tuned from. license: an SPDX name."""

    name: str
    base: str | None = None
    license: str | None = None
    description: str | None = None


@dataclass(frozen=True)
class Planned:
    """A tensor to be written. shape: of its numbers, rows last. kind: its type by the gguf package's name (F16)."""

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], Tensor]


def write_model(
    folder: Path, target: Path, quantization: str, tokenizer: Any, labels: Labels, end_id: int | None = None,
    asked: Sequence[int] = (), advance: Callable[[int], None] = lambda _: None,
    read: Callable[[str], Tensor] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Write the Llama or Mistral model in a folder to a .gguf file; returns how many tensors have which type.

    quantization: a key of FILE_TYPES. tokenizer: a loaded one of transformers, with the chat template that goes into
    the file. end_id: the token that ends an answer, where that is not eos. asked: ids that the model is asked with.
    advance: told of each tensor that is written; may raise. read: gives a tensor by its name, where it is not the one
    in the folder. Raises BaseModelError for what llama.cpp does not know of such models, ResourceError for a full disk.
    """
    config = _config(folder)
    vocabulary = read_vocabulary(tokenizer, config.vocab_size, end_id, asked)
    planned = _planned(folder, config, quantization, read)

    def describe(writer: Any) -> None:
        label(writer, "model", labels, quantization)
        _shape(writer, config)
        write_vocabulary(writer, vocabulary)

    return write_tensors(target, planned, describe, advance)


def write_tensors(
    target: Path, planned: Sequence[Planned], describe: Callable[[Any], None],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:  # fmt: skip
    """Write a .gguf file, whole or not at all; describe: puts the metadata into the gguf.GGUFWriter that it is given.

    Returns how many tensors have which type. Raises as write_model does.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quantize

    with renamed_when_whole(target) as aside:
        check_room(target, sum(map(_bytes, planned)))
        writer = GGUFWriter(aside, ARCHITECTURE)
        try:
            describe(writer)
            for one in planned:
                kind = GGMLQuantizationType[one.kind]
                writer.add_tensor_info(one.name, one.shape, _float32(), _bytes(one), raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for one in planned:
                values = one.read().float()
                _check_range(one, values)
                writer.write_tensor_data(quantize(values.numpy(), GGMLQuantizationType[one.kind]))
                advance(1)
        finally:
            writer.close()
    return dict(Counter(one.kind for one in planned))


def tensors_in(folder: Path) -> int:
    """How many tensors a folder of transformers' holds."""
    from pronk.ship.export.merging import tensor_files

    return len(tensor_files(folder))


def label(writer: Any, kind: str, labels: Labels, quantization: str) -> None:
    """general.*: what the file is, and what it came from. kind: "model" or "adapter"."""
    from gguf import GGML_QUANT_VERSION

    writer.add_type(kind)
    writer.add_name(labels.name)
    for text, add in ((labels.description, writer.add_description), (labels.license, writer.add_license)):
        if text:
            add(text)
    if labels.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, labels.base)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(FILE_TYPES[quantization])


def stored_as(shape: Sequence[int], quantization: str) -> str:
    """The type of one tensor: vectors stay F32, rows that no block divides F16, as in llama.cpp's own files."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2:
        return "F32"
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[quantization.upper()]]
    return quantization.upper() if shape[-1] % block == 0 else "F16"


def rotary_heads(config: Any) -> dict[str, int]:
    """Heads of the layers whose rows llama.cpp keeps in another order, by the last part of transformers' names."""
    return {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}


def _config(folder: Path) -> Any:
    """The configuration of a model that llama.cpp computes as transformers does."""
    from pronk.model.hub import Base
    from pronk.model.load import load_config

    config = load_config(Base(str(folder), str(folder), local=True))
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    faults = {
        f"it is a {config.model_type} model": config.model_type not in MODELS,
        "its layers have biases": getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False),
        f"its activation is {config.hidden_act}": getattr(config, "hidden_act", "silu") not in ("silu", "swish"),
        f"its rotary positions are scaled by {rope!r}": rope not in ROPE,
    }
    if fault := next((text for text, found in faults.items() if found), None):
        raise BaseModelError(
            f"{folder}: cannot be written to a .gguf file: {fault}; pronk writes those of Llama and Mistral models "
            "without biases, with plain, linear or Llama 3's rotary positions; leave gguf and ollama out of --to"
        )
    return config


def _shape(writer: Any, config: Any) -> None:
    """llama.*: sizes, and how positions turn."""
    from gguf import RopeScalingType

    from pronk.model.load import context_length

    head = _head_dim(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(config.rope_parameters["factor"]))


def _planned(
    folder: Path, config: Any, quantization: str, given: Callable[[str], Tensor] | None
) -> list[Planned]:  # fmt: skip
    """All tensors in llama.cpp's order and names."""
    import torch

    from pronk.model.gguf import AROUND, layer_names, rope_divisors
    from pronk.ship.export.merging import tensor_files

    places, planned = tensor_files(folder), []
    heads, theirs = rotary_heads(config), llama_cpp_names(config.num_hidden_layers)
    embedding, norm, head = AROUND
    ours = [embedding, *layer_names(config.num_hidden_layers), norm]
    ours += [] if config.tie_word_embeddings else [head]
    if strange := sorted(set(places) - {f"{name}.weight" for name in (*ours, head)}):
        raise BaseModelError(f"{folder}: has a tensor that a Llama model has not: {strange[0]}")
    for name in ours:
        file, tensor = places.get(f"{name}.weight"), f"{name}.weight"
        if file is None:
            raise BaseModelError(f"{folder}: lacks {tensor}; a file was not copied whole")
        shape = _shape_of(file, tensor)
        read = partial(_their_rows, given or partial(_saved, file), tensor, heads.get(name.rpartition(".")[2]))
        planned.append(Planned(f"{theirs[name]}.weight", shape, stored_as(shape, quantization), read))
    if config.rope_parameters["rope_type"] == "llama3":
        divisors = torch.from_numpy(rope_divisors(config, config.rope_parameters))
        planned.append(Planned(FACTORS, tuple(divisors.shape), "F32", lambda: divisors))
    return planned


def llama_cpp_names(layers: int) -> dict[str, str]:
    """llama.cpp's name of each tensor of a Llama model by transformers' name, both without `.weight`."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    from pronk.model.gguf import AROUND, layer_names

    names = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    return {name: names.get_name(name) for name in (*layer_names(layers), *AROUND)}


def _shape_of(file: Path, name: str) -> tuple[int, ...]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return tuple(tensors.get_slice(name).get_shape())


def _saved(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        found: Tensor = tensors.get_tensor(name)
    return found


def _their_rows(read: Callable[[str], Tensor], name: str, heads: int | None) -> Tensor:
    """A tensor when it is its turn, rows of q and k in llama.cpp's order."""
    from pronk.model.gguf import rotary_pairs

    return rotary_pairs(read(name), heads) if heads else read(name)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _check_range(one: Planned, values: Tensor) -> None:
    """NaN would spoil the model unseen, and what is too large for a type becomes infinite in it."""
    import torch

    low, high = values.aminmax()  # both NaN where any number is
    largest = max(-float(low), float(high))
    limit = torch.finfo(torch.float16).max if one.kind == "F16" else torch.finfo(torch.float32).max
    if not largest <= limit:
        remedy = "; write it as bf16 (--quant bf16)" if largest < float("inf") else ": its training went wrong"
        raise BaseModelError(f"{one.name}: its largest number is {largest:g}, which {one.kind} cannot hold{remedy}")


@contextmanager
def renamed_when_whole(target: Path) -> Iterator[Path]:
    """A path to write to, beside the target and on its disk."""
    aside = target.with_name(f".{target.name}.part")
    with disk_guard(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def check_room(target: Path, size: int) -> None:
    """Raise ResourceError before a file of `size` bytes is begun that the disk has no room for."""
    free = shutil.disk_usage(existing(target.parent)).free
    if size > free:
        raise ResourceError(
            f"{target.parent}: {target.name} takes {size / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free on "
            "this disk; free some, or write elsewhere (--out)"
        )


def _bytes(one: Planned) -> int:
    from gguf import GGMLQuantizationType, quant_shape_to_byte_shape

    return math.prod(quant_shape_to_byte_shape(one.shape, GGMLQuantizationType[one.kind]))


def _float32() -> Any:
    import numpy as np

    return np.dtype(np.float32)
