"""The study folder: what is written where, whole or not at all.

DIR/study.json            runs, comparisons, data and environment
DIR/items.jsonl           the test items: id, input, reference, label
DIR/report.html
DIR/runs/NAME/            recipe.yaml · metrics.jsonl · validation.jsonl · best.json
                          items/ · adapter/ or model/ · checkpoints/ · tensorboard/
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pronk.errors import PronkError, ResourceError, StudyError

WEIGHT_FOLDERS = ("adapter", "model")  # of a run that is done: what it trained, an adapter or the whole model
_FULL = (errno.ENOSPC, errno.EDQUOT)


class RunFolder:
    """One run's folder inside a study."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def weights(self) -> Path | None:
        """The folder of what the run trained; None where it has not come to its end."""
        return next((self.path / name for name in WEIGHT_FOLDERS if (self.path / name).is_dir()), None)

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step}"

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self._append("metrics.jsonl", record)

    def log_validation(self, step: int, epoch: float, tokens: Iterable[int], losses: Iterable[float]) -> None:
        """Append one line to validation.jsonl: target tokens and summed nats of each validation row at a step."""
        rounded = [float(f"{loss:.6g}") for loss in losses]
        self._append("validation.jsonl", {"step": step, "epoch": epoch, "tokens": list(tokens), "losses": rounded})

    def write_best(self, step: int, epoch: float, loss: float, checkpoint: Path) -> None:
        """Say in best.json where the weights with the lowest validation loss lie; they are whole by then."""
        place = os.path.relpath(checkpoint, self.path)
        best = {"step": step, "epoch": epoch, "validation_loss": loss, "checkpoint": place}
        write_text(self.path / "best.json", json.dumps(best, indent=2) + "\n")

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_items(self, evaluation: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the item results of an evaluation."""
        write_text(self.path / "items" / f"{evaluation}.jsonl", _lines(records))


class StudyFolder:
    """A study's folder; made by `create`, found by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> StudyFolder:
        """A new folder. Raises StudyError if the path is taken."""
        try:
            if path.is_dir() and any(path.iterdir()):
                raise StudyError(f"{path}: this folder is not empty; choose another --out, or move it away first")
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError):
            raise StudyError(
                f"{path}: no folder can be made here: part of the path is a file; choose another --out"
            ) from None
        return cls(path)

    def discard_unless_trained(self) -> None:
        """Take the folder away again, unless some run has a checkpoint or is done."""
        kept = ("runs/*/checkpoints/step-*", *(f"runs/*/{name}" for name in WEIGHT_FOLDERS))
        if not any(next(self.path.glob(pattern), None) for pattern in kept):
            shutil.rmtree(self.path, ignore_errors=True)

    @classmethod
    def open(cls, path: Path) -> StudyFolder:
        """An existing folder. Raises StudyError if it holds no study."""
        if not (path / "study.json").is_file():
            raise StudyError(f"{path}: there is no study.json here; name the folder that `pronk run` wrote")
        return cls(path)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.path / "runs" / name)

    def read(self) -> dict[str, Any]:
        """study.json. Raises StudyError if it is not what pronk writes."""
        file = self.path / "study.json"
        try:
            study = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StudyError(f"{file}: cannot be read ({error})") from None
        if not isinstance(study, dict) or not isinstance(study.get("runs"), list):
            raise StudyError(f"{file}: not a study of pronk's: it has no list of runs")
        return study

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Read, change and write study.json and the report in here: others wait until it is done."""
        with disk_guard(self.path), one_writer(self.path / "study.json", wait=True):
            yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Be the only process that measures the runs, which may take hours; what is short goes on beside it. Raises
        StudyError where another one does."""
        with disk_guard(self.path), one_writer(self.path / "runs"):
            yield

    def write(self, study: Mapping[str, Any]) -> None:
        """Write study.json."""
        write_text(self.path / "study.json", json.dumps(study, indent=2, ensure_ascii=False) + "\n")

    def write_items(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the test items, which all runs share."""
        write_text(self.path / "items.jsonl", _lines(records))

    def read_items(self) -> list[dict[str, Any]]:
        """The test items."""
        with (self.path / "items.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def new_study(name: str, labels: Iterable[str], rows: Mapping[str, int], truncated: int) -> dict[str, Any]:
    """study.json before anything has run. rows: how many rows went where."""
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": list(labels),
        "data": {**rows, "truncated_answers": truncated},
        "runs": [],
        "comparisons": [],
        "environment": {},
    }


def new_folder(stem: str, parent: Path | None = None) -> Path:
    """A path that is free: stem, else stem-2, stem-3, …"""
    parent = parent or Path()
    path, number = parent / stem, 1
    while path.exists():
        number += 1
        path = parent / f"{stem}-{number}"
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        # with the permissions of any file of the user's
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write into a folder that appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        fill(aside)
        aside.chmod(0o755)
        if path.exists():
            before = aside.with_name(f"{aside.name}-before")
            os.replace(path, before)
            try:
                aside.rename(path)
            except BaseException:
                os.replace(before, path)
                raise
            shutil.rmtree(before)
        else:
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Delete a folder; whenever that breaks off, nothing half is left under its name."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        os.replace(path, aside / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def disk_guard(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder, met anywhere inside, into one message about it."""
    try:
        yield
    except PronkError:
        raise
    except Exception as error:
        number = getattr(error, "errno", None)
        # safetensors and tokenizers report a full disk as errors of their own, with the system's words
        if number in _FULL or "os error 28" in str(error) or os.strerror(errno.ENOSPC) in str(error):
            free = shutil.disk_usage(existing(path)).free
            raise ResourceError(
                f"{path}: no space left on this disk ({free / 2**20:,.0f} MiB free); free some, or write elsewhere"
            ) from None
        if number in (errno.EACCES, errno.EROFS, errno.EPERM):
            named = getattr(error, "filename", None) or path
            raise ResourceError(f"{named}: not allowed to write here; write elsewhere") from None
        raise


@contextmanager
def one_writer(path: Path, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes a file while this lasts. Others wait their turn, or are told that it is taken.

    The lock is the system's, on the file `.NAME.lock` beside it: it ends with the process that holds it, however that
    ends, so that what a crash leaves behind keeps nobody out. Where there are no such locks (Windows, some network
    disks) nothing is locked. Raises StudyError where another process writes and wait is false.
    """
    lock, made = path.with_name(f".{path.name}.lock"), _missing_folders(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(path, lock, wait):
            yield
    finally:
        for folder in made:  # as long as nothing was written there
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(path: Path, lock: Path, wait: bool) -> Iterator[None]:
    while True:
        with lock.open("a+", encoding="utf-8") as file:
            if not _take(file, wait):
                file.seek(0)
                number = file.read().strip()
                which = f" (process {number})" if number else ""
                raise StudyError(f"{path}: another pronk is writing this{which}; wait until it ends, or end it")
            if not _still_there(file, lock):
                continue  # whoever had it has deleted it; the file of that name is another one now
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                with suppress(OSError):  # Windows deletes nothing that is open
                    lock.unlink()
            return


def _take(file: Any, wait: bool) -> bool:
    """Whether the file is locked for us now; also where there are no locks."""
    with suppress(ImportError):  # on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # a network disk without locks
            return True
    return True


def _still_there(file: Any, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    except FileNotFoundError:
        return False


def _missing_folders(folder: Path) -> list[Path]:
    """A folder and those above it, as far as they are not there, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def existing(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
