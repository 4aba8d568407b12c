"""What was meant by a path that is no model file, as far as it can be told: the end of a message.

Folders of a training and its file ``checkpoint`` name the newest checkpoint; training inputs are no models.
"""

from __future__ import annotations

import re
from pathlib import Path

#: of a text file that is looked into
_MOST = 2**20
_TRAINING = {
    ".json": (re.compile(r'"training"\s*:'), re.compile(r'"(model|loss|learning_rate)"\s*:')),
    ".yaml": (re.compile(r"^training\s*:", re.M), re.compile(r"^(model|loss|learning_rate)\s*:", re.M)),
}


def checkpoint_of(folder: Path) -> str | None:
    """What to give in place of a folder of a training; None if it is none."""
    found = _pointed(folder / "checkpoint")
    if found is not None:
        return f"the newest checkpoint of this training is {found}: give that file"
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".pth") and path.is_file())
    except OSError:
        return None
    return f"there is the file {names[-1]} in it: give that" if names else None


def pointed_by(path: Path) -> str | None:
    """What to give in place of the text file ``checkpoint`` of a training; None if it is none."""
    found = _pointed(path)
    return None if found is None else f"it says that the newest checkpoint is {found}: give that file"


def _pointed(path: Path) -> Path | None:
    """The file that the one line of a text file names, beside it."""
    text = _text(path, 4096)
    if text is None or len(text.split("\n")) > 2 or "\0" in text or not text.strip():
        return None
    for place in (path.parent / text.strip(), Path(text.strip())):
        try:
            if place.suffix == ".pt" and place.is_file():
                return place
        except (OSError, ValueError):
            return None
    return None


def is_training_input(path: Path) -> bool:
    """Whether a text file has the sections of a training input, and no weights."""
    suffix = ".yaml" if path.suffix.lower() == ".yml" else path.suffix.lower()
    text = _text(path, _MOST) if suffix in _TRAINING else None
    return text is not None and all(pattern.search(text) for pattern in _TRAINING[suffix])


def _text(path: Path, most: int) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(most).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def with_suffix(path: Path, suffixes: tuple[str, ...]) -> str | None:
    """What to give in place of a path that is not there; ``dp`` takes names without their suffix."""
    found = [f"{path}{suffix}" for suffix in suffixes if Path(f"{path}{suffix}").is_file()]
    return f"there is {found[0]}: give that" if found else None
