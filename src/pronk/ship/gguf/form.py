"""The form `gguf`: the run as one model for llama.cpp, and its adapter for --lora over a file of its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pronk.ask.models import Model
from pronk.data.conversation import Message
from pronk.data.words import did_you_mean
from pronk.errors import BaseModelError, OptionError
from pronk.ship.export.exporting import Artifact, Job, Options
from pronk.ship.export.licences import base_folder
from pronk.ship.export.merging import Merger, Quantization
from pronk.ship.gate.tolerance import Class
from pronk.ship.gguf.adapter import write_adapter
from pronk.ship.gguf.llama_cpp import INSTALL, LlamaCpp, installed
from pronk.ship.gguf.quantizer import QUANTIZED, check_quantizer, quantize
from pronk.ship.gguf.writer import FILE_TYPES, Labels, tensors_in, write_model
from pronk.ship.hub.terms import UNKNOWN, find_terms
from pronk.train.progress import work

if TYPE_CHECKING:
    from torch import Tensor

QUANTS = ("f16", "q8_0")  # without --quant
UNREAD = "llama-cpp-python is not installed"
CLASSES: dict[str, Class] = {**dict.fromkeys(FILE_TYPES, "rounded"), "q8_0": "quantized"}


@dataclass(frozen=True)
class File:
    """A .gguf file of the whole model. types: how many tensors have which type."""

    path: Path
    quant: str
    types: dict[str, int]


@dataclass(frozen=True)
class Tensors:
    """Where a model is read from: a folder of transformers; read: gives its tensors by name, where not that folder."""

    folder: Path
    read: Callable[[str], Tensor] | None = None


def checked_quants(given: Sequence[str]) -> list[str]:
    """The types asked for by --quant. Raises OptionError for one that there is not, or that cannot be written here."""
    known = (*FILE_TYPES, *QUANTIZED)
    quants = [one.lower() for one in given or QUANTS]
    for quant in quants:
        if quant not in known:
            raise OptionError(f"--quant {quant}: expected one of {', '.join(known)}{did_you_mean(quant, known)}")
    check_quantizer([quant for quant in quants if quant in QUANTIZED])
    return list(dict.fromkeys(quants))


def check(_: Model, options: Options) -> None:
    """See pronk.ship.export.exporting: what is wrong with --quant is found before anything is read."""
    checked_quants(options.more.get("quant") or ())


def make(job: Job, folder: Path) -> list[Artifact]:
    """Write the model in each type asked for, and the adapter, where there is one, in those that it can have."""
    quants = checked_quants(job.options.more.get("quant") or ())
    made = [artifact(job, "gguf", one) for one in model_files(job, folder, quants)]
    if job.reader.model.adapter:
        made += _adapters(job, folder, [quant for quant in quants if quant in FILE_TYPES] or ["f16"])
    if not installed():
        job.say(f"the .gguf files were not compared with the run: {UNREAD}; {INSTALL}", "yellow")
    return made


def model_files(job: Job, folder: Path, quants: Sequence[str]) -> list[File]:
    """The run's model as a .gguf file of each type."""
    source = _source(job)

    def write(place: Path, quant: str) -> File:
        return _written(job, source, place / f"model-{quant}.gguf", quant, labels(job))

    plain = [quant for quant in quants if quant in FILE_TYPES]
    files = [write(folder, quant) for quant in plain]
    if coarse := [quant for quant in quants if quant in QUANTIZED]:
        begun = next((one for one in files if one.quant == "f16"), None) or write(job.work, "f16")
        for quant in coarse:
            target = folder / f"model-{quant}.gguf"
            with job.console.status(f"quantizing {target.name}"):
                files.append(File(target, quant, quantize(begun.path, target, quant, job.check)))
        if begun not in files:
            begun.path.unlink()
    return files


def artifact(job: Job, form: str, file: File) -> Artifact:
    """A file of the model, as llama.cpp reads it."""
    facts = {"types": shown(file.types), **unread()}
    return Artifact(form, f"{form}/{file.path.name}", file.path, reading(file.path), _class(job, file.quant), facts)


