"""One data set in every storage of deepmd-kit: folders of .npy files, HDF5 files, raw text; what is refused in each."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import dpa2
import h5py
import numpy as np
import pytest
from datasets import HDF5_GROUP, write_all, write_hdf5, write_raw
from dpa2.data import Frame, read_list, read_structures


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data sets in the working directory."""
    write_all(tmp_path)
    write_raw(tmp_path / "text", tmp_path / "standard")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frames_of(path: str) -> list[Frame]:
    """All frames of one system, whose count is right."""
    (source,) = read_structures(path)
    found = list(source)
    assert source.count() == len(found)
    return found


def assert_same(ours: Frame, theirs: Frame) -> None:
    """Two frames hold the same numbers."""
    for name in ("coords", "types", "box", "forces", "virial", "fparam", "aparam"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.energy, ours.names, ours.pbc) == (theirs.energy, theirs.names, theirs.pbc)
    assert ours.labels.keys() == theirs.labels.keys()
    for key in ours.labels:
        np.testing.assert_array_equal(ours.labels[key], theirs.labels[key])


@pytest.mark.parametrize("path", [f"standard.hdf5#{HDF5_GROUP}", f"standard.hdf5#{HDF5_GROUP[1:]}", "standard.hdf5"])
def test_hdf5(path: str, here: Path) -> None:
    found = frames_of(path)
    assert len(found) == 5
    for ours, theirs in zip(found, frames_of("standard"), strict=True):
        assert_same(ours, theirs)
    assert found[3].where == f"standard.hdf5#{HDF5_GROUP}, frame 3"


def test_raw_text(here: Path) -> None:
    found = frames_of("text")
    assert len(found) == 5
    for ours, theirs in zip(found, frames_of("standard"), strict=True):
        assert_same(ours, theirs)


def test_labels(here: Path) -> None:
    first = frames_of("standard")[0]
    assert first.labels["atom_ener"].shape == (6,)
    assert first.labels["atom_pref"].shape == (6,)
    np.save("standard/set.000/hessian.npy", np.arange(3 * 324.0).reshape(3, 324))
    shutil.move("standard/set.000/atom_ener.npy", "standard/set.000/atomic_ener.npy")
    again = frames_of("standard")
    np.testing.assert_array_equal(again[0].labels["atom_ener"], first.labels["atom_ener"])
    np.testing.assert_array_equal(again[1].labels["hessian"], np.arange(324.0, 648.0))
    assert "hessian" not in again[3].labels


def test_set_of_one_frame_without_an_axis_of_frames(here: Path) -> None:
    first, _, last = frames_of("open")
    assert np.load("open/set.001/coord.npy").shape == (9,)
    assert last.coords.shape == last.forces.shape == first.coords.shape == (3, 3)
    assert last.energy == float(np.load("open/set.001/energy.npy")[0])
    assert last.box is None
    assert last.coords.dtype == np.float64
    np.save("open/set.001/energy.npy", np.float64(-1.25))  # one number, without any axis
    assert frames_of("open")[-1].energy == -1.25


def test_mixed_type(here: Path) -> None:
    found = frames_of("mixed")
    assert [(frame.types < 0).sum() for frame in found] == [0, 2, 0, 5]
    stored = np.load("mixed/set.000/real_atom_types.npy")
    assert found[2].types_in(["C", "O", "H"]).tolist() == [2 - t for t in stored[2].tolist()]
    np.save("mixed/set.000/real_atom_types.npy", stored.astype(float))
    assert frames_of("mixed")[1].types.tolist() == stored[1].tolist()


def test_search_finds_systems_at_every_depth(here: Path) -> None:
    shutil.copytree("open", "standard/inner/deep")
    Path("linked").symlink_to(here / "mixed")
    (here / "standard" / "loop").symlink_to(here)
    names = [source.path for source in read_structures("standard")]
    assert names[-1] == "standard"  # the system itself comes last, as deepmd-kit has it
    assert "standard/inner/deep" in names
    assert "standard/loop/mixed" in names
    found = [source.path for source in read_structures(".")]
    assert sum(name.endswith(("mixed", "linked")) for name in found) == 1


