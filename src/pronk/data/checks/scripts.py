"""Which language a text is written in, as far as its letters tell: the script, and for Latin letters a few words.

A syllable of Hangul counts as two and a half letters, an ideograph or kana as three: they say as much. The language
of a text in Latin letters is told by its commonest short words, and left open where these are few.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ENOUGH = 12  # letters, as counted above, for a text to be of any language
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+")
_LATIN_WORDS = {
    "English": 2
}  # 3 in the other languages: different common words that must be there before Latin letters are called a language
_LENGTH = 400  # of a text that is looked at
_RANGES = {
    "Latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "Greek": ((0x370, 0x3FF),),
    "Russian or other Cyrillic": ((0x400, 0x52F),),
    "Hebrew": ((0x590, 0x5FF),),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "Hindi or other Devanagari": ((0x900, 0x97F),),
    "Thai": ((0xE00, 0xE7F),),
    "Korean": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7A3)),
    "Japanese": ((0x3040, 0x30FF),),
    "Chinese": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
}
SCRIPTS = ("", *_RANGES)
_WEIGHTS = np.array(
    [0 if name == "" else {"Korean": 2.5, "Japanese": 3, "Chinese": 3}.get(name, 1) for name in SCRIPTS]
)
_WORDS = {
    "English": "the and of to is in that for with are you this what how from be which",
    "Spanish": "el los las que y del una por con para es como qué su más se lo",
    "French": "le les des et est une dans que pour qui sur pas vous du ce au",
    "German": "der die und das ist nicht ein eine mit den von zu auf für wie sich",
    "Portuguese": "o os que do da um uma não para com em é como se mais ao",
    "Italian": "il che di e la un una per non sono con del della è come gli",
}
_WORDS_OF = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_LATIN_WORD = re.compile(r"[^\W\d_]+")


def languages(texts: Sequence[str]) -> list[str]:
    """For each text the language that most of its letters are of, as far as they tell; empty where too few do."""
    beginnings = [(_ADDRESS.sub("", text) if "://" in text or "www." in text else text)[:_LENGTH] for text in texts]
    found = []
    for first in range(0, len(beginnings), 2_000):
        chunk = beginnings[first : first + 2_000]
        for text, counts in zip(chunk, _counts(chunk), strict=True):
            found.append(_language_of(text, counts))
    return found


def _counts(texts: Sequence[str]) -> NDArray[np.float64]:
    """Weighted letters by text and script (T × SCRIPTS)."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "replace"), np.uint32)
    text_of = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    cells = text_of * len(SCRIPTS) + _TABLE[np.minimum(codes, len(_TABLE) - 1)]
    return np.bincount(cells, minlength=len(texts) * len(SCRIPTS)).reshape(len(texts), -1) * _WEIGHTS


def _table() -> NDArray[np.uint8]:
    table = np.zeros(0x10000, np.uint8)
    for number, ranges in enumerate(_RANGES.values(), 1):
        for first, last in ranges:
            table[first : last + 1] = number
    return table


_TABLE = _table()
_JAPANESE, _CHINESE = SCRIPTS.index("Japanese"), SCRIPTS.index("Chinese")


def _language_of(text: str, counts: NDArray[np.float64]) -> str:
    if counts[_JAPANESE] > 0.1 * counts[_CHINESE]:
        counts[_JAPANESE] += counts[_CHINESE]
        counts[_CHINESE] = 0
    script = int(counts.argmax())
    if counts[script] < _ENOUGH or counts[script] < 0.6 * counts.sum():
        return ""
    return _latin_language(text) if SCRIPTS[script] == "Latin" else SCRIPTS[script]


def _latin_language(text: str) -> str:
    words = set(_LATIN_WORD.findall(text.lower()))
    hits = sorted(((len(words & common), language) for language, common in _WORDS_OF.items()), reverse=True)
    (most, language), (next_most, _) = hits[:2]
    return language if most >= max(_LATIN_WORDS.get(language, 3), 2 * next_most) else "Latin letters"
