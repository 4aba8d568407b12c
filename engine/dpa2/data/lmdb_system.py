"""deepmd-kit's LMDB data sets as structures: single frames of any composition, read one by one as they are asked for.

A frame has ``coord`` (natoms, 3) angstrom and ``atype`` (natoms,), perhaps ``box`` (9,), without which or with zeros
in it the frame is open, and labels as in systems: ``energy``, ``force`` (natoms, 3), ``virial`` (9,), ``fparam``,
``aparam``, ``atom_ener`` and so on. A label beside which ``find_<name>`` is 0 is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float, Int
from .frames import Frame
from .labels import Reading
from .lmdb_frames import LmdbFrames

# arrays that have fields of their own in a frame
_FIELDS = {"coord", "box", "atype", "energy", "force", "virial", "fparam", "aparam"}


class LmdbSystem:
    """One data set, in the order of its frames.

    Raises:
        InputError: the file is no such data set; also later, from frames that cannot be read, which are named.
    """

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        reading = reading or Reading()
        if reading.stress_key is not None:
            raise InputError(f"{path}: an LMDB data set has virials and no stresses: leave --stress-key out")
        given = {"energy": reading.energy_key, "force": reading.forces_key, "virial": reading.virial_key}
        self._given = {name: key for name, key in given.items() if key is not None}
        self._names = {name: key or name for name, key in given.items()}
        self._open().close()
        self._types = reading.types

    def _open(self) -> LmdbFrames:
        return LmdbFrames(self.path)

    def count(self) -> int:
        """The number of frames."""
        source = self._open()
        source.close()
        return source.nframes

    def __iter__(self) -> Iterator[Frame]:
        source = self._open()
        try:
            self._check_keys(source)
            for number in range(source.nframes):
                yield self._frame(source, number)
        finally:
            source.close()

    def _check_keys(self, source: LmdbFrames) -> None:
        """Refuse names of labels that no frame has."""
        for name, key in self._given.items():
            if not any(key in source.frame(number) for number in range(source.nframes)):
                option = {"force": "forces"}.get(name, name)
                raise InputError(f"{self.path}: no frame has an array {key!r}, which --{option}-key names")

    def _frame(self, source: LmdbFrames, number: int) -> Frame:
        found, where = source.frame(number), source.where(number)
        names = self._types if source.type_map is None else source.type_map
        types = _types(found["atype"], names, where)
        natoms = len(types)
        there = {name for name in found if np.any(found.get(f"find_{name}", True)) and not name.startswith("find_")}

        def optional(name: str, *shape: int) -> Float | None:
            return _numbers(found, name, shape, where) if name in there else None

        coords = _numbers(found, "coord", (natoms, 3), where)
        box = optional("box", 3, 3)
        box = None if box is None or not box.any() else box
        energy = optional(self._names["energy"], 1)
        aparam = optional("aparam", -1)
        if aparam is not None and (natoms == 0 or aparam.size % natoms):
            raise InputError(f"{where}: aparam must be a multiple of {natoms} numbers (atoms), found {aparam.size}")
        others = there - _FIELDS - set(self._names.values())
        return Frame(
            coords=coords,
            types=types,
            names=names,
            box=box,
            pbc=(box is not None,) * 3,
            energy=None if energy is None else float(energy[0]),
            forces=optional(self._names["force"], natoms, 3),
            virial=optional(self._names["virial"], 3, 3),
            fparam=optional("fparam", -1),
            aparam=None if aparam is None else aparam.reshape(natoms, -1),
            labels={
                name: _numbers(found, name, (natoms,), where) if name == "atom_ener" else found[name] for name in others
            },
            where=where,
        )


def _numbers(found: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], where: str) -> Float:
    """An array of a frame in this shape; -1 is any number."""
    value = np.array(found[name], dtype=np.float64)
    try:
        return value.reshape(shape)
    except ValueError:
        count = int(np.prod(shape))
        numbers = f"{count} number{'' if count == 1 else 's'}"
        raise InputError(f"{where}: {name} must be {numbers}, found shape {value.shape}") from None


def _types(value: NDArray[Any], names: tuple[str, ...] | None, where: str) -> Int:
    """The types of a frame, which have to be integers with a name, or -1."""
    types = np.asarray(value).ravel()
    most = 2**31 if names is None else len(names)
    if types.dtype.kind not in "iu" or not ((types >= -1) & (types < most)).all():
        said = "integers from -1" if names is None else f"integers from -1 to {most - 1}, those of {' '.join(names)}"
        raise InputError(f"{where}: types must be {said}")
    return types.astype(np.int32)
