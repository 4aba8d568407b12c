"""An ase.Atoms where descriptors are wanted: what it says itself, and what may not stand beside it."""

from __future__ import annotations

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, make_model

ase = pytest.importorskip("ase", reason=needs.reason("ase"))

MODEL = make_model("cpu" if needs.HAS_NATIVE else "reference")


@pytest.mark.parametrize("pbc", [True, False, (True, True, False)])
def test_descriptors_of_atoms(pbc: bool | tuple[bool, ...]) -> None:
    atoms = ase.Atoms(SYMBOLS, COORDS, cell=BOX, pbc=pbc)
    expected = MODEL.descriptor(COORDS, SYMBOLS, BOX if np.any(pbc) else None, pbc=pbc)
    np.testing.assert_array_equal(MODEL.descriptor(atoms), expected)
    np.testing.assert_array_equal(dpa2.compute_descriptor(atoms, model=MODEL), expected)
    found, rotations = MODEL.descriptor(atoms, rot_mat=True)
    np.testing.assert_array_equal(found, expected)
    assert rotations.shape[0] == len(atoms)


def test_the_embedded_model_takes_them() -> None:
    water = ase.Atoms("OH2", [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    assert dpa2.compute_descriptor(water).shape == (3, 72)
    with pytest.raises(dpa2.InputError, match="which the model does not know"):
        dpa2.compute_descriptor(ase.Atoms("CH4", np.eye(5, 3)))


def test_what_cannot_be() -> None:
    atoms = ase.Atoms(SYMBOLS, COORDS, cell=BOX, pbc=True)
    for others in ({"types": SYMBOLS}, {"box": BOX}, {"pbc": True}, {"spin": np.zeros((5, 3))}):
        with pytest.raises(dpa2.InputError, match="says its types, box, pbc and spins itself: leave them out"):
            MODEL.descriptor(atoms, **others)
    with pytest.raises(dpa2.InputError, match="a list of objects with atoms, as of ASE: pass one after the other"):
        MODEL.descriptor([atoms, atoms])
    with pytest.raises(dpa2.InputError, match=r"give the atoms a calculator: atoms\.calc = dpa2\.ase\.DPA2Calculator"):
        MODEL.evaluate(atoms)
    with pytest.raises(dpa2.InputError, match="types must have shape"):
        dpa2.compute_descriptor(COORDS, model=MODEL)
