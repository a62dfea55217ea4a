"""Sizes of a micro-batch rounded up, so that few shapes are recorded (`step.py`) and the planner knows them beforehand
(`memory/costs.py`). Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

ROUND_TOKENS, ROUND_TARGETS, ROUND_SEGMENTS, ROUND_SEEN = 512, 256, 64, 4096
SHORTEST = 128  # the longest segment is rounded up to a power of two, and to this at least


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is no smaller than a number; 0 stays 0."""
    return -(-number // multiple) * multiple


def round_longest(length: int) -> int:
    """Tokens of the longest segment, rounded up to a power of two."""
    return max(1 << (length - 1).bit_length(), SHORTEST)


@dataclass(frozen=True, slots=True)
class Shape:
    """What steps that share a recording have in common. seen: keys that the segments see together, 0 where none looks
    back; longest_seen: of one segment."""

    tokens: int
    targets: int
    segments: int
    longest: int
    seen: int
    longest_seen: int


def rounded_shape(tokens: int, targets: int, segments: int, longest: int, seen: int, longest_seen: int) -> Shape:
    """The shape that a micro-batch of these sizes is padded to."""
    segment = round_longest(longest)
    whole = round_up(tokens, ROUND_TOKENS)
    # padding is cut into segments no longer than the longest, and seen by itself
    more = -(-(whole - tokens) // segment)
    return Shape(
        whole, round_up(targets, ROUND_TARGETS), round_up(segments + more, ROUND_SEGMENTS), segment,
        round_up(seen + whole - tokens, ROUND_SEEN) if seen else 0, round_longest(longest_seen) if seen else 0,
    )  # fmt: skip
