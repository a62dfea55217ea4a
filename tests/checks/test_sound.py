"""What is sound is called sound: no error and no warning but those that are true of the data, which are listed here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from broken import ASK, LOOP, Case, Check, alpaca, chats, labelled, pairs, texts

from pronk.data.finding import Finding
from pronk.data.split import Splits, split_conversations
from pronk.recipe import Split
from pronk.tokens.check import (
    View,
    length_findings,
    mask_findings,
    prompt_findings,
    text_findings,
    token_findings,
)

ROOT = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("PRONK_TEST_DATA", ROOT.parent / "shared")) / "data"
NONE = ""
PROSE = [f"Sentence {n} of a long text, as books have them." for n in range(60)]

# All of them on SmolLM2's tokenizer or one that begins texts with a BOS.
SOUND: dict[str, Case] = {
    "pairs": Case(NONE, NONE, pairs()),
    "pairs, a BOS before each text": Case(NONE, NONE, pairs(), base="bos"),
    "alpaca": Case(NONE, NONE, alpaca()),
    "alpaca with inputs": Case(NONE, NONE, [{**row, "input": "some context"} for row in alpaca()]),
    "several turns, the base's own template": Case(NONE, NONE, chats(), recipe={"prompt": "chat"}),
    "several turns, the Alpaca form": Case(NONE, NONE, chats(), base="bos"),
    "a system message": Case(NONE, NONE, chats(system="Be terse."), recipe={"prompt": "chat"}),
    "a template of one's own": Case(NONE, NONE, pairs(), template=LOOP + ASK),
    "a template of one's own, several turns, BOS": Case(NONE, NONE, chats(), template=LOOP + ASK, base="bos"),
    "plain text": Case(NONE, NONE, texts(*PROSE)),
    "plain text, a BOS before each": Case(NONE, NONE, texts(*PROSE), base="bos"),
    "labels": Case(NONE, NONE, labelled({"good": 40, "bad": 40, "neither": 30})),
    "prompts learned as well": Case(
        NONE, NONE, pairs(), base="bos", recipe={"train": {"train_on_prompt": True, "batch_size": 8}}
    ),
    "a study of lengths and targets": Case(
        NONE, NONE, pairs(), recipe={"study": {"train.max_length": [150, 250], "adapter.rank": [4, 8]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_no_false_alarm(name: str, bases: Callable[[str], Path], tmp_path: Path, check: Check) -> None:
    case = SOUND[name]
    assert alarms(check(case.write(tmp_path, bases(case.base))).findings) == set()


def alarms(findings: Any) -> set[str]:
    return {one.name for one in findings if one.severity != "note"}


# file → keys of `data`, of `train`, and what is true of it
REAL: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "alpaca/alpaca_cleaned_5000.jsonl": ({}, {}, set()),
    "alpaca/rasbt_instruction_1100.jsonl": ({}, {}, set()),
    # three rows have the input N/A
    "ko/koalpaca_v1_5000.jsonl": ({}, {}, {"placeholder-texts"}),
    "chat/oasst1_messages.jsonl": ({}, {"max_length": 4096}, set()),
    "chat/oasst1_sharegpt.jsonl": ({}, {"max_length": 4096}, set()),
    "chat/fastchat_dummy_conversation.json": ({"split": {"keep_openings": False}}, {}, set()),
    # SmolLM2's vocabulary needs some four tokens for a syllable
    "ko/sci_news_sum_50.jsonl": (
        {"format": "pairs", "columns": {"prompt": "document", "response": "summary"},
         "instruction": "다음 글을 요약해주세요: "}, {"max_length": 8192}, set(),
    ),
    "fpb/Sentences_50Agree.jsonl": ({"format": "classify", "columns": {"text": "sentence"}}, {}, set()),
    "eval/gsm8k_train_1000.jsonl": (
        {"format": "pairs", "columns": {"prompt": "question", "response": "answer"}}, {}, set()
    ),
    "eval/mmlu_test_8x57.jsonl": ({}, {}, set()),
}  # fmt: skip
# What is said of rows, whatever the model: tests/data and tests/checks have cases of their own for each.
OF_PROMPTS_AND_TOKENS = {
    "truncated-answers", "prompt-longer-than-max-length", "one-long-example", "special-tokens-in-text",
    "special-tokens-in-answers", "rendered-prompt-in-text", "rendered-prompt-in-answers", "placeholder-texts",
    "empty-answers", "unknown-tokens", "bos-missing", "bos-doubled", "end-token-not-supervised", "no-supervised-token",
    "prompt-differs-from-inference", "message-not-in-prompt", "response-marker-differs", "imbalanced-labels",
    "label-without-rows", "label-begins-another", "warmup-never-ends", "batch-larger-than-data",
    "prompt-ends-with-space", "template-token-unknown", "pad-is-end-token", "token-beyond-vocabulary",
    "answer-changed-by-template", "prompt-longer-than-the-base-reads",
}  # fmt: skip


FEW = 1000  # rows at most


@pytest.mark.parametrize("prompt", ["alpaca", "chat"])
@pytest.mark.parametrize("file", REAL)
def test_no_false_alarm_on_real_data(file: str, prompt: str, smollm2: Any, tmp_path: Path, check: Check) -> None:
    assert smollm2
    source, (data, train, true) = REAL_DATA / file, REAL[file]
    if not source.is_file():
        pytest.skip(f"the data is not here: {source}")
    if prompt == "chat" and source.suffix == ".jsonl":  # the other form has read all of it
        lines, few = source.read_text(encoding="utf-8").split("\n")[:-1], tmp_path / source.name
        few.write_text("".join(f"{line}\n" for line in lines[:: -(-len(lines) // FEW)]), encoding="utf-8")
        source = few
    recipe = {"base": "smollm2", "data": {"source": str(source), **data}, "prompt": prompt, "train": train}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    found = alarms(check(path).findings) & OF_PROMPTS_AND_TOKENS
    assert found == true if prompt == "alpaca" else found <= true


# --- Llama's own tokenizers -------------------------------------------------------------------------

FORMS = [
    *((name, kind) for name in ("llama2", "llama3", "smollm2") for kind in ("alpaca", "chat")),
    ("llama2", "llama2"), ("llama3", "llama3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers() -> Iterator[Any]:
    """The real tokenizers of tests/laws."""
    sys.path.insert(0, str(ROOT / "tests" / "laws"))
    import real_tokenizers

    yield real_tokenizers
    sys.path.remove(str(ROOT / "tests" / "laws"))


def findings_on(tokenizers: Any, name: str, kind: str, splits: Splits) -> list[Finding]:
    from pronk.tokens.examples import make_examples

    real = tokenizers.renewed(name)
    examples = make_examples(kind, real.tokenizer, 8192, real.vocabulary, splits, (), [None], leave_out=True)
    view = View(examples, None, batch_size=8)
    parts = (token_findings, mask_findings, prompt_findings, text_findings, length_findings)
    return [one for part in parts for one in part(view)]


@pytest.mark.parametrize(("name", "kind"), FORMS, ids="-".join)
@pytest.mark.parametrize("rows", ["oasst1_messages", "koalpaca_v1_5000"])
def test_no_false_alarm_on_llama(name: str, kind: str, rows: str, tokenizers: Any) -> None:
    from pronk.data.sources import read_conversations
    from pronk.recipe import Data

    file = REAL_DATA / ("ko" if rows.startswith("ko") else "chat") / f"{rows}.jsonl"
    if not file.is_file():
        pytest.skip(f"the data is not here: {file}")
    conversations = read_conversations(Data(source=str(file)))[0][:400]
    splits = split_conversations(conversations, (), Split(test=0.1))
    found = alarms(findings_on(tokenizers, name, kind, splits))
    assert found <= ({"placeholder-texts"} if rows.startswith("ko") else {"truncated-answers"}), found
