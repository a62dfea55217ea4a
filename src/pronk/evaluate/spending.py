"""What asking a served model has come to, and the bounds that a person sets: tokens and money."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BYTES_PER_TOKEN = 4  # where nobody counts: about right for English, too few tokens for most other scripts
MILLION = 1_000_000


def rough_tokens(texts: Sequence[str]) -> int:
    """Tokens of some texts by their bytes, rounded up; for where no tokenizer is at hand."""
    return -(-sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Limits:
    """tokens: read and written together. cost: in the currency of the prices, which are for a million tokens."""

    tokens: int | None = None
    cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0

    def price(self, tokens_in: float, tokens_out: float) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / MILLION


@dataclass
class Tally:
    """Counted while several threads ask: answers, tokens, retries by reason, questions that got no answer.

    estimated: tokens among those counted that no server told: by bytes, and for tries that ran out of time, which
    may have been worked for, and billed. seconds: waiting for answers that came, summed over the threads.
    """

    limits: Limits = Limits()
    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: int = 0
    seconds: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _held: tuple[int, int] = (0, 0)  # of questions under way, at most
    _rough: int = 0  # tokens of questions whose tokens the server has told, by their bytes
    _told: int = 0  # … and as it told them
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def cost(self) -> float:
        """So far, in the currency of the prices; 0 without prices."""
        return self.limits.price(self.tokens_in, self.tokens_out)

    def hold(self, rough_in: int, longest_out: int) -> tuple[int, int] | None:
        """Set tokens aside for a question; None where a limit would be passed. Give what it returns to `release`.

        rough_in: the question by its bytes; corrected by what the server has counted so far.
        """
        with self._lock:
            held = math.ceil(rough_in * max(1.0, self._ratio())), longest_out
            read, written = self.tokens_in + self._held[0] + held[0], self.tokens_out + self._held[1] + held[1]
            if self.limits.tokens is not None and read + written > self.limits.tokens:
                return None
            if self.limits.cost is not None and self.limits.price(read, written) > self.limits.cost:
                return None
            self._held = self._held[0] + held[0], self._held[1] + held[1]
            return held

    def release(self, held: tuple[int, int]) -> None:
        """What `hold` set aside is settled."""
        with self._lock:
            self._held = self._held[0] - held[0], self._held[1] - held[1]

    def count_answer(self, rough_in: int, tokens_in: int, tokens_out: int, estimated: bool, seconds: float) -> None:
        """An answer came. rough_in: its question by bytes. estimated: the server did not count its tokens."""
        with self._lock:
            if not estimated:
                self._rough, self._told = self._rough + rough_in, self._told + tokens_in
            self.answers += 1
            self.seconds += seconds
            self._count(tokens_in, tokens_out, estimated)

    def count_retry(self, reason: str, lost: int = 0) -> None:
        """A question is asked again. lost: tokens of it that the try may have cost all the same."""
        with self._lock:
            self.retries[reason] += 1
            self._count(lost, 0, estimated=True)

    def count_failure(self, reason: str) -> None:
        """A question got no answer."""
        with self._lock:
            self.failures[reason] += 1

    def record(self) -> Mapping[str, object]:
        """For JSON."""
        return {
            "answers": self.answers, "tokens_in": self.tokens_in, "tokens_out": self.tokens_out,
            "estimated_tokens": self.estimated, "cost": self.cost, "retries": dict(self.retries),
            "failures": dict(self.failures),
        }  # fmt: skip

    def _ratio(self) -> float:
        return self._told / self._rough if self._rough else 1.0

    def _count(self, tokens_in: int, tokens_out: int, estimated: bool) -> None:
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.estimated += tokens_in + tokens_out if estimated else 0
