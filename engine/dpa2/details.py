"""Labels beside predictions, row by row, in the text files of ``dp test -d``."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .comparisons import Comparison, EnergyComparison, Place, Table
from .errors import Error
from .outputs import Blocks, check_writable, replacing

if TYPE_CHECKING:
    from .data import Frame
    from .results import Result


class DetailFiles:
    """The detail files of one comparison.

    Energies: ``PREFIX.e.out``, ``.e_peratom.out``, ``.f.out``, ``.v.out``, ``.v_peratom.out``, and ``.s.out`` where
    there are virials, each with all systems. Dipoles and polarizabilities: ``PREFIX.out`` of the first system,
    ``PREFIX.out.1`` of the second. Densities of states and properties: a file per frame, ``PREFIX.dos.out.0``, of the
    second system ``PREFIX.dos.out.1.0``. As with deepmd-kit, what follows the last dot of the prefix is replaced.

    Use it in a ``with`` statement. Files of many frames get their names in the end, also with what had been finished
    when Ctrl-C or an error of a frame ended it; those of one frame at once.
    """

    def __init__(self, prefix: str, comparison: Comparison | None = None) -> None:
        self.prefix = prefix
        self.comparison = comparison or EnergyComparison()
        check_writable(self._path(self.comparison.first_file()))
        self._written: dict[str, None] = {}  # in order
        self._files: dict[str, tuple[Blocks, int]] = {}
        self._stack = ExitStack()
        self._place = Place("", -1, -1)

    def __enter__(self) -> DetailFiles:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def begin(self, system: str) -> None:
        """The frames that follow are those of this system."""
        self._place = Place(system, self._place.group + 1, -1)

    def add(self, frame: Frame, result: Result, atomic: bool = False) -> None:
        """Write the rows of the next frame of the system."""
        self._place = Place(self._place.system, self._place.group, self._place.frame + 1)
        for table in self.comparison.tables(self._place, frame, result, atomic):
            self._write(table)

    def _write(self, table: Table) -> None:
        text = io.StringIO()
        self._written[str(self._path(table.suffix))] = None
        columns = table.rows.shape[1]
        if table.whole:
            np.savetxt(text, table.rows, header=table.header)
            with replacing(self._path(table.suffix)) as part:
                Path(part).write_text(text.getvalue(), encoding="utf-8")
            return
        if table.suffix not in self._files:
            part = self._stack.enter_context(replacing(self._path(table.suffix), keep=(KeyboardInterrupt, Error)))
            self._files[table.suffix] = self._stack.enter_context(Blocks(part)), 0
        blocks, before = self._files[table.suffix]
        if columns != before:  # the first row, or the first of a frame with other atoms
            text.write(f"# {table.header}\n")
            self._files[table.suffix] = blocks, columns
        np.savetxt(text, table.rows)
        blocks.add(text.getvalue())

    def written(self) -> str:
        """The files, for people: of many the first and the last, and how many."""
        names = list(self._written)
        return ", ".join(names) if len(names) <= 8 else f"{names[0]}, ... {names[-1]} ({len(names)} files)"

    def _path(self, suffix: str) -> Path:
        return Path(self.prefix).with_suffix(suffix)
