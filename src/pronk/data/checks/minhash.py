"""Pairs of texts that may be alike, among many, without comparing all with all.

A text is the set of its shingles, here every 5 bytes of UTF-8 in a row: about a word of English, two syllables of
Korean; words play no part, as Korean writes few and long ones. How alike two texts are is the Jaccard index of their
sets, J = |A ∩ B| / |A ∪ B|. For a random order of all shingles, the least ones of A and B are equal with probability
J (Broder 1997, "On the resemblance and containment of documents"); a signature is the least shingle in each of HASHES
orders. Signatures are cut into bands of ROWS values; two texts are candidates where a band is equal, which happens
with probability 1 - (1 - J^ROWS)^BANDS: 0.93 at J = 0.4, 0.995 at 0.5, 0.9999 at 0.6 (Leskovec, Rajaraman, Ullman:
Mining of Massive Datasets, chapter 3). Of a long text only the SKETCH least shingles count (Broder's sketch).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5  # bytes
ROWS, BANDS = 3, 40
HASHES = ROWS * BANDS
SKETCH = 256
LIKELY = 0.38  # of the signature's values that two texts share, to be worth a look
_CHUNK = 1_000  # texts at a time
LIKELIEST = 3
MOST = 60_000  # pairs in all
_MOST_PAIRS = 1  # candidates a text and band, where whole bands of texts are alike
_GENERATOR = np.random.default_rng(1997)
_XOR = _GENERATOR.integers(0, 2**32, HASHES, dtype=np.uint32)
_ODD = _GENERATOR.integers(0, 2**31, HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)

Words = NDArray[np.uint32]
Pairs = NDArray[np.int64]


def candidates(texts: Sequence[str], kinds: Sequence[object], parts: Sequence[str]) -> Pairs:
    """Pairs (P × 2, first < second) of texts that are of one kind and, by their signatures, likely alike.

    Time and memory grow with the texts and not with the pairs: where many texts fall into one band, each is paired with
    those next to it alone; a text keeps the LIKELIEST of its pairs with texts of each part, all together MOST.
    """
    if len(texts) < 2:
        return np.empty((0, 2), np.int64)
    signatures_TH = signatures(texts)
    numbers: dict[object, int] = {}
    kinds_T = np.array([numbers.setdefault(kind, len(numbers)) for kind in kinds], np.uint64)
    names: dict[str, int] = {}
    parts_T = np.array([names.setdefault(part, len(names)) for part in parts])
    found = np.unique(np.concatenate([*_of_bands(signatures_TH, kinds_T)]))
    pairs = np.stack([found // len(texts), found % len(texts)], axis=1)
    agreement_P = _agreement(signatures_TH, *pairs.T)
    likely = agreement_P >= LIKELY
    return _likeliest(pairs[likely], agreement_P[likely], parts_T)


def _likeliest(pairs: Pairs, agreement_P: NDArray[np.float64], parts_T: NDArray[np.int64]) -> Pairs:
    """The pairs that are among the LIKELIEST of one of their texts with texts of the other's part."""
    kept_P = np.zeros(len(pairs), bool)
    for one_P, other_P in (pairs.T, pairs.T[::-1]):
        order_P = np.lexsort((-agreement_P, parts_T[other_P], one_P))
        group_P = one_P[order_P] * (int(parts_T.max()) + 1) + parts_T[other_P[order_P]]
        first_P = np.searchsorted(group_P, group_P)
        kept_P[order_P[np.arange(len(pairs)) - first_P < LIKELIEST]] = True
    if kept_P.sum() > MOST:
        kept_P &= agreement_P >= np.partition(agreement_P[kept_P], -MOST)[-MOST]
    return pairs[kept_P][: 2 * MOST]  # where many more are all alike, some of them will do


def signatures(texts: Sequence[str]) -> Words:
    """The least shingle of each text in each order (T × HASHES)."""
    chunks = [texts[first : first + _CHUNK] for first in range(0, len(texts), _CHUNK)]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        return np.concatenate(list(threads.map(_signatures, chunks)))


