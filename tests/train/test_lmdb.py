"""LMDB data sets to train on: frames, batches and statistics against deepmd-kit's, damaged files."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from data_cases import LABELS, LMDB, LMDB_ORDERS, TYPE_MAP, expected, lmdb_frames
from dpa2.data.lmdb_file import LmdbFile
from dpa2.data.lmdb_frames import LmdbFrames
from dpa2.data.msgpack import unpack
from dpa2.train.batch import Label
from dpa2.train.lmdb import LmdbSet
from dpa2.train.loading import Loader, open_section, order_of
from dpa2.train.order import Draw
from dpa2.train.random import Generator
from dpa2.train.sel import neighbor_statistics
from dpa2.train.statistics import Statistics

ENERGY = [Label(*label, False) for label in LABELS["ener"]]


def dataset(path: Path = LMDB, **section: Any) -> LmdbSet:
    found = open_section({"systems": str(path), "batch_size": 2} | section, TYPE_MAP, ENERGY)
    assert isinstance(found, LmdbSet)
    return found


# ----------------------------------------------------------------------------------------------------- what is read


def test_frames_are_those_that_were_written() -> None:
    source = LmdbFrames(str(LMDB))
    frames = lmdb_frames()
    assert source.nframes == len(frames)
    assert source.type_map == ("H", "O")
    assert source.natoms.tolist() == [len(frame["atom_types"]) for frame in frames]
    assert source.systems is not None
    assert source.systems.tolist() == [frame["system"] for frame in frames]
    names = {"coords": "coord", "cells": "box", "energies": "energy", "forces": "force", "virials": "virial",
             "atom_types": "atype"}  # fmt: skip
    for k, frame in enumerate(frames):
        found = source.frame(k)
        assert found.keys() == {names[name] for name in frame if name != "system"}
        for name, key in names.items():
            if name in frame:
                np.testing.assert_array_equal(found[key], frame[name])


def test_keys_that_are_not_there() -> None:
    file = LmdbFile(str(LMDB))
    assert file.entries == 22
    for key in (b"", b"000021", b"00000", b"zzz", b"__", b"000007x"):
        assert file.get(key) is None
    assert file.get(b"000020") is not None


@pytest.mark.parametrize("name", LMDB_ORDERS)
def test_order_is_that_of_deepmd_kit(name: str) -> None:
    section, seed, count = LMDB_ORDERS[name]
    data = dataset(**section)
    order = order_of(data, Generator(0), seed, 4)
    found = [order.next().frames.tolist() for _ in range(count)]
    assert found == expected()["lmdb"]["orders"][name]
    again = order_of(data, Generator(1), 3, 4)
    again.state = order.state
    assert [again.next().frames.tolist() for _ in range(9)] == [order.next().frames.tolist() for _ in range(9)]


def test_groups_for_statistics_are_those_of_deepmd_kit() -> None:
    data = dataset()
    order = order_of(data, Generator(0), 1, 0)
    found = []
    for k, length in enumerate(data.lengths):
        passes = order.passes(k)
        found.append([passes.next().tolist() for _ in range(length)])
    assert found == expected()["lmdb"]["groups"]


def test_statistics_are_those_of_deepmd_kit() -> None:
    model = expected()["statistics"]["standard"]["section"]
    wanted = expected()["lmdb"]
    data = dataset()
    weights = Statistics(model).add(Loader(data, order_of(data, Generator(0), 1, 0)).sample(2)).weights()
    for name, value in wanted["weights"].items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-12, atol=1e-14, err_msg=name)
    repinit = model["descriptor"]["repinit"] | {"nsel": "auto"}
    found = neighbor_statistics(model | {"descriptor": model["descriptor"] | {"repinit": repinit}}, data)
    assert found.model["descriptor"]["repinit"]["nsel"] == wanted["nsel"]
    assert found.min_nbor_dist == pytest.approx(wanted["min_nbor_dist"], rel=1e-12)


def test_a_batch_of_frames_of_different_size() -> None:
    """Shorter ones are filled up with places without an atom."""
    frames = lmdb_frames()
    short, long = (next(k for k, f in enumerate(frames) if len(f["atom_types"]) == n) for n in (3, 5))
    batch = dataset(batch_size="mix:10").read(Draw(0, np.array([short, long])))
    assert batch is not None
    assert batch["atype"][0, 3:].tolist() == [-1, -1]
    names = np.array([1, 0])  # H and O of the file are O and H of the model
    np.testing.assert_array_equal(batch["atype"][1], names[frames[long]["atom_types"]])
    np.testing.assert_array_equal(batch["force"][0, :3], frames[short]["forces"])
    assert not batch["force"][0, 3:].any()
    np.testing.assert_array_equal(batch["energy"][:, 0], [frames[k]["energies"] for k in (short, long)])
    assert batch["find_virial"] == 1.0


def test_a_label_that_a_frame_lacks_is_missing_in_its_batch() -> None:
    batch = dataset().read(Draw(0, np.array([0])))
    assert batch is not None
    assert batch["find_virial"] == 1.0
    frames = lmdb_frames()
    same = [k for k, frame in enumerate(frames) if len(frame["atom_types"]) == len(frames[20]["atom_types"])]
    batch = dataset().read(Draw(0, np.array([same[0], 20])))
    assert batch is not None
    assert batch["find_virial"] == 0.0
    assert "virial" not in batch


def test_frames_with_close_atoms_are_left_out() -> None:
    data = dataset(min_pair_dist=6.0)
    assert data.read(Draw(0, data.groups[0][:2])) is None
    assert list(Loader(data, order_of(data, Generator(0), 1, 0)).sample(3)) == []


# ----------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"batch_size": "mixed:9"}, '"mixed:N" is not there'),
        ({"batch_size": "mix:"}, "batch_size: mix: must be followed by a positive integer, got 'mix:'"),
        ({"batch_size": [1, 2]}, "has one batch size, got a list"),
        ({"batch_size": "filter:2"}, "leaves no frame"),
        ({"auto_prob": "prob_sys_size;0:4:1"}, "asks for systems 0 to 4, but there are 3"),
    ],
)
def test_sections_that_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        dataset(**section)


def test_among_systems_it_is_refused(tmp_path: Path) -> None:
    section = {"systems": [str(LMDB), str(tmp_path)], "batch_size": 1}
    with pytest.raises(
        dpa2.InputError, match=r"systems\[0\]: .*frames\.lmdb is an LMDB data set, which must be the only"
    ):
        open_section(section, TYPE_MAP, ENERGY)
    with pytest.raises(FileNotFoundError):
        open_section({"systems": str(tmp_path / "missing.lmdb")}, TYPE_MAP, ENERGY)


def test_an_unknown_type_is_named() -> None:
    data = LmdbSet({"systems": str(LMDB), "batch_size": 1}, ["O"], ENERGY)
    types = lmdb_frames()[0]["atom_types"]
    message = rf"frames\.lmdb, frame 0: atom {np.argmin(types)} is 'H', which the model does not know; .* is O$"
    with pytest.raises(dpa2.InputError, match=message):
        data.read(Draw(0, np.array([0])))


def test_labels_that_the_model_needs() -> None:
    data = LmdbSet({"systems": str(LMDB), "batch_size": 1}, TYPE_MAP, [Label("fparam", 1, False, True)])
    with pytest.raises(dpa2.InputError, match=r"frame 2: no fparam, which the model cannot be trained without"):
        data.read(Draw(0, np.array([2])))


def patched(tmp_path: Path, change: bytes, to: bytes, count: int = 1) -> Path:
    """The data set with bytes of its file replaced."""
    path = tmp_path / "bad.lmdb"
    shutil.copytree(LMDB, path)
    file = path / "data.mdb"
    data = file.read_bytes()
    assert change in data
    file.write_bytes(data.replace(change, to, count))
    return path


def test_a_label_that_is_no_number(tmp_path: Path) -> None:
    energy = struct.pack("<d", float(lmdb_frames()[3]["energies"]))
    data = dataset(patched(tmp_path, energy, struct.pack("<d", np.nan)))
    with pytest.raises(dpa2.InputError, match=r"bad\.lmdb, frame 3: energy: found nan where a finite number must be"):
        data.read(Draw(0, np.array([3])))


def test_a_wrong_shape(tmp_path: Path) -> None:
    frame = lmdb_frames()[0]
    natoms = len(frame["atom_types"])
    path = patched(
        tmp_path,
        bytes([0xA5]) + b"shape" + bytes([0x92, natoms, 3]),
        bytes([0xA5]) + b"shape" + bytes([0x92, 1, 3]),
        99,
    )
    with pytest.raises(dpa2.InputError, match=r"bytes are no array of float\d\d of shape"):
        dataset(path).read(Draw(0, np.array([0])))


def read_all(path: Path) -> None:
    data = dataset(path)
    for number in range(data.source.nframes):
        data.read(Draw(0, np.array([number])))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Whatever byte is wrong: an answer or a refusal, and no crash."""
    path = tmp_path / "bad.lmdb"
    path.mkdir()
    whole = (LMDB / "data.mdb").read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for trial in range(150):
        data = bytearray(whole[: int(rng.integers(0, len(whole)))] if trial % 5 == 0 else whole)
        for at in rng.integers(0, max(1, len(data)), size=6).tolist():
            data[at : at + 1] = bytes([int(rng.integers(0, 256))])
        (path / "data.mdb").write_bytes(bytes(data))
        try:
            read_all(path)
        except dpa2.InputError as error:
            refused.append(str(error))
    assert len(refused) > 40
    assert all(str(path) in message for message in refused)


