"""Findings as people and programs read them. Rows are hostile text: nothing of them steers a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pronk.data.finding import Finding
from pronk.data.terminal import plain_json
from pronk.data.words import counted
from pronk.doctor.checking import Checked, line, sentence

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show(checked: Checked, console: Console) -> None:
    """A table of what was found, the worst first; then each finding with its rows and what to do; then the verdict."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    width = min(console.width, WIDTH)
    table = Table(box=None, pad_edge=False, header_style="dim", width=width)
    table.add_column("severity")
    table.add_column("finding", ratio=1, overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    for one in checked.findings:
        table.add_row(Text(_severity(one, checked), STYLES[one.severity]), Text(one.name), _count(one), _share(one))
    if checked.findings:
        console.print(table)
    for one in checked.findings:
        console.print()
        console.print(Text(f"{_severity(one, checked)}: {one.name}", STYLES[one.severity]))
        console.print(Padding(Text(sentence(one.message)), (0, 0, 0, 2), expand=False), width=width)
        for row in one.rows:
            shown = Text(line(f"{row.place}  {row.text}" if row.place else row.text), "dim", overflow="ellipsis")
            shown.no_wrap = True
            console.print(Padding(shown, (0, 0, 0, 4), expand=False), width=width, no_wrap=True, overflow="ellipsis")
        console.print(Padding(Text("→ " + sentence(one.remedy)), (0, 0, 0, 2), expand=False), width=width)
    console.print()
    console.print(Text(verdict(checked)), width=width)


def verdict(checked: Checked) -> str:
    """Whether `pronk run` will begin, in a sentence."""
    errors = checked.errors
    warnings = sum(one.severity == "warning" for one in checked.findings)
    others = f" {counted(warnings, 'warning')} to look at." if warnings else ""
    if errors:
        names = ", ".join(checked.allowable)
        accept = f", or accept with `allow: [{names}]` in the recipe" if names else ""
        return (
            f"{counted(len(errors), 'error')}: `pronk run` will not begin.{others} Mend the recipe or the data{accept}."
        )
    allowed = sum(one.severity == "error" for one in checked.findings)
    accepted = f" ({counted(allowed, 'error')} allowed by the recipe)" if allowed else ""
    return f"No errors{accepted}: `pronk run` will begin.{others}"


def as_json(checked: Checked) -> str:
    """Everything that was found as one JSON text that a terminal may print."""
    whole = {
        "ok": not checked.errors,
        "allow": list(checked.allowed),
        "findings": [_record(one, checked) for one in checked.findings],
    }
    return plain_json(whole, indent=2)


def _record(one: Finding, checked: Checked) -> dict[str, Any]:
    return {
        "name": one.name,
        "severity": one.severity,
        "allowed": checked.allows(one),
        "count": one.count,
        "total": one.total,
        "unit": one.unit,
        "share": one.share,
        "message": one.message,
        "rows": [{"place": row.place, "text": row.text} for row in one.rows],
        "remedy": one.remedy,
    }


def _severity(one: Finding, checked: Checked) -> str:
    return f"{one.severity} (allowed)" if one.severity == "error" and checked.allows(one) else one.severity


def _count(one: Finding) -> str:
    return f"{one.count:,}" if one.total or one.count else ""


def _share(one: Finding) -> str:
    if not one.total:
        return ""
    return f"{one.share:.1%}" if one.share >= 0.001 or not one.count else "< 0.1%"
