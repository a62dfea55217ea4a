"""The item results of a model that only answers: labels read off its answers, and answers beside the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pronk.data.conversation import Conversation
from pronk.errors import OptionError
from pronk.evaluate import similarity
from pronk.evaluate.classify import EXTRA_TOKENS, parse_label
from pronk.evaluate.overlap import chrf, rouge_l
from pronk.evaluate.served import ServedAnswer
from pronk.evaluate.similarity import ComparedItem
from pronk.tokens.examples import Examples

# Another model's tokens are others than the base's: so many times the length is surely enough.
TOKENS_APART = 2


def longest_answer(examples: Examples, evaluations: Sequence[str], max_new_tokens: int | None) -> int:
    """Tokens that an answer may take, by the base's tokenizer and with room for another's.

    Raises OptionError where nothing that is measured looks at answers.
    """
    if not {"classify", "similarity"} & {*evaluations}:
        raise OptionError(
            "--against: a served model only answers, and this recipe measures likelihood alone; "
            "add `evaluate: [likelihood, similarity]`"
        )
    if "similarity" in evaluations and max_new_tokens is not None:
        return max_new_tokens
    texts = [*examples.labels] if "classify" in evaluations else []
    texts += [row.answer for row in examples.splits.test] if "similarity" in evaluations else []
    return TOKENS_APART * max(map(len, examples.prompt.answer_ids(texts))) + EXTRA_TOKENS


def served_records(
    answers: Sequence[ServedAnswer], rows: Sequence[Conversation], labels: Sequence[str],
    evaluations: Sequence[str], ids: Sequence[str],
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """One record an item by evaluation, as a run folder holds them, without what a likelihood would need."""
    found: dict[str, list[dict[str, Any]]] = {}
    if "classify" in evaluations:
        found["classify"] = [
            {
                "id": name, "label": row.label, "scores": dict.fromkeys(labels),
                "generated": answer.text, "generated_label": parse_label(answer.text, labels),
            }
            for name, row, answer in zip(ids, rows, answers, strict=True)
        ]  # fmt: skip
    if "similarity" in evaluations:
        compared = [
            ComparedItem(text := one.text.strip(), rouge_l(text, row.answer), chrf(text, row.answer), one.ended)
            for one, row in zip(answers, rows, strict=True)
        ]
        found["similarity"] = similarity.records(compared, ids)
    return found
