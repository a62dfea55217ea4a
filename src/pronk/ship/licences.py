"""The files beside a base's weights that say on what terms it may be used: they go wherever it goes."""

from __future__ import annotations

import shutil
from pathlib import Path

from pronk.model.hub import Base, downloaded

NAMES = ("licen", "notice", "use_policy", "copying")  # how such files' names begin, in either spelling


def base_folder(base: Base) -> Path | None:
    """Where the files of a base lie on this machine; None where its weights are not here."""
    folder = base.location if base.local else downloaded(base.name)
    return Path(folder) if folder else None


def copy_licences(base: Base, folder: Path) -> list[str]:
    """Copy what a base says of its licence; the names of the files."""
    source = base_folder(base)
    found = sorted(file for file in source.iterdir() if file.name.lower().startswith(NAMES)) if source else []
    for file in found:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    return [file.name for file in found]
