"""A study with answers, without a model; judges that a test has written; and what a judge was shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from pronk.evaluate.spending import Limits
from pronk.judge import Judged, Options, judge
from scripted_server import Scripted

BASE, GOOD, ALIKE = "plain-llama", "zebra-run", "yak-run"  # names that occur in no text


def make_study(folder: Path, items: int = 12, answers: Callable[[str, int], str] | None = None) -> Path:
    """A base and two runs: GOOD answers well, ALIKE as the base does."""
    told = answers or (lambda name, k: f"good answer {k}" if name == GOOD else f"poor answer {k}")
    rows = [{"id": str(k), "input": f"question {k}", "reference": f"right {k}"} for k in range(items)]
    write(folder / "items.jsonl", rows)
    for name in (BASE, GOOD, ALIKE):
        write(folder / "runs" / name / "items" / "answers.jsonl", [
            {"id": str(k), "answer": told(name, k)} for k in range(items)
        ])  # fmt: skip
    runs = [
        {
            "name": name,
            "base": "none-such",
            "baseline": name == BASE,
            "status": "finished",
            "settings": {},
            "metrics": {},
        }
        for name in (BASE, GOOD, ALIKE)
    ]
    (folder / "study.json").write_text(json.dumps({"name": "judged", "runs": runs, "comparisons": []}))
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def shown(body: dict[str, Any]) -> dict[str, str]:
    """The parts of a request, found as a judge would: by the mark that the first line names."""
    asked = body["messages"][-1]["content"]
    mark = asked.partition("\n")[0].removeprefix("MARK is ").removesuffix(".")
    return dict(re.findall(rf"^\[{mark} begin ([^\]]*)\]\n(.*?)\n\[{mark} end \1\]$", asked, re.DOTALL | re.MULTILINE))


def verdict(choice: str, reason: str = "so it is") -> str:
    return json.dumps({"reason": reason, "verdict": choice})


def fair(body: dict[str, Any]) -> str:
    """Prefers what is called good, wherever it stands."""
    parts = shown(body)
    one, other = ("good" in parts[f"answer {name}"] for name in "AB")
    return verdict("tie" if one == other else "A" if one else "B")


def always_first(_: dict[str, Any]) -> str:
    return verdict("A")


def run(
    study: Path, server: Scripted, limits: Limits | None = None, told: list[str] | None = None,
    confirm: Callable[[str], bool] | None = None, **more: Any,
) -> Judged:  # fmt: skip
    """One `pronk judge`. told: gets what a person was told. confirm: the person."""
    stream = StringIO()
    options = Options("some/judge", server.url, limits=limits or Limits(), **more)
    try:
        return judge(study, options, Console(file=stream, width=200), confirm)
    finally:
        if told is not None:
            told.append(stream.getvalue())


def result_of(found: Judged) -> dict[str, Any]:
    assert found.record is not None
    return found.record


def pair_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    (pair,) = (pair for pair in record["pairs"] if pair["b"] == name)
    return dict(pair)
