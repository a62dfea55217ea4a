"""What a model card says, gathered from a run, its study, its items and its base. Nothing here knows Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pronk import __version__
from pronk.ask.asking import Reader
from pronk.ask.models import study_around
from pronk.compare import words
from pronk.compare.baseline import SHOWN, intervals
from pronk.compare.items import read_item_files
from pronk.compare.pairs import baseline_of, evaluated, figure, primary_metric
from pronk.compare.seeds import groups
from pronk.compare.summary import run_metrics
from pronk.data.checks.scripts import languages
from pronk.data.questions import Question
from pronk.errors import PronkError
from pronk.model.places import EMBEDDED
from pronk.recipe import Data, Recipe
from pronk.recipe.data import HUB_ID
from pronk.recipe.notation import Dumper
from pronk.ship.gate.chats import as_chat
from pronk.ship.hub.terms import EMBEDDED_ID, Terms, find_terms

Kind = Literal["adapter", "merged"]
METRICS = (*SHOWN, "forgetting_perplexity")
CODES = {
    "English": "en", "Spanish": "es", "French": "fr", "German": "de", "Portuguese": "pt", "Italian": "it",
    "Korean": "ko", "Japanese": "ja", "Chinese": "zh", "Greek": "el", "Hebrew": "he", "Arabic": "ar", "Thai": "th",
}  # fmt: skip
MANY = 0.2  # of the items: a language with this share is one of the model's
EXAMPLE = "Write a text of your own here."
PATHS = ("base", "prompt", "source", "path", "from", "text")  # keys of a recipe that may name a local file
_HOME = re.compile(r"(?:/home|/users|[a-z]:\\users)[/\\][^/\\\s\"']+", re.IGNORECASE)


@dataclass(frozen=True)
class Result:
    """A metric of the run and of its base, each with its 95% interval where it has one.

    difference, spread, verdict, p: of the run against the base, as study.json has them; None where they were not
    compared. Of a perplexity only verdict and p, which are those of the loss.
    """

    metric: str
    value: float
    interval: Sequence[float] | None
    base: float | None = None
    base_interval: Sequence[float] | None = None
    difference: float | None = None
    spread: Sequence[float] | None = None
    verdict: str | None = None
    p: float | None = None


@dataclass(frozen=True)
class Source:
    """Where rows come from. id: of a set on the hub, else empty. packaged: whether pronk brings the file."""

    name: str
    id: str = ""
    packaged: bool = False


@dataclass(frozen=True)
class Facts:
    """All that a card says. chat: an example in OpenAI's form; None for a model that goes on with plain text.

    base_id: the base on the hub, empty where it is not there. results: the first is what runs are ranked by.
    """

    run: str
    kind: Kind
    repository: str
    base: str
    base_id: str
    terms: Terms
    quantize: str
    rank: int | None
    prompt: str
    end_id: int
    chat: list[dict[str, str]] | None
    sources: tuple[Source, ...]
    rows: Mapping[str, int]
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    recipe: str
    results: tuple[Result, ...]
    comparisons: int
    runs: int
    seeds: int
    overfitting: str
    unparsable: int
    wrote: bool
    parity: Mapping[str, Any] | None
    made: str = ""
    version: str = __version__


def gather(
    reader: Reader, kind: Kind, repository: str, parity: Mapping[str, Any] | None = None, made: str = ""
) -> Facts:
    """Everything about a run; what its study no longer says is left out.

    repository: OWNER/NAME as the code in the card names it. parity: the gate's findings, as export.json has them.
    made: onto which weights of the base it was merged, or over which it was read.
    """
    model, origin = reader.model, reader.model.origin or reader.model.recipe.base
    recipe = model.recipe.model_copy(update={"base": origin})  # a run that trained all weights is its own base
    study = study_around(model.run) if model.run else {}
    runs = [one for one in study.get("runs") or () if isinstance(one, dict)]
    own = next((one for one in runs if one.get("name") == model.name), {})
    seeds = [group for group in groups([one for one in runs if evaluated(one)]) if model.name in group.names()]
    metrics = own.get("metrics") or {}
    return Facts(
        run=model.name, kind=kind, repository=repository, base=_file_name(origin), base_id=hub_id(origin),
        terms=terms_of(reader), quantize=recipe.quantize,
        rank=model.adapter.shape.rank if model.adapter else None, prompt=_file_name(reader.prompt.kind),
        end_id=reader.prompt.end_id, chat=_example(reader), sources=_sources(recipe.data),
        rows={key: count for key, count in (study.get("data") or {}).items() if isinstance(count, int)},
        labels=tuple(map(str, study.get("labels") or ())), languages=_languages(model.run),
        recipe=public_recipe(recipe), results=_results(model.run, own, runs, study.get("comparisons") or []),
        comparisons=len(study.get("comparisons") or []), runs=sum(not one.get("baseline") for one in runs),
        seeds=len(seeds[0].runs) if seeds else 1, overfitting=words.overfitting_verdict(own.get("overfitting")),
        unparsable=int(metrics.get("unparsable") or 0),
        wrote=any(metrics.get(key) is not None for key in ("generated_accuracy", "exact_match", "rouge_l")),
        parity=parity, made=made,
    )  # fmt: skip


def hub_id(base: str) -> str:
    """The hub's name of a base; empty for a folder or a file."""
    if base == EMBEDDED:
        return EMBEDDED_ID
    named = HUB_ID.fullmatch(base) and not base.endswith(".gguf")
    return base if named and not Path(base).exists() else ""


