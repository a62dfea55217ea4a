"""What `pronk judge` can be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pronk.errors import OptionError
from pronk.evaluate.spending import Limits

Pairs = Literal["base", "best", "all"]


@dataclass(frozen=True)
class Options:
    """All options with their defaults.

    model: a model of this machine, as `pronk generate` takes it; with `url`, the name that the server knows it by.
    questions: as `pronk generate` takes them; the study's own test items when empty. references: a file of answers
    that are right. items: judge only so many questions. pairs: each run against its base, against the best run, or
    all with all. runs: only these of the study, all when empty. max_new_tokens: of an answer to a question, as for
    `pronk generate` when None. verdict_tokens: of a verdict with its reason. timeout:
    seconds to wait for one. limits, yes: ask no more once so much is spent; ask nobody before.
    """

    model: str
    url: str | None = None
    questions: Sequence[str] = ()
    references: Path | None = None
    items: int | None = None
    pairs: str = "base"
    runs: Sequence[str] = ()
    max_new_tokens: int | None = None
    verdict_tokens: int = 512
    timeout: float = 120.0
    limits: Limits = field(default_factory=Limits)
    yes: bool = False

    def check(self) -> None:
        """Raise OptionError for what contradicts itself."""
        if self.pairs not in get_args(Pairs):
            raise OptionError(f"--pairs: found {self.pairs!r}, expected one of {', '.join(get_args(Pairs))}")
        if self.references is not None and len(self.questions) != 1:
            raise OptionError("--references: they belong to one file of --questions; the study's items have their own")
        limits = self.limits
        amounts = {
            "--items": self.items, "--max-new-tokens": self.max_new_tokens, "--verdict-tokens": self.verdict_tokens,
            "--timeout": self.timeout, "--limit-tokens": limits.tokens, "--limit-cost": limits.cost,
        }  # fmt: skip
        for option, amount in amounts.items():
            if amount is not None and not (math.isfinite(amount) and amount > 0):
                raise OptionError(f"{option}: found {amount}, expected more than 0")
        for option, price in (("--price-in", limits.price_in), ("--price-out", limits.price_out)):
            if not (math.isfinite(price) and price >= 0):
                raise OptionError(f"{option}: found {price}, expected 0 or more")
        if self.url is None and limits != Limits():
            raise OptionError("limits and prices are for a served model (--url): one of this machine costs time alone")
        if self.url is None and (self.verdict_tokens, self.timeout) != (Options.verdict_tokens, Options.timeout):
            raise OptionError(
                "--verdict-tokens and --timeout are for a served model (--url): one of this machine writes no reason"
            )
        if self.max_new_tokens is not None and not self.questions:
            raise OptionError("--max-new-tokens is for answers to --questions; the study's items are answered already")
        if limits.cost is not None and not limits.price_in + limits.price_out:
            raise OptionError("--limit-cost: name what a million tokens cost with --price-in and --price-out")
