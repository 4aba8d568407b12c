"""Formats that go through ASE, and extended XYZ as ASE understands it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from dpa2.data import read_structures, write_frame

COORDS = np.array([[0.0, 0.0, 0.0], [0.5, 0.75, 1.5], [2.0, 0.25, 0.125]])
BOX = np.array([[5.0, 0.0, 0.0], [0.5, 6.0, 0.0], [0.25, 0.0, 7.0]])
SYMBOLS = ["O", "H", "H"]


def test_any_format_through_ase(tmp_path: Path) -> None:
    ase = needs.package("ase")
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
    ase = needs.package("ase")
    from ase import io

    io.write(tmp_path / "one.json", ase.Atoms(SYMBOLS, COORDS))
    ((frame,),) = read_structures(tmp_path / "one.json")
    assert frame.box is None


def test_unreadable_file(tmp_path: Path) -> None:
    needs.package("ase")
    (tmp_path / "some.json").write_text("{")
    (source,) = read_structures(tmp_path / "some.json")
    with pytest.raises(dpa2.InputError, match=r"some\.json: ASE cannot read frame 0"):
        list(source)
    (tmp_path / "some.cif").write_text("data_x\nloop_\n_cell_length_a\n")
    with pytest.raises(
        dpa2.InputError, match=r"some\.cif: no frames in this file, which ASE took for the format 'cif'"
    ):
        list(read_structures(tmp_path / "some.cif")[0])


POSCAR = "{title}\n1.0\n8 0 0\n0 8 0\n0 0 8\n1 2\nCartesian\n0 0 0\n1 0 0\n0 1 0\n"


def test_poscar_without_a_line_of_elements(tmp_path: Path) -> None:
    """ASE takes any word of the title that could be a formula: "No" is nobelium, "In" indium."""
    needs.package("ase")
    path = tmp_path / "POSCAR"
    path.write_text(POSCAR.format(title="O H"))
    ((frame,),) = read_structures(path)
    assert [frame.names[t] for t in frame.types] == ["O", "H", "H"]
    path.write_text(POSCAR.format(title="No H In this cell"))
    with pytest.raises(dpa2.InputError, match=r"there are no elements above the numbers of atoms .* with --types"):
        list(read_structures(path)[0])
    ((frame,),) = read_structures(path, types=("Cu", "O"))
    assert [frame.names[t] for t in frame.types] == ["Cu", "O", "O"]
    assert frame.coords.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_poscar_of_more_atoms_than_lines(tmp_path: Path) -> None:
    needs.package("ase")
    (tmp_path / "POSCAR").write_text(POSCAR.format(title="O H").replace("1 2", "1 999999999"))
    with pytest.raises(dpa2.InputError, match="1000000000 atoms are stated, but the file has 12 lines"):
        list(read_structures(tmp_path / "POSCAR")[0])


def test_at_sign_in_a_name(tmp_path: Path) -> None:
    """ASE takes what follows it for the number of a frame."""
    ase = needs.package("ase")
    from ase import io

    io.write(tmp_path / "md.traj", [ase.Atoms("O"), ase.Atoms("H")])
    (tmp_path / "md.traj").rename(tmp_path / "md@1.traj")
    assert [frame.names for frame in read_structures(tmp_path / "md@1.traj")[0]] == [("O",), ("H",)]


def test_atoms_without_elements(tmp_path: Path) -> None:
    ase = needs.package("ase")
    from ase import io

    io.write(tmp_path / "some.json", ase.Atoms("OX", [[0, 0, 0], [1, 0, 0]]))
    with pytest.raises(dpa2.InputError, match="the file does not say which element atom 1 is"):
        list(read_structures(tmp_path / "some.json")[0])
    io.write(tmp_path / "none.json", ase.Atoms())
    with pytest.raises(dpa2.InputError, match="no atoms; ASE took the file for the format 'json'"):
        list(read_structures(tmp_path / "none.json")[0])


CFG = """Number of particles = 1
A = 1.0 Angstrom
H0(1,1) = 8 A
H0(2,2) = 8 A
H0(3,3) = 8 A
.NO_VELOCITY.
entry_count = 3
{mass}
C
0.5 0.5 0.5
"""


def test_elements_that_are_not_those_of_the_masses(tmp_path: Path) -> None:
    """LAMMPS writes C for every type into .cfg files unless it is told the elements."""
    needs.package("ase")
    path = tmp_path / "some.cfg"
    path.write_text(CFG.format(mass="12.011"))
    ((frame,),) = read_structures(path)
    assert frame.names == ("C",)
    path.write_text(CFG.format(mass="15.999"))
    with pytest.raises(dpa2.InputError, match=r"an atom is C, but its mass is 15\.999"):
        list(read_structures(path)[0])


def dl_poly(*names: str) -> str:
    """A CONFIG file of DL_POLY."""
    return "title\n0 1\n8 0 0\n0 8 0\n0 0 8\n" + "".join(f"{name} {k}\n{k} 0 0\n" for k, name in enumerate(names, 1))


def test_elements_from_names_of_dl_poly(tmp_path: Path) -> None:
    """ASE takes CL for carbon."""
    needs.package("ase")
    path = tmp_path / "CONFIG"
    path.write_text(dl_poly("O", "H", "H"))
    ((frame,),) = read_structures(path)
    assert [frame.names[t] for t in frame.types] == ["O", "H", "H"]
    path.write_text(dl_poly("OW", "HW1"))
    with pytest.warns(dpa2.ReadingWarning, match="told by masses or names: OW is O, HW1 is H"):
        ((frame,),) = read_structures(path)
    path.write_text(dl_poly("O", "CL"))
    with pytest.raises(dpa2.InputError, match="the name CL does not tell an element"):
        list(read_structures(path)[0])


def test_elements_from_masses_of_gpumd(tmp_path: Path) -> None:
    needs.package("ase")
    path = tmp_path / "xyz.in"
    text = "2 100 5.0 0 0 0\n1 1 1 8 8 8\n0 0 0 0 {}\n1 1 0 0 1.008\n"
    path.write_text(text.format(15.999))
    with pytest.warns(dpa2.ReadingWarning, match=r"told by masses or names: O \(15\.999\), H \(1\.008\)"):
        ((frame,),) = read_structures(path)
    assert [frame.names[t] for t in frame.types] == ["O", "H"]
    path.write_text(text.format(40))
    with pytest.raises(dpa2.InputError, match="the mass 40 does not tell an element"):
        list(read_structures(path)[0])


CIF = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 0 0 0 {share}
"""


