"""Small files that ask for much: memory and work are bounded by the size of a file and by what its options need."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpa2
import fuzz_models
import model_files as mf
import numpy as np
import pytest
from dpa2 import files
from dpa2._native import NativeModel
from dpa2.errors import InputError, ModelFileError
from dpa2.files import ModelData, native, pickle_reader
from dpa2.files.assembly import assemble
from dpa2.files.config import normalise
from dpa2.files.hdf5_attribute import variable_text
from dpa2.files.schema import expected_weights
from model_files import WRITERS, assert_refused, assert_same, make, peak_growth

EMPTY = mf.name_of("collections", "OrderedDict") + b")R"


def asking_for_much(**repformer: Any) -> ModelData:
    """Options that need some hundred megabytes, and weights that are all views of one number."""
    config = mf.definition(make())
    config["descriptor"]["repformer"].update({"g1_dim": 500, "nlayers": 60, **repformer})
    full = normalise(config, None, None)
    return ModelData(full, {n: np.broadcast_to(0.5, weight.shape) for n, weight in expected_weights(full).items()})


# ------------------------------------------------------------------------------------------------- repeated numbers


def test_views_that_repeat_a_number(tmp_path: Path) -> None:
    path = fuzz_models.write_views(tmp_path / "m.pt", asking_for_much())
    assert path.stat().st_size < 500_000
    assert peak_growth(lambda: assert_refused(path, "repeat each other")) < 64


def test_views_that_share_a_storage(tmp_path: Path) -> None:
    """No view repeats a number, but together they are many times their storage."""
    model, maker = asking_for_much(), mf.Pickle()
    numel = max(array.size for array in model.weights.values())
    state: dict[str, Any] = {"_extra_state": {"model_params": mf.definition(model)}}
    for name, array in model.weights.items():
        stride = tuple(int(np.prod(array.shape[k + 1 :])) for k in range(array.ndim))
        args = maker.storage("DoubleStorage", "0", numel) + maker.save(0) + maker.save(array.shape)
        rebuilt = mf.name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + args + maker.save(stride) + b"\x89}tR"
        state[f"model.Default.atomic_model.{name}"] = mf.Raw(rebuilt)
    path = mf.write_stream(tmp_path / "m.pt", maker.dump({"model": state}), [bytes(8 * numel)])
    assert peak_growth(lambda: assert_refused(path, "repeat each other")) < 64


def test_data_sets_that_are_used_again_and_again(tmp_path: Path) -> None:
    import h5py

    kept: dict[tuple[int, ...], str] = {}
    with h5py.File(tmp_path / "m.dp", "w") as file:

        def store(array: np.ndarray) -> str:
            if array.shape not in kept:
                kept[array.shape] = f"/variable_{len(kept):04d}"
                file[kept[array.shape]] = np.full(array.shape, 0.5)
            return kept[array.shape]

        file.attrs["json"] = json.dumps(mf.map_arrays(mf.tree(asking_for_much(g1_dim=200, nlayers=30)), store))
    assert peak_growth(lambda: assert_refused(tmp_path / "m.dp", "repeat each other")) < 128


def test_lists_that_are_used_again_and_again(tmp_path: Path) -> None:
    path = fuzz_models.write_aliases(tmp_path / "m.yaml", asking_for_much(g1_dim=300, nlayers=4))
    assert peak_growth(lambda: assert_refused(path, "repeat each other|more numbers")) < 128


def test_tied_weights_and_expanded_statistics_are_no_attack(tmp_path: Path) -> None:
    """Files may share a storage between weights of a model, or keep statistics as views that repeat a row."""
    model = make()
    layers = "descriptor.repformers.layers.{}.g1_self_mlp.matrix"
    model.weights[layers.format(1)] = model.weights[layers.format(0)]
    maker = mf.Pickle()
    state = mf.state(model, "model.Default.atomic_model.")
    for name in list(state):
        if name.endswith((".mean", ".stddev")):
            rows = model.weights[name.removeprefix("model.Default.atomic_model.")]
            rebuilt = maker.tensor(rows)
            tail = maker.save(rows.shape) + maker.save((4, 1))
            assert tail in rebuilt
            expanded = maker.save((len(rows), 120, 4)) + maker.save((4, 0, 1))
            state[name] = mf.Raw(rebuilt.replace(tail, expanded))
    state["_extra_state"] = {"model_params": mf.definition(model)}
    path = mf.write_stream(tmp_path / "m.pt", maker.dump({"model": state}), maker.storages)
    assert_same(files.read(path), model)


def test_entries_of_an_archive_that_overlap(tmp_path: Path) -> None:
    """Every storage begins with the header of the next: each is sound, and together they are 100 times the file."""
    model, maker = make(), mf.Pickle()
    tensors = mf.state(model, "model.Default.atomic_model.")
    kernel = np.full(250_000, 0.5).tobytes()
    names = [f"a/data/{100 + k}" for k in range(len(tensors))]
    header = 30 + len(names[0])
    assert header % 8 == 0
    state: dict[str, Any] = {"_extra_state": {"model_params": mf.definition(model)}}
    for k, (name, array) in enumerate(tensors.items()):
        numel = (len(kernel) + header * (len(names) - 1 - k)) // 8
        stride = tuple(int(np.prod(array.shape[d + 1 :])) for d in range(array.ndim))
        args = maker.storage("DoubleStorage", str(100 + k), numel) + maker.save(numel - array.size)
        args += maker.save(array.shape) + maker.save(stride) + b"\x89}t"
        state[name] = mf.Raw(mf.name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + args + b"R")
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", maker.dump({"model": state}))
        data, blocks = kernel, []
        for name in reversed(names):
            info = zipfile.ZipInfo(name)
            info.file_size = info.compress_size = len(data)
            info.CRC = zlib.crc32(data)
            data = info.FileHeader() + data
            blocks.append(info)
        assert archive.fp is not None
        start = archive.fp.tell()
        archive.fp.write(data)
        for k, info in enumerate(reversed(blocks)):
            info.header_offset = start + k * header
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive.start_dir, archive._didModify = archive.fp.tell(), True
    assert path.stat().st_size < 3_000_000
    with zipfile.ZipFile(path) as archive:
        assert sum(info.file_size for info in archive.infolist()) > 150_000_000
    assert peak_growth(lambda: assert_refused(path, "[oO]verlap")) < 64


# ------------------------------------------------------------------------------------------------------------ HDF5


def test_texts_of_a_length_that_is_a_lie(tmp_path: Path) -> None:
    """The HDF5 library takes that much memory before it looks: 4 GB for a file of 40 KB."""
    path = mf.write_dp(tmp_path / "m.dp", mf.tree(make()))
    data, text = path.read_bytes(), variable_text(path, "json")
    places = [k for k in range(len(data) - 4) if data[k : k + 4] == struct.pack("<I", len(text))]
    refused = 0
    for place in places:
        for claim in (2**32 - 1, 2**31, 2**28, len(data), len(text) + 8):
            path.write_bytes(data[:place] + struct.pack("<I", claim) + data[place + 4 :])

            def attempt() -> None:
                nonlocal refused
                try:
                    files.read(path)
                except ModelFileError:
                    refused += 1

            assert peak_growth(attempt) < 64
    assert refused >= 5


@pytest.mark.parametrize("version", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("others", [0, 7])
def test_texts_are_found_in_every_version_of_the_format(version: str, others: int, tmp_path: Path) -> None:
    import h5py

    text = json.dumps({"ö": list(range(3000))}, ensure_ascii=False)
    for first in (True, False):
        with h5py.File(tmp_path / "x.h5", "w", libver=version) as file:
            if first:
                file.attrs["json"] = text
            for k in range(others):
                file.attrs[f"json{k}"] = "other" * k
            file["variable_0000"] = np.ones(3)
            file.attrs["json"] = text
        assert variable_text(tmp_path / "x.h5", "json").decode() == text


def change_json(tmp_path: Path, change: Callable[[Any, Any, str], None]) -> Path:
    import h5py

    path = mf.write_dp(tmp_path / "m.dp", mf.tree(make()))
    with h5py.File(path, "r+", libver=("earliest", "latest")) as file:
        text = file.attrs["json"]
        del file.attrs["json"]
        change(file, h5py, text)
    return path


def test_other_ways_to_store_the_text(tmp_path: Path) -> None:
    def fixed(file: Any, h5py: Any, text: str) -> None:
        file.attrs["json"] = np.bytes_(text.encode())

    assert_same(files.read(change_json(tmp_path, fixed)), make())

    def empty(file: Any, h5py: Any, text: str) -> None:
        file.attrs["json"] = h5py.Empty("S10")

    def listed(file: Any, h5py: Any, text: str) -> None:
        file.attrs.create("json", [text], dtype=h5py.string_dtype())

    def sequence(file: Any, h5py: Any, text: str) -> None:
        value = np.empty((), object)
        value[()] = np.frombuffer(text.encode(), "u1")
        file.attrs.create("json", value, (), dtype=h5py.vlen_dtype(np.uint8))

    def pointer(file: Any, h5py: Any, text: str) -> None:
        file.attrs.create("json", file["variable_0000"].ref, dtype=h5py.ref_dtype)

    for change in (empty, listed, sequence, pointer):
        assert_refused(change_json(tmp_path, change), "'json' is not a string")


def test_many_attributes_beside_the_text(tmp_path: Path) -> None:
    """The format then keeps them in another place: refused with a reason."""
    import h5py

    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        for k in range(20):
            file.attrs[f"other{k}"] = k
        file.attrs["json"] = "{}"
    assert_refused(tmp_path / "x.h5", "more than 8 attributes")


# --------------------------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize(
    ("flood", "message"),
    [
        (b"]", "objects"),
        (b"}", "objects"),
        (b"N\x85", "objects"),
        (b"(d", "objects"),
        (EMPTY, "objects"),
        (b"\x94", "remembers"),
        (b"q\x00r\x01\x00\x00\x00\x94", "remembers"),
        (b"(", "deeply"),
    ],
)
def test_floods_of_small_things(flood: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opcode of a byte may take a hundred bytes of memory."""
    assert pickle_reader.MAX_OBJECTS <= 2_000_000
    monkeypatch.setattr(pickle_reader, "MAX_OBJECTS", 20_000)
    assert_refused(mf.write_stream(tmp_path / "m.pt", b"\x80\x02N" + flood * 21_000 + b"."), message)


