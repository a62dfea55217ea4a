"""Answers that teach little: always the same one, the question once more, nothing but a link."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pronk.data.checks.shown import answer_row, line
from pronk.data.checks.texts import normal
from pronk.data.conversation import Conversation, shortened
from pronk.data.finding import FEW, SHOWN, Finding
from pronk.data.words import counted

NAMES = ("constant-answers", "answers-repeat-question", "only-links")
_MANY = 5  # rows with one answer, at least, before it is worth a word
_SENTENCE = 20  # letters from which on an answer is a sentence, which few questions share
_LINK = re.compile(r"[(<\[]?(?:https?://|www\.)\S+", re.IGNORECASE)


def find_poor_answers(rows: Sequence[Conversation]) -> list[Finding]:
    """All findings of this file, those without a case left out."""
    found = [constant_answers(rows), answers_repeat_question(rows), only_links(rows)]
    return [finding for finding in found if finding is not None]


def constant_answers(rows: Sequence[Conversation]) -> Finding | None:
    """One free answer to many questions: a sentence in one row of fifty, or a word in more than half of all rows."""
    free = [row for row in rows if row.label is None and len(row.messages) > 1]
    answers = Counter(" ".join(row.answer.casefold().split()) for row in free)
    often = [(answer, count) for answer, count in answers.most_common(20) if _too_often(answer, count, len(free))]
    if not often:
        return None
    answer, count = often[0]
    same = [row for row in free if " ".join(row.answer.casefold().split()) == answer]
    everywhere = count == len(free)
    return Finding(
        "constant-answers",
        "error" if everywhere else "warning",
        f"{'all' if everywhere else f'{count:,} of'} {counted(len(free), 'answer')} are the same text; the model will "
        "learn to say it whatever is asked",
        "check that the right column is read as the answer (data.columns), or keep a few of these rows (data.where)",
        sum(count for _, count in often),
        len(free),
        "answers",
        tuple(map(answer_row, same[:SHOWN])),
    )


def _too_often(answer: str, count: int, total: int) -> bool:
    return count >= _MANY and count > total * (0.02 if len(answer) >= _SENTENCE else 0.5)


def answers_repeat_question(rows: Sequence[Conversation]) -> Finding | None:
    """Free answers that are the question, or begin with the whole of a question of some length."""
    repeating = [row for row in rows if row.label is None and len(row.messages) > 1 and _repeats(row)]
    if not repeating:
        return None
    return Finding(
        "answers-repeat-question",
        "warning" if len(repeating) > FEW * len(rows) else "note",
        f"{counted(len(repeating), 'answer')} repeat{'s' if len(repeating) == 1 else ''} the question; the model "
        "learns to say it again before it answers",
        "check the columns (data.columns); where the answer was written behind the question, cut the question off",
        len(repeating),
        len(rows),
        "answers",
        tuple(map(answer_row, repeating[:SHOWN])),
    )


def _repeats(row: Conversation) -> bool:
    asked, answer = row.messages[-2], " ".join(row.answer.split())
    for question in filter(None, (" ".join(asked.content.split()), " ".join(asked.context.split()))):
        if answer.startswith(question) and (len(answer) == len(question) or len(question) >= 2 * _SENTENCE):
            return True
        if abs(len(answer) - len(question)) <= 3 and normal(answer) == normal(question) != "":
            return True
    return False


def only_links(rows: Sequence[Conversation]) -> Finding | None:
    """Questions or answers that are web addresses and nothing else."""
    linked = [(row, text) for row in rows if (text := _only_link(row))]
    if not linked:
        return None
    what = shortened(line(linked[0][1]), 60)
    return Finding(
        "only-links",
        "warning" if len(linked) > FEW * len(rows) else "note",
        f"{counted(len(linked), 'row')} {'has' if len(linked) == 1 else 'have'} a web address for a question or an "
        f"answer, and nothing else (such as {what}); a model cannot open it and learns to make up others",
        "put the text in place of its address, or leave these rows out (data.where)",
        len(linked),
        len(rows),
        rows=tuple(answer_row(row) for row, _ in linked[:SHOWN]),
    )


def _only_link(row: Conversation) -> str | None:
    texts = (row.answer, row.subject) if len(row.messages) > 1 else (row.answer,)
    return next((text for text in texts if _is_link(text)), None)


def _is_link(text: str) -> bool:
    words = text.split() if "://" in text or "www." in text else []
    return bool(words) and all(_LINK.fullmatch(word) for word in words)
