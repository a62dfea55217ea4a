"""The item results of a model that only answers: labels read off its answers, and answers beside the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pronk.data.conversation import Conversation
from pronk.errors import OptionError
from pronk.evaluate import answers as free_answers
from pronk.evaluate import exact, similarity
from pronk.evaluate.answers import FreeAnswer
from pronk.evaluate.classify import EXTRA_TOKENS, parse_label
from pronk.evaluate.served import ServedAnswer
from pronk.recipe import ANSWERING, Exact
from pronk.tokens.examples import Examples

# Another model's tokens are others than the base's: so many times the length is surely enough.
TOKENS_APART = 2


def longest_answer(examples: Examples, evaluations: Sequence[str], max_new_tokens: int | None) -> int:
    """Tokens that an answer may take, by the base's tokenizer and with room for another's.

    Raises OptionError where nothing that is measured looks at answers.
    """
    answering = {*ANSWERING} & {*evaluations}
    if not answering and "classify" not in evaluations:
        raise OptionError(
            "--against: a served model only answers, and this recipe measures likelihood alone; "
            "add `evaluate: [likelihood, similarity]`"
        )
    if answering and max_new_tokens is not None:
        return max_new_tokens
    texts = [*examples.labels] if "classify" in evaluations else []
    texts += [row.answer for row in examples.splits.test] if answering else []
    return TOKENS_APART * max(map(len, examples.prompt.answer_ids(texts))) + EXTRA_TOKENS


def served_records(
    answers: Sequence[ServedAnswer], rows: Sequence[Conversation], labels: Sequence[str],
    evaluations: Sequence[str], ids: Sequence[str], settings: Exact,
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """One record an item by evaluation, as a run folder holds them, without what a likelihood would need.

    settings: of the evaluation exact.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    if "classify" in evaluations:
        found["classify"] = [
            {
                "id": name, "label": row.label, "scores": dict.fromkeys(labels),
                "generated": answer.text, "generated_label": parse_label(answer.text, labels),
            }
            for name, row, answer in zip(ids, rows, answers, strict=True)
        ]  # fmt: skip
    free, references = [FreeAnswer(one.text.strip(), one.ended) for one in answers], [row.answer for row in rows]
    if "exact" in evaluations:
        found["exact"] = exact.records(exact.exact_items(free, references, settings), ids)
    if "answers" in evaluations:
        found["answers"] = free_answers.records(free, ids)
    if "similarity" in evaluations:
        found["similarity"] = similarity.records(similarity.compared(free, references), ids)
    return found
