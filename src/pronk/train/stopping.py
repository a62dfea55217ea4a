"""When a run is at its best, and when it has stopped getting better: from one validation loss after another.

Values and pure functions: what is known after an evaluation depends on the losses so far and on nothing
else. So a shorter run of the same beginning comes to the same decisions, and can share that beginning.
(Prechelt 1998, "Early stopping – but when?", LNCS 1524; the counting is that of Keras and Lightning.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Watch:
    """What the validation losses so far (nats per target token) say.

    best_step, best_loss: the lowest loss, the first of equals. reference: the last loss that counted as an
    improvement; waited: evaluations since then. stop: the rule's answer.
    """

    best_step: int | None = None
    best_loss: float = math.inf
    reference: float = math.inf
    waited: int = 0
    stop: bool = False


Rule = Callable[[Watch, int, float], Watch]


def never() -> Rule:
    """Follow the lowest loss, and train to the end."""
    return _observe


def early(patience: int, min_delta: float) -> Rule:
    """Stop after `patience` evaluations in a row none of which is lower than the last improvement by more
    than min_delta. Losses that creep down by less each time do count, once they add up."""

    def rule(watch: Watch, step: int, loss: float) -> Watch:
        seen = _observe(watch, step, loss)
        if loss < watch.reference - min_delta:
            return replace(seen, reference=loss, waited=0, stop=False)
        return replace(seen, waited=watch.waited + 1, stop=watch.waited + 1 >= patience)

    return rule


def _observe(watch: Watch, step: int, loss: float) -> Watch:
    """A loss that is no number is lower than none."""
    return replace(watch, best_step=step, best_loss=loss) if loss < watch.best_loss else watch
