"""A judge's result as people read it: in the terminal, within 80 columns, and as a section of the report.

record: an entry of `judged` in study.json, see pronk.judge. Names and the judge's words are hostile text.
"""

from __future__ import annotations

import textwrap
from typing import Any

from pronk.compare import words
from pronk.compare.contest import TEST_ITEMS
from pronk.compare.languages import ENGLISH, Language
from pronk.data.terminal import plain

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


def notes(record: View, t: Language = ENGLISH) -> list[str]:
    """What stands below the table, a line each: how far the judge is to be trusted, and what is missing."""
    found = [_position(record["position"], t), _length(record["length"], t), *_agreement(record, t)]
    pairs, asked = record["pairs"], record.get("asked") or {}
    lost = {key: sum(pair[key] for pair in pairs) for key in ("identical", "unparsable", "missing")}
    found += [t.plain(f"judged.{key}", pairs=t.count("pair", count)) for key, count in lost.items() if count]
    if asked.get("limited"):
        found.append(t.plain("judged.limited"))
    if retries := sum(asked.get("retries", {}).values()):
        reasons = ", ".join(f"{words.number(n, 0)} × {_reason(why, t)}" for why, n in asked["retries"].items())
        found.append(t.plain("judged.retries", times=t.count("time", retries), reasons=reasons))
    for key, name in (("no-verdict", "no_verdict"), ("cut", "cut")):
        if count := record.get(name):
            found.append(t.plain(f"judged.{key}", n=f"{count:,}"))
    if record.get("own"):
        found.append(t.plain("judged.own"))
    if len(pairs) > 1:
        found.append(t.plain("judged.many", n=len(pairs)))
    return [line for line in found if line]


def _position(found: View, t: Language) -> str:
    if not found["of"]:
        return ""
    key = "judged.position-first" if found["count"] else "judged.position"
    said = t.plain(key, **_counts(found), first=f"{found['first']:,}", share=_share(found, t))
    by_place = found["interval"][0] > BY_PLACE
    return f"{said} {t.plain('judged.by-place')}" if by_place else said


def _length(found: View, t: Language) -> str:
    return t.plain("judged.length", **_counts(found), share=_share(found, t)) if found["of"] else ""


def _agreement(record: View, t: Language) -> list[str]:
    said = []
    for one in record.get("agreement") or []:
        kappa = _kappa(one, t)
        blanks = {"name": words.short(one["with"], 20), "pairs": t.count("pair", one["units"])}
        key = "judged.agreement-kappa" if kappa else "judged.agreement"
        said.append(t.plain(key, **blanks, share=f"{one['agreed']:.0%}", kappa=kappa))
    return said


def _kappa(found: View, t: Language) -> str:
    if found["cohens_kappa"] is None:
        return ""
    kappa = words.number(found["cohens_kappa"], 2)
    if not found["interval"]:
        return kappa
    low, high = (words.number(bound, 2) for bound in found["interval"])
    return t.plain("judged.kappa", kappa=kappa, low=low, high=high)


def _counts(found: View) -> dict[str, str]:
    return {"count": f"{found['count']:,}", "of": f"{found['of']:,}"}


def _share(found: View, t: Language) -> str:
    low, high = found["interval"]
    return t.plain("judged.share", share=f"{found['share']:.0%}", low=f"{low:.0%}", high=f"{high:.0%}")


def _reason(why: str, t: Language) -> str:
    key = f"judged.retry.{why.replace(' ', '-')}"
    return t.plain(key) if key in t.texts else why


def _source(record: View, t: Language = ENGLISH) -> str:
    source = t.plain("judged.the-test-items") if record["source"] == TEST_ITEMS else words.short(record["source"], 28)
    return t.plain("judged.source", questions=t.count("question", record["questions"]), source=source)


def judged_views(study: View, t: Language) -> list[View]:
    """A view for each judge, for the report; empty where nobody has judged."""
    return [_view(record, t) for record in reversed(study.get("judged") or [])]  # the newest first


def _view(record: View, t: Language) -> View:
    rows = [
        {
            "a": pair["a"], "b": pair["b"], "rate": words.number(pair["win_rate"]),
            "interval": words.interval(pair["interval"], t, signed=False) if pair["interval"] else "",
            "wins": pair["wins_b"], "ties": pair["ties"], "losses": pair["wins_a"],
            "p_adjusted": words.p_value(pair["p_adjusted"]) if pair["p_adjusted"] is not None else "–",
            "verdict": pair["verdict"] or "",
            "said": t.verdict(pair["verdict"]) if pair["verdict"] else t.plain("judged.not-judged"),
        }
        for pair in record["pairs"]
    ]  # fmt: skip
    return {
        "judge": record["judge"], "server": record.get("server") or "", "source": _source(record, t), "rows": rows,
        "notes": notes(record, t),
    }  # fmt: skip
