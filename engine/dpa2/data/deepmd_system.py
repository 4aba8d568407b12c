"""deepmd-kit's systems of .npy files, of one composition (standard) or several (mixed type).

A system is a folder with ``type.raw`` (an integer per atom), perhaps ``type_map.raw`` (their names) and ``nopbc`` (an
empty file: open boundaries), and folders ``set.*`` with one row per frame: ``coord.npy`` (nframes, 3 natoms) angstrom,
``box.npy`` (nframes, 9), and perhaps ``energy.npy`` (nframes,), ``force.npy`` (nframes, 3 natoms),
``virial.npy`` (nframes, 9), ``fparam.npy`` (nframes, nf), ``aparam.npy`` (nframes, natoms na) and
``real_atom_types.npy`` (nframes, natoms), which makes a system one of mixed type; -1 in it is a virtual atom.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Int
from .frames import Frame


def find_systems(folder: str) -> list[str]:
    """The systems in ``folder``: itself, or every one below it, in alphabetical order."""
    if os.path.isfile(os.path.join(folder, "type.raw")):
        return [folder]
    found = [where for where, _, files in os.walk(folder) if "type.raw" in files]
    return sorted(found)


def _read_words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().split()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error})") from error


def _read_types(path: str) -> Int:
    types = []
    for k, word in enumerate(_read_words(path)):
        try:
            number = float(word)
            if not number.is_integer() or not -(2**31) <= number < 2**31:
                raise ValueError
        except ValueError:
            raise InputError(f"{path}: the type of atom {k} must be an integer, found {word!r}") from None
        types.append(int(number))
    return np.array(types, dtype=np.int32)


def _open_npy(path: str) -> NDArray[Any]:
    """A .npy file, mapped into memory; never a pickle, never an archive."""
    try:
        mapped: NDArray[Any] = npy_format.open_memmap(path, mode="r")
        return mapped
    except FileNotFoundError:
        raise InputError(f"{path}: this file is missing") from None
    except (ValueError, EOFError, SyntaxError, OverflowError) as error:
        empty = _empty_npy(path)  # a file of no rows cannot be mapped
        if empty is None:
            raise InputError(f"{path}: not a readable .npy file: {error}") from error
        return empty


def _empty_npy(path: str) -> NDArray[Any] | None:
    try:
        with open(path, "rb") as handle:
            version = npy_format.read_magic(handle)
            read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, _, dtype = read_header(handle)
    except (ValueError, EOFError, SyntaxError):
        return None
    return np.empty(shape, dtype) if 0 in shape and not dtype.hasobject else None


class DeepmdSystem:
    """One system folder. Sets are opened one after the other, and their rows read as they are asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.types = _read_types(os.path.join(path, "type.raw"))
        names = os.path.join(path, "type_map.raw")
        self.names: tuple[str, ...] | None = tuple(_read_words(names)) if os.path.isfile(names) else None
        self.periodic = not os.path.exists(os.path.join(path, "nopbc"))
        self.sets = sorted(
            os.path.join(path, name)
            for name in os.listdir(path)
            if name.startswith("set.") and os.path.isdir(os.path.join(path, name))
        )
        if not self.sets:
            raise InputError(f"{path}: a deepmd/npy system needs at least one folder set.*, found none")
        self._check_types(self.types, os.path.join(path, "type.raw"))

    def _check_types(self, types: NDArray[Any], path: str) -> None:
        if self.names is not None and types.size and int(types.max()) >= len(self.names):
            index = int(np.argmax(types >= len(self.names)))
            raise InputError(
                f"{path}: atom {index} has type {types[index]}, but type_map.raw has {len(self.names)} names "
                f"({' '.join(self.names)})"
            )

    def count(self) -> int:
        return sum(len(self._load(folder, "coord", 3 * len(self.types))) for folder in self.sets)

    def _load(self, folder: str, key: str, width: int, nframes: int | None = None) -> NDArray[Any]:
        """``key.npy`` of a set as a memory-mapped (nframes, width); width -1: any."""
        path = os.path.join(folder, f"{key}.npy")
        array = _open_npy(path)
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path}: {key} must be an array of numbers")
        shape = array.shape
        if array.ndim == 1 and width in (1, -1):
            array = array.reshape(-1, 1)
        elif array.ndim > 2:
            array = array.reshape(shape[0], int(np.prod(shape[1:])))
        if array.ndim != 2 or width not in (-1, array.shape[1]) or nframes not in (None, len(array)):
            rows = "nframes" if nframes is None else str(nframes)
            columns = "any number of columns" if width == -1 else str(width)
            raise InputError(f"{path}: {key} must have shape ({rows}, {columns}), found {shape}")
        return array

    def _optional(self, folder: str, key: str, width: int, nframes: int) -> NDArray[Any] | None:
        return self._load(folder, key, width, nframes) if os.path.isfile(os.path.join(folder, f"{key}.npy")) else None

    def __iter__(self) -> Iterator[Frame]:
        k = 0
        for folder in self.sets:
            for frame in self._frames(folder):
                frame.where = f"{self.path}, frame {k}"
                k += 1
                yield frame

    def _frames(self, folder: str) -> Iterator[Frame]:
        natoms = len(self.types)
        coord = self._load(folder, "coord", 3 * natoms)
        nframes = len(coord)
        box = self._load(folder, "box", 9, nframes) if self.periodic else None
        energy = self._optional(folder, "energy", 1, nframes)
        force = self._optional(folder, "force", 3 * natoms, nframes)
        virial = self._optional(folder, "virial", 9, nframes)
        fparam = self._optional(folder, "fparam", -1, nframes)
        aparam = self._optional(folder, "aparam", -1, nframes)
        if aparam is not None and natoms and aparam.shape[1] % natoms:
            raise InputError(
                f"{os.path.join(folder, 'aparam.npy')}: aparam must have a multiple of {natoms} columns (atoms), "
                f"found shape {aparam.shape}"
            )
        real_types = self._optional(folder, "real_atom_types", natoms, nframes)

        def row(array: NDArray[Any] | None, f: int, *shape: int) -> Any:
            return None if array is None else np.array(array[f], dtype=np.float64).reshape(shape)

        for f in range(nframes):
            types = self.types
            if real_types is not None:
                types = np.array(real_types[f], dtype=np.int32)
                self._check_types(types, f"{os.path.join(folder, 'real_atom_types.npy')}, row {f}")
            yield Frame(
                coords=row(coord, f, natoms, 3),
                types=types,
                names=self.names,
                box=row(box, f, 3, 3),
                pbc=(self.periodic,) * 3,
                energy=None if energy is None else float(energy[f, 0]),
                forces=row(force, f, natoms, 3),
                virial=row(virial, f, 3, 3),
                fparam=row(fparam, f, -1),
                aparam=row(aparam, f, natoms, -1) if natoms else None,
            )
