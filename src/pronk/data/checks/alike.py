"""When two questions count as near duplicates, and which pairs of a data set are.

Compared is what they say (texts.py). Two questions are

- *the same* where they say the same, or differ by slips of the pen alone: one letter but the first wrong, missing,
  added or swapped with its neighbour, in a word of four letters or more, in at most one word in five;
- *near* where no more than one word for each BYTES_PER_CHANGE bytes is another or more (80 bytes: some sixteen English
  words, nine Korean); where they are longer than that and their shingles overlap by J >= ALIKE (minhash.py has J); or
  where one is the other with a sentence more, and no more than as long again.

Texts that differ by a number, by a name inside the sentence ("profit of Nokia", "profit of Elisa") or by a word in
quotation marks are neither: the same template with other values is another question, and has another answer. So are
short texts of which a word is another: the freezing point of water is not its boiling point. Questions of several
fields (a system message, an instruction and what it is about, several turns) are as alike as their least alike field.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from pronk.data.checks.minhash import SHINGLE, candidates
from pronk.data.checks.texts import Question, normal

ALIKE = 0.8
BYTES_PER_CHANGE = 80
MOST_CHANGED = 0.25  # of the bytes: where words are not divided by spaces, one "word" may be all there is
_TYPO_LETTERS = 4
_SENTENCE_END = re.compile(r"(?<=[.!?。！？…])\s+|\n+")
_IDEOGRAPH = re.compile("[\u3400-\u9fff]")
_NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty thirty forty fifty sixty "
    "seventy eighty ninety hundred thousand million billion half third quarter twice double triple first second once "
    "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 한 두 세 네 첫 첫째 둘째 셋째 절반"
)
_NUMBERS = frozenset(_NUMBER_WORDS.split())
_QUOTED = re.compile(r"(?<!\w)(?:'[^'\n]{1,40}'(?!\w)|[\"“‘「『«][^\"“”’」』»\n]{1,40}[\"”’」』»])")
_NAME = re.compile(r"(?<![.!?。:\n\"“'(]\s)(?<!^)(?<!\w)[A-Z][\w&-]*(?:['’]s)?")

Closeness = Literal["same", "near"]


@dataclass(frozen=True, slots=True)
class Alike:
    """Two questions, by their numbers in the list, first < second, and how near they are."""

    first: int
    second: int
    closeness: Closeness


def alike_questions(questions: Sequence[Question]) -> list[Alike]:
    """Pairs of questions that are alike, each question that says what an earlier one says paired with the first such.

    Never a pair that closeness() denies; found with the probabilities of minhash.py, and of a question that is like
    many others, only the likeliest.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        groups[question.text].append(number)
    pairs = [Alike(numbers[0], other, "same") for numbers in groups.values() for other in numbers[1:]]
    firsts = [numbers[0] for numbers in groups.values()]
    kinds = [questions[number].numbers for number in firsts]
    parts = [questions[number].part for number in firsts]
    for first, second in candidates([*groups], kinds, parts).tolist():
        found = closeness(questions[firsts[first]], questions[firsts[second]])
        if found:
            pairs.append(Alike(firsts[first], firsts[second], found))
    return pairs


def closeness(one: Question, other: Question) -> Closeness | None:
    """Whether two questions are the same or near, by the definition above; None where neither."""
    if one.numbers != other.numbers:
        return None
    if len(one.fields) != len(other.fields):
        first, second = "\n".join(one.fields), "\n".join(other.fields)
        return _of_texts(first, second, normal(first), normal(second), turns=True)
    found: Closeness = "same"
    for first, second, said, also in zip(one.fields, other.fields, one.said, other.said, strict=True):
        field = "same" if said == also else _of_texts(first, second, said, also)
        if field is None:
            return None
        found = "near" if field == "near" else found
    return found


def _of_texts(one: str, other: str, said: str, also: str, turns: bool = False) -> Closeness | None:
    """The same of two texts and of what they say; turns: of several turns, where a sentence more is a turn more."""
    if said.replace(" ", "") == also.replace(" ", ""):
        return "same"
    words, others = said.split(), also.split()
    only, only_other = _without_shared(words, others)
    size = max(_bytes(said), _bytes(also))
    if not (only and only_other):
        # nothing is replaced: there is more of it, or the order is another
        more = bool(only or only_other)
        enough = _few_changes(only, only_other, size) or (not turns and _one_sentence_more(one, other))
        return "near" if more and enough else None
    changed = max(len(only), len(only_other))
    if changed > max(0.35 * len(words), size / BYTES_PER_CHANGE, 1) or (
        _quoted(one, only) and _quoted(other, only_other)
    ):
        return None
    few = _few_changes(only, only_other, size)
    typos = _typos(only, only_other)
    if not only and not only_other:
        return "same" if typos <= max(min(len(words), len(others)) / 5, 1) else None
    if _another_name(one, other, only, only_other) or _another_number(only, only_other):
        return None
    return "near" if few or (size >= BYTES_PER_CHANGE and jaccard(said, also) >= ALIKE) else None


