"""LAMMPS's dumps and data files. The texts are of one small box, written by LAMMPS itself in many ways."""

from __future__ import annotations

import gzip
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from cli_runs import interrupt
from dpa2 import streams
from dpa2.cli import main
from dpa2.data import Frame, read_structures

BOX = np.array([[8.0, 0.0, 0.0], [1.0, 9.0, 0.0], [0.5, -0.75, 10.0]])
COORDS = np.array([[1.0, 2.0, 3.0], [2.5, 2.0, 3.0], [1.0, 3.1, 9.9]])
BOUNDS = "0 9.5 1\n-0.75 9 0.5\n0 10 -0.75\n"
SCALED = "1 1 0.0753472222 0.2472222222 0.3\n2 2 0.2628472222 0.2472222222 0.3\n3 2 0.0097569444 0.4269444444 0.99\n"
HEADER = "3 atoms\n2 atom types\n\n0 8 xlo xhi\n0 9 ylo yhi\n0 10 zlo zhi\n1 0.5 -0.75 xy xz yz\n"
MASSES = "Masses\n\n1 15.999\n2 1.008\n"
NAMED = "Masses\n\n1 15.999 # O\n2 1.008 # H\n"


def dump(columns: str, rows: str, box: str = "xy xz yz pp pp pp", bounds: str = BOUNDS, natoms: int = 3) -> str:
    """A frame of a dump."""
    head = f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{natoms}\nITEM: BOX BOUNDS {box}\n{bounds}"
    return f"{head}ITEM: ATOMS {columns}\n{rows}"


def read(folder: Path, text: str, name: str = "some.file", **options: object) -> list[Frame]:
    """All frames of a text."""
    (folder / name).write_text(text)
    (source,) = read_structures(folder / name, **options)  # type: ignore[arg-type]
    found = list(source)
    assert source.count() == len(found)
    return found