def public_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, with the names of local files in place of their paths, and no home folders."""
    plain = yaml.safe_load(recipe.to_yaml())
    return str(yaml.dump(_public(plain, ""), Dumper=Dumper, sort_keys=False, allow_unicode=True))


def _public(value: Any, key: str) -> Any:
    """key: whose value it is; those of a study are dotted."""
    if isinstance(value, dict):
        return {name: _public(inner, str(name).rpartition(".")[2]) for name, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    return _HOME.sub("~", without_own_home(_file_name(value) if key in PATHS else value))


def without_own_home(text: str) -> str:
    """The text with ~ in place of this user's home folder."""
    own = str(Path.home()).rstrip("/")
    return re.sub(rf"{re.escape(own)}(?![\w.-])", "~", text) if own else text


def _file_name(name: str) -> str:
    """A path's last part; any other name as it is."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def terms_of(reader: Reader) -> Terms:
    """The licence of a run's base; where all weights were trained, of what it began from."""
    from pronk.model.load import find_base

    model = reader.model
    if model.adapter is not None or model.origin is None:
        return find_terms(reader.base)
    try:
        return find_terms(find_base(model.origin))
    except PronkError:  # it has gone since
        return find_terms(reader.base)


def _example(reader: Reader) -> list[dict[str, str]] | None:
    form = reader.model.form
    if form.plain:
        return None
    return as_chat(reader.prompt.kind, form.messages(Question(EXAMPLE, "", "the example")))


def _sources(data: Data) -> tuple[Source, ...]:
    found = []
    for one in data.sources:
        if one.id:
            found.append(Source(one.id, one.id if HUB_ID.fullmatch(one.id) else ""))
        elif one.path:
            found.append(Source(Path(one.path).name, packaged=_is_sample(Path(one.path))))
    return tuple(dict.fromkeys(found))


def _is_sample(file: Path) -> bool:
    """Whether a file is one that pronk brings, wherever it lies."""
    ours = Path(__file__).parents[2] / "data" / "samples" / file.name
    return ours.is_file() and file.is_file() and ours.read_bytes() == file.read_bytes()


def _languages(run: Path | None) -> tuple[str, ...]:
    """The languages that the test items are in, as the hub writes them; none where letters do not tell."""
    import json

    try:
        with (run.parents[1] / "items.jsonl").open(encoding="utf-8") as lines:  # type: ignore[union-attr]
            texts = [str(json.loads(line).get("input", "")) for line in lines]
    except (OSError, ValueError, AttributeError, IndexError):
        return ()
    counts = Counter(CODES[name] for name in languages(texts) if name in CODES)
    return tuple(code for code, count in counts.most_common() if count >= MANY * sum(counts.values()))


def _results(run: Path | None, own: Mapping[str, Any], runs: list[Any], comparisons: list[Any]) -> tuple[Result, ...]:
    """Every metric that has a meaning by itself, what runs are ranked by first."""
    if run is None or not (run / "items").is_dir():
        return ()
    items = read_item_files(run / "items", run.name)
    mine: dict[str, Any] = {"name": run.name, **own, "metrics": own.get("metrics") or run_metrics(items)}
    base = baseline_of(mine, runs)
    theirs = run.parent / str(base["name"]) / "items" if base else None
    base_spread = intervals(read_item_files(theirs, "base")) if theirs and theirs.is_dir() else {}
    spread, first = intervals(items), primary_metric([mine])
    order = [first, *(metric for metric in METRICS if metric != first)]
    found = []
    for metric in order:
        if (value := figure(mine, metric)) is not None:
            against = _against(mine, base, metric, comparisons)
            other = figure(base, metric) if base else None
            found.append(Result(metric, value, spread.get(metric), other, base_spread.get(metric), **against))
    return tuple(found)


def _against(
    mine: Mapping[str, Any], base: Mapping[str, Any] | None, metric: str, entries: list[Any]
) -> dict[str, Any]:
    """The comparison with the base, of study.json. Perplexities are compared by their losses."""
    compared = metric.replace("perplexity", "nll")
    for one in entries:
        if base and (one.get("a"), one.get("b"), one.get("metric")) == (base["name"], mine["name"], compared):
            verdict = {"verdict": one.get("verdict"), "p": one.get("p_adjusted")}
            same = {"difference": one.get("difference"), "spread": one.get("interval")}
            return verdict if metric != compared else {**same, **verdict}
    return {}
