"""Data sets that would hang, crash, take memory or lead elsewhere: each is refused by name, nothing in it runs."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpa2
import h5py
import needs
import numpy as np
import pytest
from dpa2.data import read_list, read_structures
from dpa2.data.deepmd_stores import NpyRows

F, N = 3, 4


def write_system(system: Path) -> Path:
    """A sound system."""
    (system / "set.000").mkdir(parents=True)
    (system / "type.raw").write_text("0 1 1 0")
    (system / "type_map.raw").write_text("O H")
    np.save(system / "set.000" / "coord.npy", np.arange(F * N * 3.0).reshape(F, -1))
    np.save(system / "set.000" / "box.npy", np.tile(9.0 * np.eye(3).ravel(), (F, 1)))
    return system


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return write_system(tmp_path / "system")


def walk(path: Path) -> list[Any]:
    return list(itertools.chain(*read_structures(path)))


def npy(header: bytes, version: int = 1) -> bytes:
    """A .npy file of this header and no numbers."""
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header


def header(shape: str, descr: str = "'<f8'", order: str = "False") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(b"(" * 9000), r"its header is no description of a plain array: '\(\(\(\("),
        (npy(b"[" * 60000), "its header is no description"),
        (npy(header("(0, 99999999999999999999)")), r"it holds an array of shape"),
        (
            npy(header("(0, 999999999999999999)")),
            r"coord must have shape \(nframes, 12\), found \(0, 999999999999999999",
        ),
        (npy(header("(1000000000000, 12)")), "its header says 96000000000000 bytes of numbers, but there are 0"),
        (npy(header("(-3, 12)")), "its header is no description"),
        (npy(header("(3, 12)", "'|O'")), "it holds objects of Python"),
        (npy(header("(3, 12)", "[('a', '<f8')]")), "its header is no description"),
        (npy(header("(3, 12)", "'<q9'")), "unknown type"),
        (npy(b"{'descr': __import__('os').system('touch PWNED')}"), "its header is no description"),
        (npy(header("(3, 12)"), version=9), "it does not begin as one"),
        (b"\x93NUMPY\x03\x00\xff\xff\xff\x7f{", "it does not begin as one"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "it ends within its header"),
        (npy(header("(" + "1," * 40 + ")")), "it holds an array of shape"),
    ],
)
def test_headers_of_npy_files(content: bytes, message: str, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(system)
    (system / "set.000" / "coord.npy").write_bytes(content)
    with pytest.raises(dpa2.InputError, match=rf"coord\.npy: .*{message}"):
        walk(system)
    assert not Path("PWNED").exists()


def test_any_number_of_frames_without_atoms(system: Path) -> None:
    """They take no room, and going through them would take for ever."""
    (system / "type.raw").write_text("")
    (system / "nopbc").touch()
    (system / "set.000" / "coord.npy").write_bytes(npy(header("(1000000000000000, 0)")))
    with pytest.raises(dpa2.InputError, match=r"coord\.npy: 1000000000000000 frames of no atoms"):
        walk(system)
    (system / "set.000" / "coord.npy").write_bytes(npy(header("(2, 0)")))
    assert [len(frame) for frame in walk(system)] == [0, 0]


def test_columns_first_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.asfortranarray(np.arange(50.0).reshape(10, 5))
    np.save(tmp_path / "a.npy", array)
    reads, read = [], NpyRows._read
    monkeypatch.setattr(NpyRows, "_read", lambda *args: reads.append(args) or read(*args))
    rows = NpyRows(str(tmp_path / "a.npy"))
    np.testing.assert_array_equal([rows[k] for k in range(10)], array)
    assert len(reads) == 1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4", "u1"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 2, 3), (1, 7), (4, 0), (3,), (0, 5), (2, 50000)])
def test_npy_files_are_read_as_numpy_reads_them(shape: tuple[int, ...], dtype: str, order: Any, tmp_path: Path) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape) % 251, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    rows = NpyRows(str(tmp_path / "a.npy"))
    assert (rows.shape, rows.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(rows[...], array)
    for index in reversed(range(len(array))):
        np.testing.assert_array_equal(rows[index], array[index])


def test_a_file_that_becomes_shorter_while_it_is_read(system: Path) -> None:
    """A map of it into memory would end the process with SIGBUS."""
    big = np.zeros((2, 3 * 100_000))
    np.save(system / "set.000" / "coord.npy", big)
    np.save(system / "set.000" / "box.npy", np.tile(9.0 * np.eye(3).ravel(), (2, 1)))
    (system / "type.raw").write_text("0 " * 100_000)
    (source,) = read_structures(system)
    frames = iter(source)
    next(frames)
    os.truncate(system / "set.000" / "coord.npy", 4096)
    with pytest.raises(dpa2.InputError, match=r"coord\.npy: .* it has become shorter while it was read"):
        next(frames)


@pytest.mark.parametrize(
    "name", ["type.raw", "type_map.raw", "set.000/coord.npy", "set.000/box.npy", "set.000/energy.npy"]
)
def test_named_pipes_and_folders(name: str, system: Path) -> None:
    path = system / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(dpa2.InputError, match=f"{path.name}: not a regular file, but a named pipe"):
        walk(system)
    path.unlink()
    path.mkdir()
    with pytest.raises(dpa2.InputError, match=f"{path.name}: not a regular file, but a folder"):
        walk(system)


@pytest.mark.parametrize("name", ["x.xyz", "x.data", "x.lammpstrj", "POSCAR", "x.pdb", "x.hdf5", "x.traj", "list.txt"])
def test_named_pipes_as_structures(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    read: Callable[[Path], object] = read_list if name == "list.txt" else walk
    with pytest.raises(dpa2.InputError, match=f"{name}: not a regular file, but a named pipe"):
        read(tmp_path / name)


def test_names_twice(system: Path) -> None:
    (system / "type_map.raw").write_text("O H O")
    with pytest.raises(dpa2.InputError, match=r"type_map\.raw: the name 'O' is there twice"):
        walk(system)


@pytest.mark.parametrize("word", ["9" * 5000, "\u0663", "1_0", "1e400", "0x1"])
def test_words_that_are_no_types(word: str, system: Path) -> None:
    (system / "type.raw").write_text(f"0 1 1 {word}")
    with pytest.raises(dpa2.InputError, match=r"type\.raw: the type of atom 3 must be an integer, found ") as error:
        walk(system)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, 0.5])
def test_real_types_that_are_no_types(value: float, system: Path) -> None:
    np.save(system / "set.000" / "real_atom_types.npy", np.full((F, N), value))
    with pytest.raises(dpa2.InputError, match=r"row 0: the type of atom 0 must be an integer"):
        walk(system)


def test_raw_text(tmp_path: Path) -> None:
    for content, message in (("0 0 0 1_0 0 0", "could not convert"), ("0 0 0 \u0661 0 0", "could not convert")):
        (tmp_path / "type.raw").write_text("0 1")
        (tmp_path / "coord.raw").write_text(content)
        (tmp_path / "box.raw").write_text("9 0 0 0 9 0 0 0 9")
        with pytest.raises(dpa2.InputError, match=rf"coord\.raw, row 0: {message}"):
            walk(tmp_path)


# -------------------------------------------------------------------------------- HDF5


def write_hdf5(path: Path, change: Callable[[Any, Any], object]) -> Path:
    """A sound system as a group of a file, changed: ``change(group, set)``."""
    with h5py.File(path, "w") as file:
        group = file.create_group("s")
        group["type.raw"] = np.array([0, 1, 1, 0])
        group["type_map.raw"] = np.array([b"O", b"H"])
        first = group.create_group("set.000")
        first["coord.npy"] = np.arange(F * N * 3.0).reshape(F, -1)
        first["box.npy"] = np.tile(9.0 * np.eye(3).ravel(), (F, 1))
        change(group, first)
    return path


def other(path: Path) -> Path:
    return write_hdf5(path.parent / "other.hdf5", lambda group, first: None)


def replaced(name: str, make: Callable[[Any, Path], object]) -> Callable[[Path], Path]:
    """A file with one dataset replaced by what ``make(parent, path)`` makes."""

    def write(path: Path) -> Path:
        def change(group: Any, first: Any) -> None:
            parent = first if name.endswith(".npy") else group
            del parent[name]
            make(parent, path)

        return write_hdf5(path, change)

    return write


def virtual(missing: bool) -> Callable[[Any, Path], object]:
    def make(parent: Any, path: Path) -> None:
        layout = h5py.VirtualLayout(shape=(F, 3 * N), dtype="f8")
        source = "none.hdf5" if missing else other(path)
        layout[:] = h5py.VirtualSource(source, "/s/set.000/coord.npy", shape=(F, 3 * N))
        parent.create_virtual_dataset("coord.npy", layout, fillvalue=1.5)

    return make


def external(parent: Any, path: Path) -> None:
    (path.parent / "raw.bin").write_bytes(np.arange(F * N * 3.0).tobytes())
    raw = [(str(path.parent / "raw.bin"), 0, F * N * 24)]
    parent.create_dataset("coord.npy", shape=(F, 3 * N), dtype="f8", external=raw)


def partly(parent: Any, path: Path) -> None:
    coord = parent.create_dataset("coord.npy", shape=(F, 3 * N), dtype="f8", chunks=(1, 3 * N))
    coord[0] = 1.0


def link(name: str, target: str, file: bool = False) -> Callable[[Any, Path], object]:
    def make(parent: Any, path: Path) -> None:
        parent[name] = h5py.ExternalLink(str(other(path)), target) if file else h5py.SoftLink(target)

    return make


def wide(parent: Any, path: Path) -> None:
    parent.create_dataset("type.raw", data=np.zeros(10_000_000, "i1"), chunks=(100_000,), compression="gzip")


def heaps(parent: Any, path: Path) -> None:
    names = parent.create_dataset("type_map.raw", shape=(64,), dtype=h5py.string_dtype())
    for k in range(64):
        names[k] = f"{k}" + "x" * 40_000


def two_links(group: Any, first: Any, path: Path) -> None:
    del first["coord.npy"]
    group["elsewhere"] = h5py.ExternalLink(str(other(path)), "/s")
    first["coord.npy"] = h5py.SoftLink("/s/elsewhere/set.000/coord.npy")


COORD = r"#/s/set\.000/coord\.npy: "
REFUSED = {
    "external link": (
        replaced("coord.npy", link("coord.npy", "/s/set.000/coord.npy", file=True)),
        "'set.000/coord.npy' is a link to another file, which is not followed",
    ),
    "external link as type.raw": (
        replaced("type.raw", link("type.raw", "/s/type.raw", file=True)),
        "'type.raw' is a link to another file",
    ),
    "external link through a soft one": (
        lambda path: write_hdf5(path, lambda group, first: two_links(group, first, path)),
        "is a link to another file",
    ),
    "circle of soft links": (
        replaced("coord.npy", link("coord.npy", "/s/set.000/coord.npy")),
        "goes round in circles",
    ),
    "dangling soft link": (replaced("coord.npy", link("coord.npy", "/none")), COORD + "this dataset is missing"),
    "virtual": (replaced("coord.npy", virtual(False)), COORD + "the numbers of this dataset lie in other files"),
    "virtual, nothing there": (
        replaced("coord.npy", virtual(True)),
        COORD + "the numbers of this dataset lie in other",
    ),
    "external storage": (replaced("coord.npy", external), COORD + "the numbers of this dataset lie in other files"),
    "empty": (
        replaced("coord.npy", lambda parent, path: parent.update({"coord.npy": h5py.Empty("f8")})),
        COORD + "this dataset is empty",
    ),
    "types never written": (
        replaced(
            "type.raw",
            lambda parent, path: parent.create_dataset("type.raw", (2 * 10**9,), "i8", chunks=(1_000_000,)),
        ),
        r"#/s/type\.raw: this dataset of shape \(2000000000,\) was not written",
    ),
    "types never written, contiguous": (
        replaced("type.raw", lambda parent, path: parent.create_dataset("type.raw", (2 * 10**9,), "i8")),
        "was not written, or in part only",
    ),
    "frames never written": (
        replaced(
            "coord.npy",
            lambda parent, path: parent.create_dataset("coord.npy", (10**15, 12), "f8", chunks=(1000, 12)),
        ),
        r"this dataset of shape \(1000000000000000, 12\) was not written",
    ),
    "partly written": (replaced("coord.npy", partly), "was not written, or in part only"),
    "more atoms than bytes": (replaced("type.raw", wide), "10000000 entries cannot be in a system of a file of"),
    "long names": (replaced("type_map.raw", heaps), "these words are too many or too long for names of types"),
    "many names": (
        replaced(
            "type_map.raw",
            lambda parent, path: parent.create_dataset("type_map.raw", data=np.full(30_000, b"O"), chunks=(1000,)),
        ),
        "these words are too many or too long for names of types",
    ),
    "names twice": (
        replaced("type_map.raw", lambda parent, path: parent.update({"type_map.raw": np.array([b"O", b"O"])})),
        "the name 'O' is there twice",
    ),
    "vlen": (
        replaced("coord.npy", lambda parent, path: parent.create_dataset("coord.npy", (3,), h5py.vlen_dtype("f8"))),
        "coord must be an array of numbers|was not written",
    ),
    "a group as types": (
        replaced("type.raw", lambda parent, path: parent.create_group("type.raw")),
        r"type\.raw: this dataset is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hdf5_files_that_are_refused(case: str, tmp_path: Path) -> None:
    write, message = REFUSED[case]
    path = write(tmp_path / "some.hdf5")
    with pytest.raises(dpa2.InputError, match=message):
        walk(path)


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_hdf5_files_in_chunks_and_links_within_them(compression: str | None, tmp_path: Path) -> None:
    def change(group: Any, first: Any) -> None:
        coord = first["coord.npy"][...]
        del first["coord.npy"]
        first.create_dataset("coord.npy", data=coord, chunks=(2, 5), compression=compression, shuffle=True)
        group.create_group("set.001")
        group["set.001/coord.npy"] = h5py.SoftLink("/s/set.000/coord.npy")
        group["set.001/box.npy"] = h5py.SoftLink("/s/box")
        group["box"] = first["box.npy"]
        group["set.002"] = h5py.SoftLink("set.000")

    found = walk(write_hdf5(tmp_path / "some.hdf5", change))
    assert len(found) == 9
    for k, frame in enumerate(found):
        np.testing.assert_array_equal(frame.coords, np.arange(12 * (k % 3), 12 * (k % 3 + 1)).reshape(4, 3))


def test_memory_of_hostile_files(tmp_path: Path) -> None:
    """In a process that may take no more than 600 MB beyond what it has: errors of dpa2 and nothing else."""
    needs.package("ase")
    replaced("type.raw", wide)(tmp_path / "a.hdf5")
    replaced("type.raw", lambda parent, path: parent.create_dataset("type.raw", (2 * 10**9,), "i8"))(tmp_path / "b.h5")
    (tmp_path / "c.xyz").write_text("999999999999\n\nO 0 0 0\n")
    (tmp_path / "d.lammpstrj").write_text("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n999999999999\n")
    (tmp_path / "POSCAR").write_text("x\n1\n9 0 0\n0 9 0\n0 0 9\nO\n999999999\nDirect\n0 0 0\n")
    script = (
        "import resource, sys, itertools, dpa2; from dpa2.data import read_structures\n"
        "import ase.io, h5py\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        list(itertools.chain(*read_structures(path)))\n"
        "    except dpa2.InputError as error:\n"
        "        print(path)\n"
    )
    names = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=False)
    assert done.stdout.split() == names, done.stderr


def test_texts_in_a_damaged_heap(tmp_path: Path) -> None:
    """The HDF5 library walks for ever over a heap whose first object claims to be of no use and no size."""
    path = tmp_path / "words.hdf5"
    with h5py.File(path, "w") as file:
        file["type.raw"] = np.zeros(2, dtype=int)
        file.create_dataset("type_map.raw", data=["Oxygen", "H"], dtype=h5py.string_dtype())
        file["set.000/coord.npy"] = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
        file["set.000/box.npy"] = np.eye(3).reshape(1, 9) * 9.0
    (system,) = read_structures(path)
    (frame,) = system
    assert [frame.names[t] for t in frame.types] == ["Oxygen", "Oxygen"]
    data = path.read_bytes()
    heap = data.index(b"GCOL")
    for damaged in (
        data[: heap + 16] + b"\0" * 16 + data[heap + 32 :],
        data[:heap] + b"X" + data[heap + 1 :],
        data[: heap + 16] + b"\x07" + data[heap + 17 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(dpa2.InputError, match=r"type_map.raw: damaged: a text is not where"):
            read_structures(path)
