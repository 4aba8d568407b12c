"""Paths that are no model files: what is said of them names what was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dpa2
import pytest
from cases import GOLDEN
from dpa2.errors import ModelFileError, UnsupportedModelError
from model_files import Module, write_zip

MODEL = GOLDEN / "files" / "trained" / "model.pt"


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A folder as a training leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (20, 100):
        shutil.copy(MODEL, folder / f"model.ckpt-{step}.pt")
    (folder / "checkpoint").write_text("model.ckpt-20.pt\n")
    return folder


def test_folders_and_pointers_of_a_training(training: Path) -> None:
    newest = training / "model.ckpt-20.pt"
    with pytest.raises(
        ModelFileError, match=f"no model file; the newest checkpoint of this training is {newest}: give"
    ):
        dpa2.load(training)
    with pytest.raises(ModelFileError, match=f"no model file; it says that the newest checkpoint is {newest}: give"):
        dpa2.load(training / "checkpoint")
    (training / "checkpoint").unlink()
    with pytest.raises(ModelFileError, match=rf"there is the file {training}/model.ckpt-\d+.pt in it: give that"):
        dpa2.load(training)
    for file in training.iterdir():
        file.unlink()
    with pytest.raises(UnsupportedModelError, match="this is a directory, which cannot be read"):
        dpa2.load(training)


@pytest.mark.parametrize("text", ["nowhere.pt\n", "", "model.ckpt-20.pt\nmodel.ckpt-100.pt\n", "../run\n", "\0.pt"])
def test_pointers_to_nothing(text: str, training: Path) -> None:
    (training / "checkpoint").write_text(text)
    with pytest.raises(ModelFileError) as caught:
        dpa2.load(training / "checkpoint")
    assert "newest" not in str(caught.value)


def test_names_without_their_suffix(training: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no such file; there is .*model.ckpt-100.pt: give that"):
        dpa2.load(training / "model.ckpt-100")
    with pytest.raises(ModelFileError, match=r"no such file$"):
        dpa2.load(training / "model.ckpt-1000")


def test_training_inputs(tmp_path: Path) -> None:
    sections = {"model": {"type_map": ["O"]}, "training": {"numb_steps": 3}}
    (tmp_path / "input.json").write_text(json.dumps(sections))
    (tmp_path / "input.yaml").write_text("model:\n  type_map: [O]\ntraining:\n  numb_steps: 3\n")
    for name in ("input.json", "input.yaml"):
        with pytest.raises(ModelFileError, match=f"{name}: this is a training input, .* 'dpa2 train'"):
            dpa2.load(tmp_path / name)
    (tmp_path / "other.json").write_text('{"model": 3}')
    with pytest.raises(UnsupportedModelError, match="a Paddle model"):
        dpa2.load(tmp_path / "other.json")


def test_old_frozen_spin_models(tmp_path: Path) -> None:
    root = Module({"backbone_model": Module({"atomic_model": Module({})})})
    path = write_zip(tmp_path / "spin.pth", root, {"constants.pkl": b"."})
    with pytest.raises(UnsupportedModelError, match="this is a spin model whose network has no definition"):
        dpa2.load(path)


def test_what_is_no_path_is_still_refused() -> None:
    """None may be a mistake; the embedded model is what no argument at all gives."""
    assert dpa2.load().type_map == ("O", "H")
    assert dpa2.load(precision="float64", threads=1).precision == "float64"
    with pytest.raises(dpa2.InputError, match="the path of a model file must be"):
        dpa2.load(None)  # type: ignore[arg-type]
