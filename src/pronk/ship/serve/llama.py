"""llama.cpp for a GGUF: its own server (`llama-server`), or that of the package llama-cpp-python.

Both read the file's own tokenizer; the template is the run's, in place of the file's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pronk.errors import OptionError
from pronk.ship.serve.engine import Place
from pronk.ship.serve.files import write_template, write_tokenizer
from pronk.ship.serve.order import Command, Options, Order, length_of

PACKAGES = (
    "llama-cpp-python", "fastapi", "uvicorn", "sse-starlette", "starlette-context", "pydantic-settings",
)  # fmt: skip
# llama-cpp-python asks for an answer by an empty one at the end of the messages, whatever the template makes of it.
WITHOUT_EMPTY_ANSWER = (
    "{%- if messages and messages[-1]['role'] == 'assistant' and not messages[-1]['content'] %}"
    "{%- set messages = messages[:-1] %}{%- endif %}{%- set add_generation_prompt = true %}\n"
)
# What its settings cannot change.
CHANCE = (
    "this server answers one request after another; it draws tokens and punishes repetition unless a request says "
    "temperature: 0 and repeat_penalty: 1; an unknown model's name gets the answers of this one"
)
ALL_LAYERS = 999  # on the GPU, where llama.cpp is built for one


def command(order: Order, options: Options, place: Place) -> Command:
    """See Choice."""
    assert order.gguf is not None
    if options.dtype is not None:
        raise OptionError("--dtype: a GGUF file has its own precision; export another (`pronk export RUN --to gguf`)")
    made = _own_server if place.program else _python_server
    return made(order, options, place, _length(order, options))


def _length(order: Order, options: Options) -> int:
    """0 is llama.cpp's word for all that the model reads."""
    return length_of(order, options) if order.readers else options.max_model_len or 0


def _own_server(order: Order, options: Options, place: Place, length: int) -> Command:
    name = order.names[0]
    argv = [
        str(place.program), "--model", str(order.gguf), "--alias", name, "--host", options.host,
        "--port", str(place.port), "--ctx-size", str(length), "--n-gpu-layers", str(ALL_LAYERS), "--temp", "0",
        "--no-webui", "--jinja",
    ]  # fmt: skip
    if order.template is not None:
        argv += ["--chat-template-file", str(write_template(place.folder, order))]
    return Command("llama.cpp", [*argv, *options.arguments], [name], {}, {"LLAMA_API_KEY": place.key},
                   notes=_notes(order))  # fmt: skip


def _python_server(order: Order, options: Options, place: Place, length: int) -> Command:
    """Everything in a file: the key is neither among the arguments nor in an environment that children inherit."""
    name = order.names[0]
    model: dict[str, Any] = {
        "model": str(order.gguf), "model_alias": name, "n_ctx": length, "n_gpu_layers": -1, "logits_all": False,
        "verbose": False,
    }  # fmt: skip
    if order.template is not None:
        tokenizer = write_tokenizer(place.folder, order)
        model |= {"chat_format": "hf-tokenizer-config", "hf_tokenizer_config_path": str(_one_file(tokenizer, order))}
    # by default a new request would cut off the one that is being answered
    settings = {"host": options.host, "port": place.port, "api_key": place.key, "interrupt_requests": False}
    file = place.folder / "server.json"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
        json.dump({**settings, "models": [model]}, written)
    notes = [*_notes(order), CHANCE]
    argv = [place.environment.python, "-m", "llama_cpp.server", "--config_file", str(file), *options.arguments]
    return Command("llama.cpp", argv, [name], health="/v1/models", notes=notes)


def _one_file(tokenizer: Path, order: Order) -> Path:
    """tokenizer_config.json with the template in it, where llama-cpp-python looks for it."""
    file = tokenizer / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    template = WITHOUT_EMPTY_ANSWER + (order.template or "")
    file.write_text(json.dumps({**config, "chat_template": template}, ensure_ascii=False), encoding="utf-8")
    return file


def _notes(order: Order) -> list[str]:
    return [f"served from {order.gguf}, which has the precision that it was exported in"]
