"""Files and folders of a study appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pronk.errors import ResourceError, StudyError
from pronk.runs import RunFolder, StudyFolder, disk_guard, new_folder, write_folder, write_text


class BreakError(Exception):
    """Stands for anything that goes wrong in the middle."""


def breaks(*_: object, **__: object) -> None:
    raise BreakError


@pytest.mark.parametrize("place", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_text_that_breaks_off_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, old: str | None
) -> None:
    path = tmp_path / "study.json"
    if old:
        path.write_text(old)
    monkeypatch.setattr(os, place, breaks)
    with pytest.raises(BreakError):
        write_text(path, "new")
    monkeypatch.undo()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({"study.json": "old"} if old else {})


def test_a_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a character: \ud83d")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_text_is_written_with_its_folders_and_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    before = os.umask(0o022)
    try:
        write_text(path, "Grüße, 라마\n")
        write_text(path, "twice: Grüße, 라마\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == "twice: Grüße, 라마\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_only_when_it_is_full(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "adapter"

    def fill(aside: Path) -> None:
        assert not path.exists()
        (aside / "one").write_text("1")
        assert not path.exists()

    write_folder(path, fill)
    assert [file.name for file in path.iterdir()] == ["one"]
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_folder_that_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    write_folder(path, lambda aside: (aside / "one").write_text("old") and None)

    def fill(aside: Path) -> None:
        (aside / "one").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(path, fill)
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("one", "old")]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    write_folder(path, lambda aside: (aside / "old").write_text("old") and None)
    write_folder(path, lambda aside: (aside / "new").write_text("new") and None)
    assert [file.name for file in path.iterdir()] == ["new"]


def test_a_folder_whose_renaming_breaks_off_is_there_in_one_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "adapter"
    write_folder(path, lambda aside: (aside / "one").write_text("old") and None)
    monkeypatch.setattr(Path, "rename", breaks)
    with pytest.raises(BreakError):
        write_folder(path, lambda aside: (aside / "one").write_text("new") and None)
    assert (path / "one").read_text() in ("old", "new")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "not allowed"),
        (errno.EROFS, "not allowed"),
    ],
)
def test_a_full_or_forbidden_disk_is_one_message(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(ResourceError, match=words) as caught, disk_guard(tmp_path / "not" / "yet"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in str(caught.value)


def test_other_errors_pass_the_guard(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), disk_guard(tmp_path):
        raise OSError(errno.EIO, "odd")


def test_a_study_takes_no_folder_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(StudyError, match="not empty"):
        StudyFolder.create(tmp_path)
    with pytest.raises(StudyError, match=r"no study\.json"):
        StudyFolder.open(tmp_path)
    assert StudyFolder.create(tmp_path / "new").path.is_dir()


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path / "s")
    study = {"name": "라마", "runs": [{"name": "base"}]}
    folder.write(study)
    assert StudyFolder.open(folder.path).read() == study
    items = [{"id": "0", "input": "two\nlines\u2028and more"}, {"id": "1", "input": ""}]
    folder.write_items(items)
    assert folder.read_items() == items


def test_metrics_are_appended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "tuned")
    run.log({"step": 1})
    run.log({"step": 2})
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
    assert run.checkpoint(7) == run.path / "checkpoints" / "step-7"
    assert (run.name, run.adapter.name) == ("tuned", "adapter")


def test_a_new_folder_has_a_name_that_is_free(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        folder = new_folder("studies/demo", tmp_path)
        folder.mkdir(parents=True)
        names.append(folder.name)
    assert names == ["demo", "demo-2", "demo-3"]