def reading(model: Path, adapter: Path | None = None) -> Callable[[], LlamaCpp] | None:
    """How llama.cpp reads files; None where it is not installed."""
    return partial(LlamaCpp, model, adapter) if installed() else None


def unread() -> dict[str, str]:
    """For export.json: why a file was not compared, if it was not."""
    return {} if installed() else {"not compared": UNREAD}


def labels(job: Job, name: str | None = None) -> Labels:
    """What the files of a run say of themselves. name: of a model that is not the run's own."""
    model, base = job.reader.model, job.reader.base
    terms = find_terms(base)
    known = None if terms.id == UNKNOWN else terms.name or terms.id
    return Labels(name or model.name, model.origin or base.name, known)


def shown(types: dict[str, int]) -> str:
    """Types of tensors for people: 211 × F16, 61 × F32."""
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(types.items(), key=lambda one: -one[1]))


def _adapters(job: Job, folder: Path, quants: Sequence[str]) -> list[Artifact]:
    """The adapter's files, and the base's file that llama.cpp puts them over."""
    model, base = job.reader.model, job.reader.base
    assert model.adapter
    kind = quants[0] if quants[0] != "q8_0" else "f16"
    over = _written(job, _base(job), folder / f"base-{kind}.gguf", kind, labels(job, base.name))
    made = []
    for quant in quants:
        file = folder / f"adapter-{quant}.gguf"
        types = write_adapter(model.adapter, job.reader.config, file, quant, labels(job))
        facts = {"over": over.path.name, "types": shown(types), **unread()}
        made.append(Artifact("gguf", f"gguf/{file.name}", file, reading(over.path, file), _exactly(job), facts))
    return made


def _base(job: Job) -> Tensors:
    """The base as training saw it: an adapter over a quantized one has learned to make up for its rounding errors."""
    from pronk.model.load import linear_layer_sizes, resolve_device, resolve_dtype

    base, recipe = job.reader.base, job.reader.model.recipe
    if (folder := base_folder(base)) is None:
        raise BaseModelError(f"base: the weights of {base.name} are not on this machine; download them again")
    if recipe.quantize == "none":
        return Tensors(folder)
    device = resolve_device(recipe.train.device)
    dtype = resolve_dtype(recipe.train.dtype, device)
    kept = Quantization(recipe.quantize, recipe.double_quantization is not False, dtype, device)
    return Tensors(folder, Merger(folder, linear_layer_sizes(base), None, kept).exact)


def _exactly(job: Job) -> Class:
    """How far what training saw may differ: FP8 products round what they are multiplied with, which no file does."""
    recipe = job.reader.model.recipe
    return "quantized" if recipe.quantize == "fp8" or recipe.train.fp8_products else "rounded"


def _source(job: Job) -> Tensors:
    """The run's model. Over a base that was not quantized it is merged while it is written: what `--to merged` holds is
    rounded to bf16, and would be rounded once more here."""
    from pronk.model.load import linear_layer_sizes

    model, base = job.reader.model, job.reader.base
    folder = base_folder(base)
    if model.recipe.quantize != "none" or folder is None:
        return Tensors(job.merged())
    return Tensors(folder, Merger(folder, linear_layer_sizes(base), model.adapter).exact)


def _written(job: Job, source: Tensors, target: Path, quant: str, said: Labels) -> File:
    prompt = job.reader.prompt
    with work(job.console, f"writing {target.name}", tensors_in(source.folder)) as bar:

        def advance(tensors: int) -> None:
            job.check()
            bar.advance(tensors, "tensors")

        asked = prompt.question_ids([[Message("user", "How are you?")]])[0]
        types = write_model(
            source.folder, target, quant, prompt.tokenizer, said, prompt.end_id, asked, advance, source.read
        )
    return File(target, quant, types)


def _class(job: Job, quant: str) -> Class:
    """How far a file may differ: as far as its type makes it, and as far as the merged model does."""
    kind = CLASSES.get(quant, "coarse")
    if job.reader.model.recipe.quantize == "none":
        return kind
    order: tuple[Class, ...] = ("exact", "rounded", "quantized", "coarse", "rebased")
    return max(kind, job.merged_class(), key=order.index)
