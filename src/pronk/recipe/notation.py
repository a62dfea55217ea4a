"""YAML as recipes use it, and dotted keys in nested dictionaries."""

from __future__ import annotations

import re
from typing import Any

import yaml

from pronk.errors import RecipeError


class Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in YAML 1.2, and a key may appear only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Puts in quotes the texts that Loader would read as numbers."""


for _side in (Loader, Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def parse_yaml(text: str, where: str) -> Any:
    """Plain values. Raises RecipeError that says where and on which line it is not YAML."""
    try:
        return yaml.load(text, Loader=Loader)  # a SafeLoader: builds plain values only
    except (yaml.YAMLError, ValueError, TypeError) as error:  # impossible dates, lists as keys
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def assign(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, making sections as needed."""
    *names, last = key.split(".")
    for name in names:
        plain[name] = inner = section(plain, name)
        plain = inner
    plain[last] = value


def section(plain: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy of a section, to be changed; empty where there is none."""
    inner = plain.get(name)
    if inner is not None and not isinstance(inner, dict):
        raise RecipeError(f"{name}: found {inner!r}, expected keys and values")
    return dict(inner or {})
