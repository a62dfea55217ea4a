"""How much an answer has in common with a reference text: ROUGE-L in words, chrF in characters.

They disagree on purpose. ROUGE-L asks for whole words in the same order. In Korean a word between spaces
(eojeol) carries its particles and endings, so 회사는 and 회사가 are different words to it, and it is low
where a person sees agreement (Lee et al. 2020, arXiv:2005.03510). chrF counts parts of words, which inflected
languages need. pronk takes no language's morphological analyser: figures would change with its version.

Texts are compared in Unicode's composed form (NFC), so that Hangul in jamo equals Hangul in syllables.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

CHRF_ORDER, CHRF_BETA = 6, 2  # n-grams of up to six characters; recall counts twice: chrF2
# Scripts that put no spaces between words (Thai to Lao, Burmese, Khmer, kana, Chinese): each character by itself.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED} ]+")


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, in [0, 1]; 0 where one of the texts has no word.

    Lin (2004), "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1, over the whole text, with
    beta = 1 as in the package rouge-score. For words see `words`.
    """
    answer_words, reference_words = words(answer), words(reference)
    common = longest_common_subsequence(answer_words, reference_words)
    return 2 * common / (len(answer_words) + len(reference_words)) if common else 0.0


def chrf(answer: str, reference: str) -> float:
    """chrF2: F2 of character n-grams without spaces, in [0, 1]; a hundredth of what sacrebleu shows.

    Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation": precision and recall are the
    means over n = 1 … 6, over those n for which both texts have n-grams.
    """
    answer, reference = ("".join(unicodedata.normalize("NFC", text).split()) for text in (answer, reference))
    orders = range(1, min(CHRF_ORDER, len(answer), len(reference)) + 1)
    if not orders:
        return 0.0
    hits = [(_ngrams(answer, n) & _ngrams(reference, n)).total() for n in orders]
    precision = sum(hit / (len(answer) - n + 1) for hit, n in zip(hits, orders, strict=True)) / len(orders)
    recall = sum(hit / (len(reference) - n + 1) for hit, n in zip(hits, orders, strict=True)) / len(orders)
    weight = CHRF_BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0


def words(text: str) -> list[str]:
    """Runs of letters, marks and digits, in lower case; a Korean word is an eojeol without its punctuation.

    In scripts without spaces between words, such as Chinese, every character is a word. On plain English
    these are the tokens of the package rouge-score without its stemmer.
    """
    text = unicodedata.normalize("NFC", text).lower()
    return _WORD.findall("".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in text))


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Its length. A row of the usual table is one number, a bit for each word of a: Hyyrö (2004), "Bit-parallel
    LCS-length computation revisited"; a bit is 0 where the row grows by one."""
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(a)) - 1
    row = everywhere
    for word in b:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & everywhere
    return len(a) - row.bit_count()


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[start : start + n] for start in range(len(text) - n + 1))
