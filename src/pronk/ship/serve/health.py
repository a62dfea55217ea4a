"""Is the engine ready, and does it ask as `pronk chat` does? Small requests to it, on this machine alone."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pronk.data.terminal import plain
from pronk.data.words import counted
from pronk.errors import EngineError, OptionError, RefusedError
from pronk.ship.serve.order import Command, Order
from pronk.ship.serve.process import EngineProcess
from pronk.ship.serve.template import PROBES, probe_ids

PAUSE = 0.25  # seconds between two looks
ANSWER = 300.0  # seconds that a first answer may take: engines compile then
LARGEST = 2**20  # bytes of an answer that is read
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True)
class Address:
    """Where the engine listens."""

    host: str
    port: int
    key: str

    @property
    def url(self) -> str:
        """As a client on this machine writes it."""
        host = ANYWHERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    def ask(self, path: str, body: dict[str, Any] | None = None, seconds: float = 5.0) -> tuple[int, Any]:
        """Status and JSON of an answer; 0 where there is none. Neither proxies nor redirects are followed."""
        host = ANYWHERE.get(self.host, self.host)
        connection = http.client.HTTPConnection(host, self.port, timeout=seconds)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, data, headers)
            answer = connection.getresponse()
            text = answer.read(LARGEST)
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode("utf-8", "replace")


def wait_until_ready(
    process: EngineProcess, address: Address, health: str, seconds: float, tell: Callable[[str], None]
) -> None:
    """Until the engine answers. tell: gets what the engine says and how long it has taken.

    Raises EngineError where it ends, is ended, or takes longer than so many seconds.
    """
    begun = time.monotonic()
    while True:
        if (code := process.code) is not None:
            raise EngineError(f"the engine ended while it started{ended_how(code)}")
        if address.ask(health)[0] == 200:
            return
        passed = time.monotonic() - begun
        if passed > seconds or process.stop.asked:
            raise EngineError(f"the engine was not ready after {passed:.0f} s (--wait {seconds:.0f})")
        tell(f"{passed:.0f} s: {(process.last_lines() or ['starting'])[-1]}")
        time.sleep(PAUSE)


def ended_how(code: int) -> str:
    """The end of a process in words."""
    if code == -9:
        return ", killed from outside, mostly for want of memory"
    return f" by signal {-code}" if code < 0 else f", with exit code {code}"


def check_prompts(address: Address, command: Command, order: Order, name: str) -> str:
    """That the engine, asked for a model by its name, reads the ids that the run is asked with: in words, how sure.

    Raises RefusedError where it reads others, EngineError where it does not answer.
    """
    reader = order.readers[0] if order.readers else None
    exact = 0
    for text in PROBES:
        status, answer = address.ask(*_question(command, order, name, text), seconds=ANSWER)
        if status != 200 or not isinstance(answer, dict):
            raise EngineError(f"the engine does not answer for {name} (status {status}): {plain(str(answer))[:300]}")
        if reader is None:
            continue
        wanted = probe_ids(reader, text)
        read = _read_ids(answer)
        exact += read is not None
        found: Any = read if read is not None else (answer.get("usage") or {}).get("prompt_tokens")
        if found != (wanted if read is not None else len(wanted)):
            raise RefusedError(
                f"{name}: the engine reads other tokens than `pronk chat` asks with, so its answers would not be those "
                f"that were measured: {found} in place of {wanted if read is not None else len(wanted)} for {text!r}"
            )
    if reader is None:
        return "answers"
    what = "the ids that" if exact else "as many tokens as"
    return f"reads {what} `pronk chat` asks with, in {counted(len(PROBES), 'question')}"


def _question(command: Command, order: Order, name: str, text: str) -> tuple[str, dict[str, Any]]:
    asked = {"model": name, "max_tokens": 1, "temperature": 0, **command.request}
    if order.plain:
        return "/v1/completions", {**asked, "prompt": text}
    return "/v1/chat/completions", {**asked, "messages": [{"role": "user", "content": text}]}


def _read_ids(answer: dict[str, Any]) -> list[int] | None:
    """The ids that vLLM says it has read: beside the choices of a chat, in them of a completion."""
    choice = (answer.get("choices") or [{}])[0]
    found = answer.get("prompt_token_ids") or choice.get("prompt_token_ids")
    return list(found) if isinstance(found, list) else None


def free_port(host: str, port: int) -> int:
    """The port, if it is free; for 0 one that is. Raises OptionError."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OptionError(
                f"--host {host} --port {port}: cannot be used ({reason}); choose another port, or 0 for a free one"
            ) from None
        return int(probe.getsockname()[1])
