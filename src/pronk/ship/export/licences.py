"""The files beside a base's weights that say on what terms it may be used: they go wherever it goes."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pronk.ask.asking import Reader
from pronk.errors import BaseModelError
from pronk.model.hub import Base, downloaded
from pronk.model.load import find_base

NAMES = ("licen", "notice", "use_policy", "copying")  # how such files' names begin, in either spelling


def base_folder(base: Base) -> Path | None:
    """Where the files of a base lie on this machine; None where its weights are not here."""
    folder = base.location if base.local else downloaded(base.name)
    return Path(folder) if folder else None


def copy_licences(reader: Reader, folder: Path) -> list[str]:
    """Copy what the base of a run says of its licence; the names of the files, none where that base is gone."""
    source = None
    with contextlib.suppress(BaseModelError):  # a run whose weights were all trained does not need it any longer
        source = base_folder(find_base(reader.model.origin or reader.base.name))
    files = source.iterdir() if source else ()
    found = sorted(file for file in files if file.is_file() and file.name.lower().startswith(NAMES))
    for file in found:
        shutil.copyfile(file, folder / file.name)
    return [file.name for file in found]
