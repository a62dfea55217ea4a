"""Rows in another language than most, and answers in another language than their question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pronk.data.checks.scripts import languages
from pronk.data.checks.shown import answer_row, question_row
from pronk.data.conversation import Conversation
from pronk.data.finding import FEW, SHOWN, Finding
from pronk.data.words import counted, enumerated

NAMES = ("mixed-languages", "answers-in-another-language")
_VAGUE = ("", "Latin letters")
_SMALL_WORD = re.compile(r"(?<!\w)[a-z]{2,}")
# where the other language, code or a formula is what was asked for
_ASKED = re.compile(
    r"translat|traduc|übersetz|перевод|перевед|翻译|翻譯|번역|영어|영문|한국어|일본어|중국어|한글|english|korean|japanese"
    r"|chinese|french|spanish|german|italian|code|코드|program|프로그|sql|python",
    re.IGNORECASE,
)
_CODE = re.compile(r"```|[{}<>=\[\]]|\w\(|;\s")


def find_languages(rows: Sequence[Conversation]) -> list[Finding]:
    """All findings of this file, those without a case left out."""
    asked = languages([_question(row) for row in rows])
    answered = languages(["" if row.label is not None else row.answer for row in rows])
    found = [_mixed(rows, asked, answered), _crossed(rows, asked, answered)]
    return [finding for finding in found if finding is not None]


def _question(row: Conversation) -> str:
    last = row.messages[-2] if len(row.messages) > 1 else row.messages[-1]
    return f"{last.content} {last.context}"


def _mixed(rows: Sequence[Conversation], asked: Sequence[str], answered: Sequence[str]) -> Finding | None:
    found = [
        "" if _CODE.search(_question(row)) else question or answer  # code is English, whoever asks
        for row, question, answer in zip(rows, asked, answered, strict=True)
    ]
    counts = Counter(language for language in found if language not in _VAGUE)
    if len(counts) < 2:
        return None
    usual = counts.most_common(1)[0][0]
    others = [row for row, language in zip(rows, found, strict=True) if language not in (usual, *_VAGUE)]
    told = [f"{language} ({count:,})" for language, count in counts.most_common(6)]
    if len(counts) > 6:
        told.append(f"{len(counts) - 6} more")
    few = len(others) <= FEW * len(rows)
    return Finding(
        "mixed-languages",
        "note",
        f"the rows are in several languages: {enumerated(told, 'and')}",
        f"nothing, if you want them all; {'so few teach no language: ' if few else ''}data.where keeps those of one",
        len(others),
        len(rows),
        rows=tuple(map(question_row, others[:SHOWN])),
    )


def _crossed(rows: Sequence[Conversation], asked: Sequence[str], answered: Sequence[str]) -> Finding | None:
    told = [
        (row, question, answer)
        for row, question, answer in zip(rows, asked, answered, strict=True)
        if question and answer and not _compatible(question, answer) and _is_sentence(answer, row.answer)
        and not _ASKED.search(_question(row)) and not _CODE.search(row.answer)
    ]  # fmt: skip
    if not told or 2 * len(told) > len(rows):  # a translation asks for it, in nearly all rows
        return None
    (question, answer), _ = Counter((question, answer) for _, question, answer in told).most_common(1)[0]
    shown = [row for row, *pair in told if pair == [question, answer]]
    return Finding(
        "answers-in-another-language",
        "warning" if len(told) > FEW * len(rows) else "note",
        f"{counted(len(told), 'answer')} {'is' if len(told) == 1 else 'are'} in another language than the question, "
        f"most often {answer} after {question}; the model learns to change the language by chance",
        "translate these answers or leave the rows out, unless the question asks for the other language",
        len(told),
        len(rows),
        "answers",
        tuple(map(answer_row, shown[:SHOWN])),
    )


def _is_sentence(language: str, answer: str) -> bool:
    """Not a mere list of names in Latin letters, which are at home in every language."""
    return language != "Latin letters" or len(_SMALL_WORD.findall(answer)) >= 4


def _compatible(one: str, other: str) -> bool:
    """Whether two languages may be the same: Latin letters of unknown language fit all that are written so."""
    latin = {"English", "Spanish", "French", "German", "Portuguese", "Italian"}
    return one == other or ("Latin letters" in (one, other) and {one, other} <= latin | {"Latin letters"})
