"""pronk from Python: the verbs of the command line as functions, their results as objects.

    study = pronk.run("recipe.yaml")
    study.best.metrics, study.comparisons, study.report

Errors are PronkError and its kinds (pronk.errors); nothing here ends the process.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pronk import ask
from pronk.compare import words
from pronk.compare.items import run_folder
from pronk.compare.pairs import best_run, figure, plain_base
from pronk.compare.terminal import terminal_summary
from pronk.errors import OptionError
from pronk.runs import RunFolder, StudyFolder, new_folder

if TYPE_CHECKING:
    from pronk.ask.conversation import Conversation

__all__ = ["Answers", "Comparison", "Run", "Study", "chat", "evaluate", "generate", "predict", "report", "run"]


@dataclass(frozen=True)
class Run:
    """A run of a study. settings: the recipe keys in which it differs from others. metrics: of the test rows.

    status: finished, stopped_early, failed or interrupted; message: why. adapter: the folder of its adapter in
    PEFT's format, or of its whole model; None for the base and for a run that has none. details: all that
    study.json says.
    """

    name: str
    base: str
    baseline: bool
    settings: dict[str, Any]
    metrics: dict[str, float]
    status: str
    message: str
    path: Path
    adapter: Path | None
    details: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """Two runs on one metric. difference: b minus a, with its 95% interval. verdict: better, worse or tie, of b.
    items_needed: of a tie, about how many items would tell; None of what is told, or where no number would."""

    a: str
    b: str
    metric: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_adjusted: float
    verdict: str
    items_needed: int | None = None


@dataclass(frozen=True)
class Study:
    """A study as its folder holds it."""

    path: Path
    runs: tuple[Run, ...]
    comparisons: tuple[Comparison, ...]
    details: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.path / "report.html"

    @property
    def best(self) -> Run | None:
        """The tuned run that ranks first by accuracy, else by loss; None if none was measured.

        It may not be better than the next: the comparisons say.
        """
        found = best_run(self.details["runs"])
        return None if found is None else self[found["name"]]

    def __getitem__(self, name: str) -> Run:
        for one in self.runs:
            if one.name == name:
                return one
        raise KeyError(f"no run {name!r} in this study; there are {', '.join(one.name for one in self.runs)}")

    def __repr__(self) -> str:
        """The ranking, as the command line shows it."""
        return f"{terminal_summary(self.details)}\nreport: {self.report}"

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        return _table(self)


@dataclass(frozen=True)
class Answers:
    """What models answered, question by question."""

    records: tuple[dict[str, Any], ...]  # question, input, model, answer, ended (end, stop, length), tokens
    answered: ask.Answered = field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.records[place]

    def __repr__(self) -> str:
        """The answers, as the command line shows them."""
        return ask.as_text(self.answered)

    def _repr_html_(self) -> str:
        """A table, questions down and models across, for notebooks."""
        return ask.as_html(self.answered)


def run(
    recipe: str | Path,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    copy_to: str | Path | None = None,
    gpu: str | None = None,
) -> Study:
    """Train all runs of a recipe, evaluate them with their base, compare, and report: `pronk run`.

    out: a new folder, studies/RECIPE by default. overrides: values for dotted recipe keys, such as
    {"train.epochs": 3}. copy_to: a folder, such as a mounted drive, that the study is copied to as it grows.
    gpu: how much of the GPU may be used, such as "24GB"; all that is free when absent.
    Raises PronkError if something about them is wrong, KeyboardInterrupt if stopped:
    what was trained by then is saved, and `pronk.report` opens it.
    """
    from pronk import pipeline
    from pronk.model.memory.sizes import read_size, steady_allocator
    from pronk.recipe import read_recipe

    steady_allocator()
    recipe = Path(recipe)
    checked = read_recipe(recipe, _texts(overrides))
    place, mirror = Path(out or new_folder(f"studies/{recipe.stem}")), Path(copy_to) if copy_to else None
    folder, interrupted = pipeline.run_study(checked, place, _console(), mirror, read_size(gpu) if gpu else None)
    if interrupted:
        raise KeyboardInterrupt(f"what was trained is saved; open it with pronk.report({str(folder.path)!r})")
    return _opened(folder)


def report(study: str | Path, lang: str = "en") -> Study:
    """Open a study folder, with its comparisons and its report made anew: `pronk report`. Needs no model.

    lang: the report's language, "en" or "ko". Raises StudyError if it is no study.
    """
    from pronk import pipeline
    from pronk.compare.languages import language

    code, folder = language(lang).code, StudyFolder.open(Path(study))
    with folder.changing():
        pipeline.report(folder.path, code)
    return _opened(folder)


def evaluate(
    *models: str | Path | Study | Run,
    data: str | Path | None = None,
    split: Literal["test", "validation"] = "test",
    evaluations: Sequence[str] | None = None,
    out: str | Path | None = None,
    base: bool = True,
    prompt: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Measure what was trained, or any base, afterwards: `pronk eval`, from Python `pronk.eval(...)`.

    One study alone is measured again, on its own test rows and into its own folder. Runs, studies, adapters and bases
    together are measured on the same rows: their own, or those of `data`, a file read as they read theirs; the result
    is a study in `out`, a new folder. split: which of their own rows. evaluations: in place of the recipe's, such as
    ["likelihood"]. base: also the base of the runs. prompt: how a base is asked.
    Raises PronkError if something about them is wrong, KeyboardInterrupt if stopped: what was measured is kept.
    """
    from pronk import measure
    from pronk.model.memory.sizes import steady_allocator

    steady_allocator()
    targets, names = [_target(one) for one in models], None if evaluations is None else [*evaluations]
    file = None if data is None else str(data)
    asked = measure.Asked(targets, file, split, names, prompt, _texts(overrides), base)
    folder, interrupted = measure.evaluate(asked, Path(out) if out else None, _console())
    if interrupted:
        raise KeyboardInterrupt(f"what was measured is saved; open it with pronk.report({str(folder.path)!r})")
    return _opened(folder)


