"""What is wrong with the rows of a data set, whatever model they are for."""

from __future__ import annotations

from pronk.data.finding import Finding
from pronk.data.split import Splits


def data_findings(splits: Splits, labels: tuple[str, ...]) -> list[Finding]:  # noqa: ARG001
    """Nothing yet: a place for what looks at rows."""
    return []
