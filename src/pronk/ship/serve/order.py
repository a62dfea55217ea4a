"""What is to be served: runs over one base, asked in one form, or a GGUF file; and what an engine is started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.errors import OptionError
from pronk.ship.serve.template import check_template, served_template

if TYPE_CHECKING:
    from pronk.ask.asking import Reader

BASE = "base"  # the name under which the untouched base is served beside its runs
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # in the words of vLLM and transformers


@dataclass(frozen=True)
class Options:
    """How to serve. engine, engine_python, gguf: None to find them. port: 0 for a free one. dtype, max_model_len: None
    for those of the runs and of their base. seconds: to wait for the engine. log: None for a file that is only kept
    where the engine fails. arguments: for the engine, as they are."""

    engine: str | None = None
    engine_python: str | None = None
    gguf: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str | None = None
    max_model_len: int | None = None
    seconds: float = 600.0
    log: Path | None = None
    arguments: Sequence[str] = ()


@dataclass(frozen=True)
class Order:
    """readers: the runs, none for a GGUF file of anybody's. template: their form in Jinja, None for the file's own.

    gguf: a file to serve by llama.cpp, if there is one. notes: what is to be said beforehand.
    """

    readers: Sequence[Reader]
    template: str | None
    gguf: Path | None
    notes: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The runs' names, under which they are asked."""
        return [reader.model.name for reader in self.readers] or ([self.gguf.stem] if self.gguf else [])

    @property
    def tuned(self) -> list[Reader]:
        """The runs that are adapters over the base."""
        return [reader for reader in self.readers if reader.model.adapter]

    @property
    def plain(self) -> bool:
        """Whether the runs go on with texts, and are asked at /v1/completions."""
        return bool(self.readers) and self.readers[0].model.form.plain


@dataclass(frozen=True)
class Command:
    """An engine's process. environment: on top of ours; secret: the key, where the engine takes it from there.

    names: what can be asked for. health: a path that answers 200 once the engine is ready. request: what a request for
    a single token needs beside the usual so that the engine tells the ids that it has read. notes: what differs from
    the runs as they were trained.
    """

    engine: str
    argv: Sequence[str]
    names: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)
    health: str = "/health"
    request: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_order(
    targets: Sequence[str], gguf: Path | None, overrides: Sequence[str], tell: Callable[[str], None]
) -> Order:
    """What was named on the command line, checked as far as that needs no weights.

    Raises OptionError for runs that one server cannot serve, PromptError for a form that a template cannot write, and
    as `find_models` and `open_reader` do.
    """
    if len(targets) == 1 and targets[0].endswith(".gguf"):
        if gguf is not None:
            raise OptionError("--gguf goes with a run; a .gguf file that is named itself is served as it is")
        return Order((), None, _file(Path(targets[0])))
    from pronk.ask.asking import open_reader
    from pronk.ask.models import find_models

    prompts: dict[Any, Any] = {}
    readers = [
        open_reader(number, model, tell, prompts)
        for number, model in enumerate(find_models(targets, overrides=overrides))
    ]
    _check_one_base(readers)
    template = _one_template(readers)
    notes = [note for reader in readers for note in check_template(reader, template)]
    if gguf is not None and len(readers) > 1:
        raise OptionError(f"--gguf: one file holds one model; name one run, not {len(readers)}")
    return Order(readers, template, _file(gguf) if gguf else _exported(readers), notes)


def _file(path: Path) -> Path:
    if not path.expanduser().is_file():
        raise OptionError(f"{path}: there is no such file; `pronk export RUN --to gguf` makes one")
    return path.expanduser().absolute()


def _exported(readers: Sequence[Reader]) -> Path | None:
    """The largest, so the most exact, GGUF that `pronk export` has made of a single run."""
    if len(readers) != 1 or readers[0].model.run is None:
        return None
    files = (readers[0].model.run / "export" / "gguf").glob("model-*.gguf")
    return max(files, key=lambda file: file.stat().st_size, default=None)


def _check_one_base(readers: Sequence[Reader]) -> None:
    """Raises OptionError that names the runs of each base, where there are several."""
    bases: dict[tuple[str, str], list[Reader]] = {}
    for reader in readers:
        bases.setdefault((reader.base.location, reader.model.recipe.quantize), []).append(reader)
    if len(bases) > 1:
        parts = [
            f"{_listed(group)} over {group[0].base.name} (quantize: {quantize})"
            for (_, quantize), group in bases.items()
        ]
        raise OptionError(
            f"one server has one base in memory, and these have {len(bases)}: {'; '.join(parts)}; serve them by a "
            "command each, on a --port each"
        )
    if BASE in (clash := [reader.model.name for reader in readers if reader.model.adapter]):
        raise OptionError(f"the run {clash[clash.index(BASE)]!r} has the name that its base is served under: rename it")


def _one_template(readers: Sequence[Reader]) -> str:
    """The form of all runs as a template. Raises OptionError where they are asked in several."""
    forms: dict[tuple[str, int], list[Reader]] = {}
    for reader in readers:
        template = served_template(reader.model.form, reader.prompt)
        forms.setdefault((template, reader.prompt.end_id), []).append(reader)
    if len(forms) > 1:
        parts = [f"{_listed(group)} {_described(group[0])}" for group in forms.values()]
        raise OptionError(
            "an engine writes one prompt form for all of its models, and these were trained in "
            f"{len(forms)}: {'; '.join(parts)}; serve them by a command each, on a --port each"
            f" (the untouched base is served beside its runs, as `{BASE}`)"
        )
    return next(iter(forms))[0]


def _described(reader: Reader) -> str:
    form = reader.model.form
    if form.plain:
        return "goes on with texts"
    parts = [f"in the form {reader.prompt.kind}"]
    parts += [f"{name} {_short(text)}" for name, text in (("under", form.instruction), ("as", form.system)) if text]
    return " ".join(parts)


def _listed(readers: Sequence[Reader]) -> str:
    return ", ".join(reader.model.name for reader in readers)


def _short(text: str, letters: int = 40) -> str:
    return repr(text if len(text) <= letters else text[:letters] + "…")


def dtype_of(order: Order, options: Options, cuda: bool) -> str:
    """The type that an engine computes in: what was asked for, else the runs' own: `auto` is what pronk makes of it."""
    wanted = options.dtype or order.readers[0].model.recipe.train.dtype
    if wanted == "auto":
        return "bfloat16" if cuda else "float32"
    if wanted not in (*DTYPES, *DTYPES.values()):
        raise OptionError(f"--dtype: found {wanted!r}, expected auto, {', '.join(DTYPES)}")
    return DTYPES.get(wanted, wanted)


def length_of(order: Order, options: Options) -> int:
    """Most tokens of a question and its answer together: what was asked for, else all that the base reads."""
    from pronk.model.load import context_length

    most = context_length(order.readers[0].config)
    wanted = options.max_model_len or most
    if not 1 < wanted <= most:
        raise OptionError(
            f"--max-model-len {wanted}: expected 2 to {most}, all that {order.readers[0].base.name} reads"
        )
    return wanted
