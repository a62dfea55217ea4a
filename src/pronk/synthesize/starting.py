"""From what was asked for to rows: everything is found to be right before a model is loaded or asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pronk.ask.models import Model, find_models
from pronk.data.sources import Tell
from pronk.data.words import counted
from pronk.errors import OptionError
from pronk.evaluate.served import server_of
from pronk.evaluate.served_call import Server
from pronk.evaluate.spending import Limits, Tally
from pronk.recipe import Synthesis, read_recipe, recipe_of_data, synthesis_settings
from pronk.runs import disk_guard, one_writer
from pronk.synthesize.estimate import estimate, room_for
from pronk.synthesize.making import Making, Order, Status
from pronk.synthesize.output import Output
from pronk.synthesize.requests import Asking
from pronk.synthesize.samples import Material, gather
from pronk.synthesize.sieve import Sieve
from pronk.synthesize.writers import LocalWriter, ServedWriter, Writer

if TYPE_CHECKING:
    from rich.console import Console

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Wishes:
    """What was asked for. seeds, recipe: one of them at least. model: a run, an adapter or a base; else url and
    served_model. overrides: key=value; those of data are for the seeds, all others for the model. given: settings of
    recipe.Synthesis."""

    out: Path
    seeds: Path | None = None
    recipe: Path | None = None
    avoid: tuple[Path, ...] = ()
    labels: tuple[str, ...] = ()
    model: str | None = None
    url: str | None = None
    served_model: str | None = None
    overrides: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """record: the summary, as it stands beside the rows too."""

    path: Path
    status: Status
    record: dict[str, Any]


def synthesize(wishes: Wishes, console: Console, agree: Callable[[], bool]) -> Result | None:
    """Make rows as wished; None where `agree` said no, which is asked after the estimate where money may be spent.

    Raises PronkError with one message; rows that are on the disk by then stay.
    """
    from pronk.train.interrupt import listen
    from pronk.train.progress import say, work

    tell = partial(say, console)
    settings = synthesis_settings(wishes.given)
    source = _source(wishes)
    with console.status("reading the seeds"):
        material = _material(wishes, settings, tell)
    with disk_guard(wishes.out), one_writer(wishes.out):
        writer = _writer(source, settings, console)
        making = _making(wishes.out, material, source, writer, settings)
        tell(_begins(making))
        if making.missing:
            tell(estimate(making))
            if _may_cost(source, settings) and not agree():
                return None
            writer.ready()
        listening = listen(lambda _: tell("stopping; rows that are whole are kept"))
        with listening as stop, work(console, "rows", settings.count) as bar:
            making.run(stop, bar)
    return Result(wishes.out, making.status, making.output.summary)


def _source(wishes: Wishes) -> Model | Server:
    """The model that writes, as it was named. Raises OptionError, StudyError or RecipeError."""
    named = [one for one in (wishes.model, wishes.url) if one is not None]
    if len(named) != 1:
        found = "both a model here and --url" if named else "no model"
        raise OptionError(
            f"synthesize: found {found}; name one: a run's folder, --base BASE, or --url URL with --model NAME"
        )
    if (wishes.url is None) != (wishes.served_model is None):
        raise OptionError("--url URL and --model NAME belong together; give both (a base here is named by --base)")
    overrides = [one for one in wishes.overrides if not one.startswith("data.")]
    if wishes.url is not None:
        if overrides:
            raise OptionError(f"--set {overrides[0]}: a served model has no such key; only keys of data mean something")
        return server_of(wishes.url, str(wishes.served_model), "--url")
    models = find_models([str(wishes.model)], overrides=overrides)
    if len(models) > 1:
        raise OptionError(f"{wishes.model}: this study has {len(models)} runs; name one of them (runs/NAME)")
    return models[0]


def _material(wishes: Wishes, settings: Synthesis, tell: Tell) -> Material:
    own = [one for one in wishes.overrides if one.startswith("data.")]
    if wishes.labels:
        own.append(f"data.labels={json.dumps(wishes.labels, ensure_ascii=False)}")  # JSON is YAML
    if wishes.seeds is None and wishes.recipe is None:
        raise OptionError("synthesize: no seeds; give --seeds FILE, or --recipe RECIPE for the rows that it trains on")
    study = read_recipe(wishes.recipe, own).data if wishes.recipe else None
    if wishes.seeds is None:
        seeds = None
    elif study is not None:  # read as the recipe reads its own
        seeds = study.model_copy(update={"source": str(wishes.seeds), "where": None})
    else:
        seeds = recipe_of_data(str(wishes.seeds), own).data
    material = gather(seeds, study, wishes.avoid, settings.task, tell)
    if settings.verify and not material.labels:
        raise OptionError("--verify asks for labels, and these seeds have none: leave it out")
    return material


def _writer(source: Model | Server, settings: Synthesis, console: Console) -> Writer:
    if isinstance(source, Model):
        return LocalWriter(source, settings.form, settings.seed, console)
    if settings.form == "continue":
        raise OptionError("--form continue: a chat interface takes questions, no texts to go on with; leave it out")
    return ServedWriter(source)


def _making(out: Path, material: Material, source: Model | Server, writer: Writer, settings: Synthesis) -> Making:
    asking = Asking(material, writer.form, settings.shots, settings.per_request, settings.seed)
    longest = settings.max_new_tokens or room_for(material, asking.wanted)
    common = {
        "task": material.task,
        "model": writer.name,
        **_identity(source),
        "labels": list(material.labels),
        "instruction": material.instruction,
        "seeds": _digest(seed.asked + "\0" + seed.answer for seed in material.seeds),
        "kept_out": _digest(material.kept_out),
        "prompt_version": asking.version,
        "max_new_tokens": longest,
        **settings.model_dump(include={"shots", "per_request", "temperature", "seed", "max_length", "verify"}),
    }
    limits = Limits(settings.limit_tokens, settings.limit_cost, settings.price_in, settings.price_out)
    order = Order(settings.count, longest, settings.temperature, settings.verify)
    sieve = Sieve(material, settings.max_length, writer.special)
    return Making(asking, sieve, writer, Output(out, common), Tally(limits), order)


def _identity(source: Model | Server) -> dict[str, str | None]:
    """What tells one model from another of the same name."""
    if isinstance(source, Server):
        return {"server": source.host}
    adapter = str(source.adapter.folder) if source.adapter else None
    return {"base": source.recipe.base, "adapter": adapter, "quantize": source.recipe.quantize}


def _digest(texts: Iterable[str]) -> str:
    """A name for a set of texts: a settings file must not hold test items."""
    digest = hashlib.sha256()
    for text in sorted(texts):
        digest.update(text.encode("utf-8", "replace") + b"\0\0")
    return digest.hexdigest()[:16]


def _begins(making: Making) -> str:
    material, rows = making.material, len(making.output.rows)
    kept_out = f", {counted(len(material.kept_out), 'text')} kept out and never shown" if material.kept_out else ""
    there = f"; {counted(rows, 'row')} of {making.order.count:,} there already" if making.output.summary else ""
    return f"{material.task}: {counted(len(material.seeds), 'seed')}{kept_out}; {making.writer.name} writes{there}"


def _may_cost(source: Model | Server, settings: Synthesis) -> bool:
    """Whether somebody should agree first: a server elsewhere, or one that has prices."""
    priced = bool(settings.price_in or settings.price_out)
    return isinstance(source, Server) and (priced or source.host not in LOOPBACK)