def test_search_in_hdf5(here: Path) -> None:
    write_hdf5(here / "standard.hdf5", "/water", here / "standard")
    write_hdf5(here / "standard.hdf5", "/ice", here / "open")
    found = [source.path for source in read_structures("standard.hdf5")]
    assert found == [f"standard.hdf5#{name}" for name in ("/ice", "/water", "/water/standard")]
    found = [source.path for source in read_structures("standard.hdf5#/water")]
    assert found == ["standard.hdf5#/water/standard", "standard.hdf5#/water"]


def test_two_walks_over_one_file_at_once(here: Path) -> None:
    (source,) = read_structures("standard.hdf5")
    first, second = iter(source), iter(source)
    energies = [next(first).energy, next(second).energy]
    first.close()
    assert next(second).energy != energies[0] == energies[1]


def test_rows_are_read_when_they_are_needed(here: Path) -> None:
    """A file that ends early is noticed at the row that it lacks, and a set when it is its turn."""
    lines = Path("text/force.raw").read_text().splitlines(keepends=True)
    Path("text/force.raw").write_text("".join([*lines[:3], "1 2 3\n", *lines[4:]]))
    (source,) = read_structures("text")
    walk = iter(source)
    assert [next(walk).energy for _ in range(3)]
    with pytest.raises(dpa2.InputError, match=r"text.force\.raw, row 3: 18 numbers expected .* found 3"):
        next(walk)


def test_lists(here: Path) -> None:
    Path("list.txt").write_text("open\n\n  standard.hdf5#/water/standard \n")
    assert read_list("list.txt") == ["open", "standard.hdf5#/water/standard"]


# -------------------------------------------------------------------------------- malformed: what, and what is said


def npy(key: str, value: np.ndarray, system: str = "standard") -> Callable[[], object]:
    return lambda: np.save(f"{system}/set.000/{key}.npy", value)


def text(path: str, content: str) -> Callable[[], object]:
    return lambda: Path(path).write_text(content)


def gone(path: str) -> Callable[[], object]:
    return lambda: Path(path).unlink()


def hdf5(name: str, value: object) -> Callable[[], object]:
    def spoil() -> None:
        with h5py.File("standard.hdf5", "a") as file:
            del file[f"{HDF5_GROUP}/{name}"]
            if value is not None:
                file[f"{HDF5_GROUP}/{name}"] = value

    return spoil


def cut(path: str, end: int) -> Callable[[], object]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:end])


