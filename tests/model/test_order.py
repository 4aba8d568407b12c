"""Large systems are evaluated in an order of their own: callers must not notice."""

from __future__ import annotations

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, model_data
from dpa2.model import Model

pytestmark = needs.native

RESULTS = ("energy", "forces", "virial", "atom_energy", "atom_virial")


def copies(smallest: int = 1100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box of copies of the small one, beyond the size from which atoms are ordered, moved by a little noise."""
    n = int(np.ceil((smallest / len(COORDS)) ** (1 / 3)))
    shifts = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    coords = (COORDS[None] + shifts @ BOX).reshape(-1, 3)
    return coords + np.random.default_rng(2).normal(scale=0.01, size=coords.shape), np.tile(TYPES, n**3), BOX * n


@pytest.mark.parametrize("skin", [0.0, 0.5])
@pytest.mark.parametrize("atomic", needs.mostly_slow([True, "deepmd"], [True]))
@pytest.mark.parametrize("pbc", [True, (True, False, True), False])
def test_order_of_the_atoms_is_that_of_the_caller(
    skin: float, atomic: bool | str, pbc: bool | tuple[bool, ...]
) -> None:
    coords, types, box = copies()
    assert len(coords) >= 1024
    model = Model(model_data(), threads=2, skin=skin)
    shuffle = np.random.default_rng(7).permutation(len(coords))
    moved = coords + np.random.default_rng(8).integers(-3, 4, size=coords.shape) @ (box * np.array(pbc).reshape(-1, 1))
    straight = model.evaluate(coords, types, box, pbc=pbc, atomic=atomic)
    for step in range(3):  # with a skin, the second uses the lists of the first
        mixed = model.evaluate(moved[shuffle], types[shuffle], box, pbc=pbc, atomic=atomic)
        for name in RESULTS:
            a, b = getattr(straight, name), getattr(mixed, name)
            per_atom = name not in ("energy", "virial")
            scale = max(1.0, np.abs(a).max())
            np.testing.assert_allclose(
                b, a[shuffle] if per_atom else a, rtol=0, atol=1e-9 * scale, err_msg=f"{name} {step}"
            )
    rows, rotations = model.descriptor(coords, types, box, pbc=pbc, rot_mat=True)
    again, turned = model.descriptor(moved[shuffle], types[shuffle], box, pbc=pbc, rot_mat=True)
    np.testing.assert_allclose(again, rows[shuffle], rtol=0, atol=1e-10)
    np.testing.assert_allclose(turned, rotations[shuffle], rtol=0, atol=1e-10)


def test_a_part_of_a_large_system_has_the_results_of_a_small_one() -> None:
    """Two clusters out of reach of each other: the small one alone is not ordered."""
    coords, types, _ = copies()
    small = COORDS + np.array([500.0, -300.0, 200.0])
    model = Model(model_data(), threads=1)
    both = model.evaluate(np.concatenate([coords, small]), np.concatenate([types, TYPES]), None)
    alone = model.evaluate(small, TYPES, None)
    np.testing.assert_allclose(both.forces[len(coords) :], alone.forces, rtol=0, atol=1e-11)
    np.testing.assert_allclose(both.atom_energy[len(coords) :], alone.atom_energy, rtol=0, atol=1e-11)


def test_messages_name_the_atoms_of_the_caller() -> None:
    coords, types, box = copies()
    model = Model(model_data(), threads=2)
    coords[1000] = coords[77]
    with pytest.raises(dpa2.InputError, match="atoms 77 and 1000 are at the same place"):
        model.evaluate(coords, types, box)
