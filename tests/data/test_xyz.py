"""Plain and extended XYZ: what is read, what is refused, and that what is written reads back exactly."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import dpa2
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
from dpa2.data import read_structures, write_frame
from dpa2.data.frames import Frame
from dpa2.data.xyz import XyzFile
from dpa2.data.xyz_comment import comment_pairs
from hypothesis import given, settings


def read(tmp_path: Path, content: str) -> list[Frame]:
    path = tmp_path / "some.xyz"
    path.write_text(content)
    (source,) = read_structures(path)
    found = list(source)
    assert source.count() == len(found)
    return found


def test_plain(tmp_path: Path) -> None:
    (frame,) = read(tmp_path, "2\nwater = 3, energy of it unknown, pbc later\nO 0 0 0.5\nH 1e0 -2 3 7.0 extra\n")
    assert frame.coords.tolist() == [[0.0, 0.0, 0.5], [1.0, -2.0, 3.0]]
    assert frame.names == ("O", "H")
    assert frame.box is None
    assert frame.pbc == (False, False, False)


def test_empty_comment_and_trailing_blank_lines(tmp_path: Path) -> None:
    assert len(read(tmp_path, "1\n\nO 0 0 0\n\n  \n1\n\nO 1 1 1\n\n")) == 2
    (frame,) = read(tmp_path, "0\nnothing\n")
    assert frame.coords.shape == (0, 3)


def test_extended(tmp_path: Path) -> None:
    comment = (
        'Lattice="5.0 0 0 1 6 0 0 0 7" Properties=species:S:1:Z:I:1:pos:R:3:forces:R:3:move_mask:L:1:aparam:R:2 '
        "energy=-1.25 virial=\"1 2 3 4 5 6 7 8 9\" pbc='T F T' fparam=[0.5,2] config_type={some name} "
        'note="a \\"quoted\\" word" dft'
    )
    content = f"2\n{comment}\nH 1 0 0 0 .1 .2 .3 T 1 2\nO 8 1 2 3 .4 .5 .6 F 3 4\n"
    (frame,) = read(tmp_path, content)
    assert frame.names == ("H", "O")
    assert frame.types.tolist() == [0, 1]
    assert frame.box.tolist() == [[5, 0, 0], [1, 6, 0], [0, 0, 7]]
    assert frame.pbc == (True, False, True)
    assert frame.volume is None
    assert frame.coords.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert frame.forces.tolist() == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    assert frame.energy == -1.25
    assert frame.virial.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert frame.fparam.tolist() == [0.5, 2.0]
    assert frame.aparam.tolist() == [[1, 2], [3, 4]]
    assert frame.info == {"config_type": "some name", "note": 'a "quoted" word', "dft": "T"}


def test_comment_without_lattice_is_open(tmp_path: Path) -> None:
    (frame,) = read(tmp_path, '1\nProperties=species:S:1:pos:R:3 energy=2 pbc="F F F"\nO 0 0 0\n')
    assert frame.box is None
    assert frame.energy == 2.0


def test_lattice_with_open_boundaries(tmp_path: Path) -> None:
    (frame,) = read(tmp_path, '1\nlattice="5 0 0 0 5 0 0 0 5" pbc=F\nO 0 0 0\n')
    assert frame.box is not None
    assert frame.pbc == (False, False, False)


def test_comment_pairs() -> None:
    found = comment_pairs("""a=1 b = 2 "long key"="x y" c='p "q"' d={1 2} e=[1, 2] flag  f=""")
    assert dict(found) == {
        "a": "1",
        "b": "2",
        "long key": "x y",
        "c": 'p "q"',
        "d": "1 2",
        "e": "1, 2",
        "flag": "T",
        "f": "",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"some\.xyz: no frames in this file"),
        ("two\n\nO 0 0 0\n", r"some\.xyz, line 1: the number of atoms of the next frame expected, found 'two'"),
        ("-1\n\n", "line 1: the number of atoms"),
        ("2\n\nO 0 0 0\n", r"frame 0 \(line 1\) has 2 atoms, but the file ends after 1"),
        ("99999999999999\n\nO 0 0 0\n", "has 99999999999999 atoms, but the file ends after 1"),
        ("1\n", "has 1 atoms, but the file ends after 0"),
        ("1\n\nO 0 0 0\nH 0 0 0\n", "line 4: the number of atoms of the next frame expected, found 'H 0 0 0'"),
        ("1\n\nO 0 0\n", "line 3: 4 columns expected, found 3: 'O 0 0'"),
        ("1\n\nO 0 zero 0\n", "line 3: pos must be numbers, found 'zero'"),
        ('1\nLattice="1 2 3"\nO 0 0 0\n', r"frame 0 \(line 2\): Lattice must be 9 numbers, found 3"),
        ('1\nLattice="1 2 3 4 5 6 7 8 x"\nO 0 0 0\n', "Lattice must be numbers"),
        ("1\nProperties=species:S:1:pos:R\nO 0 0 0\n", "Properties must be triples name:kind:columns"),
        ("1\nProperties=species:S:1:pos:R:x\nO 0 0 0\n", "Properties must be triples"),
        ("1\nProperties=pos:R:3\n0 0 0\n", r"Properties needs species:S:1 \(or Z:I:1\) and pos:R:3"),
        ("1\nProperties=species:S:1:pos:R:2\nO 0 0\n", r"Properties needs species:S:1 \(or Z:I:1\) and pos:R:3"),
        ("1\nProperties=species:S:1:pos:R:3\nO 0 0 0 0\n", "line 3: 4 columns expected, found 5"),
        ('1\npbc="T T T"\nO 0 0 0\n', "pbc is 'T T T', but there is no Lattice"),
        ('1\nLattice="5 0 0 0 5 0 0 0 5" pbc="T maybe F"\nO 0 0 0\n', "pbc must be like"),
        ('1\nLattice="5 0 0 0 5 0 0 0 5" energy=low\nO 0 0 0\n', "energy must be numbers, found 'low'"),
        ("1\n\nO 0 0 0\n1\n\nO a 0 0\n", "line 6: pos must be numbers"),
        ("9" * 5000 + "\n\nO 0 0 0\n", "line 1: the number of atoms of the next frame expected, found '9999"),
        ("\u0663\n\nO 0 0 0\n", "line 1: the number of atoms"),
        ("1\n\nO 1_0 0 0\n", "line 3: pos must be numbers, found '1_0'"),
        ("1\n\nO \u0661 0 0\n", "line 3: pos must be numbers"),
        ("1\nProperties=species:S:1:pos:R:3:pos:R:3\nO 0 0 0 1 1 1\n", "Properties has the column 'pos' twice"),
        ("1\nProperties=species:S:2:pos:R:3\nO a 0 0 0\n", "Properties needs species:S:1"),
        ("1\nProperties=species:S:1:symbol:S:1:pos:R:3\nO H 0 0 0\n", "has species and symbol: which are the"),
        ("1\nProperties=species:S:1:pos:S:3\nO 0 0 0\n", "Properties needs species:S:1"),
        ("1\nProperties=species:S:1:pos:R:\u0663\nO 0 0 0\n", "Properties must be triples"),
        ("1\nProperties=species:S:1:Z:I:1:pos:R:3\nO 1 0 0 0\n", "line 3: the atom is O, but its atomic number Z is 1"),
        ("1\nProperties=Z:I:1:pos:R:3\n119 0 0 0\n", "line 3: an atomic number from 1 to 118 expected, found 119"),
        ("1\nProperties=Z:I:1:pos:R:3\n8.0 0 0 0\n", "line 3: Z must be an atomic number, found '8.0'"),
        ('1\nLattice="5 0 0 0 5 0 0 0 5" lattice="6 0 0 0 6 0 0 0 6"\nO 0 0 0\n', "has 'Lattice' twice"),
        ("1\nProperties=species:S:1:pos:R:3 energy=1 energy=2\nO 0 0 0\n", "has 'energy' twice"),
    ],
)
def test_malformed(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "some.xyz"
    path.write_text(content)
    with pytest.raises(dpa2.InputError, match=message):
        list(XyzFile(str(path)))


def test_atomic_numbers(tmp_path: Path) -> None:
    (frame,) = read(tmp_path, "3\nProperties=Z:I:1:pos:R:3\n8 0 0 0\n1 1 0 0\n29 0 1 0\n")
    assert frame.names == ("O", "H", "Cu")
    assert frame.types.tolist() == [0, 1, 2]
    (frame,) = read(tmp_path, "1\nProperties=pos:R:3:z:I:1:species:S:1\n0 0 0 8 O\n")
    assert frame.names == ("O",)


def test_symbols_of_a_model_of_its_own_need_no_numbers(tmp_path: Path) -> None:
    (frame,) = read(tmp_path, "2\nProperties=species:S:1:Z:I:1:pos:R:3\nOW 8 0 0 0\nX 0 1 1 1\n")
    assert frame.names == ("OW", "X")


def test_type_numbers_as_symbols(tmp_path: Path) -> None:
    """What LAMMPS's dump xyz writes: numbers, which become names or are refused by models with a hint."""
    path = tmp_path / "dump.xyz"
    path.write_text("3\nAtoms. Timestep: 0\n1 0 0 0\n2 1 0 0\n2 0 1 0\n")
    ((frame,),) = read_structures(path, types=("O", "H"))
    assert [frame.names[t] for t in frame.types] == ["O", "H", "H"]
    ((frame,),) = read_structures(path)
    with pytest.raises(dpa2.InputError, match=r"atom 0 is '1', .* name the elements of the types with --types"):
        frame.types_in(["O", "H"])
    with pytest.raises(dpa2.InputError, match="an atom of type 2, but --types has 1 name"):
        list(read_structures(path, types=("O",))[0])


