"""A run made by hand, and a reply heard to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from pronk.ask.conversation import Reply


def write_run(folder: Path, base: Path, rank: int, **recipe: Any) -> None:
    """A run's folder with an adapter of random weights."""
    from pronk.model.adapter import AdapterShape, attach
    from pronk.model.load import find_base, load_model, load_tokenizer
    from pronk.tokens.prompt import Prompt
    from pronk.train.checkpoint import save_adapter

    found = find_base(str(base))
    shape = AdapterShape(rank, 2 * rank)
    adapter = attach(load_model(found, torch.float32, torch.device("cpu")), [shape])
    draw = torch.Generator().manual_seed(rank)
    state = {name: torch.randn(t.shape, generator=draw) * 0.3 for name, t in adapter.state(0).items()}
    (folder / "adapter").mkdir(parents=True)
    save_adapter(folder / "adapter", state, shape, str(base))
    Prompt(recipe["prompt"], load_tokenizer(found)).tokenizer.save_pretrained(folder / "adapter")
    whole = {"base": str(base), "adapter": {"rank": rank, "alpha": 2 * rank}, **recipe}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")


def heard(stream: Iterator[list[Reply]], tokens: int | None = None) -> list[Reply]:
    """The replies in the end, or after so many tokens."""
    replies: list[Reply] = []
    for step, replies in enumerate(stream, start=1):  # noqa: B007
        if step == tokens:
            break
    stream.close()  # type: ignore[attr-defined]
    return replies
