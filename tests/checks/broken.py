"""Recipes, data, templates and tokenizers that are broken on purpose, each with the check that must name it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pronk.data.finding import Finding
from pronk.doctor.checking import Checked

Rows = list[dict[str, Any]]
Check = Callable[..., Checked]  # of a recipe's path, and overrides
LOOP = "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + eos_token + '\n' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
PREAMBLE = "Below is an instruction that describes a task.\n\n### Instruction:\n{}\n\n### Response:\n"
WORDS = (  # a token each
    "about", "black", "clear", "early", "field", "green", "house", "issue", "known", "large", "money", "north", "order",
    "paper", "quick", "range", "small",
)  # fmt: skip


def by_name(checked: Checked) -> dict[str, Finding]:
    return {one.name: one for one in checked.findings}


def answer(number: int, words: int = 6) -> str:
    return " ".join(WORDS[(number * 7 + 3 * i) % len(WORDS)] for i in range(words))


def pairs(count: int = 60) -> Rows:
    return [{"prompt": f"Question {n}: what of {answer(n, 3)}?", "response": answer(n)} for n in range(count)]


def alpaca(count: int = 60) -> Rows:
    return [{"instruction": f"Task {n}: {answer(n, 4)}.", "input": "", "output": answer(n)} for n in range(count)]


def chats(count: int = 60, turns: int = 2, system: str = "") -> Rows:
    made = []
    for n in range(count):
        messages = [{"role": "system", "content": system}] if system else []
        for turn in range(turns):
            messages.append({"role": "user", "content": f"Row {n}, turn {turn}: {answer(n + turn, 3)}?"})
            messages.append({"role": "assistant", "content": answer(n + turn)})
        made.append({"messages": messages})
    return made


def labelled(counts: dict[str, int]) -> Rows:
    return [
        {"text": f"Text {n} of {label}: {answer(n)}.", "label": label} for label, count in counts.items()
        for n in range(count)
    ]  # fmt: skip


def texts(*given: str) -> Rows:
    return [{"text": text} for text in given]


def change(rows: Rows, where: range, column: str, write: Callable[[str], str]) -> Rows:
    """The rows with a column rewritten in some of them."""
    return [{**row, column: write(row[column])} if n in where else row for n, row in enumerate(rows)]


@dataclass
class Case:
    """check: the name that must be found; severity: how bad. base: which tokenizer (see conftest.py)."""

    check: str
    severity: str
    rows: Rows
    data: dict[str, Any] = field(default_factory=dict)
    template: str = ""
    base: str = "tiny"
    recipe: dict[str, Any] = field(default_factory=dict)
    count: int | None = None

    def write(self, folder: Path, base: Path) -> Path:
        """The recipe's file, with its data and its template beside it."""
        lines = [json.dumps(row, ensure_ascii=False) for row in self.rows]
        (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
        split = {"train": len(self.rows) - 10, "validation": 5, "test": 10, "shuffle": False, "keep_openings": False}
        recipe: dict[str, Any] = {
            "base": str(base), "data": {"source": "rows.jsonl", "split": split, **self.data},
            "train": {"batch_size": 8, "max_length": 200}, "evaluate": ["likelihood"], **self.recipe,
        }  # fmt: skip
        if self.template:
            (folder / "own.jinja").write_text(self.template, encoding="utf-8")
            recipe["prompt"] = "own.jinja"
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
        return folder / "recipe.yaml"


LONG = answer(1, 100)
RENDERED = [PREAMBLE.format(f"Task {n}: {answer(n, 4)}") for n in range(60)]
SPACE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n\n' }}"
    "{% elif m.role == 'assistant' %}{{ '### Response: ' + m.content + eos_token + '\n' }}{% endif %}{% endfor %}"
)

