"""docs/a-published-comparison.md: its tables are what its script prints, by formulas that are the known ones."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "a-published-comparison.md"


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "published_comparison.py"
    spec = importlib.util.spec_from_file_location("published_comparison", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def stale(page, script):
    """What the script says and the page does not."""
    said = {name: script.table(rows()) for name, rows in script.TABLES.items()} | {"summary": script.summary()}
    return [name for name, text in said.items() if text not in page]


def test_the_page_holds_what_the_script_prints(script, capsys):
    page = PAGE.read_text(encoding="utf-8")
    assert stale(page, script) == []
    script.main()
    printed = capsys.readouterr().out
    assert stale(printed, script) == []


@pytest.mark.parametrize("changed", [("5,200", "5,201"), ("0.850", "0.085"), ("| 33 (3.7%)", "| 34 (3.8%)")])
def test_a_page_with_another_figure_is_seen(script, changed):
    page = PAGE.read_text(encoding="utf-8")
    assert changed[0] in page
    assert len(stale(page.replace(*changed), script)) == 1


def test_the_page_shows_the_figures_that_the_script_reads(script):
    page = PAGE.read_text(encoding="utf-8")
    for row, *percent in zip(script.ROWS, *script.PERCENT.values(), strict=True):
        assert f"| {row} | {percent[0]} | {percent[1]} |" in page


def test_what_the_prose_concludes_is_in_the_tables(script):
    """The words that a change of the script would make wrong."""
    verdicts = {row[0]: row[-1] for row in list(script.differences())[1:]}
    told = [name for name, verdict in verdicts.items() if verdict == "better"]
    assert told == [
        "LLaMA 2: base → [q, v], 2 epochs",
        "LLaMA 3: base → [q, v], 2 epochs",
        "LLaMA 3: [q, v], 2 epochs → all-linear, 2 epochs",
    ]
    ties = [pair for pair in script.pairs() if verdicts[pair.name].startswith("tie")]
    assert max(abs(pair.b - pair.a) for pair in ties) == pytest.approx(0.04)
    alone = [pair for pair in ties if script.unpaired_p_value(pair.a, pair.b, script.ITEMS) < 0.05]
    assert [round(pair.b - pair.a, 2) for pair in alone] == [0.04, 0.04]
    assert [script.PERCENT["LLaMA 2"][1] - base for base in (37, 33 / 9)] == pytest.approx([40, 73], abs=0.5)


def test_what_pairing_is_worth(script):
    """From a quarter more items to three and a half times as many, between tuned runs."""
    ties = [row[0] for row in list(script.items_needed())[1:] if row[2] != "no number" and "base" not in row[0]]
    counts = np.array([script.counts_needed(pair, 0.05 / 12) for pair in script.pairs() if pair.name in ties])
    ratios = counts[:, :1] / counts[:, 1:]
    assert (ratios.min(), ratios.max()) == pytest.approx((1.25, 3.5), abs=0.05)


def test_the_unpaired_test_is_pearson_s(script):
    table = np.array([[693, 207], [720, 180]])
    expected = chi2_contingency(table, correction=False).pvalue
    assert script.unpaired_p_value(693 / 900, 720 / 900, 900) == pytest.approx(expected)


def test_newcombe_s_own_example(script):
    """56 of 70 against 48 of 80: his table II, column (a), method 10."""
    assert script.unpaired_interval(48 / 80, 56 / 70, 80, 70) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_at_the_number_named_the_unpaired_test_finds_it_four_times_in_five(script):
    items, level, draws = script.unpaired_items(0.75, 0.83, 0.01), 0.01, 4000
    random = np.random.default_rng(8)
    right = random.binomial(items, [[0.75], [0.83]], (2, draws)) / items
    found = np.mean([script.unpaired_p_value(a, b, items) < level for a, b in right.T])
    assert found == pytest.approx(0.8, abs=0.025)


def test_silence_counted_as_neutral_by_a_plain_count(script):
    """900 items, three classes; a base that is silent on 675 of them and right on 48% of the rest has 37%."""
    labels = np.repeat([0, 1, 2], 300)
    silent = np.tile(np.arange(4) > 0, 225)
    right = np.zeros(900, dtype=bool)
    right[np.flatnonzero(~silent)[: round(0.48 * 225)]] = True
    counted = np.where(silent, labels == 1, right)
    assert round(100 * counted.mean()) == 37
    assert any(row[:2] == ("75%", "48%") for row in script.silent_shares())
