"""What judging is going to cost, in tokens, money and time, before it is paid for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pronk.data.words import counted
from pronk.errors import OptionError
from pronk.evaluate.spending import Limits, rough_tokens

# Above these a person is asked first. The cost is in whatever currency the prices are in.
ASK_TOKENS, ASK_COST, ASK_SECONDS = 1_000_000, 1.0, 600.0
REPLY_TOKENS = 60.0  # of a verdict with its reason, until some have been measured


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of what is still to be asked. counted: whose tokenizer counted. seconds: None before anything was measured.

    limits: with the prices, None for a model of this machine, which costs time alone.
    """

    calls: int
    tokens_in: int
    tokens_out: int
    counted: str
    limits: Limits | None = None
    seconds: float | None = None

    @property
    def cost(self) -> float | None:
        """In the currency of the prices; None without any."""
        priced = self.limits is not None and (self.limits.price_in or self.limits.price_out)
        return self.limits.price(self.tokens_in, self.tokens_out) if self.limits and priced else None

    @property
    def large(self) -> bool:
        """Whether to ask a person first."""
        tokens = self.tokens_in + self.tokens_out if self.limits else 0
        return tokens > ASK_TOKENS or (self.cost or 0.0) > ASK_COST or (self.seconds or 0.0) > ASK_SECONDS

    def said(self) -> str:
        """In a line."""
        read = f"{counted(self.calls, 'reading')}, about {_round(self.tokens_in):,} tokens in"
        parts = [f"{read} and {_round(self.tokens_out):,} out ({self.counted})" if self.limits else read]
        parts += [f"cost about {self.cost:.2f} at the prices given"] if self.cost is not None else []
        parts += [f"time about {duration(self.seconds)}"] if self.seconds is not None else []
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "calls": self.calls, "tokens_in": self.tokens_in, "tokens_out": self.tokens_out, "counted": self.counted,
            "cost": self.cost, "seconds": self.seconds,
        }  # fmt: skip


def allow(estimate: Estimate, yes: bool, confirm: Callable[[str], bool] | None) -> bool:
    """Whether to go on. confirm: asks a person; None where nobody is there to be asked.

    Raises OptionError where somebody must be asked and nobody is there.
    """
    if yes or not estimate.large:
        return True
    if confirm is None:
        raise OptionError(
            f"{estimate.said()}; that is much, and nobody can be asked here: add --yes to go on, or ask for fewer "
            "pairs (--items N, --pairs base)"
        )
    return confirm("Go on?")


def counter(study: Path) -> tuple[Callable[[Sequence[str]], list[int]], str]:
    """Counts tokens of texts, and says how: with a tokenizer that lies in the study beside an adapter, else by bytes.

    A served judge has a tokenizer of its own; any other is nearer to it than bytes are.
    """
    from tokenizers import Tokenizer

    file = next((path for path in sorted(study.glob("runs/*/*/tokenizer.json"))), None)
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file else None
    except Exception:  # the library raises nothing narrower
        tokenizer = None
    if tokenizer is None:
        return lambda texts: [rough_tokens([text]) for text in texts], "counted as bytes / 4"

    def count(texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return count, "counted with the study's tokenizer"


def duration(seconds: float) -> str:
    """A time in words that nobody takes for exact."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _round(count: int) -> int:
    """Two digits: an estimate is no more."""
    digits = max(0, int(math.log10(count)) - 1) if count else 0
    return round(count, -digits)
