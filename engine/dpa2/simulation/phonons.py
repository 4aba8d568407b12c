"""Phonons by finite displacements: phonopy, with the forces of a model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.dft.kpoints import parse_path_string
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_CONSTANTS, write_FORCE_SETS
from phonopy.phonon.band_structure import get_band_qpoints_and_path_connections
from phonopy.structure.atoms import PhonopyAtoms

from ..ase import DPA2Calculator
from ..errors import InputError
from ..inputs import Float
from .structures import is_periodic

#: what :func:`write` puts into its folder
FILES = ("phonopy.yaml", "FORCE_SETS", "FORCE_CONSTANTS", "band.yaml", "total_dos.dat", "thermal_properties.yaml")
#: THz; what is below minus this is called imaginary: sums of forces are zero to rounding only
IMAGINARY = 0.05
# points of a segment; what part of the range of frequencies a mode is smeared over in the density of states
_POINTS, _WIDTHS = 51, 400


@dataclass(frozen=True)
class Bands:
    """Frequencies along a path.

    Attributes:
        labels: of the ends of the segments, one after the other; ``connected``: whether a segment goes on in the next.
        qpoints: of each segment (n, 3), reduced coordinates. distances: (n,) of each along the path, 1/angstrom.
        frequencies: (n, modes) of each, THz; imaginary ones are negative.
    """

    labels: tuple[str, ...]
    connected: tuple[bool, ...]
    qpoints: list[Float]
    distances: list[Float]
    frequencies: list[Float]


@dataclass(frozen=True)
class Found:
    """What the phonons of a structure are.

    Attributes:
        bands: along the path.
        dos: frequencies, THz, and the density of states of the primitive cell, 1/THz.
        thermal: columns T (K), free energy (kJ/mol), entropy and heat capacity (J/K/mol) of a mole of primitive cells.
        lowest: the lowest frequency of path and mesh, THz, and where it is, in reduced coordinates.
        imaginary_share: of the modes on the mesh.
    """

    bands: Bands
    dos: tuple[Float, Float]
    thermal: Float
    lowest: tuple[float, tuple[float, ...]]
    imaginary_share: float


def ends_of(bands: Bands) -> list[tuple[str, str]]:
    """The names of the two ends of every segment."""
    names, found = list(bands.labels), []
    for connected in bands.connected:
        found.append((names[0], names[1]))
        names = names[1:] if connected else names[2:]
    return found


class Phonons:
    """Displacements of a structure, the forces on them, and what follows from these.

    Args:
        atoms: with a calculator of a model.
        supercell: how many cells along each lattice vector.
        distance: of a displaced atom from its place, angstrom.

    Raises:
        InputError: the structure is not periodic in all directions.
    """

    def __init__(self, atoms: Atoms, supercell: Sequence[int], distance: float) -> None:
        if not is_periodic(atoms):
            raise InputError(
                "phonons need a cell with a volume that is periodic in all three directions, and this structure has "
                "none"
            )
        self.atoms = atoms
        moments = atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else None
        cell = PhonopyAtoms(
            symbols=atoms.get_chemical_symbols(),
            cell=atoms.cell.array,
            scaled_positions=atoms.get_scaled_positions(wrap=False),
            masses=atoms.get_masses(),
            magnetic_moments=moments,
        )
        # atoms that differ in spins or parameters are not images of each other, which phonopy does not see
        alike = moments is None and "aparam" not in atoms.info
        options = {"supercell_matrix": np.diag(supercell), "is_symmetry": "aparam" not in atoms.info}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # phonopy 4 says that "auto" is what it is
            made = Phonopy(cell, primitive_matrix="auto" if alike else np.eye(3), **options)
            if len(made.primitive) == len(atoms):  # a primitive cell stays as it is
                made = Phonopy(cell, primitive_matrix=np.eye(3), **options)
        self.phonopy = made
        self.phonopy.generate_displacements(distance=distance)

    @property
    def displacements(self) -> int:
        """How many structures are to be evaluated."""
        return len(self.phonopy.supercells_with_displacements)

    def evaluate(self, on_forces: Callable[[], object] = lambda: None) -> None:
        """Forces and force constants; ``on_forces`` is called after every structure."""
        forces = []
        for displaced in self.phonopy.supercells_with_displacements:
            forces.append(self._image(displaced).get_forces(apply_constraint=False))
            on_forces()
        self.phonopy.forces = np.array(forces)
        self.phonopy.produce_force_constants(show_drift=False)
        self.phonopy.symmetrize_force_constants(show_drift=False)

    def check_path(self, path: str) -> None:
        """Raises InputError if a path has points that the primitive cell does not have."""
        self._segments(path)

    def analyse(self, path: str, mesh: Sequence[int], temperatures: tuple[float, float, float]) -> Found:
        """Bands, density of states and thermal properties.

        Args:
            path: special points as ``GXWK,UL``, or "auto" for ASE's of the lattice.
            mesh: points along each reciprocal vector.
            temperatures: the first, the last and the step, K.
        """
        phonopy = self.phonopy
        names, points = self._segments(path)
        qpoints, connected = get_band_qpoints_and_path_connections(points, npoints=_POINTS)
        phonopy.run_band_structure(qpoints, path_connections=connected, labels=names)
        found = phonopy.band_structure
        bands = Bands(
            tuple(names),
            tuple(bool(flag) for flag in connected),
            *([np.asarray(part) for part in parts] for parts in (found.qpoints, found.distances, found.frequencies)),
        )
        with warnings.catch_warnings():
            # an even mesh beside the origin costs the symmetry of some lattices: more points, the same results
            warnings.filterwarnings("ignore", "Half-grid shift")
            phonopy.run_mesh(list(mesh))
        grid = phonopy.mesh
        # peaks of flat bands are narrower than any grid: each mode is a Gaussian, and all of them count
        width = max(float(np.ptp(grid.frequencies)) / _WIDTHS, 1e-3)
        phonopy.run_total_dos(sigma=width, freq_pitch=width / 2.0, use_tetrahedron_method=False)
        dos = phonopy.total_dos
        low, high, step = temperatures
        phonopy.run_thermal_properties(t_min=low, t_max=high, t_step=step)
        columns = phonopy.thermal_properties.thermal_properties[:4]
        places = np.concatenate([*bands.qpoints, grid.qpoints])
        all_frequencies = np.concatenate([*bands.frequencies, grid.frequencies])
        where = int(all_frequencies.min(axis=1).argmin())
        weights = np.asarray(grid.weights, dtype=np.float64)
        imaginary = (np.asarray(grid.frequencies) < -IMAGINARY).mean(axis=1)
        return Found(
            bands,
            (np.asarray(dos.frequency_points), np.asarray(dos.dos)),
            np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1),
            (float(all_frequencies[where].min()), tuple(float(value) for value in places[where])),
            float((imaginary * weights).sum() / weights.sum()),
        )

    def write(self, folder: str) -> None:
        """Put :data:`FILES` into a folder; :meth:`analyse` comes first."""
        phonopy = self.phonopy
        phonopy.save(os.path.join(folder, "phonopy.yaml"), settings={"force_sets": True, "displacements": True})
        write_FORCE_SETS(phonopy.dataset, os.path.join(folder, "FORCE_SETS"))
        write_FORCE_CONSTANTS(phonopy.force_constants, os.path.join(folder, "FORCE_CONSTANTS"))
        phonopy.write_yaml_band_structure(filename=os.path.join(folder, "band.yaml"))
        phonopy.write_total_dos(os.path.join(folder, "total_dos.dat"))
        phonopy.write_yaml_thermal_properties(filename=os.path.join(folder, "thermal_properties.yaml"))

    def _image(self, displaced: Any) -> Atoms:
        """A displaced supercell with the model, and with the parameters and spins of the atoms it consists of."""
        image = Atoms(displaced.symbols, positions=displaced.positions, cell=displaced.cell, pbc=True)
        supercell = self.phonopy.supercell
        place = {int(atom): k for k, atom in enumerate(supercell.u2s_map)}
        of_cell = np.array([place[int(atom)] for atom in supercell.s2u_map])
        image.info = {name: value for name, value in self.atoms.info.items() if name == "fparam"}
        if "aparam" in self.atoms.info:
            aparam = np.asarray(self.atoms.info["aparam"])
            image.info["aparam"] = aparam[of_cell] if aparam.ndim == 2 else aparam
        if self.atoms.has("initial_magmoms"):
            image.set_initial_magnetic_moments(self.atoms.get_initial_magnetic_moments()[of_cell])
        image.calc = DPA2Calculator(self.atoms.calc.model)
        return image

    def _path(self, path: str | None) -> Any:
        return Cell(np.asarray(self.phonopy.primitive.cell)).bandpath(path, npoints=0)

    def _segments(self, path: str) -> tuple[list[str], list[list[Float]]]:
        """Names of points, one after the other, and the points of every connected part of a path."""
        try:
            automatic = self._path(None)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InputError(f"ASE finds no path through the reciprocal cell of this lattice: {error}") from error
        points = automatic.special_points
        try:
            parts = parse_path_string(automatic.path if path == "auto" else path)
        except (AssertionError, ValueError, KeyError) as error:
            raise InputError(f"--path {path!r} is no path; write it like {automatic.path}") from error
        unknown = [name for part in parts for name in part if name not in points]
        if unknown or not parts or any(len(part) < 2 for part in parts):
            what = f"there is no point {unknown[0]!r}" if unknown else "each part has two points or more"
            raise InputError(
                f"--path {path!r}: {what}; the points of this lattice are {' '.join(points)}, and 'auto' is "
                f"{automatic.path}"
            )
        return [name for part in parts for name in part], [[points[name] for name in part] for part in parts]
