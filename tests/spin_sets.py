"""Data sets with spins, for the tests and for the golden answers of deepmd-kit to them.

For models of the types O, H and Cu, where O and Cu have spins. Needs NumPy alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import BOX, labels, scattered, write_arrays, write_words

#: in the order that the golden answers have
SPIN_SYSTEMS = ("alloy", "molecule")
NAMES = ("H", "O", "Cu")


def spin_arrays(rng: np.random.Generator, nframes: int, natoms: int) -> dict[str, np.ndarray]:
    """Every label, of no model, and spins."""
    return {
        "coord": scattered(rng, nframes, natoms).reshape(nframes, -1),
        "box": np.tile(BOX.ravel(), (nframes, 1)),
        "spin": rng.normal(size=(nframes, 3 * natoms)),
        "force_mag": rng.normal(size=(nframes, 3 * natoms)),
        "atom_ener": rng.normal(size=(nframes, natoms)),
        **labels(rng, nframes, natoms),
    }


def write_alloy(folder: Path) -> None:
    """Two sets, every label, weights of forces, which spin models have no figures for."""
    rng = np.random.default_rng(51)
    types = [1, 2, 0, 1, 2, 0]
    write_words(folder / "type.raw", types)
    write_words(folder / "type_map.raw", NAMES)
    for k, nframes in enumerate((2, 1)):
        arrays = spin_arrays(rng, nframes, len(types))
        weights = rng.integers(0, 4, size=(nframes, len(types))).astype(float)
        write_arrays(folder / f"set.{k:03d}", {**arrays, "atom_pref": weights})


def write_molecule(folder: Path) -> None:
    """Open boundaries, no magnetic forces and no virials."""
    rng = np.random.default_rng(52)
    types = [2, 1, 0, 0]
    write_words(folder / "type.raw", types)
    write_words(folder / "type_map.raw", NAMES)
    (folder / "nopbc").touch()
    arrays = spin_arrays(rng, 2, len(types))
    for name in ("box", "force_mag", "virial"):
        del arrays[name]
    write_arrays(folder / "set.000", arrays)


def write_mixed_spins(folder: Path) -> None:
    """Mixed type: frames of different compositions, shorter ones filled up with virtual atoms."""
    rng = np.random.default_rng(53)
    nframes, natoms = 3, 5
    types = rng.integers(0, 3, size=(nframes, natoms))
    types[1, 4:] = -1
    arrays = spin_arrays(rng, nframes, natoms)
    for name in ("coord", "spin", "force_mag", "force"):
        rows = arrays[name].reshape(nframes, natoms, 3)
        arrays[name] = (rows * (types >= 0)[:, :, None]).reshape(nframes, -1)
    arrays["atom_ener"] = arrays["atom_ener"] * (types >= 0)
    write_words(folder / "type.raw", [0] * natoms)
    write_words(folder / "type_map.raw", NAMES)
    write_arrays(folder / "set.000", {**arrays, "real_atom_types": types})


def write_spins(folder: Path) -> None:
    """All of them, below ``folder``."""
    write_alloy(folder / "alloy")
    write_molecule(folder / "molecule")
    write_mixed_spins(folder / "mixed")


def evaluated_frames() -> dict[str, np.ndarray]:
    """Two frames as arguments of ``DeepPot.eval``."""
    rng = np.random.default_rng(54)
    coords = scattered(rng, 2, 5)
    spins = rng.normal(size=(2, 5, 3))
    spins[:, 1] = 0.0
    cells = np.tile(BOX.ravel(), (2, 1))
    return {"coords": coords, "cells": cells, "atom_types": np.array([2, 0, 1, 0, 2]), "spin": spins}
