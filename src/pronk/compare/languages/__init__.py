"""Every fixed text of the report, a table of words per language.

    english.py   TEXTS, METRICS, VERDICTS, FACTS, AXES; also what terminal and Python show
    korean.py    the same keys in Korean
    judged.py    what a judge's result says, in both

A text is HTML, and what is filled into it is escaped: names and settings of a study may hold markup. Tests hold the
tables to the same keys and the same blanks, and the Korean page to having no English text left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pronk.compare.languages import english, judged, korean
from pronk.errors import OptionError


@dataclass(frozen=True)
class Language:
    """The words of one language. code: as HTML's `lang` has it."""

    code: str
    texts: Mapping[str, str]
    metrics: Mapping[str, str]
    verdicts: Mapping[str, str]
    facts: Mapping[str, str]
    axes: Mapping[str, str]

    def __call__(self, key: str, **blanks: Any) -> Markup:
        """A text with its blanks filled in, each escaped. Raises KeyError for a text or blank that there is not."""
        return Markup(self.texts[key]).format(**blanks)

    def plain(self, key: str, **blanks: Any) -> str:
        """The same for the terminal, or for a template that escapes it: of a text that has no markup."""
        return self.texts[key].format(**blanks)

    def count(self, thing: str, number: int) -> Markup:
        """`1 run`, `5,000 runs`: a text `count.THING` has forms for one and for many, where the language has both."""
        one, _, many = self.texts[f"count.{thing}"].partition("|")
        return Markup(one if number == 1 or not many else many).format(n=f"{number:,}")

    def metric(self, name: str) -> str:
        """What a metric is called; one that has no name here is called as in study.json."""
        return self.metrics.get(name, name)

    def metric_inside(self, name: str) -> str:
        """The same within a sentence: without its unit, and without the capital of a word."""
        said = self.metric(name).partition("(")[0].strip()
        return said[0].lower() + said[1:] if said[1:2].islower() and "-" not in said else said

    def verdict(self, verdict: str) -> str:
        """A verdict with its sign, which says it without colour too."""
        return self.verdicts.get(verdict, verdict)

    def fact(self, key: str) -> str:
        """What a figure of the data or the environment is called."""
        return self.facts.get(key, key.replace("_", " "))

    def axis(self, key: str) -> str:
        """What a recipe key is called; keys that few know by another name stay as they are."""
        return self.axes.get(key, key)

    def row(self, name: str) -> str:
        """The name of a row that pronk made up of others: a group of seeds, a base as it was asked."""
        for key in ("row.seeds", "row.alike", "row.asked", "row.examples"):
            if found := re.fullmatch(_pattern(ENGLISH.texts[key]), name):
                blanks = found.groupdict()
                return self.plain(key, **{**blanks, "name": self.row(blanks["name"])})
        return name

    def listed(self, names: list[str]) -> Markup:
        """Names by commas; at most five, and how many more."""
        shown = Markup(", ").join(names[:5])
        return self("list.more", names=shown, n=len(names) - 5) if len(names) > 5 else shown


def _pattern(text: str) -> str:
    """A regular expression for what a text with blanks may have become."""
    parts = re.split(r"\{(\w+)\}", text)
    return "".join(f"(?P<{part}>.+)" if place % 2 else re.escape(part) for place, part in enumerate(parts))


def _language(code: str, table: Any) -> Language:
    return Language(code, {**table.TEXTS, **judged.TEXTS[code]}, table.METRICS, table.VERDICTS, table.FACTS, table.AXES)


ENGLISH = _language("en", english)
LANGUAGES = {"en": ENGLISH, "ko": _language("ko", korean)}


def language(code: str) -> Language:
    """The language of a code. Raises OptionError for one that the report does not speak."""
    if code not in LANGUAGES:
        raise OptionError(f"--lang {code}: the report is written in {' and '.join(LANGUAGES)}")
    return LANGUAGES[code]
