"""The model card in two languages: the same keys and blanks, the same outline and code, no English left in Korean."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from shipped_run import make_study
from test_card import HOSTILE, facts_of, hostile_everywhere

import pronk.ship.export.merged as merged
import pronk.ship.hub.card_texts as subject
from pronk import api
from pronk.errors import OptionError
from pronk.ship.hub.card import card
from pronk.ship.hub.facts import Facts, Source
from pronk.ship.hub.terms import Terms, licence_of_text

# names of people, programs, files and formulas, and what a licence wants in its own words
NAMES = {
    "pronk", "LoRA", "PEFT", "transformers", "vLLM", "llama", "cpp", "fp", "nf", "llm", "smollm", "Holm", "ROUGE",
    "chrF", "nat", "Apache", "rows", "jsonl", "negative", "neutral", "positive", "tuned", "tiny", "chat", "LICENSE",
    "gguf", "Built", "with", "Llama", "me", "owner", "base", "set", "Q", "p",
}  # fmt: skip
PARITY = {
    "reader": "PEFT", "same_chats": 3, "chats": 4, "kl": 1e-7, "worst": 1e-5, "places": 1234, "top1": 0.998,
    "tokens": 77, "loss": {"before": 1.0, "after": 1.01},
}  # fmt: skip


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Facts:
    return facts_of(make_study(tmp_path_factory.mktemp("carded") / "place", tiny_base))


def variants(facts: Facts) -> list[Facts]:
    """Cards that together say every sentence."""
    first = facts.results[0]
    llama = licence_of_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "its file LICENSE")
    other = Terms("mit", "", "", "its page on the hub")
    found = [replace(facts, results=tuple(replace(first, verdict=one) for _ in "a")) for one in ("tie", "worse", None)]
    found += [replace(facts, results=(), sources=(), rows={}, labels=())]
    for terms, made in ((llama, "read over the base in nf4"), (other, "read over the base as published")):
        found += [replace(facts, terms=terms, parity=PARITY, made=made, seeds=3, comparisons=9, unparsable=2)]
    for base in (merged.SEEN, merged.PUBLISHED, merged.WHOLE):
        reader = {**PARITY, "reader": f"the model merged onto {base}", "tokens": 1}
        found += [replace(facts, kind="merged", parity=reader, made=f"merged onto {base}")]
    for source in ("its model card", "its .gguf file", "its name", "the page of owner/base"):
        found += [
            replace(facts, terms=Terms("mit", source=source), base="smollm2", base_id="owner/base", quantize="nf4")
        ]
    found += [replace(facts, sources=(Source("owner/set", "owner/set"), Source("rows.jsonl", packaged=True)))]
    found += [replace(facts, overfitting=verdict, wrote=True) for verdict in ("overfitting", "still improving")]
    return [facts, *found]


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_texts() -> None:
    assert list(subject.ENGLISH) == list(subject.KOREAN)
    assert {k: blanks(v) for k, v in subject.ENGLISH.items()} == {k: blanks(v) for k, v in subject.KOREAN.items()}
    assert {key for _, key in subject._FOUND} <= set(subject.ENGLISH)


def english_words(page: str) -> list[str]:
    """Words of two letters or more outside front matter, code, links and licence notices."""
    body = ModelCard(page).text
    body = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    body = re.sub(
        r"\(https?:[^)]*\)|`[^`]*`|&#\d+;|^# .*$|Llama 3\.1 is licensed.*?Reserved\.", " ", body, flags=re.MULTILINE
    )
    return [word for word in re.findall("[A-Za-z]{2,}", body) if word not in NAMES]


def test_no_english_is_left_in_the_korean_card(facts: Facts) -> None:
    for one in variants(facts):
        assert english_words(card(one, "ko")) == []
        assert english_words(card(one))


@pytest.mark.parametrize("key", ["limits.never", "source.hub", "made.dequantized", "verdict.tie", "data.test"])
def test_the_check_sees_an_english_text(facts: Facts, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subject.KOREAN, key, subject.ENGLISH[key])
    assert any(english_words(card(one, "ko")) for one in variants(facts))


def outline(page: str) -> list[tuple[str, str, str]]:
    """Headings, tables and blocks; of code and tables' figures also what they say."""
    tokens = MarkdownIt("commonmark").enable("table").parse(ModelCard(page).text)
    return [(token.type, token.tag, token.content if token.type == "fence" else "") for token in tokens]


def test_front_matter_code_and_outline_are_the_same(facts: Facts) -> None:
    """A program reads the same, whatever the language."""
    harmful = [hostile_everywhere(facts, text) for text in HOSTILE]
    for one in [*variants(facts), *harmful]:
        english, korean = card(one), card(one, "ko")
        assert korean != english
        assert outline(korean) == outline(english)
        assert ModelCard(korean).data.to_dict() == ModelCard(english).data.to_dict()


def test_it_reads_as_korean(facts: Facts) -> None:
    page = card(facts, "ko")
    better = card(replace(facts, results=(replace(facts.results[0], verdict="better"),)), "ko")
    assert (
        "우연으로 설명되지 않을 만큼 베이스보다 낫습니다: 정확도 0.833, 베이스 0.333, 테스트 항목 12개 (차이" in better
    )
    assert "| 정확도 | 0.833 [0.552 ~ 0.953] | 0.333 [0.138 ~ 0.609] | +0.500 [" in page
    with pytest.raises(OptionError, match="--lang fr"):
        card(facts, "fr")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "hub", "--lang", "fr"], "--lang fr"),
        (["--to", "adapter", "--lang", "ko"], "--lang belongs to --to hub"),
    ],
)
def test_a_language_that_cannot_be_is_told(arguments: list[str], said: str, pronk: Any, tmp_path: Path) -> None:
    told = pronk("export", str(tmp_path), *arguments)
    assert told.code == 2
    assert said in " ".join(told.err.split())
    with pytest.raises(OptionError, match=said):
        api.export(tmp_path, arguments[1], lang=arguments[3])
