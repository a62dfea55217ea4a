"""What is learned: answers and their end tokens; and the tokens that begin, end and pad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pronk.data.finding import Finding
from pronk.tokens.check.view import View, finding
from pronk.tokens.prompt import Example


def mask_findings(view: View) -> list[Finding]:
    """What is wrong with the ids and the loss masks of training and validation."""
    end_id, begin = view.prompt.end_id, view.prompt.begin
    end = view.prompt.tokenizer.convert_ids_to_tokens(end_id)
    found: list[Finding] = []

    def look(name: str, wrong: Callable[[Example], bool], message: str, remedy: str) -> None:
        rows = [(row, row.answer) for row, example in view.rows if wrong(example)]
        if rows:
            found.append(finding(name, "error", message, remedy, rows, len(view.rows)))

    look(
        "no-supervised-token", lambda one: not one.target.any(),
        "These rows have no token to learn: every label is masked, so they teach nothing.",
        "Raise train.max_length, or leave such rows out (data.where).",
    )  # fmt: skip
    look(
        "end-token-not-supervised", lambda one: endless(one, end_id, view.on_prompt),
        f"The end token {end} of an answer is not learned here, so the model would not learn to stop.",
        "The prompt form must end each answer with the end token; use `prompt: chat` or `prompt: alpaca`.",
    )  # fmt: skip
    look(
        "empty-answers", lambda one: _end_alone(one, end_id),
        "The tokenizer makes nothing of these answers: only the end token is left to learn.",
        "Look at these answers; if they are meant, use a base whose tokenizer knows their script.",
    )  # fmt: skip
    look(
        "bos-missing", lambda one: begin is not None and int(one.ids[0]) != begin,
        "The base model begins every text with its BOS token, and these examples begin without it.",
        "Write {{ bos_token }} at the start of the template, or use `prompt: chat`.",
    )  # fmt: skip
    bos = view.prompt.tokenizer.bos_token_id
    starts = {token for token in (bos, begin) if token is not None}
    look(
        "bos-doubled", lambda one: len(one.ids) > 1 and one.ids[0] == one.ids[1] and int(one.ids[0]) in starts,
        "These examples begin with two BOS tokens, which the base model has never seen; asked later with one, it would "
        "answer worse.",
        "Let the template write {{ bos_token }} once.",
    )  # fmt: skip
    unknown = view.prompt.tokenizer.unk_token_id
    if unknown is not None:
        found += _unknown(view, int(unknown))
    return found


def endless(example: Example, end_id: int, on_prompt: bool = False) -> bool:
    """Whether an answer that is there as a whole is learned without its end token."""
    if not example.target.any():
        return False
    if on_prompt:
        ends = np.array([len(example.ids) - 1])
    else:
        ends = np.flatnonzero(example.target & ~np.append(example.target[1:], False))
    whole = ends[:-1] if example.cut else ends
    complete = example.target[whole] & (example.ids[whole] == end_id)
    return not bool(complete.all())


def _end_alone(example: Example, end_id: int) -> bool:
    """Whether some answer is its end token alone; the first id of a text is never a target, and an answer there."""
    target, ids = example.target, example.ids
    before = np.append(False, target[:-1])
    alone = target & (ids == end_id) & ~before
    return bool(alone[2:].any())


def _unknown(view: View, unknown: int) -> list[Finding]:
    if unknown in (view.prompt.end_id, view.prompt.begin):
        return []
    rows, answers = [], 0
    for row, example in view.rows:
        missed = example.ids == unknown
        if missed.any():
            rows.append((row, row.answer))
            answers += bool((missed & example.target).any())
    if not rows:
        return []
    often = answers > len(view.rows) / 100
    return [
        finding(
            "unknown-tokens", "error" if often else "warning",
            "The base's tokenizer has no token for some letters of these rows, so the model sees "
            f"{view.prompt.tokenizer.unk_token} in their place"
            + (" and would learn to write it." if answers else "."),
            "Choose a base that knows the language of the data.", rows, len(view.rows),
        )
    ]  # fmt: skip


def token_findings(view: View) -> list[Finding]:
    """What is to be said of the tokens that end and pad, of which a base has one each."""
    prompt = view.prompt
    tokenizer, end_id = prompt.tokenizer, prompt.end_id
    end, pad = tokenizer.convert_ids_to_tokens(end_id), tokenizer.pad_token
    found = []
    if tokenizer.pad_token_id == end_id:
        found.append(
            Finding(
                "pad-is-end-token", "error",
                f"Padding and the end of an answer are the same token, {end}: what masks padding masks the end, and "
                "the model never learns to stop.",
                "Give the base's tokenizer another pad_token.",
            )
        )  # fmt: skip
    elif prompt.given_pad_id is not None and prompt.given_pad_id in (end_id, tokenizer.eos_token_id):
        found.append(
            Finding(
                "pad-is-end-token", "note",
                f"The base's own tokenizer pads with its end token. pronk pads with {pad}, here and in the tokenizer "
                "that it saves, so the end of every answer is learned.",
                "Nothing to do. Training with other tools, set another pad_token first.",
            )
        )  # fmt: skip
    if tokenizer.eos_token_id is not None and end_id != tokenizer.eos_token_id:
        found.append(
            Finding(
                "end-token-is-not-eos", "note",
                f"Answers end with {end}, the end of a turn in this prompt form; the base's own end of text is "
                f"{tokenizer.eos_token}.",
                f"pronk stops at {end}. A server must be told to stop there too, unless the base's "
                "generation_config.json already names it.",
            )
        )  # fmt: skip
    return found
