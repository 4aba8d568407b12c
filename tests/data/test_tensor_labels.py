"""Labels of dipoles, polarizabilities, densities of states and properties, in every format that may hold them."""

from __future__ import annotations

from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from datasets import stored_as, write_arrays, write_words
from dpa2.data import DeepmdWriter, Frame, read_structures, write_frame
from dpa2.data.labels import label_of

RNG = np.random.default_rng(31)
TYPES = np.array([0, 1, 1, 0])
NATOMS = len(TYPES)
EVERY = np.ones(NATOMS, dtype=bool)
HYDROGEN = TYPES == 1


def write_system(folder: Path, nframes: int, **labels: np.ndarray) -> dict[str, np.ndarray]:
    """A system of two sets, the second of a single frame without an axis of frames."""
    write_words(folder / "type.raw", TYPES)
    write_words(folder / "type_map.raw", ["O", "H"])
    arrays = {
        "coord": RNG.normal(size=(nframes, 3 * NATOMS)),
        "box": np.tile(np.diag([5.0, 6.0, 7.0]).ravel(), (nframes, 1)),
        **labels,
    }
    write_arrays(folder / "set.000", {key: array[:-1] for key, array in arrays.items()})
    write_arrays(folder / "set.001", {key: array[-1] for key, array in arrays.items()})
    return arrays


def tensors(nframes: int) -> dict[str, np.ndarray]:
    return {
        "dipole": RNG.normal(size=(nframes, 3)),
        "polarizability": RNG.normal(size=(nframes, 9)),
        "atomic_dipole": RNG.normal(size=(nframes, 3 * NATOMS)),
        "atom_polarizability": RNG.normal(size=(nframes, 9 * NATOMS)),
        "dos": RNG.normal(size=(nframes, 5)),
        "atom_dos": RNG.normal(size=(nframes, 5 * NATOMS)),
        "gap": RNG.normal(size=(nframes, 1)),
        "atom_gap": RNG.normal(size=(nframes, NATOMS)),
    }


def check(frame: Frame, arrays: dict[str, np.ndarray], f: int) -> None:
    for name, shape in {"dipole": (3,), "polarizability": (3, 3), "dos": (5,), "gap": (1,)}.items():
        np.testing.assert_array_equal(label_of(frame, name, shape), arrays[name][f].reshape(shape))
        key = f"atom_{name}" if f"atom_{name}" in arrays else f"atomic_{name}"
        found = label_of(frame, f"atom_{name}", shape, EVERY)
        np.testing.assert_array_equal(found, arrays[key][f].reshape(NATOMS, *shape))


@pytest.mark.parametrize("store", ["npy", "raw", "hdf5"])
def test_deepmd_systems(store: str, tmp_path: Path) -> None:
    arrays = write_system(tmp_path / "npy", 3, **tensors(3))
    path, arrays = stored_as(store, tmp_path / "npy", arrays)
    (source,) = read_structures(path)
    frames = list(source)
    assert len(frames) == len(arrays["coord"])
    for f, frame in enumerate(frames):
        check(frame, arrays, f)


def test_systems_of_mixed_type(tmp_path: Path) -> None:
    arrays = {**tensors(3), "real_atom_types": np.array([[0, 1, 1, 0], [1, 1, 0, -1], [0, 0, -1, -1]])}
    arrays |= {"coord": RNG.normal(size=(3, 12)), "box": np.tile(np.eye(3).ravel() * 6.0, (3, 1))}
    write_words(tmp_path / "type.raw", [0] * NATOMS)
    write_words(tmp_path / "type_map.raw", ["O", "H"])
    write_arrays(tmp_path / "set.000", arrays)
    (source,) = read_structures(tmp_path)
    frames = list(source)
    assert len(frames) == 3
    for f, frame in enumerate(frames):
        check(frame, arrays, f)


def test_rows_of_selected_atoms_alone(tmp_path: Path) -> None:
    rows = RNG.normal(size=(2, 6))
    write_system(tmp_path, 2, atom_dipole=rows)
    (source,) = read_structures(tmp_path)
    for frame, expected in zip(source, rows, strict=True):
        found = label_of(frame, "atom_dipole", (3,), HYDROGEN)
        np.testing.assert_array_equal(found[HYDROGEN], expected.reshape(2, 3))
        assert not found[~HYDROGEN].any()


def test_atom_wins_over_atomic(tmp_path: Path) -> None:
    """As in deepmd-kit, where a set has both."""
    write_system(tmp_path, 2, atom_dos=np.ones((2, NATOMS)), atomic_dos=np.zeros((2, NATOMS)))
    (source,) = read_structures(tmp_path)
    assert all(label_of(frame, "atom_dos", (1,), EVERY).all() for frame in source)


@pytest.mark.parametrize(
    ("name", "shape", "selected", "array", "message"),
    [
        ("dipole", (3,), None, np.zeros((2, 9)), "dipole must be 3 numbers, found 9"),
        ("dipole", (3,), None, np.zeros((2, 12)), "found 12; values of atoms are read from atom_dipole"),
        ("gap", (1,), None, np.zeros((2, 2)), "gap must be 1 number, found 2"),
        ("dos", (5,), None, np.zeros(2), "dos must be 5 numbers, found 1"),
        ("atom_dipole", (3,), EVERY, np.zeros((2, 9)), "atom_dipole must be 3 x the 4 atoms, found 9 numbers"),
        ("atom_dipole", (3,), EVERY, np.zeros((2, 3)), "found 3 numbers; a value of the frame is read from dipole"),
        ("atom_dipole", (3,), HYDROGEN, np.zeros((2, 9)), "3 x the 4 atoms or of the 2 of the model's selected types"),
        ("atom_polarizability", (3, 3), HYDROGEN, np.zeros((2, 12)), "9 x the 4 atoms or of the 2 of the model's"),
    ],
)
def test_wrong_sizes(
    name: str, shape: tuple[int, ...], selected: np.ndarray | None, array: np.ndarray, message: str, tmp_path: Path
) -> None:
    write_system(tmp_path, 2, **{name: array})
    (source,) = read_structures(tmp_path)
    frame = next(iter(source))  # what does not fit a model is no business of others
    with pytest.raises(dpa2.InputError) as caught:
        label_of(frame, name, shape, selected)
    assert str(caught.value).startswith(f"{tmp_path}, frame 0: ")
    assert message in str(caught.value)