BROKEN: dict[str, Case] = {
    # --- how long things are
    "a tenth of the answers is cut": Case(
        "truncated-answers", "error", change(pairs(), range(6), "response", lambda _: LONG),
        recipe={"train": {"max_length": 100, "batch_size": 8}}, count=6,
    ),
    "one answer of 150 is cut": Case(
        "truncated-answers", "warning", change(pairs(150), range(1), "response", lambda _: LONG),
        recipe={"train": {"max_length": 100, "batch_size": 8}}, count=1,
    ),
    "the last turn of conversations is cut": Case(
        "truncated-answers", "error", chats(turns=4), recipe={"train": {"max_length": 120, "batch_size": 8}},
    ),
    "some prompts take all of max_length": Case(
        "prompt-longer-than-max-length", "error", change(pairs(), range(4), "prompt", lambda text: text + LONG),
        recipe={"train": {"max_length": 100, "batch_size": 8}}, count=4,
    ),
    "every prompt takes all of max_length": Case(
        "prompt-longer-than-max-length", "error", pairs(), recipe={"train": {"max_length": 20}}, count=45,
    ),
    "a test prompt is longer than the base reads": Case(
        "prompt-longer-than-the-base-reads", "error", change(pairs(), range(59, 60), "prompt", lambda _: LONG * 4),
        count=1,
    ),
    "one answer outweighs its batch": Case(
        "one-long-example", "warning", change(pairs(), range(1), "response", lambda _: LONG),
        data={"instruction": "Say it."},
    ),
    # --- what stands in the texts
    "an answer is empty": Case("empty-answers", "error", change(pairs(), range(3), "response", lambda _: ""), count=3),
    "an assistant turn is empty": Case(
        "empty-answers", "error",
        [*chats(59), {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}], count=1,
    ),
    "an answer cannot be seen": Case(
        "empty-answers", "error", change(pairs(), range(2), "response", lambda _: "\u200b\ufeff"), count=2,
    ),
    "answers end with the end token, spelled out": Case(
        "special-tokens-in-answers", "error", change(pairs(), range(60), "response", lambda text: text + "<|im_end|>"),
        count=60,
    ),
    "answers end with another model's end token": Case(
        "special-tokens-in-answers", "error", change(pairs(), range(9), "response", lambda text: text + "</s>"),
        count=9,
    ),
    "an answer in two hundred spells a special token": Case(
        "special-tokens-in-answers", "warning",
        change(pairs(200), range(1), "response", lambda text: text + " <|im_start|>"), count=1,
    ),
    "a question spells a special token": Case(
        "special-tokens-in-text", "warning", change(pairs(), range(2), "prompt", lambda text: "<|im_start|>" + text),
        count=2,
    ),
    "instructions hold a whole Alpaca prompt": Case(
        "rendered-prompt-in-text", "error",
        [{**row, "instruction": RENDERED[n]} for n, row in enumerate(alpaca())], count=60,
    ),
    "instructions hold the marker with another space": Case(
        "rendered-prompt-in-text", "error",
        change(alpaca(), range(60), "instruction", lambda text: text + "\n\n### Response: "), count=60,
    ),
    "questions are rendered in the base's own chat form": Case(
        "rendered-prompt-in-text", "error",
        change(pairs(), range(60), "prompt", lambda text: f"<|im_start|>user\n{text}<|im_end|>\n"), count=60,
    ),
    "a few questions hold a chat form's markers": Case(
        "rendered-prompt-in-text", "warning", change(pairs(), range(2), "prompt", lambda text: f"[INST] {text}"),
        count=2,
    ),
    "data.instruction is a whole prompt": Case(
        "rendered-prompt-in-text", "error", pairs(), data={"instruction": PREAMBLE.format("Answer.")}, count=60,
    ),
    "data.system holds a chat form's markers": Case(
        "rendered-prompt-in-text", "error", chats(), data={"system": "<<SYS>>\nBe terse.\n<</SYS>>"}, count=60,
    ),
    "answers begin with the response marker": Case(
        "rendered-prompt-in-answers", "error",
        change(pairs(), range(60), "response", lambda text: "### Response: " + text), count=60,
    ),
    "whole prompts as plain text": Case(
        "rendered-prompt-in-answers", "warning", texts(*(one + answer(n) for n, one in enumerate(RENDERED))), count=60,
    ),
    "answers are nan": Case(
        "placeholder-texts", "warning", change(pairs(), range(3), "response", lambda _: "nan"), count=3,
    ),
    "inputs are <noinput>": Case(
        "placeholder-texts", "warning", change(alpaca(), range(60), "input", lambda _: "<noinput>"), count=60,
    ),
    # --- templates
    "the marker differs by a space": Case(
        "response-marker-differs", "warning", pairs(), template=SPACE + ASK.replace("assistant:\n", "Response:"),
    ),
    "the marker differs by a space, several turns": Case(
        "response-marker-differs", "error", chats(), template=SPACE + ASK.replace("assistant:\n", "Response:"),
    ),
    "the prompt ends with a space": Case(
        "prompt-ends-with-space", "warning", pairs(), template=SPACE + ASK.replace("assistant:\n", "Response: "),
    ),
    "nothing between prompt and answer": Case(
        "border-merges", "note", pairs(), template=LOOP.replace("':\n' + ", "") + ASK.replace(":\n", ""), count=6,
    ),
    "no generation prompt": Case("prompt-differs-from-inference", "error", pairs(), template=LOOP),
    "another generation prompt": Case(
        "prompt-differs-from-inference", "error", pairs(), template=LOOP + ASK.replace("assistant", "bot"),
    ),
    "earlier questions change": Case(
        "prompt-differs-from-inference", "error", chats(),
        template="{% if messages | length > 2 %}long{% endif %}" + LOOP + ASK,
    ),
    "a date of its own in training": Case(
        "prompt-differs-from-inference", "error", pairs(),
        template="{% if add_generation_prompt %}Today.{% else %}Then.{% endif %}" + LOOP + ASK,
    ),
    "the system message is dropped": Case(
        "message-not-in-prompt", "error", chats(system="Be terse."),
        template="{% for m in messages if m.role != 'system' %}{{ m.role + ':\n' + m.content + eos_token }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}", count=50,
    ),
    "questions in lower case": Case(
        "message-not-in-prompt", "error", pairs(),
        template=LOOP.replace("m.content", "(m.content | lower if m.role == 'user' else m.content)") + ASK,
    ),
    "questions cut by the template": Case(
        "message-not-in-prompt", "error", pairs(),
        template=LOOP.replace("m.content", "(m.content[:20] if m.role == 'user' else m.content)") + ASK,
    ),
    "answers changed by the template": Case(
        "answer-changed-by-template", "error", pairs(),
        template=LOOP.replace("m.content", "m.content | replace('paper', 'page')") + ASK,
    ),
    "earlier answers forgotten": Case(
        "answer-changed-by-template", "error", chats(),
        template=LOOP.replace("m.content", "(m.content if loop.last or m.role == 'user' else '…')") + ASK,
    ),
    "no answer printed": Case(
        "no-supervised-token", "error", pairs(),
        template=LOOP.replace("m.content", "(m.content if m.role == 'user' else '')") + ASK,
    ),
    "no end token between turns": Case(
        "end-token-not-supervised", "error", chats(), template=LOOP.replace(" + eos_token", "") + ASK,
    ),
    "special tokens of another model": Case(
        "template-token-unknown", "error", pairs(),
        template="{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content "
                 "+ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
                 "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    ),
    "two BOS": Case("bos-doubled", "error", pairs(), base="bos", template="{{ bos_token + bos_token }}" + LOOP + ASK),
    "BOS in the base's template and in ours": Case(
        "bos-doubled", "error", pairs(), base="bos", template="<|endoftext|>{{ bos_token }}" + LOOP + ASK,
    ),
    "BOS with a system message alone": Case(
        "bos-missing", "warning", pairs(), base="bos",
        template="{% if messages[0].role == 'system' %}{{ bos_token }}{% endif %}" + LOOP + ASK,
    ),
    # --- tokenizers
    "padding is the end token": Case("pad-is-end-token", "note", pairs()),
    "nothing else to pad with": Case("pad-is-end-token", "error", pairs(), base="nothing to pad with"),
    "no end token": Case("end-token-not-supervised", "error", pairs(), base="no end"),
    "a tokenizer of another model": Case("token-beyond-vocabulary", "error", pairs(), base="small vocabulary"),
    "letters that the tokenizer does not know": Case(
        "unknown-tokens", "error", change(pairs(), range(9), "response", lambda _: "매출이 늘었다"), base="words",
        count=9, recipe={"train": {"max_length": 600, "batch_size": 8}},
    ),
    "letters that the tokenizer drops": Case(
        "empty-answers", "error", change(pairs(), range(9), "response", lambda _: "매출"), base="letters", count=9,
        recipe={"train": {"max_length": 600, "batch_size": 8}},
    ),
    # --- labels
    "one label in thirty": Case(
        "imbalanced-labels", "warning", labelled({"good": 60, "bad": 2}), data={"split": {"validation": 0, "test": 0}},
        recipe={"evaluate": ["likelihood", "classify"]}, count=2,
    ),
    "a label without rows": Case(
        "label-without-rows", "error", labelled({"good": 40, "bad": 40}), data={"labels": ["good", "bad", "neither"]},
        count=1,
    ),
    "labels that begin alike": Case(
        "labels-begin-alike", "note", labelled({"very good": 40, "very bad": 40}), count=2,
    ),
    "a label that begins another": Case(
        "label-begins-another", "warning", labelled({"good": 40, "good enough": 40}), count=2,
    ),
    # --- settings
    "a warm-up longer than the run": Case(
        "warmup-never-ends", "warning", pairs(), recipe={"train": {"epochs": 1, "warmup_steps": 50, "batch_size": 8}},
    ),
    "a batch larger than the data": Case(
        "batch-larger-than-data", "warning", pairs(), recipe={"train": {"batch_size": 64}},
    ),
}  # fmt: skip
