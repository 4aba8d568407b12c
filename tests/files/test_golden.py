"""Complete model files as deepmd-kit 3.2.0 wrote them: every format of a model is the same model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import FILE_MODELS, GOLDEN, TOLERANCE, Golden, load_golden
from dpa2.compress import decompress
from dpa2.files import heads, read, write_safetensors
from helpers import evaluate, relative

FILES = GOLDEN / "files"

#: (file, head to ask for, golden file)
EXPECTED: list[tuple[str, str | None, str]] = [
    (str(path.relative_to(FILES)), None, path.parent.name + ("_ema" if "ema" in path.name else ""))
    for case in FILE_MODELS
    for path in sorted((FILES / case.name).iterdir())
] + [
    ("multitask/model.pt", "water", "multitask_water"),
    ("multitask/model.pt", "liquid", "multitask_water"),
    ("multitask/model.pt", "ice", "multitask_ice"),
    ("multitask/water.pth", None, "multitask_water"),
    ("multitask/ice.pth", None, "multitask_ice"),
]

each_file = pytest.mark.parametrize(("name", "head", "model"), EXPECTED)


def golden_file(model: str) -> Golden:
    return load_golden(FILES / f"{model}.npz")


def same_but_head(config: dict[str, Any], expected: dict[str, Any]) -> bool:
    return {**config, "head": None} == {**expected, "head": None}


def test_every_format_is_there() -> None:
    suffixes = {Path(name).suffix for name, _, _ in EXPECTED}
    assert suffixes == {".pt", ".pth", ".dp", ".yaml", ".hlo", ".pt2", ".pte"}


@each_file
def test_configuration(name: str, head: str | None, model: str) -> None:
    assert same_but_head(decompress(read(FILES / name, head)).config, golden_file(model).config)


@each_file
def test_weights_are_identical(name: str, head: str | None, model: str) -> None:
    weights, expected = decompress(read(FILES / name, head)).weights, golden_file(model).weights
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        assert value.flags.c_contiguous
        assert value.dtype == expected[key].dtype, key
        assert np.array_equal(value, expected[key]), key


@each_file
def test_native_file_keeps_everything(name: str, head: str | None, model: str, tmp_path: Path) -> None:
    data = read(FILES / name, head)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, data)
    again = read(path)
    assert again.config == data.config
    assert again.weights.keys() == data.weights.keys()
    for key, value in again.weights.items():
        assert value.dtype == data.weights[key].dtype
        assert np.array_equal(value, data.weights[key])


@pytest.mark.parametrize("device", ["cpu", "reference"])
@each_file
def test_answers(name: str, head: str | None, model: str, device: str) -> None:
    expected = golden_file(model)
    # deepmd-kit computed with the seven bits of the file's bfloat16
    tolerance = 0.3 if model == "bfloat16" else TOLERANCE["float64"]
    # what a table evaluates to is the matter of model/test_compress.py
    loaded = dpa2.load(FILES / name, head=head, precision="float64", threads=1, device=device, compress=False)
    for system in expected.systems:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answers = evaluate(loaded, system)
        for quantity, value in answers.items():
            assert relative(value, system.expected[quantity]) <= tolerance, quantity
        descriptor = loaded.descriptor(system.coord, system.atype)
        assert relative(descriptor, system.expected["descriptor"]) <= tolerance


def test_heads() -> None:
    assert sorted(heads(FILES / "multitask" / "model.pt")) == ["ice", "water"]
    assert heads(FILES / "trained" / "model.pt") == []
    assert read(FILES / "multitask" / "model.pt", "ice").config["head"] == "ice"


@pytest.mark.parametrize("head", [None, "steam"])
def test_a_missing_head_is_asked_for(head: str | None) -> None:
    with pytest.raises(dpa2.InputError, match=r"ice.*water|water.*ice"):
        read(FILES / "multitask" / "model.pt", head)


def test_golden_files_hold_no_code() -> None:
    """TorchScript sources and compiled graphs belong to another project, and no reader needs them."""
    for name, _, _ in EXPECTED:
        content = (FILES / name).read_bytes()
        assert b"/code/" not in content, name
        assert b"stablehlo.custom_call" not in content, name
