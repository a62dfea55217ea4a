"""`pronk judge`: a model reads two answers to one question, in both orders, and says which is better.

options.py     what it can be told
preparing.py   who judges what, and what was said before
references.py  answers that are known to be right
prompt.py      what the judge is asked; never whose answers they are
verdict.py     what counts as a verdict
judges.py      a model behind an address, or one of this machine
kept.py        what it has said, appended as it comes
judging.py     what is still to be asked, and asking it
estimate.py    tokens, cost and time beforehand
result.py      what the verdicts come to (compare/judged.py), written into the study
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.judge.options import Options
from pronk.runs import disk_guard

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.judge.preparing import Prepared

__all__ = ["Judged", "Options", "judge"]

Confirm = Callable[[str], bool]
STOPPING = "stopping; what was asked is waited for (Ctrl-C twice more: at once)"


@dataclass(frozen=True)
class Judged:
    """record: the entry of study.json; None where there is no verdict. interrupted: by the user."""

    record: dict[str, Any] | None
    interrupted: bool = False


def judge(study: Path, options: Options, console: Console, confirm: Confirm | None = None) -> Judged:
    """Have a study's runs judged by a model, and write what it comes to into study.json and the report.

    confirm: asks a person whether to go on where it is much; None where nobody is there. Goes on where the same
    command ended before. Raises PronkError with one message; what was said until then is kept.
    """
    from pronk.judge.preparing import prepare
    from pronk.judge.result import write_result
    from pronk.train.interrupt import listen
    from pronk.train.progress import say

    options.check()
    with disk_guard(study), ExitStack() as held:
        one = prepare(study, options, console, held)
        if one is None:
            return Judged(None, interrupted=True)
        with listen(lambda _: say(console, STOPPING)) as stop:
            try:
                _ask(one, options, console, confirm, lambda: bool(stop.asked))
            finally:  # a server that fails takes nothing away that was said
                record = write_result(study, one, options)
    return Judged(record, bool(stop.asked))


def _ask(one: Prepared, options: Options, console: Console, confirm: Confirm | None, stop: Callable[[], bool]) -> None:
    """Say what it will cost, ask a person where that is much, and ask the judge."""
    from pronk.judge.estimate import allow
    from pronk.train.progress import say, work

    first = one.estimate()
    if not first.calls:
        return
    say(console, first.said())
    if not allow(first, options.yes, confirm):
        return
    with work(console, "judging", first.calls) as bar:
        one.judging.measure(stop, bar.advance)
    rest = one.estimate()
    if not rest.calls or stop():
        return
    say(console, f"still to go: {rest.said()}")
    if first.large or allow(rest, options.yes, confirm):
        with work(console, "judging", rest.calls) as bar:
            one.judging.run(stop, bar.advance)
