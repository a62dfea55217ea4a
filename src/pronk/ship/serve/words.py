"""What `pronk serve` says: how to ask the server, and what an engine's last words mean."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pronk.ship.serve.health import Address
from pronk.ship.serve.order import Command, Order

QUESTION = "What is a llama?"
# The commonest ends of an engine, by what stands in its last lines; the first that is found is told.
CAUSES = (
    (r"address already in use|errno 98\b", "the port is taken; choose another with --port, or 0 for a free one"),
    (r"max_model_len|max seq(uence)? len|KV cache is needed|increas\w+ .?gpu_memory_utilization",
     "there is too little memory for conversations of that length; lower --max-model-len"),
    (r"out of memory|OutOfMemoryError|cannot allocate memory|bad_alloc|failed to allocate|Free memory on device",
     "there is too little memory; end what else runs on this device, or lower --max-model-len or --dtype"),
    (r"unknown quantization|quantization .*(not supported|unsupported)|bitsandbytes.*(install|not)",
     "the engine cannot keep the base quantized here; add --set quantize=none"),
    (r"lora rank \d+ is greater|max_lora_rank", "an adapter has a higher rank than the engine was started for"),
    (r"unrecognized arguments|invalid choice|no such option",
     "this version of the engine does not know an option; another version of it may"),
    (r"No module named '?([\w.]+)|ModuleNotFoundError", "a package is missing in the engine's environment"),
)  # fmt: skip
ERROR = re.compile(r"\b\w+(Error|Exception): \S")


def likely_cause(lines: Sequence[str]) -> str:
    """What the last lines of an engine's log mean, in a few words; empty where they are not known."""
    text = "\n".join(lines)
    return next((words for pattern, words in CAUSES if re.search(pattern, text, re.IGNORECASE)), "")


def first_error(lines: Sequence[str]) -> str:
    """The error that an engine's last lines begin with: what follows is mostly its consequences. Empty for none."""
    return next((line[:300] for line in lines if ERROR.search(line) and "WARNING" not in line), "")


def is_local(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_warning(host: str) -> Iterator[str]:
    """A line for a server that others can reach."""
    if not is_local(host):
        yield (
            f"--host {host}: everybody who can reach this machine can try the key, which travels unencrypted; put a "
            "server with TLS before it"
        )


def as_ready(address: Address, command: Command, label: str, log: Path) -> dict[str, Any]:
    """What a program needs to know of a server that is ready; the key is no part of it."""
    return {"address": address.url, "models": list(command.names), "engine": label, "key": bool(address.key),
            "log": str(log)}  # fmt: skip


def ready_lines(address: Address, command: Command, order: Order, key: str | None, log: Path) -> Iterator[str]:
    """How to ask the server. key: one that was made here, to be shown this once."""
    name = (order.names or command.names)[0]
    yield f"ready: {address.url}  (log: {log})"
    yield f"models: {', '.join(command.names)}"
    if key is not None:
        yield f"key, shown this once: export PRONK_API_KEY={key}"
    path, body = _example(order, name)
    header = '-H "Authorization: Bearer $PRONK_API_KEY" ' if bool(address.key) else ""
    yield ""
    yield f"curl {address.url}{path} {header}\\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    yield ""
    api_key = "os.environ['PRONK_API_KEY']" if bool(address.key) else "'none'"
    call, argument = ("completions", f"prompt={QUESTION!r}") if order.plain else (
        "chat.completions", f"messages=[{{'role': 'user', 'content': {QUESTION!r}}}]"
    )  # fmt: skip
    yield "import os, openai" if bool(address.key) else "import openai"
    yield f"client = openai.OpenAI(base_url={address.url!r}, api_key={api_key})"
    yield f"client.{call}.create(model={name!r}, {argument})"
    yield ""
    yield "Ctrl-C ends it"


def _example(order: Order, name: str) -> tuple[str, str]:
    if order.plain:
        return "/completions", json.dumps({"model": name, "prompt": QUESTION})
    return "/chat/completions", json.dumps({"model": name, "messages": [{"role": "user", "content": QUESTION}]})
