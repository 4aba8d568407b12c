"""Gradients of weighted sums of what models of other kinds say of atoms: slopes of these sums, and the reference's."""

from __future__ import annotations

from typing import Any

import dpa2
import numpy as np
import pytest
from cases import DIFFERENCE
from helpers import relative
from kind_models import CASES, frames, kind, kind_model, outputs

pytestmark = pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")
ALL = pytest.mark.parametrize("name", CASES)
#: angstrom, or strain
STEP = 1e-5


def weighted(model: dpa2.Model) -> dict[str, tuple[int, ...]]:
    """The outputs that may have weights, and the shape of an atom's value."""
    return {o.name: o.shape for o in model.outputs if o.per_atom and o.of == ""}


def random_weights(model: dpa2.Model, natoms: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(natoms)
    return {name: rng.normal(size=(natoms, *shape)) for name, shape in weighted(model).items()}


def gradients(model: dpa2.Model, frame: dict[str, Any], weights: Any) -> tuple[np.ndarray, np.ndarray]:
    given = {key: value for key, value in frame.items() if key not in ("coords", "types", "box")}
    return model.vjp(frame["coords"], frame["types"], frame.get("box"), weights, **given)


def weighted_sum(model: dpa2.Model, frame: dict[str, Any], weights: dict[str, np.ndarray]) -> float:
    found = outputs(model, frame, forces=False)
    structure = (frame["coords"], frame["types"], frame.get("box"))
    found["descriptor"], found["rot_mat"] = model.descriptor(*structure, rot_mat=True)
    return float(sum(np.sum(found[name] * array) for name, array in weights.items()))


@ALL
def test_gradients_are_slopes_of_the_weighted_sum(name: str) -> None:
    model, rng = kind_model(name), np.random.default_rng(3)
    assert len(weighted(model)) == 3
    for system in kind(name).systems:
        frame = frames(system)[-1]
        weights = random_weights(model, len(system.atype))
        for chosen in (weights, *({key: array} for key, array in weights.items())):
            gradient, strain = gradients(model, frame, chosen)
            scale = max(1.0, np.abs(gradient).max(), np.abs(strain).max())
            along, by = rng.uniform(-1.0, 1.0, gradient.shape), rng.uniform(-0.3, 0.3, (3, 3))
            values = []
            for step in (1.0, -1.0, 2.0, -2.0):
                matrix = np.eye(3) + step * STEP * by
                moved = frame | {"coords": frame["coords"] @ matrix.T + step * STEP * along}
                moved |= {"box": frame["box"] @ matrix.T} if "box" in frame else {}
                values.append(weighted_sum(model, moved, chosen))
            expected = (8.0 * (values[0] - values[1]) - (values[2] - values[3])) / (12.0 * STEP)
            # the direction moves atoms after the strain, which changes nothing at step 0
            found = float((gradient * along).sum() + (strain * by).sum())
            assert abs(found - expected) <= DIFFERENCE * scale, (system.name, list(chosen))


@ALL
def test_the_reference_says_the_same(name: str) -> None:
    model, reference = kind_model(name), kind_model(name, device="reference")
    system = min(kind(name).systems, key=lambda s: len(s.atype))
    frame = frames(system)[0]
    weights = random_weights(model, len(system.atype))
    for chosen in (weights, *({key: array} for key, array in weights.items())):
        for found, expected in zip(gradients(model, frame, chosen), gradients(reference, frame, chosen), strict=True):
            assert relative(found, expected) <= 1e-10


@pytest.mark.parametrize("name", ["dipole", "dipole_virtual", "zbl", "linear_three"])
def test_weights_of_ones_give_forces_and_virials(name: str) -> None:
    model = kind_model(name)
    (output, shape), *_ = weighted(model).items()
    for system in kind(name).systems:
        frame = frames(system)[0]
        found = outputs(model, frame)
        force = found["force"].reshape(len(system.atype), *shape, 3)
        for component in range(shape[0]):
            weights = np.zeros((len(system.atype), *shape))
            weights[:, component] = 1.0
            gradient, strain = gradients(model, frame, {output: weights})
            assert relative(-gradient, force[:, component]) <= 1e-11
            assert relative(-strain.ravel(), found["virial"].reshape(-1, 9)[component]) <= 1e-11
