"""Secrets by their form: keys, tokens, passwords. A model learns them by heart and tells them to whoever asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """One kind of secret: its name in the singular and plural, what a text must contain to hold one, and its form.

    The form's group `value`, where there is one, is the secret itself.
    """

    name: str
    names: str
    hints: tuple[str, ...]
    form: re.Pattern[str]

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where such secrets begin and end."""
        for hint in self.hints:
            if hint in text:
                break
        else:
            return
        for match in self.form.finditer(text):
            group = "value" if "value" in self.form.groupindex else 0
            if group == 0 or _could_be_one(match.group(group)):
                yield match.span(group)


def _could_be_one(value: str) -> bool:
    """Whether an assigned value looks drawn or chosen, not like a placeholder, a variable or a call."""
    made_up = re.search(r"your|example|xxx|\*\*|changeme|placeholder|<|>|\$|\{|\(|\[|12345678|비밀번호", value, re.I)
    return not made_up and re.search(r"\d", value) is not None and re.search(r"[^\W\d]", value) is not None


_WORDS = (
    "pass",
    "Pass",
    "PASS",
    "pwd",
    "PWD",
    "ecret",
    "ECRET",
    "key",
    "KEY",
    "Key",
    "oken",
    "OKEN",
    "비밀번호",
    "암호",
)
SECRETS = (
    Secret(
        "private key", "private keys", ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|(?:(?!-----)[\s\S])*)"
        ),
    ),
    Secret("AWS key", "AWS keys", ("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", re.ASCII)),
    Secret(
        "GitHub token", "GitHub tokens", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{22,}", re.ASCII),
    ),
    Secret(
        "API key of an AI service", "API keys of AI services", ("sk-",),
        re.compile(r"\bsk-(?=[\w-]{0,200}\d)(?=[\w-]{0,200}[A-Z])[\w-]{20,}", re.ASCII),
    ),
    Secret(
        "Hugging Face token", "Hugging Face tokens", ("hf_",),
        re.compile(r"\bhf_(?=\w{0,60}[A-Z])[A-Za-z0-9]{30,}", re.ASCII),
    ),
    Secret(
        "Slack token", "Slack tokens", ("xox", "hooks.slack.com"),
        re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[\w/]{20,}", re.ASCII),
    ),
    Secret("Google API key", "Google API keys", ("AIza",), re.compile(r"\bAIza[\w-]{35}", re.ASCII)),
    Secret(
        "JSON web token", "JSON web tokens", ("eyJ",),
        re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}", re.ASCII),
    ),
    Secret(
        "password or key in an assignment", "passwords or keys in assignments", _WORDS,
        re.compile(
            r"(?:(?<![a-z])(?:pass(?:word|wd|phrase)|pwd|secret|api[_-]?key|(?:secret|access|private)[_-]?(?:access[_-]?)?key"
            r"|(?:access|auth|api|bearer)[_-]?token)|비밀번호|암호)[\"']?\s*(?:[:=]|는|은|is)\s*[\"'`]?(?P<value>[^\s\"'`,;]{8,})",
            re.IGNORECASE,
        ),
    ),
)  # fmt: skip
