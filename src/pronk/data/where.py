"""`data.where`: which rows to keep, as a small expression over their columns.

The text is parsed by Python's own parser and built into closures from a short list of what is allowed:
column names, constants, lists of constants, comparisons, `in`, `and`, `or`, `not`, and four functions.
Nothing is ever evaluated or called by name, so an expression can do no more than compare.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pronk.data.rows import Problems, Row
from pronk.data.words import described, did_you_mean, enumerated, quoted
from pronk.errors import DataError

Values = Mapping[str, Any]
Term = Callable[[Values], Any]

LONGEST = 2000  # letters; far beyond what a person writes
CONSTANTS = {"null": None, "true": True, "false": False}  # as in YAML and JSON
ORDERINGS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
ALLOWED = (
    "allowed are column names, texts, numbers, true, false, null, lists of these, == != < <= > >= in, and or not, "
    "len(), lower(), number() and column()"
)


class _MismatchError(Exception):
    """Two values that cannot be compared, or one that a function does not take; told with the row."""


class Where:
    """One expression, parsed. Raises DataError with the position of what is not allowed."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.splitlines()).strip()  # a YAML text may span lines
        self.columns: list[str] = []  # that it names, in order
        self._seen: set[str] = set()
        self._keeps = self._term(_parsed(self.text))

    def keeps(self, row: Row, problems: Problems) -> bool:
        """Whether the row is kept; what cannot be compared is noted in problems."""
        self._seen.update(column for column in self.columns if column in row.values)
        try:
            return bool(self._keeps(row.values))
        except _MismatchError as mismatch:
            problems.add("where", row.place, f"data.where: {mismatch}")
            return False

    def check_columns(self, present: Collection[str], place: str) -> None:
        """Raise DataError for a column that is not among those present, nor in any row so far."""
        for column in self.columns:
            if column not in present and column not in self._seen:
                hint = did_you_mean(column, present) or f" (a text stands in quotation marks: {column!r})"
                raise DataError(
                    f"{place}: data.where: there is no column {column!r}; the columns are {quoted(present)}{hint}"
                )

    def _refuse(self, node: ast.AST, what: str) -> DataError:
        offset = len(self.text.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore"))
        return DataError(f"data.where: {what} at character {offset + 1} of {self.text!r}; {ALLOWED}")

    # --- building; every method turns a node into a function of a row's values --------------------

    def _term(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return lambda _: value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return lambda _: -number
            case ast.Name(id=name):
                return (lambda _: CONSTANTS[name]) if name in CONSTANTS else self._column(name)
            case ast.List(elts=nodes) | ast.Tuple(elts=nodes):
                items = [self._term(item) for item in nodes]
                return lambda values: [item(values) for item in items]
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                negated = self._term(inner)
                return lambda values: not negated(values)
            case ast.BoolOp(op=op, values=nodes):
                terms, combine = [self._term(term) for term in nodes], all if isinstance(op, ast.And) else any
                return lambda values: combine(term(values) for term in terms)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._call(node)
        raise self._refuse(node, f"{ast.get_source_segment(self.text, node) or 'this'} is not allowed")

    def _column(self, name: str) -> Term:
        if name not in self.columns:
            self.columns.append(name)
        return lambda values: values.get(name)

    def _comparison(self, node: ast.Compare) -> Term:
        """`a < b <= c` holds where all of its links hold, as in mathematics."""
        terms = [self._term(term) for term in [node.left, *node.comparators]]
        tests = [self._test(op, node) for op in node.ops]
        text = ast.get_source_segment(self.text, node) or self.text

        def holds(values: Values) -> bool:
            found = [term(values) for term in terms]
            try:
                return all(test(a, b) for test, a, b in zip(tests, found, found[1:], strict=False))
            except _MismatchError as mismatch:
                raise _MismatchError(f"{text}: {mismatch}") from None

        return holds

    def _test(self, op: ast.cmpop, node: ast.Compare) -> Callable[[Any, Any], bool]:
        match op:
            case ast.Eq():
                return _equal
            case ast.NotEq():
                return lambda a, b: not _equal(a, b)
            case ast.In():
                return _contained
            case ast.NotIn():
                return lambda a, b: not _contained(a, b)
            case ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE():
                return _ordered(ORDERINGS[type(op)])
        raise self._refuse(node, "`is` is not allowed (write == or !=)")

    def _call(self, node: ast.Call) -> Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        functions: dict[str, Callable[[Any], Any]] = {"len": _length, "lower": _lowered, "number": _number}
        if name not in (*functions, "column"):
            raise self._refuse(node, f"{ast.get_source_segment(self.text, node.func)}() is not a function that is here")
        if len(node.args) != 1 or node.keywords:
            raise self._refuse(node, f"{name}() takes one value")
        (argument,) = node.args
        if name == "column":
            if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                raise self._refuse(node, "column() takes a column's name in quotation marks")
            return self._column(argument.value)
        function, inner = functions[name], self._term(argument)
        text = ast.get_source_segment(self.text, node) or name

        def applied(values: Values) -> Any:
            try:
                return function(inner(values))
            except _MismatchError as mismatch:
                raise _MismatchError(f"{text}: {mismatch}") from None

        return applied


def _parsed(text: str) -> ast.expr:
    if not text:
        raise DataError("data.where is empty; write a condition or leave the key out")
    if len(text) > LONGEST:
        raise DataError(f"data.where has {len(text):,} letters; {LONGEST:,} are the most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on style
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = getattr(error, "msg", None) or "it is nested too deeply or holds strange letters"
        place = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise DataError(f"data.where: {text!r} is not a condition{place}: {said}; {ALLOWED}") from None


# --- comparing ---------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    """Values of different kinds are never quietly unequal: '1' == 1 is a mistake that people make."""
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else described(value)


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    if _kind(a) != _kind(b):
        raise _MismatchError(f"{_shown(a)} is compared with {_shown(b)}{_advice(a, b)}")
    return bool(a == b)


def _ordered(ordering: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(a: Any, b: Any) -> bool:
        if _kind(a) != _kind(b) or not isinstance(a, int | float | str):
            raise _MismatchError(f"{_shown(a)} is compared with {_shown(b)}{_advice(a, b)}")
        return ordering(a, b)

    return test


def _contained(a: Any, b: Any) -> bool:
    if isinstance(b, str) and isinstance(a, str):
        return a in b
    if not isinstance(b, list):
        raise _MismatchError(f"{_shown(a)} is looked for in {_shown(b)}; only texts and lists can be searched")
    return any(_same(a, item) for item in b) or _complain_if_foreign(a, b)


def _same(a: Any, b: Any) -> bool:
    return _kind(a) == _kind(b) and bool(a == b)


def _complain_if_foreign(a: Any, items: Sequence[Any]) -> bool:
    """False, unless no item of the list is of a's kind: then the list was written wrongly."""
    if a is not None and items and all(_kind(item) != _kind(a) for item in items):
        raise _MismatchError(f"{_shown(a)} is looked for in a list of {enumerated(map(_shown, items[:3]), 'and')}")
    return False


def _advice(a: Any, b: Any) -> str:
    if {_kind(a), _kind(b)} == {"number", "a text"}:
        return " ('1' is a text and 1 a number; number(column) makes a text one)"
    return "; where a value may be missing, write `column and …` before it" if a is None or b is None else ""


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value if len(value) <= 20 else value[:20] + '…'!r}"
    return described(value)


def _length(value: Any) -> int:
    if not isinstance(value, str | list):
        raise _MismatchError(f"only texts and lists have a length, not {_shown(value)}{_advice(value, '')}")
    return len(value)


def _lowered(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _MismatchError(f"only texts can be lowered, not {_shown(value)}")
    return value.casefold() if value is not None else None


def _number(value: Any) -> float | int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _MismatchError(f"{_shown(value)} is no number") from None