H5 = r"standard\.hdf5#/water/standard/set\.001/"
BAD = [
    (
        "standard",
        npy("coord", np.ones((3, 17))),
        r"set\.000.coord\.npy: coord must have shape \(nframes, 18\), found \(3, 17\)",
    ),
    ("standard", npy("coord", np.ones(17)), r"coord\.npy: coord must have shape \(nframes, 18\), found \(17,\)"),
    ("standard", npy("box", np.ones(9)), r"box\.npy: box must have shape \(3, 9\), found \(9,\)"),
    ("standard", npy("energy", np.ones((3, 2))), r"energy\.npy: energy must have shape \(3, 1\), found \(3, 2\)"),
    ("standard", npy("force", np.ones((3, 6, 2))), r"force\.npy: force must have shape \(3, 18\), found \(3, 6, 2\)"),
    ("standard", npy("virial", np.ones((2, 9))), r"virial\.npy: virial must have shape \(3, 9\), found \(2, 9\)"),
    ("standard", npy("atom_ener", np.ones((3, 5))), r"atom_ener\.npy: atom_ener must have shape \(3, 6\)"),
    ("standard", npy("atom_pref", np.ones((3, 18))), r"atom_pref\.npy: atom_pref must have shape \(3, 6\)"),
    ("standard", npy("fparam", np.ones((2, 2))), r"fparam\.npy: fparam must have shape \(3, any number of columns\)"),
    ("standard", npy("aparam", np.ones((3, 7))), r"aparam must have a multiple of 6 columns .* found shape \(3, 7\)"),
    (
        "standard",
        npy("energy", np.array(["low"] * 3)),
        r"energy must be an array of numbers, found elements of type <U3",
    ),
    (
        "standard",
        npy("force", np.ones((3, 18)) * 1j),
        r"force must be an array of numbers, found elements of type complex",
    ),
    ("standard", gone("standard/set.000/coord.npy"), r"set\.000.coord\.npy: this file is missing"),
    ("standard", gone("standard/set.001/box.npy"), r"set\.001.box\.npy: this file is missing"),
    ("standard", cut("standard/set.000/coord.npy", 300), r"coord\.npy: not a readable \.npy file"),
    (
        "standard",
        text("standard/type.raw", "0 0 1 0 0 -3"),
        r"type\.raw: atom 5 has type -3; the only negative type is -1",
    ),
    ("standard", text("standard/type.raw", "0 0 1 0 0 2"), r"atom 5 has type 2, but type_map\.raw has 2 names \(H O\)"),
    ("standard", npy("real_atom_types", np.zeros((3, 6))), r"set\.000 is of mixed type .* and set\.001 is not"),
    (
        "mixed",
        npy("real_atom_types", np.full((4, 7), 0.5), "mixed"),
        r"row 0: the type of atom 0 must be an integer, found 0\.5",
    ),
    ("mixed", npy("real_atom_types", np.full((4, 7), 2), "mixed"), r"real_atom_types\.npy, row 0: atom 0 has type 2"),
    (
        "mixed",
        npy("real_atom_types", np.full((4, 7), -2), "mixed"),
        r"atom 0 has type -2; the only negative type is -1",
    ),
    (
        "mixed",
        npy("real_atom_types", np.zeros((4, 6)), "mixed"),
        r"real_atom_types must have shape \(4, 7\), found \(4, 6\)",
    ),
    ("text", text("text/energy.raw", "1\n2\n"), r"energy\.raw: energy must have shape \(5, 1\), found \(2, 1\)"),
    ("text", text("text/box.raw", "1 0 0 0 1 0 0 0\n" * 5), r"box\.raw: box must have shape \(5, 9\), found \(5, 8\)"),
    ("text", text("text/energy.raw", "1\n2\nx\n4\n5\n"), r"energy\.raw, row 2: could not convert string to float"),
    ("text", gone("text/box.raw"), r"box\.raw: this file is missing"),
    (
        "text",
        gone("text/coord.raw"),
        r"text: a deepmd/npy system needs at least one folder set\.\*, found none \(and no coord",
    ),
    ("standard.hdf5", hdf5("set.001/coord.npy", None), H5 + r"coord\.npy: this dataset is missing"),
    (
        "standard.hdf5",
        hdf5("set.001/box.npy", np.ones((2, 8))),
        H5 + r"box\.npy: box must have shape \(2, 9\), found \(2, 8\)",
    ),
    ("standard.hdf5", hdf5("set.001/coord.npy", "text"), H5 + r"coord\.npy: coord must be an array of numbers"),
    ("standard.hdf5", hdf5("type.raw", None), r"standard\.hdf5: no deepmd system in this file"),
    ("standard.hdf5#/water/standard", hdf5("type_map.raw", None), None),
    ("standard.hdf5#/water/standard/type.raw", lambda: None, r"there is no group '/water/standard/type\.raw'"),
    ("standard.hdf5", cut("standard.hdf5", 700), r"standard\.hdf5: not a readable HDF5 file"),
    ("standard.hdf5", text("standard.hdf5", "water"), r"standard\.hdf5: not a readable HDF5 file"),
]


@pytest.mark.parametrize(("path", "spoil", "message"), BAD, ids=range(len(BAD)))
def test_malformed(path: str, spoil: Callable[[], object], message: str | None, here: Path) -> None:
    spoil()
    if message is None:  # no mistake: types are the model's then
        assert frames_of(path)[0].names is None
        return
    with pytest.raises(dpa2.InputError, match=message):
        list(itertools.chain(*read_structures(path)))


@pytest.mark.parametrize("path", ["none", "none.hdf5", "none.hdf5#/water"])
def test_missing_paths(path: str, here: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no such structure file or folder: {path}"):
        read_structures(path)
