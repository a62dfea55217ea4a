"""docs/recipe.md, generated from the schema: `python -m pronk.doctor.reference > docs/recipe.md`."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pronk.recipe import Recipe
from pronk.recipe.checks import CHECKS, NOT_ALLOWED

HEAD = """# Recipe reference

Generated from the schema in `src/pronk/recipe/`; do not edit. A key that is not listed is an error.
"""


def reference_page() -> str:
    """The page: a table for each section, with every key's type, default and meaning."""
    tables = []
    for title, model in _sections():
        rows = [_row(name, field) for name, field in model.model_fields.items() if not _is_section(field)]
        if rows:
            note = (model.__doc__ or "").strip().splitlines()[0]
            tables.append(
                "\n".join([f"## {title}", "", note, "", "| key | type | default | |", "|---|---|---|---|", *rows])
            )
    return HEAD + "\n" + "\n\n".join([*tables, _checks()]) + "\n"


def _checks() -> str:
    """What `pronk check` may find, by the names that `allow` takes."""
    note = "What `pronk check` may find, by the names that `allow` takes. Those in italics cannot be allowed."
    rows = [f"| {f'*{name}*' if name in NOT_ALLOWED else f'`{name}`'} | {text} |" for name, text in CHECKS.items()]
    return "\n".join(["## Names of checks", "", note, "", "| name | |", "|---|---|", *rows])


def _sections(model: type[BaseModel] = Recipe, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield path or "The top level", model
    for name, field in model.model_fields.items():
        for section in _models(field.annotation):
            yield from _sections(section, f"{path}.{name}".lstrip("."))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key may hold: its type, or those that its type names, each once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(model for part in typing.get_args(annotation) for model in _models(part)))


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_yaml(field.default)}`"
    kind = _kind(field.annotation).replace("|", "or")
    return f"| `{field.alias or name}` | {kind} | {default} | {(field.description or '').replace('|', '/')} |"


def _yaml(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


def _kind(annotation: Any) -> str:
    """A type in the words of a recipe's author."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any"}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys"
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments))
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"keys with {_kind(arguments[1])}"
    if int in arguments and float in arguments:
        arguments = tuple(argument for argument in arguments if argument is not int)
    return " | ".join(dict.fromkeys(_kind(argument) for argument in arguments))


if __name__ == "__main__":
    print(reference_page(), end="")