def generate(
    *models: str | Path | Study | Run,
    questions: str | Sequence[str] | None = None,
    base: bool = False,
    prompt: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Answers:
    """Ask runs, studies, adapters and bases the same questions, side by side: `pronk generate`.

    questions: texts or files (.txt, .jsonl), "english" (the default) or "korean" for six samples. base: also
    ask the base of the runs. prompt: how a base is asked. settings: temperature (0, the default: no drawing),
    top_k, top_p, max_new_tokens, stop, seed. Raises PronkError if something about them is wrong; a stop by the
    user ends the answers where they are.
    """
    if not models:
        raise OptionError("name at least one run, study, adapter or base to ask")
    given = [questions] if isinstance(questions, str) else questions
    answered = ask.generate(
        [_target(one) for one in models], given, base, prompt, _texts(overrides), settings, None, _console()
    )
    return Answers(tuple(ask.records(answered)), answered)


def chat(
    *models: str | Path | Study | Run,
    base: bool = False,
    prompt: str | None = None,
    system: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Conversation:
    """Talk with runs, studies, adapters and bases, side by side: `pronk chat`.

    `.ask("…")` gives every model's reply; `.say("…")` gives them while they are written. base, prompt, settings: as
    for `generate`. system: a system message in place of the runs' own. The models stay in memory as long as the
    conversation is kept. Raises PronkError if something about them is wrong.
    """
    from pronk.ask.conversation import Conversation
    from pronk.ask.models import find_models
    from pronk.recipe import generation_settings

    if not models:
        raise OptionError("name at least one run, study, adapter or base to talk with")
    found = find_models([_target(one) for one in models], base, prompt, _texts(overrides))
    return Conversation(found, generation_settings(settings), _console(), system)


def predict(
    model: str | Path | Run,
    rows: Sequence[str | Mapping[str, Any]],
    column: str | None = None,
    calibrate: bool = True,
    skip_bad: bool = False,
    prefix: str = "",
    prompt: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A label with probabilities, a choice, or a text, for each row, in their order: `pronk predict` without files.

    rows: texts, or dictionaries whose columns are read as those of the run's data, or by the one that `column` names.
    Each comes back as a dictionary with `label`, `probability` and `probabilities` added, or with `choice`,
    `choice_normalised` and `scores`, or with `text` and `ended`.
    calibrate: probabilities, on the run's validation rows (once; it is kept beside the run). skip_bad: rows that
    cannot be read have an `error` and nothing else. prefix: before the new names, where a row has one of them already.
    settings: of models that write, as for `generate`.
    Raises PronkError if something about them is wrong, KeyboardInterrupt if stopped.
    """
    from pronk.ship.predict.predicting import Wanted, predict_rows

    wanted = Wanted(_target(model), column, calibrate, skip_bad, prompt, _texts(overrides), settings)
    return predict_rows(wanted, [one if isinstance(one, str) else dict(one) for one in rows], _console(), prefix)


def export(
    run: str | Path | Run,
    to: str | Sequence[str] = "adapter",
    out: str | Path | None = None,
    tolerance: Sequence[str] = (),
    rows: int | None = None,
    quant: Sequence[str] = (),
    hub_merged: bool = False,
    lang: str | None = None,
) -> dict[str, Any]:
    """A run for others to use, each form compared with it: `pronk export`; nothing is uploaded.

    to: adapter, merged, gguf, ollama, hub. tolerance, rows, quant, hub_merged, lang: as the command's options.
    What is returned is what export.json says, with `folder`, `passed` (false where something was rejected) and, of this
    call, `artifacts` and `refused`. Raises PronkError if something about the request is wrong, KeyboardInterrupt if
    stopped.
    """
    from pronk.ship.export.exporting import Options
    from pronk.ship.export.exporting import export as exported
    from pronk.ship.hub.upload import check_options

    forms, place = [to] if isinstance(to, str) else list(to), None if out is None else Path(out)
    more = {"quant": list(quant), "push": None, "hub_merged": hub_merged, "lang": lang}
    check_options(forms, None, hub_merged, lang=lang)
    record = exported(_target(run), Options(forms, place, tuple(tolerance), rows, more), _console())
    told = {"folder": record.folder, "passed": record.passed, "refused": record.refused}
    return {**record.data, **told, "artifacts": record.entries}


def _target(model: str | Path | Study | Run) -> str:
    if isinstance(model, Run):
        return model.base if model.baseline else str(model.path)
    return str(model.path if isinstance(model, Study) else model)


def _texts(overrides: Mapping[str, Any] | None) -> list[str]:
    """Overrides as `--set` takes them; JSON is YAML."""
    return [f"{key}={json.dumps(value, default=str)}" for key, value in (overrides or {}).items()]


def _opened(folder: StudyFolder) -> Study:
    details = folder.read()
    runs = tuple(_run(folder.path, entry) for entry in details["runs"])
    names = list(Comparison.__dataclass_fields__)
    comparisons = [
        Comparison(**{key: entry[key] for key in names if key in entry} | {"interval": tuple(entry["interval"])})
        for entry in details.get("comparisons") or ()
    ]
    return Study(folder.path, runs, tuple(comparisons), details)


def _run(study: Path, entry: dict[str, Any]) -> Run:
    path = run_folder(study, entry["name"])
    return Run(
        entry["name"], entry.get("base", ""), bool(entry.get("baseline")), entry.get("settings") or {},
        entry.get("metrics") or {}, entry.get("status", ""), entry.get("message") or "", path, RunFolder(path).weights,
        entry,
    )  # fmt: skip


def _table(study: Study) -> str:
    """Runs by rank. Everything is escaped: names and messages come from files."""
    shown = [name for name in words.METRICS if any(figure(one.details, name) is not None for one in study.runs)]
    against = {
        (entry.b, entry.metric): words.VERDICTS.get(entry.verdict, entry.verdict)
        for entry in study.comparisons
        if plain_base(study[entry.a].details)
    }
    heads = ["run", *(words.METRICS[name] for name in shown), "status"]
    rows = [[one.name, *(_figure(one, name, against) for name in shown), one.status] for one in study.runs]
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    link = html.escape(str(study.report))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>report: <code>{link}</code></p>"


def _figure(one: Run, metric: str, against: Mapping[tuple[str, str], str]) -> str:
    value = words.metric_value(metric, figure(one.details, metric))
    return f"{value} {against.get((one.name, metric), '')}".rstrip()


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)
