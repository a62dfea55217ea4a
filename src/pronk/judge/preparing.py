"""All that is known before a judge is asked: who it is, what it is to read, and what it has said of that already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.compare.contest import Contest, contest_of_items
from pronk.compare.items import read_lines, read_study
from pronk.compare.pairs import baseline_of, best_run
from pronk.data.questions import read_questions
from pronk.errors import OptionError
from pronk.evaluate.spending import Tally
from pronk.judge.estimate import REPLY_TOKENS, Estimate, counter
from pronk.judge.judges import Judge, LocalJudge, ServedJudge, allowed_replies
from pronk.judge.judging import Judging, matches, pairs_of, some_of
from pronk.judge.kept import Kept, votes_file
from pronk.judge.options import Options
from pronk.judge.references import read_references
from pronk.recipe import generation_settings
from pronk.runs import one_writer

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.ask.models import Model

References = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Material:
    """What is judged. bases: the base of each run, by the names of the contest."""

    contest: Contest
    references: References
    bases: Mapping[str, str]


@dataclass(frozen=True)
class Prepared:
    """judging: of all matches. start: an estimate that says how tokens are counted and what they cost."""

    judge: Judge
    judging: Judging
    contest: Contest
    references: References
    tally: Tally
    start: Estimate

    def estimate(self) -> Estimate:
        """Of what is still to be asked, by all that has been measured so far."""
        answers = self.tally.answers
        return self.judging.estimate(self.start, self.tally.tokens_out / answers if answers else REPLY_TOKENS)


def prepare(study: Path, options: Options, console: Console, held: ExitStack) -> Prepared | None:
    """Who judges what; answers to questions of a file are written first. None where Ctrl-C came before they were.

    held: until it is closed no other process asks this judge about this study.

    Raises PronkError with one message, before weights are loaded or anything is paid for where that can be.
    """
    runs, tally = read_study(study)["runs"], Tally(options.limits)
    judge, start = _judge(study, options, tally, console)
    found = _of_questions(study, options, console) if options.questions else _of_items(study, runs, options)
    if found is None:
        return None
    contest, best = found.contest, best_run(runs)
    pairs = pairs_of(contest.contestants, found.bases, str(best["name"]) if best else None, options.pairs)
    file = votes_file(study, judge.name)
    held.enter_context(one_writer(file))
    kept = Kept(file, judge.name, judge.identity)
    judging = Judging(judge, kept, matches(contest, pairs, found.references))
    with console.status("counting tokens"):
        judging.count()
    return Prepared(judge, judging, contest, found.references, tally, start)


def _judge(study: Path, options: Options, tally: Tally, console: Console) -> tuple[Judge, Estimate]:
    from pronk.ask.choosing import Chooser
    from pronk.ask.models import find_models
    from pronk.evaluate.served import server_of

    if options.url is not None:
        server = server_of(options.url, options.model, "--url")
        count, how = counter(study)
        start = Estimate(0, 0, 0, how, options.limits)
        return ServedJudge(server, options.verdict_tokens, options.timeout, tally, count), start
    models = find_models([options.model])
    if len(models) != 1:
        names = ", ".join(model.name for model in models)
        raise OptionError(f"--model {options.model}: these are {len(models)} models ({names}); name one of them")
    (model,) = models
    own = model.run is not None and model.run.parents[1] == study.absolute()
    with console.status("reading the judge's tokenizer"):
        judge = LocalJudge(Chooser(model, allowed_replies(), console), own)
    return judge, Estimate(0, 0, 0, "counted with the judge's tokenizer")


def _of_items(study: Path, runs: list[dict[str, Any]], options: Options) -> Material:
    """The study's own test items, whose reference answers are at hand."""
    rows = {str(row.get("id")): row.get("reference") for _, row in read_lines(study / "items.jsonl")}
    known = {name: (text,) for name, text in rows.items() if isinstance(text, str) and text.strip()}
    bases = {run["name"]: base["name"] for run in runs if not run.get("baseline") and (base := baseline_of(run, runs))}
    contest = contest_of_items(study, options.runs)
    return Material(replace(contest, matters=tuple(some_of(contest.matters, options.items))), known, bases)


def _of_questions(study: Path, options: Options, console: Console) -> Material | None:
    """The answers of all runs and their bases to questions of a file, written in one batch and kept in the study."""
    from pronk.ask.contest import make_contest
    from pronk.ask.models import find_models

    questions = read_questions(options.questions, several_turns=True)
    references: References = {}
    if options.references is not None:
        references = read_references(options.references, Path(options.questions[0]).expanduser(), questions)
    questions = some_of(list({one.id: one for one in questions}.values()), options.items)
    named = [str(study / "runs" / name) for name in options.runs] or [str(study)]
    models = find_models(named, with_base=True)
    settings = generation_settings({"max_new_tokens": options.max_new_tokens} if options.max_new_tokens else {})
    source = ", ".join(Path(one).name if Path(one).suffix else "questions of the command" for one in options.questions)
    contest = make_contest(study, models, questions, settings, source, console)
    return None if contest is None else Material(contest, references, _bases(models))


def _bases(models: Sequence[Model]) -> dict[str, str]:
    """The name of each run's base among the models."""
    own = {(model.recipe.base, model.recipe.quantize): model.name for model in models if model.origin is None}
    return {
        model.name: own[model.origin, model.recipe.quantize]
        for model in models
        if model.origin is not None and (model.origin, model.recipe.quantize) in own
    }
