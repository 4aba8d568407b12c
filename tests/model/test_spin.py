"""Spin models against deepmd-kit 3.2.0 and against themselves: outputs, derivatives, precision, bad input."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import DIFFERENCE, STEP, TOLERANCE
from dpa2.files import ModelData, schema
from helpers import DEVICE, model_of, relative
from random_model import draw_options, random_model, random_parameters, random_structure, random_weights
from spin_cases import ANSWERS, CASES, SPIN_CASES, SPINS, SpinCase, spin_frames, spin_golden

ALL = pytest.mark.parametrize("case", SPIN_CASES, ids=lambda case: case.name)
ON_CPU = pytest.mark.skipif(DEVICE == "reference", reason="of the compiled core")


def spin_model(name: str, **options: Any) -> dpa2.Model:
    return model_of(spin_golden(name), **options)


def outputs(model: dpa2.Model, frame: dict[str, Any], **changes: Any) -> dict[str, np.ndarray]:
    found = model.evaluate(**{**frame, **changes}).outputs
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------------------------------------- deepmd-kit's answers


def test_every_case_has_a_golden_file_and_every_golden_file_a_case() -> None:
    assert {path.stem for path in SPINS.glob("*.npz")} == set(CASES)
    assert {path.parent.name for path in SPINS.rglob("model.*")} == {case.name for case in SPIN_CASES if case.formats}


@ALL
def test_configuration_and_weights_are_those_of_the_schema(case: SpinCase) -> None:
    data = spin_golden(case.name)
    assert data.config == case.config
    expected = schema.expected_weights(data.config)
    assert {name: value.shape for name, value in data.weights.items()} == {n: w.shape for n, w in expected.items()}


@ALL
def test_outputs(case: SpinCase) -> None:
    """Every frame by itself, then all of them together."""
    model = spin_model(case.name)
    small = DEVICE == "reference"
    for system in spin_golden(case.name).systems:
        atomic = "deepmd" if not small or len(system.atype) <= 3 else False
        given = {key: getattr(system, key) for key in ("box", "fparam", "aparam")}
        together = model.evaluate(system.coord, system.atype, atomic=atomic, spin=system.expected["spin"], **given)
        assert set(together.outputs) - {"mask"} == {name for name in ANSWERS if atomic or name != "atom_virial"}
        for name, value in together.outputs.items():
            if name in system.expected:
                assert value.shape == system.expected[name].shape, name
                assert value.dtype == (bool if name == "mask_mag" else np.int32 if name == "mask" else float), name
                assert relative(value, system.expected[name]) <= case.tolerance, f"{system.name}: {name}"
        for f, frame in enumerate(spin_frames(case.name, system.name) if not small else []):
            for name, value in outputs(model, frame, atomic=atomic).items():
                assert relative(value, together.outputs[name][f]) <= 1e-12, f"{system.name}: {name}"


@ALL
def test_descriptor(case: SpinCase) -> None:
    model = spin_model(case.name)
    for system in spin_golden(case.name).systems:
        given = (system.coord, system.atype, system.box)
        descriptor, rot_mat = model.descriptor(*given, rot_mat=True, spin=system.expected["spin"])
        assert relative(descriptor, system.expected["descriptor"]) <= case.tolerance, system.name
        real = system.atype >= 0
        assert relative(rot_mat[:, real], system.expected["rot_mat"][:, real]) <= case.tolerance, system.name
        again = dpa2.compute_descriptor(*given, model=model, spin=system.expected["spin"])
        assert np.array_equal(again, descriptor)


@ALL
def test_the_reference_says_the_same(case: SpinCase) -> None:
    """Values of all systems; derivatives, which cost it many evaluations, of the smallest."""
    model = spin_model(case.name, device="reference")
    for system in spin_golden(case.name).systems:
        small = len(system.atype) <= 3
        for f, frame in enumerate(spin_frames(case.name, system.name)):
            for name, value in outputs(model, frame, atomic="deepmd" if small else False, forces=small).items():
                assert relative(value, system.expected[name][f]) <= case.tolerance, f"{system.name}: {name}"


@ON_CPU
def test_the_reference_has_the_other_atomic_virial() -> None:
    frame = spin_frames("spin", "tiny")[0]
    found, wanted = (outputs(spin_model("spin", device=device), frame, atomic=True) for device in ("cpu", "reference"))
    assert relative(found["atom_virial"], wanted["atom_virial"]) <= 1e-11
    assert relative(found["atom_virial"].sum(axis=0), found["virial"]) <= 1e-11


@ON_CPU
@pytest.mark.parametrize("seed", needs.mostly_slow(range(20), range(3)))
def test_core_agrees_with_reference(seed: int) -> None:
    """Random models in random options, spins of any length, none among them."""
    rng = np.random.default_rng([79, seed])
    config, _ = random_model(rng, **draw_options(rng))
    ntypes = len(config["type_map"])
    network = {key: config.pop(key) for key in ("descriptor", "fitting_net")}
    network["descriptor"] |= {"env_protection": float(rng.choice([0.01, 0.3])), "use_econf_tebd": False}
    network["type_map"] = [*config["type_map"], *(f"{name}_spin" for name in config["type_map"])]
    magnetic = np.flatnonzero(rng.random(ntypes) < 0.7)
    scales = np.where(np.isin(range(ntypes), magnetic), rng.normal(0.0, 0.4, ntypes), 0.0)
    config |= {"type": "spin", "use_spin": magnetic.tolist(), "virtual_scale": scales.tolist(), "models": [network]}
    data = ModelData(config, random_weights(rng, config))
    coords, types, box, pbc = random_structure(rng, ntypes, 4, virtual=seed % 3 == 0)
    spin = rng.normal(size=coords.shape) * (rng.random(len(types)) < 0.8)[:, None]
    fparam, aparam = random_parameters(rng, network, len(types))
    core, reference = (
        dpa2.Model(data, precision="float64", device=device, on_overflow="ignore")
        .evaluate(coords, types, box, pbc, fparam, aparam, atomic="deepmd" if seed % 2 else True, spin=spin)
        .outputs
        for device in ("cpu", "reference")
    )
    assert core.keys() == reference.keys()
    for name, value in core.items():
        assert relative(value, reference[name]) <= TOLERANCE["float64"], name


# ------------------------------------------------------------------------------------------------- what they are


@ON_CPU
@ALL
def test_a_spin_model_says_what_it_is(case: SpinCase) -> None:
    model = spin_model(case.name)
    assert model.kind == "spin"
    assert model.type_map == ("O", "H", "Cu")
    assert model.use_spin == tuple(t in case.magnetic for t in range(3))
    assert model.virtual_scale.tolist() == list(case.scales)
    assert [o.name for o in model.outputs if not o.derivative] == ["energy", "atom_energy", "descriptor", "rot_mat"]
    assert "spin" in repr(model)
    assert not model.has_hessian
    assert model.memory_estimate(100) > 0
    frame = spin_frames(case.name, "open")[0]
    result = model.evaluate(**frame)
    assert np.array_equal(result.outputs["force_mag"], result.magnetic_forces)
    magnetic = (frame["types"] >= 0) & (np.array(case.scales) > 0)[frame["types"]]
    assert np.array_equal(result.mask_mag, magnetic)
    assert not result.magnetic_forces[~np.isin(frame["types"], case.magnetic)].any()
    counted = (frame["types"] >= 0) & ~np.isin(frame["types"], case.plain["atom_exclude_types"])
    assert np.array_equal(result.outputs["mask"], counted)
    again = pickle.loads(pickle.dumps(model)).evaluate(**frame)
    assert np.array_equal(again.magnetic_forces, result.magnetic_forces)


@ON_CPU
def test_models_of_other_kinds_have_no_spins() -> None:
    from helpers import golden

    model = model_of(golden("base"))
    assert model.use_spin == (False, False, False)
    assert not model.virtual_scale.any()
    assert model.evaluate(np.zeros((1, 3)), [0]).magnetic_forces is None


@ON_CPU
def test_spins_of_types_without_them_do_not_matter() -> None:
    model, frame = spin_model("spin"), spin_frames("spin", "bulk")[0]
    other = frame["spin"].copy()
    other[frame["types"] == 1] *= -3.0
    found, wanted = outputs(model, frame, spin=other), outputs(model, frame)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@ON_CPU
@pytest.mark.parametrize("name", ["spin", "spin_parameters"])
def test_values_alone_threads_and_skin_change_no_bit(name: str) -> None:
    frame = spin_frames(name, "bulk")[0]
    wanted = outputs(spin_model(name), frame)
    alone = outputs(spin_model(name), frame, forces=False)
    assert set(alone) == set(wanted) - {"force", "force_mag", "virial"}
    assert all(np.array_equal(value, wanted[key]) for key, value in alone.items())
    skinned = spin_model(name, skin=0.4)
    for step in range(3):
        moved = {"coords": frame["coords"] + 0.01 * step, "spin": frame["spin"] * (1 + 0.02 * step)}
        found, plain = outputs(skinned, frame, **moved), outputs(spin_model(name), frame, **moved)
        assert all(np.array_equal(found[key], plain[key]) for key in plain)
    threaded = outputs(spin_model(name, threads=2), frame)
    assert all(relative(threaded[key], wanted[key]) <= 1e-12 for key in wanted)


# ------------------------------------------------------------------------------------------------- derivatives


def slope(energy: Callable[[float], float]) -> float:
    """The derivative at 0 by central differences of fourth order."""
    one, two = (energy(k * STEP) - energy(-k * STEP) for k in (1, 2))
    return (8.0 * one - two) / (12.0 * STEP)


@ON_CPU
@pytest.mark.parametrize("name", ["spin", "spin_parameters"])
def test_forces_magnetic_forces_and_virial_are_derivatives(name: str) -> None:
    """The virial at fixed spins. A spin of zero is left out: the energy has a kink there, and this is its middle."""
    model, frame = spin_model(name), spin_frames(name, "bulk")[1]
    found = model.evaluate(**frame)
    size = max(1.0, np.abs(found.forces).max(), np.abs(found.magnetic_forces).max())

    def energy(**changes: Any) -> float:
        return float(model.evaluate(**{**frame, **changes}, forces=False).energy)

    chosen = [0, 1, 2, 5]
    for atom in chosen:
        for axis in range(3):
            unit = np.zeros_like(frame["coords"])
            unit[atom, axis] = 1.0
            force = -slope(lambda h, u=unit: energy(coords=frame["coords"] + h * u))
            assert abs(force - found.forces[atom, axis]) <= DIFFERENCE * size
            if atom != 1:
                force = -slope(lambda h, u=unit: energy(spin=frame["spin"] + h * u))
                assert abs(force - found.magnetic_forces[atom, axis]) <= DIFFERENCE * size
    assert np.abs(found.magnetic_forces[chosen]).max() > 1e-3
    for k, axis in np.ndindex(3, 3):
        unit = np.zeros((3, 3))
        unit[k, axis] = 1.0

        def strained(h: float, u: np.ndarray = unit) -> float:
            turn = np.eye(3) + h * u
            return energy(coords=frame["coords"] @ turn.T, box=frame["box"].reshape(3, 3) @ turn.T)

        assert abs(-slope(strained) - found.virial[k, axis]) <= DIFFERENCE * size
    assert np.abs(found.virial - found.virial.T).max() > 1e-3  # spins do not turn with the strain


@ON_CPU
def test_energies_turn_with_atoms_and_spins() -> None:
    model, frame = spin_model("spin"), spin_frames("spin", "open")[0]
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turned = {"coords": frame["coords"] @ turn.T, "spin": frame["spin"] @ turn.T}
    data = spin_golden("spin")
    weights = {key: value.copy() for key, value in data.weights.items()}
    for key, value in weights.items():  # statistics that know no direction
        if key.endswith(".stddev"):
            value[:, 2:] = value[:, 1:2]
    isotropic = dpa2.Model(ModelData(data.config, weights))
    one, other = isotropic.evaluate(**frame), isotropic.evaluate(**{**frame, **turned})
    assert relative(other.energy, one.energy) <= 1e-10
    assert relative(other.magnetic_forces, one.magnetic_forces @ turn.T) <= 1e-10
    assert relative(other.forces, one.forces @ turn.T) <= 1e-10
    assert abs(model.evaluate(**{**frame, "spin": turned["spin"]}).energy - model.evaluate(**frame).energy) > 1e-3


# ------------------------------------------------------------------------------------------------- precision


@ON_CPU
def test_float32_is_no_further_from_float64_than_deepmd_kit_is() -> None:
    """Over all outputs, in the geometric mean; no output of atoms by more than chance."""
    ratios = []
    for case in SPIN_CASES:
        model, data = spin_model(case.name, precision="float32"), spin_golden(case.name)
        differences: dict[str, list[np.ndarray]] = {}
        for system in data.systems:
            for f, frame in enumerate(spin_frames(case.name, system.name)):
                for key, value in outputs(model, frame, atomic="deepmd").items():
                    if key in data.float32_error:
                        differences.setdefault(key, []).append((value - system.expected[key][f]).ravel())
        for key, parts in differences.items():
            ratio = np.sqrt(np.mean(np.concatenate(parts) ** 2)) / data.float32_error[key][1]
            if key in ("atom_energy", "force", "force_mag", "atom_virial"):  # others have few numbers
                assert ratio <= 2.5, (case.name, key)
            ratios.append(ratio)
    assert len(ratios) >= 3 * 6
    assert np.exp(np.log(ratios).mean()) <= 1.0


# ------------------------------------------------------------------------------------------------- bad input


@ON_CPU
@pytest.mark.parametrize(
    ("spin", "message"),
    [
        (None, r"this is a spin model.*pass spin=, shape \(9, 3\)"),
        (np.zeros((9, 2)), r"spin must have shape \(9, 3\), got \(9, 2\)"),
        (np.zeros(27), r"spin must have shape \(9, 3\), got \(27,\)"),
        (np.zeros((1, 9, 3)), r"spin must have shape \(9, 3\), got \(1, 9, 3\)"),
        (np.full((9, 3), np.nan), r"spin\[0, 0\] = nan is not finite"),
        (np.full((9, 3), 1e300), "the spin of atom 0: component 0 is 1e.300.*out of all reach"),
        ([["x"] * 3] * 9, "spin must be an array of real numbers"),
    ],
)
def test_bad_spins(spin: Any, message: str) -> None:
    model, frame = spin_model("spin_parameters"), spin_frames("spin_parameters", "open")[0]
    with pytest.raises(dpa2.InputError, match=message):
        model.evaluate(**{**frame, "spin": spin})
    with pytest.raises(dpa2.InputError, match=message):
        model.descriptor(frame["coords"], frame["types"], spin=spin)


@ON_CPU
def test_spins_of_frames() -> None:
    model, system = spin_model("spin"), spin_golden("spin").systems[0]
    given = (system.coord, system.atype, system.box)
    spin = system.expected["spin"]
    alike = model.evaluate(*given, spin=spin[0])
    assert np.array_equal(alike.magnetic_forces[1], model.evaluate(*given, spin=spin[[0, 0]]).magnetic_forces[1])
    with pytest.raises(dpa2.InputError, match=r"or one per frame \(2, 14, 3\), got \(3, 14, 3\)"):
        model.evaluate(*given, spin=np.zeros((3, 14, 3)))
    bad = spin.copy()
    bad[1, 3, 0] = 1e300
    bad[1, :, 0] = np.where(system.atype == 1, 0.0, 1e300)
    with pytest.raises(dpa2.InputError, match="frame 1: the spin of atom"):
        model.evaluate(*given, spin=bad)


@ON_CPU
def test_what_there_is_not_is_refused_by_name() -> None:
    model, frame = spin_model("spin"), spin_frames("spin", "open")[0]
    given = (frame["coords"], frame["types"], None)
    refused: list[tuple[str, Callable[[], Any]]] = [
        ("no gradients of weighted sums", lambda: model.vjp(*given, {"atom_energy": np.ones(9)})),
        ("no second derivatives", lambda: model.hessian(*given)),
        ("no second derivatives", lambda: model.hessian_product(*given, np.ones((9, 3)))),
        ("no second derivatives", lambda: model.evaluate(**frame, hessian=True)),
        ("on the CPU only", lambda: spin_model("spin", device="cuda")),
        ("on the CPU only", lambda: model.memory_estimate(10, device="cuda")),
    ]
    for message, action in refused:
        with pytest.raises(dpa2.UnsupportedModelError, match=message):
            action()


@ON_CPU
def test_no_atoms() -> None:
    model = spin_model("spin")
    result = model.evaluate(np.zeros((0, 3)), np.zeros(0, dtype=int), spin=np.zeros((0, 3)), atomic=True)
    assert result.energy == 0.0
    assert result.magnetic_forces.shape == (0, 3)
    assert not result.virial.any()


@ON_CPU
def test_remarks_are_about_atoms() -> None:
    """Neighbours are counted with virtual atoms; a virtual atom beside its own is no close pair."""
    frame = spin_frames("spin", "open")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spin_model("spin", on_overflow="warn").evaluate(**frame)
    dense = {**frame, "coords": 0.4 * frame["coords"] + [0.0, 0.0, 7.0], "types": np.zeros(9, dtype=int)}
    crowd = {key: np.concatenate([value] * 4) for key, value in dense.items() if key != "box"}
    crowd["coords"] = crowd["coords"] + np.repeat(np.arange(4.0), 9)[:, None] * [0.6, 0.1, 0.2]
    found = []
    for device in ("cpu", "reference"):
        model = spin_model("spin", on_overflow="warn", device=device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.evaluate(**crowd, forces=False)
        found.append({str(w.message) for w in caught})
        assert {w.category for w in caught} == {dpa2.NeighborOverflowWarning, dpa2.ClosePairWarning}
    assert found[0] == found[1]
    assert any("has 71 neighbours" in text for text in found[0])
