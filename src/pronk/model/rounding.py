"""Sizes of a micro-batch rounded up, so that few shapes are recorded (`step.py`) and the planner knows them beforehand
(`memory/costs.py`). Needs no torch."""

from __future__ import annotations

ROUND_TOKENS, ROUND_TARGETS, ROUND_SEGMENTS, ROUND_SEEN = 512, 256, 64, 4096
SHORTEST = 128  # the longest segment is rounded up to a power of two, and to this at least


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is no smaller than a number; 0 stays 0."""
    return -(-number // multiple) * multiple


def round_longest(length: int) -> int:
    """Tokens of the longest segment, rounded up to a power of two."""
    return max(1 << (length - 1).bit_length(), SHORTEST)
