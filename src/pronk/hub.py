"""The Hugging Face hub: whether it answers, and what its libraries' errors come from."""

from __future__ import annotations

import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, urlsplit

HUB_SECONDS = 3.0
_UNREACHABLE = {
    "ConnectionError", "ConnectError", "ConnectTimeout", "ProxyError", "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
}  # fmt: skip


def hub_answers() -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection; the hub's library would try for a minute."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    hub = urlsplit(constants.ENDPOINT)
    proxies = {} if urllib.request.proxy_bypass(hub.hostname or "") else urllib.request.getproxies()
    door = proxies.get(hub.scheme) or proxies.get("all")
    return _connects(urlsplit(door if "://" in door else f"http://{door}") if door else hub)


def _connects(address: SplitResult) -> bool:
    port = address.port or {"https": 443, "http": 80}.get(address.scheme, 1080)
    answers: list[bool] = []

    def knock() -> None:
        try:
            socket.create_connection((address.hostname, port), HUB_SECONDS).close()
        except OSError:
            return
        answers.append(True)

    # in a thread, as looking up a name knows no time limit
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return bool(answers)


def is_unreachable(error: BaseException) -> bool:
    """Whether an error comes from a hub that cannot be reached."""
    return bool(cause_names(error) & _UNREACHABLE)


def cause_names(error: BaseException | None) -> set[str]:
    """The names of an error's class and of those it came from; the libraries' classes move between versions."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return {type(cause).__name__ for cause in chain}


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Without what these libraries log: retries and warnings that say less than our own message."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