def xyz(folder: Path, entries: str, columns: str = "", values: str = "") -> Frame:
    path = folder / "some.extxyz"
    path.write_text(f"2\n{entries} Properties=species:S:1:pos:R:3{columns}\nO 0 0 0{values}\nH 1 0 0{values}\n")
    (source,) = read_structures(path)
    return next(iter(source))


@pytest.mark.parametrize("name", ["dipole", "Dipole", "REF_dipole", "ref_dipole", "dft_dipole", "reference_dipole"])
def test_names_in_extended_xyz(name: str, tmp_path: Path) -> None:
    found = xyz(tmp_path, f'{name}="1 -2.5 3e-1" polarizability="{" ".join("123456789")}" gap=4.5')
    np.testing.assert_array_equal(label_of(found, "dipole", (3,)), [1.0, -2.5, 0.3])
    np.testing.assert_array_equal(label_of(found, "polarizability", (3, 3)), np.arange(1.0, 10.0).reshape(3, 3))
    np.testing.assert_array_equal(label_of(found, "gap", (1,)), [4.5])
    assert name in found.info  # and stays there for outputs
    assert label_of(found, "dos", (2,)) is None


@pytest.mark.parametrize("name", ["atom_dipole", "atomic_dipole", "REF_atomic_dipole", "Atomic_Dipole"])
def test_columns_of_extended_xyz(name: str, tmp_path: Path) -> None:
    found = xyz(tmp_path, "dipole=[3,4,5]", f":{name}:R:3:charge:R:1", " 1 2 3 0.5")
    np.testing.assert_array_equal(label_of(found, "atom_dipole", (3,), np.ones(2, dtype=bool)), [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(label_of(found, "dipole", (3,)), [3, 4, 5])
    assert name not in found.unread
    assert "charge" in found.unread


def test_the_first_name_counts(tmp_path: Path) -> None:
    found = xyz(tmp_path, 'REF_dipole="4 5 6" dipole="1 2 3"')
    np.testing.assert_array_equal(label_of(found, "dipole", (3,)), [1, 2, 3])


def test_a_property_may_be_called_energy(tmp_path: Path) -> None:
    assert label_of(xyz(tmp_path, "energy=-3.25"), "energy", (1,)) == [-3.25]


def test_what_is_no_label_is_no_error_before_it_is_asked_for(tmp_path: Path) -> None:
    found = xyz(tmp_path, "dipole=none dos='1 2'")
    with pytest.raises(dpa2.InputError, match=r"some.extxyz, frame 0: dipole must be numbers, found 'none'"):
        label_of(found, "dipole", (3,))
    with pytest.raises(dpa2.InputError, match="dos must be 7 numbers, found 2"):
        label_of(found, "dos", (7,))


def test_ase(tmp_path: Path) -> None:
    needs.package("ase")
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    atoms = Atoms("OH", positions=[[0, 0, 0], [1, 0, 0]], info={"dos": [1.0, 2.0, 3.0], "note": "text"})
    atoms.calc = SinglePointCalculator(atoms, dipole=np.array([0.5, 1.5, 2.5]))
    write(tmp_path / "some.traj", atoms)
    (source,) = read_structures(tmp_path / "some.traj")
    frame = next(iter(source))
    np.testing.assert_array_equal(label_of(frame, "dipole", (3,)), [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(label_of(frame, "dos", (3,)), [1, 2, 3])
    assert frame.labels.keys() == {"dipole", "dos"}


@pytest.mark.parametrize("mixed", [False, True])
def test_writer(mixed: bool, tmp_path: Path) -> None:
    arrays = tensors(2)
    writer = DeepmdWriter(str(tmp_path), ["O", "H"], mixed)
    for f in range(2):
        of_frame = {name: arrays[name][f] for name in ("dipole", "polarizability", "dos", "gap")}
        of_atoms = {name: array[f].reshape(NATOMS, -1) for name, array in arrays.items() if name.startswith("atom")}
        writer.add(RNG.normal(size=(NATOMS, 3)), TYPES, None, (False,) * 3, of_frame, of_atoms)
    writer.flush()
    (source,) = read_structures(tmp_path)
    frames = list(source)
    assert len(frames) == 2
    for f, frame in enumerate(frames):
        check(frame, arrays, f)


def test_extended_xyz_and_back(tmp_path: Path) -> None:
    dipole, rows = RNG.normal(size=3), RNG.normal(size=(2, 3, 3))
    with open(tmp_path / "some.xyz", "w") as handle:
        write_frame(
            handle,
            np.eye(3)[:2],
            ["O", "H"],
            arrays={"atom_polarizability": rows},
            info={"dipole": dipole, "gap": 0.25},
        )
    (source,) = read_structures(tmp_path / "some.xyz")
    frame = next(iter(source))
    np.testing.assert_array_equal(label_of(frame, "dipole", (3,)), dipole)
    np.testing.assert_array_equal(label_of(frame, "atom_polarizability", (3, 3), np.ones(2, dtype=bool)), rows)
    assert label_of(frame, "gap", (1,)) == [0.25]
