"""What rows will cost, before anything is asked: room for an answer, requests, tokens, money."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import fmean

from pronk.data.words import counted
from pronk.synthesize.making import VERIFY_TOKENS, Making
from pronk.synthesize.requests import Request
from pronk.synthesize.samples import Material

KEPT = 0.5  # of the examples asked for: what is taken for granted before anything is known
BYTES_PER_TOKEN = 3  # cautious for English; about right for scripts of two or three bytes a letter
LEAST_ROOM, MOST_ROOM = 64, 4096  # tokens


def room_for(material: Material, examples: int) -> int:
    """Tokens that an answer may take: twice what so many seeds take that are longer than nine in ten."""
    sizes = sorted(_sizes(material))
    long = sizes[min(len(sizes) * 9 // 10, len(sizes) - 1)]
    return min(max(math.ceil(2 * examples * long / BYTES_PER_TOKEN), LEAST_ROOM), MOST_ROOM)


def estimate(making: Making) -> str:
    """What the missing rows will come to, in a line for people."""
    requests = _some_requests(making)
    read = fmean(making.writer.tokens(request) for request in requests)
    asked, rows = making.counts.asked, len(making.output.rows)
    kept = max(rows / asked, 0.01) if asked else KEPT
    examples = making.missing / kept
    number = math.ceil(examples / requests[0].wanted)
    tokens_in, tokens_out = number * read, examples * fmean(_sizes(making.material)) / BYTES_PER_TOKEN
    if making.order.verify:  # a question for each text, about as long as a request
        tokens_in, tokens_out = tokens_in + examples * read, tokens_out + examples * VERIFY_TOKENS / 2
    cost = making.tally.limits.price(tokens_in, tokens_out)
    money = f", a cost of {cost:.2f}" if cost else ""
    return (
        f"{counted(making.missing, 'row')} to make: about {counted(number, 'request')}, {tokens_in:,.0f} tokens read "
        f"and {tokens_out:,.0f} written{money}, if {kept:.0%} of what is written can be kept"
    )


def _some_requests(making: Making) -> list[Request]:
    labels: Sequence[str | None] = making.material.labels or (None,)
    return [making.asking.request(number, label) for number, label in enumerate(labels[:8])]


def _sizes(material: Material) -> list[int]:
    """Bytes of each seed as a model would write it."""
    task = material.task
    return [len(json.dumps(seed.values(task), ensure_ascii=False).encode()) for seed in material.seeds]
