"""Signatures against what they estimate, and a search whose time and memory are bounded."""

import random
import time

import numpy as np
import pytest

from pronk.data.checks import minhash
from pronk.data.checks.alike import jaccard


def words(generator, count):
    return " ".join("".join(generator.choices("abcdefghijklmnop", k=generator.randint(3, 8))) for _ in range(count))


def some_texts(seed=0, count=40):
    """Texts and copies of which a part of the words is other."""
    generator = random.Random(seed)
    result = []
    for _ in range(count):
        text = words(generator, generator.choice((8, 30, 45))).split()
        changed = [word if generator.random() < 0.9 else words(generator, 1) for word in text]
        result += ["".join(text), "".join(changed)]
    return result


def estimates(some):
    signatures = minhash.signatures(some)
    return [float((signatures[at] == signatures[at + 1]).mean()) for at in range(0, len(some), 2)]


def exact(some):
    return [jaccard(some[at], some[at + 1]) for at in range(0, len(some), 2)]


def test_signatures_estimate_the_overlap_of_shingles():
    some = some_texts()
    assert np.abs(np.array(estimates(some)) - exact(some)).max() < 0.17  # 120 draws: a standard error of 0.046
    assert abs(np.mean(np.array(estimates(some)) - exact(some))) < 0.02


def test_orders_that_are_not_independent_would_be_seen(monkeypatch):
    monkeypatch.setattr(minhash, "_XOR", np.repeat(minhash._XOR[:2], minhash.HASHES // 2))
    monkeypatch.setattr(minhash, "_ODD", np.repeat(minhash._ODD[:2], minhash.HASHES // 2))
    some = some_texts()
    assert np.abs(np.array(estimates(some)) - exact(some)).max() > 0.17


def test_signatures_do_not_depend_on_the_company():
    some = ["", "가", *some_texts(count=4), "한국어로 쓴 글도 같다"]
    alone = np.concatenate([minhash.signatures([text]) for text in some])
    assert (minhash.signatures(some) == alone).all()


def test_what_is_found_is_of_one_kind_and_in_order():
    some = [text for text in some_texts() for _ in range(2)]
    kinds = [at % 2 for at in range(len(some))]
    pairs = minhash.candidates(some, kinds, ["train"] * len(some))
    assert len(pairs) > 40
    assert all(first < second and kinds[first] == kinds[second] for first, second in pairs.tolist())
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)


@pytest.mark.parametrize("count", [0, 1])
def test_few_texts(count):
    assert minhash.candidates(["a"] * count, [0] * count, ["train"] * count).shape == (0, 2)


def test_many_texts_of_one_template_take_bounded_time():
    generator = random.Random(0)
    stem = words(generator, 20).replace(" ", "")
    some = [stem + words(generator, 2) for _ in range(4_000)]
    start = time.perf_counter()
    pairs = minhash.candidates(some, [0] * len(some), ["train"] * len(some))
    assert time.perf_counter() - start < 20
    assert len(some) / 2 < len(pairs) <= 2 * minhash.LIKELIEST * len(some)
