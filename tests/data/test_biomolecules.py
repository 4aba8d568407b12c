"""PDB and .gro: fixed columns, cells that last, elements that are certain or refused."""

from __future__ import annotations

from pathlib import Path

import dpa2
import numpy as np
import pytest
from dpa2.data import Frame, read_structures

CELL = "CRYST1   20.000   21.000   22.000  90.00  90.00  90.00 P 1           1\n"


def atom(name: str, residue: str, element: str, x: float = 1.0, place: str = " ", record: str = "ATOM  ") -> str:
    """A line of a PDB file; ``name`` is four columns wide."""
    line = f"{record}{1:5d} {name:4}{place}{residue:>3} A{1:4d}    {x:8.3f}{2.0:8.3f}{-3.5:8.3f}{1.0:6.2f}{0.0:6.2f}"
    return f"{line:76}{element:>2}\n"


WATER = atom(" O  ", "HOH", "O") + atom(" H1 ", "HOH", "H", 1.9) + atom(" H2 ", "HOH", "H", 0.1, record="HETATM")


def read(folder: Path, text: str, name: str = "some.pdb") -> list[Frame]:
    (folder / name).write_text(text)
    (source,) = read_structures(folder / name)
    return list(source)


def symbols(frame: Frame) -> list[str]:
    assert frame.names is not None
    return [frame.names[t] for t in frame.types]


def test_models_share_the_cell_that_stands_above_them(tmp_path: Path) -> None:
    """ASE opens every model but the first, and finds one of 0 atoms at the end."""
    text = CELL + "".join(f"MODEL {k}\n{WATER}TER\nENDMDL\n" for k in range(3)) + "END\n"
    found = read(tmp_path, text)
    assert len(found) == 3
    for frame in found:
        assert frame.box.tolist() == [[20, 0, 0], [0, 21, 0], [0, 0, 22]]
        assert frame.pbc == (True, True, True)
        assert frame.coords.tolist() == [[1, 2, -3.5], [1.9, 2, -3.5], [0.1, 2, -3.5]]
        assert symbols(frame) == ["O", "H", "H"]


def test_a_cell_of_each_frame_and_none(tmp_path: Path) -> None:
    second = CELL.replace("20.000", "30.000").replace("  90.00  90.00  90.00", "  80.00  95.00 100.00")
    first, last = read(tmp_path, f"{CELL}{WATER}END\n{second}{WATER}END\n")
    assert first.box[0, 0] == 20
    assert last.box[0].tolist() == [30, 0, 0]
    lengths = np.linalg.norm(last.box, axis=1)
    np.testing.assert_allclose(lengths, [30, 21, 22], rtol=1e-14)
    assert last.box[0] @ last.box[1] == pytest.approx(30 * 21 * np.cos(np.radians(100)), rel=1e-12)
    (frame,) = read(tmp_path, WATER)
    assert frame.box is None
    with pytest.warns(dpa2.ReadingWarning, match="a cell of 1 angstrom stands for none: the structure is open"):
        (frame,) = read(tmp_path, CELL.replace("20.0", " 1.0").replace("21.0", " 1.0").replace("22.0", " 1.0") + WATER)
    assert frame.box is None


def test_units_that_ipi_writes(tmp_path: Path) -> None:
    (frame,) = read(
        tmp_path, f"TITLE     Step: 0 Bead: 0 positions{{atomic_unit}} cell{{atomic_unit}}\n{CELL}{WATER}END\n"
    )
    assert frame.coords[0, 0] == pytest.approx(0.529177210903)
    assert frame.box[2, 2] == pytest.approx(22 * 0.529177210903)


