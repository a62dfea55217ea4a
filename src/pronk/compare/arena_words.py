"""What a blind test came to, in sentences and lines; for the page, the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from scipy.stats import binomtest

from pronk.compare.words import VERDICTS, number
from pronk.data.words import counted, enumerated

Result = Mapping[str, Any]
ODD_PLACE = 0.01  # below this p-value it is said that the first place won too often


def sentences(result: Result) -> list[str]:
    """The conclusion, then its limits, in plain words. Names are as they are: hostile text for whoever shows them."""
    pairs = result["pairs"]
    said = [_one_pair(pairs[0])] if len(pairs) == 1 else [*_ranked(result), *_several(pairs)]
    return [*said, _what_was_voted(result), *_of_judges(result), *_first_place(result), *_left_out(result)]


def percent(share: float) -> str:
    """A share as whole percents."""
    return f"{100 * share:.0f}%"


def between(bounds: Sequence[float]) -> str:
    """An interval of shares."""
    return f"{percent(bounds[0])} to {percent(bounds[1])}"


def _one_pair(pair: Result) -> str:
    a, b = pair["a"], pair["b"]
    better, worse, rate, bounds = b, a, pair["win_rate"], pair["interval"]
    if rate < 0.5:
        better, worse, rate, bounds = a, b, 1 - rate, [1 - bound for bound in reversed(bounds)]
    figures = f"it won {percent(rate)} of the comparisons (95% interval {between(bounds)}), a tie being half a win"
    if pair["verdict"] != "tie":
        return f"{better} is better than {worse}: {figures}."
    if rate == 0.5:
        return f"The votes do not tell {a} and {b} apart: each won half of the comparisons."
    return (
        f"The votes do not settle which of the two is better. {better} is ahead of {worse}: {figures}; but that "
        f"could be chance. This does not mean that they are equal: more questions may tell.{_beforehand(bounds)}"
    )


def _beforehand(bounds: Sequence[float]) -> str:
    """Why a tie may have an interval that says otherwise."""
    if bounds[0] <= 0.5:
        return ""
    return " (The interval leaves 50% out, but holds for a number of votes fixed beforehand, not for stopping at will.)"


def _several(pairs: Sequence[Result]) -> list[str]:
    sure = [pair for pair in pairs if pair["verdict"] != "tie"]
    if not sure:
        return [f"None of the {len(pairs)} pairs is settled: what lies between them could be chance."]
    found = [(pair["b"], pair["a"]) if pair["verdict"] == "better" else (pair["a"], pair["b"]) for pair in sure]
    said = enumerated([f"{better} over {worse}" for better, worse in found], "and")
    return [f"Settled are {len(sure)} of {len(pairs)} pairs: {said}. The others could be chance."]


def _ranked(result: Result) -> list[str]:
    ranking = result["ranking"]
    if not ranking:
        return []
    first = ranking[0]
    return [
        f"Ahead is {first['name']}: against the average of the others it would win {percent(first['win_rate'])} "
        f"(95% interval {between(first['interval'])})."
    ]


def _what_was_voted(result: Result) -> str:
    names = enumerated([judge["name"] for judge in result["judges"]], "and")
    same = result["identical"]
    alike = (
        f" {counted(same, 'pair')} of answers {'was' if same == 1 else 'were'} identical and counted as "
        f"{'a tie' if same == 1 else 'ties'}, without being shown."
        if same
        else ""
    )
    seen, all_of_them = result["questions_voted_on"], result["questions"]
    part = f"{seen} of " if seen < all_of_them else ""
    asked = f"on {part}{counted(all_of_them, 'question')} ({result['source']})"
    return f"{counted(result['votes'], 'vote')} by {names or 'nobody'} {asked}.{alike}"


def _of_judges(result: Result) -> list[str]:
    found = result["agreement"]
    if found is None:
        return []
    lines = []
    for pair in found["pairs"]:
        bounds = pair["interval"]
        sure = f", 95% interval {number(bounds[0], 2)} to {number(bounds[1], 2)}" if bounds else ""
        kappa = "undefined" if pair["cohens_kappa"] is None else f"{number(pair['cohens_kappa'], 2)}{sure}"
        lines.append(
            f"{pair['judges'][0]} and {pair['judges'][1]} said the same of {percent(pair['agreed'])} of the "
            f"{counted(pair['units'], 'pair')} of answers that both judged (Cohen’s κ {kappa})."
        )
    if len(found["judges"]) > 2 and found["krippendorffs_alpha"] is not None:
        lines.append(f"All judges together: Krippendorff’s α {number(found['krippendorffs_alpha'], 2)}.")
    return lines


def _first_place(result: Result) -> list[str]:
    if not result["first_won"]:
        return []
    won, decided = result["first_won"]
    if binomtest(won, decided).pvalue >= ODD_PLACE:
        return []
    side = "first (left, or above)" if won > decided / 2 else "second (right, or below)"
    share = percent(max(won, decided - won) / decided)
    return [
        f"The answer that stood {side} won {share} of the {decided} votes for one side, which is more "
        "than chance: places may have been voted for. Sides were drawn anew each time, so that blurs the result but "
        "favours nobody."
    ]


def _left_out(result: Result) -> list[str]:
    count = result["left_out"]
    return [f"{counted(count, 'vote')} on other answers are in the file and left out."] if count else []


def terminal_lines(result: Result) -> list[str]:
    """The pairs, the ranking where there is one, and the sentences; names may be of any length."""
    lines = []
    for pair in result["pairs"]:
        bad = f", {pair['both_bad']} both bad" if pair["both_bad"] else ""
        figures = f"win rate {percent(pair['win_rate'])} ({between(pair['interval'])})"
        counts = f"won {pair['wins_b']}, lost {pair['wins_a']}, tied {pair['ties']}{bad}"
        lines += [f"{pair['b']} against {pair['a']}: {VERDICTS[pair['verdict']]}", f"  {figures}; {counts}"]
    for one in result["ranking"] or ():
        place = "–".join(dict.fromkeys(map(str, one["places"])))
        lines.append(f"place {place}: {one['name']}, {percent(one['win_rate'])} ({between(one['interval'])})")
    return [*lines, "", *sentences(result)]


def section(result: Result | None) -> Markup:
    """The report's section; empty without a blind test. Escapes all that comes from the study."""
    if not result or not result.get("pairs"):
        return Markup()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    shown = environment.get_template("arena.html").render(
        said=sentences(result), pairs=result["pairs"], ranking=result["ranking"] or [], percent=percent,
        between=between, verdicts=VERDICTS,
    )  # fmt: skip
    return Markup(shown)
