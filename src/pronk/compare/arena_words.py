"""What a blind test came to, in sentences and lines; for the page, the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pronk.compare.arena_texts import TEXTS
from pronk.compare.contest import TEST_ITEMS
from pronk.compare.statistics import fair_coin_p_value
from pronk.compare.templates import template
from pronk.compare.words import number
from pronk.data.words import enumerated

Result = Mapping[str, Any]
ODD_PLACE = 0.01  # below this p-value it is said that one place won too often


class Words:
    """A result in one language. code: `en` or `ko`."""

    def __init__(self, code: str = "en") -> None:
        self.texts = TEXTS[code]

    def __call__(self, key: str, **blanks: Any) -> str:
        """A text with its blanks filled in. Names are as they are: hostile text for whoever shows it."""
        return self.texts[key].format(**blanks)

    def between(self, bounds: Sequence[float]) -> str:
        """An interval of shares."""
        return self("between", low=percent(bounds[0]), high=percent(bounds[1]))

    def sentences(self, result: Result) -> list[str]:
        """The conclusion, then its limits, in plain words."""
        pairs = result["pairs"]
        said = [self._one_pair(pairs[0])] if len(pairs) == 1 else [self._several(pairs), *self._ranked(result)]
        return [
            *said, *self._what_was_voted(result), *self._of_judges(result), *self._first_place(result),
            *([self("left_out", count=result["left_out"])] if result["left_out"] else []),
        ]  # fmt: skip

    def _one_pair(self, pair: Result) -> str:
        a, b = pair["a"], pair["b"]
        better, worse, rate, bounds = b, a, pair["win_rate"], pair["interval"]
        if rate < 0.5:
            better, worse, rate, bounds = a, b, 1 - rate, [1 - bound for bound in reversed(bounds)]
        sides = {"better": better, "worse": worse}
        figures = self("figures", rate=percent(rate), interval=self.between(bounds))
        if pair["verdict"] != "tie":
            return self("better", **sides, figures=figures)
        if rate == 0.5:
            return self("even", a=a, b=b)
        return self("tie", **sides, figures=figures, beforehand=self("beforehand") if bounds[0] > 0.5 else "")

    def _several(self, pairs: Sequence[Result]) -> str:
        sure = [pair for pair in pairs if pair["verdict"] != "tie"]
        if not sure:
            return self("none", pairs=len(pairs))
        found = [(pair["b"], pair["a"]) if pair["verdict"] == "better" else (pair["a"], pair["b"]) for pair in sure]
        said = self._listed([self("over", better=better, worse=worse) for better, worse in found])
        return self("settled", sure=len(sure), pairs=len(pairs), said=said)

    def _ranked(self, result: Result) -> list[str]:
        return [
            self("ahead", name=one["name"], rate=percent(one["win_rate"]), interval=self.between(one["interval"]))
            for one in (result["ranking"] or ())[:1]
        ]

    def _what_was_voted(self, result: Result) -> list[str]:
        names = self._listed([judge["name"] for judge in result["judges"]]) or "–"
        source = self("the-test-items") if result["source"] == TEST_ITEMS else result["source"]
        voted = self(
            "voted", votes=f"{result['votes']:,}", names=names, seen=f"{result['questions_voted_on']:,}",
            questions=f"{result['questions']:,}", source=source,
        )  # fmt: skip
        return [voted, *([self("identical", count=result["identical"])] if result["identical"] else [])]

    def _of_judges(self, result: Result) -> list[str]:
        found = result["agreement"]
        lines = []
        for pair in found["pairs"] if found else ():
            one, other = pair["judges"]
            units, share = f"{pair['units']:,}", percent(pair["agreed"])
            lines.append(self("agreed", one=one, other=other, share=share, units=units, kappa=self._kappa(pair)))
        if found and len(found["judges"]) > 2 and found["krippendorffs_alpha"] is not None:
            lines.append(self("alpha", alpha=number(found["krippendorffs_alpha"], 2)))
        return lines

    def _kappa(self, pair: Result) -> str:
        if pair["cohens_kappa"] is None:
            return self("undefined")
        kappa = number(pair["cohens_kappa"], 2)
        if pair["interval"] is None:
            return kappa
        return self("kappa", kappa=kappa, low=number(pair["interval"][0], 2), high=number(pair["interval"][1], 2))

    def _first_place(self, result: Result) -> list[str]:
        won, decided = result["first_won"] or (0, 0)
        if not decided or fair_coin_p_value(won, decided) >= ODD_PLACE:
            return []
        side = "first" if won > decided / 2 else "second"
        return [self(side, share=percent(max(won, decided - won) / decided), votes=decided)]

    def _listed(self, names: Sequence[str]) -> str:
        return enumerated(names, self("and")).replace(" ,", ",") if names else ""


def percent(share: float) -> str:
    """A share as whole percents."""
    return f"{100 * share:.0f}%"


def place_of(one: Result) -> str:
    """The places that a contestant of the ranking may have, `1` or `1–3`."""
    return "–".join(dict.fromkeys(map(str, one["places"])))


def terminal_lines(result: Result) -> list[str]:
    """The pairs, the ranking where there is one, and the sentences; names may be of any length."""
    words, lines = Words(), []
    for pair in result["pairs"]:
        bad = f", {pair['both_bad']} both bad" if pair["both_bad"] else ""
        figures = f"win rate {percent(pair['win_rate'])} ({words.between(pair['interval'])})"
        counts = f"won {pair['wins_b']}, lost {pair['wins_a']}, tied {pair['ties']}{bad}"
        lines += [f"{pair['b']} against {pair['a']}: {words('verdict.' + pair['verdict'])}", f"  {figures}; {counts}"]
    for one in result["ranking"] or ():
        lines.append(
            f"place {place_of(one)}: {one['name']}, {percent(one['win_rate'])} ({words.between(one['interval'])})"
        )
    return [*lines, "", *words.sentences(result)]


def section(result: Result | None, code: str = "en") -> Markup:
    """The report's section; empty without a blind test. Escapes all that comes from the study."""
    if not result or not result.get("pairs"):
        return Markup()
    shown = template("arena.html").render(
        t=Words(code), result=result, pairs=result["pairs"], ranking=result["ranking"] or [], percent=percent,
        place_of=place_of,
    )  # fmt: skip
    return Markup(shown)
