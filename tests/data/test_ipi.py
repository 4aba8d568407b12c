"""XYZ files of i-PI: cell and units stand in the comment; and cells in comments that are not read."""

from __future__ import annotations

import warnings
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from dpa2.data import Frame, read_structures

BOHR = 0.529177210903
ROWS = [[0.5, 1.0, -2.0], [1.5, 1.25, -2.0], [0.25, 1.75, -1.5]]
ATOMS = "".join(f"{name} {x} {y} {z}\n" for name, (x, y, z) in zip("OHH", ROWS, strict=True))


def read(folder: Path, comment: str, atoms: str = ATOMS) -> Frame:
    """The only frame of a file with this comment."""
    path = folder / "some.xyz"
    path.write_text(f"3\n{comment}\n{atoms}")
    ((frame,),) = read_structures(path)
    return frame


@pytest.mark.parametrize(
    ("units", "of_atoms", "of_cell"),
    [
        ("", BOHR, BOHR),
        ("positions{angstrom} cell{angstrom}", 1.0, 1.0),
        ("positions{angstrom}", 1.0, BOHR),
        ("cell{angstrom} positions{atomic_unit}", BOHR, 1.0),
        ("x_centroid{angstrom}  cell{atomic_unit}", 1.0, BOHR),
        ("positions{nanometer} cell{nanometer}", 10.0, 10.0),
    ],
)
def test_units(units: str, of_atoms: float, of_cell: float, tmp_path: Path) -> None:
    frame = read(tmp_path, f"# CELL(abcABC): 12.5  13.0  14.0  90.00000  90.0  90.0  Step: 5  Bead: 0 {units}")
    np.testing.assert_allclose(frame.coords, of_atoms * np.array(ROWS), rtol=1e-14)
    np.testing.assert_allclose(frame.box, of_cell * np.diag([12.5, 13.0, 14.0]), rtol=1e-14)
    assert frame.pbc == (True, True, True)
    assert frame.names == ("O", "H")


def test_lengths_and_angles(tmp_path: Path) -> None:
    frame = read(tmp_path, "# bead: 3 CELL(abcABC): 10 11 12 80 95 105 positions{angstrom} cell{angstrom}")
    gram = frame.box @ frame.box.T
    lengths = np.sqrt(np.diag(gram))
    np.testing.assert_allclose(lengths, [10, 11, 12], rtol=1e-14)
    angles = np.degrees(np.arccos([gram[1, 2] / 132, gram[0, 2] / 120, gram[0, 1] / 110]))
    np.testing.assert_allclose(angles, [80, 95, 105], rtol=1e-13)
    np.testing.assert_allclose(frame.box[np.triu_indices(3, 1)], 0.0, atol=0)
    assert np.linalg.det(frame.box) > 0


@pytest.mark.parametrize("brackets", ["()", "[]", "{}"])
def test_matrices(brackets: str, tmp_path: Path) -> None:
    """``H`` has the lattice vectors as columns, ``GENH`` as rows."""
    left, right = brackets
    numbers = "9 1 2 0 8 3 0 0 7 Step: 0 cell{angstrom} positions{angstrom}"
    frame = read(tmp_path, f"# CELL{left}H{right}: {numbers}")
    assert frame.box.tolist() == [[9, 0, 0], [1, 8, 0], [2, 3, 7]]
    frame = read(tmp_path, f"# CELL{left}GENH{right}: {numbers}")
    assert frame.box.tolist() == [[9, 1, 2], [0, 8, 3], [0, 0, 7]]


