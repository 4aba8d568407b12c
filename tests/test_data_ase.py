"""Formats that go through ASE, and extended XYZ as ASE understands it."""

from __future__ import annotations

import sys
from pathlib import Path

import dpa2
import numpy as np
import pytest
from dpa2.data import read_structures, write_frame

COORDS = np.array([[0.0, 0.0, 0.0], [0.5, 0.75, 1.5], [2.0, 0.25, 0.125]])
BOX = np.array([[5.0, 0.0, 0.0], [0.5, 6.0, 0.0], [0.25, 0.0, 7.0]])
SYMBOLS = ["O", "H", "H"]


def test_any_format_through_ase(tmp_path: Path) -> None:
    ase = pytest.importorskip("ase")
    from ase import io

    atoms = ase.Atoms(SYMBOLS, COORDS, cell=BOX, pbc=(True, False, True))
    io.write(tmp_path / "md.traj", [atoms, atoms[::-1]])
    (source,) = read_structures(tmp_path / "md.traj")
    assert source.count() is None
    first, second = source
    np.testing.assert_array_equal(first.coords, COORDS)
    np.testing.assert_array_equal(first.box, BOX)
    assert first.pbc == (True, False, True)
    assert first.types_in(["H", "O"]).tolist() == [1, 0, 0]
    assert second.types_in(["H", "O"]).tolist() == [0, 0, 1]
    assert second.where == f"{tmp_path / 'md.traj'}, frame 1"


def test_molecule_without_cell(tmp_path: Path) -> None:
    ase = pytest.importorskip("ase")
    from ase import io

    io.write(tmp_path / "one.json", ase.Atoms(SYMBOLS, COORDS))
    ((frame,),) = read_structures(tmp_path / "one.json")
    assert frame.box is None


def test_unreadable_file(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    (tmp_path / "some.cif").write_text("data_x\nloop_\n_cell_length_a\n")
    (source,) = read_structures(tmp_path / "some.cif")
    with pytest.raises(dpa2.InputError, match=r"some\.cif: ASE cannot read frame 0"):
        list(source)


def test_without_ase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase.io", None)
    (tmp_path / "POSCAR").write_text("x")
    with pytest.raises(dpa2.InputError, match=r"read without ASE; install it with: pip install 'dpa2\[ase\]'"):
        read_structures(tmp_path / "POSCAR")


def test_ase_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    from ase import io

    forces = np.arange(9.0).reshape(3, 3) / 7
    with open(tmp_path / "out.extxyz", "w") as handle:
        write_frame(
            handle, COORDS, SYMBOLS, BOX, (True, True, False), {"forces": forces}, {"energy": -1 / 3, "note": "a b"}
        )
    atoms = io.read(tmp_path / "out.extxyz")
    np.testing.assert_array_equal(atoms.positions, COORDS)
    np.testing.assert_array_equal(np.array(atoms.cell), BOX)
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    assert atoms.get_potential_energy() == -1 / 3
    assert atoms.pbc.tolist() == [True, True, False]
    assert atoms.info["note"] == "a b"


def test_what_ase_writes_is_read(tmp_path: Path) -> None:
    ase = pytest.importorskip("ase")
    from ase import io
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = ase.Atoms(SYMBOLS, COORDS, cell=BOX, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-2.5, forces=COORDS)
    io.write(tmp_path / "from_ase.extxyz", [atoms, atoms])
    (source,) = read_structures(tmp_path / "from_ase.extxyz")
    found = list(source)
    assert len(found) == source.count() == 2
    for frame in found:
        np.testing.assert_allclose(frame.coords, COORDS, atol=1e-8)
        np.testing.assert_allclose(frame.forces, COORDS, atol=1e-8)
        np.testing.assert_allclose(frame.box, BOX, atol=1e-8)
        assert frame.energy == -2.5
