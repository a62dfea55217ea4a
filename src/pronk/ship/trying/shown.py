"""What was tried, for people and programs. Texts and labels may be hostile: they reach a terminal as text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pronk.data.terminal import plain, plain_json
from pronk.ship.trying.classify import Classification, Classified
from pronk.ship.trying.translate import Translation

if TYPE_CHECKING:
    from rich.console import Console

WIDTH, SHOWN = 80, 5  # columns; labels of each text, the likeliest first


def show_classes(found: Classification, console: Console) -> None:
    """Each text with its likeliest labels, within 80 columns."""
    from rich.padding import Padding
    from rich.text import Text

    width = min(console.width, WIDTH)
    for number, one in enumerate(found.results, start=1):
        console.print(Text(plain(f"{number}. {one.question.text.strip()}"), "bold"), width=width)
        for line in label_lines(one):
            console.print(Padding(Text(plain(line)), (0, 0, 0, 2), expand=False), width=width)
    if found.results:
        console.print(Text(plain(f"By {found.how}.")), width=width)


def label_lines(one: Classified) -> list[str]:
    """The likeliest labels with their probabilities; how many there are beside them."""
    ranked = sorted(one.probabilities.items(), key=lambda pair: -pair[1])
    lines = [f"{value:.3f}  {label}" for label, value in ranked[:SHOWN]]
    return [*lines, f"and {len(ranked) - SHOWN} labels less likely"] if len(ranked) > SHOWN else lines


def show_translations(found: Translation, console: Console) -> None:
    """Each text with its translation below, within 80 columns."""
    from rich.padding import Padding
    from rich.text import Text

    width = min(console.width, WIDTH)
    for number, one in enumerate(found.results, start=1):
        console.print(Text(plain(f"{number}. {one.question.text.strip()}"), "bold"), width=width)
        text = (one.text or "(nothing)") + ("" if one.ended else " (never ended: cut at the most tokens)")
        console.print(Padding(Text(plain(text)), (0, 0, 1, 2), expand=False), width=width)


def classes_as_json(found: Classification) -> str:
    """One JSON text: base, how it was done, and each text's probabilities and likeliest label."""
    results = [
        {
            "text": one.question.text,
            "label": max(one.probabilities.items(), key=lambda pair: pair[1])[0],
            "probabilities": one.probabilities,
        }
        for one in found.results
    ]
    whole = {"base": found.base, "how": found.how, "interrupted": found.interrupted, "results": results}
    return plain_json(whole, indent=2)


def translations_as_json(found: Translation) -> str:
    """One JSON text: base, languages, beams, and each text's translation."""
    results = [
        {"text": one.question.text, "translation": one.text, "ended": "end" if one.ended else "length"}
        for one in found.results
    ]
    whole = {"base": found.base, "from": found.source, "to": found.target, "beams": found.beams}
    return plain_json({**whole, "interrupted": found.interrupted, "results": results}, indent=2)


def named(labels: str | None) -> Sequence[str] | None:
    """Labels as they stand on the command line, between commas."""
    return None if labels is None else labels.split(",")
