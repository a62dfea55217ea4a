"""`pronk eval`: what was trained, and any base, measured afterwards.

    asked.py      what was asked for
again.py      a study's own runs on its own test items, into the study itself
elsewhere.py  runs of several studies, adapters, bases, other items: into a folder of their own
items.py      which items: a run's test or validation rows, or those of another file
together.py   all models over one base in one batch; `pronk run` measures here too
entries.py    what study.json says of a fleet's runs; `pronk run` writes the same
harness.py    EleutherAI's lm-eval on a base or a run, in a process of its own
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pronk.measure.asked import Asked, Part
from pronk.runs import StudyFolder, new_folder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Asked", "Part", "evaluate"]


def evaluate(asked: Asked, out: Path | None, console: Console) -> tuple[StudyFolder, bool]:
    """Measure what was asked for, into the study itself where that is all that was named, else into `out`; also
    whether the user stopped it.

    Raises PronkError, and KeyboardInterrupt where it is stopped before anything is measured.
    """
    from pronk.measure.again import measure_again
    from pronk.measure.elsewhere import measure_elsewhere

    if out is None and asked.is_one_study:
        return measure_again(asked, console)
    stem = Path(asked.data or asked.targets[0]).stem
    return measure_elsewhere(asked, out or new_folder(f"evaluations/{stem}"), console)
