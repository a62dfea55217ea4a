"""A study of three runs over the tiny base, made by hand within a second: large random adapters, so that every model
answers differently, and at length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from talking import write_run

from pronk.ask.conversation import Conversation
from pronk.ask.models import find_models
from pronk.recipe import generation_settings

SYSTEM = "Be brief."


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
