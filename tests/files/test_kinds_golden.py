"""Files of other kinds as deepmd-kit 3.2.0 wrote them: every format of a model is the same model."""

from __future__ import annotations

from pathlib import Path

import dpa2
import numpy as np
import pytest
from dpa2.files import heads, read, write_safetensors
from helpers import relative
from kind_cases import FILES, KIND_CASES
from kind_models import frames, kind, outputs

pytestmark = pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")

#: heads of files/multitask, and the case of each
HEADS = {case.name.partition("_")[2]: case.name for case in KIND_CASES if case.folder == "multitask"}
#: (file, head to ask for, case)
EXPECTED = [
    (f"{case.folder}/model.{suffix}", None, case.name)
    for case in KIND_CASES
    for suffix in case.formats
    if case.folder != "multitask"
] + [
    (file, asked, name)
    for head, name in HEADS.items()
    for file, asked in (("multitask/model.pt", head), (f"multitask/{head}.pth", None))
]

each_file = pytest.mark.parametrize(("file", "head", "name"), EXPECTED)


def test_every_file_is_read() -> None:
    assert {str(path.relative_to(FILES)) for path in FILES.rglob("*.*")} == {file for file, _, _ in EXPECTED}
    assert {Path(file).suffix for file, _, _ in EXPECTED} == {".pt", ".pth", ".dp", ".yaml"}


@each_file
def test_configuration_and_weights(file: str, head: str | None, name: str) -> None:
    data, expected = read(FILES / file, head), kind(name)
    assert {**data.config, "head": None} == {**expected.config, "head": None}
    assert data.config["head"] == head
    assert data.weights.keys() == expected.weights.keys()
    for key, value in data.weights.items():
        assert value.flags.c_contiguous
        assert value.dtype == expected.weights[key].dtype, key
        assert np.array_equal(value, expected.weights[key]), key


@each_file
def test_native_file_keeps_everything(file: str, head: str | None, name: str, tmp_path: Path) -> None:
    data = read(FILES / file, head)
    write_safetensors(tmp_path / "model.safetensors", data)
    again = read(tmp_path / "model.safetensors")
    assert again.config == data.config
    assert again.weights.keys() == data.weights.keys()
    for key, value in again.weights.items():
        assert value.dtype == data.weights[key].dtype
        assert np.array_equal(value, data.weights[key])


@pytest.mark.parametrize("device", ["cpu", "reference"])
@each_file
def test_answers(file: str, head: str | None, name: str, device: str) -> None:
    case = next(case for case in KIND_CASES if case.name == name)
    model = dpa2.load(FILES / file, head=head, precision="float64", threads=1, device=device, on_overflow="ignore")
    system = min(kind(name).systems, key=lambda s: len(s.atype))
    for key, value in outputs(model, frames(system)[0]).items():
        assert relative(value, system.expected[key][0]) <= case.tolerance, key


def test_heads() -> None:
    assert sorted(heads(FILES / "multitask" / "model.pt")) == sorted(HEADS)
    for wrong in (None, "band"):
        with pytest.raises(dpa2.InputError, match=r"dipole.*energy.*gap|energy.*dipole.*gap"):
            read(FILES / "multitask" / "model.pt", wrong)


def test_golden_files_hold_no_code() -> None:
    for file, _, _ in EXPECTED:
        assert b"/code/" not in (FILES / file).read_bytes(), file