def test_xyz_by_content(tmp_path: Path) -> None:
    """Names that ASE would take for formats in which it finds 0 atoms, or none."""
    for name in ("water.pdb", "water.txt", "water", "water.data"):
        path = tmp_path / name
        path.write_text("2\nwater\nO 0 0 0\nH 1 0 0\n")
        ((frame,),) = read_structures(path)
        assert frame.coords.tolist() == [[0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("comment", ['a="', "a={ ", "a=[", '"', "'", '="', "a=\\", "a" + " " * 40, '="a\\"', "x"])
def test_long_comments_take_time_in_proportion(comment: str) -> None:
    """Counted in steps of the interpreter, not in seconds: twice the length takes about twice the steps."""

    def steps(size: int) -> int:
        count = 0

        def trace(*_: object) -> object:
            nonlocal count
            count += 1
            return trace

        line = comment * (size // len(comment))
        previous = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            comment_pairs(line)
        finally:
            sys.settrace(previous)
        return count

    assert steps(4000) < 2.6 * steps(2000) + 2000


def test_brackets_within_brackets(tmp_path: Path) -> None:
    (frame,) = read(
        tmp_path,
        '1\nLattice="[[8, 0, 0], [1, 9, 0], [0, 0, 7]]" virial=[[1,2,3],[4,5,6],[7,8,9]] '
        "Properties=species:S:1:pos:R:3\nO 0 0 0\n",
    )
    assert frame.box.tolist() == [[8, 0, 0], [1, 9, 0], [0, 0, 7]]
    assert frame.virial.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "some.xyz"
    path.write_bytes(bytes(range(256)) * 4)
    assert XyzFile(str(path)).count() is None
    with pytest.raises(dpa2.InputError, match="line 1: the number of atoms"):
        list(XyzFile(str(path)))


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), natoms=st.integers(0, 4), periodic=st.booleans())
def test_written_frames_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, natoms: int, periodic: bool
) -> None:
    coords = data.draw(npst.arrays(np.float64, (natoms, 3), elements=NUMBERS))
    forces = data.draw(npst.arrays(np.float64, (natoms, 3), elements=NUMBERS))
    box = data.draw(npst.arrays(np.float64, (3, 3), elements=NUMBERS)) if periodic else None
    pbc = data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans())) if periodic else None
    note = data.draw(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=12))
    energy = data.draw(NUMBERS)
    symbols = data.draw(st.lists(st.sampled_from(["O", "H", "Cl"]), min_size=natoms, max_size=natoms))
    out = io.StringIO()
    for _ in range(2):
        info = {"energy": energy, "virial": np.eye(3) / 3, "note": note}
        write_frame(out, coords, symbols, box, pbc, {"forces": forces, "q": np.ones(natoms)}, info)
    found = read(tmp_path_factory.mktemp("xyz"), out.getvalue())
    assert len(found) == 2
    for frame in found:
        np.testing.assert_array_equal(frame.coords, coords)
        np.testing.assert_array_equal(frame.forces, forces)
        np.testing.assert_array_equal(frame.virial, np.eye(3) / 3)
        assert frame.energy == energy
        assert frame.info["note"] == note
        assert [frame.names[t] for t in frame.types] == symbols
        assert frame.pbc == ((periodic,) * 3 if pbc is None else pbc)
        if periodic:
            np.testing.assert_array_equal(frame.box, box)
        else:
            assert frame.box is None