DOUBLED = b"]" + b"q\x00h\x00\x86" * 50
LOOP = b"]q\x01h\x01a"


@pytest.mark.parametrize("value", [DOUBLED, LOOP], ids=["doubled", "loop"])
def test_values_that_repeat_each_other_without_end(value: bytes, tmp_path: Path) -> None:
    """In place of any option, of every kind: nobody walks through them, and none is printed."""
    model = make()
    odd = mf.Raw(value)
    places: list[tuple[str, ...]] = [("type",), ("type_map",), ("pair_exclude_types",), ("atom_exclude_types",)]
    places += [("spin",), ("descriptor",), ("fitting_net",), ("descriptor", "repinit"), ("fitting_net", "atom_ener")]
    places += [("descriptor", key) for key in ("type", "exclude_types", "smooth", "env_protection", "new")]
    places += [("fitting_net", key) for key in ("type", "neuron", "default_fparam", "activation_function")]
    places += [("descriptor", "repinit", key) for key in ("rcut", "nsel", "neuron", "tebd_input_mode")]
    for place in places:
        params = mf.definition(model)
        node = params
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = odd
        assert_refused(mf.write_pt(tmp_path / "m.pt", model, params=params), "inconsistent|spin|supported are|unknown")
        node[place[-1]] = [odd]
        assert_refused(mf.write_pt(tmp_path / "m.pt", model, params=params))