def _few_changes(only: list[str], only_other: list[str], size: int) -> bool:
    changed = max(len(only), len(only_other))
    length = max(_bytes("".join(only)), _bytes("".join(only_other)))
    return changed <= size / BYTES_PER_CHANGE and length <= MOST_CHANGED * size


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def jaccard(one: str, other: str) -> float:
    """The share of shingles (minhash.py) that two texts have in common, white space aside; 0 to 1."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / max(len(first | second), 1)


def _shingles(text: str) -> set[bytes]:
    data = text.replace(" ", "").encode("utf-8", "replace")
    return {data[place : place + SHINGLE] for place in range(max(len(data) - SHINGLE + 1, 1))}


def _without_shared(words: Iterable[str], others: Iterable[str]) -> tuple[list[str], list[str]]:
    first, second = Counter(words), Counter(others)
    return list((first - second).elements()), list((second - first).elements())


def _typos(only: list[str], only_other: list[str]) -> int:
    """Takes out of both lists the pairs of words that a slip of the pen turns into each other; how many."""
    if len(only) * len(only_other) > 400:
        return 0
    count = 0
    for word in list(only):
        twin = next((other for other in only_other if _one_slip(word, other)), None)
        if twin is not None:
            only.remove(word)
            only_other.remove(twin)
            count += 1
    return count


def _one_slip(one: str, other: str) -> bool:
    """Whether one letter is another, missing, added or swapped with its neighbour, the first one excepted: a prefix
    that comes or goes, or another first letter, is mostly another word, and seldom a slip."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1 or len(long) < _TYPO_LETTERS or long == f"{short}t":
        return False  # can and can't, which is no slip
    at = next((place for place, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    if len(short) < len(long):
        return at > 0 and short[at:] == long[at + 1 :] and not _IDEOGRAPH.match(long[at])
    swapped = short[:at] + short[at + 1 : at + 2] + short[at : at + 1] + short[at + 2 :]
    return swapped == long or (at > 0 and short[at + 1 :] == long[at + 1 :] and _one_stroke(short[at], long[at]))


def _one_stroke(letter: str, other: str) -> bool:
    """Whether one key was hit for another: one of the two or three in a syllable of Hangul; never for ideographs."""
    keys, others = unicodedata.normalize("NFD", letter), unicodedata.normalize("NFD", other)
    differing = sum(key != also for key, also in zip_longest(keys, others))
    return differing == 1 and not _IDEOGRAPH.match(letter) and not _IDEOGRAPH.match(other)


def _another_name(one: str, other: str, only: list[str], only_other: list[str]) -> bool:
    """Whether each has a name inside a sentence that the other does not have."""
    return bool(only and only_other) and bool(_names(one) & set(only)) and bool(_names(other) & set(only_other))


def _quoted(text: str, only: list[str]) -> bool:
    """Whether one of these words stands in quotation marks."""
    quoted = {word for phrase in _QUOTED.findall(text) for word in normal(phrase).split()} if only else set()
    return not quoted.isdisjoint(only)


def _another_number(only: list[str], only_other: list[str]) -> bool:
    """Whether each has a number in words that the other does not have."""
    return all(not _NUMBERS.isdisjoint(re.split("[ -]", " ".join(words))) for words in (only, only_other))


def _names(text: str) -> set[str]:
    """Words with a capital letter inside a sentence, as normal() has them; none where all words are written so."""
    names = _NAME.findall(text)
    if len(names) > len(text.split()) / 2:
        return set()
    return {word for name in names for word in normal(name).split()}


def _one_sentence_more(one: str, other: str) -> bool:
    short, long = sorted(([*filter(None, map(normal, _SENTENCE_END.split(text)))] for text in (one, other)), key=len)
    if len(short) + 1 != len(long) or sum(map(len, long)) > 2 * sum(map(len, short)):
        return False
    added, _ = _without_shared(long, short)
    return len(added) == 1
