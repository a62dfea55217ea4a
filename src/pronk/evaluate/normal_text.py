"""When two short answers are the same: texts without what does not matter, and the numbers in them.

Words are compared as SQuAD's evaluation does (Rajpurkar et al. 2016): lower case, without punctuation, without the
articles a, an and the, spaces between words alone. Where that would make one of different answers, this differs:

- a number keeps its sign and its point (-5 is not 5, 3.5 is not 35), and is written one way: 1,000 is 1000, 2.50 is
  2.5, .5 is 0.5; marks between digits stay (1/2, 3:30, 1.2.3);
- punctuation is all of Unicode's, and full-width letters and digits are the usual ones (NFKC);
- an answer that is nothing but articles stays: "A" may be one of the choices A to D.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

# A sign counts where no word or closing bracket stands before it; 1.2.3 and 1,23 are no numbers.
_SIGN, _WHOLE = r"(?<![\w)\]])[-+]", r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_VALUE = rf"(?P<value>(?:{_SIGN})?(?:{_WHOLE}(?:\.\d+)?|\.\d+))(?![.,]?\d)"
_NUMBER = re.compile(rf"(?<![\w.,])(?:{_VALUE}|\d+(?:[.,]\d+)+)", re.ASCII)
_MINUS = str.maketrans("\u2212\u2013\uff0d", "---")  # minus sign, en dash, full-width hyphen
_SYMBOLS = set("$+<=>^`|~")  # of ASCII, which SQuAD counts as punctuation
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
MOST_DIGITS = 60  # a longer run of digits is compared as text


def normalised(text: str) -> str:
    """The words and numbers of a text, in one form; empty where there are none."""
    text = unicodedata.normalize("NFKC", text.translate(_MINUS)).casefold()
    parts: list[str] = []
    end = 0
    for match in _NUMBER.finditer(text):
        between = text[end : match.start()]
        marks = parts and between and not any(letter.isalnum() or letter.isspace() for letter in between)
        parts += [between if marks else _words(between), _written(match)]
        end = match.end()
    joined = "".join([*parts, _words(text[end:])])
    return " ".join(_ARTICLES.sub(" ", joined).split()) or " ".join(joined.split())


def last_number(text: str) -> str | None:
    """The last number of a text in its one form; None where there is none."""
    text = unicodedata.normalize("NFKC", text.translate(_MINUS))
    found = [match for match in _NUMBER.finditer(text) if match["value"]]
    return _written(found[-1]) if found else None


def _words(text: str) -> str:
    return "".join(letter for letter in text if letter not in _SYMBOLS and unicodedata.category(letter)[0] != "P")


def _written(number: re.Match[str]) -> str:
    """A number without separators, zeros that say nothing, or a plus; what only looks like one as it is."""
    if not number["value"]:
        return number.group()
    digits = number["value"].replace(",", "")
    if len(digits) > MOST_DIGITS:
        return digits
    value = f"{Decimal(digits):f}"
    value = value.rstrip("0").rstrip(".") if "." in value else value
    return "0" if value in ("-0", "") else value
