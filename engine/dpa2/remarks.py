"""What an evaluation has to say although it succeeded, once per model: too many neighbours, atoms too near or far."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from .errors import ClosePairWarning, InputError, NeighborOverflowWarning, TableEnergyWarning
from .inputs import Batch

# Without knowledge of the training data, angstrom: shorter than any bond, and longer than a bond in nanometres.
LEAST_DISTANCE = 0.5


# What the compiled core makes Remarks from.
RemarksTuple: TypeAlias = tuple[Sequence[tuple[str, int, int, int]], tuple[int, int, float] | None, int, int]


class Remarks(NamedTuple):
    """Of one frame.

    Attributes:
        overflow: (block, atom, neighbours within its cutoff, sel) of the worst atom of each block that is too small.
        closest: the nearest of the pairs that interact: two atoms, and their distance in angstrom. Where lists are
            made on a GPU only one that is closer than :func:`least_distance`.
        clamped: the first atom whose switch to a pair table acts on weights below their least sum, -1 if there is none;
            ``clamped_count``: how many there are.
    """

    overflow: Sequence[tuple[str, int, int, int]] = ()
    closest: tuple[int, int, float] | None = None
    clamped: int = -1
    clamped_count: int = 0


def least_distance(config: dict[str, Any]) -> tuple[float, bool]:
    """Closer than this (angstrom) a pair is a mistake; and whether the model's training data say so."""
    known = config.get("min_nbor_dist")
    return (0.5 * known, True) if known is not None and known > 0.0 else (LEAST_DISTANCE, False)


def warn(message: str, category: type[Warning]) -> None:
    """A warning that names the line which has called dpa2."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("dpa2."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _warn(message: str, category: type[Warning]) -> None:
    warn(f"{message}. Warned once per model", category)


class Reporter:
    """Warns of what evaluations of one model remark."""

    def __init__(self, config: dict[str, Any], on_overflow: str) -> None:
        self._type_map: Sequence[str] = config["type_map"]
        self._least, self._known = least_distance(config)
        self._on_overflow = on_overflow
        self._overflow_said = on_overflow == "ignore"
        self._close_pair_said = self._clamp_said = False
        # Weights exp(-r/alpha) of all neighbours sum to less than 1e-20 where even the nearest is farther than this.
        self._clamped_from = float(config.get("smin_alpha", 0.0)) * math.log(1e20)

    def has_to_say(self, remarks: Remarks) -> bool:
        """Whether a report would say anything."""
        return bool(
            (remarks.overflow and not self._overflow_said)
            or (remarks.closest is not None and remarks.closest[2] < self._least and not self._close_pair_said)
            or (remarks.clamped >= 0 and not self._clamp_said)
        )

    def report(self, remarks: Remarks, batch: Batch, frame: int) -> None:
        """Warns where the package was called.

        Raises:
            InputError: there are too many neighbours, and that is to be an error.
        """
        if remarks.overflow and not self._overflow_said:
            message = self._overflow_text(remarks, batch, frame)
            if self._on_overflow == "error":
                raise InputError(f'{message}. Load the model with on_overflow="warn" to evaluate it all the same')
            self._overflow_said = True
            _warn(message, NeighborOverflowWarning)
        if remarks.closest is not None and remarks.closest[2] < self._least and not self._close_pair_said:
            self._close_pair_said = True
            message = self._close_pair_text(remarks.closest, batch, frame)
            _warn(message, ClosePairWarning)
        if remarks.clamped >= 0 and not self._clamp_said:
            self._clamp_said = True
            _warn(self._clamp_text(remarks, batch, frame), TableEnergyWarning)

    def _atom(self, atom: int, batch: Batch, frame: int) -> str:
        return f"{atom} ({self._type_map[int(batch.types[frame, atom])]})"

    def _overflow_text(self, remarks: Remarks, batch: Batch, frame: int) -> str:
        block, atom, count, sel = max(remarks.overflow, key=lambda entry: entry[2] - entry[3])
        where = f"atom {self._atom(atom, batch, frame)}" + (f" of frame {frame}" if batch.has_frame_axis else "")
        return (
            f"{where} has {count} neighbours within the cutoff of the model's {block} block, more than its sel of "
            f"{sel}: only the nearest {sel} are kept, so energies jump when their order changes. The structure is "
            "denser than the model was made for"
        )

    def _clamp_text(self, remarks: Remarks, batch: Batch, frame: int) -> str:
        where = f"atom {self._atom(remarks.clamped, batch, frame)}" + (
            f" of frame {frame}" if batch.has_frame_axis else ""
        )
        more = f", as {remarks.clamped_count - 1} more" if remarks.clamped_count > 1 else ""
        return (
            f"{where} is more than {self._clamped_from:.2g} angstrom from its nearest neighbour{more}. There "
            "deepmd-kit's formula takes it for one in a collision, and gives it the energy of the pair table in place "
            "of the network's, or a mixture of both. dpa2 computes the same, but such an energy means nothing"
        )

    def _close_pair_text(self, closest: tuple[int, int, float], batch: Batch, frame: int) -> str:
        first, second, distance = closest
        one = self._atom(first, batch, frame)
        pair = (
            f"atom {one} and its own periodic image"
            if first == second
            else f"atoms {one} and {self._atom(second, batch, frame)}"
        )
        of = ", half of the least distance in the model's training data" if self._known else ""
        return (
            f"{pair}{f' of frame {frame}' if batch.has_frame_axis else ''} are {distance:.6g} angstrom from each "
            f"other, closer than {self._least:.6g} angstrom{of}: the energy of such a pair means nothing. Either atoms "
            "overlap, or coordinates and cell are not in angstrom (in nm?)"
        )
