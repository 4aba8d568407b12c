"""The checkpoints of a run in their folder: names, the link to the newest, and which are kept."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..outputs import check_writable, remove_left_over, replacing

SUFFIX = ".pt"


class Store:
    """Checkpoints ``<folder>/<name>-<step>.pt``, the newest of which ``<prefix>.pt`` is a link to.

    Args:
        prefix: such as ``model.ckpt``: its folder has the link.
        folder: of the checkpoints; None: that of the prefix.
        keep: how many of the newest are kept; below 1 all of them.
        pointer: a text file with the path of the newest; None: there is none.
        beside: suffixes of files that lie beside a checkpoint and go with it.
    """

    def __init__(
        self,
        prefix: str,
        folder: str | None = None,
        keep: int = 5,
        pointer: str | None = None,
        beside: Sequence[str] = (),
    ) -> None:
        self.prefix = Path(prefix)
        self.folder = Path(folder) if folder else self.prefix.parent
        self.keep = keep
        self._suffixes = (SUFFIX, *beside)
        self._pointer = None if pointer is None else Path(pointer)

    def prepare(self) -> None:
        """Make the folders, and take away checkpoints that a killed run had only begun to write.

        Raises:
            OSError: one cannot be made, or nothing can be written there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        check_writable(self.path(0))
        check_writable(self.prefix.with_name(f"{self.prefix.name}-0{SUFFIX}"))
        remove_left_over(self.folder, f"{self.prefix.name}-")

    def path(self, step: int) -> Path:
        """Of the checkpoint after so many steps."""
        return self.folder / f"{self.prefix.name}-{step}{SUFFIX}"

    def publish(self, path: Path) -> None:
        """Make a checkpoint the newest, and remove those that are not kept any more.

        At every moment the link leads to a checkpoint that is there.
        """
        for suffix in self._suffixes:
            file = path.with_suffix(suffix)
            if file.exists():
                _link(file, self.prefix.with_name(self.prefix.name + suffix))
        if self._pointer is not None:
            with replacing(self._pointer) as part:
                Path(part).write_text(str(path), encoding="utf-8")
        for old in self._obsolete(path):
            for suffix in self._suffixes:
                old.with_suffix(suffix).unlink(missing_ok=True)

    def _step(self, path: Path) -> int | None:
        """After how many steps a checkpoint of this store was written; None for other files."""
        digits = path.name.removeprefix(f"{self.prefix.name}-").removesuffix(SUFFIX)
        sound = digits.isascii() and digits.isdecimal() and path.name == f"{self.prefix.name}-{digits}{SUFFIX}"
        return int(digits) if sound else None

    def _obsolete(self, newest: Path) -> list[Path]:
        """Those of later steps, which are of a longer run before, and the oldest beyond the number that is kept."""
        if self.keep < 1:
            return []
        steps = {path: self._step(path) for path in self.folder.iterdir() if not path.is_symlink()}
        current = self._step(newest) or 0
        others = {path: step for path, step in steps.items() if step is not None and path.name != newest.name}
        later = [path for path, step in others.items() if step > current]
        earlier = sorted((step, path) for path, step in others.items() if step < current)
        excess = len(earlier) + 1 - self.keep
        return later + [path for _, path in earlier[: max(excess, 0)]]


def stores(training: Mapping[str, Any], steps: int, beside: Sequence[str] = ()) -> tuple[Store, Store]:
    """The checkpoints of a run of so many steps, and those of its moving averages, by its ``training`` section."""
    keep = int(training["max_ckpt_keep"])
    averages = training["ema_ckpt_keep"]
    averages = keep if averages is None else int(averages)
    if (ratio := training["ckpt_keep_ratio"]) is not None:
        frequency = int(training["save_freq"])
        count = max(1, math.ceil(steps / frequency)) if frequency > 0 else 1
        keep = averages = max(1, math.ceil(ratio * count))
    prefix, folder = str(training["save_ckpt"]), training["save_dir"]
    name = Path(prefix)
    average = str(name.with_name(f"{name.stem}_ema{name.suffix}"))
    return Store(prefix, folder, keep, "checkpoint", beside), Store(average, folder, averages, None, beside)


def _link(target: Path, link: Path) -> None:
    """A symbolic link in place of what has this name, in one step."""
    aside = link.with_name(f".{link.name}.{secrets.token_hex(8)}.part")
    os.symlink(os.path.relpath(target, link.parent), aside)
    try:
        os.replace(aside, link)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
