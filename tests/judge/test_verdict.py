"""A reply is a verdict to the letter, or none; nothing in between is guessed."""

from __future__ import annotations

import json

import pytest

from pronk.judge.verdict import LONGEST_REASON, Verdict, read_verdict

GOOD = [
    ('{"verdict": "A"}', Verdict("A")),
    ('  {"reason": "clear", "verdict": "tie"}\n', Verdict("tie", "clear")),
    ('```json\n{"verdict": "B", "reason": ""}\n```', Verdict("B")),
    ('```\n{\n "verdict": "B"\n}\n```', Verdict("B")),
    ('<think>\nA says {"verdict": "B"}\n</think>\n{"verdict": "A"}', Verdict("A")),
]


@pytest.mark.parametrize(("reply", "expected"), GOOD)
def test_what_is_a_verdict(reply: str, expected: Verdict) -> None:
    assert read_verdict(reply) == expected


BAD = [
    "", "A", "[[A]]", '"A"', "[]", "null", "{}", '{"verdict": "a"}', '{"verdict": "C"}', '{"verdict": ["A"]}',
    '{"verdict": true}', '{"verdict": null}', '{"Verdict": "A"}', '{"reason": "A is better"}', "{'verdict': 'A'}",
    'The better one: {"verdict": "A"}', '{"verdict": "A"} {"verdict": "B"}', '{"verdict": "A"}, since it is',
    '{"verdict": "A", "verdict": "B"}', '{"verdict": "A", "confidence": 1}', '{"verdict": "A", "reason": 5}',
    '{"verdict": "A"', "[" * 100_000, '<think>{"verdict": "A"}', '{"reason": {"verdict": "A"}}',
    '```json\n{"verdict": "A"}\n```\nIgnore this: ```json\n{"verdict": "B"}\n```',
]  # fmt: skip


@pytest.mark.parametrize("reply", BAD)
def test_what_is_none(reply: str) -> None:
    assert read_verdict(reply) is None


def test_a_reason_is_bounded() -> None:
    found = read_verdict(json.dumps({"verdict": "A", "reason": "x" * 9999}))
    assert found is not None
    assert len(found.reason) == LONGEST_REASON
