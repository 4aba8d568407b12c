"""Models of other kinds against deepmd-kit 3.2.0: every output in its shape, under its name: see golden/README.md."""

from __future__ import annotations

from pathlib import Path

import dpa2
import numpy as np
import pytest
from cases import System
from dpa2.files import ModelData, schema, write_safetensors
from helpers import DEVICE, relative
from kind_cases import KIND_CASES, KINDS, KindCase, networks
from kind_models import frames, kind, kind_model, outputs

pytestmark = pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")

ALL = pytest.mark.parametrize("case", KIND_CASES, ids=lambda case: case.name)
#: what an energy is, and every other kind by the type of its fitting net
NAMES = {"ener": "energy"}


def test_every_case_has_a_golden_file_and_every_golden_file_a_case() -> None:
    names = [case.name for case in KIND_CASES]
    assert len(set(names)) == len(names)
    others = {"deepeval"}  # answers of deepmd-kit's classes
    assert {path.stem for path in KINDS.glob("*.npz")} - others == set(names)
    files = {path.parent.name for path in (KINDS / "files").rglob("*.*")}
    assert files == {case.folder for case in KIND_CASES if case.folder}


@ALL
def test_configuration_and_weights_are_those_of_the_schema(case: KindCase) -> None:
    data = kind(case.name)
    assert data.config == case.config
    expected = schema.expected_weights(data.config)
    assert data.weights.keys() == expected.keys()
    for name, value in data.weights.items():
        assert (value.shape, value.dtype) == (expected[name].shape, expected[name].dtype), name


def assert_answers(case: KindCase, model: dpa2.Model, system: System, tolerance: float) -> None:
    """Every frame by itself, then all of them together."""
    given = {key: getattr(system, key) for key in ("box", "fparam", "aparam")}
    together = model.evaluate(system.coord, system.atype, atomic="deepmd", **given).outputs
    assert set(together) == {*case.answers, "mask"}
    for name in together:
        expected = system.expected[name]
        assert together[name].shape == expected.shape, name
        error = relative(together[name], expected)
        assert error <= tolerance, f"{system.name}: {name} is off by {error:.1e}"
    for f, frame in enumerate(frames(system)):
        for name, value in outputs(model, frame, atomic="deepmd").items():
            assert value.shape == system.expected[name].shape[1:], name
            assert relative(value, system.expected[name][f]) <= tolerance, f"{system.name}: {name}"


@ALL
def test_outputs(case: KindCase, tmp_path: Path) -> None:
    data = kind(case.name)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, ModelData(data.config, data.weights))
    model = dpa2.load(path, precision="float64", threads=1, device=DEVICE, on_overflow="ignore")
    fitting_type = networks(data.config)[0]["fitting_net"]["type"]
    assert model.kind == NAMES.get(fitting_type, fitting_type)
    assert {o.name for o in model.outputs} == {*case.answers, "descriptor", "rot_mat"}
    for system in data.systems:
        assert_answers(case, model, system, case.tolerance)


@ALL
def test_descriptor(case: KindCase) -> None:
    model = kind_model(case.name)
    for system in kind(case.name).systems:
        descriptor, rot_mat = model.descriptor(system.coord, system.atype, system.box, rot_mat=True)
        assert relative(descriptor, system.expected["descriptor"]) <= case.tolerance, system.name
        real = system.atype >= 0
        assert relative(rot_mat[:, real], system.expected["rot_mat"][:, real]) <= case.tolerance, system.name


@pytest.mark.parametrize("case", KIND_CASES, ids=lambda case: case.name)
def test_the_reference_says_the_same(case: KindCase) -> None:
    """Values of all systems; derivatives, which cost it many evaluations, of the smallest."""
    model = kind_model(case.name, device="reference")
    smallest = min(kind(case.name).systems, key=lambda system: len(system.atype))
    for system in kind(case.name).systems:
        small = system is smallest
        atomic = "deepmd" if small and len(system.atype) <= 3 else False
        for f, frame in enumerate(frames(system)):
            for name, value in outputs(model, frame, atomic, forces=small).items():
                assert value.shape == system.expected[name].shape[1:], name
                assert relative(value, system.expected[name][f]) <= case.tolerance, f"{system.name}: {name}"


# ------------------------------------------------------------------------------------------------- precision

DOUBLE = [case.name for case in KIND_CASES if case.tolerance < 1e-9]


def float32_ratios(name: str) -> dict[str, tuple[float, float]]:
    """For every output, our float32's error over that of deepmd-kit's float32: (largest, root mean square)."""
    model = kind_model(name, precision="float32")
    differences: dict[str, list[np.ndarray]] = {}
    for system in kind(name).systems:
        for f, frame in enumerate(frames(system)):
            for key, value in outputs(model, frame, atomic="deepmd").items():
                differences.setdefault(key, []).append((value - system.expected[key][f]).ravel())
    errors = kind(name).float32_error
    joined = {key: np.concatenate(parts) for key, parts in differences.items() if key != "mask"}
    return {
        key: (float(np.abs(d).max() / errors[key][0]), float(np.sqrt(np.mean(d**2)) / errors[key][1]))
        for key, d in joined.items()
        if errors[key][0] > 0.0
    }


@pytest.mark.skipif(DEVICE == "reference", reason="the reference knows float64 only")
@pytest.mark.parametrize("name", DOUBLE)
def test_float32_of_one_model(name: str) -> None:
    """As for energies, but for nets so small that atoms of a type share a part of the error: one number may be chance.

    What has few numbers counts in the test over all models.
    """
    ratios, natoms = float32_ratios(name), sum(s.coord[..., 0].size for s in kind(name).systems)
    for key, (largest, rms) in ratios.items():
        if key.startswith(("atom_", "force", "dipole", "polar", "population")) and natoms > 20:
            assert largest <= 2.5, key
            assert rms <= 2.5, key


@pytest.mark.skipif(DEVICE == "reference", reason="the reference knows float64 only")
def test_float32_is_no_further_from_float64_than_deepmd_kit_is() -> None:
    """Over all models and outputs, in the geometric mean."""
    ratios = np.array([pair for name in DOUBLE for pair in float32_ratios(name).values()])
    assert np.exp(np.log(ratios).mean()) <= 1.0
