"""What users say about files, and labels under the names that they have in them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ReadingWarning
from ..inputs import Float
from .frames import Frame

#: the names under which labels are found, the first one that is there: ASE's and dpdata's, then those of references
_PREFIXES = ("", "ref_", "reference_", "dft_")
_NAMES = {
    "energy": ("energy", "free_energy"),
    "forces": ("forces", "force"),
    "virial": ("virial", "virials"),
    "stress": ("stress",),  # ASE's stresses are those of the atoms
}
NAMES = {what: tuple(prefix + name for prefix in _PREFIXES for name in names) for what, names in _NAMES.items()}
#: the names under which the spins of the atoms are found, the first one that is there, and the magnetic forces
SPINS = ("spin", "spins", "initial_magmoms", "magmoms")
MAGNETIC_FORCES = ("force_mag", "forces_mag", "magnetic_forces")
_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # xx yy zz yz xz xy


@dataclass(frozen=True)
class Reading:
    """What users say about structure files beyond their paths.

    Attributes:
        types: the elements of type numbers 1, 2, ... in files that have numbers in place of elements, and of 0, 1, ...
            in deepmd systems without ``type_map.raw``.
        atom_style: the one of a LAMMPS data file that does not say it.
        energy_key, forces_key, virial_key, stress_key: the names of labels, where they are not the usual ones.
    """

    types: tuple[str, ...] | None = None
    atom_style: str | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    virial_key: str | None = None
    stress_key: str | None = None

    def key(self, what: str) -> str | None:
        """The name of a label (energy, forces, virial, stress), if the user gave one."""
        key: str | None = getattr(self, f"{what}_key")
        return key


class Labels:
    """Finds the labels of frames of one file among its entries, whatever the reader of the format calls them.

    Warnings are said once per file.
    """

    def __init__(self, path: str, reading: Reading) -> None:
        self.path = path
        self.reading = reading
        self.given = {what: key for what in NAMES if (key := reading.key(what)) is not None}
        self._seen: set[str] = set()
        self._said: set[str] = set()

    def warn(self, subject: str, message: str) -> None:
        """A warning, if there was none on this subject for this file."""
        if subject not in self._said:
            self._said.add(subject)
            warnings.warn(message, ReadingWarning, stacklevel=2)

    def find(self, what: str, names: Iterable[str]) -> list[str]:
        """Those of the names that hold a label, the preferred one first."""
        key = self.given.get(what)
        if key is not None:
            exact = [name for name in names if name == key] or [name for name in names if name.lower() == key.lower()]
            self._seen.update([what] if exact else [])
            return exact[:1]
        lower: dict[str, str] = {}
        for name in names:
            lower.setdefault(name.lower(), name)
        return [lower[name] for name in NAMES[what] if name in lower]

    def fill(self, frame: Frame, entries: Mapping[str, Any], columns: Mapping[str, Float]) -> set[str]:
        """Give a frame its labels.

        Args:
            frame: with its box.
            entries: by name, of the frame as a whole: text, numbers, arrays.
            columns: by name, (natoms, k) each.

        Returns:
            The names in ``entries`` that were taken.
        """
        energies = {name: self._array(frame, name, entries[name], (1,)) for name in self.find("energy", entries)}
        frame.energy = next((float(value[0]) for value in energies.values()), None)
        plain = {name: value for name, value in energies.items() if not name.lower().endswith("free_energy")}
        self._compare(frame, plain, "energy")
        forces = {name: columns[name] for name in self.find("forces", columns)}
        for name, values in forces.items():
            if values.shape != (len(frame), 3):
                raise InputError(f"{frame.where}: {name} must have 3 columns, found shape {values.shape}")
        frame.forces = next(iter(forces.values()), None)
        self._compare(frame, forces, "forces")
        virials = {name: self._array(frame, name, entries[name], (9,)) for name in self.find("virial", entries)}
        stresses = self.find("stress", entries)
        frame.virial = next((value.reshape(3, 3) for value in virials.values()), None)
        self._compare(frame, virials, "virial")
        used = not stresses or self._stress(frame, stresses, entries)
        return {*energies, *virials, *(stresses if used else [])}

    def _stress(self, frame: Frame, names: list[str], entries: Mapping[str, Any]) -> bool:
        """Take the virial from a stress; False where there is a virial already, beside which it stands."""
        values = {name: self._array(frame, name, entries[name], (6, 9)) for name in names}
        self._compare(frame, values, "stress")
        name, stress = next(iter(values.items()))
        if frame.volume is None:
            self.warn("open", f"{frame.where}: {name} is not read: a stress needs a box that is periodic all around")
            return True
        tensor = stress[_VOIGT] if stress.size == 6 else stress.reshape(3, 3)
        virial: Float = -frame.volume * tensor
        if frame.virial is None or ("stress" in self.given and "virial" not in self.given):
            frame.virial = virial
            return True
        size = max(np.abs(virial).max(), np.abs(frame.virial).max())
        difference = float(np.abs(virial - frame.virial).max())
        if not difference <= 0.01 * size + 0.01:
            self.warn(
                "virial",
                f"{frame.where}: the virial and -volume * {name} differ by up to {difference:g} eV; the virial is "
                f"taken (--stress-key {name} takes the other)",
            )
        return False

    def _array(self, frame: Frame, name: str, value: Any, sizes: tuple[int, ...]) -> Float:
        """An entry as a flat array of one of these sizes."""
        where = f"{frame.where}: {name}"
        if isinstance(value, str):
            value = numbers(value, where)
        try:
            array = np.asarray(value, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            raise InputError(f"{where} must be numbers, found {str(value)[:60]!r}") from None
        if array.size not in sizes:
            wanted = " or ".join(map(str, sizes))
            plural = "s" if sizes != (1,) else ""
            raise InputError(f"{where} must be {wanted} number{plural}, found {array.size}")
        return array

    def _compare(self, frame: Frame, found: Mapping[str, NDArray[Any]], what: str) -> None:
        """Say it if a file has a label twice, and the two are not the same."""
        names = list(found)
        for other in names[1:]:
            first, second = found[names[0]], found[other]
            if first.shape != second.shape or not np.allclose(first, second, rtol=1e-6, atol=1e-6):
                self.warn(
                    what,
                    f"{frame.where}: {names[0]} and {other} differ; {names[0]} is taken "
                    f"(--{what}-key {other} takes the other)",
                )

    def finish(self) -> None:
        """After the last frame.

        Raises:
            InputError: a name that the user gave was in no frame.
        """
        for what, key in self.given.items():
            if what not in self._seen:
                raise InputError(f"{self.path}: no frame has {key!r}, which --{what}-key names")


def is_reference(name: str) -> bool:
    """Whether a label says by its name that it is a reference, so that results can stand beside it."""
    return name.lower().startswith(tuple(filter(None, _PREFIXES)))


def numbers(text: str, where: str) -> Float:
    """The numbers of a text, separated by blanks, commas or brackets; ASE writes ``_JSON`` before its nested lists.

    Raises:
        InputError: it has something else.
    """
    from .text import brief, real

    text = text.removeprefix("_JSON ")
    for separator in ",[]{}()":
        text = text.replace(separator, " ")
    try:
        return np.array([real(word) for word in text.split()], dtype=np.float64)
    except ValueError:
        raise InputError(f"{where} must be numbers, found {brief(text)}") from None


def is_of_atoms(name: str) -> bool:
    """Whether a column says by its name that it is a label of atoms for :func:`label_of`, spins or magnetic forces."""
    short = name.lower()
    return short in (*SPINS, *MAGNETIC_FORCES) or any(
        short.startswith((f"{prefix}atom_", f"{prefix}atomic_")) for prefix in _PREFIXES
    )


def label_names(name: str) -> tuple[str, ...]:
    """The names, in lower case, under which a label is found that is none of the energy, the preferred one first.

    ``atom_`` and ``atomic_`` in front of labels of atoms mean the same.
    """
    short = name.removeprefix("atom_")
    own = (name,) if short == name else (f"atom_{short}", f"atomic_{short}")
    return tuple(prefix + each.lower() for prefix in _PREFIXES for each in own)


def label_of(frame: Frame, name: str, shape: tuple[int, ...], selected: NDArray[np.bool_] | None = None) -> Any:
    """A label of a frame, or of its atoms, for models of dipoles and the like.

    Args:
        frame: its ``labels`` are looked through, then its ``info``.
        name: such as ``dipole``, ``dos``; with ``atom_`` in front one with a row per atom.
        shape: of the value of the frame, or of an atom.
        selected: (natoms,) for labels of atoms: which rows a file has that has rows of these alone.

    Returns:
        float64 of ``shape``, or (natoms, \\*shape) with zeros in the rows that a file of selected atoms lacks; None if
        the frame has no such label.

    Raises:
        InputError: it is there, but is no numbers or has another size; the message says which.
    """
    found = _find(frame, label_names(name))
    if found is None:
        return None
    where, value = f"{frame.where}: {found[0]}", found[1]
    array = numbers(value, where) if isinstance(value, str) else np.asarray(value, dtype=np.float64).ravel()
    width, natoms = math.prod(shape), len(frame)
    if selected is None:
        if array.size != width:
            hint = f"; values of atoms are read from atom_{name}" if array.size == width * natoms else ""
            plural = "" if width == 1 else "s"
            raise InputError(f"{where} must be {width} number{plural}, found {array.size}{hint}")
        return array.reshape(shape)
    chosen = int(np.count_nonzero(selected))
    if array.size == natoms * width:
        return array.reshape(natoms, *shape)
    if array.size == chosen * width:
        rows = np.zeros((natoms, *shape))
        rows[selected] = array.reshape(chosen, *shape)
        return rows
    atoms = f"{natoms} atoms" + ("" if chosen == natoms else f" or of the {chosen} of the model's selected types")
    hint = f"; a value of the frame is read from {name.removeprefix('atom_')}" if array.size == width else ""
    raise InputError(f"{where} must be {width} x the {atoms}, found {array.size} numbers{hint}")


def spins_of(frame: Frame) -> Float | None:
    """(natoms, 3) the spins of a frame, None if it has none.

    ASE's ``initial_magmoms`` and ``magmoms`` may be one number per atom, a spin along z.

    Raises:
        InputError: they are there, but have another size.
    """
    return _vectors(frame, SPINS)


def magnetic_forces_of(frame: Frame) -> Float | None:
    """(natoms, 3) the magnetic forces of a frame, minus derivatives of the energy by the spins; None if it has none.

    Raises:
        InputError: they are there, but have another size.
    """
    return _vectors(frame, MAGNETIC_FORCES)


def _vectors(frame: Frame, names: Iterable[str]) -> Float | None:
    """The first of these arrays that a frame has, as (natoms, 3); not a single number, which is of the molecule."""
    arrays = {name.lower(): (name, array) for name, array in frame.labels.items() if np.ndim(array)}
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None:
        return None
    natoms, (name, array) = len(frame), found
    if name.lower().endswith("magmoms") and array.size == natoms:
        along_z: Float = np.ravel(array)[:, None] * np.array([0.0, 0.0, 1.0])
        return along_z
    if array.size != 3 * natoms:
        raise InputError(f"{frame.where}: {name} must be 3 x the {natoms} atoms, found {array.size} numbers")
    return np.asarray(array, dtype=np.float64).reshape(natoms, 3)


def _find(frame: Frame, names: Iterable[str]) -> tuple[str, Any] | None:
    """The first of these entries that a frame has, under the name that it has there."""
    energy = {} if frame.energy is None else {"energy": frame.energy}  # which a property may be called
    entries = {**energy, **frame.info, **frame.labels}
    lower = {name.lower(): name for name in reversed(entries)}
    return next(((lower[name], entries[lower[name]]) for name in names if name in lower), None)


def look_alikes(frame: Frame, wanted: Mapping[str, Any]) -> list[str]:
    """Entries and columns of a frame that may be the labels that it lacks, under other names.

    Args:
        frame: to look through.
        wanted: parts of names of labels, and the labels; None for one that the frame lacks.
    """
    words = [word for word, label in wanted.items() if label is None]
    of_atoms = ("atom", "local", "site")
    names = [name for name in (*frame.info, *frame.unread) if not name.lower().startswith(of_atoms)]
    return sorted({name for name in names if any(word in name.lower() for word in words)})