def assert_is_the_box(frame: Frame, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(frame.coords, COORDS, rtol=0, atol=tolerance)
    np.testing.assert_allclose(frame.box, BOX, rtol=0, atol=1e-12)
    assert [frame.names[t] for t in frame.types] == ["O", "H", "H"]
    assert frame.pbc == (True, True, True)
    assert frame.energy is None
    assert frame.forces is None


# -------------------------------------------------------------------------------- dumps


@pytest.mark.parametrize(
    ("columns", "rows", "tolerance"),
    [
        ("id type element x y z", "1 1 O 1 2 3\n2 2 H 2.5 2 3\n3 2 H 1 3.1 9.9\n", 0),
        ("element zu yu xu id", "H 9.9 3.1 1 3\nO 3 2 1 1\nH 3 2 2.5 2\n", 0),
        ("id typelabel x y z fx fy fz", "2 H 2.5 2 3 0 0 0\n3 H 1 3.1 9.9 0 0 0\n1 O 1 2 3 0 0 0\n", 0),
        ("id element xs ys zs", SCALED.replace(" 1 0.0", " O 0.0", 1).replace(" 2 0.", " H 0."), 1e-8),
        ("id element xsu ysu zsu", SCALED.replace(" 1 0.0", " O 0.0", 1).replace(" 2 0.", " H 0."), 1e-8),
    ],
)
def test_dumps_with_elements(columns: str, rows: str, tolerance: float, tmp_path: Path) -> None:
    (frame,) = read(tmp_path, dump(columns, rows))
    assert_is_the_box(frame, tolerance)


@pytest.mark.parametrize("columns", ["id type x y z", "id type element x y z"])
def test_types_say_the_elements(columns: str, tmp_path: Path) -> None:
    rows = ["1 1 1 2 3", "2 2 2.5 2 3", "3 2 1 3.1 9.9"]
    if "element" in columns:  # which LAMMPS writes where nothing else was said
        rows = [row[:4] + "C " + row[4:] for row in rows]
    text = dump(columns, "\n".join(rows) + "\n")
    (frame,) = read(tmp_path, text, types=["O", "H"])
    assert_is_the_box(frame)
    with pytest.raises(dpa2.InputError, match=r"frame 0: (the dump has type numbers|every type is C).* with --types"):
        read(tmp_path, text)
    with pytest.raises(dpa2.InputError, match=r"an atom of type 2, but --types has 1 name \(O\)"):
        read(tmp_path, text, types=["O"])


def test_elements_from_masses_are_said(tmp_path: Path) -> None:
    rows = "1 1 15.999 1 2 3\n2 2 1.008 2.5 2 3\n3 2 1.008 1 3.1 9.9\n"
    for columns, text in (
        ("id type mass x y z", rows),
        ("id q mass x y z", rows),
    ):
        with pytest.warns(dpa2.ReadingWarning, match="elements from the masses: type .* O .15.999") as record:
            frames = read(tmp_path, dump(columns, text) * 2)
        assert len(record) == 1
        assert len(frames) == 2
        assert_is_the_box(frames[1])


def test_boundaries_and_an_origin_elsewhere(tmp_path: Path) -> None:
    text = dump("element xs ys zs", "O 0 0.5 1\n", "pp fs mm", "-1 3\n2 8\n0 5\n", natoms=1)
    (frame,) = read(tmp_path, text)
    assert frame.pbc == (True, False, False)
    assert frame.box.tolist() == [[4, 0, 0], [0, 6, 0], [0, 0, 5]]
    assert frame.coords.tolist() == [[-1, 5, 5]]
    with pytest.warns(dpa2.ReadingWarning, match="does not say which directions are periodic; all are taken to be"):
        (frame,) = read(tmp_path, text.replace("pp fs mm", ""))
    assert frame.pbc == (True, True, True)


def test_general_box(tmp_path: Path) -> None:
    bounds = "7 1 0 -1\n1 8 0.5 0\n0 -1 9 2\n"
    (frame,) = read(tmp_path, dump("element x y z", "O 2.5 3 4.7\n", "abc origin pp pp pp", bounds, natoms=1))
    assert frame.box.tolist() == [[7, 1, 0], [1, 8, 0.5], [0, -1, 9]]
    assert frame.coords.tolist() == [[2.5, 3, 4.7]]
    (frame,) = read(tmp_path, dump("element xs ys zs", "O 0.5 0 1\n", "abc origin pp pp pp", bounds, natoms=1))
    np.testing.assert_allclose(frame.coords, [[-1 + 3.5, 0.5 - 1.0, 2 + 9.0]], atol=1e-14)


@pytest.mark.parametrize(("units", "factor"), [("real", 1.0), ("nano", 10.0), ("electron", 0.529177210903)])
def test_units_of_length(units: str, factor: float, tmp_path: Path) -> None:
    rows = "1 1 1 2 3\n2 2 2.5 2 3\n3 2 1 3.1 9.9\n"
    text = f"ITEM: UNITS\n{units}\nITEM: TIME\n0.5\n{dump('id type x y z', rows)}{dump('id type x y z', rows)}"
    for frame in read(tmp_path, text, types=("O", "H")):
        np.testing.assert_allclose(frame.coords, factor * COORDS, rtol=1e-14)
        np.testing.assert_allclose(frame.box, factor * BOX, rtol=1e-14, atol=1e-14)


def test_compressed_dump(tmp_path: Path) -> None:
    path = tmp_path / "dump.gz"
    path.write_bytes(gzip.compress(dump("id element x y z", "1 O 1 2 3\n2 H 2.5 2 3\n3 H 1 3.1 9.9\n").encode()))
    ((frame,),) = read_structures(path)
    assert_is_the_box(frame)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(dpa2.InputError, match="the compressed file is truncated or corrupt"):
        list(read_structures(path)[0])


def test_no_atoms_is_a_frame_and_no_frames_an_error(tmp_path: Path) -> None:
    (frame,) = read(tmp_path, dump("id element x y z", "", natoms=0))
    assert frame.coords.shape == (0, 3)
    with pytest.raises(dpa2.InputError, match="no frames in this file"):
        read(tmp_path, "ITEM: UNITS\nmetal\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (dump("id element x y z", "1 O 1 2 3\n"), r"frame 0 \(line 9\) has 3 atoms, but the file ends after 1"),
        (dump("id element x y z", "1 O 1 2 3\n")[:41], "the file ends within frame 0"),
        (dump("id element x y z", "1 O 1 2 3\n" * 3), "there are two atoms of id 1"),
        (dump("id element x y", "1 O 1 2\n" * 3), "the dump must have columns x y z"),
        (dump("id element x y z z", "1 O 1 2 3 3\n" * 3), "ATOMS has a column twice"),
        (dump("id element x y z", "1 O 1 2\n" * 3), "5 columns expected, found 4: '1 O 1 2'"),
        (dump("id element x y z", "1 O 1 2 1_0\n" * 3), "x y z must be numbers"),
        (dump("id element x y z", "1.5 O 1 2 1\n" * 3), "id must be whole numbers, found '1.5'"),
        (dump("", "1 1 0 0 0\n" * 3), "does not name its columns"),
        (dump("element x y z", "O 0 0 0\n", "pp pp pp", "0 0\n0 5\n0 5\n", 1), "the edges of the box must be positive"),
        (dump("element x y z", "O 0 0 0\n", "pp pp pp", "0 x\n0 5\n0 5\n", 1), "bounds of the box must be numbers"),
        (dump("element x y z", "O 0 0 0\n", "pp pp", "0 1\n0 5\n0 5\n", 1), "is no box that is known"),
        (dump("element x y z", "O 0 0 0\n").replace("NUMBER OF ATOMS\n3", "NUMBER OF ATOMS\nx"), "no number of atoms"),
        (dump("element x y z", "O 0 0 0\n").replace("\n3\n", f"\n{'9' * 5000}\n"), "no number of atoms"),
        (dump("element x y z", "O 0 0 0\n", natoms=1).replace("ATOMS element", "ENTRIES element"), "not of 'ENTRIES"),
        ("ITEM: UNITS\nlj\n" + dump("element x y z", "O 0 0 0\n", natoms=1), "lengths in units 'lj' are not angstrom"),
        (dump("id type mass x y z", "1 1 3.024 0 0 0\n", natoms=1), r"the mass 3.024 of type 1 does not tell"),
        (
            dump("id type mass x y z", "1 1 16 0 0 0\n2 1 1 1 0 0\n", natoms=2),
            "atoms of type 1 have the masses 16 and 1; name the elements",
        ),
        (dump("id type mass x y z", "1 1 40 0 0 0\n", natoms=1), "the mass 40 of type 1 does not tell its element"),
    ],
)
def test_malformed_dumps(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        read(tmp_path, text)


# -------------------------------------------------------------------------------- data files


def data(atoms: str, above: str = NAMED, header: str = HEADER, title: str = "a title") -> str:
    return f"{title}\n\n{header}\n{above}\n{atoms}\nVelocities\n\n1 0 0 0\n2 0 0 0\n3 0 0 0\n"


ATOMIC = "Atoms # atomic\n\n3 2 1 3.1 9.9 0 0 1\n1 1 1 2 3 0 0 0\n2 2 2.5 2 3 0 -1 0\n"
PLAIN = {
    "atomic": "1 1 1 2 3\n2 2 2.5 2 3\n3 2 1 3.1 9.9\n",
    "charge": "1 1 -0.8 1 2 3\n2 2 0.4 2.5 2 3\n3 2 0.4 1 3.1 9.9\n",
    "molecular": "1 7 1 1 2 3\n2 7 2 2.5 2 3\n3 8 2 1 3.1 9.9\n",
    "full": "1 1 1 -0.8 1 2 3\n2 1 2 0.4 2.5 2 3\n3 2 2 0.4 1 3.1 9.9\n",
    "sphere": "1 1 2.0 1.5 1 2 3\n2 2 1.0 1.5 2.5 2 3\n3 2 1.0 1.5 1 3.1 9.9\n",
    "spin": "1 1 1 2 3 0 0 1 2\n2 2 2.5 2 3 0 0 1 2\n3 2 1 3.1 9.9 0 0 1 2\n",
    "hybrid": "1 1 1 2 3 0.5 1\n2 2 2.5 2 3 0.5 1\n3 2 1 3.1 9.9 0.5 1\n",
}


@pytest.mark.parametrize("style", PLAIN)
def test_styles_that_are_named(style: str, tmp_path: Path) -> None:
    for name in ("x.data", "system.lmp", "noname"):
        (frame,) = read(tmp_path, data(f"Atoms  # {style}\n\n{PLAIN[style]}"), name)
        assert_is_the_box(frame)
    (frame,) = read(tmp_path, data(f"Atoms\n\n{PLAIN[style]}"), atom_style=style)
    assert_is_the_box(frame)


@pytest.mark.parametrize("images", ["", " 0 -1 0"])
@pytest.mark.parametrize("style", PLAIN)
def test_styles_that_are_not_named(style: str, images: str, tmp_path: Path) -> None:
    """From the columns where they can mean one thing only, else refused with the option that says it."""
    text = data("Atoms\n\n" + PLAIN[style].replace("\n", f"{images}\n"))
    if style in ("atomic", "charge", "molecular", "full"):
        assert_is_the_box(read(tmp_path, text)[0])
        return
    with pytest.raises(dpa2.InputError, match="may mean several things; say it with --atom-style"):
        read(tmp_path, text)


def test_whole_charges_are_not_taken_for_types(tmp_path: Path) -> None:
    text = data("Atoms\n\n1 1 1 1 2 3\n2 2 1 2.5 2 3\n3 2 1 1 3.1 9.9\n")
    with pytest.raises(dpa2.InputError, match="--atom-style"):
        read(tmp_path, text)
    assert_is_the_box(read(tmp_path, text, atom_style="charge")[0])


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (data(ATOMIC), {}),
        (data(ATOMIC, ""), {"types": ("O", "H")}),
        (data(ATOMIC, "Masses\n\n1 1.0\n2 1.0\n"), {"types": ("O", "H")}),
        (data(ATOMIC, "Atom Type Labels\n\n1 O\n2 H\n"), {}),
        (data(ATOMIC.replace(" 1 1 2", " O 1 2").replace(" 2 2", " H 2"), "Atom Type Labels\n\n1 O\n2 H\n"), {}),
        (data(ATOMIC, "Masses\n\nO 15.999\nH 1.008\n\nAtom Type Labels\n\n1 O\n2 H\n"), {}),
        (data(ATOMIC, f"{NAMED}\nPair Coeffs # lj/cut\n\n1 0.1 3\n2 0.1 3\n"), {}),
    ],
)
def test_elements_of_data_files(text: str, options: dict[str, object], tmp_path: Path) -> None:
    (frame,) = read(tmp_path, text, "x.data", **options)
    assert_is_the_box(frame)


