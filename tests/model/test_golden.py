"""The model against deepmd-kit 3.2.0, option by option: see golden/README.md."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from cases import FILE_MODELS, ModelCase, golden_cases
from helpers import CASES, evaluate, golden, model_of, model_through_file, relative

QUANTITIES = ("energy", "atom_energy", "force", "virial", "atom_virial")
RANDOM = {case.name for case in golden_cases() if case.name.startswith("random_")}


def name(case: ModelCase) -> str:
    return case.name


ALL = pytest.mark.parametrize("case", golden_cases(), ids=name)


def test_every_case_has_a_golden_file_and_every_golden_file_a_case() -> None:
    names = [case.name for case in golden_cases()]
    assert len(set(names)) == len(names)
    files = {path.stem for path in golden_cases()[0].golden.parent.glob("*.npz")}
    assert files == set(names)


@ALL
def test_golden_configuration_is_that_of_the_case(case: ModelCase) -> None:
    assert golden(case.name).config == case.config


@ALL
def test_descriptor(case: ModelCase, tmp_path: Path) -> None:
    data = golden(case.name)
    model = model_through_file(data, tmp_path)
    for system in data.systems:
        descriptor, rot_mat = model.descriptor(system.coord, system.atype, system.box, rot_mat=True)
        assert relative(descriptor, system.expected["descriptor"]) <= case.tolerance, system.name
        real = system.atype >= 0
        assert relative(rot_mat[:, real], system.expected["rot_mat"][:, real]) <= case.tolerance, system.name


@ALL
def test_energy_and_derivatives(case: ModelCase, tmp_path: Path) -> None:
    data = golden(case.name)
    model = model_through_file(data, tmp_path)
    for system in data.systems:
        answers = evaluate(model, system, atomic="deepmd")
        for quantity in QUANTITIES:
            error = relative(answers[quantity], system.expected[quantity])
            assert error <= case.tolerance, f"{system.name}: {quantity} is off by {error:.1e}"


@pytest.mark.parametrize("case", needs.mostly_slow(golden_cases(), RANDOM, name), ids=name)
def test_reference_implementation(case: ModelCase) -> None:
    data = golden(case.name)
    model = model_of(data, device="reference")
    for system in data.systems:
        descriptor = model.descriptor(system.coord, system.atype, system.box)
        assert relative(descriptor, system.expected["descriptor"]) <= case.tolerance, system.name
    small = min(data.systems, key=lambda system: system.coord.shape[1])
    # derivatives cost the reference many energies, per-atom virials many more: small systems only
    answers = evaluate(model, small, atomic="deepmd" if small.coord.shape[1] <= 3 else False)
    for quantity, value in answers.items():
        assert relative(value, small.expected[quantity]) <= case.tolerance, quantity


FLOAT32 = [case.name for case in golden_cases() if case.float32]


def float32_ratios(name: str) -> dict[str, tuple[float, float]]:
    """For every quantity, our float32's error over that of deepmd-kit's float32: (largest, root mean square)."""
    data = golden(name)
    model = model_of(data, precision="float32")
    differences: dict[str, list[np.ndarray]] = {}
    for system in data.systems:
        answers = evaluate(model, system) | {"descriptor": model.descriptor(system.coord, system.atype, system.box)}
        for quantity, value in answers.items():
            differences.setdefault(quantity, []).append((value - system.expected[quantity]).ravel())
    ratios = {}
    for quantity, parts in differences.items():
        joined = np.concatenate(parts)
        largest, rms = data.float32_error[quantity]
        ratios[quantity] = (float(np.abs(joined).max() / largest), float(np.sqrt(np.mean(joined**2)) / rms))
    return ratios


@pytest.mark.parametrize("name", FLOAT32)
def test_float32_of_one_model(name: str) -> None:
    """Rounding errors of two implementations are independent: single figures may be larger by chance, not by much.

    Energies and virials of four frames are too few numbers for that; they count in the test over all models.
    """
    ratios = float32_ratios(name)
    for quantity in ("descriptor", "atom_energy", "force"):
        largest, rms = ratios[quantity]
        assert largest <= 2.0, quantity
        assert rms <= 1.5, quantity


def test_float32_is_no_further_from_float64_than_deepmd_kit_is() -> None:
    """Over all models and quantities, in the geometric mean."""
    ratios = np.array([pair for name in FLOAT32 for pair in float32_ratios(name).values()])
    assert np.exp(np.log(ratios).mean()) <= 1.0


@pytest.mark.parametrize("name", ["file_float32", "file_mixed"])
def test_default_precision_is_that_of_the_file(name: str) -> None:
    expected = "float32" if name == "file_float32" else "float64"
    assert CASES[name].config["precision"] == expected
    model = model_of(golden(name), precision=None)
    assert model.precision == expected
    for system in golden(name).systems:
        for quantity, value in evaluate(model, system).items():
            assert relative(value, system.expected[quantity]) <= CASES[name].tolerance, quantity


def test_options_of_the_cases_cover_both_values_of_every_switch() -> None:
    """A new switch must come with a case that turns it."""
    seen: dict[str, set[str]] = {}

    def visit(node: object, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                visit(value, f"{path}.{key}")
        elif isinstance(node, bool):
            seen.setdefault(path, set()).add(str(node))

    for case in golden_cases() + FILE_MODELS:
        visit(case.config, "")
    assert all(values == {"True", "False"} for values in seen.values()), seen
