"""From a recipe, or from shapes alone, to the work that all sides of a bench do."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pronk.doctor.peers.work import Work
from pronk.doctor.shapes import base_shape, draw_examples, read_lengths, write_base
from pronk.doctor.sides import PEERS, TIMEOUT
from pronk.errors import InputError, OptionError, RecipeError
from pronk.recipe import Recipe, read_recipe, recipe_of_base
from pronk.study import plan_study

if TYPE_CHECKING:
    from pronk.tokens.prompt import Example

WARM_UP = 3  # steps before the clock counts: first allocations, first kernels
# Of the initial B, with zero for which A would have no gradient and a wrong A would not show: the adapter then
# adds about a fiftieth of what its layer gives.
SPREAD = 0.01
USUAL_LENGTHS = "4x2048"
# Keys that say what is trained; those left say how, and a variant may change them.
SAME = ("base", "data", "prompt", "full", "adapter")
SAME_TRAINING = (
    "batch_size", "learning_rate", "optimizer", "schedule", "warmup_steps", "lora_plus_ratio", "weight_decay", "clip",
    "seed", "max_length", "train_on_prompt", "dtype", "device",
)  # fmt: skip
DTYPES: dict[str, Literal["fp32", "bf16"]] = {"float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Request:
    """What is to be measured: a recipe, or a base shape and lengths. peers: None for all that can.

    variants: other settings of ours, NAME:KEY=VALUE,… in the recipe's keys.
    """

    recipe: Path | None = None
    base_shape: str | None = None
    base_folder: Path | None = None
    lengths: str | None = None
    overrides: Sequence[str] = ()
    variants: Sequence[str] = ()
    peers: Sequence[str] | None = None
    layout: str = "padded"
    steps: int = 12
    timeout: int = TIMEOUT
    token_budget: int = 0  # of our micro-batches; 0 for the usual one

    def __post_init__(self) -> None:
        if (self.recipe is None) == (self.base_shape is None):
            raise OptionError("bench: name either a recipe or a --base-shape")
        if self.recipe is not None and (self.lengths is not None or self.base_folder is not None):
            raise OptionError("bench: --lengths and --base-folder go with --base-shape; a recipe brings base and rows")
        if self.layout not in ("padded", "packed"):
            raise OptionError(f"--layout: found {self.layout!r}, expected padded or packed")
        if self.base_shape is not None:
            base_shape(self.base_shape)
            read_lengths(self.lengths or USUAL_LENGTHS)
        if unknown := [name for name in self.peers or () if name not in PEERS]:
            raise OptionError(f"--peers: found {unknown[0]!r}, expected none, or some of {', '.join(PEERS)}")
        if self.steps < 1:
            raise OptionError("--steps: at least one step must be timed")


def named_works(request: Request, folder: Path) -> dict[str, Work]:
    """The work of "ours", which peers share, and of each variant by its name. folder: for the files they need.

    Raises InputError where the sides could not do the same.
    """
    base = None if request.base_shape is None else str((request.base_folder or folder / request.base_shape).absolute())
    run = _run(request, base, ())
    check_peers_can(run)
    variants = _variants(request, base, run)
    start, steps = folder / "start.safetensors", WARM_UP + request.steps
    if request.base_shape is None or base is None:
        work = make_work(run, steps, start)
    else:
        if run.base != base:
            raise OptionError(f"--set base={run.base}: the base is that of --base-shape {request.base_shape}")
        write_base(request.base_shape, Path(base))  # what can be wrong is known by now
        work = work_of_lengths(run, request.lengths or USUAL_LENGTHS, steps, start)
    works = {"ours": _with_recipe(work, run, folder / "ours.yaml")}
    for number, (name, other) in enumerate(variants.items()):
        works[name] = _with_recipe(work, other, folder / f"variant-{number}.yaml")
    return works


def _variants(request: Request, base: str | None, run: Recipe) -> dict[str, Recipe]:
    """The recipes of our other settings, which must ask for the same work as the run."""
    found: dict[str, Recipe] = {}
    for text in request.variants:
        name, overrides = read_variant(text)
        if name in ("ours", "fleet", *found, *PEERS):
            raise OptionError(f"--variant {text}: there are two sides called {name}; give it another name")
        found[name] = _run(request, base, overrides)
        if changed := _changed_work(run, found[name]):
            raise OptionError(f"--variant {text}: {changed} is the same for all sides; change it with --set")
    return found


def _changed_work(run: Recipe, other: Recipe) -> str:
    """The first key in which another recipe asks for other work, not for the same in another way; "" if none."""
    kept: list[tuple[str, object, object]] = [(key, getattr(run, key), getattr(other, key)) for key in SAME]
    kept += [(f"train.{key}", getattr(run.train, key), getattr(other.train, key)) for key in SAME_TRAINING]
    return next((key for key, mine, its in kept if mine != its), "")


def read_variant(text: str) -> tuple[str, list[str]]:
    """A variant's name and overrides from NAME:KEY=VALUE,KEY=VALUE. Raises OptionError for another form."""
    name, colon, settings = text.partition(":")
    overrides = re.split(r",(?=[a-z_.]+=)", settings)
    if not colon or not name.strip() or not all("=" in one for one in overrides):
        raise OptionError(f"--variant {text}: expected NAME:KEY=VALUE, such as int8:quantize=int8")
    return name.strip(), overrides