@pytest.mark.parametrize(
    "cell", ["CELL(abcABC): 20 21 22 80 95 105", "CELL(H): 20 1 2 0 21 3 0 0 22", "CELL(GENH): 20 1 2 -1 21 3 2 0.5 22"]
)
def test_ipi_reads_the_same(cell: str, tmp_path: Path) -> None:
    """Distances between atoms and images are those that i-PI finds, which may turn the cell."""
    io = needs.package("ipi.utils.io")
    frame = read(tmp_path, f"# {cell} Step: 0 Bead: 0 positions{{angstrom}} cell{{atomic_unit}}")
    with open(tmp_path / "some.xyz") as handle:
        found = io.read_file("xyz", handle)
    theirs, box = found["atoms"].q.reshape(-1, 3) * BOHR, found["cell"].h.T * BOHR
    for shift in ((0, 0, 0), (1, 0, 0), (0, -1, 1), (1, 1, 1)):
        ours = frame.coords[1] - frame.coords[0] + np.array(shift) @ frame.box
        same = theirs[1] - theirs[0] + np.array(shift) @ box
        assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(same), rel=1e-6)


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("# CELL(abcABC): 9 9 9 90 90 90 forces{atomic_unit} cell{angstrom}", "i-PI wrote forces to this file, and no"),
        ("# CELL(abcABC): 9 9 9 90 90 90 v_centroid{atomic_unit}", "i-PI wrote v_centroid"),
        ("# CELL(abcABC): 9 9 9 90 90 90 positions{furlong}", "the unit of length 'furlong' is not known"),
        ("# CELL(abcABC): 9 9 9 90 90", r"CELL\(abcABC\) must be 6 numbers, found 5"),
        ("# CELL(H): 9 0 0 0 9 0 0 0", r"CELL\(H\) must be 9 numbers, found 8"),
        ("# CELL(abcABC): 9 9 9 90 90 190", "no cell has these lengths and angles: 9 9 9 90 90 190"),
        ("# CELL(abcABC): 9 9 9 20 20 90", "no cell has these lengths and angles"),
        ("# CELL(abcABC): -1 -1 -1 90 90 90", "no cell has these lengths and angles"),
        ("# CELL(abcABC): 1e999 9 9 90 90 90", "no cell has these lengths and angles"),
    ],
)
def test_refused(comment: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        read(tmp_path, comment)


@pytest.mark.parametrize(
    "comment",
    [
        "cell= 10 10 10 90 90 90",
        "Lattice 10.0 0 0 0 10.0 0 0 0 10.0",
        "step 5 box: 10.0, 10.0, 10.0",
        "CRYST1   10.000   10.000   10.000  90.00  90.00  90.00 P 1",
        'jmolscript: load "" {1 1 1} unitcell [ 10 0 0 0 10 0 0 0 10 ]',
        "10.0 10.0 10.0 90.0 90.0 90.0",
        "10. 0. 0. 0. 10. 0. 0. 0. 10.",
        'Properties=species:S:1:pos:R:3 cell="10 0 0 0 10 0 0 0 10"',
        "unit_cell=[[10,0,0],[0,10,0],[0,0,10]] Properties=species:S:1:pos:R:3",
        "%PBC a 10.0 b 10.0 c 10.0",
        "vec1 10 0 0 vec2 0 10 0 vec3 0 0 10",
        "a=10.0 b=10.0 c=10.0 alpha=90",
        "A 10.0 B 10.0 C 10.0",
        "frame 3 L = 10.0",
        "boxsize=10.0",
        "dimensions 10.0 10.0 10.0",
        "10.0 10.0 10.0 90.0 90.0 90.0 P1",
    ],
)
def test_cells_that_are_not_read_are_said(comment: str, tmp_path: Path) -> None:
    with pytest.warns(dpa2.ReadingWarning, match="the comment line seems to hold a cell that is not read") as record:
        frame = read(tmp_path, comment)
    assert frame.box is None
    assert len(record) == 1


@pytest.mark.parametrize(
    "comment",
    [
        "",
        "water",
        "i =        1, time =        0.500, E =       -17.2187",
        "Atoms. Timestep: 0",
        "energy: -5.1 gnorm: 0.0004 xtb: 6.5.1 (579679a)",
        "a box of water, 64 molecules",
        "0 1",
        "-76.4 0.2 after 5 steps",
        "charge=0 spin=1 cell_id=5",
        'Properties=species:S:1:pos:R:3 energy=2 pbc="F F F" config_type=cell',
    ],
)
def test_other_comments_are_left_alone(comment: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = read(tmp_path, comment)
    assert frame.box is None
    assert frame.coords.tolist() == ROWS