@pytest.mark.parametrize(
    ("name", "residue", "symbol"),
    [
        (" CA ", "ALA", "C"),
        (" CD1", "LEU", "C"),
        ("HG11", "VAL", "H"),
        (" OW ", "SOL", "O"),
        (" HW1", "SOL", "H"),
        (" SG ", "CYS", "S"),
        ("NA  ", "NA", "Na"),
        ("CL  ", "CL", "Cl"),
        ("CA  ", "CA", "Ca"),
        ("Cu  ", "LIG", "Cu"),
        (" O1 ", "LIG", "O"),
    ],
)
def test_elements_from_names_are_certain_and_said(name: str, residue: str, symbol: str, tmp_path: Path) -> None:
    with pytest.warns(dpa2.ReadingWarning, match=f"elements from the names of atoms: {name.strip()} is {symbol}$"):
        (frame,) = read(tmp_path, atom(name, residue, ""))
    assert symbols(frame) == [symbol]


@pytest.mark.parametrize(("name", "residue"), [("CL1 ", "LIG"), (" MW ", "SOL"), ("CA  ", "LIG"), ("1234", "LIG")])
def test_names_that_tell_no_element(name: str, residue: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=r"the name does not tell the element of atom .*; write a PDB file with"):
        read(tmp_path, atom(name, residue, ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (atom(" O  ", "HOH", "O", place="A") + atom(" O  ", "HOH", "O", place="B"), "atoms have alternate locations"),
        (WATER.replace("   2.000", "   x.000"), "some.pdb, line 1: coordinates must be numbers"),
        (CELL.replace("20.000", "20.x00") + WATER, "CRYST1 must have six numbers"),
        (CELL.replace("90.00 P", "99999 P") + WATER, "no cell has these lengths and angles"),
        ("REMARK nothing\nEND\n", "no frames in this file: it has no records ATOM or HETATM of PDB"),
    ],
)
def test_malformed_pdb_files(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        read(tmp_path, text)


def gro(box: str = "2.0 2.1 2.2", digits: int = 3, names: tuple[str, ...] = ("OW", "HW1", "HW2")) -> str:
    width = digits + 5
    rows = "".join(
        f"{1:5d}{'SOL':5}{name:>5}{k:5d}{0.1 * k:{width}.{digits}f}{0.2:{width}.{digits}f}{-0.3:{width}.{digits}f}\n"
        for k, name in enumerate(names, 1)
    )
    return f"water t= 1.0\n{len(names):5d}\n{rows}   {box}\n"


@pytest.mark.parametrize("digits", [3, 5, 6])
@pytest.mark.filterwarnings("ignore::dpa2.ReadingWarning")
def test_gro_files(digits: int, tmp_path: Path) -> None:
    """nm, with as many digits as the distance between the points tells."""
    found = read(tmp_path, gro(digits=digits) * 2, "some.gro")
    assert len(found) == 2
    for frame in found:
        np.testing.assert_allclose(frame.coords, [[1, 2, -3], [2, 2, -3], [3, 2, -3]], rtol=1e-14)
        np.testing.assert_allclose(frame.box, np.diag([20, 21, 22]), rtol=1e-14)
        assert symbols(frame) == ["O", "H", "H"]
    (frame,) = read(tmp_path, gro("2.0 2.1 2.2 0.0 0.0 0.5 0.0 0.25 -0.5"), "some.gro")
    np.testing.assert_allclose(frame.box, [[20, 0, 0], [5, 21, 0], [2.5, -5, 22]], rtol=1e-14)
    (frame,) = read(tmp_path, gro("0.0 0.0 0.0"), "some.gro")
    assert frame.box is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (gro(names=("OW", "HW1", "MW")), "the name does not tell the element of atom 'MW' of residue 'SOL'"),
        (gro("2.0 2.1"), "the box must be 3 or 9 numbers, found 2"),
        (gro("2.0 2.1 x"), "the box must be numbers"),
        (gro().replace("    3\n", "    x\n"), "the number of atoms expected, found '    x'"),
        (gro().replace("    3\n", "    9\n"), "has 9 atoms, but the file ends after 4"),
        (gro().replace("0.200", "   ow"), "three coordinates with decimal points expected"),
    ],
)
def test_malformed_gro_files(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        read(tmp_path, text, "some.gro")
