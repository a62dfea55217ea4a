"""--copy-to: whole copies, a check before training, and a drive that comes and goes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pronk.errors import StudyError
from pronk.runs import StudyFolder, write_folder, write_text
from pronk.train import mirror as module
from pronk.train.mirror import Mirror


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder.create(tmp_path / "here" / "study")
    checkpoint(folder, 3)
    folder.run("tuned").log({"step": 3})
    write_text(folder.run("tuned").path / "tensorboard" / "events", "grows")
    return folder


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    (tmp_path / "drive").mkdir()
    return tmp_path / "drive"


def checkpoint(study: StudyFolder, step: int, text: str = "") -> None:
    def fill(path: Path) -> None:
        (path / "adapter.safetensors").write_text(f"adapter {step}{text}")
        (path / "optimizer.safetensors").write_text(f"optimizer {step}{text}")

    write_folder(study.run("tuned").checkpoint(step), fill)


def begin(study: StudyFolder, drive: Path) -> tuple[Mirror, list[str]]:
    told: list[str] = []
    return Mirror(drive, study.path, told.append), told


def without_tensorboard(found: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in found.items() if "tensorboard" not in name}


def test_the_copy_follows_the_study(study: StudyFolder, drive: Path) -> None:
    mirror, told = begin(study, drive)
    mirror.copy_runs([study.run("tuned"), study.run("not-begun")])
    assert files(drive / "study") == without_tensorboard(files(study.path))
    checkpoint(study, 6)
    study.run("tuned").log({"step": 6})
    shutil.rmtree(study.run("tuned").checkpoint(3))  # train.keep
    write_folder(study.run("tuned").adapter, lambda path: (path / "weights").write_text("w") and None)
    mirror.copy_runs([study.run("tuned")])
    assert files(drive / "study") == without_tensorboard(files(study.path))
    write_text(study.path / "report.html", "report")
    mirror.copy_all(study)
    assert files(drive / "study") == without_tensorboard(files(study.path))
    assert told == []


def test_a_checkpoint_written_again_is_copied_again(study: StudyFolder, drive: Path) -> None:
    mirror, _ = begin(study, drive)
    mirror.copy_all(study)
    checkpoint(study, 3, ", again")
    mirror.copy_all(study)
    assert files(drive / "study") == without_tensorboard(files(study.path))


def test_what_is_there_is_not_copied_twice(study: StudyFolder, drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, _ = begin(study, drive)
    mirror.copy_all(study)
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied again"))
    mirror.copy_all(study)


@pytest.mark.parametrize("number", range(1, 12))
def test_a_copy_that_breaks_off_leaves_nothing_half(
    study: StudyFolder, drive: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The drive dies in the middle of the number-th copy; later it is back, and all is made good."""
    mirror, told = begin(study, drive)
    mirror.copy_all(study)
    checkpoint(study, 3, ", again")
    checkpoint(study, 6)
    original, calls = shutil.copyfile, [0]

    def dying(source: Path, target: Path) -> Any:
        calls[0] += 1
        if calls[0] == number:
            target.write_text(source.read_text()[:3])
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(source, target)

    monkeypatch.setattr(shutil, "copyfile", dying)
    mirror.copy_all(study)
    for folder in (drive / "study" / "runs" / "tuned" / "checkpoints").glob("step-*"):
        step = folder.name.removeprefix("step-")
        old = {f"{part}.safetensors": f"{part} {step}" for part in ("adapter", "optimizer")}
        assert files(folder) in (old, {name: f"{text}, again" for name, text in old.items()})
    monkeypatch.undo()
    mirror.copy_all(study)
    assert files(drive / "study") == without_tensorboard(files(study.path))
    assert len(told) in (0, 2)


def test_a_drive_that_vanishes_is_told_of_once_and_tried_again(study: StudyFolder, drive: Path) -> None:
    mirror, told = begin(study, drive)
    mirror.copy_all(study)
    drive.rename(drive.with_name("unplugged"))
    drive.mkdir()  # what is left of a mount point
    checkpoint(study, 6)
    mirror.copy_all(study)
    mirror.copy_all(study)
    assert list(drive.iterdir()) == []
    assert len(told) == 1
    assert "training goes on, and the next checkpoint tries again" in told[0]
    drive.rmdir()
    drive.with_name("unplugged").rename(drive)
    mirror.copy_all(study)
    assert files(drive / "study") == without_tensorboard(files(study.path))
    assert "everything missed is copied" in told[1]


def test_what_cannot_work_is_said_before_training(study: StudyFolder, drive: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such folder; mount the drive"):
        begin(study, tmp_path / "nowhere")
    with pytest.raises(StudyError, match="that is where the study itself is written"):
        begin(study, study.path.parent)
    (drive / "study").mkdir()
    (drive / "study" / "mine").write_text("")
    with pytest.raises(StudyError, match="study is there already"):
        begin(study, drive)


def test_a_drive_that_cannot_be_written_is_refused(
    study: StudyFolder, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(StudyError, match=r"--copy-to .*drive: cannot be written \(Read-only file system\)"):
        begin(study, drive)


def _in_place(source: Path, target: Path) -> None:
    """The planted fault: copies under the final name from the start."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)


def test_copying_in_place_shows(study: StudyFolder, drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check: Callable[..., None] = test_a_copy_that_breaks_off_leaves_nothing_half
    monkeypatch.setattr(module, "_copy_unit", _in_place)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError):
        check(study, drive, patch, 3)
