"""What Go's text/template makes of a template, as far as Ollama's templates that pronk writes need it.

Known are text, `{{- trim markers -}}`, range over a list, if, else if, else, define, template, and the functions eq,
not, and, len, printf and slice. Anything else is refused: what is not understood is not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# what stands between quotes ends no action
ACTION = re.compile(r"""\{\{(-\s)?\s*((?:"(?:[^"\\]|\\.)*"|[^"])*?)\s*(\s-)?\}\}""", re.DOTALL)
WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()]|[^\s()"]+)')
BLOCKS = ("range", "if", "define")


@dataclass
class Node:
    """A part of a template. verb: text, print, range, if, define or template; what: the text, or the words behind the
    verb; inside, otherwise: what stands up to `else` and up to `end`."""

    verb: str
    what: Any
    inside: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Scope:
    """What names mean. dot: `.`; names: `$`, and those that range has set."""

    dot: Any
    names: Mapping[str, Any]
    defined: Mapping[str, list[Node]]


def render(template: str, data: Mapping[str, Any]) -> str:
    """The text of a template. Raises ValueError for what is not known here."""
    nodes, rest = _parse(_pieces(template))
    if rest:
        raise ValueError(f"{rest[0][1]} without a beginning")
    defined = {_string(node.what[0]): node.inside for node in nodes if node.verb == "define"}
    return _written(nodes, Scope(data, {"$": data}, defined))


def _pieces(template: str) -> list[tuple[str, str]]:
    """Text and actions in turn, the text trimmed as the actions beside it say."""
    pieces, start, trim = [], 0, False
    for found in ACTION.finditer(template):
        text = template[start : found.start()]
        text = text.lstrip() if trim else text
        pieces += [("text", text.rstrip() if found[1] else text), ("action", found[2])]
        start, trim = found.end(), bool(found[3])
    text = template[start:]
    return [*pieces, ("text", text.lstrip() if trim else text)]


def _parse(pieces: list[tuple[str, str]]) -> tuple[list[Node], list[tuple[str, str]]]:
    """The nodes up to an `else` or `end` that closes none of them, and what is left from there on."""
    nodes = []
    while pieces:
        (kind, text), *pieces = pieces
        words = WORD.findall(text) if kind == "action" else []
        verb = words[0] if words else ""
        if kind == "text":
            nodes.append(Node("text", text))
        elif verb in ("else", "end"):
            return nodes, [(kind, text), *pieces]
        elif verb in BLOCKS:
            node, pieces = _parse_block(verb, words[1:], pieces)
            nodes.append(node)
        else:
            nodes.append(Node("template", words[1:]) if verb == "template" else Node("print", words))
    return nodes, []


def _parse_block(verb: str, what: list[str], pieces: list[tuple[str, str]]) -> tuple[Node, list[tuple[str, str]]]:
    """A block up to its `end`; the `if` of an `else if` shares it."""
    inside, pieces = _parse(pieces)
    closing = WORD.findall(pieces[0][1]) if pieces else []
    if closing[:2] == ["else", "if"]:
        chained, pieces = _parse_block("if", closing[2:], pieces[1:])
        return Node(verb, what, inside, [chained]), pieces
    otherwise: list[Node] = []
    if closing == ["else"]:
        otherwise, pieces = _parse(pieces[1:])
    if not pieces or pieces[0][1] != "end":
        raise ValueError("an `end` is missing")
    return Node(verb, what, inside, otherwise), pieces[1:]


def _written(nodes: Sequence[Node], scope: Scope) -> str:
    """A stack of what is still to be written, not recursion: a template may call itself for every character."""
    parts, waiting = [], _turned(nodes, scope)
    while waiting:
        node, scope = waiting.pop()
        if node.verb == "text":
            parts.append(str(node.what))
        elif node.verb == "print":
            parts.append(str(_value(node.what, scope)))
        elif node.verb == "if":
            waiting += _turned(node.inside if _value(node.what, scope) else node.otherwise, scope)
        elif node.verb == "range":
            waiting += [pair for one in reversed(_ranged(node, scope)) for pair in _turned(node.inside, one)]
        elif node.verb == "template":
            name, *argument = node.what
            dot = _value(argument, scope)
            waiting += _turned(scope.defined[_string(name)], Scope(dot, {"$": dot}, scope.defined))
    return "".join(parts)


def _turned(nodes: Sequence[Node], scope: Scope) -> list[tuple[Node, Scope]]:
    """The first node last."""
    return [(node, scope) for node in reversed(nodes)]


def _ranged(node: Node, scope: Scope) -> list[Scope]:
    """What names mean in each round of `range $i, $m := LIST`, or `range LIST`."""
    names, words = [], list(node.what)
    if ":=" in words:
        at = words.index(":=")
        names, words = [word.rstrip(",") for word in words[:at]], words[at + 1 :]
    return [
        Scope(one, {**scope.names, **dict(zip(names, (number, one), strict=False))}, scope.defined)
        for number, one in enumerate(_value(words, scope))
    ]


def _value(words: Sequence[str], scope: Scope) -> Any:
    """The value of an expression: a function with its arguments, or one value."""
    values, rest = [], list(words)
    function = FUNCTIONS.get(rest[0]) if rest else None
    rest = rest[1:] if function else rest
    while rest:
        value, rest = _operand(rest, scope)
        values.append(value)
    if function:
        return function(*values)
    if len(values) != 1:
        raise ValueError(f"not known: {' '.join(words)}")
    return values[0]


def _operand(words: list[str], scope: Scope) -> tuple[Any, list[str]]:
    word, *rest = words
    if word == "(":
        depth, end = 1, 0
        while depth:
            depth += {"(": 1, ")": -1}.get(rest[end], 0)
            end += 1
        return _value(rest[: end - 1], scope), rest[end:]
    if word.startswith('"'):
        return _string(word), rest
    if word.isdigit():
        return int(word), rest
    name, *fields = word.split(".")
    if name and name not in scope.names:
        raise ValueError(f"not known: {word}")
    value = scope.names[name] if name else scope.dot
    for one in filter(None, fields):
        value = value.get(one, "")
    return value, rest


def _string(word: str) -> str:
    """A quoted string; what pronk writes into one has the same escapes in Go and in JSON."""
    return str(json.loads(word))


def _printf(form: str, value: str) -> str:
    """`%.13s`: that many characters of a text."""
    found = re.fullmatch(r"%\.(\d+)s", form)
    if not found:
        raise ValueError(f"not known: printf {form}")
    return value[: int(found[1])]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda one, *others: one in others,
    "not": lambda value: not value,
    "and": lambda *values: all(values),
    "len": len,
    "printf": _printf,
    "slice": lambda value, start, end=None: value[start:end],
}
