"""The files of a study, to be compared with what they are later."""

from __future__ import annotations

from pathlib import Path


def items(study: Path) -> dict[str, str]:
    """Every item file of a study, by run and evaluation."""
    return {f"{file.parents[1].name}/{file.stem}": file.read_text() for file in sorted(study.glob("runs/*/items/*"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
