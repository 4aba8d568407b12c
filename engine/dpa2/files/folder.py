"""Models that are found by their names, in the folders that ``DPA2_MODELS`` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dpa2.files.detect import FORMATS

#: the environment variable: folders as in PATH
VARIABLE = "DPA2_MODELS"


def folders() -> list[Path]:
    """The folders of models, in the order in which names are looked for."""
    return [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def model_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it that have the name of a model file, in alphabetical order."""
    for where, below, names in os.walk(folder):
        below.sort()
        yield from (Path(where, name) for name in sorted(names) if name.lower().endswith(FORMATS))


def found(path: Path) -> Path:
    """The path of a model, where ``path`` is no file and has the name of one in the folders; else ``path``.

    The suffix may be left out; then the first of :data:`dpa2.files.FORMATS` counts that there is.
    """
    if path.name != str(path) or os.path.lexists(path):
        return path
    for folder in folders():
        for name in (path.name, *(path.name + suffix for suffix in FORMATS)):
            if (folder / name).is_file():
                return folder / name
    return path


def advice(path: Path) -> str | None:
    """Where a name was looked for in vain, or could be; None for what is no name."""
    if path.name != str(path):
        return None
    names = [str(folder) for folder in folders()]
    return f"nor is there in {VARIABLE} ({', '.join(names)}): 'dpa2 models' lists what there is" if names else None
