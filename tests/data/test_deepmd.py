"""deepmd/npy systems, standard and of mixed type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dpa2
import numpy as np
import pytest
from dpa2.data import read_structures
from dpa2.data.deepmd_system import DeepmdSystem

RNG = np.random.default_rng(5)
NATOMS = 4


def write_set(system: Path, name: str, nframes: int, **extra: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        "coord": RNG.normal(size=(nframes, 3 * NATOMS)),
        "box": np.tile(np.diag([5.0, 6.0, 7.0]).ravel(), (nframes, 1)),
        "energy": RNG.normal(size=nframes),
        "force": RNG.normal(size=(nframes, 3 * NATOMS)).astype(np.float32),
        **extra,
    }
    folder = system / name
    folder.mkdir(parents=True)
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
    return arrays


def write_system(system: Path, types: str = "0 1 1 0", names: str | None = "O\nH\n") -> None:
    system.mkdir(parents=True, exist_ok=True)
    (system / "type.raw").write_text("\n".join(types.split()) + "\n")
    if names is not None:
        (system / "type_map.raw").write_text(names)


def test_standard_system(tmp_path: Path) -> None:
    write_system(tmp_path)
    second = write_set(
        tmp_path, "set.001", 3, virial=RNG.normal(size=(3, 9)), fparam=np.ones(3), aparam=np.ones((3, 8))
    )
    first = write_set(tmp_path, "set.000", 2)
    (source,) = read_structures(tmp_path)
    assert source.count() == 5
    found = list(source)
    assert len(found) == 5
    for k, frame in enumerate(found):
        arrays, f = (first, k) if k < 2 else (second, k - 2)
        np.testing.assert_array_equal(frame.coords, arrays["coord"][f].reshape(NATOMS, 3))
        np.testing.assert_array_equal(frame.box, np.diag([5.0, 6.0, 7.0]))
        np.testing.assert_array_equal(frame.forces, arrays["force"][f].reshape(NATOMS, 3))
        assert frame.energy == arrays["energy"][f]
        assert frame.pbc == (True, True, True)
        assert frame.volume == pytest.approx(210.0)
        assert frame.names == ("O", "H")
        assert frame.types_in(["C", "H", "O"]).tolist() == [2, 1, 1, 2]
        assert frame.where == f"{tmp_path}, frame {k}"
    assert found[0].virial is None
    np.testing.assert_array_equal(found[4].virial, second["virial"][2].reshape(3, 3))
    assert found[4].fparam.shape == (1,)
    assert found[4].aparam.shape == (NATOMS, 2)


def test_without_names_types_are_the_models(tmp_path: Path) -> None:
    write_system(tmp_path, names=None)
    write_set(tmp_path, "set.0", 1)
    (frame,) = DeepmdSystem(str(tmp_path))
    assert frame.types_in(["O", "H"]).tolist() == [0, 1, 1, 0]
    with pytest.raises(dpa2.InputError, match=r"atom 1 has type 1, but the model has 1 types .* does not name its own"):
        frame.types_in(["O"])


def test_open_system(tmp_path: Path) -> None:
    write_system(tmp_path)
    write_set(tmp_path, "set.0", 1)
    (tmp_path / "nopbc").touch()
    (tmp_path / "set.0" / "box.npy").unlink()
    (frame,) = DeepmdSystem(str(tmp_path))
    assert frame.box is None
    assert frame.pbc == (False, False, False)
    assert frame.volume is None


def test_mixed_type(tmp_path: Path) -> None:
    write_system(tmp_path, types="0 0 0 0", names="O H C")
    real = np.array([[0, 1, 1, 2], [2, 0, -1, -1]])
    write_set(tmp_path, "set.0", 2, real_atom_types=real)
    first, second = DeepmdSystem(str(tmp_path))
    assert first.types_in(["O", "H", "C"]).tolist() == [0, 1, 1, 2]
    assert second.types_in(["C", "O"]).tolist() == [0, 1, -1, -1]
    with pytest.raises(
        dpa2.InputError, match="frame 0: atom 1 is 'H', which the model does not know; its type_map is C O"
    ):
        first.types_in(["C", "O"])


def test_folder_of_systems(tmp_path: Path) -> None:
    for name in ("b", "a/inner", "c"):
        write_system(tmp_path / name)
        write_set(tmp_path / name, "set.0", 1)
    found = read_structures(tmp_path)
    assert [Path(source.path).relative_to(tmp_path).as_posix() for source in found] == ["a/inner", "b", "c"]


def test_sets_are_read_one_at_a_time(tmp_path: Path) -> None:
    write_system(tmp_path)
    write_set(tmp_path, "set.000", 2)
    write_set(tmp_path, "set.001", 1)
    walk = iter(DeepmdSystem(str(tmp_path)))
    next(walk)
    (tmp_path / "set.001" / "coord.npy").unlink()
    next(walk)
    with pytest.raises(dpa2.InputError, match=r"set\.001.coord\.npy: this file is missing"):
        next(walk)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda system: (system / name).write_text(content)


def array(key: str, value: np.ndarray) -> Callable[[Path], object]:
    return lambda system: np.save(system / "set.0" / f"{key}.npy", value)


def raw(key: str, content: bytes) -> Callable[[Path], object]:
    return lambda system: (system / "set.0" / f"{key}.npy").write_bytes(content)


def truncated(system: Path) -> None:
    path = system / "set.0" / "coord.npy"
    path.write_bytes(path.read_bytes()[:-40])


def oversized(system: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 12), }"
    (system / "set.0" / "coord.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (text("type.raw", "0 1 1 x"), r"type\.raw: the type of atom 3 must be an integer, found 'x'"),
        (text("type.raw", "0 1.5 1 0"), r"type\.raw: the type of atom 1 must be an integer, found '1\.5'"),
        (text("type.raw", "0 1 nan 0"), "the type of atom 2 must be an integer"),
        (text("type.raw", "0 1 2 0"), r"type\.raw: atom 2 has type 2, but type_map\.raw has 2 names \(O H\)"),
        (text("type.raw", "0 1 1"), r"coord\.npy: coord must have shape \(nframes, 9\), found \(2, 12\)"),
        (array("box", np.ones((3, 9))), r"box\.npy: box must have shape \(2, 9\), found \(3, 9\)"),
        (array("box", np.ones((2, 6))), r"box\.npy: box must have shape \(2, 9\), found \(2, 6\)"),
        (array("energy", np.ones(5)), r"energy\.npy: energy must have shape \(2, 1\), found \(5,\)"),
        (array("force", np.ones((2, 4))), r"force\.npy: force must have shape \(2, 12\)"),
        (array("virial", np.ones((2, 4, 4))), r"virial\.npy: virial must have shape \(2, 9\), found \(2, 4, 4\)"),
        (array("aparam", np.ones((2, 3))), r"aparam\.npy: aparam must have a multiple of 4 columns"),
        (array("real_atom_types", np.full((2, 4), 7)), r"real_atom_types\.npy, row 0: atom 0 has type 7"),
        (array("coord", np.array(["a", "b"])), r"coord\.npy: coord must be an array of numbers"),
        (array("coord", np.array(1.0)), r"coord\.npy: coord must have shape"),
        (array("coord", np.array([{}, None])), r"coord\.npy: not a readable \.npy file"),
        (raw("coord", b""), r"coord\.npy: not a readable \.npy file"),
        (raw("coord", b"PK\x03\x04 not an archive"), r"coord\.npy: not a readable \.npy file"),
        (raw("coord", b"import os"), r"coord\.npy: not a readable \.npy file"),
        (truncated, r"coord\.npy: not a readable \.npy file"),
        (oversized, r"coord\.npy: not a readable \.npy file"),
        (lambda system: (system / "set.0" / "box.npy").unlink(), r"box\.npy: this file is missing"),
    ],
)
def test_malformed_systems(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    write_system(tmp_path)
    write_set(tmp_path, "set.0", 2)
    spoil(tmp_path)
    with pytest.raises(dpa2.InputError, match=message):
        list(DeepmdSystem(str(tmp_path)))


def test_folders_without_data(tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match="no deepmd/npy system in this folder"):
        read_structures(tmp_path)
    write_system(tmp_path)
    with pytest.raises(dpa2.InputError, match=r"needs at least one folder set\.\*, found none"):
        read_structures(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such structure file or folder"):
        read_structures(tmp_path / "nothing")


def test_zero_frames(tmp_path: Path) -> None:
    write_system(tmp_path)
    write_set(tmp_path, "set.0", 0)
    (source,) = read_structures(tmp_path)
    assert source.count() == 0
    with pytest.raises(dpa2.InputError, match="no frames in this system: its arrays have no rows"):
        list(source)
