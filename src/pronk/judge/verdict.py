"""A judge's reply, taken for a verdict only where it is one, to the letter."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

CHOICES = ("A", "B", "tie")
LONGEST_REASON = 2000  # letters that are kept
_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)  # what models that think aloud write first


@dataclass(frozen=True, slots=True)
class Verdict:
    """choice: A, B or tie. reason: hostile text, like any model's."""

    choice: str
    reason: str = ""


def read_verdict(reply: str) -> Verdict | None:
    """The verdict of a reply: one JSON object with `verdict` and, optionally, `reason`, and nothing around it.

    Allowed around it are a code fence and, before it, what the model thought aloud. None for anything else: another
    key, a key twice, another word, text beside the object. A guess would be a verdict that nobody gave.
    """
    text = reply.strip()
    if thought := _THOUGHT.match(text):
        text = text[thought.end() :].strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1]
    try:
        found = json.loads(text, object_pairs_hook=_once_each)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not {"verdict"} <= found.keys() <= {"verdict", "reason"}:
        return None
    choice, reason = found["verdict"], found.get("reason", "")
    if not (isinstance(choice, str) and choice in CHOICES and isinstance(reason, str)):
        return None
    return Verdict(choice, reason[:LONGEST_REASON])


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)