def _signatures(texts: Sequence[str]) -> Words:
    sketch_S, starts_T = sketches(texts)
    result_HT = np.empty((HASHES, len(texts)), np.uint32)
    scratch_S = np.empty_like(sketch_S)
    for number in range(HASHES):
        np.bitwise_xor(sketch_S, _XOR[number], out=scratch_S)
        np.multiply(scratch_S, _ODD[number], out=scratch_S)
        np.minimum.reduceat(scratch_S, starts_T, out=result_HT[number])
    return np.ascontiguousarray(result_HT.T)


def sketches(texts: Sequence[str]) -> tuple[Words, NDArray[np.int64]]:
    """The least SKETCH different shingles of each text, as hashes and sorted, end to end; where each text begins."""
    # zeros behind a text: each of its bytes begins a shingle, and none reaches into the next text
    encoded = [(text or " ").encode("utf-8", "replace") for text in texts]
    data_B = np.frombuffer((b"\0" * (SHINGLE - 1)).join([*encoded, b""]), np.uint8).astype(np.uint32)
    hashes_B = np.zeros(len(data_B) - SHINGLE + 1, np.uint32)
    for place in range(SHINGLE):
        hashes_B = hashes_B * np.uint32(0x01000193) + data_B[place : place + len(hashes_B)]
    lengths_T = np.array([len(text) for text in encoded])
    text_of_B = np.repeat(np.arange(len(texts)), lengths_T + SHINGLE - 1)[: len(hashes_B)]
    begins_B = np.concatenate([np.r_[np.ones(n, bool), np.zeros(SHINGLE - 1, bool)] for n in lengths_T])[
        : len(hashes_B)
    ]
    keys = np.sort(text_of_B[begins_B].astype(np.uint64) << np.uint64(32) | _mixed(hashes_B[begins_B]))
    keys = keys[np.r_[True, keys[1:] != keys[:-1]]]
    text_of_S = (keys >> np.uint64(32)).astype(np.int64)
    starts_T = np.searchsorted(text_of_S, np.arange(len(texts)))
    kept_S = np.arange(len(keys)) - starts_T[text_of_S] < SKETCH
    text_of_S = text_of_S[kept_S]
    return (keys[kept_S] & np.uint64(0xFFFFFFFF)).astype(np.uint32), np.searchsorted(text_of_S, np.arange(len(texts)))


def _mixed(values: Words) -> Words:
    """Every bit of the input reaches every bit of the output (the finaliser of MurmurHash3, public domain)."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def _of_bands(signatures_TH: Words, kinds_T: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """For each band the pairs whose band is equal, as first × T + second."""
    count = len(signatures_TH)
    for band in range(BANDS):
        key_T = kinds_T * np.uint64(0x9E3779B97F4A7C15)
        for place in range(band * ROWS, (band + 1) * ROWS):
            key_T = (key_T ^ signatures_TH[:, place]) * np.uint64(0xFF51AFD7ED558CCD)
            key_T ^= key_T >> np.uint64(32)
        # in a crowded band the neighbours in the next value of the signature are the likelier ones
        order_T = np.lexsort((signatures_TH[:, (band + 1) * ROWS % HASHES], key_T))
        yield _neighbours(key_T[order_T], order_T, count)


def _neighbours(sorted_T: NDArray[np.uint64], order_T: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    pairs, total = [], 0
    for distance in range(1, count):
        equal = sorted_T[distance:] == sorted_T[:-distance]
        total += int(equal.sum())
        if not equal.any() or total > _MOST_PAIRS * count + 1_000:
            break
        one, other = order_T[distance:][equal], order_T[:-distance][equal]
        pairs.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.concatenate(pairs) if pairs else np.empty(0, np.int64)


def _agreement(signatures_TH: Words, first_P: NDArray[np.int64], second_P: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of the signature that each pair has in common, an estimate of J."""
    steps = range(0, len(first_P), 50_000)
    shares = [
        (signatures_TH[first_P[at : at + 50_000]] == signatures_TH[second_P[at : at + 50_000]]).mean(axis=1)
        for at in steps
    ]
    return np.concatenate(shares) if shares else np.empty(0)
