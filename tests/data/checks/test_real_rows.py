"""Real data sets: no error in any of them; what is told of each is true, and was read row by row."""

import os
from pathlib import Path

import pytest

from pronk.data.checks import DATA_FINDINGS, data_findings
from pronk.data.split import read_splits
from pronk.recipe import Data

REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", Path(__file__).parents[4] / "shared")) / "data"
REPEATED = {"exact-duplicates", "contradictory-answers"}
NEAR = {"near-duplicates", "near-leakage"}
# (keys of `data`, what is found)
SETS = {
    # two questions that come twice; a pair of SQL tasks that differ by a word; hotlines of a city; a made-up password
    "Alpaca": (
        {"source": "alpaca/alpaca_cleaned_5000.jsonl"},
        REPEATED | {"near-leakage", "personal-data", "secrets", "answers-repeat-question", "only-links",
                    "html-left-over"},
    ),
    "Alpaca of 1,100 rows": (
        {"source": "alpaca/rasbt_instruction_1100.jsonl"}, REPEATED | NEAR | {"answers-repeat-question"},
    ),
    "KoAlpaca": (
        {"source": "ko/koalpaca_v1_5000.jsonl"},
        REPEATED | {"personal-data", "answers-in-another-language", "answers-repeat-question", "only-links",
                    "html-left-over"},
    ),
    "OpenAssistant": (
        {"source": "chat/oasst1_messages.jsonl"},
        REPEATED | {"mixed-languages", "answers-in-another-language", "html-left-over"},
    ),
    "OpenAssistant as ShareGPT": (
        {"source": "chat/oasst1_sharegpt.jsonl"},
        REPEATED | {"mixed-languages", "answers-in-another-language", "html-left-over"},
    ),
    # the addresses of its newsroom
    "Korean science news": (
        {"source": "ko/sci_news_sum_50.jsonl", "format": "pairs",
         "columns": {"prompt": "document", "response": "summary"}, "instruction": "다음 글을 요약해주세요: "},
        {"personal-data"},
    ),
    # telephone numbers of press officers
    "FinancialPhraseBank": (
        {"source": "fpb/Sentences_50Agree.jsonl", "format": "classify", "columns": {"text": "sentence"}},
        NEAR | {"exact-duplicates", "contradictory-labels", "personal-data"},
    ),
    "GSM8K": (
        {"source": ["eval/gsm8k_train_1000.jsonl", "eval/gsm8k_test_300.jsonl"], "format": "pairs",
         "columns": {"prompt": "question", "response": "answer"}},
        set(),
    ),
}  # fmt: skip


def findings_of(keys):
    sources = [keys["source"]] if isinstance(keys["source"], str) else keys["source"]
    if not REAL_DATA.exists():
        pytest.skip(f"the data is not here: {REAL_DATA}")
    return data_findings(*read_splits(Data(**{**keys, "source": [str(REAL_DATA / source) for source in sources]})))


@pytest.mark.parametrize("name", SETS)
def test_no_error_and_only_what_is_true(name):
    keys, expected = SETS[name]
    findings = findings_of(keys)
    assert [finding.message for finding in findings if finding.severity == "error"] == []
    assert {finding.name for finding in findings} == expected
    assert expected <= set(DATA_FINDINGS)
    for finding in findings:
        assert 0 < len(finding.rows) <= 2
        assert all(".jsonl:" in row.place and "\n" not in row.text and len(row.text) < 160 for row in finding.rows)


@pytest.mark.parametrize("choices", ["listed", "letters"])
def test_multiple_choice(choices):
    """MMLU as it is."""
    if not REAL_DATA.exists():
        pytest.skip(f"the data is not here: {REAL_DATA}")
    source = [str(REAL_DATA / f"eval/{name}.jsonl") for name in ("mmlu_test_8x57", "mmlu_dev")]
    findings = data_findings(*read_splits(Data(source=source, choices=choices)))
    assert [(finding.name, finding.severity, finding.count) for finding in findings] == [
        ("exact-duplicates", "note", 1)
    ]