def test_names_that_grow_along_a_graph(tmp_path: Path) -> None:
    """Objects that share each other have many paths, and paths have the lengths of all their names."""
    name = "n" * 100_000
    inner = mf.Module({f"t{k}": np.ones(1) for k in range(50)})
    for _ in range(20):
        inner = mf.Module({name: inner, "x": inner})
        inner.attributes["x"] = mf.Raw(b"N")
    root = mf.Module({"model_def_script": json.dumps(mf.definition(make())), "a": inner})
    path = mf.write_zip(tmp_path / "m.pth", root, {"constants.pkl": b"\x80\x02)."})
    assert peak_growth(lambda: assert_refused(path, "unreasonably large")) < 128


def test_heads_that_share_endless_lists_of_aliases(tmp_path: Path) -> None:
    aliases = b"](" + mf.text("a" * 900) * 3000 + b"eq\x05"
    heads = {f"h{k}": {"model_branch_alias": mf.Raw(aliases if k == 0 else b"h\x05")} for k in range(3000)}
    content = {"model": {"_extra_state": {"model_params": {"model_dict": heads}}}}
    path = mf.write_zip(tmp_path / "m.pt", content)
    assert peak_growth(lambda: assert_refused(path, "heads")) < 128
    with pytest.raises(ModelFileError, match="heads"):
        files.heads(path)


# ----------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("before", ["", "a: 1\n...\n", "a: 1\r", "a: 1\x85", "a: 1\u2028", "\ufeff"])
def test_yaml_directives(before: str, tmp_path: Path) -> None:
    """The parser compares each with all others: a megabyte of them takes it half a minute."""
    path = tmp_path / "m.yaml"
    path.write_bytes((before + "".join(f"%TAG !a{k}! x\n" for k in range(200)) + "---\na: 1\n").encode())
    assert_refused(path, "begins with %")
    path.write_bytes(b"a: 1\n" + b"# more\n" * 150_000 + b"%YAML 1.1\n")
    assert_refused(path, "begins with %")


