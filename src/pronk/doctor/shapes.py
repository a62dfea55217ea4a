"""Bases and data by shape alone, for measurements that hang on sizes and not on what was learned.

A base of a shape is an ordinary model folder with random weights, so that every tool reads it with its own
loader. Data of a shape is token ids drawn at random, every one but the first of a sequence learned.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pronk.errors import OptionError
from pronk.runs import disk_guard
from pronk.tokens.example import Example

STANDARD_DEVIATION = 0.02  # of every matrix, as Llama's configuration initializes them
SHARD_BYTES = 4_000_000_000
# No ids of the data: what a tokenizer may treat in its own way.
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
# Tokens of an Alpaca conversation, prompt and answer: a log-normal of this median and spread, mean 129.
ALPACA_MEDIAN, ALPACA_SPREAD, ALPACA_SHORTEST, ALPACA_LONGEST, ALPACA_BATCH = 108, 0.6, 24, 1024, 64


@dataclass(frozen=True, slots=True)
class BaseShape:
    """The sizes of a Llama model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    rope_theta: float
    tied: bool = False
    context: int = 8192


SHAPES = {
    "llama3-8b": BaseShape(32, 4096, 14336, 32, 8, 128256, 500000.0),
    "llama2-7b": BaseShape(32, 4096, 11008, 32, 32, 32000, 10000.0, context=4096),
    "llama3-1b": BaseShape(16, 2048, 8192, 32, 8, 128256, 500000.0, tied=True),
    "smollm2-135m": BaseShape(30, 576, 1536, 9, 3, 49152, 100000.0, tied=True),
    "tiny": BaseShape(2, 64, 128, 4, 2, 512, 10000.0, context=512),  # trains anywhere within a second
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """The sequences of one step. learned: how many ids at the end of each are targets; None for all but the first."""

    count: int
    length: int | None  # None: as long as conversations of Alpaca are
    learned: int | None = None


def base_shape(name: str) -> BaseShape:
    """A shape by its name. Raises OptionError with the names there are."""
    if name not in SHAPES:
        raise OptionError(f"--base-shape: found {name!r}, expected one of {', '.join(SHAPES)}")
    return SHAPES[name]


def read_lengths(text: str) -> Lengths:
    """Lengths from a text: 4x2048 (sequences × tokens), 16x80:4 (the last 4 of each learned), alpaca, 32xalpaca.

    Raises OptionError where it is none of these.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(alpaca|\d+)(?::(\d+))?", text)
    if not found or (found[1] is None and found[2] != "alpaca"):
        raise OptionError(
            f"--lengths: found {text!r}, expected SEQUENCESxTOKENS such as 4x2048, 16x80:4 where only the last 4 of "
            "each are learned, alpaca, or 32xalpaca"
        )
    count = ALPACA_BATCH if found[1] is None else int(found[1])
    length = None if found[2] == "alpaca" else int(found[2])
    learned = None if found[3] is None else int(found[3])
    shortest = ALPACA_SHORTEST if length is None else length
    if count < 1 or shortest < 2 or learned == 0 or (learned or 0) >= shortest:
        raise OptionError(f"--lengths {text}: each sequence needs a token to read and, after it, one to learn")
    return Lengths(count, length, learned)


def draw_examples(lengths: Lengths, vocabulary: int, steps: int, seed: int) -> list[Example]:
    """Random ids for so many steps, the same for the same seed; every step has sequences of its own."""
    generator = np.random.default_rng(seed)
    sizes = _sizes(lengths, lengths.count * steps, generator)
    examples = []
    for size in sizes:
        target_T = np.ones(size, dtype=bool)
        target_T[: 1 if lengths.learned is None else size - lengths.learned] = False
        examples.append(Example(generator.integers(len(SPECIAL), vocabulary, size), target_T))
    return examples


def _sizes(lengths: Lengths, count: int, generator: np.random.Generator) -> list[int]:
    if lengths.length is not None:
        return [lengths.length] * count
    drawn = generator.lognormal(math.log(ALPACA_MEDIAN), ALPACA_SPREAD, count)
    return [int(size) for size in np.clip(drawn, ALPACA_SHORTEST, ALPACA_LONGEST)]


def write_base(name: str, folder: Path, seed: int = 0) -> None:
    """Write a base of a shape: config.json, bf16 weights, a tokenizer. A folder that holds one is left as it is.

    Weights are drawn on the GPU where there is one. Raises OptionError for a folder that holds another shape,
    ResourceError where the disk is full.
    """
    shape = base_shape(name)
    config = base_config(shape)
    if (folder / "config.json").is_file():  # written last, so the rest is there too
        if json.loads((folder / "config.json").read_text(encoding="utf-8")) != config:
            raise OptionError(f"--base-folder: {folder} holds a base of another shape than {name}; name another folder")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise OptionError(f"--base-folder: {folder} holds other files; name a new folder, or an empty one")
    with disk_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_weights(shape, folder, seed)
        _write_tokenizer(folder, shape)
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def base_config(shape: BaseShape) -> dict[str, Any]:
    """config.json of a base of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.hidden // shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,  # where published models have it, so every tool reads it there
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": SPECIAL["<s>"],
        "eos_token_id": SPECIAL["</s>"],
        "pad_token_id": SPECIAL["<pad>"],
        "torch_dtype": "bfloat16",
    }


def weight_shapes(shape: BaseShape) -> dict[str, tuple[int, ...]]:
    """The name and shape of every weight, in the order in which they are stored."""
    narrow = shape.hidden // shape.heads * shape.key_value_heads
    layer = {
        "input_layernorm": (shape.hidden,),
        "self_attn.q_proj": (shape.hidden, shape.hidden),
        "self_attn.k_proj": (narrow, shape.hidden),
        "self_attn.v_proj": (narrow, shape.hidden),
        "self_attn.o_proj": (shape.hidden, shape.hidden),
        "post_attention_layernorm": (shape.hidden,),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, shape.hidden)}
    found |= {f"model.layers.{n}.{name}.weight": size for n in range(shape.layers) for name, size in layer.items()}
    found["model.norm.weight"] = (shape.hidden,)
    if not shape.tied:
        found["lm_head.weight"] = (shape.vocabulary, shape.hidden)
    return found


def _write_weights(shape: BaseShape, folder: Path, seed: int) -> None:
    """Matrices are normal numbers, vectors (the norms) ones; in files of some gigabytes, with their index."""
    import torch
    from safetensors.torch import save_file

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(seed)
    shards = _shards(weight_shapes(shape))
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name, size in shard.items():
            tensor = torch.ones(size, dtype=torch.bfloat16, device=device)
            if len(size) > 1:
                tensor.normal_(0, STANDARD_DEVIATION, generator=generator)
            tensors[name] = tensor.cpu()
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
        del tensors
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the sides need the memory, and this process lives on beside them
    total = sum(2 * math.prod(one) for one in weight_shapes(shape).values())
    page = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    (folder / "model.safetensors.index.json").write_text(page, encoding="utf-8")


def _shards(shapes: dict[str, tuple[int, ...]]) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = SHARD_BYTES
    for name, size in shapes.items():
        taken = 2 * math.prod(size)
        if taken > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = size
        room -= taken
    return shards


def _write_tokenizer(folder: Path, shape: BaseShape) -> None:
    """A tokenizer of a few words: every tool wants one, and reads only its padding token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = SPECIAL | {f"w{number}": number for number in range(len(SPECIAL), 64)}
    plain = Tokenizer(WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        model_max_length=shape.context,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
