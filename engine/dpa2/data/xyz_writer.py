"""Extended XYZ, written so that every number reads back exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..inputs import Float, Pbc


def _row(values: NDArray[Any]) -> str:
    return " ".join(repr(float(value)) for value in values.ravel())


def _quoted(value: object) -> str:
    text = _row(value) if isinstance(value, np.ndarray) else str(value)
    escaped = text.replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"' if not escaped or re.search(r'[\s="\'{}\[\],]', escaped) else escaped


def write_frame(
    handle: TextIO,
    coords: Float,
    symbols: Sequence[str],
    box: Float | None = None,
    pbc: Pbc | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    info: Mapping[str, object] | None = None,
) -> None:
    """Append a frame of extended XYZ; every number is written so that it reads back exactly.

    Args:
        handle: an open text file.
        coords: (natoms, 3), angstrom.
        symbols: one per atom.
        box: (3, 3) or None. ``pbc``: all True with a box by default.
        arrays: further columns, (natoms,) or (natoms, k) each, like ``forces``; those of bool become T and F.
        info: further pairs for the comment line, like ``energy``; arrays are written flat.
    """
    columns: list[tuple[str, str, NDArray[Any]]] = []
    for name, array in {"pos": np.asarray(coords).reshape(len(symbols), 3), **(arrays or {})}.items():
        logical = np.asarray(array).dtype == bool
        values = np.asarray(array, dtype=bool if logical else np.float64)
        columns.append((name, "L" if logical else "R", values.reshape(len(symbols), math.prod(values.shape[1:]))))
    pairs = [] if box is None else [f'Lattice="{_row(np.asarray(box))}"']
    pairs.append("Properties=species:S:1:" + ":".join(f"{name}:{kind}:{a.shape[1]}" for name, kind, a in columns))
    pairs += [f"{key}={_quoted(value)}" for key, value in (info or {}).items()]
    flags = (box is not None,) * 3 if pbc is None else pbc
    pairs.append('pbc="{}"'.format(" ".join("T" if flag else "F" for flag in flags)))
    handle.write(f"{len(symbols)}\n{' '.join(pairs)}\n")
    rows: list[list[str]] = [[symbol] for symbol in symbols]
    for _, kind, array in columns:
        for row, found in zip(rows, array.tolist(), strict=True):
            row += ["T" if value else "F" for value in found] if kind == "L" else map(repr, found)
    handle.writelines(f"{' '.join(row)}\n" for row in rows)
