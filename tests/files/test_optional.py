"""Formats whose packages somebody left out: a message that says what to install, and all other formats without them."""

from __future__ import annotations

import sys
from pathlib import Path

import dpa2
import numpy as np
import pytest
from dpa2.cli import main
from dpa2.train.inputs import read_input
from dpa2.train.stat_file import StatisticsFile

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "golden" / "files" / "trained"
WATER = str(ROOT / "examples" / "water_192.extxyz")
HDF5, YAML = "pip install h5py", "pip install PyYAML"


@pytest.fixture(autouse=True)
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("h5py", "yaml"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(("suffix", "command"), [("dp", HDF5), ("yaml", YAML)])
def test_models(suffix: str, command: str) -> None:
    path = MODELS / f"model.{suffix}"
    with pytest.raises(dpa2.InputError) as refused:
        dpa2.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert command in str(refused.value)


@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_other_models_are_read(suffix: str) -> None:
    assert dpa2.load(MODELS / f"model.{suffix}").type_map == ("O", "H")


def test_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "water.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(512))
    assert main(["eval", f"{tmp_path / 'water.hdf5'}#/"]) == 2
    assert HDF5 in capsys.readouterr().err


def test_outputs_are_refused_before_anything_is_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["descriptor", WATER, "-o", str(tmp_path / "all.h5")]) == 2
    assert HDF5 in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["descriptor", WATER, "-o", str(tmp_path / "all.npz")]) == 0
    assert np.load(tmp_path / "all.npz")["descriptor"].shape == (1, 192, 72)


def test_training(tmp_path: Path) -> None:
    (tmp_path / "input.yaml").write_text("model: {}\n")
    with pytest.raises(dpa2.InputError) as refused:
        read_input(tmp_path / "input.yaml")
    assert str(refused.value).startswith(f"{tmp_path / 'input.yaml'}: ")
    assert YAML in str(refused.value)
    with pytest.raises(dpa2.InputError, match=HDF5):
        StatisticsFile(str(tmp_path / "stat.h5"), {"type_map": ["O", "H"]})
    StatisticsFile(str(tmp_path / "stat"), {"type_map": ["O", "H"]})
