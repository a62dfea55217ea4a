"""Figures of a bench: tokens a second, how much of the machine's matrix products they are, and tables of them."""

from __future__ import annotations

import importlib.metadata
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pronk.doctor.bench_work import WARM_UP
from pronk.doctor.peers.work import Result, Work
from pronk.train.order import batch_indices

PACKAGES = ("torch", "transformers", "bitsandbytes", "peft", "trl", "liger-kernel", "unsloth", "unsloth_zoo", "triton")


def tokens_per_step(work: Work) -> list[int]:
    """Real tokens of each step, of all the work's runs: all ids of its examples, no padding."""
    sizes = [len(ids) for ids, _ in work.examples]
    orders = [(work.seed + slot, step) for step in range(work.steps) for slot in range(work.runs)]
    each = [sum(sizes[i] for i in batch_indices(len(sizes), work.batch_size, *order)) for order in orders]
    return [sum(each[start : start + work.runs]) for start in range(0, len(each), work.runs)]


def speed(result: Result, work: Work) -> float:
    """Median real tokens a second over the steps after the warm-up."""
    pairs = zip(tokens_per_step(work)[WARM_UP:], result.seconds[WARM_UP:], strict=True)
    return statistics.median(count / seconds for count, seconds in pairs)


def flop_per_token(work: Work) -> float:
    """What a token costs over a frozen base, at least: 2 FLOP a weight forward and 2 backward (none for the weights'
    own gradients), over all linear layers and, as far as tokens are targets, the output head."""
    from pronk.model.load import find_base, linear_layer_sizes, load_config

    base = find_base(work.base)
    config = load_config(base)
    layers = sum(features * outputs for features, outputs in linear_layer_sizes(base).values())
    learned = sum(sum(learned) for _, learned in work.examples) / sum(len(ids) for ids, _ in work.examples)
    return 4.0 * (layers + learned * config.hidden_size * config.vocab_size)


def plain(work: Work) -> dict[str, Any]:
    """The work without what is long: for JSON."""
    short = asdict(replace(work, examples=[]))
    return {key: value for key, value in short.items() if key not in ("examples", "start", "recipe")}


def versions() -> dict[str, str]:
    """Of all that may matter to a side, as far as it is installed; nothing is imported."""
    return {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def described(work: Work, device_name: str) -> str:
    """One line: what was trained, on what."""
    lengths = [len(ids) for ids, _ in work.examples]
    batch = f"{work.batch_size} sequences of {lengths[0]:,} tokens"
    if len(set(lengths)) > 1:
        batch = f"{work.batch_size} sequences of {statistics.mean(lengths):.0f} tokens on average"
    kept = "" if work.quantize == "none" else f", base in {work.quantize}"
    recompute = {"none": "nothing", "all": "all layers", 0: "nothing"}.get(work.recompute, f"{work.recompute} layers")
    return (
        f"{work.base.rstrip('/').rsplit('/', 1)[-1]}, rank {work.rank} on {_names(work.targets)}, {work.dtype}{kept}, "
        f"{recompute} recomputed, {batch}, {device_name}, median of {work.steps - WARM_UP} steps after {WARM_UP}"
    )


def _names(targets: str | Sequence[str]) -> str:
    return targets if isinstance(targets, str) else ", ".join(targets)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def gibibytes(count: int | None) -> str:
    """Bytes for a table."""
    return "–" if count is None else f"{count / 2**30:.1f} GiB"


def divided(one: Mapping[str, float], other: Mapping[str, float], digits: int = 4) -> dict[str, dict[str, float]]:
    """Each of the one's figures over each of the other's."""
    return {mine: {its: round(a / b, digits) for its, b in other.items()} for mine, a in one.items()}
