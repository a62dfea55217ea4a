"""A recipe as commented YAML: each setting on a line, its reason behind it or above it."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pronk.data.terminal import spelled_out
from pronk.doctor.new_recipe.choosing import Setting
from pronk.recipe.notation import Dumper

WIDTH = 118


def recipe_text(settings: Sequence[Setting], opening: Sequence[str]) -> str:
    """The settings as YAML in the order given, those of one section together. opening: the first lines, as comments.

    What the comments take from data or names stays on its line, whatever it holds.
    """
    lines = [part for line in opening for part in _comment(line, "")]
    sections: list[str] = []
    for setting in settings:
        *above, key = setting.key.split(".")
        for depth, section in enumerate(above):
            if sections[: depth + 1] != above[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        sections = above
        lines += _lines(setting, key, "  " * len(above))
    return "\n".join(lines) + "\n"


def _lines(setting: Setting, key: str, indent: str) -> list[str]:
    line = f"{indent}{key}: {as_yaml(setting.value)}"
    if not setting.why:
        return [line]
    behind = f"{line}  # {_clean(setting.why)}"
    return [behind] if len(behind) <= WIDTH else [*_comment(setting.why, indent), line]


def _comment(text: str, indent: str) -> list[str]:
    # no line breaks but ours: the rest of a comment must not become a key
    start = f"{indent}# "
    return textwrap.wrap(_clean(text), WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False)


def _clean(text: str) -> str:
    return spelled_out(" ".join(text.split()))


def as_yaml(value: Any) -> str:
    """A value on one line, read back as it is."""
    if isinstance(value, float) and 0 < value < 0.01:
        digits, _, exponent = f"{value:.6e}".partition("e")
        return f"{float(digits)}e{int(exponent)}"  # as people write learning rates
    text: str = yaml.dump(
        value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False
    )
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value) if "\n" in text else text  # JSON is YAML that spells its line breaks out


def relative(path: str, folder: Path) -> str:
    """A path as a recipe in `folder` names it; absolute where it lies far away."""
    here, there = Path(path).expanduser().absolute(), folder.absolute()
    try:
        far = os.path.commonpath([here, there]) == here.anchor
    except ValueError:  # another drive
        far = True
    shown = str(here) if far else os.path.relpath(here, there)
    return str(here) if shown.count("..") > 2 else shown
