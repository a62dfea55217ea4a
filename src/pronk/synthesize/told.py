"""What came of it, in words."""

from __future__ import annotations

from typing import Any

from pronk.data.terminal import plain
from pronk.data.words import counted
from pronk.synthesize.sieve import REASONS
from pronk.synthesize.starting import Result

ENDED = {
    "done": "",
    "limit": "; stopped at the limit",
    "interrupted": "; interrupted, the same command goes on",
    "gave-up": "; gave up",
}


def summary(result: Result) -> str:
    """A few lines: rows, what was dropped and why, what it cost."""
    record = result.record
    lines = [f"{counted(record['rows'], 'row')} of {record['wanted']:,} in {result.path}{ENDED[result.status]}"]
    if record["by_label"]:
        lines.append(", ".join(f"{label} {count}" for label, count in record["by_label"].items()))
    asked = f"asked for {counted(record['examples_asked_for'], 'example')} in {counted(record['requests'], 'request')}"
    cut = record["answers_cut"]
    lines.append(asked + (f"; {counted(cut, 'answer')} cut at the most tokens (--max-new-tokens)" if cut else ""))
    lines += [f"{count:6,}  {name:<20}  {REASONS[name]}" for name, count in record["dropped"].items()]
    lines.append(_spent(record))
    if record["rows"]:
        form = "classify" if record["by_label"] else "alpaca"
        lines.append(
            "to train on them beside your own rows, which the test comes from, add to data.source in the recipe:\n"
            f"  {{path: {result.path}, format: {form}, columns: {{}}, part: train}}"
        )
    return plain("\n".join(lines))


def _spent(record: dict[str, Any]) -> str:
    tokens = f"{record['tokens_in']:,} tokens read, {record['tokens_out']:,} written"
    guessed = record["estimated_tokens"]
    parts = [tokens + (f" ({guessed:,} of them estimated)" if guessed else "")]
    parts += [f"cost {record['cost']:.2f}"] if record["cost"] else []
    parts.append(f"{record['seconds'] / 60:.1f} minutes")
    for name in ("retries", "failures"):
        if record[name]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in record[name].items())
            what = "tried again" if name == "retries" else "without an answer"
            parts.append(f"{what}: {reasons}")
    return "; ".join(parts)


def gave_up(result: Result) -> str:
    """Why there is no use in going on, and what may help."""
    record = result.record
    most = max(record["dropped"], key=lambda name: record["dropped"][name], default="")
    why = f"; most often: {most} ({REASONS[most]})" if most else ""
    return (
        f"too little of what the model writes can be kept ({counted(record['rows'], 'row')} of "
        f"{record['examples_asked_for']:,} examples asked for{why}). A larger model, other seeds or --form continue "
        "may help; the rows so far are kept"
    )
