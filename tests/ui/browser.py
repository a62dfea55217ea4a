"""A headless Chromium for tests of pages; what it says on its console is a failure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WAIT = 15_000  # milliseconds; a busy machine


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none on this machine."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, width: int = 1400, scheme: str = "light") -> Iterator[Any]:
    """A page at an address, in a profile of its own. `page.asked` are the addresses that it asked for, `page.got` the
    bodies of all answers."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.asked, page.got, wrong = [], [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("response", lambda response: page.got.append(response))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}") or dialog.dismiss())
    page.goto(address)
    yield page
    bodies = [response.text() for response in page.got if response.ok]
    page.got = bodies
    context.close()
    assert wrong == []
