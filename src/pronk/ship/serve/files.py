"""The files that engines read: the runs' template, their tokenizer, how answers end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pronk.ship.serve.order import Order


def write_template(folder: Path, order: Order) -> Path:
    """The runs' form as a file."""
    assert order.template is not None
    file = folder / "template.jinja"
    file.write_text(order.template, encoding="utf-8", newline="\n")
    return file


def write_tokenizer(folder: Path, order: Order) -> Path:
    """The runs' tokenizer, with their form as its chat template."""
    made = folder / "tokenizer"
    tokenizer: Any = order.readers[0].prompt.tokenizer
    kept, tokenizer.chat_template = tokenizer.chat_template, order.template
    try:
        tokenizer.save_pretrained(made)
    finally:
        tokenizer.chat_template = kept
    return made


def generation_config(order: Order) -> dict[str, Any]:
    """Answers end at the token that the runs have learned to end with, and are greedy unless a client asks otherwise,
    as in `pronk chat`."""
    prompt = order.readers[0].prompt
    return {"eos_token_id": [prompt.end_id], "pad_token_id": prompt.tokenizer.pad_token_id, "do_sample": False}


def write_generation_config(folder: Path, order: Order) -> Path:
    """A folder with generation_config.json, in the form of transformers."""
    made = folder / "generation"
    made.mkdir(exist_ok=True)
    (made / "generation_config.json").write_text(json.dumps(generation_config(order), indent=2), encoding="utf-8")
    return made
