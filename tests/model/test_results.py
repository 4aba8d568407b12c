"""What a model says it computes, results under deepmd-kit's names, and energies without forces."""

from __future__ import annotations

import pickle
from typing import Any

import dpa2
import numpy as np
import pytest
from dpa2.results import Output
from helpers import DEVICE, case_system, golden, model_of

FIELDS = {
    "energy": "energy",
    "atom_energy": "atom_energy",
    "force": "forces",
    "virial": "virial",
    "atom_virial": "atom_virial",
}


def asked(name: str, where: str, frame: Any = slice(None)) -> tuple[dpa2.Model, tuple[Any, ...], dict[str, Any]]:
    """A model, a structure of it, and its parameters."""
    system = case_system(name, where)
    rows = [None if a is None else a[frame] for a in (system.coord, system.box, system.fparam, system.aparam)]
    return model_of(golden(name)), (rows[0], system.atype, rows[1]), {"fparam": rows[2], "aparam": rows[3]}


@pytest.mark.parametrize("frame", [0, slice(None)])
def test_names_and_shapes_are_those_of_deepmd_kit(frame: Any) -> None:
    model, structure, parameters = asked("fparam_aparam", "tiny", frame)
    lead, natoms = structure[0].shape[:-2], structure[0].shape[-2]
    shapes = {"energy": (1,), "atom_energy": (natoms, 1), "force": (natoms, 3), "virial": (9,), "mask": (natoms,)}
    for atomic, more in ((False, {}), (True, {"atom_virial": (natoms, 9)}), ("deepmd", {"atom_virial": (natoms, 9)})):
        result = model.evaluate(*structure, **parameters, atomic=atomic)
        found = result.outputs
        assert found["mask"].dtype == np.int32
        assert found["mask"].all()
        assert {name: rows.shape for name, rows in found.items()} == {
            n: (*lead, *s) for n, s in (shapes | more).items()
        }
        del found["mask"]
        for name, rows in found.items():
            assert rows.tobytes() == np.asarray(getattr(result, FIELDS[name])).tobytes()
        described = {o.name: ((natoms, *o.shape) if o.per_atom else o.shape) for o in model.outputs}
        assert all(rows.shape == (*lead, *described[name]) for name, rows in found.items())
        assert pickle.loads(pickle.dumps(result)).outputs.keys() == result.outputs.keys()


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_model_says_what_it_computes(device: str) -> None:
    model = model_of(golden("base"), device=device)
    assert model.kind == "energy"
    repformer = model.config["descriptor"]["repformer"]
    assert model.outputs == (
        Output("energy", "eV", (1,), False, "sum", "atom_energy"),
        Output("atom_energy", "eV", (1,), True, "", ""),
        Output("force", "eV/angstrom", (3,), True, "", "energy"),
        Output("virial", "eV", (9,), False, "", "energy"),
        Output("atom_virial", "eV", (9,), True, "", "energy"),
        Output("descriptor", "", (model.descriptor_dim,), True, "", ""),
        Output("rot_mat", "", (repformer["g2_dim"], 3), True, "", ""),
    )


@pytest.mark.parametrize("where", ["bulk", "open"])
@pytest.mark.parametrize("name", ["base", "rough_strip", "fparam_aparam", "virtual_davg"])
def test_energies_without_forces(name: str, where: str) -> None:
    for frame in (0, slice(None)):
        model, structure, parameters = asked(name, where, frame)
        full = model.evaluate(*structure, **parameters)
        found = model.evaluate(*structure, **parameters, forces=False)
        assert np.array_equal(found.energy, full.energy)
        assert type(found.energy) is type(full.energy)
        assert np.array_equal(found.atom_energy, full.atom_energy)
        assert found.forces is found.virial is found.atom_virial is None
        assert found.outputs.keys() == {"energy", "atom_energy", "mask"}


def test_no_backward_pass_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is told so."""
    model, structure, _ = asked("base", "bulk", 0)
    told: list[Any] = []

    class Listening:
        def evaluate(self, *arguments: Any) -> Any:
            told.append(arguments[-1])
            raise dpa2.InputError("heard")

    monkeypatch.setattr(model, "_engine", Listening())
    for forces in (True, False):
        with pytest.raises(dpa2.InputError, match="heard"):
            model.evaluate(*structure, forces=forces)
    assert told == [True, False]


@pytest.mark.parametrize("atomic", [True, "edge", "deepmd"])
def test_the_atomic_virial_needs_forces(atomic: Any) -> None:
    model, structure, _ = asked("base", "tiny", 0)
    with pytest.raises(dpa2.InputError, match="leave out atomic, or forces=False"):
        model.evaluate(*structure, atomic=atomic, forces=False)


@pytest.mark.parametrize("forces", [None, 1, "no"])
def test_forces_is_a_flag(forces: Any) -> None:
    model, structure, _ = asked("base", "tiny", 0)
    with pytest.raises(dpa2.InputError, match="forces must be True or False, got"):
        model.evaluate(*structure, forces=forces)


@pytest.mark.skipif(DEVICE != "cpu", reason="of the compiled core")
def test_no_atoms_have_no_energy() -> None:
    found = model_of(golden("base")).evaluate(np.zeros((0, 3)), [], forces=False)
    assert found.energy == 0.0
    assert found.outputs["atom_energy"].shape == (0, 1)
