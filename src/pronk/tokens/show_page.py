"""Examples as one self-contained page, without scripts, network or fonts of its own."""

from __future__ import annotations

import base64
import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pronk.data.terminal import plain
from pronk.data.words import counted
from pronk.tokens.show import Block, Shown, ShownExample
from pronk.tokens.show_terminal import block_title, heading, style_of, visible

_HERE = Path(__file__).parent


def render(shown: Shown, ids: bool = False) -> str:
    """The page as text; ids: each token in a box of its own, its ids under it.

    Everything from recipe and data is escaped, and what would reorder text is spelled out. A page that is opened
    may load nothing and run nothing: its policy allows this one style sheet, by its hash.
    """
    style = (_HERE / "show.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("show.html").render(
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{_hash(style)}'; base-uri 'none'; form-action 'none'",
        heading=[plain(line) for line in heading(shown)],
        base=plain(shown.base),
        end=plain(shown.end),
        end_id=shown.end_id,
        examples=[_view(example, ids) for example in shown.examples],
        ids=ids,
    )


def _hash(style: str) -> str:
    """Of what stands between the tags of the style element, line breaks included."""
    return base64.b64encode(hashlib.sha256(f"\n{style}\n".encode()).digest()).decode()


def _view(example: ShownExample, ids: bool) -> dict[str, Any]:
    return {
        "place": plain(example.place),
        "part": example.part,
        "count": counted(example.count, "token"),
        "learned": f"{example.learned:,}",
        "cut": f"{example.cut:,}" if example.cut else "",
        "blocks": [
            {"kind": block.kind, "title": block_title(block), "spans": (_boxes if ids else _spans)(block)}
            for block in example.blocks
        ],
    }


def _boxes(block: Block) -> list[dict[str, Any]]:
    """A box for each token. last: a line of the text ends there."""
    return [
        {
            "style": style_of(token, block),
            "text": visible(token.text),
            "ids": "+".join(map(str, token.ids)),
            "last": token.text.endswith("\n"),
        }
        for token in block.tokens
    ]


def _spans(block: Block) -> list[dict[str, Any]]:
    """Neighbours of one style as one text; spaces and line breaks at the block's end as signs."""
    spans = [
        {"style": style, "text": plain("".join(token.text for token in tokens))}
        for style, tokens in groupby(block.tokens, lambda token: style_of(token, block))
    ]
    last = spans[-1]["text"]
    bare = last.rstrip("\n ")
    spans[-1]["text"] = bare
    return [*spans, {"style": "quiet", "text": visible(last[len(bare) :])}] if bare != last else spans