@pytest.mark.parametrize("data", [b"", b"\x00" * 8192, b"text" * 4000])
def test_other_files_are_no_databases(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(dpa2.InputError, match=r"data\.mdb: not a readable LMDB database"):
        LmdbFile(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x07", 7),
        (b"\xff", -1),
        (b"\xcb" + struct.pack(">d", 0.5), 0.5),
        (b"\xcd\x01\x00", 256),
        (b"\xd1\xff\x00", -256),
        (b"\xd3" + struct.pack(">q", -(2**40)), -(2**40)),
        (b"\x93\xc0\xc2\xc3", [None, False, True]),
        (b"\x82\xa1a\x01\xc4\x01b\xa2xy", {"a": 1, b"b": "xy"}),
        (b"\xdc\x00\x02\x01\x02", [1, 2]),
        (b"\xda\x00\x03abc", "abc"),
        (b"\xde\x00\x01\xd9\x01k\xc5\x00\x02hi", {"k": b"hi"}),
    ],
)
def test_unpacking(data: bytes, value: Any) -> None:
    assert unpack(data, "here") == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",
        b"\x91",
        b"\xc7\x01\x01a",
        b"\xc1",
        b"\x01\x02",
        b"\x81\x90\x01",
        b"\x91" * 99 + b"\x01",
    ],
)
def test_what_is_not_unpacked(data: bytes) -> None:
    with pytest.raises(dpa2.InputError, match="here: no readable MessagePack"):
        unpack(data, "here")
