"""Texts from users and models inside a Markdown page: they are shown, and mark up nothing.

What a terminal would obey is spelled out first (data/terminal.py). Markdown is HTML too, so its marks go as well.
"""

from __future__ import annotations

import re

from pronk.data.terminal import spelled_out

# Marks of Markdown, HTML and the hub's formulas. A letter as a number is a letter to every reader, and no mark.
_MARKS = re.compile(r"[\\`*_\[\]<>|&#~$@:!{}]")
_WEB = re.compile(r"(?i)www\.")  # which readers turn into a link without any mark


def words(text: str) -> str:
    """A text within a line or a table's cell, as nothing but letters."""
    line = " ".join(spelled_out(re.sub(r"\s+", " ", text)).split())
    return _WEB.sub("www&#46;", _MARKS.sub(lambda found: f"&#{ord(found[0])};", line))


def block(text: str, language: str = "") -> str:
    """A text as a block of code, whose fence is longer than any in it; lines stay."""
    whole = "\n".join(spelled_out(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", whole)), default=0))
    return f"{fence}{language}\n{whole.rstrip()}\n{fence}"


def plain_line(text: str) -> str:
    """A text as one line for YAML or Python, which quote it themselves."""
    return " ".join(spelled_out(text).split())
