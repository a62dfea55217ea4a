"""Questions that come more than once: in one part, across parts, with one answer or with several.

read_splits has already taken out rows whose question is the same but for case, white space and Unicode form; what it
took out is told here. What it cannot see, punctuation, slips of the pen, a word or a sentence more, is found here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pronk.data.checks.alike import Alike, alike_questions
from pronk.data.checks.shown import answer_row, line
from pronk.data.checks.texts import Question, normal, questions_of
from pronk.data.conversation import Conversation
from pronk.data.finding import FEW, Finding, Row, Severity
from pronk.data.split import Key, Splits, question_key
from pronk.data.words import counted, enumerated

NAMES = (
    "exact-duplicates",
    "near-duplicates",
    "exact-leakage",
    "near-leakage",
    "contradictory-labels",
    "near-contradictory-labels",
    "contradictory-answers",
)


@dataclass(frozen=True)
class Compared:
    """All rows that are used, and the pairs of them that ask alike."""

    splits: Splits
    questions: list[Question]
    pairs: list[Alike]

    @property
    def rows_read(self) -> int:
        """Rows before any were left out, as far as the split tells."""
        return len(self.questions) + self.splits.duplicates_removed + self.splits.contradictory_removed

    def pair(self, alike: Alike) -> tuple[Question, Question]:
        """The two questions of a pair."""
        return self.questions[alike.first], self.questions[alike.second]


def find_repeats(splits: Splits, labels: Sequence[str]) -> list[Finding]:
    """All findings of this file, those without a case left out; those on labels only where there are labels."""
    parts = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    questions = questions_of(parts)
    compared = Compared(splits, questions, alike_questions(questions))
    found = [
        exact_duplicates(splits, compared.rows_read),
        near_duplicates(compared),
        *(exact_leakage(splits, part) for part in ("test", "validation")),
        *(near_leakage(compared, part) for part in ("test", "validation")),
        contradictory_labels(splits, compared.rows_read),
        near_contradictory_labels(compared) if labels else None,
        contradictory_answers(compared),
    ]
    return [finding for finding in found if finding is not None]


def two(one: Conversation, other: Conversation) -> tuple[Row, Row]:
    """Two rows with the same question, side by side with their answers."""
    return answer_row(one), answer_row(other)


# --- in one part -----------------------------------------------------------------------------------


def exact_duplicates(splits: Splits, total: int) -> Finding | None:
    """Rows that the split left out because their question came before."""
    count = splits.duplicates_removed
    if not count:
        return None
    return Finding(
        "exact-duplicates",
        "warning" if count > FEW * total else "note",
        f"{counted(count, 'row')} ask{'s' if count == 1 else ''} what an earlier row asks; pronk left "
        f"{'it' if count == 1 else 'them'} out",
        "nothing, if the first row of each is the one you want; else take the others out of the file",
        count,
        total,
        rows=two(*splits.repeated[0][:2]) if splits.repeated else (),
    )


def near_duplicates(compared: Compared) -> Finding | None:
    """Rows that ask nearly what another row of the same part asks; conversations with one opening are meant to."""
    rows = set()
    shown: list[tuple[Question, Question]] = []
    for alike in compared.pairs:
        one, other = compared.pair(alike)
        single = len(one.row.messages) <= 2 and len(other.row.messages) <= 2
        if one.part == other.part and (single or one.fields[0] != other.fields[0]):
            rows.add(alike.second)
            shown.append((one, other))
    if not rows:
        return None
    return Finding(
        "near-duplicates",
        "warning",
        f"{counted(len(rows), 'row')} ask{'s' if len(rows) == 1 else ''} almost the same as another row of the same "
        "part: a comma, a slip of the pen, a word or a sentence more; training hears them twice",
        "look at them in the data, and keep one of each unless you want it to weigh twice",
        len(rows),
        len(compared.questions),
        rows=_side_by_side(*_clearest(shown)),
    )


def _side_by_side(one: Question, other: Question, notes: tuple[str, str] = ("", "")) -> tuple[Row, Row]:
    """Two rows by the first text in which they differ."""
    first, second = "\n".join(one.fields), "\n".join(other.fields)
    if len(one.fields) == len(other.fields):
        texts = zip(one.fields, other.fields, strict=True)
        first, second = next((pair for pair in texts if pair[0] != pair[1]), (one.fields[-1], other.fields[-1]))
    told = (f" ({note})" if note else "" for note in notes)
    return Row(one.row.place, line(first) + next(told)), Row(other.row.place, line(second) + next(told))


def _clearest(pairs: Sequence[tuple[Question, Question]]) -> tuple[Question, Question]:
    """The pair that is quickest to see: short texts first, but not the shortest."""
    return min(pairs, key=lambda pair: abs(len(pair[0].row.subject) - 60))


# --- across parts ----------------------------------------------------------------------------------

_BEFORE = {"test": ("train", "validation"), "validation": ("train",)}
_WHY = {
    "test": "the test would measure memory, not skill",
    "validation": "early stopping and the verdict on overfitting would rest on rows that training has seen",
}


def exact_leakage(splits: Splits, part: str) -> Finding | None:
    """Rows of a part whose question was asked, at whatever turn, in a part before it; up to case and white space."""
    rows = _part(splits, part)
    keys = [question_key(row) for row in rows]
    wanted = set(keys)
    seen: dict[Key, tuple[Conversation, str]] = {}
    for name in _BEFORE[part]:
        for row in _part(splits, name) if wanted else ():
            seen.update((key, (row, name)) for key in _asked(row) if key in wanted)
    leaked = [_pair(row, part, *seen[key]) for row, key in zip(rows, keys, strict=True) if key in seen]
    if not leaked:
        return None
    return _leakage("exact-leakage", "error", part, leaked, len(rows), "the same")


def _pair(row: Conversation, part: str, twin: Conversation, before: str) -> tuple[Question, Question]:
    one, other = questions_of([(part, [row]), (before, [twin])])
    return one, other


def near_leakage(compared: Compared, part: str) -> Finding | None:
    """Rows of a part that ask almost what a part before it asks."""
    leaked: dict[int, tuple[Question, Question]] = {}
    for number, other in _across(compared, part):
        one, twin = compared.questions[number], compared.questions[other]
        if question_key(one.row) != question_key(twin.row):
            leaked.setdefault(number, (one, twin))
    total = len(_part(compared.splits, part))
    if not leaked:
        return None
    severe = part == "test" and surely_more_than_few(len(leaked), total)
    return _leakage(
        "near-leakage", "error" if severe else "warning", part, [*leaked.values()], total, "almost the same"
    )


def surely_more_than_few(count: int, total: int) -> bool:
    """Whether so many of a sample are more than FEW of what it was drawn from, beyond chance: were it FEW, fewer than
    one split in twenty would show as many (the binomial distribution's tail). Else one more or less row, which the
    split's seed decides, would stop a run."""
    ways = (
        math.lgamma(total + 1) - math.lgamma(rows + 1) - math.lgamma(total - rows + 1)
        + rows * math.log(FEW) + (total - rows) * math.log1p(-FEW)
        for rows in range(count)
    )  # fmt: skip
    return 1 - sum(map(math.exp, ways)) < 0.05


def _across(compared: Compared, part: str) -> Iterable[tuple[int, int]]:
    """(a row of this part, its twin in a part before it), all pairs within groups of alike rows' direct neighbours."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for alike in compared.pairs:
        neighbours[alike.first].add(alike.second)
        neighbours[alike.second].add(alike.first)
    same: dict[int, set[int]] = defaultdict(set)
    for alike in compared.pairs:
        if compared.questions[alike.first].text == compared.questions[alike.second].text:
            same[alike.first].add(alike.second)
            same[alike.second].add(alike.first)
    for number in sorted(neighbours):
        if compared.questions[number].part == part:
            # those that say the same are paired with the first of them alone: look through it
            reach = neighbours[number] | {far for near in neighbours[number] for far in same[near]}
            reach |= {far for near in same[number] for far in neighbours[near]}
            for other in sorted(reach - {number}):
                if compared.questions[other].part in _BEFORE[part]:
                    yield number, other


def _leakage(
    name: str, severity: Severity, part: str, leaked: Sequence[tuple[Question, Question]], total: int, how: str
) -> Finding:
    before = enumerated(_BEFORE[part], "or")
    return Finding(
        name,
        severity,
        f"{counted(len(leaked), f'{part} row')} ask{'s' if len(leaked) == 1 else ''} {how} as a row of {before}: "
        f"{_WHY[part]}",
        "take them out of the data, or keep what belongs together (one source, one author, one template) in one part",
        len(leaked),
        total,
        f"{part} rows",
        _side_by_side(*_clearest(leaked), (part, "its twin")),
    )


def _part(splits: Splits, name: str) -> tuple[Conversation, ...]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}[name]


def _asked(row: Conversation) -> list[Key]:
    """What was asked before each answer of a conversation: training learns all of them."""
    key = question_key(row)
    ends = [place for place, message in enumerate(row.messages[:-1]) if message.role == "assistant"]
    return [*(key[:end] for end in ends if end), key]


# --- with several answers --------------------------------------------------------------------------


def contradictory_labels(splits: Splits, total: int) -> Finding | None:
    """Rows that the split left out because their question has several labels."""
    count = splits.contradictory_removed
    if not count:
        return None
    return Finding(
        "contradictory-labels",
        "warning",
        f"{counted(count, 'row')} of {counted(len(splits.contradictory), 'text')} have different labels for the same "
        "text; pronk left all of them out, since nobody knows which label is right",
        "decide which label is right, and take the other row out of the file",
        count,
        total,
        rows=two(*_differing(splits.contradictory[0])) if splits.contradictory else (),
    )


def _differing(rows: Sequence[Conversation]) -> tuple[Conversation, Conversation]:
    return rows[0], next(row for row in rows if row.label != rows[0].label)


def near_contradictory_labels(compared: Compared) -> Finding | None:
    """Rows that say the same, up to punctuation and slips of the pen, with different labels."""
    clashing = [
        (one.row, other.row)
        for one, other in map(compared.pair, (alike for alike in compared.pairs if alike.closeness == "same"))
        if one.row.label != other.row.label
    ]
    if not clashing:
        return None
    count = len({row.place for pair in clashing for row in pair})
    total = len(compared.questions)
    return Finding(
        "near-contradictory-labels",
        "error" if count > FEW * total else "warning",
        f"{counted(count, 'row')} have different labels for texts that differ by punctuation or a slip of the pen",
        "decide which label is right, and take the other row out of the file",
        count,
        total,
        rows=two(*clashing[0]),
    )


def contradictory_answers(compared: Compared) -> Finding | None:
    """Free answers that differ though the question is the same, among all rows that were read."""
    clashing = [
        pair for rows in compared.splits.repeated for other in rows[1:] if _answers_differ(*(pair := (rows[0], other)))
    ]
    clashing += [
        (one.row, other.row)
        for one, other in map(compared.pair, (alike for alike in compared.pairs if alike.closeness == "same"))
        if len(one.row.messages) == len(other.row.messages) == 2 and _answers_differ(one.row, other.row)
    ]
    if not clashing:
        return None
    count = len(clashing)
    return Finding(
        "contradictory-answers",
        "note",
        f"{counted(count, 'row')} answer{'s' if count == 1 else ''} a question otherwise than an earlier row does; "
        "fine where several answers are right, else one of them is wrong",
        "look at a few; where one answer is right, keep that one",
        count,
        compared.rows_read,
        rows=two(*clashing[0]),
    )


def _answers_differ(one: Conversation, other: Conversation) -> bool:
    return one.label is None and len(one.messages) > 1 and normal(one.answer) != normal(other.answer)
