"""How far what was exported may differ from the run that it came from, and why just so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from pronk.errors import OptionError

# exact: the same numbers in another program. rounded: weights in bf16 or f16. quantized: 8 bits. coarse: fewer.
# rebased: on the published base, where the run was trained on it in fewer bits.
Class = Literal["exact", "rounded", "quantized", "coarse", "rebased"]


@dataclass(frozen=True)
class Tolerance:
    """The most that the gate lets pass.

    kl, worst: of the next-token distributions, in nats: the mean over all places that are read, and the largest. top1:
    at least this share of answer tokens has the same likeliest token before it. loss: nats per answer token more than
    before, and metric: what the recipe's metric may lose, each as far as it is beyond chance.
    """

    kl: float
    worst: float
    top1: float
    loss: float
    metric: float

    def scaled(self, factor: float) -> Tolerance:
        """All limits so many times as wide."""
        wide = {part.name: getattr(self, part.name) * factor for part in fields(self)}
        return Tolerance(**wide | {"top1": max(0.0, 1 - (1 - self.top1) * factor)})


# Seen of sound files, SmolLM2 on labelled headlines in fp32 on a CPU (mean and largest KL, loss): exact 2e-8, 2e-7, 0;
# rounded 2e-4, 1e-3, 0.007 (over NF4 4e-5); rebased from NF4 0.05, top-1 81%, and a lower loss. In bf16, logits around
# 20 are known to 1/16, which alone makes about 1e-3 nats: hence the room above. A wrong scale, layer or tensor is 0.03
# and more off even in a model of two layers. Who rebases makes another model on purpose: that it is not worse decides.
DEFAULTS: dict[Class, Tolerance] = {
    "exact": Tolerance(kl=0.002, worst=0.05, top1=0.98, loss=0.01, metric=0.01),
    "rounded": Tolerance(kl=0.01, worst=0.3, top1=0.97, loss=0.03, metric=0.01),
    "quantized": Tolerance(kl=0.02, worst=0.5, top1=0.95, loss=0.05, metric=0.02),
    "coarse": Tolerance(kl=0.2, worst=4.0, top1=0.85, loss=0.1, metric=0.05),
    "rebased": Tolerance(kl=0.5, worst=8.0, top1=0.6, loss=0.03, metric=0.01),
}
NAMES = tuple(part.name for part in fields(Tolerance))


@dataclass(frozen=True)
class Limits:
    """The defaults, all so many times as wide, and single limits in place of theirs for every class."""

    factor: float = 1.0
    given: tuple[tuple[str, float], ...] = ()

    def of(self, kind: Class) -> Tolerance:
        """The limits that files of a class are held to."""
        return replace(DEFAULTS[kind].scaled(self.factor), **dict(self.given))


def read_limits(given: Sequence[str]) -> Limits:
    """Limits from `--tolerance`: a number widens (or narrows) all of them, `kl=0.05` sets one. Raises OptionError."""
    factor, named = 1.0, {}
    for one in given:
        name, equals, text = one.rpartition("=")
        value = _number(text)
        if value is None or (equals and name not in NAMES):
            raise OptionError(
                f"--tolerance {one}: expected a number that widens all limits, such as 2, or one limit by its name, "
                f"such as kl=0.05 ({', '.join(NAMES)})"
            )
        if equals:
            named[name] = value
        else:
            factor = value
    return Limits(factor, tuple(named.items()))


def as_record(limits: Tolerance) -> dict[str, float]:
    """The limits for export.json."""
    return asdict(limits)


def _number(text: str) -> float | None:
    """A number from 0 on; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
