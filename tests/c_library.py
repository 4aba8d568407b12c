"""libdpa2 of the installed package through ctypes, and systems with their periodic images as ghosts."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from dpa2 import installation
from needs import LIBRARY

HEADER = installation.include_directory() / "dpa2.h"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]

OK, INVALID_INPUT, MODEL_FILE, UNSUPPORTED, OUT_OF_MEMORY, INTERNAL, EXCHANGE = range(7)

CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int)


class ExchangeTable(ctypes.Structure):
    _fields_ = (("context", c_void_p), ("forward", CALLBACK), ("reverse", CALLBACK))


_OUTPUTS = [c_void_p] * 5
_NAMED = [c_int, c_void_p, c_void_p]
_PART = [c_void_p, c_void_p, c_void_p, c_int, *[c_void_p] * 3, c_int]
#: name -> (result, arguments); arrays are plain addresses
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "abi_version": (c_int, []),
    "version": (c_char_p, []),
    "isa": (c_char_p, []),
    "last_error": (c_char_p, []),
    "last_warning": (c_char_p, []),
    "last_warning_of": (c_char_p, [c_int]),
    "model_load": (c_int, [c_char_p, c_char_p, c_double, c_void_p]),
    "model_load_buffer": (c_int, [c_char_p, c_size_t, c_char_p, c_char_p, c_double, c_void_p]),
    "model_load_device": (c_int, [c_char_p, c_char_p, c_double, c_char_p, c_void_p]),
    "model_load_buffer_device": (c_int, [c_char_p, c_size_t, c_char_p, c_char_p, c_double, c_char_p, c_void_p]),
    "device_count": (c_int, [c_void_p]),
    "model_free": (None, [c_void_p]),
    "model_ntypes": (c_int, [c_void_p]),
    "model_type_name": (c_char_p, [c_void_p, c_int]),
    "model_type_index": (c_int, [c_void_p, c_char_p]),
    "model_rcut": (c_double, [c_void_p]),
    "model_descriptor_dim": (c_int, [c_void_p]),
    "model_g2_dim": (c_int, [c_void_p]),
    "model_fparam_dim": (c_int, [c_void_p]),
    "model_aparam_dim": (c_int, [c_void_p]),
    "model_has_default_fparam": (c_int, [c_void_p]),
    "model_virtual_scale": (c_double, [c_void_p, c_int]),
    "model_reach": (c_double, [c_void_p, c_int, c_void_p, c_void_p]),
    "model_precision": (c_char_p, [c_void_p]),
    "model_device": (c_char_p, [c_void_p]),
    "model_exchange_width": (c_int, [c_void_p]),
    "model_config": (c_char_p, [c_void_p]),
    "model_kind": (c_char_p, [c_void_p]),
    "model_noutputs": (c_int, [c_void_p]),
    "model_output": (c_void_p, [c_void_p, c_int]),
    "model_memory_estimate": (c_int64, [c_void_p, c_int64, c_double, c_int, c_int]),
    "evaluate": (c_int, [c_void_p, c_int, *[c_void_p] * 6, c_int, *_OUTPUTS]),
    "descriptor": (c_int, [c_void_p, c_int, *[c_void_p] * 4, c_int, c_void_p, c_void_p]),
    "compute": (c_int, [c_void_p, c_int, *[c_void_p] * 6, c_int, *_NAMED]),
    "compute_spin": (c_int, [c_void_p, c_int, *[c_void_p] * 7, c_int, *_NAMED]),
    "vjp": (c_int, [c_void_p, c_int, *[c_void_p] * 6, c_int, *_NAMED, c_void_p, c_void_p]),
    "domain_create": (c_int, [c_void_p]),
    "domain_free": (None, [c_void_p]),
    "domain_set_atoms": (c_int, [c_void_p, c_int, c_int, *[c_void_p] * 4, c_int]),
    "domain_set_spins": (c_int, [c_void_p, c_void_p, c_double]),
    "domain_set_halo": (c_int, [c_void_p, c_void_p]),
    "domain_evaluate": (c_int, [c_void_p, c_void_p, c_void_p, c_int, *[c_void_p] * 3, c_int, *_OUTPUTS]),
    "domain_descriptor": (c_int, [c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_int, c_void_p, c_void_p]),
    "domain_compute": (c_int, [*_PART, *_NAMED]),
    "domain_vjp": (c_int, [*_PART, *_NAMED, c_void_p, c_void_p]),
}


def output_of(command: Sequence[str | Path], folder: Path | None = None, **environment: str) -> str:
    """What a command prints, which must succeed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stderr}"
    return done.stdout


