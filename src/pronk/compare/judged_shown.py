"""A judge's result as people read it: in the terminal, within 80 columns, and as a section of the report.

record: an entry of `judged` in study.json, see pronk.judge. Names and the judge's words are hostile text.
"""

from __future__ import annotations

import textwrap
from typing import Any

from pronk.compare import words
from pronk.data.terminal import plain
from pronk.data.words import counted

View = dict[str, Any]
BY_PLACE = 0.5  # share of pairs that the order decides, from which a judge is of no use
COLUMNS = 80
PAIR, RATE, INTERVAL, WINS = 34, 9, 14, 12


def judged_table(record: View) -> str:
    """The pairs, and below them how far the judge is to be trusted."""
    served = f" at {record['server']}" if record.get("server") else ""
    head = f"judge: {words.short(record['judge'], 40)}{served}, {_source(record)}"
    names = f"{'':{PAIR}}{'second':>{RATE}}  {'95%':{INTERVAL}}{'win/tie/loss':>{WINS}}"
    heads = [names, f"{'first → second':{PAIR}}{'preferred':>{RATE}}  {'interval':{INTERVAL}}"]
    lines = [*textwrap.wrap(head, COLUMNS), "", *heads]
    lines += [_row(pair) for pair in record["pairs"]]
    below = [textwrap.fill(note, COLUMNS, subsequent_indent="  ") for note in notes(record)]
    return plain("\n".join([*(line.rstrip() for line in lines), "", *below]))


def _row(pair: View) -> str:
    room = (PAIR - 4) // 2
    name = f"{words.short(pair['a'], room)} → {words.short(pair['b'], room)}"
    if pair["win_rate"] is None:
        return f"{name:{PAIR}}{'–':>{RATE}}  not judged"
    bounds = " to ".join(words.number(bound, 2) for bound in pair["interval"])
    wins = f"{pair['wins_b']}/{pair['ties']}/{pair['wins_a']}"
    said = words.VERDICTS[pair["verdict"]]
    return f"{name:{PAIR}}{words.number(pair['win_rate']):>{RATE}}  {bounds:{INTERVAL}}{wins:>{WINS}}  {said}"


def notes(record: View) -> list[str]:
    """What stands below the table, a line each: how far the judge is to be trusted, and what is missing."""
    found = [_position(record["position"]), _length(record["length"]), *_agreement(record)]
    pairs = record["pairs"]
    if identical := sum(pair["identical"] for pair in pairs):
        found.append(f"{counted(identical, 'pair')} of identical answers: ties, and not asked.")
    for key, said in (("unparsable", "no verdict after several tries"), ("missing", "not asked, or no reply")):
        if lost := sum(pair[key] for pair in pairs):
            found.append(f"{counted(lost, 'pair')} not counted: {said}.")
    asked = record.get("asked") or {}
    if asked.get("limited"):
        found.append("A limit was reached: with a higher --limit-tokens or --limit-cost the same command goes on.")
    if retries := sum(asked.get("retries", {}).values()):
        reasons = ", ".join(f"{words.number(count, 0)} × {name}" for name, count in asked["retries"].items())
        found.append(f"Asked again {counted(retries, 'time')}: {reasons}.")
    if record.get("no_verdict"):
        found.append(f"Replies that were no verdict, and were asked for again: {record['no_verdict']:,}.")
    if record.get("cut"):
        found.append(f"{record['cut']:,} replies were cut at their longest length: raise --verdict-tokens.")
    if record.get("own"):
        found.append("The judge is one of those it judges: models are known to prefer their own answers.")
    if len(pairs) > 1:
        found.append(f"Verdicts allow for all {len(pairs)} comparisons (Holm); intervals do not.")
    return [line for line in found if line]


def _position(found: View) -> str:
    if not found["of"]:
        return ""
    cases = f"{found['count']:,} of {found['of']:,} ({_share(found)})"
    leaning = f", {found['first']:,} of them for what stood first" if found["count"] else ""
    said = f"The order decided in {cases}{leaning}: ties."
    if found["interval"][0] > BY_PLACE:
        said += " This judge goes by place, not by answers: take a stronger one."
    return said


def _length(found: View) -> str:
    return f"The longer answer won {found['count']:,} of {found['of']:,} ({_share(found)})." if found["of"] else ""


def _agreement(record: View) -> list[str]:
    return [
        f"Agreement with {words.short(one['with'], 20)} on {counted(one['units'], 'pair')}: {one['agreed']:.0%}"
        f"{_kappa(one)}."
        for one in record.get("agreement") or []
    ]


def _kappa(found: View) -> str:
    if found["cohens_kappa"] is None:
        return ""
    bounds = found["interval"]
    spread = f" ({' to '.join(words.number(bound, 2) for bound in bounds)})" if bounds else ""
    return f", Cohen's kappa {words.number(found['cohens_kappa'], 2)}{spread}"


def _share(found: View) -> str:
    low, high = found["interval"]
    return f"{found['share']:.0%}, {low:.0%} to {high:.0%}"


def _source(record: View) -> str:
    return f"{counted(record['questions'], 'question')} ({words.short(record['source'], 28)})"


def judged_views(study: View) -> list[View]:
    """A view for each judge, for the report; empty where nobody has judged."""
    return [_view(record) for record in reversed(study.get("judged") or [])]  # the newest first


def _view(record: View) -> View:
    rows = [
        {
            "a": pair["a"], "b": pair["b"], "rate": words.number(pair["win_rate"]),
            "interval": " to ".join(words.number(bound) for bound in pair["interval"] or ()),
            "wins": pair["wins_b"], "ties": pair["ties"], "losses": pair["wins_a"],
            "p_adjusted": words.p_value(pair["p_adjusted"]) if pair["p_adjusted"] is not None else "–",
            "verdict": pair["verdict"] or "", "said": words.VERDICTS.get(pair["verdict"], "not judged"),
        }
        for pair in record["pairs"]
    ]  # fmt: skip
    return {
        "judge": record["judge"], "server": record.get("server") or "", "source": _source(record), "rows": rows,
        "notes": notes(record),
    }  # fmt: skip
