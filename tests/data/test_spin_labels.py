"""Spins and magnetic forces of data sets, in every format that may hold them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from datasets import stored_as, write_arrays, write_words
from dpa2.data import DeepmdWriter, Frame, read_structures, write_frame
from dpa2.data.labels import magnetic_forces_of, spins_of
from dpa2.data.lmdb_system import LmdbSystem

RNG = np.random.default_rng(61)
TYPES = np.array([0, 1, 1, 0])
NATOMS = len(TYPES)


def write_system(folder: Path, nframes: int = 3, **more: np.ndarray) -> dict[str, np.ndarray]:
    """A system of two sets, the second of a single frame without an axis of frames."""
    write_words(folder / "type.raw", TYPES)
    write_words(folder / "type_map.raw", ["Fe", "N"])
    names = ("coord", "spin", "force_mag")
    arrays = {name: RNG.normal(size=(nframes, 3 * NATOMS)) for name in names}
    arrays |= {"box": np.tile(np.diag([5.0, 6.0, 7.0]).ravel(), (nframes, 1)), **more}
    write_arrays(folder / "set.000", {key: array[:-1] for key, array in arrays.items()})
    write_arrays(folder / "set.001", {key: array[-1] for key, array in arrays.items()})
    return arrays


def first_frame(path: Path, **options: Any) -> Frame:
    (source,) = read_structures(path, **options)
    return next(iter(source))


def check_spins(frame: Frame, spins: np.ndarray, forces: np.ndarray | None = None) -> None:
    found = spins_of(frame)
    assert found is not None
    np.testing.assert_array_equal(found, spins.reshape(-1, 3))
    magnetic = magnetic_forces_of(frame)
    if forces is None:
        assert magnetic is None
    else:
        assert magnetic is not None
        np.testing.assert_array_equal(magnetic, forces.reshape(-1, 3))


@pytest.mark.parametrize("store", ["npy", "raw", "hdf5", "mixed"])
def test_deepmd_systems(store: str, tmp_path: Path) -> None:
    mixed = {"real_atom_types": np.array([[0, 1, 1, 0], [1, 1, 0, -1], [0, 0, -1, -1]])} if store == "mixed" else {}
    arrays = write_system(tmp_path / "npy", **mixed)
    path, arrays = stored_as(store, tmp_path / "npy", arrays)
    (source,) = read_structures(path)
    frames = list(source)
    assert len(frames) == len(arrays["coord"])
    for f, frame in enumerate(frames):
        check_spins(frame, arrays["spin"][f], arrays["force_mag"][f])


def test_lmdb_data_sets() -> None:
    """A label beside which ``find_`` is 0 is not there."""
    spins, forces = RNG.normal(size=(2, NATOMS, 3))
    entries = {"coord": np.zeros((NATOMS, 3)), "atype": TYPES, "spin": spins, "force_mag": forces}
    source: Any = SimpleNamespace(type_map=("Fe", "N"), where=lambda number: f"frame {number}")
    for there, expected in ((1.0, forces), (0.0, None)):
        source.frame = lambda number, there=there: {**entries, "find_force_mag": np.array(there)}
        reader: Any = SimpleNamespace(_names={"energy": "energy", "force": "force", "virial": "virial"}, _types=None)
        check_spins(LmdbSystem._frame(reader, source, 0), spins, expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"spin": np.zeros((2, NATOMS))}, "spin must be 3 x the 4 atoms, found 4 numbers"),
        ({"spin": np.zeros((2, 9))}, "spin must be 3 x the 4 atoms, found 9 numbers"),
        ({"force_mag": np.zeros((2, 15))}, "force_mag must be 3 x the 4 atoms, found 15 numbers"),
    ],
)
def test_wrong_sizes(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    """These are no business of models without spins."""
    write_system(tmp_path, 2, **arrays)
    frame = first_frame(tmp_path)
    with pytest.raises(dpa2.InputError) as caught:
        (spins_of if "spin" in arrays else magnetic_forces_of)(frame)
    assert str(caught.value) == f"{tmp_path}, frame 0: {message}"


def xyz(folder: Path, columns: str, values: str, entries: str = "") -> Frame:
    path = folder / "some.extxyz"
    path.write_text(f"2\n{entries} Properties=species:S:1:pos:R:3{columns}\nFe 0 0 0{values}\nN 1 0 0{values}\n")
    return first_frame(path)


@pytest.mark.parametrize("name", ["spin", "spins", "Spin", "initial_magmoms", "magmoms"])
def test_columns_of_extended_xyz(name: str, tmp_path: Path) -> None:
    frame = xyz(tmp_path, f":{name}:R:3:force_mag:R:3:charge:R:1", " 1 -2 3 0.5 0 4 7")
    check_spins(frame, np.array([[1.0, -2.0, 3.0]] * 2), np.array([[0.5, 0.0, 4.0]] * 2))
    assert set(frame.unread) == {"species", "pos", "charge"}


def test_collinear_magnetic_moments_are_along_z(tmp_path: Path) -> None:
    check_spins(xyz(tmp_path, ":initial_magmoms:R:1", " 2.5"), np.array([[0.0, 0.0, 2.5]] * 2))
    with pytest.raises(dpa2.InputError, match="spin must be 3 x the 2 atoms, found 2 numbers"):
        spins_of(xyz(tmp_path, ":spin:R:1", " 2.5"))


def test_the_spin_of_a_molecule_is_none_of_atoms(tmp_path: Path) -> None:
    frame = xyz(tmp_path, "", "", "charge=0 spin=1")
    assert spins_of(frame) is None
    assert frame.info["spin"] == "1"


def test_a_frame_that_was_written_is_read_again(tmp_path: Path) -> None:
    spins, forces = RNG.normal(size=(2, NATOMS, 3))
    arrays = {"spin": spins, "force_mag": forces}
    with (tmp_path / "out.extxyz").open("w") as handle:
        write_frame(handle, RNG.normal(size=(NATOMS, 3)), ["Fe", "N", "N", "Fe"], None, None, arrays)
    check_spins(first_frame(tmp_path / "out.extxyz"), spins, forces)


@pytest.mark.parametrize("mixed", [False, True])
def test_writer(mixed: bool, tmp_path: Path) -> None:
    spins, forces = RNG.normal(size=(2, NATOMS, 3))
    writer = DeepmdWriter(str(tmp_path), ["Fe", "N"], mixed)
    writer.add(np.zeros((NATOMS, 3)), TYPES, None, (False,) * 3, {}, {"spin": spins, "force_mag": forces})
    writer.flush()
    check_spins(first_frame(tmp_path), spins, forces)
    (written,) = tmp_path.glob("*/set.000/spin.npy")
    assert np.load(written).shape == (1, 3 * NATOMS)


def test_ase(tmp_path: Path) -> None:
    needs.package("ase")
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    vectors = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    atoms = Atoms("FeN", positions=[[0, 0, 0], [1, 0, 0]], magmoms=vectors, info={"spin": 2})
    write(tmp_path / "some.traj", atoms)
    check_spins(first_frame(tmp_path / "some.traj"), vectors)
    atoms = Atoms("FeN", positions=[[0, 0, 0], [1, 0, 0]])
    atoms.calc = SinglePointCalculator(atoms, magmoms=np.array([2.0, -1.0]))
    write(tmp_path / "other.traj", atoms)
    check_spins(first_frame(tmp_path / "other.traj"), np.array([[0.0, 0.0, 2.0], [0.0, 0.0, -1.0]]))


def test_data_files_of_lammps(tmp_path: Path) -> None:
    """``atom_style spin`` has directions, of any length, and lengths behind the coordinates."""
    path = tmp_path / "some.data"
    box = "0 5 xlo xhi\n0 5 ylo yhi\n0 5 zlo zhi"
    head = f"title\n\n2 atoms\n1 atom types\n{box}\n\nMasses\n\n1 55.845\n\nAtoms # spin\n\n"
    path.write_text(head + "2 1 1.0 0 0 0.0 0.0 0.0 0.0\n1 1 0.0 0 0 0.0 3.0 4.0 2.5\n", encoding="ascii")
    check_spins(first_frame(path, types=("Fe",)), np.array([[0.0, 1.5, 2.0], [0.0, 0.0, 0.0]]))
    path.write_text(head + "2 1 1.0 0 0 0.0 0.0 0.0 x\n1 1 0.0 0 0 0.0 3.0 4.0 2.5\n", encoding="ascii")
    with pytest.raises(dpa2.InputError, match=r"some.data, line 15: a spin must be numbers"):
        first_frame(path, types=("Fe",))