def test_elements_of_data_files_from_masses_are_said(tmp_path: Path) -> None:
    with pytest.warns(dpa2.ReadingWarning, match=r"type 1 is O \(15.999\), type 2 is H \(1.008\); --types says"):
        (frame,) = read(tmp_path, data(ATOMIC, MASSES))
    assert_is_the_box(frame)
    with pytest.warns(dpa2.ReadingWarning, match=r"type 1 is O \(16\), type 2 is H \(1\)"):
        read(tmp_path, data(ATOMIC, "Masses\n\n1 16 # OW\n2 1 # HW\n"))


def test_boxes_and_units_of_data_files(tmp_path: Path) -> None:
    title = "LAMMPS data file via write_data, version 2 Aug 2023, timestep = 0, units = nano"
    (frame,) = read(tmp_path, data(ATOMIC, title=title))
    np.testing.assert_allclose(frame.coords, 10 * COORDS, rtol=1e-14)
    np.testing.assert_allclose(frame.box, 10 * BOX, rtol=1e-14, atol=1e-14)
    header = "3 atoms\n2 atom types\n8 0 0.5 avec\n1 9 0 bvec\n0 -1 10 cvec\n0 0 0 abc origin\n"
    (frame,) = read(tmp_path, data(ATOMIC, header=header))
    assert frame.box.tolist() == [[8, 0, 0.5], [1, 9, 0], [0, -1, 10]]
    np.testing.assert_array_equal(frame.coords, COORDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (data(ATOMIC, ""), r"nothing says which element type 2 is; .* --types"),
        (data(ATOMIC, "Masses\n\n1 1\n2 1.5\n"), "the mass 1.5 of type 2 does not tell its element"),
        (
            data(ATOMIC, "Masses\n\n1 1.008 # O\n2 15.999 # H\n"),
            "type 1 is called O, but its mass is 1.008, not 15.999",
        ),
        (data(ATOMIC.replace("3 2 1", "3 5 1")), "nothing says which element type 5 is"),
        (data(ATOMIC, header=HEADER.replace("3 atoms", "4 atoms")), "has 4 atoms, the section Atoms 3"),
        (data(ATOMIC.replace("\n1 1", "\n2 1")), "there are two atoms of id 2"),
        (data(ATOMIC.replace("9.9", "9,9")), "coordinates must be numbers"),
        (
            data(ATOMIC.replace("atomic", "full")),
            "a row of Atoms has 8 columns, but 7 .or 10 with image flags. in style",
        ),
        (data(ATOMIC.replace("atomic", "granular")), "the atom style 'granular' is not known; atomic, charge,"),
        (data(ATOMIC, header=HEADER.replace("0 9 ylo yhi\n", "")), "the header must have xlo xhi, ylo yhi, zlo zhi"),
        (data(ATOMIC, header=HEADER.replace("0 8 xlo", "8 0 xlo")), "the edges of the box must be positive numbers"),
        (data(ATOMIC, title="timestep = 0, units = lj"), "lengths in units 'lj'"),
        (data(ATOMIC + "\n" + ATOMIC), "the section Atoms is there twice"),
    ],
)
def test_malformed_data_files(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        read(tmp_path, text, "x.data")


def test_example_is_the_water_that_it_was_made_from() -> None:
    examples = Path(__file__).parents[2] / "examples"
    with pytest.warns(dpa2.ReadingWarning, match="elements from the masses"):
        ((ours,),) = read_structures(examples / "lammps" / "water.data")
    ((theirs,),) = read_structures(examples / "water_192.extxyz")
    assert ours.types_in(["O", "H"]).tolist() == theirs.types_in(["O", "H"]).tolist()
    np.testing.assert_allclose(ours.box, theirs.box, rtol=0, atol=1e-12)
    away = (ours.coords - theirs.coords) @ np.linalg.inv(ours.box)
    np.testing.assert_allclose(away, np.round(away), rtol=0, atol=1e-9)


def test_a_name_in_data_is_no_format(tmp_path: Path) -> None:
    """ASE takes any .data for RuNNer's format, and finds no frames in it."""
    needs.package("ase")
    with pytest.raises(dpa2.InputError, match="no frames in this file, which ASE took for the format 'runnerdata'"):
        read(tmp_path, "some text\nof nothing\n", "x.data")


def test_commands_take_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.dump").write_text(dump("id type x y z", "1 1 1 2 3\n2 2 1.9 2 3\n3 2 1 2.9 3\n"))
    assert main(["eval", "t.dump"]) == 2
    assert "has type numbers and no elements; name the elements of types 1, 2, ..." in capsys.readouterr().err
    assert main(["eval", "t.dump", "--types", "O", "H"]) == 0
    shown = capsys.readouterr().out
    Path("t.xyz").write_text(
        '3\nLattice="8 0 0 1 9 0 0.5 -0.75 10" Properties=species:S:1:pos:R:3\nO 1 2 3\nH 1.9 2 3\nH 1 2.9 3\n'
    )
    assert main(["eval", "t.xyz"]) == 0
    assert capsys.readouterr().out.replace("t.xyz", "t.dump") == shown
    for command in (["descriptor", "t.dump", "-o", "t.npy"], ["neighbor-stat", "-s", "t.dump"]):
        assert main([*command, "--types", "O", "H"]) == 0


def test_interrupted_work_does_not_go_on_with_other_elements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = dump("id type x y z", "1 1 1 2 3\n2 2 1.9 2 3\n3 2 1 2.9 3\n")
    Path("t.dump").write_text(frame * 3)
    monkeypatch.setattr(streams, "TASK_ATOMS", 3)
    command = ["descriptor", "t.dump", "-o", "t.npy", "--types"]
    interrupt(monkeypatch, "descriptor", call=2)
    assert main([*command, "O", "H"]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main([*command, "H", "O"]) == 2
    assert "--restart" in capsys.readouterr().err
