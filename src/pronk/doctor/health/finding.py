"""One line of the doctor's list."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "failed", "note"]
MARKS: dict[str, str] = {"ok": "✓ ok    ", "failed": "✗ failed", "note": "– note  "}
COLOURS = {"ok": "green", "failed": "bold red", "note": "yellow"}
WIDTH, NAME = 80, 16


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at, how it is, and (remedy) what to do about it. A note is worth knowing, and no failure."""

    name: str
    status: Status
    found: str
    remedy: str = ""

    def text(self) -> str:
        """The line for people, wrapped at 80 columns, its remedy below it; read without colours too."""
        head = f"{MARKS[self.status]} {self.name:<{NAME}} "
        indent = " " * len(MARKS[self.status]) + " "
        rows = _wrapped(self.found, head, " " * len(head))
        if self.remedy:
            rows += _wrapped(self.remedy, f"{indent}→ ", f"{indent}  ")
        return "\n".join(rows)


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """For --json: whether nothing failed, and every line."""
    rows = [{"name": one.name, "status": one.status, "found": one.found, "remedy": one.remedy} for one in lines]
    return {"ok": not any(one.status == "failed" for one in lines), "lines": rows}


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    # a path or a command may be longer than a line: broken, it could not be copied
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]
