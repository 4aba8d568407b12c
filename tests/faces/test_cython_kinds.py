"""Outputs by name through `dpa2.cython_api.ModelHandle`, for models of every kind."""

from __future__ import annotations

from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import relative
from kind_models import frames, kind, kind_model, system_of

pytestmark = needs.library

from dpa2.cython_api import ModelHandle  # noqa: E402


def handle(name: str, folder: Path) -> ModelHandle:
    path = folder / f"{name}.safetensors"
    write_safetensors(path, ModelData(kind(name).config, kind(name).weights))
    return ModelHandle(path)


@pytest.mark.parametrize("name", ["dipole", "polar", "dos", "property", "population_double", "zbl", "linear_three"])
def test_outputs_by_name(name: str, tmp_path: Path) -> None:
    model, python = handle(name, tmp_path), kind_model(name, device="cpu")
    frame = frames(system_of(name, "bulk"))[0]
    assert (model.kind, model.rcut, model.descriptor_dim) == (python.kind, python.rcut, python.descriptor_dim)
    assert model.outputs == {o.name: o.shape for o in python.outputs}
    expected = python.evaluate(**frame, atomic=bool(python.kind in ("energy", "dipole"))).outputs
    del expected["mask"]
    found = model.compute(**frame)
    assert list(found) == [o.name for o in python.outputs if o.name not in ("descriptor", "rot_mat")]
    for output, rows in found.items():
        assert relative(rows, expected[output]) <= SAME
    one = next(iter(found))
    chosen = model.compute(**frame, names=["rot_mat", one], threads=2)
    assert list(chosen) == ["rot_mat", one]
    rotation = python.descriptor(frame["coords"], frame["types"], frame["box"], rot_mat=True)[1]
    assert relative(chosen["rot_mat"], rotation) <= SAME
    assert relative(chosen[one], expected[one]) <= SAME


def test_refusals(tmp_path: Path) -> None:
    model, frame = handle("dipole", tmp_path), frames(system_of("dipole", "bulk"))[0]
    natoms = len(frame["types"])
    for changed, message in [
        ({"names": ["dipole", "energy"]}, "names must be a list of outputs; there are global_dipole, dipole, force"),
        ({"names": "dipole"}, "names must be a list of outputs"),
        ({"names": ["virial"]}, "virials are computed with forces only"),
        ({"fparam": [1.0]}, r"fparam must have shape \(2,\), got \(1,\)"),
        ({"aparam": np.ones(natoms)}, rf"aparam must have shape \({natoms}, 1\), got \({natoms},\)"),
        ({"fparam": None}, "the model needs fparam"),
        ({"aparam": None}, "the model needs aparam"),
        ({"coords": np.zeros((natoms, 2))}, r"coords must be \(natoms, 3\)"),
        ({"types": ["O"] * natoms}, "types must be indices into"),
    ]:
        with pytest.raises(dpa2.InputError, match=message):
            model.compute(**{**frame, **changed})
    with pytest.raises(dpa2.InputError, match="the model has no energy, it is of the kind 'dipole'"):
        model.evaluate(frame["coords"], frame["types"], frame["box"])
    with pytest.raises(dpa2.InputError, match="model is NULL"):
        ModelHandle.__new__(ModelHandle).compute(frame["coords"], frame["types"])
