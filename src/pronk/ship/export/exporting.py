"""The story of `pronk export`: one form after another, each made aside, compared with the run, then put in its place.

A form is a module with `make(job, folder) -> list[Artifact]`, named in FORMS. It writes into `folder`, which is aside:
what stands under its own name is whole, and has passed its gate. What did not pass is renamed NAME.rejected. A form may
have a `check(model, options)`, which raises PronkError for what can be known to fail before anything is made.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.asking import Reader, open_reader
from pronk.ask.models import Model, find_models
from pronk.data.words import counted, did_you_mean
from pronk.errors import OptionError, PronkError, RefusedError, StudyError
from pronk.runs import disk_guard, one_writer
from pronk.ship.export.record import FILE, Record
from pronk.ship.gate.parity import Gate, Parity
from pronk.ship.gate.reading import Reads
from pronk.ship.gate.tolerance import Class, Limits, read_limits
from pronk.train.interrupt import listen
from pronk.train.progress import say

if TYPE_CHECKING:
    from rich.console import Console

# In the order in which they are made: gguf and ollama build on merged, hub on what stands before it.
FORMS = {
    "adapter": "pronk.ship.export.adapter",
    "merged": "pronk.ship.export.merged",
    "gguf": "pronk.ship.gguf.form",
    "ollama": "pronk.ship.ollama.form",
    "hub": "pronk.ship.hub.form",
}
REJECTED, ASIDE = ".rejected", ".export-"
ROWS = 100  # validation rows that the gate reads, unless told otherwise


@dataclass(frozen=True)
class Options:
    """What was asked for. tolerance: see read_limits. rows: how many the gate reads, ROWS when absent. more: options
    that single forms know, by their names."""

    forms: Sequence[str]
    out: Path | None = None
    tolerance: Sequence[str] = ()
    rows: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """One thing that a form has made. name: its place below the export's folder, e.g. gguf/model-q8_0.gguf.

    path: a file, or the form's whole folder. open: how a program reads it; None where there is nothing to compare.
    tolerance: which limits it is held to. facts: for export.json. explain: says what in the files is not as it should
    be; nothing may be. measured: what the gate found, where the form has asked it already.
    """

    form: str
    name: str
    path: Path
    open: Callable[[], Reads] | None
    tolerance: Class
    facts: Mapping[str, Any] = field(default_factory=dict)
    explain: Callable[[], list[str]] | None = None
    measured: Parity | None = None


@dataclass
class Job:
    """An export on its way. reader: the run. out: where forms come to stand; work: a folder beside them for what does
    not stay. check: raises KeyboardInterrupt where the user has asked to stop; to be called where nothing is half."""

    reader: Reader
    options: Options
    limits: Limits
    console: Console
    out: Path
    work: Path
    record: Record
    check: Callable[[], None] = lambda: None

    def say(self, line: str, style: str | None = None) -> None:
        """A line for the user, on stderr."""
        say(self.console, line, style)

    @cached_property
    def gate(self) -> Gate:
        """What compares with the run; its rows are read when it is first asked for."""
        return Gate(self.reader, self.limits, self.options.rows or ROWS, self.console, self.check)

    def merged(self) -> Path:
        """The run as a model of its own, made now unless it has been exported. Raises RefusedError if that was
        rejected."""
        if (status := self.record.status("merged")) == "passed" and (self.out / "merged").is_dir():
            return self.out / "merged"
        if status == "rejected" and "merged" in self.options.forms:
            raise RefusedError("the merged model was rejected, so nothing is built on it")
        return self._made_for_others[0]

    def merged_class(self) -> Class:
        """How far what `merged` gives may differ from the run. Raises as `merged`."""
        if self.merged() == self.out / "merged":
            found: Class = self.record.limits("merged")
            return found
        return self._made_for_others[1]

    @cached_property
    def _made_for_others(self) -> tuple[Path, Class]:
        folder = Path(tempfile.mkdtemp(prefix="merged-", dir=self.work))
        (artifact,) = _made(self, "merged", folder)
        return folder, artifact.tolerance


def export(target: str, options: Options, console: Console) -> Record:
    """Export one run in several forms; what came of each stands in the record, and in export.json.

    What is wrong with the request is found before anything is written. Raises PronkError, and KeyboardInterrupt where
    the user stops it: forms that were done by then stay.
    """
    forms = [form for form in FORMS if form in checked_forms(options.forms)]
    limits, model = read_limits(options.tolerance), one_run(target)
    out = options.out or (model.run or Path()) / "export"
    refuse_taken(out, forms)
    with disk_guard(out), one_writer(out / FILE):
        record = Record.at(out, model)
        refuse_taken(out, forms)  # again: another process may just have been at it
        for form in forms:
            getattr(_module(form), "check", lambda *_: None)(model, options)
        _export_all(model, forms, options, limits, record, console)
    return record


def _export_all(
    model: Model, forms: Sequence[str], options: Options, limits: Limits, record: Record, console: Console
) -> None:
    tell, out = partial(say, console), record.folder
    with listen(lambda _: tell("stopping; what is not done leaves nothing behind")) as stop:
        with console.status("reading the run"):
            reader = open_reader(0, model, tell, {})
        with _aside(out) as work:
            job = Job(reader, options, limits, console, out, work, record, stop.check)
            record.data |= {
                "chat": job.gate.example,
                "compared": {"part": job.gate.part, "rows": len(job.gate.rows), "of": job.gate.known},
            }
            for form in forms:
                try:
                    _export(job, form)
                except RefusedError as error:  # others may pass
                    record.refused.append(f"{form}: {error}")


def checked_forms(forms: Sequence[str]) -> list[str]:
    """The forms asked for. Raises OptionError for one that there is not."""
    for form in forms:
        if form not in FORMS:
            raise OptionError(f"--to {form}: expected one of {', '.join(FORMS)}{did_you_mean(form, FORMS)}")
    if not forms:
        raise OptionError(f"--to: name what to export to: {', '.join(FORMS)}; again, or with commas, for several")
    return list(dict.fromkeys(forms))


def one_run(target: str) -> Model:
    """The run that was named. Raises StudyError where it is several, or none."""
    models = find_models([target])
    if len(models) > 1:
        names = ", ".join(model.name for model in models[:4])
        raise StudyError(f"{target}: this study has {counted(len(models), 'run')} ({names} …); name the folder of one")
    if models[0].run is None:
        raise StudyError(
            f"{target}: this is no run of pronk's, so there are no validation rows to compare an export with; name the "
            "folder of a run (STUDY/runs/NAME)"
        )
    return models[0]


def refuse_taken(out: Path, forms: Sequence[str]) -> None:
    """Raise StudyError where a form stands already, or where `out` holds something else."""
    if out.exists() and not out.is_dir():
        raise StudyError(f"{out}: this is a file; --out names a folder")
    for form in forms:
        if (out / form).exists():
            raise StudyError(f"{out / form}: stands here already; move it away first, or choose another --out")


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder in `out` for what is not done; it goes, and so do those that a killed export has left."""
    for left in out.glob(f"{ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=ASIDE, dir=out))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _export(job: Job, form: str) -> None:
    """One form: made, compared, put in its place."""
    folder = job.work / form
    folder.mkdir()
    artifacts = _made(job, form, folder)
    for artifact in artifacts:
        parity = artifact.measured or _compared(job, artifact)
        explained = _other_weights(job, artifact)
        if parity and explained:
            parity = replace(parity, reasons=(*parity.reasons, "its files do not hold the weights that they should"))
        why = parity.reasons if parity else ()
        job.record.add(artifact, parity, explained)
        if why:
            rejected = artifact.path.with_name(artifact.path.name + REJECTED)
            artifact.path.rename(rejected)
            folder = rejected if artifact.path == folder else folder
    job.check()
    stale = job.out / (form + REJECTED)
    if stale.exists():  # of an earlier attempt
        shutil.rmtree(stale)
    folder.rename(job.out / folder.name)
    job.record.write()


def _other_weights(job: Job, artifact: Artifact) -> list[str]:
    """Tensors that are not what was computed, read back from the files. One of hundreds may be far off before the model
    is, so figures alone would let it pass."""
    if artifact.explain is None:
        return []
    with job.console.status(f"comparing the weights of {artifact.name}"):
        return artifact.explain()


def _made(job: Job, form: str, folder: Path) -> list[Artifact]:
    artifacts: list[Artifact] = _module(form).make(job, folder)
    return artifacts


def _module(form: str) -> Any:
    return importlib.import_module(FORMS[form])


def _compared(job: Job, artifact: Artifact) -> Parity | None:
    """The artifact, as it is read, against the run. None where nothing can read it."""
    if artifact.open is None:
        return None
    job.gate.prepare()  # the run itself, before a second model takes memory
    with closing(opened(job, artifact.name, artifact.open)) as reads:
        return job.gate.compare(reads, artifact.name, artifact.tolerance)


def opened(job: Job, name: str, open_it: Callable[[], Reads]) -> Reads:
    """What was exported, read. Raises RefusedError where the program that it is for cannot."""
    from pronk.model.hub import first_line
    from pronk.model.memory.guard import memory_guard

    with job.console.status(f"loading {name}"), memory_guard(f"loading {name}"):
        try:
            return open_it()
        except (PronkError, MemoryError):
            raise
        except Exception as error:  # whatever a library raises over files that it cannot read
            if "OutOfMemory" in type(error).__name__:
                raise
            raise RefusedError(f"what was exported cannot be read: {first_line(error)}") from error
