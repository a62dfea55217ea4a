"""The story of `pronk arena`: who stands against whom, their answers, the page, the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.compare.arena import Result, arena_result, store_result
from pronk.compare.contest import Contest, contest_of_items, read_contest, write_contest
from pronk.compare.sure import LEVEL, fewest_votes
from pronk.compare.votes import read_votes, votes_file
from pronk.data.questions import read_questions
from pronk.data.words import counted
from pronk.errors import OptionError, StudyError
from pronk.recipe import generation_settings
from pronk.runs import disk_guard

if TYPE_CHECKING:
    from rich.console import Console

TEST_ITEMS = "test"  # in place of a file of questions
MANY = 4  # contestants; more make more pairs than people vote on


def home(targets: Sequence[str], out: Path | None) -> Path:
    """The folder that contest and votes are kept in: --out, or the study that all targets are or lie in.

    Raises StudyError for a path at which there is nothing, OptionError where the targets have no study in common.
    """
    if out is not None:
        return out
    found = set()
    for target in targets:
        path = Path(target).expanduser().absolute()
        if not path.exists():
            raise StudyError(
                f"{target}: there is no such folder; expected a study, or a run of one (for others add --out DIR)"
            )
        found |= {next((above for above in (path, *path.parents[:3]) if (above / "study.json").is_file()), None)}
    study = found.pop() if len(found) == 1 else None
    if study is None:
        raise OptionError("these have no study in common to keep the votes in: add --out DIR, a folder for them")
    return Path(targets[0]) if study == Path(targets[0]).absolute() else study


def find_contest(
    study: Path, targets: Sequence[str], runs: Sequence[str], questions: Sequence[str] | None, base: bool,
    settings: Mapping[str, Any], console: Console, overrides: Sequence[str] = (),
) -> Contest | None:  # fmt: skip
    """What is voted on, written into the study; None where Ctrl-C came before all answers were there.

    runs: names of the runs of a study that take part, all when empty. questions: files or texts to be answered,
    `test` for the answers to the study's test items; None for the contest that is there, else the test items. What
    is wrong with any of these is a PronkError, before weights are loaded.
    """
    from pronk.train.progress import say

    before, named = read_contest(study), [] if _is_study(targets) else list(targets)
    if questions is None and before is not None and not runs and not named:
        return before
    if questions is None or list(questions) == [TEST_ITEMS]:
        if not (study / "study.json").is_file():
            raise OptionError(f"{study} is no study and has no test items: say what to ask with --questions FILE")
        contest: Contest | None = contest_of_items(study, runs or [Path(one).name for one in named], base)
    else:
        contest = _answered(study, targets, runs, questions, base, settings, console, overrides)
    if contest is None:
        return None
    votes = read_votes(votes_file(study))
    if lost := len(votes) - len(contest.counting(votes)):
        say(console, f"{counted(lost, 'vote')} on other answers stay in the file and do not count here", "yellow")
    with disk_guard(study):
        write_contest(study, contest)
    return contest


def _answered(
    study: Path, targets: Sequence[str], runs: Sequence[str], questions: Sequence[str], base: bool,
    settings: Mapping[str, Any], console: Console, overrides: Sequence[str],
) -> Contest | None:  # fmt: skip
    """The contest of all targets, or of some runs of a study, on questions that are answered now."""
    asked, checked = read_questions(questions, several_turns=True), generation_settings(settings)
    from pronk.ask.contest import make_contest
    from pronk.ask.models import find_models

    if runs and not _is_study(targets):
        raise OptionError("--run chooses among the runs of one study: name the study's folder alone")
    named = [str(Path(targets[0]) / "runs" / name) for name in runs] or list(targets)
    models = find_models(named, overrides=overrides)
    if base and any(model.origin for model in models):
        models = find_models(named, with_base=True, overrides=overrides)
    source = ", ".join(Path(one).name if Path(one).suffix else "questions of the command" for one in questions)
    return make_contest(study, models, asked, checked, source, console)


def _is_study(targets: Sequence[str]) -> bool:
    """Whether all that was named is one study's folder."""
    return len(targets) == 1 and (Path(targets[0]).expanduser() / "study.json").is_file()


def tell_size(contest: Contest, console: Console) -> None:
    """How much there is to vote on, and how to have less of it."""
    from pronk.train.progress import say

    asked = sum(not match.identical for match in contest.matches())
    same = sum(match.identical for match in contest.matches())
    alike = f"; {same} more are identical and count as ties" if same else ""
    say(console, f"{counted(len(contest.contestants), 'contestant')}, {counted(len(contest.matters), 'question')}: "
                 f"{counted(asked, 'pair')} of answers to look at{alike}")  # fmt: skip
    fewest = fewest_votes(LEVEL / len(contest.pairs))
    if len(contest.matters) < fewest:
        say(
            console,
            f"  too few questions to be sure of anything: it takes {fewest}, even where all votes agree",
            "yellow",
        )
    if len(contest.contestants) > MANY:
        say(console, "  that is a lot; --run NAME, once for each, lets only these runs take part")


def conclude(study: Path, code: str | None = None) -> Result:
    """The result, kept in study.json and in the report where this is a study; code: the report's language, as it was
    when absent. Raises StudyError without a vote."""
    if not (study / "study.json").is_file():
        return arena_result(study)
    from pronk.compare.report import write_report

    with disk_guard(study):
        result = store_result(study)
        write_report(study, code)
    return result