def test_lists_of_nothing_that_repeat_each_other(tmp_path: Path) -> None:
    from dpa2.files.nested import Budget, NestedTensor

    value: Any = []
    for _ in range(7):
        value = [value] * 1000
    with pytest.raises(ModelFileError, match="more numbers"):
        NestedTensor(value, "float64", Budget(10**6), "x").numpy()


@pytest.mark.parametrize("number", ["9" * 10**6, "0." + "9" * 10**6, "1e" + "9" * 10**6, "-" + "1" * 5000 + ".5"])
def test_numbers_of_a_million_digits(number: str, tmp_path: Path) -> None:
    model = make()
    params = json.dumps(mf.definition(model)).replace('"rcut": 4.0', f'"rcut": {number}')
    assert number in params
    root = mf.module_tree(mf.state(model))
    root.attributes["model_def_script"] = params
    assert_refused(mf.write_zip(tmp_path / "m.pth", root, {"constants.pkl": b"\x80\x02)."}))
    path = tmp_path / "m.yaml"
    path.write_text(f"model: {{type: standard, x: {number}}}\n")
    assert_refused(path)
    header = json.dumps({"__metadata__": {"format": "dpa2", "format_version": "1", "config": params}}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert_refused(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError):
        NativeModel.from_file(str(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("item", ["{}", "[]", "0", '{"a":[]}'])
@pytest.mark.parametrize("inner", [False, True])
def test_headers_of_many_values(item: str, inner: bool, tmp_path: Path) -> None:
    """In the header of a native file, or in the configuration that is a text in it."""
    text = f'{{"x":[{",".join([item] * 1_000_001)}]}}'
    if inner:
        text = json.dumps({"__metadata__": {"format": "dpa2", "format_version": "1", "config": text}})
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    assert peak_growth(lambda: assert_refused(path, "more than 1000000 values")) < 64

    def by_the_core() -> None:
        with pytest.raises(ModelFileError, match="more than 1000000 values"):
            NativeModel.from_file(str(path))

    assert peak_growth(by_the_core) < 256


# --------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(type_map=[f"T{k}" for k in range(3000)]), "pairs of 3000 types"),
        (lambda p: p["descriptor"]["repformer"].update(g2_dim=10**3, attn2_nhead=10**3), "the pair attention"),
        (lambda p: p["descriptor"]["repformer"].update(nlayers=10**9), "nlayers"),
        (lambda p: p["descriptor"]["repinit"].update(tebd_dim=10**6), "pairs of 3 types"),
    ],
)
def test_options_that_ask_for_large_tables(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    model = make(repformer={"update_g2_has_attn": True})
    params = mf.definition(model)
    change(params)
    path = mf.write_pt(tmp_path / "m.pt", model, params=params)
    assert peak_growth(lambda: assert_refused(path, message)) < 64


# ----------------------------------------------------------------------------------------------- paths and arguments


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these is waited for."""
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "pipe.pt")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the name of a socket is limited
        server.bind("socket.pt")
        for name, what in (
            ("pipe.pt", "a pipe"), ("link.safetensors", "a pipe"), ("socket.pt", "a socket"), ("/dev/zero", "a device"),
        ):  # fmt: skip
            assert_refused(tmp_path / name, what)
            with pytest.raises(ModelFileError, match=what):
                files.heads(tmp_path / name)
            with pytest.raises(ModelFileError, match="cannot read"):
                NativeModel.from_file(str(tmp_path / name))


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path: Path) -> None:
    """A mapped file would end the process."""
    path = WRITERS["safetensors"](tmp_path / "m.safetensors", make())
    with native.NativeFile(path) as file:
        raw = file.model(None)
        os.truncate(path, path.stat().st_size - 100_000 if path.stat().st_size > 200_000 else 3000)
        with pytest.raises(ModelFileError, match="shorter"):
            assemble(raw)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"model.pt"


@pytest.mark.parametrize(
    "path", [None, b"", b"model.pt", 3, 0, True, 2.5, [], {}, "", "a\0b", "\ud800", BytesPath(), object(), io.BytesIO()]
)
def test_arguments_that_are_no_paths(path: Any) -> None:
    for call in (dpa2.load, files.read, files.heads, dpa2.Model(make()).save):
        with pytest.raises(InputError, match="path of a model file"):
            call(path)


@pytest.mark.parametrize("head", [3, b"x", [], {}, True])
def test_heads_that_are_no_names(head: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="head must be the name"):
        dpa2.load(mf.write_pt(tmp_path / "m.pt", {"a": make(), "b": make()}), head)


def test_folders_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    assert_refused(tmp_path / "empty.pt", "the file is empty")
    assert_refused(tmp_path, "a directory")
    assert_refused(tmp_path / "empty.pt" / "x", "cannot be read: Not a directory")
    assert_refused(tmp_path / ("x" * 5000), "cannot be read: File name too long")
