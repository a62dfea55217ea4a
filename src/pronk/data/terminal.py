"""Text that a terminal or a page may show: data and what models write may hold anything, and steers nothing."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from typing import Any

COLUMNS = 80  # of a page, and of what is no terminal

# What would steer a terminal or reorder a line: control characters, line separators, and bidirectional overrides.
# Joiners stay: letters of many scripts, and emoji, need them.
STEERING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)


def plain(text: str) -> str:
    """The text with all that could steer a terminal spelled out, such as \\x1b; line breaks stay, tabs are spaces."""
    return spelled_out(text.replace("\r\n", "\n").expandtabs(4))


def spelled_out(text: str) -> str:
    """The same, and tabs and carriage returns are spelled out too, as \\t and \\r."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain_json(value: Any, indent: int | None = None) -> str:
    """JSON in which Korean stays readable, and what steers terminals is escaped; it stands in strings only."""
    return harmless_json(json.dumps(value, ensure_ascii=False, indent=indent))


def harmless_json(text: str) -> str:
    """A JSON text in which what steers terminals is escaped."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cells(text: str) -> int:
    """Columns that a text takes; Korean letters take two each."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def width() -> int:
    """Columns of the terminal that prints what is printed; 80 where that is a file or a pipe."""
    return shutil.get_terminal_size((COLUMNS, 24)).columns
