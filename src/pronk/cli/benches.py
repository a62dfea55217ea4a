"""`pronk bench`: measure pronk against other tools on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pronk.cli.shared import Json, Set, console, print_table

bench = typer.Typer(help="Measure pronk against other tools on this machine.", no_args_is_help=True)

Shape = Annotated[
    str | None,
    typer.Option(
        "--base-shape", help="Instead of a recipe: a base of these sizes with random weights, e.g. llama3-8b."
    ),
]
Kept = Annotated[
    Path | None, typer.Option("--base-folder", metavar="DIR", help="Where that base is written once and found again.")
]
LengthsOf = Annotated[
    str | None,
    typer.Option("--lengths", help="Sequences × tokens of a step, e.g. 4x2048; 16x80:4 learns the last 4; alpaca."),
]
Quantized = Annotated[str | None, typer.Option("--quantize", help="Short for --set quantize=…")]
Recomputed = Annotated[str | None, typer.Option("--recompute", help="Short for --set train.recompute=…")]
Peers = Annotated[
    str | None,
    typer.Option("--peers", help="Comma-separated: trl, trl+liger, unsloth; none; all that are installed by default."),
]
Layout = Annotated[str, typer.Option("--layout", help="How other tools lay out a batch: padded or packed.")]
Timeout = Annotated[int, typer.Option("--timeout", help="Seconds after which a side's process is given up.")]


@bench.command("train")
def bench_train(
    data: Annotated[Path | None, typer.Argument(help="A recipe whose data and settings are measured.")] = None,
    base_shape: Shape = None,
    base_folder: Kept = None,
    lengths: LengthsOf = None,
    quantize: Quantized = None,
    recompute: Recomputed = None,
    peers: Peers = None,
    layout: Layout = "padded",
    variants: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="NAME:KEY=VALUE", help="Other settings of ours to measure beside."),
    ] = None,
    token_budget: Annotated[
        int, typer.Option(min=0, help="Tokens of pronk's micro-batches; fewer take less memory.", show_default="usual")
    ] = 0,
    steps: Annotated[int, typer.Option(help="Steps that are timed, after three that are not.")] = 12,
    timeout: Timeout = 900,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """One run's training step against other tools': same base, data, rank, targets, batch and dtype."""
    from pronk.doctor.bench import bench_training
    from pronk.doctor.bench_work import Request

    request = Request(
        data, base_shape, base_folder, lengths, _overrides(overrides, quantize, recompute), variants or [],
        _peers(peers), layout, steps, timeout, token_budget,
    )  # fmt: skip
    print_table(bench_training(request, console()), as_json)


# What whole studies take from the recipe, or have no use for.
TRAINING_ONLY = (
    "runs", "single_lengths", "base_shape", "base_folder", "lengths", "peers", "layout", "steps", "timeout",
)  # fmt: skip


@bench.command("fleet")
def bench_fleet(
    context: typer.Context,
    recipe: Annotated[Path | None, typer.Argument(help="A recipe with a study of several runs.")] = None,
    training_only: Annotated[
        bool, typer.Option("--training-only", help="Steps of a fleet of equal runs instead, and of other tools.")
    ] = False,
    runs: Annotated[int, typer.Option("--runs", help="With --training-only: runs in the fleet.")] = 8,
    single_lengths: Annotated[
        str | None, typer.Option("--single-lengths", help="With --training-only: lengths of the single run's steps.")
    ] = None,
    base_shape: Shape = None,
    base_folder: Kept = None,
    lengths: LengthsOf = None,
    quantize: Quantized = None,
    recompute: Recomputed = None,
    peers: Peers = None,
    layout: Layout = "padded",
    steps: Annotated[int, typer.Option(help="With --training-only: steps that are timed, after three.")] = 12,
    timeout: Timeout = 900,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """A study as one fleet against its runs one by one, each from command to report; or steps of training alone."""
    from pronk.doctor.bench_fleet import bench_fleet_training, bench_fleets
    from pronk.doctor.bench_work import Request
    from pronk.errors import OptionError

    changed = _overrides(overrides, quantize, recompute)
    if training_only:
        request = Request(
            recipe, base_shape, base_folder, lengths, changed, [], _peers(peers), layout, steps, timeout
        )  # fmt: skip
        result = bench_fleet_training(request, runs, single_lengths, console())
    elif foreign := _given(context, TRAINING_ONLY):
        raise OptionError(f"bench fleet: only with --training-only: {', '.join(foreign)}; add it, or leave these out")
    elif recipe is None:
        raise OptionError("bench fleet: expected a recipe with a study of several runs, or --training-only")
    else:
        result = bench_fleets(recipe, changed, console())
    print_table(result, as_json)


def _given(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Those of a command's options that were written on the command line, as they are written there."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [f"--{name.replace('_', '-')}" for name, source in sources.items() if source and source.name != "DEFAULT"]


def _overrides(given: list[str] | None, quantize: str | None, recompute: str | None) -> list[str]:
    short = {"quantize": quantize, "train.recompute": recompute}
    return [*(given or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]


def _peers(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name not in ("", "none")]
