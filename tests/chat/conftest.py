"""A study of three runs over the tiny base, made by hand within a second: large random adapters, so that every model
answers differently, and at length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from pronk.ask.conversation import Conversation, Reply
from pronk.ask.models import find_models
from pronk.recipe import generation_settings

SYSTEM = "Be brief."


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


@pytest.fixture(scope="session")
def study(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `rank-2` (chat form, a system message) and `rank-3` (alpaca); not to be changed."""
    place = tmp_path_factory.mktemp("talk")
    talk = {"source": "rows.jsonl", "format": "messages"}
    write_run(place / "runs" / "rank-2", tiny_base, 2, prompt="chat", data={**talk, "system": SYSTEM})
    write_run(place / "runs" / "rank-3", tiny_base, 3, prompt="alpaca", data=talk)
    (place / "study.json").write_text(json.dumps({"runs": [], "comparisons": []}), encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def loaded() -> dict[tuple[str, ...], Conversation]:
    """Conversations by the names of their models: loading takes most of a test's time."""
    return {}


@pytest.fixture
def talk(
    study: Path,
    loaded: dict[tuple[str, ...], Conversation],
    one_thread: None,  # noqa: ARG001
) -> Callable[..., Conversation]:
    """A conversation from its beginning: with runs of the study by name, and their base if that is among the names;
    all of them if there is none."""

    def make(*names: str, system: str | None = None, **settings: Any) -> Conversation:
        if names not in loaded:
            targets = [str(study / "runs" / name) for name in names if name != "base"] or [str(study)]
            models = find_models(targets, with_base="base" in names or not names)
            loaded[names] = Conversation(models, generation_settings({}), Console(stderr=True))
        loaded[names].reset()
        loaded[names].system = system
        loaded[names].settings = generation_settings({"max_new_tokens": 8, **settings})
        return loaded[names]

    return make


def heard(stream: Iterator[list[Reply]], tokens: int | None = None) -> list[Reply]:
    """The replies in the end, or after so many tokens."""
    replies: list[Reply] = []
    for step, replies in enumerate(stream, start=1):  # noqa: B007
        if step == tokens:
            break
    stream.close()  # type: ignore[attr-defined]
    return replies
