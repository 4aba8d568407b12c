"""What predictions of each kind of model are compared with, and how ``dp --pt test`` of deepmd-kit 3.2.0 words it.

A :class:`Comparison` takes a frame with its labels and a model's answer to it. What it makes of them adds up in
:class:`dpa2.accuracy.Accuracy`, is written by :class:`dpa2.details.DetailFiles` and drawn by
:class:`dpa2.plots.Parity`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .data.labels import label_of, magnetic_forces_of
from .errors import InputError
from .inputs import counted

if TYPE_CHECKING:
    from .data import Frame
    from .inputs import Float
    from .model import Model
    from .results import Result

XYZ = ("x", "y", "z")
COMPONENTS = ("xx", "xy", "xz", "yx", "yy", "yz", "zx", "zy", "zz")


class Line(NamedTuple):
    """A printed line: words in front of the colon, the quantity, which of its errors, and the unit."""

    words: str
    quantity: str
    error: Literal["mae", "rmse"]
    unit: str = ""


class Difference(NamedTuple):
    """Predictions minus labels of a quantity, perhaps with a weight for each number."""

    quantity: str
    values: ArrayLike
    weights: ArrayLike | None = None


class Point(NamedTuple):
    """Labels and predictions for a panel of a picture."""

    panel: str
    label: ArrayLike
    prediction: ArrayLike


@dataclass(frozen=True)
class Place:
    """Where a frame stands: the system, which one it is, and which of its frames."""

    system: str
    group: int
    frame: int


@dataclass(frozen=True)
class Table:
    """Rows for a detail file.

    Attributes:
        suffix: what follows the prefix in the name of the file.
        header: the line of words at the top.
        rows: (n, columns).
        whole: this is all that the file gets.
    """

    suffix: str
    header: str
    rows: Float
    whole: bool = False


class Comparison(ABC):
    """What one kind of model is compared with.

    Attributes:
        lines: what is printed, in order. width: of the words in front of the colon.
        footer: a line below them. of_systems: quantities that are printed for each system alone.
        panels: of a picture: name, and words with a unit.
        labels: the names of labels, for messages. options: options of commands that name others.
    """

    lines: tuple[Line, ...]
    width: int = 19
    footer: ClassVar[str | None] = None
    of_systems: frozenset[str] = frozenset()
    panels: tuple[tuple[str, str], ...]
    labels: str
    options: ClassVar[str] = "--label-key NAME"

    @abstractmethod
    def differences(self, frame: Frame, result: Result, atomic: bool) -> list[Difference] | None:
        """Compare a frame with what a model makes of it; None if there is nothing to compare with.

        Raises:
            InputError: ``atomic`` without labels of atoms; a label of the wrong size.
        """

    @abstractmethod
    def points(self, frame: Frame, result: Result) -> Iterator[Point]:
        """What a picture shows of a frame."""

    @abstractmethod
    def tables(self, place: Place, frame: Frame, result: Result, atomic: bool) -> Iterator[Table]:
        """What the detail files get of a frame."""

    @abstractmethod
    def first_file(self) -> str:
        """The suffix of a detail file that will be written in any case."""

    def wanted(self, frame: Frame) -> dict[str, Any]:
        """Parts of the names of labels, and what the frame has of them."""
        return {}


def _both(words: str, quantity: str, unit: str) -> tuple[Line, Line]:
    """Two lines: the mean absolute and the root mean square error."""
    return Line(words.format("MAE"), quantity, "mae", unit), Line(words.format("RMSE"), quantity, "rmse", unit)


def _columns(name: str, components: tuple[str, ...]) -> str:
    return " ".join(f"{source}_{name}{component}" for source in ("data", "pred") for component in components)


class EnergyComparison(Comparison):
    """Energies, forces and virials.

    Per atom means divided by the number of atoms of a frame, virtual ones included; the stress is
    ``-virial / volume``; errors of forces, virials and stresses are those of their components.
    """

    lines: tuple[Line, ...] = (
        *_both("Energy {}", "energy", "eV"),
        *_both("Energy {}/Natoms", "energy_per_atom", "eV"),
        *_both("Force  {}", "force", "eV/Å"),
        *_both("Force weighted {}", "force_weighted", "eV/Å"),
        *_both("Virial {}", "virial", "eV"),
        *_both("Virial {}/Natoms", "virial_per_atom", "eV"),
        *_both("Stress {}", "stress", "eV/Å³"),
        *_both("Atomic ener {}", "atom_energy", "eV"),
    )
    of_systems = frozenset({"atom_energy"})
    panels: tuple[tuple[str, str], ...] = (
        ("energy", "energy, eV/atom"),
        ("force", "force, eV/Å"),
        ("virial", "virial, eV/atom"),
    )
    labels = "neither energy nor forces, virial or stress"
    options = "--energy-key NAME, --forces-key, --virial-key, --stress-key"

    def differences(self, frame: Frame, result: Result, atomic: bool) -> list[Difference] | None:
        found = []
        natoms = max(1, len(frame))
        if frame.energy is not None:
            difference = float(result.energy) - frame.energy
            found += [Difference("energy", difference), Difference("energy_per_atom", difference / natoms)]
        found += self._force_differences(frame, result)
        if frame.virial is not None and all(frame.pbc):
            off = result.virial - frame.virial
            found += [Difference("virial", off), Difference("virial_per_atom", off / natoms)]
            if frame.volume:
                found.append(Difference("stress", off / frame.volume))
        if atomic:
            if "atom_ener" not in frame.labels:
                raise InputError(f"{frame.where}: there are no energies of atoms to compare with (atom_ener.npy)")
            found.append(Difference("atom_energy", result.atom_energy - frame.labels["atom_ener"]))
        return found or None

    def _force_differences(self, frame: Frame, result: Result) -> list[Difference]:
        if frame.forces is None:
            return []
        found = [Difference("force", result.forces - frame.forces)]
        if "atom_pref" in frame.labels:
            weights = np.repeat(frame.labels["atom_pref"][:, None], 3, axis=1)
            found.append(Difference("force_weighted", result.forces - frame.forces, weights))
        return found

    def points(self, frame: Frame, result: Result) -> Iterator[Point]:
        natoms = max(1, len(frame))
        if frame.energy is not None:
            yield Point("energy", frame.energy / natoms, float(result.energy) / natoms)
        if frame.forces is not None:
            yield Point("force", frame.forces, result.forces)
        if frame.virial is not None and all(frame.pbc):
            yield Point("virial", frame.virial / natoms, result.virial / natoms)

    def tables(self, place: Place, frame: Frame, result: Result, atomic: bool) -> Iterator[Table]:
        """Labels that a data set lacks are zeros, as with deepmd-kit; the header names the first system."""
        natoms, system = max(1, len(frame)), place.system
        energy = np.array([[0.0 if frame.energy is None else frame.energy, float(result.energy)]])
        yield Table(".e.out", f"{system}: data_e pred_e", energy)
        yield Table(".e_peratom.out", f"{system}: data_e pred_e", energy / natoms)
        yield from self._force_tables(system, frame, result)
        label = np.zeros((3, 3)) if frame.virial is None else frame.virial
        virial = np.concatenate([label.ravel(), result.virial.ravel()])[None, :]
        yield Table(".v.out", f"{system}: {_columns('v', COMPONENTS)}", virial)
        yield Table(".v_peratom.out", f"{system}: {_columns('v', COMPONENTS)}", virial / natoms)
        if frame.virial is not None and frame.volume:
            yield Table(".s.out", f"{system} (eV/Å³): {_columns('s', COMPONENTS)}", -virial / frame.volume)

    #: the end of the name of the file of forces
    _forces_file: ClassVar[str] = ".f.out"

    def _force_tables(self, system: str, frame: Frame, result: Result) -> Iterator[Table]:
        forces = np.zeros_like(result.forces) if frame.forces is None else frame.forces
        yield Table(self._forces_file, f"{system}: {_columns('f', XYZ)}", np.hstack([forces, result.forces]))

    def first_file(self) -> str:
        return ".e.out"

    def wanted(self, frame: Frame) -> dict[str, Any]:
        return {"energ": frame.energy, "force": frame.forces, "virial": frame.virial, "stress": frame.virial}


class SpinComparison(EnergyComparison):
    """Energies, forces and virials of a spin model, and its magnetic forces: these of magnetic atoms alone."""

    _plain = tuple(line for line in EnergyComparison.lines if not line.quantity.startswith("force"))
    lines = (
        *(line for line in _plain if line.quantity.startswith("energy")),
        *_both("Force atom {:<9}", "force", "eV/Å"),
        *_both("Force spin {:<9}", "force_mag", "eV/uB"),
        *(line for line in _plain if not line.quantity.startswith("energy")),
    )
    panels = (*EnergyComparison.panels, ("force_mag", "magnetic force, eV/uB"))
    labels = "neither energy nor forces, magnetic forces, virial or stress"
    _forces_file = ".fr.out"

    @staticmethod
    def _magnetic(frame: Frame, result: Result) -> tuple[Float, Float] | None:
        """Label and prediction of the magnetic atoms, (n, 3)."""
        label = magnetic_forces_of(frame)
        if label is None:
            return None
        chosen = np.reshape(result.mask_mag, len(frame)).astype(bool)
        return label[chosen], result.magnetic_forces[chosen]

    def _force_differences(self, frame: Frame, result: Result) -> list[Difference]:
        found = [] if frame.forces is None else [Difference("force", result.forces - frame.forces)]
        magnetic = self._magnetic(frame, result)
        return [*found, *([] if magnetic is None else [Difference("force_mag", magnetic[1] - magnetic[0])])]

    def points(self, frame: Frame, result: Result) -> Iterator[Point]:
        yield from super().points(frame, result)
        magnetic = self._magnetic(frame, result)
        if magnetic is not None:
            yield Point("force_mag", *magnetic)

    def _force_tables(self, system: str, frame: Frame, result: Result) -> Iterator[Table]:
        """Without labels there is no file of magnetic forces."""
        yield from super()._force_tables(system, frame, result)
        magnetic = self._magnetic(frame, result)
        if magnetic is not None:
            yield Table(".fm.out", f"{system}: {_columns('fm', XYZ)}", np.hstack(magnetic))


class TensorComparison(Comparison):
    """Dipoles or polarizabilities: of the frame, or with ``atomic`` those of the atoms of the selected types alone.

    N is the number of these atoms.
    """

    footer = "The unit of error is the same as the unit of provided label."
    of_systems = frozenset({"rmse_sqrtn", "rmse_n"})

    def __init__(self, words: str, label: str, outputs: tuple[str, str], names: tuple[str, ...], model: Model) -> None:
        self.label, (self._of_frame, self._of_atoms), self._names = label, outputs, names
        self._shape = (3,) if len(names) == 3 else (3, 3)
        self._type_map, self._excluded = model.type_map, model.config["atom_exclude_types"]
        self.width = len(words) + 13
        rows = (("", "rmse"), ("/sqrtN", "rmse_sqrtn"), ("/N", "rmse_n"))
        self.lines = tuple(Line(f"{words}  RMSE{per}", quantity, "rmse") for per, quantity in rows)
        self.panels = ((label, label),)
        self.labels = f"no {label} and no atom_{label}"

    def _selected(self, frame: Frame) -> NDArray[np.bool_]:
        return counted(frame.types_in(self._type_map), self._excluded)

    def _pair(self, frame: Frame, result: Result, atomic: bool) -> tuple[Float, Float] | None:
        """Label and prediction, (n, components): of the frame, or of the selected atoms."""
        outputs, width = result.outputs, len(self._names)
        if not atomic:
            label = label_of(frame, self.label, self._shape)
            return None if label is None else (label.reshape(1, width), outputs[self._of_frame].reshape(1, width))
        chosen = self._selected(frame)
        label = label_of(frame, f"atom_{self.label}", self._shape, chosen)
        if label is None:
            raise InputError(
                f"{frame.where}: there is no {self.label} of atoms to compare with (atom_{self.label}.npy)"
            )
        return label[chosen].reshape(-1, width), outputs[self._of_atoms][chosen].reshape(-1, width)

    def differences(self, frame: Frame, result: Result, atomic: bool) -> list[Difference] | None:
        pair = self._pair(frame, result, atomic)
        if pair is None:
            return None
        away = pair[1] - pair[0]
        if atomic:
            return [Difference("rmse", away)] if len(away) else []
        natoms = int(np.count_nonzero(self._selected(frame)))
        per_atom = (
            [Difference("rmse_sqrtn", away / np.sqrt(natoms)), Difference("rmse_n", away / natoms)] if natoms else []
        )
        return [Difference("rmse", away), *per_atom]

    def points(self, frame: Frame, result: Result) -> Iterator[Point]:
        pair = self._pair(frame, result, atomic=False)
        if pair is not None:
            yield Point(self.label, *pair)

    def tables(self, place: Place, frame: Frame, result: Result, atomic: bool) -> Iterator[Table]:
        """A row per frame, with all selected atoms in it if ``atomic``; NaN for a label that the frame lacks."""
        pair = self._pair(frame, result, atomic)
        if pair is None:
            prediction = result.outputs[self._of_frame].reshape(1, -1)
            pair = np.full_like(prediction, np.nan), prediction
        atoms = [str(k + 1) for k in range(len(pair[0]))] if atomic else [""]
        if atoms:
            names = [f"{source}_{name}{atom}" for source in ("data", "pred") for atom in atoms for name in self._names]
            yield Table(
                self._file(place.group), " ".join(names), np.concatenate([np.ravel(part) for part in pair])[None]
            )

    def _file(self, group: int) -> str:
        return f".out.{group}" if group else ".out"

    def first_file(self) -> str:
        return self._file(0)

    def wanted(self, frame: Frame) -> dict[str, Any]:
        return {self.label[:5]: label_of(frame, self.label, self._shape)}


class VectorComparison(Comparison):
    """Densities of states or properties: all numbers of the frame, and with ``atomic`` of all atoms.

    Per atom means divided by the number of atoms of a frame, virtual ones included.
    """

    def __init__(
        self, output: str, width: int, label: str | None, short: str, lines: tuple[Line, ...], columns: int
    ) -> None:
        self.label = label = label or output
        self._output, self._shape, self._short = output, (width,), short
        self.lines, self.width = lines, columns
        self.of_systems = frozenset({"atomic"})
        self._per_atom = any(line.quantity == "per_atom" for line in lines)
        self.panels = ((label, label),)
        self.labels = f"no {label} and no atom_{label}"

    def _pair(self, frame: Frame, result: Result) -> tuple[Float, Float] | None:
        label = label_of(frame, self.label, self._shape)
        return None if label is None else (label, result.outputs[self._output])

    def _atoms(self, frame: Frame, result: Result) -> tuple[Float, Float]:
        label = label_of(frame, f"atom_{self.label}", self._shape, np.ones(len(frame), dtype=bool))
        if label is None:
            raise InputError(
                f"{frame.where}: there is no {self.label} of atoms to compare with (atom_{self.label}.npy)"
            )
        return label, result.outputs[f"atom_{self._output}"]

    def differences(self, frame: Frame, result: Result, atomic: bool) -> list[Difference] | None:
        found, pair = [], self._pair(frame, result)
        if pair is not None:
            away = pair[1] - pair[0]
            found.append(Difference("whole", away))
            if self._per_atom:
                found.append(Difference("per_atom", away / max(1, len(frame))))
        if atomic:
            label, prediction = self._atoms(frame, result)
            found.append(Difference("atomic", prediction - label))
        return found or None

    def points(self, frame: Frame, result: Result) -> Iterator[Point]:
        pair = self._pair(frame, result)
        if pair is not None:
            yield Point(self.label, *pair)

    def tables(self, place: Place, frame: Frame, result: Result, atomic: bool) -> Iterator[Table]:
        """A file per frame, a row per number; NaN for a label that the frame lacks."""
        prediction = result.outputs[self._output]
        pair = self._pair(frame, result) or (np.full_like(prediction, np.nan), prediction)
        for short, (label, found) in [
            (self._short, pair),
            *([(f"a{self._short}", self._atoms(frame, result))] if atomic else []),
        ]:
            header = f"{place.system} - {place.frame}: data_{short} pred_{short}"
            rows = np.stack([np.ravel(label), np.ravel(found)], axis=1)
            yield Table(self._file(short, place), header, rows, whole=True)

    def _file(self, short: str, place: Place) -> str:
        return f".{short}.out" + (f".{place.group}" if place.group else "") + f".{place.frame}"

    def first_file(self) -> str:
        return self._file(self._short, Place("", 0, 0))

    def wanted(self, frame: Frame) -> dict[str, Any]:
        return {self.label.lower(): label_of(frame, self.label, self._shape)}


_DOS = (
    *_both("DOS {}", "whole", "Occupation/eV"),
    *_both("DOS {}/Natoms", "per_atom", "Occupation/eV"),
    *_both("Atomic DOS {}", "atomic", "Occupation/eV"),
)
_PROPERTY = (*_both("PROPERTY {}", "whole", "units"), *_both("Atomic PROPERTY {}", "atomic", "units"))


def comparison_of(model: Model, label: str | None = None) -> Comparison:
    """What this model is compared with.

    Args:
        model: of any kind that deepmd-kit tests.
        label: the name of the label, where it is not the usual one; not for energy and spin models, which have several.

    Raises:
        InputError: another kind of model; ``label`` for an energy or spin model.
    """
    kind = model.kind
    if kind in ("energy", "spin"):
        if label is not None:
            raise InputError(
                f"--label-key names the label of a dipole, polarizability, density of states or property; this is "
                f"{'an energy' if kind == 'energy' else 'a spin'} model, with {EnergyComparison.options}"
            )
        return EnergyComparison() if kind == "energy" else SpinComparison()
    if kind == "dipole":
        return TensorComparison("Dipole", label or "dipole", ("global_dipole", "dipole"), XYZ, model)
    if kind == "polar":
        names = tuple(f"p{component}" for component in COMPONENTS)
        return TensorComparison("Polarizability", label or "polarizability", ("global_polar", "polar"), names, model)
    fitting = model.config["fitting_net"]
    if kind == "dos":
        return VectorComparison("dos", int(fitting["numb_dos"]), label, "dos", _DOS, 19)
    if kind == "property":
        name, width = str(fitting["property_name"]), int(fitting["task_dim"])
        return VectorComparison(name, width, label, "property", _PROPERTY, 24)
    raise InputError(f"Testing is not supported for Deep{kind.capitalize()}.")
