"""What a check found: how much of it, how bad it is, where to look, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# error: `pronk run` does not begin, unless the recipe's `allow` names the finding. warning: probably a mistake, or
# worth a look. note: a fact about the data.
Severity = Literal["error", "warning", "note"]
SHOWN = 2  # rows that a finding shows
FEW = 0.01  # the share up to which what was found may be an accident, and is less severe


@dataclass(frozen=True, slots=True)
class Row:
    """A row to look at: where it stands (file and line), and what of it matters here, in a line."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in a study's data, prompts and settings.

    name: words with hyphens, e.g. end-token-not-supervised; `allow` names it. message: what was found, a sentence that
    a tired person understands. remedy: what to do, and where (a key, a file). count: how many, of `total` things that
    `unit` names (rows, answers, …); zero of zero where it is about a setting. rows: at most SHOWN, the clearest first.
    """

    name: str
    severity: Severity
    message: str
    remedy: str
    count: int = 0
    total: int = 0
    unit: str = "rows"
    rows: tuple[Row, ...] = ()

    @property
    def share(self) -> float:
        """count of total, 0 to 1."""
        return self.count / self.total if self.total else 0.0
