"""Tokens, taken out of everything that the doctor shows: what another library says may quote them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from pronk.doctor.health.finding import Line

HIDDEN = "(hidden)"
_NAMED = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL", re.IGNORECASE)
_SHAPED = re.compile(r"\b(?:hf_|sk-)[A-Za-z0-9_-]{8,}|(?i:\bbearer\s+)\S+|(?<=://)[^/\s@]+:[^/\s@]+(?=@)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SHORTEST = 6  # a shorter value, such as "true", is no secret, and hiding it would hide words


def hide(text: str, known: Iterable[str] | None = None) -> str:
    """The text without tokens, and without control characters, as it goes to a terminal.

    known: what must not be shown; what environment and token files hold when absent. What looks like a token is
    hidden too.
    """
    for secret in sorted(secrets() if known is None else known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _CONTROL.sub("", _SHAPED.sub(HIDDEN, text))


def without_secrets(lines: Iterable[Line]) -> list[Line]:
    """The same lines without tokens."""
    known = secrets()
    return [Line(one.name, one.status, hide(one.found, known), hide(one.remedy, known)) for one in lines]


def secrets() -> set[str]:
    """What environment variables named so, and the hub's token files, hold."""
    # os.path, as pathlib raises for a name that is too long, which a token is
    found = {value for name, value in os.environ.items() if _NAMED.search(name) and not os.path.exists(value)}
    for file in _token_files():
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found |= {text.strip(), *(line.partition("=")[2].strip() for line in text.splitlines())}
    return {value.strip() for value in found if len(value.strip()) >= SHORTEST}


def _token_files() -> list[Path]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    named = [os.environ.get(name) for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH")]
    return [home / "token", home / "stored_tokens", *(Path(name).expanduser() for name in named if name)]