def test_sites_that_are_occupied_in_part(tmp_path: Path) -> None:
    needs.package("ase")
    path = tmp_path / "some.cif"
    path.write_text(CIF.format(share="1.0"))
    ((frame,),) = read_structures(path)
    assert frame.names == ("Cu",)
    path.write_text(CIF.format(share="0.5"))
    with pytest.raises(dpa2.InputError, match=r"a site is occupied in part \(Cu 0\.5\)"):
        list(read_structures(path)[0])


def test_names_that_ase_takes_for_data_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.package("ase")
    monkeypatch.chdir(tmp_path)
    Path("postgres.out").write_text("x")
    with pytest.raises(dpa2.InputError, match=r"ASE takes this name for the address of a data base; write \./postgres"):
        list(read_structures("postgres.out")[0])


def test_without_ase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase.io", None)
    (tmp_path / "POSCAR").write_text("x")
    with pytest.raises(dpa2.InputError, match=r"read without ASE; install it with: pip install 'dpa2\[ase\]'"):
        read_structures(tmp_path / "POSCAR")


def test_ase_reads_what_is_written(tmp_path: Path) -> None:
    needs.package("ase")
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
    ase = needs.package("ase")
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


@pytest.mark.parametrize(("suffix", "kind"), [(".con", "eon"), (".traj", "traj")])
def test_cells_that_a_reader_leaves_aside_are_said(suffix: str, kind: str, tmp_path: Path) -> None:
    """EON's files are periodic in their cells; ASE reads them as open structures. A .traj says so itself."""
    ase = needs.package("ase")
    from ase.io import write

    path = tmp_path / f"some{suffix}"
    write(path, ase.Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[5, 6, 8]), format=kind)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (source,) = read_structures(path)
        assert [frame.box for frame in source] == [None]
    messages = [str(one.message) for one in said if issubclass(one.category, dpa2.ReadingWarning)]
    assert len(messages) == (kind == "eon")
    assert all("the file has a cell, but ASE's reader of eon takes it for an open structure" in m for m in messages)
