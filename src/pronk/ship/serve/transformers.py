"""`transformers serve`: one run, by transformers and PEFT, where nothing else is installed. It knows no key.

It loads a model from a folder and calls it by the folder's name; so the run is laid out in a folder that has its name.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pronk.errors import OptionError
from pronk.model.saved import CONFIG, WEIGHTS
from pronk.ship.serve.engine import Place
from pronk.ship.serve.files import generation_config, write_tokenizer
from pronk.ship.serve.order import Command, Options, Order, dtype_of
from pronk.ship.serve.vllm import differs, single_scales
from pronk.ship.serve.words import is_local

if TYPE_CHECKING:
    from pronk.ask.asking import Reader

PACKAGES = ("transformers", "torch", "accelerate", "peft", "fastapi", "uvicorn", "openai")
QUANTIZED = {"none": [], "nf4": ["--quantization", "bnb-4bit"], "int8": ["--quantization", "bnb-8bit"]}


def command(order: Order, options: Options, place: Place) -> Command:
    """See Choice. Raises OptionError for a host that others can reach: this engine asks for no key."""
    reader, there = order.readers[0], place.environment
    if not is_local(options.host):
        raise OptionError(
            f"--host {options.host}: `transformers serve` asks for no key, so it is served to this machine alone; "
            "install vLLM, or leave --host out"
        )
    if options.max_model_len is not None:
        raise OptionError(
            "--max-model-len: `transformers serve` has no such limit; leave it out, or use another engine"
        )
    quantize = reader.model.recipe.quantize
    flags = QUANTIZED.get(quantize) if quantize == "none" or there.has("bitsandbytes") else None
    name = _laid_out(order, reader, place.folder)
    argv = [
        there.python, "-m", "transformers.cli.transformers", "serve", name, "--host", options.host,
        "--port", str(place.port), "--dtype", dtype_of(order, options, there.cuda), *(flags or []),
    ]  # fmt: skip
    notes = ["this engine asks for no key: whoever is logged in to this machine can ask it, and it answers one request "
             "after another"]  # fmt: skip
    return Command(
        "transformers", [*argv, *options.arguments], [name], {"HF_HUB_OFFLINE": "1"},
        notes=[*notes, *(single_scales(reader.model.recipe) if flags is not None else [differs(quantize)])],
    )  # fmt: skip


def _laid_out(order: Order, reader: Reader, folder: Path) -> str:
    """The run as a model that transformers loads by its name in this folder: its base's weights where they are, answers
    that end as ours do, the tokenizer with the run's form, and the adapter, which transformers puts on the base itself.
    """
    made = folder / reader.model.name.replace("/", "-")  # of a run with its study's name
    made.mkdir()
    source = _weights(reader)
    for file in [*source.glob("*.safetensors"), *source.glob("*.safetensors.index.json"), source / "config.json"]:
        (made / file.name).symlink_to(file.resolve())
    (made / "generation_config.json").write_text(json.dumps(generation_config(order)), encoding="utf-8")
    if reader.model.adapter:
        for name in (WEIGHTS, CONFIG):
            (made / name).symlink_to((reader.model.adapter.folder / name).absolute())
    shutil.copytree(write_tokenizer(folder, order), made, dirs_exist_ok=True)
    return made.name


def _weights(reader: Reader) -> Path:
    """The folder with the base's weights."""
    from pronk.model.hub import downloaded

    found = reader.base.location if reader.base.local else downloaded(reader.base.name)
    if found is None:
        raise OptionError(
            f"the weights of {reader.base.name} are not on this machine yet; any use of them fetches them, such as "
            f"`pronk generate {reader.base.name}`"
        )
    return Path(found)