def _run(request: Request, base: str | None, more: Sequence[str]) -> Recipe:
    """The run that is measured: a recipe's first."""
    overrides = [*request.overrides, *more]
    if base is not None:
        return plan_study(recipe_of_base(base, overrides)).runs[0].recipe
    from pronk.data.detect import with_found_formats

    assert request.recipe is not None
    return plan_study(with_found_formats(read_recipe(request.recipe, overrides))).runs[0].recipe


def _with_recipe(work: Work, run: Recipe, path: Path) -> Work:
    """The work with what is read of the run itself on our side: how the base is kept, what is recomputed."""
    path.write_text(run.to_yaml(), encoding="utf-8")
    return replace(work, recipe=str(path), recompute=_recomputed(run), quantize=run.quantize)


def _recomputed(run: Recipe) -> int | str:
    """What is recomputed in a bench: auto is nothing, as nobody plans memory here."""
    return "none" if run.train.recompute == "auto" else run.train.recompute


def make_work(run: Recipe, steps: int, start: Path, spread: float = SPREAD) -> Work:
    """A run's own rows as work for all sides, the common initial adapter written to `start`. spread: of its B."""
    from pronk.data.split import read_splits
    from pronk.model.load import find_base
    from pronk.train.session import load_examples

    train = run.train
    examples = load_examples(find_base(run.base), [run], *read_splits(run.data))
    rows = examples.train(train.max_length, train.train_on_prompt)
    # TRL's batches are all full, so ours must be too
    rows = rows[: len(rows) // train.batch_size * train.batch_size]
    if not rows:
        raise InputError(f"bench: {train.batch_size} training rows are needed for one full batch")
    write_start(run, start, spread)
    return work_of(run, rows, steps, str(start))


def work_of_lengths(run: Recipe, lengths: str, steps: int, start: Path) -> Work:
    """Random rows of these lengths as work, every step with rows of its own. Raises OptionError as read_lengths."""
    from pronk.model.load import context_length, find_base, load_config

    wanted = read_lengths(lengths)
    config = load_config(find_base(run.base))
    rows = draw_examples(wanted, config.vocab_size, steps, run.train.seed)
    longest, context = max(len(row.ids) for row in rows), context_length(config)
    if longest > context:
        raise OptionError(f"--lengths {lengths}: the longest has {longest} tokens, and this base reads {context}")
    write_start(run, start, SPREAD)
    return replace(work_of(run, rows, steps, str(start)), batch_size=wanted.count)


def write_start(run: Recipe, path: Path, spread: float) -> None:
    """An initial adapter for all sides, by PEFT's names: A as PEFT draws it (uniform in ±1/√I), B normal."""
    import torch
    from safetensors.torch import save_file

    from pronk.model.adapter import chosen_layers
    from pronk.model.load import find_base, linear_layer_sizes

    targets = run.adapter.targets
    sizes = linear_layer_sizes(find_base(run.base))
    chosen = chosen_layers(list(sizes), targets if isinstance(targets, str) else tuple(targets))
    generator = torch.Generator().manual_seed(run.train.seed)
    tensors = {}
    for name in sorted(chosen):
        features, outputs = sizes[name]
        bound = 1 / math.sqrt(features)
        prefix = f"base_model.model.{name}"
        A_RI = torch.empty(run.adapter.rank, features).uniform_(-bound, bound, generator=generator)
        tensors[f"{prefix}.lora_A.weight"] = A_RI
        B_OR = torch.empty(outputs, run.adapter.rank).normal_(generator=generator) * spread
        tensors[f"{prefix}.lora_B.weight"] = B_OR
    save_file(tensors, path)


def check_peers_can(run: Recipe) -> None:
    """Raise RecipeError for what pronk does and the other sides of a bench do not."""
    if run.full:
        raise RecipeError("full: `pronk bench` measures adapters; leave full: true out")
    adapter = run.adapter
    for key, found, usual in (
        ("adapter.from", adapter.from_, None), ("adapter.dropout", adapter.dropout, 0.0),
        ("adapter.use_rslora", adapter.use_rslora, False), ("train.lora_plus_ratio", run.train.lora_plus_ratio, 1.0),
        ("train.deterministic", run.train.deterministic, False),
    ):  # fmt: skip
        if found != usual:
            raise RecipeError(f"{key}: a bench against other tools does not know {found}; leave it out of this recipe")


def work_of(run: Recipe, rows: Sequence[Example], steps: int, start: str = "") -> Work:
    """A run's training as work for all sides. start: where its initial adapter lies; else each side's own."""
    from pronk.model.load import resolve_device, resolve_dtype

    train, device = run.train, resolve_device(run.train.device)
    dtype = str(resolve_dtype(train.dtype, device)).removeprefix("torch.")
    if dtype not in DTYPES:
        raise RecipeError(f"train.dtype: a bench knows fp32 and bf16, and this would be {dtype}; set one of these")
    return Work(
        base=run.base,
        examples=[(example.ids.tolist(), example.target.tolist()) for example in rows],
        batch_size=train.batch_size,
        seed=train.seed,
        steps=steps,
        rank=run.adapter.rank,
        alpha=run.adapter.alpha,
        targets=run.adapter.targets,
        learning_rate=train.learning_rate,
        clip=train.clip,
        weight_decay=train.weight_decay,
        dtype=DTYPES[dtype],
        device=device.type,
        optimizer=train.optimizer,
        schedule=train.schedule,
        warmup_steps=train.warmup_steps,
        recompute=_recomputed(run),
        start=start,
        quantize=run.quantize,
        double_quantization=run.double_quantization is not False,
    )
