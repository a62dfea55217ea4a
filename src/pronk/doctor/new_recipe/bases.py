"""What is known of a base before any weights are loaded, and of the GPU if there is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pronk.errors import BaseModelError
from pronk.recipe import recipe_of_base

SIZE_IN_NAME = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s?([BbMm])(?![A-Za-z])")


@dataclass(frozen=True)
class BaseFacts:
    """A base. name: as the recipe writes it. tokenizer, context: None where it is not at hand; why: then, why not.
    parameters: None where neither its configuration nor its name tells. chat: whether it has a chat template."""

    name: str
    tokenizer: Any = None
    context: int | None = None
    vocabulary: int | None = None
    parameters: int | None = None
    chat: bool = False
    why: str = ""

    @property
    def size(self) -> str:
        """`135M parameters`."""
        if self.parameters is None:
            return "unknown size"
        number, unit = (self.parameters / 1e9, "B") if self.parameters >= 1e9 else (self.parameters / 1e6, "M")
        return f"{number:.3g}{unit} parameters"


def base_facts(name: str, tell: Callable[[str], None]) -> BaseFacts:
    """Facts of a base by its name in a recipe; one of the hub that cannot be read now is known by its name alone.

    Raises BaseModelError for a folder, a file or a word that is no base.
    """
    from pronk.model.load import context_length, find_base, load_config, load_tokenizer, outline

    base = find_base(recipe_of_base(name).base, tell)
    try:
        tokenizer, config = load_tokenizer(base), load_config(base)
        parameters = sum(weight.numel() for weight in outline(base).parameters())
        chat = bool(getattr(tokenizer, "chat_template", None))
        return BaseFacts(name, tokenizer, context_length(config), config.vocab_size, parameters, chat)
    except BaseModelError as error:
        if base.local:
            raise
        instruct = re.search(r"instruct|chat|-it\b", name, re.IGNORECASE) is not None
        return BaseFacts(name, parameters=_size_in_name(name), chat=instruct, why=str(error).removeprefix("base: "))


def gpu_memory() -> int | None:
    """Bytes of the first GPU; None where PyTorch sees none."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def _size_in_name(name: str) -> int | None:
    found = SIZE_IN_NAME.search(name.rsplit("/", 1)[-1])
    return None if found is None else int(float(found[1]) * (1e9 if found[2] in "Bb" else 1e6))
