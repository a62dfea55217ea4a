"""The command line: one verb per room. Imports stand inside the verbs, so that --help is quick."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pronk import __version__
from pronk.errors import PronkError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="pronk",
    help="Fine-tune Llama models on the GPU you have, and know whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
bench = typer.Typer(help="Measure pronk against other tools on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, e.g. train.epochs=3."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write; a new folder by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

Gpu = Annotated[
    str | None,
    typer.Option("--gpu", metavar="SIZE", envvar="PRONK_GPU_MEMORY", help="A GPU's memory, e.g. 24GB: use no more."),
]


@app.command()
def demo(out: Out = None, overrides: Set = None, as_json: Json = False) -> None:
    """Fine-tune the embedded model on the embedded headlines, and report."""
    from importlib.resources import as_file, files

    with as_file(files("pronk.data") / "samples") as samples:
        _run(samples / "demo.yaml", overrides, out, "demo", as_json)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Out = None,
    overrides: Set = None,
    as_json: Json = False,
    copy_to: Annotated[
        Path | None,
        typer.Option("--copy-to", metavar="DIR", help="Copy the study there as it grows, e.g. to a mounted drive."),
    ] = None,
    gpu: Gpu = None,
) -> None:
    """Train all runs of a recipe, evaluate them with their base, compare, and report."""
    _run(recipe, overrides, out, f"studies/{recipe.stem}", as_json, copy_to, gpu)


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    gpu: Gpu = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Will it fit? Memory, speed and the setting to train with, on this GPU or one of another size."""
    from pronk.model.memory.sizes import read_size
    from pronk.recipe import read_recipe

    size = None if gpu is None else read_size(gpu)
    checked = read_recipe(recipe, overrides or [])
    from pronk import pipeline
    from pronk.doctor.planned import as_json as plain
    from pronk.doctor.planned import table

    fits = pipeline.plan(checked, size, _console())
    _print_table({"json": plain(fits), "markdown": table(fits)}, as_json)
    if any(fit.chosen is None for fit in fits):
        sys.exit(1)


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Should I fine-tune at all? The base on the validation rows, untrained."),
    ] = False,
    shots: Annotated[
        str | None,
        typer.Option(metavar="0,2,4,8", help="With --baseline: numbers of examples in the prompt."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --baseline: an OpenAI-compatible server to measure too."),
    ] = None,
    against_model: Annotated[
        str | None,
        typer.Option("--against-model", metavar="NAME", help="Its model. The key is read from PRONK_API_KEY."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="With --baseline: where to write the result.")
    ] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """What the untouched base can do, before anything is trained."""
    from pronk.errors import OptionError

    if not baseline:
        raise OptionError("pronk check: say --baseline")
    _baseline(recipe, shots, (against, against_model), out, overrides, as_json)


@app.command()
def doctor(
    base: Annotated[
        str, typer.Option("--base", metavar="BASE", help="Look whether this base may be read, e.g. a gated hub id.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Look at this machine: Python, PyTorch, GPU, libraries, folders, hub; a remedy for everything that fails."""
    import json

    from pronk.doctor.health import examination, finding

    lines = examination.examine(base, _console())
    found = finding.as_json(lines)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        examination.show(lines, _console(stderr=False))
    if not found["ok"]:
        sys.exit(1)


@app.command()
def inspect(
    target: Annotated[str, typer.Argument(metavar="BASE|RUN", help="A base, a run's folder, or a recipe.")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Modules with class, type, shape, rank and bytes: what is quantized, what is trained, what is saved."""
    from pronk.doctor import inspection

    found = inspection.inspect(target, overrides or [])
    _print_table({"json": found.to_json(), "markdown": inspection.table(found)}, as_json)


@app.command()
def generate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="RUN|BASE…", help="Run folders, study folders, PEFT adapters or bases, in any number."),
    ],
    questions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="A .txt file (a question a line), a .jsonl file (question, input), a text, or korean: six samples. "
            "Again for more.",
            show_default="six samples, in English",
        ),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Add the base of the runs.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Draw tokens; 0 takes the likeliest one each time.", show_default="0.0")
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The same as --temperature 0.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many likeliest tokens.", show_default="all")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest of this probability together.", show_default="1.0")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer.", show_default="256")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End an answer here. Again for more.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the drawing.", show_default="42")] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="How a base is asked, as in recipes.", show_default="chat if it has a template, else alpaca"),
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Write the answers here.")] = None,
    as_json: Json = False,
) -> None:
    """Ask runs and bases the same questions, side by side in one batch."""
    from pronk import ask
    from pronk.errors import OptionError

    if greedy and temperature:
        raise OptionError(f"--greedy and --temperature {temperature:g} contradict each other: leave one of them out")
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    given = {**drawing, "max_new_tokens": max_new_tokens, "stop": stop or None}
    settings = {key: value for key, value in given.items() if value is not None}
    try:
        answered = ask.generate(models, questions, base, prompt, overrides or [], settings, out, _console())
    except KeyboardInterrupt:
        answered = None
    if answered is None or (answered.interrupted and not answered.answers):
        _say("interrupted; nothing was answered")
        sys.exit(130)
    if as_json:
        print(ask.as_json(answered))
    else:
        ask.show(answered, _console(stderr=False))
    if answered.interrupted:
        _say(f"interrupted; {len(answered.answers)} answers are kept{f' in {out}' if out else ''}")
        sys.exit(130)


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="A study folder.")],
    as_json: Json = False,
) -> None:
    """Compare a study's runs anew and write its report.html. Needs neither torch nor the base model."""
    from pronk import pipeline
    from pronk.runs import StudyFolder

    page = pipeline.report(study)
    _show(StudyFolder.open(study), page, as_json)


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
    _print_table(bench_training(request, _console()), as_json)


@bench.command("fleet")
def bench_fleet(
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
        result = bench_fleet_training(request, runs, single_lengths, _console())
    elif recipe is None or base_shape or lengths or peers:
        raise OptionError("bench fleet: whole studies need a recipe; shapes, lengths and peers are for --training-only")
    else:
        result = bench_fleets(recipe, changed, _console())
    _print_table(result, as_json)


def _overrides(given: list[str] | None, quantize: str | None, recompute: str | None) -> list[str]:
    short = {"quantize": quantize, "train.recompute": recompute}
    return [*(given or []), *(f"{key}={value}" for key, value in short.items() if value is not None)]


def _peers(text: str | None) -> list[str] | None:
    return None if text is None else [name for name in text.split(",") if name not in ("", "none")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(f"pronk {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; what a person can mend is one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "…" gets a "?", not a traceback
    from pronk.model.memory.sizes import steady_allocator

    steady_allocator()
    try:
        app(prog_name="pronk")
    except PronkError as error:
        _say(f"pronk: {error}", style="red")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # whoever read our output has left; Python would complain once more while flushing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(
    recipe: Path, overrides: list[str] | None, out: Path | None, stem: str, as_json: bool,
    copy_to: Path | None = None, gpu: str | None = None,
) -> None:  # fmt: skip
    from pronk.model.memory.sizes import read_size
    from pronk.recipe import read_recipe
    from pronk.runs import new_folder

    size = None if gpu is None else read_size(gpu)
    checked = read_recipe(recipe, overrides or [])
    from pronk import pipeline

    try:
        folder, interrupted = pipeline.run_study(checked, out or new_folder(stem), _console(), copy_to, size)
    except KeyboardInterrupt:
        _say("interrupted; nothing was trained, so nothing is kept")
        sys.exit(130)
    if interrupted:
        _say(f"interrupted; what was trained is saved in {folder.path}")
        sys.exit(130)
    _show(folder, folder.path / "report.html", as_json)
    runs = [run for run in folder.read()["runs"] if not run["baseline"]]
    if all(run["status"] == "failed" for run in runs):
        _say("no run came to its end; the report says why")
        sys.exit(1)


def _baseline(
    recipe: Path, shots: str | None, against: tuple[str | None, str | None], out: Path | None,
    overrides: list[str] | None, as_json: bool,
) -> None:  # fmt: skip
    import json

    from pronk.doctor.baseline import check_baseline
    from pronk.recipe import read_recipe

    given = [*(overrides or []), *([] if shots is None else [f"baseline.shots=[{shots}]"])]
    path = out or Path(f"{recipe.stem}-baseline.json")
    record = check_baseline(read_recipe(recipe, given), *against, path, _console())
    from pronk.compare.baseline import baseline_table

    print(json.dumps(record, indent=2, ensure_ascii=False) if as_json else baseline_table(record))
    _say(f"written to {path}")


def _show(folder: Any, page: Path, as_json: bool) -> None:
    """The ranking and the verdicts in the terminal, or all of study.json."""
    import json

    from pronk.compare.terminal import terminal_summary

    study = folder.read()
    if as_json:
        print(json.dumps(study, indent=2, ensure_ascii=False))
        return
    print(terminal_summary(study))
    print(f"report: {page}")


def _print_table(result: dict[str, Any], as_json: bool) -> None:
    """A table or JSON; why a bench's side has no ratio goes to stderr, and ends the command with 1."""
    import json

    print(json.dumps(result["json"], indent=2) if as_json else result["markdown"])
    problems = result.get("problems", ())
    for problem in problems:
        _say(problem, style="red")
    if problems:
        sys.exit(1)


def _say(line: str, style: str | None = None) -> None:
    from pronk.train.progress import say

    say(_console(), line, style)


def _console(stderr: bool = True) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)
