"""Hostile serialized trees: YAML and JSON bombs, tags, HDF5 links and data that are stored elsewhere."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files as mf
import numpy as np
import pytest
from dpa2.errors import ModelFileError
from dpa2.files.nested import Budget, NestedTensor
from model_files import assert_refused, make, peak_growth

# -------------------------------------------------------------------------------------------------- trees as text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", "no model"),
        ("a: &a [*a]\n", "alias"),
        ("a: *b\n", "alias"),
        ("model: !!python/object/apply:os.system ['true']\n", "tag"),
        ("model: !x 1\n", "tag"),
        ("model: !!binary aGk=\n", "tag"),
        ("a: 1\na: 2\n", "twice"),
        ("<<: {a: 1}\n", "name"),
        ("? [1]\n: 2\n", "name"),
        ("1: 2\n", "name"),
        ("[" * 1000 + "]" * 1000, "deeply|damaged"),
        ("a: 1\n---\nb: 2\n", "documents"),
        ("- 1\n", "mapping"),
        ("just text", "mapping"),
        ("a: [1", "damaged"),
        ("a: \x01", "model file|damaged"),
        ("model: {descriptor: {type: dpa2}, type: standard}\n", "fitting net"),
    ],
)
def test_hostile_yaml(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    assert_refused(path, message)


def test_a_yaml_bomb_in_place_of_a_weight(tmp_path: Path) -> None:
    tree = mf.tree(make())
    path = mf.write_yaml(tmp_path / "m.yaml", tree)
    levels = "".join(f"b{k}: &b{k} [{', '.join([f'*b{k - 1}'] * 9)}]\n" for k in range(1, 30))
    text = "b0: &b0 [1.0, 1.0]\n" + levels + path.read_text()
    for deep in (6, 29):
        changed = text.replace(
            "out_bias:", f"out_bias: {{'@class': np.ndarray, dtype: float64, value: *b{deep}}}\n    old:", 1
        )
        path.write_text(changed)
        assert peak_growth(lambda: assert_refused(path)) < 64


def test_nested_numbers_are_limited_by_the_size_of_the_file() -> None:
    row = [1.0] * 100
    square = NestedTensor([row] * 100, "float32", Budget(10_000), "square")
    assert square.shape == (100, 100)
    np.testing.assert_array_equal(square.numpy(), np.ones((100, 100), np.float32))
    with pytest.raises(ModelFileError, match="more numbers"):
        square.numpy()


@pytest.mark.parametrize(
    "value",
    ["*", [[1.0], [1.0, 2.0]], [["a"] * 3], [[None]], {"x": 1}, 3, [[[[[[[[[[1.0]]]]]]]]]], [1e400], [10**400]],
)
def test_malformed_arrays_in_text(value: Any, tmp_path: Path) -> None:
    tree = mf.tree(make())
    tree["model"]["@variables"]["out_bias"] = {"@class": "np.ndarray", "dtype": "float64", "value": value}
    for path in (mf.write_yaml(tmp_path / "m.yaml", tree), mf.write_pt2(tmp_path / "m.pt2", tree)):
        assert_refused(path, "out_bias")


@pytest.mark.parametrize("dtype", ["object", "int64", "O", "S1000000000", "V2", None, ["float64"]])
def test_other_types_of_arrays_in_text(dtype: Any, tmp_path: Path) -> None:
    tree = mf.tree(make())
    tree["model"]["@variables"]["out_bias"] = {"@class": "np.ndarray", "dtype": dtype, "value": [[[1.0]] * 3]}
    assert_refused(mf.write_pt2(tmp_path / "m.pt2", tree), "dtype")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"model": []}', "nan", '{"model": {"descriptor": 1}}'])
def test_malformed_json(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/extra/model.json", text)
    assert_refused(path)


# ---------------------------------------------------------------------------------------------------------- HDF5


def edit_dp(tmp_path: Path, change: Callable[[Any, Any], None]) -> Path:
    """A serialized model whose file is changed behind the writer's back; the second argument is the h5py module."""
    import h5py

    path = mf.write_dp(tmp_path / "m.dp", mf.tree(make()))
    with h5py.File(path, "r+") as file:
        change(file, h5py)
    return path


def replace(make_it: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def change(file: Any, h5py: Any) -> None:
        del file["variable_0003"]
        make_it(file, h5py)

    return change


def secret(tmp_path: Path) -> Path:
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones((2, 2))
    return tmp_path / "secret.h5"


def test_hdf5_links(tmp_path: Path) -> None:
    target = str(secret(tmp_path))
    for link in ("ExternalLink", "SoftLink"):

        def change(file: Any, h5py: Any, link: str = link) -> None:
            file["variable_0003"] = (
                h5py.ExternalLink(target, "/x") if link == "ExternalLink" else h5py.SoftLink("/variable_0001")
            )

        assert_refused(edit_dp(tmp_path, replace(change)), "link")


def test_hdf5_data_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(np.ones((2, 2)).tobytes())
    target = str(secret(tmp_path))

    def external(file: Any, h5py: Any) -> None:
        file.create_dataset("variable_0003", (2, 2), "f8", external=[(str(tmp_path / "raw"), 0, 32)])

    def virtual(file: Any, h5py: Any) -> None:
        layout = h5py.VirtualLayout((2, 2), "f8")
        layout[:] = h5py.VirtualSource(target, "x", (2, 2))
        file.create_virtual_dataset("variable_0003", layout)

    for change in (external, virtual):
        assert_refused(edit_dp(tmp_path, replace(change)), "another file")


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (2**20, 2**20), "dtype": "f8"},
        {"shape": (2**20, 2**20), "dtype": "f8", "chunks": (64, 64)},
        {"shape": (2**14, 2**10), "dtype": "f8", "chunks": (64, 64), "compression": "gzip"},
        {"shape": (), "dtype": "f8"},
        {"data": "text"},
        {"data": np.ones((2, 2), "i8")},
        {"data": np.ones((2, 2), "c16")},
        {"data": np.zeros(2, "V7")},
    ],
)
def test_hdf5_data_sets_of_other_kinds(options: dict[str, Any], tmp_path: Path) -> None:
    path = edit_dp(tmp_path, replace(lambda file, h5py: file.create_dataset("variable_0003", **options)))
    assert peak_growth(lambda: assert_refused(path)) < 64


@pytest.mark.parametrize(
    "value", ["/", "..", "/variable_0000/../x", "http://x", 3, None, [], "/nowhere", "variable_0003\0"]
)
def test_hdf5_references(value: Any, tmp_path: Path) -> None:
    tree = mf.tree(make())
    tree["model"]["@variables"]["out_bias"] = value
    assert_refused(mf.write_dp(tmp_path / "m.dp", tree), "out_bias|refers|missing")


@pytest.mark.parametrize("value", [3, np.ones(4), b"\xff\xfe", "{", "[]", None])
def test_hdf5_trees_of_other_kinds(value: Any, tmp_path: Path) -> None:
    def change(file: Any, h5py: Any) -> None:
        del file.attrs["json"]
        if value is not None:
            file.attrs["json"] = value

    assert_refused(edit_dp(tmp_path, change), "json")


def test_a_group_is_no_array(tmp_path: Path) -> None:
    assert_refused(edit_dp(tmp_path, replace(lambda file, h5py: file.create_group("variable_0003"))), "no array")
