"""Which checkpoints stay. One is deleted only after a newer one is whole on the disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def superfluous(saved: Sequence[int], regular: Collection[int], best: Collection[int], keep: int | None) -> set[int]:
    """The steps whose checkpoints may go.

    saved: steps on the disk, rising. regular: those that were due by save_every; the others were saved for
    being the best of their time. best: the best steps today, one for each run that this training stands for.
    keep: how many of the newest regular ones stay; None: all. The newest of all stays in any case.
    """
    due = [step for step in saved if step in regular]
    staying = {*best, *saved[-1:], *(due if keep is None else due[-keep:])}
    return set(saved) - staying
