"""How far a model is from the labels of a data set: mean absolute and root mean square errors.

The figures and their words are those of ``dp --pt test`` of deepmd-kit 3.2.0, so that scripts that read them go on
working. Per atom means divided by the number of atoms of a frame, virtual ones included; the stress is
``-virial / volume``; errors of forces, virials and stresses are those of their components.
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import Error, InputError
from .outputs import Blocks, check_writable, replacing

if TYPE_CHECKING:
    from .data import Frame
    from .results import Result

# (words, quantity, unit): a line for the mean absolute error, and one for the root mean square error
_WORDS = (
    ("Energy {}         : ", "energy", "eV"),
    ("Energy {}/Natoms  : ", "energy_per_atom", "eV"),
    ("Force  {}         : ", "force", "eV/Å"),
    ("Force weighted {} : ", "force_weighted", "eV/Å"),
    ("Virial {}         : ", "virial", "eV"),
    ("Virial {}/Natoms  : ", "virial_per_atom", "eV"),
    ("Stress {}         : ", "stress", "eV/Å³"),
    ("Atomic ener {}    : ", "atom_energy", "eV"),
)
_WIDTH = 21


@dataclass
class ErrorSums:
    """Sums from which errors follow, so that those of parts add up to those of the whole."""

    absolute: float = 0.0
    squared: float = 0.0
    weight: float = 0.0

    def add(self, difference: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Take in an array of differences, perhaps with a weight for each."""
        values = np.asarray(difference, dtype=np.float64)
        weights = np.ones_like(values) if weight is None else np.asarray(weight, dtype=np.float64)
        self.absolute += float(np.sum(np.abs(values) * weights))
        self.squared += float(np.sum(values * values * weights))
        self.weight += float(np.sum(weights))

    def merge(self, other: ErrorSums) -> None:
        """Take in the sums of another part."""
        self.absolute += other.absolute
        self.squared += other.squared
        self.weight += other.weight

    @property
    def mae(self) -> float:
        """Mean absolute error; 0 if nothing has a weight."""
        return self.absolute / self.weight if self.weight > 0 else 0.0

    @property
    def rmse(self) -> float:
        """Root mean square error; 0 if nothing has a weight."""
        return float(np.sqrt(self.squared / self.weight)) if self.weight > 0 else 0.0


class Accuracy:
    """The errors over the frames that were added; a quantity that no frame has a label for is absent.

    Attributes:
        frames: how many frames were added.
        errors: :class:`ErrorSums` by quantity: ``energy``, ``energy_per_atom``, ``force``, ``force_weighted``,
            ``virial``, ``virial_per_atom``, ``stress``, ``atom_energy``; eV and angstrom.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.errors: dict[str, ErrorSums] = {}

    def _sums(self, quantity: str) -> ErrorSums:
        return self.errors.setdefault(quantity, ErrorSums())

    def add(self, frame: Frame, result: Result, atomic: bool = False) -> None:
        """Compare a frame with what a model makes of it.

        Args:
            frame: with labels. result: of the same frame, without a frame axis.
            atomic: compare the energies of the atoms as well.

        Raises:
            InputError: ``atomic`` without the label ``atom_ener``.
        """
        self.frames += 1
        natoms = max(1, len(frame))
        if frame.energy is not None:
            difference = float(result.energy) - frame.energy
            self._sums("energy").add(difference)
            self._sums("energy_per_atom").add(difference / natoms)
        if frame.forces is not None:
            away = result.forces - frame.forces
            self._sums("force").add(away)
            if "atom_pref" in frame.labels:
                self._sums("force_weighted").add(away, np.repeat(frame.labels["atom_pref"][:, None], 3, axis=1))
        if frame.virial is not None and all(frame.pbc):
            off = result.virial - frame.virial
            self._sums("virial").add(off)
            self._sums("virial_per_atom").add(off / natoms)
            if frame.volume:
                self._sums("stress").add(off / frame.volume)
        if atomic:
            self._sums("atom_energy").add(result.atom_energy - _atom_ener(frame))

    def merge(self, other: Accuracy) -> None:
        """Take in the errors of another system. Those of the energies of atoms are left to each system."""
        self.frames += other.frames
        for quantity, sums in other.errors.items():
            if quantity != "atom_energy":
                self._sums(quantity).merge(sums)

    def lines(self) -> list[str]:
        """What ``dp test`` prints for these errors."""
        found = []
        for words, quantity, unit in _WORDS:
            if quantity in self.errors:
                sums = self.errors[quantity]
                for name, value in (("MAE", sums.mae), ("RMSE", sums.rmse)):
                    label = words.format(name).rstrip(": ")
                    found.append(f"{label:<{_WIDTH - 2}}: {value:e} {unit}")
        return found


def _atom_ener(frame: Frame) -> NDArray[Any]:
    if "atom_ener" not in frame.labels:
        raise InputError(f"{frame.where}: there are no energies of atoms to compare with (atom_ener.npy)")
    return frame.labels["atom_ener"]


_COMPONENTS = ("xx", "xy", "xz", "yx", "yy", "yz", "zx", "zy", "zz")


def _columns(name: str, components: tuple[str, ...]) -> str:
    return " ".join(f"{source}_{name}{component}" for source in ("data", "pred") for component in components)


class DetailFiles:
    """Labels beside predictions, row by row, in the text files of ``dp test -d``.

    ``PREFIX.e.out``, ``.e_peratom.out``, ``.f.out``, ``.v.out``, ``.v_peratom.out``, and ``.s.out`` where there are
    virials. As with deepmd-kit, what follows the last dot of the prefix is replaced, labels that a data set lacks are
    zeros, and the line of words at the top names the first system.

    Use it in a ``with`` statement. Files get their names in the end, also with what had been finished when Ctrl-C or
    an error of a frame ended it.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        check_writable(self._path("e"))
        self._files: dict[str, Blocks] = {}
        self._stack = ExitStack()

    def __enter__(self) -> DetailFiles:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, system: str, frame: Frame, result: Result) -> None:
        """Write the rows of a frame of ``system``."""
        natoms = max(1, len(frame))
        energy = np.array([[0.0 if frame.energy is None else frame.energy, float(result.energy)]])
        self._write("e", f"{system}: data_e pred_e", energy)
        self._write("e_peratom", f"{system}: data_e pred_e", energy / natoms)
        forces = np.zeros_like(result.forces) if frame.forces is None else frame.forces
        self._write("f", f"{system}: {_columns('f', ('x', 'y', 'z'))}", np.hstack([forces, result.forces]))
        label = np.zeros((3, 3)) if frame.virial is None else frame.virial
        virial = np.concatenate([label.ravel(), result.virial.ravel()])[None, :]
        self._write("v", f"{system}: {_columns('v', _COMPONENTS)}", virial)
        self._write("v_peratom", f"{system}: {_columns('v', _COMPONENTS)}", virial / natoms)
        if frame.virial is not None and frame.volume:
            self._write("s", f"{system} (eV/Å³): {_columns('s', _COMPONENTS)}", -virial / frame.volume)

    def _write(self, name: str, header: str, rows: NDArray[np.float64]) -> None:
        text = io.StringIO()
        if name not in self._files:
            part = self._stack.enter_context(replacing(self._path(name), keep=(KeyboardInterrupt, Error)))
            self._files[name] = self._stack.enter_context(Blocks(part))
            text.write(f"# {header}\n")
        np.savetxt(text, rows)
        self._files[name].add(text.getvalue())

    def _path(self, name: str) -> Path:
        return Path(self.prefix).with_suffix(f".{name}.out")
