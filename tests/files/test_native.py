"""The native format: what is written, and the strict check of the header when it is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2 import files
from dpa2.errors import ModelFileError, UnsupportedModelError
from model_files import assert_same, make
from safetensors.numpy import load_file


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def join(path: Path, header: dict[str, Any] | bytes, body: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@pytest.fixture
def native(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    files.write_safetensors(path, make())
    return path


def test_other_readers_can_read_it(native: Path) -> None:
    model = make()
    tensors = load_file(native)
    assert set(tensors) == set(model.weights)
    for name, array in model.weights.items():
        np.testing.assert_array_equal(tensors[name], array)
    header, _ = split(native)
    assert header["__metadata__"]["format"] == "dpa2"
    assert header["__metadata__"]["format_version"] == "1"
    assert json.loads(header["__metadata__"]["config"]) == model.config


def test_writing_replaces_a_file_at_once(native: Path) -> None:
    other = make(5)
    files.write_safetensors(native, other)
    assert_same(files.read(native), other)
    assert [p.name for p in native.parent.iterdir()] == [native.name]


def test_the_same_header_joined_again_is_read(native: Path) -> None:
    header, body = split(native)
    assert_same(files.read(join(native, header, body)), make())


NAME = "out_bias"
Change = Callable[[dict[str, Any]], Any]


def entry(**fields: Any) -> Change:
    return lambda header: header[NAME].update(fields)


def metadata(**fields: Any) -> Change:
    return lambda header: header["__metadata__"].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry(dtype="F16"), "dtype"),
        (entry(dtype="I64"), "dtype"),
        (entry(dtype=["F64"]), "dtype"),
        (entry(dtype="F32"), "disagree"),
        (entry(shape=[1, 4, 1]), "disagree"),
        (entry(shape=[3]), "shape"),
        (entry(shape=[-1, -3, 1]), "malformed"),
        (entry(shape=[2**62, 2**62]), "disagree"),
        (entry(shape=3), "malformed"),
        (entry(shape=[1.0, 3, 1]), "malformed"),
        (entry(shape=[True, 3, True]), "malformed"),
        (entry(shape=[1] * 40), "malformed"),
        (entry(data_offsets=[0, 24]), "overlap|disagree"),
        (entry(data_offsets=[10**9, 10**9 + 24]), "gaps|truncated"),
        (entry(data_offsets=[24, 0]), "disagree"),
        (entry(data_offsets=[0]), "disagree"),
        (entry(data_offsets=[-24, 0]), "malformed"),
        (entry(extra=1), "malformed"),
        (lambda header: header.update({NAME: 3}), "malformed"),
        (lambda header: header.pop(NAME), "gaps"),
        (lambda header: header.pop("__metadata__"), "no dpa2 model"),
        (metadata(format="pt"), "no dpa2 model"),
        (metadata(format_version="2"), "version 2"),
        (metadata(config="{"), "JSON"),
        (metadata(config="[]"), "JSON"),
        (metadata(config='{"head": 3}'), "head"),
        (metadata(config='{"a": NaN}'), "NaN"),
        (metadata(config='{"a": 1, "a": 2}'), "twice"),
        (metadata(config=None), "configuration"),
        (metadata(config="{}"), "descriptor"),
        (lambda header: header.update(__metadata__=[]), "no dpa2 model"),
    ],
)
def test_damaged_headers(change: Change, message: str, native: Path) -> None:
    header, body = split(native)
    change(header)
    with pytest.raises(ModelFileError, match=message):
        files.read(join(native, header, body))


@pytest.mark.parametrize("length", [0, 1, 2**25 + 1, 2**31, 2**62, 2**64 - 1])
def test_wrong_header_lengths(length: int, native: Path) -> None:
    data = native.read_bytes()
    native.write_bytes(struct.pack("<Q", length) + data[8:])
    with pytest.raises(ModelFileError):
        files.read(native)


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[]", b"{", b'{"a"', b"{" * 100_000, b'{"a": {"a": ' * 5000, b"\xff" * 20, b'{"\xff": 1}', b" " * 30],
)
def test_headers_that_are_no_tables(text: bytes, native: Path) -> None:
    with pytest.raises(ModelFileError):
        files.read(join(native, text, b""))


def test_duplicate_tensors(native: Path) -> None:
    header, body = split(native)
    text = json.dumps(header)
    again = json.dumps({NAME: header[NAME]})[1:-1]
    with pytest.raises(ModelFileError, match="twice"):
        files.read(join(native, f"{text[:-1]}, {again}}}".encode(), body))


def test_overlapping_tensors(native: Path) -> None:
    header, body = split(native)
    header["out_bias"]["data_offsets"] = header["out_std"]["data_offsets"]
    with pytest.raises(ModelFileError, match="overlap"):
        files.read(join(native, header, body))


def test_bytes_behind_the_last_tensor(native: Path) -> None:
    native.write_bytes(native.read_bytes() + b"\0")
    with pytest.raises(ModelFileError, match="bytes"):
        files.read(native)


def test_safetensors_of_another_program(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3)}, tmp_path / "m.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match="no dpa2 model"):
        files.read(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("out_bias", np.full((1, 3, 1), np.inf), "finite"),
        ("out_bias", np.ones((1, 3, 1), np.int32), "int32"),
        ("descriptor.extra.matrix", np.ones((2, 2)), "do not use"),
    ],
)
def test_bad_models_are_not_written(name: str, array: Any, message: str, tmp_path: Path) -> None:
    model = make()
    model.weights[name] = array
    with pytest.raises(ModelFileError, match=message):
        files.write_safetensors(tmp_path / "m.safetensors", model)
    assert not (tmp_path / "m.safetensors").exists()
