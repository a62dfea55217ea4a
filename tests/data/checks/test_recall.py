"""Near duplicates planted in real data are found, and little else; what goes wrong in the search would be seen.

The planting is that of benchmarks/duplicate_recall.py, which measures the same over more rows.
"""

import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pronk.data.checks.alike as alike
import pronk.data.checks.minhash as minhash
import pronk.data.checks.texts as texts

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "duplicate_recall.py"
REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[4] / "shared")) / "data"
NAMES = ("Alpaca", "KoAlpaca", "FinancialPhraseBank", "OpenAssistant", "GSM8K")


@pytest.fixture(scope="module")
def planting():
    if not REAL_DATA.exists():
        pytest.skip(f"the data is not here: {REAL_DATA}")
    spec = importlib.util.spec_from_file_location("duplicate_recall", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def measured(planting, hard=False, count=180):
    """Over all data sets: share of the planted rows that were found, of rows falsely reported, and counts by edit."""
    planted, found, false, rows = Counter(), Counter(), 0, 0
    for name in NAMES:
        some = planting.read_set(name)[:900]
        world = planting.planted(some, planting.HARD if hard else planting.EDITS, count, seed=7, short=False)
        counts = planting.measured(world)
        planted, found = planted + counts.planted, found + counts.found
        false, rows = false + len(counts.false), rows + counts.rows
    return found.total() / planted.total(), false / rows, {edit: found[edit] / planted[edit] for edit in planted}


def test_recall_and_false_alarms(planting):
    recall, false, by_edit = measured(planting)
    assert recall >= 0.95, by_edit
    assert false <= 0.01
    assert len(by_edit) == 9
    assert min(by_edit.values()) >= 0.75, by_edit  # a sentence behind a single word is not told from another text


def test_templates_with_other_values_are_not_alike(planting):
    assert measured(planting, hard=True)[0] <= 0.02


def test_all_with_all_finds_no_more(planting):
    """The oracle compares each row with each by the definition, without signatures and bands."""
    world = planting.planted(planting.read_set("KoAlpaca")[:600], planting.EDITS, 120, seed=3, short=False)
    counts = planting.measured(world, oracle_rows=300)
    assert counts.true_pairs > 80
    assert counts.true_found >= 0.99 * counts.true_pairs


def no_banding(monkeypatch):
    monkeypatch.setattr(minhash, "BANDS", 1)


def shingles_across_texts(monkeypatch):
    original = minhash.sketches

    def shifted(some):
        values, starts = original(some)
        return np.roll(values, 40), starts

    monkeypatch.setattr(minhash, "sketches", shifted)


def slips_unknown(monkeypatch):
    monkeypatch.setattr(alike, "_one_slip", lambda *_: False)


def letters_as_written(monkeypatch):
    def as_written(text):
        return " ".join(text.split())

    monkeypatch.setattr(texts, "normal", as_written)
    monkeypatch.setattr(alike, "normal", as_written)


@pytest.mark.parametrize("fault", [no_banding, shingles_across_texts, slips_unknown, letters_as_written])
def test_a_fault_in_the_search_would_be_seen(planting, monkeypatch, fault):
    fault(monkeypatch)
    recall, _, by_edit = measured(planting, count=90)
    assert recall < 0.95 or min(by_edit.values()) < 0.75


def numbers_ignored(monkeypatch):
    monkeypatch.setattr(texts.Question, "numbers", ())


def names_ignored(monkeypatch):
    monkeypatch.setattr(alike, "_another_name", lambda *_: False)


@pytest.mark.parametrize("fault", [numbers_ignored, names_ignored])
def test_a_fault_in_the_definition_would_be_seen(planting, monkeypatch, fault):
    fault(monkeypatch)
    assert measured(planting, hard=True)[0] > 0.02
