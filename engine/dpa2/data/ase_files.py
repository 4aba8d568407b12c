"""Every other format through ASE, with a look at what its readers make up where a file is silent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, OutOfMemoryError
from . import elements
from .frames import Frame, index_names
from .labels import Labels, Reading
from .text import brief, compression, expanded_size, head, natural

# what ASE takes for an address in place of a file
_ADDRESSES = ("postgres", "mysql", "mariadb")
# formats of numbers of types, which ASE takes for atomic numbers
_TYPE_NUMBERS = ("netcdftrajectory",)
# formats that dpa2 reads itself, or that say nothing of elements
_NOT_THROUGH_ASE = {
    "lammps-dump-text": "LAMMPS dumps begin with 'ITEM: TIMESTEP'",
    "lammps-dump-binary": "binary dumps of LAMMPS have no elements: write a text dump",
    "lammps-data": "a LAMMPS data file has a title, then a header with 'atoms' and 'xlo xhi'",
    "bundletrajectory": "folders of ASE are not read",
    "gromos": "its atoms have names and no elements: write PDB with columns 77 and 78, or extended XYZ",
}
# formats that say in which directions a structure is periodic
_PERIODICITY = ("traj", "json", "db", "extxyz", "gpumd")
# formats whose elements and masses are stated apart from each other, and may not agree
_MASSES = ("cfg", "gpumd")
# where ASE keeps what follows the element in a name of DL_POLY
_LABELS = "dlp4_labels"
_STRUCTURE = ("numbers", "positions")
_POSCAR_BYTES = 2**28


def _numbers(value: Any) -> NDArray[Any] | None:
    """An entry as an array, if it is numbers."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in "fiu" else None