@cache
def package_flags() -> tuple[str, ...]:
    return tuple(shlex.split(output_of([sys.executable, "-m", "dpa2", "--cflags", "--libs"])))


@cache
def library() -> dict[str, Callable[..., Any]]:
    """The functions of libdpa2, without the prefix ``dpa2_``."""
    loaded = ctypes.CDLL(str(LIBRARY))
    functions: dict[str, Callable[..., Any]] = {}
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, f"dpa2_{name}")
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


def call(name: str, *arguments: Any) -> Any:
    """Call a function with numbers, bytes, None for NULL, and arrays for their addresses."""
    return library()[name](*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


def message(name: str = "last_error") -> str:
    """What the last call that failed in this thread says, or with "last_warning" the last one that did not."""
    return str(call(name).decode())


def assert_ok(status: int) -> None:
    assert status == OK, message()


def declared() -> dict[str, str]:
    """The functions of dpa2.h, without the prefix, and the comment in front of each."""
    text = HEADER.read_text(encoding="utf-8")
    found = re.findall(r"((?:/\*(?:(?!\*/).)*\*/\s*)?)DPA2_API\s[^;(]*?\bdpa2_(\w+)\(", text, re.DOTALL)
    return {name: comment for comment, name in found}


class Description(ctypes.Structure):
    """dpa2_output"""

    _fields_ = (
        ("name", c_char_p),
        ("unit", c_char_p),
        ("per_atom", c_int),
        ("ghosts", c_int),
        ("ndim", c_int),
        ("shape", ctypes.POINTER(c_int)),
        ("size", c_int),
        ("reduction", c_char_p),
        ("of", c_char_p),
    )


class Handle:
    """What a function made, freed at the end."""

    def __init__(self, free: str, make: str, *arguments: Any) -> None:
        place = c_void_p()
        assert_ok(call(make, *arguments, ctypes.addressof(place)))
        assert place.value is not None
        self.address, self._free = place.value, free

    def free(self) -> None:
        call(self._free, self.address)
        self.address = 0

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self.free()


def load(path: Any, precision: str | None = None, skin: float = 0.0, device: str | None = None) -> Handle:
    given = (str(path).encode(), precision and precision.encode(), skin)
    if device is None:
        return Handle("model_free", "model_load", *given)
    return Handle("model_free", "model_load_device", *given, device.encode())


def descriptions(model: Handle) -> dict[str, Description]:
    found = {}
    for k in range(call("model_noutputs", model.address)):
        one = ctypes.cast(call("model_output", model.address, k), ctypes.POINTER(Description)).contents
        found[one.name.decode()] = one
    return found


def named(arrays: Mapping[Any, Any]) -> tuple[Any, Any, Any]:
    """A number, names and addresses, as the calls take them; names and arrays may be None."""
    names = [None if name is None else str(name).encode() for name in arrays]
    places = [None if rows is None else rows.ctypes.data for rows in arrays.values()]
    return len(arrays), (c_char_p * len(names))(*names), (c_void_p * len(places))(*places)


def new_domain() -> Handle:
    return Handle("domain_free", "domain_create")


@dataclass
class Answer:
    """Places for the results of an evaluation, NaN at first; `rows` counts ghosts, `centres` does not."""

    rows: int
    centres: int
    energy: np.ndarray = field(init=False)
    forces: np.ndarray = field(init=False)
    virial: np.ndarray = field(init=False)
    atom_energy: np.ndarray = field(init=False)
    atom_virial: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.energy = np.full(1, np.nan)
        self.forces = np.full((self.rows, 3), np.nan)
        self.virial = np.full((3, 3), np.nan)
        self.atom_energy = np.full(self.centres, np.nan)
        self.atom_virial = np.full((self.rows, 3, 3), np.nan)

    def places(self) -> Sequence[np.ndarray]:
        return self.energy, self.forces, self.virial, self.atom_energy, self.atom_virial


def doubles(array: Any) -> np.ndarray | None:
    return None if array is None else np.ascontiguousarray(array, dtype=np.float64)


def evaluate(
    model: Handle, coords: Any, types: Any, box: Any = None, fparam: Any = None, aparam: Any = None, threads: int = 1
) -> Answer:
    """dpa2_evaluate with everything that it computes; must succeed."""
    answer = Answer(len(types), len(types))
    kinds = np.ascontiguousarray(types, dtype=np.intc)
    inputs = (doubles(coords), kinds, doubles(box), None, doubles(fparam), doubles(aparam))
    assert_ok(call("evaluate", model.address, len(kinds), *inputs, threads, *answer.places()))
    return answer


class Parts:
    """A system as one process of a parallel program has it: all atoms, images within `reach` as ghosts, and lists."""

    def __init__(self, coords: Any, types: Any, box: Any, reach: float) -> None:
        local = np.asarray(coords, dtype=np.float64)
        self.nlocal = len(local)
        rows, owners = [local], [np.arange(self.nlocal)]
        if box is not None and self.nlocal:
            spread = np.linalg.norm(np.ptp(local, axis=0)) + reach
            most = (spread * np.linalg.norm(np.linalg.inv(box), axis=0)).astype(int) + 1
            for n in product(*(range(-m, m + 1) for m in most)):
                if any(n):
                    image = local + np.array(n) @ box
                    near = (np.linalg.norm(image[:, None] - local[None], axis=2) <= reach).any(axis=1)
                    rows.append(image[near])
                    owners.append(np.flatnonzero(near))
        self.coords = np.concatenate(rows).reshape(-1, 3)
        self.owner = np.concatenate(owners).astype(np.intc)
        self.types = np.asarray(types, dtype=np.intc)[self.owner]
        self.nall = len(self.owner)
        distance = np.linalg.norm(self.coords[: self.nlocal, None] - self.coords[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        self.lists = [np.flatnonzero(row <= reach).astype(np.intc) for row in distance]
        self.numneigh = np.array([len(one) for one in self.lists], dtype=np.intc)
        self.firstneigh = np.array([one.ctypes.data for one in self.lists], dtype=np.uintp)
        self.calls: list[tuple[str, int, int]] = []
        self.fail = 0  # the code of the next exchange
        self.table = ExchangeTable(None, CALLBACK(self._forward), CALLBACK(self._reverse))

    def _rows(self, rows: int, width: int, size: int) -> np.ndarray:
        kind = {4: ctypes.c_float, 8: ctypes.c_double}[size]
        return np.ctypeslib.as_array(ctypes.cast(rows, ctypes.POINTER(kind)), shape=(self.nall, width))

    def _forward(self, _: int, rows: int, width: int, size: int) -> int:
        self.calls.append(("forward", width, size))
        if self.nall and not self.fail:
            table = self._rows(rows, width, size)
            table[self.nlocal :] = table[self.owner[self.nlocal :]]
        return self.fail

    def _reverse(self, _: int, rows: int, width: int, size: int) -> int:
        self.calls.append(("reverse", width, size))
        if self.nall and not self.fail:
            table = self._rows(rows, width, size)
            np.add.at(table, self.owner[self.nlocal :], table[self.nlocal :])
        return self.fail

    @property
    def exchange(self) -> int:
        return ctypes.addressof(self.table)

    def set(self, domain: Handle, names: bool = True, mask: int = -1) -> int:
        lists = (self.coords, self.owner if names else None, self.numneigh, self.firstneigh)
        return int(call("domain_set_atoms", domain.address, self.nlocal, self.nall, *lists, mask))

    def try_evaluate(
        self, domain: Handle, model: Handle, answer: Answer, fparam: Any = None, aparam: Any = None, threads: int = 1
    ) -> int:
        pad_type = int(self.types[0]) if self.nall else -1
        inputs = (self.types, pad_type, doubles(fparam), doubles(aparam), self.exchange, threads)
        return int(call("domain_evaluate", domain.address, model.address, *inputs, *answer.places()))

    def evaluate(self, domain: Handle, model: Handle, **parameters: Any) -> Answer:
        """The answer for the whole system: what ghosts got goes to their owners. Atoms must have been set."""
        answer = Answer(self.nall, self.nlocal)
        assert_ok(self.try_evaluate(domain, model, answer, **parameters))
        for rows in (answer.forces, answer.atom_virial):
            np.add.at(rows, self.owner[self.nlocal :], rows[self.nlocal :].copy())
        answer.forces, answer.atom_virial = answer.forces[: self.nlocal], answer.atom_virial[: self.nlocal]
        return answer
