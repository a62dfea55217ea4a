"""What a check found, by name."""

from __future__ import annotations

from collections.abc import Callable

from pronk.data.finding import Finding
from pronk.doctor.checking import Checked

Check = Callable[..., Checked]


def by_name(checked: Checked) -> dict[str, Finding]:
    return {one.name: one for one in checked.findings}