class AseFile:
    """Any format that ASE reads."""

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()
        try:
            import ase.io  # noqa: F401
        except ImportError:
            raise InputError(
                f"{path}: only XYZ, PDB, .gro, LAMMPS's files and deepmd systems are read without ASE; "
                "install it with: pip install 'dpa2[ase]'"
            ) from None

    def count(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        labels, k, kind = Labels(self.path, self.reading), 0, ""
        try:
            kind, frames = self._open()
            for atoms in frames:
                yield self._frame(atoms, k, kind, labels)
                k += 1
        except (InputError, FileNotFoundError, PermissionError):
            raise
        except MemoryError as error:
            raise OutOfMemoryError(f"{self.path}: frame {k} asks for more memory than there is ({error})") from error
        except Exception as error:  # ASE's readers raise whatever comes
            said = brief(str(error) or type(error).__name__, 300)
            raise InputError(f"{self.path}: ASE cannot read frame {k}: {said}") from error
        if k == 0:
            raise InputError(f"{self.path}: no frames in this file, which ASE took for the format {kind!r}")
        labels.finish()

    def _open(self) -> tuple[str, Iterator[Any]]:
        """ASE's name of the format, and its frames."""
        import ase.io
        from ase.io.formats import filetype

        if self.path.startswith(_ADDRESSES):
            raise InputError(f"{self.path}: ASE takes this name for the address of a data base; write ./{self.path}")
        if compression(self.path) is not None:
            expanded_size(self.path)
        kind = filetype(self.path)
        if kind in _NOT_THROUGH_ASE:
            raise InputError(f"{self.path}: not read as {kind}: {_NOT_THROUGH_ASE[kind]}")
        if kind in _TYPE_NUMBERS and self.reading.types is None:
            raise InputError(f"{self.path}: the file has type numbers and no elements; {elements.HINT}")
        source: Any = self._poscar() if kind == "vasp" else self.path
        return kind, ase.io.iread(source, index=":", format=kind, do_not_split_by_at_sign=True)

    def _poscar(self) -> io.StringIO:
        """The text of a POSCAR with the elements in it, and as many lines as it says to have."""
        text = head(self.path, _POSCAR_BYTES)
        lines = text.split("\n")
        if len(lines) < 7:
            raise InputError(f"{self.path}: a POSCAR has at least 8 lines, found {len(lines)}")
        counts = lines[5].partition("!")[0].split()
        if counts and natural(counts[0]) is None:
            counts = lines[6].partition("!")[0].split()
        else:
            names = self.reading.types or tuple(lines[0].split())
            if len(names) != len(counts) or not all(elements.is_element(name) for name in names):
                raise InputError(
                    f"{self.path}: there are no elements above the numbers of atoms (line 6), and the first line does "
                    f"not hold one for each of the {len(counts)} numbers; {elements.HINT}"
                )
            lines.insert(5, " ".join(names))
        total = sum(natural(word) or 0 for word in counts)
        if total > len(lines):
            raise InputError(f"{self.path}: {total} atoms are stated, but the file has {len(lines)} lines")
        return io.StringIO("\n".join(lines))

    def _frame(self, atoms: Any, k: int, kind: str, labels: Labels) -> Frame:
        where = f"{self.path}, frame {k}"
        symbols = [str(symbol) for symbol in atoms.get_chemical_symbols()]
        if not symbols:
            raise InputError(f"{where}: no atoms; ASE took the file for the format {kind!r}, which it may not be")
        if kind in _TYPE_NUMBERS:
            symbols = elements.of_types(atoms.numbers.tolist(), self.reading.types or (), where)
        if "X" in symbols:
            raise InputError(
                f"{where}: the file does not say which element atom {symbols.index('X')} is; "
                "write extended XYZ, or another format with elements"
            )
        self._check_sites(atoms, symbols, kind, where)
        self._check_guesses(atoms, symbols, kind, labels, where)
        types, names = index_names(symbols)
        x, y, z = (bool(flag) for flag in atoms.pbc)
        box = np.array(atoms.cell, dtype=np.float64) if x or y or z else None
        if box is None and kind not in _PERIODICITY and np.any(atoms.cell):
            message = (
                f"{where}: the file has a cell, but ASE's reader of {kind} takes it for an open structure; so it is"
            )
            labels.warn("open cell", f"{message} here: write extended XYZ with the cell where it is periodic")
        coords = np.ascontiguousarray(atoms.positions, dtype=np.float64)
        frame = Frame(coords, types, names, box, (x, y, z), where=where)
        frame.constraints = self._constraints(atoms, labels, where)
        results = dict(atoms.calc.results) if atoms.calc is not None else {}
        entries = {str(key): value for key, value in {**atoms.info, **results}.items() if value is not None}
        columns = {str(key): value for key, value in {**atoms.arrays, **results}.items() if value is not None}
        blocks = {
            name: np.array(columns[name], dtype=np.float64).reshape(len(symbols), -1)
            for name in labels.find("forces", columns)
        }
        taken = labels.fill(frame, entries, blocks) | blocks.keys()
        frame.unread = tuple(sorted((entries.keys() | columns.keys()) - taken))
        others = {name: value for name, value in {**columns, **entries}.items() if name in frame.unread}
        found = {name: _numbers(value) for name, value in others.items() if name not in _STRUCTURE}
        frame.labels = {name: array for name, array in found.items() if array is not None}
        return frame

    def _constraints(self, atoms: Any, labels: Labels, where: str) -> tuple[dict[str, Any], ...]:
        found = []
        for constraint in atoms.constraints:
            try:
                found.append(constraint.todict())
            except (AttributeError, NotImplementedError):
                name = type(constraint).__name__
                labels.warn("constraint", f"{where}: the constraint {name} cannot be taken over and is left aside")
        return tuple(found)

    def _check_sites(self, atoms: Any, symbols: list[str], kind: str, where: str) -> None:
        """Refuse sites that are partly occupied, and masses that are of other elements."""
        occupancy = atoms.info.get("occupancy")
        if isinstance(occupancy, dict):
            for site in occupancy.values():
                if isinstance(site, dict) and (len(site) > 1 or any(share < 0.999 for share in site.values())):
                    shares = " ".join(f"{name} {share:g}" for name, share in site.items())
                    raise InputError(
                        f"{where}: a site is occupied in part ({shares}); choose a structure with whole atoms"
                    )
        if kind in _MASSES:
            for symbol, mass in zip(symbols, atoms.get_masses().tolist(), strict=True):
                if not abs(mass - elements.mass_of(symbol)) <= 0.2 * mass:
                    raise InputError(
                        f"{where}: an atom is {symbol}, but its mass is {mass:g}; write extended XYZ with the elements"
                    )

    def _check_guesses(self, atoms: Any, symbols: list[str], kind: str, labels: Labels, where: str) -> None:
        """Elements that ASE tells by masses or by the names of atoms: refused where that is not certain, else said."""
        if kind == "gpumd":
            by_mass = dict(zip(symbols, atoms.get_masses().tolist(), strict=True))
            doubtful = [f"mass {mass:g}" for symbol, mass in by_mass.items() if elements.of_mass(mass) != symbol]
            said = ", ".join(f"{symbol} ({mass:g})" for symbol, mass in by_mass.items())
        elif _LABELS in atoms.arrays:
            names = {symbol + str(rest): symbol for symbol, rest in zip(symbols, atoms.arrays[_LABELS], strict=True)}
            doubtful = [f"name {name}" for name, symbol in names.items() if elements.of_label(name, "") != symbol]
            said = ", ".join(f"{name} is {symbol}" for name, symbol in names.items() if name != symbol)
        else:
            return
        if doubtful:
            raise InputError(
                f"{where}: the {doubtful[0]} does not tell an element; write extended XYZ with the elements"
            )
        if said:
            labels.warn("guess", f"{self.path}: elements as they were told by masses or names: {said}")
