"""A study's folder copied to a mounted drive while it grows: what is there is whole, or not there.

The local folder is the truth. A drive that cannot be written is told of, training goes on, and the next
checkpoint tries again; what was missed is copied then, because a copy compares whole folders.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pronk.errors import StudyError
from pronk.runs import WEIGHT_FOLDERS, RunFolder, StudyFolder

ASIDE = ".copying-"  # how names begin that are not whole yet
LEFT_OUT = ("tensorboard", "wandb")  # grow with every step; their tools have ways of their own to travel


class Mirror:
    """Copies parts of one study into DIR/STUDY.

    Raises StudyError where DIR is no folder, cannot be written, or holds another study of that name.
    """

    def __init__(self, folder: Path, study: Path, tell: Callable[[str], None]) -> None:
        self._study, self._target, self._tell = study, folder / study.name, tell
        self._reachable = True
        _check(folder, study, self._target)

    def copy_runs(self, runs: Iterable[RunFolder]) -> None:
        """Bring the copies of some runs up to date."""
        self._copy([run.path for run in runs])

    def copy_all(self, study: StudyFolder) -> None:
        """Bring everything up to date, study.json and report included."""
        self._copy([study.path])

    def _copy(self, sources: Iterable[Path]) -> None:
        try:
            if not self._target.is_dir():  # an unmounted drive leaves an empty folder: nothing must be written there
                raise FileNotFoundError(f"{self._target} is gone")
            for source in sources:
                if source.is_dir():
                    update(source, self._target / source.relative_to(self._study))
        except OSError as error:
            if self._reachable:
                self._tell(f"warning: --copy-to {self._target}: cannot be written ({error.strerror or error}); "
                           "training goes on, and the next checkpoint tries again")  # fmt: skip
            self._reachable = False
            return
        if not self._reachable:
            self._tell(f"--copy-to {self._target}: can be written again; everything missed is copied")
        self._reachable = True


def _check(folder: Path, study: Path, target: Path) -> None:
    """Find out before training whether the drive takes a study."""
    if not folder.is_dir():
        raise StudyError(f"--copy-to {folder}: there is no such folder; mount the drive, or make the folder first")
    if target.resolve() == study.resolve():
        raise StudyError(f"--copy-to {folder}: that is where the study itself is written; choose another folder")
    if target.is_dir() and any(target.iterdir()):
        raise StudyError(f"--copy-to {folder}: {target.name} is there already; choose another --out or --copy-to")
    probe = target / f"{ASIDE}probe"
    try:
        target.mkdir(exist_ok=True)
        probe.write_text("written to see whether it can be", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise StudyError(f"--copy-to {folder}: cannot be written ({error.strerror}); choose another folder") from None


def update(source: Path, target: Path) -> None:
    """Make target a copy of source; raises OSError where that fails, with every unit old or new, never half."""
    target.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in source.iterdir() if not entry.name.startswith(".")} - {*LEFT_OUT}
    for left in target.glob(f"{ASIDE}*"):  # from a copy that broke off
        _remove(left)
    for name in sorted(names):
        one, other = source / name, target / name
        if not one.is_dir():
            _copy_file(one, other)
        elif name in WEIGHT_FOLDERS or source.name == "checkpoints":
            _copy_unit(one, other)
        else:
            update(one, other)
    if source.name == "checkpoints":  # those that are no longer kept go once the newer ones are there
        for other in target.iterdir():
            if other.name not in names:
                _remove(other)


def _copy_file(source: Path, target: Path) -> None:
    if _same(source, target):
        return
    aside = target.with_name(ASIDE + target.name)
    shutil.copyfile(source, aside)
    os.replace(aside, target)


def _copy_unit(source: Path, target: Path) -> None:
    """A folder that is old or new as a whole; the old one goes only when the new one is complete."""
    files = {file.name for file in source.iterdir()}
    there = {file.name for file in target.iterdir()} if target.is_dir() else set()
    if there == files and all(_same(source / name, target / name) for name in files):
        return
    aside = target.with_name(ASIDE + target.name)
    aside.mkdir()
    for name in files:
        shutil.copyfile(source / name, aside / name)  # contents only: many drives keep no permissions
    if target.exists():
        _remove(target)
    aside.rename(target)


def _same(source: Path, target: Path) -> bool:
    """Whether the copy is as large as the original and younger."""
    if not target.is_file():
        return False
    one, other = source.stat(), target.stat()
    return one.st_size == other.st_size and one.st_mtime <= other.st_mtime


def _remove(path: Path) -> None:
    """Out of sight under its name first: a deletion that breaks off leaves nothing half."""
    if not path.name.startswith(ASIDE):
        aside = path.with_name(f"{ASIDE}{path.name}-old")
        os.replace(path, aside)
        path = aside
    shutil.rmtree(path) if path.is_dir() else path.unlink()
