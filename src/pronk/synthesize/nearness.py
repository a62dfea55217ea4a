"""Whether a text is near one that is known: a seed, a test item, an example that was taken before.

Stricter than `pronk check` (data/checks/alike.py), which must not call a template with other values a repeat: an
example too few costs nothing, one that copies the test costs the test. Two texts are near where

- they say the same, white space aside (data/checks/texts.py), or are alike as alike.py has it;
- ROUGE-L of their words is 0.7 or more: the bound of self-instruct (Wang et al. 2023, arXiv:2212.10560, section 2.2);
- their shingles (data/checks/minhash.py) overlap by J >= 0.6: words are no measure where spaces come and go;
- the known one, of five words or thirty bytes or more, stands within the other.

All known texts are gone through: by words in common, which bound ROUGE-L from above, and by signatures, which estimate
J. None is missed for speed's sake, unless thousands share one template: then the likeliest are looked at.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pronk.data.checks.alike import closeness, jaccard
from pronk.data.checks.minhash import HASHES, signatures
from pronk.data.checks.texts import Question, normal
from pronk.data.conversation import Conversation
from pronk.evaluate.overlap import longest_common_subsequence, words

ROUGE_L = 0.7
SHINGLES = 0.6
WITHIN_WORDS, WITHIN_BYTES = 5, 30  # of a text that may not stand within another; one of both
_WORTH_A_LOOK = 0.5  # of ROUGE-L's bound: alike.py counts a sentence more as near
_LIKELY = 0.3  # of the signature: an estimate of J that is too low by six of its standard errors is none
_MOST_LOOKS = 2_000


@dataclass(frozen=True, slots=True)
class _Text:
    question: Question
    said: str
    words: list[str]
    group: str


class Known:
    """Texts by group; groups are named in the order in which they are said to be near."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        self._texts: list[_Text] = []
        self._groups: dict[str, dict[str, int]] = {}  # by what is said, without white space: the first that says it
        self._places: dict[tuple[str, int], array[int]] = {}  # a word, the first or second … time: the texts with it
        self._signatures_TH = np.empty((0, HASHES), np.uint32)
        for group, texts in groups.items():
            self._groups[group] = {}
            self._add([(text, group) for text in texts])

    def add(self, text: str, group: str) -> None:
        """One more text."""
        self._add([(text, group)])

    def nearest(self, text: str) -> tuple[str, bool] | None:
        """The group of a known text that this one is near, and whether it says the same; None where it is new."""
        asked = _text(text, "")
        for group, said in self._groups.items():
            if asked.question.text in said:
                return group, True
        order = [*self._groups]
        found = len(order)
        for number in self._worth_a_look(asked):
            place = order.index(self._texts[number].group)
            if place < found and _near(asked, self._texts[number]):
                found = place
        return (order[found], False) if found < len(order) else None

    def _add(self, pairs: Sequence[tuple[str, str]]) -> None:
        if not pairs:
            return
        start = len(self._texts)
        for number, (text, group) in enumerate(pairs, start):
            known = _text(text, group)
            self._texts.append(known)
            self._groups.setdefault(group, {}).setdefault(known.question.text, number)
            for word in _numbered(known.words):
                self._places.setdefault(word, array("q")).append(number)
        self._make_room(len(self._texts))
        self._signatures_TH[start : len(self._texts)] = signatures([_shingled(one) for one in self._texts[start:]])

    def _make_room(self, texts: int) -> None:
        if texts > len(self._signatures_TH):
            larger_TH = np.zeros((max(texts, 2 * len(self._signatures_TH)), HASHES), np.uint32)
            larger_TH[: len(self._signatures_TH)] = self._signatures_TH
            self._signatures_TH = larger_TH

    def _worth_a_look(self, asked: _Text) -> Iterator[int]:
        """Texts that may be near, the likeliest first."""
        count = len(self._texts)
        if not count:
            return
        shared_T = self._shared(asked)
        own_T = np.fromiter((len(one.words) for one in self._texts), np.int64, count)
        bound_T = 2 * shared_T / np.maximum(own_T + len(asked.words), 1)
        agree_T = (self._signatures_TH[:count] == signatures([_shingled(asked)])).mean(axis=1)
        within_T = (own_T > 0) & (shared_T == own_T)
        worth_T = (bound_T >= _WORTH_A_LOOK) | (agree_T >= _LIKELY) | within_T
        likely_T = np.where(worth_T, np.maximum(bound_T, agree_T) + within_T, -1.0)
        order_T = np.argsort(-likely_T, kind="stable")[: min(_MOST_LOOKS, int(worth_T.sum()))]
        yield from order_T.tolist()

    def _shared(self, asked: _Text) -> NDArray[np.int64]:
        """Words that each known text has in common with this one, repeated words counted as often as both have them."""
        found = [np.frombuffer(self._places[word], np.int64) for word in _numbered(asked.words) if word in self._places]
        return np.bincount(np.concatenate(found) if found else [], minlength=len(self._texts)).astype(np.int64)


def _near(asked: _Text, known: _Text) -> bool:
    common = longest_common_subsequence(asked.words, known.words)
    if common and 2 * common >= ROUGE_L * (len(asked.words) + len(known.words)):
        return True
    long = len(known.words) >= WITHIN_WORDS or len(known.said.encode("utf-8", "replace")) >= WITHIN_BYTES
    if long and f" {known.said} " in f" {asked.said} ":
        return True
    return closeness(asked.question, known.question) is not None or jaccard(asked.said, known.said) >= SHINGLES


def _text(text: str, group: str) -> _Text:
    said = normal(text)
    # of its row a comparison looks at nothing
    return _Text(Question(_NOBODYS, group, (text,), (said,)), said, words(text), group)


_NOBODYS = Conversation((), "")


def _shingled(text: _Text) -> str:
    return text.question.text


def _numbered(found: Sequence[str]) -> list[tuple[str, int]]:
    """Words with which time they come: as a set, what two texts have in common is their bags' intersection."""
    seen: Counter[str] = Counter()
    numbered = []
    for word in found:
        numbered.append((word, seen[word]))
        seen[word] += 1
    return numbered
