"""Files of models of hybrid descriptors: every format of deepmd-kit's is the same model; damaged ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from dpa2 import files
from dpa2.cli import main
from dpa2.files import ModelData, heads, read, schema, write_safetensors
from dpa2.files._data import RawModel
from dpa2.files.assembly import assemble
from dpa2.files.hybrid import MAX_DESCRIPTORS
from helpers import relative
from hybrid_cases import FILES, HYBRID_CASES
from kind_files import changed
from kind_models import frames, kind, outputs
from model_files import write_pt

EXPECTED = [(f"{case.folder}/model.{suffix}", case.name) for case in HYBRID_CASES for suffix in case.formats]
each_file = pytest.mark.parametrize(("file", "name"), EXPECTED)


def data_of(name: str) -> ModelData:
    return ModelData(kind(name).config, kind(name).weights)


def test_every_file_is_read() -> None:
    assert {str(path.relative_to(FILES)) for path in FILES.rglob("*.*")} == {file for file, _ in EXPECTED}
    assert {Path(file).suffix for file, _ in EXPECTED} == {".pt", ".pth", ".dp", ".yaml"}
    assert all(b"/code/" not in path.read_bytes() for path in FILES.rglob("*.*"))


@each_file
def test_configuration_weights_and_the_native_file(file: str, name: str, tmp_path: Path) -> None:
    data, expected = read(FILES / file), kind(name)
    assert data.config == expected.config
    write_safetensors(tmp_path / "model.safetensors", data)
    for found in (data, read(tmp_path / "model.safetensors")):
        assert found.config == expected.config
        assert found.weights.keys() == expected.weights.keys()
        for key, value in found.weights.items():
            assert value.dtype == expected.weights[key].dtype, key
            assert np.array_equal(value, expected.weights[key]), key


@each_file
def test_answers(file: str, name: str) -> None:
    model = dpa2.load(FILES / file, precision="float64", threads=1, on_overflow="ignore")
    system = min(kind(name).systems, key=lambda s: len(s.atype))
    for key, value in outputs(model, frames(system)[0]).items():
        assert relative(value, system.expected[key][0]) <= 1e-10, key


def test_heads_of_one_file(tmp_path: Path) -> None:
    """A hybrid beside a model of another descriptor."""
    path = write_pt(
        tmp_path / "m.pt", {"one": data_of("hybrid_energy"), "two": data_of("hybrid_polar"), "three": data_of("polar")}
    )
    assert sorted(heads(path)) == ["one", "three", "two"]
    for head, name in (("one", "hybrid_energy"), ("two", "hybrid_polar")):
        assert read(path, head).config["descriptor"] == kind(name).config["descriptor"]


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = str(FILES / "nested" / "model.pt"), str(tmp_path / "m.safetensors")
    assert main(["info", source]) == 0
    shown = capsys.readouterr().out
    for text in (
        "hybrid of",
        "dpa1, dpa1, se_e2_a, dpa2, se_e2_a",
        "rcut 3.6 angstrom, 14 neighbours, strip",
        "8+8+8 neighbours",
    ):
        assert text in shown
    assert main(["convert", source, target, "--precision", "float32"]) == 0
    config = read(target).config
    assert config["precision"] == "float32"
    assert {one["precision"] for one in schema.descriptors(config)} == {"float32"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"descriptor.list.0.type": "se_e2_r"}, r"descriptor\.list\[0\] is 'se_e2_r', which knows distances alone"),
    ({"descriptor.list.0.type": "se_e3"}, r"descriptor\.list\[0\] is 'se_e3'; in a hybrid descriptor there can be"),
    ({"descriptor.list.0.type": ["dpa2"]}, r"descriptor\.list\[0\] is list"),
    ({"descriptor.list.0": 3}, r"descriptor\.list\[0\] is 3, expected a dictionary"),
    ({"descriptor.list": []}, r"descriptor\.list is a list of 0"),
    ({"descriptor.list": {}}, r"descriptor\.list is dict"),
    ({"descriptor.list": KeyError}, r"descriptor\.list is None"),
    ({"descriptor.list.0.tea": 1}, r"descriptor\.list\[0\]\.tea is unknown"),
    ({"descriptor.tea": 1}, r"descriptor\.tea is unknown"),
    ({"descriptor.list.0.sel": [9, 9]}, r"descriptor\.list\[0\]\.sel has 2 entries"),
    ({"descriptor.list.0.sel": "auto"}, r"descriptor\.list\[0\]\.sel is 'auto'"),
    ({"descriptor.list.0.neuron": [4, -1]}, r"descriptor\.list\[0\]\.neuron\[1\] is -1"),
    ({"descriptor.list.0.neuron": [4, 7]}, r"descrpt_list\.0\.sea.* has shape"),
    ({"descriptor.list.0.rcut": KeyError}, r"descriptor\.list\[0\]\.rcut is missing"),
    ({"descriptor.list.0.type_one_side": True}, r"networks.*these options do not use"),
    ({"descriptor.list.1.repinit.nsel": 0}, r"descriptor\.list\[1\]\.repinit\.nsel is 0"),
    ({"descriptor.list.1.repinit.rcut": 1.0}, "must be below those of repinit"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_members_that_cannot_be(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.ModelFileError, match=message):
        files.read(changed(tmp_path / "m.pt", data_of("hybrid_energy"), change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"descriptor.list.0.attn_layer": 2}, r"descriptor\.list\[0\] is a dpa1 descriptor with attention"),
        ({"descriptor.list.0.attn_layer": KeyError}, r"descriptor\.list\[0\] is a dpa1 descriptor with attention"),
        ({"descriptor.list.2.attn_layer": False}, r"descriptor\.list\[2\] is a dpa1 descriptor with attention"),
        ({"descriptor.list.0.lmax": 2}, r"descriptor\.list\[0\]\.lmax is 2"),
    ],
)
def test_attention_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.UnsupportedModelError, match=message):
        files.read(changed(tmp_path / "m.pt", data_of("hybrid_polar"), change))


def test_hybrids_without_dpa2(tmp_path: Path) -> None:
    members = kind("hybrid_energy").config["descriptor"]["list"]
    alone = {"type": "hybrid", "list": [members[0]]}
    for name, place in (("hybrid_energy", "descriptor"), ("hybrid_sides", "descriptor.list.1")):
        with pytest.raises(dpa2.UnsupportedModelError, match=r"has no dpa2( or dpa1)? descriptor"):
            files.read(changed(tmp_path / "m.pt", data_of(name), {place: alone}))


def test_a_table_beside_a_hybrid(tmp_path: Path) -> None:
    change = {"use_srtab": "t.txt", "sw_rmin": 0.2, "sw_rmax": 0.5}
    with pytest.raises(dpa2.UnsupportedModelError, match=r"ZBL table.*hybrid"):
        files.read(changed(tmp_path / "m.pt", data_of("hybrid_energy"), change))


def test_a_hybrid_whose_list_another_model_cuts(tmp_path: Path) -> None:
    change = {"models.1.descriptor.repinit.nsel": 25}
    with pytest.raises(dpa2.UnsupportedModelError, match=r"models\[0\] has a hybrid descriptor whose list of 27"):
        files.read(changed(tmp_path / "m.pt", data_of("hybrid_linear"), change))


@pytest.mark.parametrize("infer", [False, True])
def test_lists_that_hold_each_other(infer: bool) -> None:
    """A few bytes that stand for very many descriptors: pickles refer to what they have said."""
    data = data_of("hybrid_energy")
    node: dict[str, Any] = dict(data.config["descriptor"]["list"][1])
    for _ in range(9):
        node = {"type": "hybrid", "list": [node] * 20}
    raw = RawModel({**data.config, "descriptor": node}, dict(data.weights), None, None, infer=infer)
    with pytest.raises(dpa2.ModelFileError, match=f"more than {MAX_DESCRIPTORS} descriptors"):
        assemble(raw)


def test_compressed_members(tmp_path: Path) -> None:
    data = data_of("hybrid_energy")
    tensors = {**data.weights, "descriptor.descrpt_list.0.sea.compress_data.0": np.ones((3, 6))}
    with pytest.raises(dpa2.UnsupportedModelError, match="hybrid descriptor is compressed"):
        files.read(changed(tmp_path / "m.pt", ModelData(data.config, tensors), {}))
