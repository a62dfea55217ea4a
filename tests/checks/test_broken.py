"""Everything that is broken on purpose is found under its name, and would not be without the check for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from broken import BROKEN, Case

from conftest import Check, by_name
from pronk.data.finding import Finding
from pronk.recipe.checks import CHECKS

MOST_LETTERS = 400  # of a message: a person reads it at midnight


@pytest.fixture
def path(request: pytest.FixtureRequest, bases: Callable[[str], Path], tmp_path: Path) -> Path:
    case = BROKEN[request.param]
    return case.write(tmp_path, bases(case.base))


EACH = [(name, name) for name in BROKEN]


@pytest.mark.parametrize(("name", "path"), EACH, indirect=["path"], ids=list(BROKEN))
def test_it_is_found_by_name(name: str, path: Path, check: Check) -> None:
    case = BROKEN[name]
    checked = check(path)
    found = by_name(checked)
    assert case.check in found, list(found)
    one = found[case.check]
    assert one.severity == case.severity
    assert case.count is None or one.count == case.count
    assert (case.severity == "error") == bool(checked.errors)
    # nothing else is wrong with it
    assert {other.name for other in checked.errors} <= {case.check}


def check_words(one: Finding) -> None:
    """Every finding is a sentence, says where to look and what to do."""
    assert one.name in CHECKS
    assert one.message.endswith(".")
    assert one.remedy.endswith(".")
    assert one.remedy[0].isupper()
    assert len(one.message) < MOST_LETTERS
    assert 0 <= one.share <= 1
    assert len(one.rows) <= 2
    assert not one.count or one.rows or one.name.startswith(("label", "tokens-per"))
    assert all(row.place for row in one.rows)


def test_there_are_many() -> None:
    assert len(BROKEN) >= 26
    assert len({case.check for case in BROKEN.values()}) >= 24


# A check that is gone → a case that it found.
GONE = {
    "pronk.tokens.check.lengths._truncated": "a tenth of the answers is cut",
    "pronk.tokens.check.lengths._no_room": "some prompts take all of max_length",
    "pronk.tokens.check.lengths._one_long": "one answer outweighs its batch",
    "pronk.tokens.check.texts._empty": "an answer cannot be seen",
    "pronk.tokens.check.texts._specials": "answers end with the end token, spelled out",
    "pronk.tokens.check.texts._markers": "instructions hold a whole Alpaca prompt",
    "pronk.tokens.check.texts._placeholders": "answers are nan",
    "pronk.tokens.check.prompts._lead": "the marker differs by a space",
    "pronk.tokens.check.prompts._trailing_space": "the prompt ends with a space",
    "pronk.tokens.check.prompts._messages": "the system message is dropped",
    "pronk.tokens.check.prompts._unknown_tokens": "special tokens of another model",
    "pronk.tokens.check.prompts._served": "BOS with a system message alone",
    "pronk.tokens.check.prompts._border": "nothing between prompt and answer",
    "pronk.tokens.check.mask_findings": "two BOS",
    "pronk.tokens.check.masks._unknown": "letters that the tokenizer does not know",
    "pronk.tokens.check.token_findings": "padding is the end token",
    "pronk.tokens.check.labels._spread": "one label in thirty",
    "pronk.tokens.check.labels._tokens": "labels that begin alike",
    "pronk.tokens.check.setting_findings": "a warm-up longer than the run",
}


@pytest.mark.parametrize("gone", GONE)
def test_without_its_check_a_case_is_not_found(
    gone: str, bases: Callable[[str], Path], tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Case = BROKEN[GONE[gone]]
    monkeypatch.setattr(gone, lambda *_: [])
    assert case.check not in by_name(check(case.write(tmp_path, bases(case.base))))
