"""A server that judges as a test has written it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import pronk.evaluate.served_call as calling
from scripted_server import KEY, Scripted, scripted


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[dict[str, Any]], str]], Scripted]]:
    """A function of the judge: a running server. A key is in the environment; further tries come at once."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRONK_API_KEY", KEY)
    monkeypatch.setattr(calling, "DELAYS", (0.01, 0.01))
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(scripted(answer))
