"""Several sources: all of their rows, or in the proportion of the weights."""

import itertools
import random
from fractions import Fraction

import pytest
from reading import message_of, read, told

import pronk.data.mix as mix_module
from pronk.data.mix import mixed


def parts(*sizes):
    return [(f"part {n}", [(n, row) for row in range(size)]) for n, size in enumerate(sizes)]


def counts(rows, of):
    return [sum(part == n for part, _ in rows) for n in range(of)]


def silent(_):
    pass


def wrong_mixes(trials=60):
    """Random sizes and weights whose mix is not what the recipe's page says."""
    generator, wrong = random.Random(0), []
    for _ in range(trials):
        number = generator.randint(2, 4)
        sizes = [generator.randint(20, 400) for _ in range(number)]
        weights = [generator.choice([0.5, 1, 1.5, 2, 3]) for _ in range(number)]
        rows = mix_module.mixed(parts(*sizes), weights, 7, silent)
        unit = min(Fraction(size) / Fraction(weight) for size, weight in zip(sizes, weights, strict=True))
        shares = [unit * Fraction(weight) for weight in weights]
        right = (
            len(set(rows)) == len(rows)
            and rows == sorted(rows)
            and all(
                abs(count - share) <= Fraction(1, 2) for count, share in zip(counts(rows, number), shares, strict=True)
            )
            and any(count == size for count, size in zip(counts(rows, number), sizes, strict=True))
        )
        if not right:
            wrong.append((sizes, weights))
    return wrong


def test_rows_stand_in_the_proportion_of_the_weights_and_none_is_repeated():
    assert wrong_mixes() == []


FAULTS = {
    "weights ignored": lambda parts, weights, seed, tell: mixed(parts, [None] * len(weights), seed, tell),
    "weights turned around": lambda parts, weights, seed, tell: mixed(parts, [1 / w for w in weights], seed, tell),
    "rows repeated": lambda parts, *_: sorted(
        itertools.chain.from_iterable(random.Random(0).choices(rows, k=len(rows)) for _, rows in parts)
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_would_be_seen(monkeypatch, fault):
    monkeypatch.setattr(mix_module, "mixed", FAULTS[fault])
    assert wrong_mixes()


def test_shares_agree_with_those_of_datasets():
    """An independent mixer, which draws source after source at random until one has no rows left."""
    from datasets import Dataset, interleave_datasets

    sizes, weights = (6000, 3000, 5000), (3, 1, 1)
    sets = [Dataset.from_dict({"n": [n] * size}) for n, size in enumerate(sizes)]
    theirs = interleave_datasets(sets, [weight / 5 for weight in weights], seed=0, stopping_strategy="first_exhausted")
    ours = mixed(parts(*sizes), weights, 0, silent)
    for n in range(3):
        share = sum(row["n"] == n for row in theirs) / len(theirs)
        assert counts(ours, 3)[n] / len(ours) == pytest.approx(share, abs=0.02)


def test_the_draw_hangs_on_the_seed_and_on_nothing_else():
    first = mixed(parts(100, 300), [1, 1], 42, silent)
    assert first == mixed(parts(100, 300), [1, 1], 42, silent)
    assert first != mixed(parts(100, 300), [1, 1], 43, silent)
    drawn = [row for part, row in first if part == 1]
    assert drawn[-1] > 250  # from the whole file, not from its beginning


def test_without_weights_all_rows_one_after_another():
    assert mixed(parts(3, 2), [None, None], 0, silent) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert counts(mixed(parts(30, 20), [None, 1], 0, silent), 2) == [20, 20]


def source(write, name, rows, **keys):
    return {"path": write(name, [{"prompt": f"{name} {n}", "response": "r"} for n in range(rows)]), **keys}


def test_weights_in_a_recipe_are_told(write):
    sources = [source(write, "a.jsonl", 100, weight=2.0), source(write, "b.jsonl", 30, weight=1.0)]
    conversations, lines = told(sources, "pairs", where="response == 'r'")
    assert len(conversations) == 90
    assert lines[-1] == "mixed by weight: 60 of 100 rows of a.jsonl and 30 of 30 rows of b.jsonl"


def test_a_weight_that_leaves_nothing(write):
    sources = [source(write, "a.jsonl", 10), source(write, "b.jsonl", 9, weight=0.01)]
    assert message_of(sources, "pairs") == (
        "data.source: with the weight 0.01 not one row of b.jsonl is in the mix; raise it"
    )


def test_labels_are_those_of_all_rows_drawn_or_not(write):
    a = write("a.csv", "text,label\n" + "".join(f"t{n},a\n" for n in range(50)) + "x,rare\n")
    b = write("b.csv", "text,label\nx,b\ny,b\n")
    conversations, labels = read([{"path": a, "weight": 1.0}, {"path": b, "weight": 1.0}])
    assert labels == ("a", "b", "rare")
    assert len(conversations) == 4
