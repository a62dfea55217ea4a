"""What a judge's verdicts come to, as an entry of `judged` in study.json."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pronk.compare.agreement import agreement
from pronk.compare.contest import Match as Ballot
from pronk.compare.judged import length_bias, pair_results, position_bias
from pronk.compare.report import write_report
from pronk.compare.votes import Vote, read_votes, votes_file
from pronk.judge import prompt
from pronk.judge.options import Options
from pronk.judge.preparing import Prepared
from pronk.runs import StudyFolder


def write_result(study: Path, one: Prepared, options: Options) -> dict[str, Any] | None:
    """Write what there is so far into study.json, in the place of this judge's last result on the same questions, and
    into the report. Returns the entry; None, and nothing is written, where the judge has said nothing."""
    heard = any(judged.verdict is not None and not judged.identical for judged in one.judging.judged())
    if one.judging.wanted and not heard:
        return None
    record = result(study, one, options)
    folder = StudyFolder.open(study)
    with folder.changing():  # other judges write theirs
        summary = folder.read()
        others = [entry for entry in summary.get("judged") or [] if _place(entry) != _place(record)]
        folder.write({**summary, "judged": [*others, record]})
        write_report(study)
    return record


def result(study: Path, one: Prepared, options: Options) -> dict[str, Any]:
    """The entry: who judged what (`judge`, `server`, `source`, `questions`, `references`, `compared`, `own`), `pairs`,
    `position` and `length` of compare/judged.py, `agreement` with people, `asked`: tokens, retries, failures."""
    judged, shown = one.judging.judged(), {matter.id for matter in one.contest.matters}
    return {
        "judge": one.judge.name, "server": one.judge.host, "source": one.contest.source, "questions": len(shown),
        "references": len(shown & one.references.keys()), "compared": options.pairs, "own": one.judge.own,
        "prompt_version": prompt.VERSION, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pairs": pair_results(judged), "position": position_bias(judged), "length": length_bias(judged),
        "agreement": with_people(study, one), "cut": one.judge.cut, "no_verdict": one.judging.wasted,
        "asked": dict(one.tally.record()),
    }  # fmt: skip


def with_people(study: Path, one: Prepared) -> list[dict[str, Any]]:
    """Cohen's kappa of the judge with each person who voted on the same answers in the blind test."""
    people = [vote for vote in read_votes(votes_file(study)) if vote.kind == "person"]
    found = agreement([*people, *_votes(one)]) if people else None
    name, with_each = f"{one.judge.name} (model)", []
    for pair in found["pairs"] if found else []:
        if name in pair["judges"]:
            (other,) = (judge for judge in pair["judges"] if judge != name)
            with_each.append({"with": other, **{key: value for key, value in pair.items() if key != "judges"}})
    return with_each


def _votes(one: Prepared) -> list[Vote]:
    """The judge's verdicts from both orders, as votes on the same answers."""
    found = zip(one.judging.matches, one.judging.judged(), strict=True)
    return [
        Vote(
            match.matter.id, match.a, match.b, judged.verdict, "both", one.judge.name, "model",
            Ballot(match.matter, match.a, match.b).answers_id,
        ).ordered()
        for match, judged in found
        if judged.verdict is not None and not judged.identical
    ]  # fmt: skip


def _place(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry.get("judge"), entry.get("server"), entry.get("source"), entry.get("compared")
