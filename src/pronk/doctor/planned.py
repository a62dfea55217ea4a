"""What the planner found, in words: the table of `pronk plan`, one line before training, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pronk.data.words import counted
from pronk.model.memory.choice import Setting, alternatives, smallest
from pronk.model.memory.sizes import gib

NAMES = {"none": "not quantized", "int8": "int8", "nf4": "NF4", "fp8": "FP8"}
ROWS = 12  # of a table
NOT_CALIBRATED = "not calibrated: ±15%"


@dataclass(frozen=True)
class Fit:
    """How a fleet fits into so many bytes. chosen: None if it does not; nearest: then what would, with its peak (0
    where that is not known). quantize: the recipe's. memory: what the GPU has, of which a part is left alone.
    device: the GPU that was measured, if one was. tight: chosen takes the least, and is predicted not to fit.
    """

    base: str
    quantize: str
    runs: int
    limit: int
    memory: int
    chosen: Setting | None
    settings: tuple[Setting, ...]
    calibrated: bool
    device: str
    nearest: tuple[tuple[str, int], ...]
    tight: bool = False


def before_training(fit: Fit) -> str:
    """What is about to be used; where it may not fit, what to do then."""
    assert fit.chosen is not None
    one = fit.chosen
    basis = "" if fit.calibrated else f"; {NOT_CALIBRATED}"
    line = (
        f"memory: {gib(one.peak)} of {gib(fit.memory)} GiB predicted ({NAMES.get(one.quantize, one.quantize)}, "
        f"micro-batches of {one.budget:,} tokens, {_recomputed(one)}{basis})"
    )
    if not fit.tight:
        return line
    return f"{line}\nwarning: by this it does not fit; predictions can be too high, so it is tried\n{_what_would(fit)}"


def table(fits: Sequence[Fit]) -> str:
    """Every fleet with its choice and the alternatives, in 80 columns."""
    return "\n\n".join(_of_fleet(fit) for fit in fits)


def refusal(fit: Fit) -> str:
    """That nothing fits, and what would, the nearest first."""
    least = smallest(fit.settings)
    lines = [
        f"{fit.base} with {counted(fit.runs, 'run')} does not fit into {gib(fit.limit)} GiB",
        f"it needs at least {gib(least.peak)} GiB: {NAMES.get(least.quantize, least.quantize)}, "
        f"micro-batches of {least.budget:,} tokens,",
        _recomputed(least) + ("" if fit.calibrated else f" ({NOT_CALIBRATED})"),
    ]
    return "\n".join([*lines, _what_would(fit)])


def _what_would(fit: Fit) -> str:
    changes = [f"  {what}" + (f" (about {gib(peak)} GiB)" if peak else "") for what, peak in fit.nearest]
    head = "what would fit:" if changes else "no change of one setting would make it fit"
    return "\n".join([head, *changes, "  a smaller base, or fewer runs in one study"])


def as_json(fits: Sequence[Fit]) -> dict[str, Any]:
    """Everything that the table says, and more exactly."""
    return {"fits": all(fit.chosen is not None for fit in fits), "fleets": [_json(fit) for fit in fits]}


def _json(fit: Fit) -> dict[str, Any]:
    return {
        "base": fit.base,
        "runs": fit.runs,
        "usable_bytes": fit.limit,
        "calibrated": fit.calibrated,
        "device": fit.device or None,
        "chosen": None if fit.chosen is None else _setting(fit.chosen),
        "alternatives": [_setting(one) for one in alternatives(fit.settings, fit.limit)],
        "would_fit": [{"change": what, "peak_bytes": peak or None} for what, peak in fit.nearest],
    }


def _setting(one: Setting) -> dict[str, Any]:
    plain = asdict(one)
    cost, measured = plain.pop("cost"), plain.pop("measured")
    return {**plain, "seconds": cost if measured else None, "flops": None if measured else cost}


def _of_fleet(fit: Fit) -> str:
    where = f"measured on {fit.device}" if fit.calibrated else NOT_CALIBRATED
    head = f"{fit.base}, {counted(fit.runs, 'run')}\n{gib(fit.limit)} GiB can be used ({where})"
    if fit.chosen is None:
        return f"{head}\n\n" + "\n".join(_table(fit)) + f"\n\n{refusal(fit)}"
    notes = [f"→ {_recomputed(fit.chosen)}; evaluation in batches of {fit.chosen.evaluation_tokens:,} tokens"]
    if fit.chosen.evaluation_tokens is None:
        notes = [f"→ {_recomputed(fit.chosen)}"]
    if not fit.chosen.measured:
        notes.append("speed: relative, from FLOP counts alone; no GPU has measured it")
    if fit.chosen.quantize != fit.quantize:
        notes.append(f"to run it so: --set quantize={fit.chosen.quantize}")
    return "\n".join([head, "", *_table(fit), "", *notes])


def _table(fit: Fit) -> list[str]:
    rows = [["", "quantize", "micro-batch", "recomputed", "speed", "training", "peak"]]
    shown = sorted(alternatives(fit.settings, fit.limit), key=lambda one: (one.peak > fit.limit, one.rank))
    fastest = min(one.cost for one in fit.settings)
    for one in shown[:ROWS]:
        fits = one.peak <= fit.limit
        rows.append(
            [
                "→" if one == fit.chosen else "", one.quantize, f"{one.budget:,}",
                f"{one.recompute} of {one.layers}", _speed(one, fastest), _duration(one),
                f"{gib(one.peak)} GiB" + ("" if fits else " ✗"),
            ]
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        texts = [cell.ljust(width) if at < 2 else cell.rjust(width) for at, (cell, width) in enumerate(cells)]
        lines.append("  ".join(texts).rstrip())
    return lines


def _recomputed(one: Setting) -> str:
    if one.recompute == 0:
        return "no layer recomputed"
    if one.recompute == one.layers:
        return "all layers recomputed"
    return f"{one.recompute} of {one.layers} layers recomputed"


def _speed(one: Setting, fastest: float) -> str:
    if one.tokens_per_second is not None:
        return f"{one.tokens_per_second:,.0f} tok/s"
    return f"{100 * fastest / one.cost:.0f}%" if one.cost else ""


def _duration(one: Setting) -> str:
    """Time of the training; nothing where nobody has measured it."""
    if not one.measured:
        return "–"
    seconds = round(one.cost)
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
