"""Models of hybrid descriptors: deepmd-kit's numbers, derivatives, adjoint, threads, lists, and what is refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import DIFFERENCE, SAME
from dpa2.compress import compress
from dpa2.files import ModelData, schema, write_safetensors
from dpa2.neighbors import cutoffs
from dpa2.train import gradient
from helpers import DEVICE, model_of, relative
from hybrid_cases import FILES, HYBRID_CASES, HYBRIDS
from kind_models import HYBRIDS as NAMED
from kind_models import frames, kind, kind_model, outputs

ALL = pytest.mark.parametrize("name", NAMED)
NATIVE = pytest.mark.skipif(DEVICE == "reference", reason="the reference has one precision, and no threads")
WITH_FORCES = tuple(name for name, case in NAMED.items() if "force" in case.answers)
STEP = 1e-5  # angstrom, or strain


def check_answers(name: str, model: dpa2.Model) -> None:
    for system in kind(name).systems:
        given = {key: getattr(system, key) for key in ("box", "fparam", "aparam")}
        together = model.evaluate(system.coord, system.atype, atomic="deepmd", **given).outputs
        assert set(together) == {*NAMED[name].answers, "mask"}
        for key, value in together.items():
            assert value.shape == system.expected[key].shape
            assert relative(value, system.expected[key]) <= NAMED[name].tolerance, f"{system.name}: {key}"


def test_every_case_has_a_golden_file_and_every_golden_file_a_case() -> None:
    assert {path.stem for path in HYBRIDS.glob("*.npz")} == {case.name for case in HYBRID_CASES}
    assert {path.parent.name for path in FILES.rglob("*.*")} == {case.folder for case in HYBRID_CASES if case.folder}


@ALL
def test_configuration_and_weights_are_those_of_the_schema(name: str) -> None:
    data = kind(name)
    assert data.config == NAMED[name].config
    expected = schema.expected_weights(data.config)
    assert data.weights.keys() == expected.keys()
    assert all(value.shape == expected[key].shape for key, value in data.weights.items())


@ALL
def test_outputs(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, ModelData(kind(name).config, kind(name).weights))
    check_answers(name, dpa2.load(path, precision="float64", threads=1, device=DEVICE, on_overflow="ignore"))


@NATIVE
@ALL
def test_networks_in_place_of_their_series(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPA2_SERIES", "off")
    check_answers(name, kind_model(name))


@ALL
def test_descriptor(name: str) -> None:
    model = kind_model(name)
    for system in kind(name).systems:
        descriptor, rot_mat = model.descriptor(system.coord, system.atype, system.box, rot_mat=True)
        assert relative(descriptor, system.expected["descriptor"]) <= NAMED[name].tolerance
        assert relative(rot_mat, system.expected["rot_mat"]) <= NAMED[name].tolerance


@pytest.mark.parametrize("name", needs.mostly_slow(tuple(NAMED), {"hybrid_nested", "hybrid_polar"}, str))
def test_the_reference_says_the_same(name: str) -> None:
    model = kind_model(name, device="reference")
    smallest = min(kind(name).systems, key=lambda system: len(system.atype))
    for system in kind(name).systems:
        for f, frame in enumerate(frames(system)):
            for key, value in outputs(model, frame, forces=system is smallest and f == 0).items():
                assert relative(value, system.expected[key][f]) <= NAMED[name].tolerance, f"{system.name}: {key}"
        descriptor, rot_mat = model.descriptor(system.coord, system.atype, system.box, rot_mat=True)
        assert relative(descriptor, system.expected["descriptor"]) <= NAMED[name].tolerance
        assert relative(rot_mat, system.expected["rot_mat"]) <= NAMED[name].tolerance


@NATIVE
def test_float32_is_no_further_from_float64_than_deepmd_kit_is() -> None:
    ratios = []
    for name in NAMED:
        model, differences = kind_model(name, precision="float32"), dict[str, list[np.ndarray]]()
        for system in kind(name).systems:
            for f, frame in enumerate(frames(system)):
                for key, value in outputs(model, frame, atomic="deepmd").items():
                    differences.setdefault(key, []).append((value - system.expected[key][f]).ravel())
        for key, (largest, rms) in kind(name).float32_error.items():
            if key in differences:
                d = np.concatenate(differences[key])
                ratios += [np.abs(d).max() / largest, np.sqrt(np.mean(d**2)) / rms]
    assert len(ratios) > 20
    assert np.exp(np.log(ratios).mean()) <= 1.0
    assert max(ratios) <= 2.5


# -------------------------------------------------------------------------------------------------- derivatives


def total(name: str) -> str:
    return "global_dipole" if "dipole" in NAMED[name].answers else "energy"


@pytest.mark.parametrize("name", WITH_FORCES)
def test_forces_and_virial_are_derivatives(name: str) -> None:
    model, frame, rng = kind_model(name), frames(kind(name).systems[0])[1], np.random.default_rng(5)
    found = outputs(model, frame)
    size = found[total(name)].size
    force, virial = found["force"].reshape(-1, size, 3), found["virial"].reshape(size, 3, 3)
    for _ in range(2):
        u, strain = rng.normal(size=frame["coords"].shape), rng.normal(size=(3, 3))
        values = []
        for step in (-2 * STEP, -STEP, STEP, 2 * STEP):
            matrix = np.eye(3) + step * strain
            moved = frame | {"coords": frame["coords"] @ matrix.T + step * u, "box": frame["box"] @ matrix.T}
            values.append(outputs(model, moved, forces=False)[total(name)].ravel())
        lower, low, high, higher = values
        slope = (8.0 * (high - low) - (higher - lower)) / (12.0 * STEP)
        # the strain moves atoms as well
        expected = -np.einsum("ncx,nx->c", force, u) - np.einsum("ckl,kl->c", virial, strain)
        assert np.abs(slope - expected).max() <= DIFFERENCE * max(1.0, np.abs(force).max(), np.abs(virial).max())


@pytest.mark.parametrize("name", WITH_FORCES)
def test_atomic_virials_sum_to_the_virial(name: str) -> None:
    model, frame = kind_model(name), frames(kind(name).systems[0])[0]
    for atomic in ("edge", "deepmd"):
        found = outputs(model, frame, atomic)
        assert relative(found["atom_virial"].sum(axis=0), found["virial"]) <= 100 * SAME, atomic
    assert np.abs(found["force"].sum(axis=0)).max() <= 1e-10


@ALL
def test_vjp_is_the_adjoint(name: str) -> None:
    """Of values of atoms and of descriptors, against differences along a direction."""
    model, frame, rng = kind_model(name), frames(kind(name).systems[0])[0], np.random.default_rng(6)
    output = next(
        o for o in model.outputs if o.per_atom and o.name not in ("force", "atom_virial", "descriptor", "rot_mat")
    )
    natoms = len(frame["types"])
    weights = {
        output.name: rng.normal(size=(natoms, *output.shape))
        if output.name != "atom_energy"
        else rng.normal(size=natoms),
        "descriptor": rng.normal(size=(natoms, model.descriptor_dim)),
    }
    given = {key: frame[key] for key in ("fparam", "aparam") if key in frame}
    forward, _ = model.vjp(frame["coords"], frame["types"], frame["box"], weights, **given)
    u, values = rng.normal(size=frame["coords"].shape), []
    for step in (-2 * STEP, -STEP, STEP, 2 * STEP):
        moved = frame | {"coords": frame["coords"] + step * u}
        value = (outputs(model, moved, forces=False)[output.name].ravel() * weights[output.name].ravel()).sum()
        rows = model.descriptor(moved["coords"], moved["types"], moved["box"])
        values.append(value + (np.asarray(rows) * weights["descriptor"]).sum())
    lower, low, high, higher = values
    slope = (8.0 * (high - low) - (higher - lower)) / (12.0 * STEP)
    assert abs(slope - (forward * u).sum()) <= 1e-6 * max(1.0, np.abs(forward).max())


@NATIVE
@pytest.mark.parametrize("name", ["hybrid_sides", "hybrid_energy", "hybrid_nested"])
def test_hessian(name: str) -> None:
    """Against differences of forces, and symmetric."""
    model, frame = kind_model(name), frames(kind(name).systems[0])[0]
    given = {key: frame[key] for key in ("box", "fparam") if key in frame}
    hessian = model.hessian(frame["coords"], frame["types"], **given)
    assert np.abs(hessian - hessian.T).max() <= 1e-10 * max(1.0, np.abs(hessian).max())
    u, values = np.random.default_rng(7).normal(size=frame["coords"].shape), []
    for step in (-2 * STEP, -STEP, STEP, 2 * STEP):
        values.append(outputs(model, frame, coords=frame["coords"] + step * u)["force"].ravel())
    lower, low, high, higher = values
    slope = -(8.0 * (high - low) - (higher - lower)) / (12.0 * STEP)
    assert np.abs(hessian @ u.ravel() - slope).max() <= DIFFERENCE * max(1.0, np.abs(slope).max())


# --------------------------------------------------------------------------------------- threads, skin, lists


@NATIVE
@ALL
def test_threads_skin_and_batches_have_the_same_numbers(name: str) -> None:
    system = kind(name).systems[0]
    given = {key: getattr(system, key) for key in ("box", "fparam", "aparam")}
    alone = [outputs(kind_model(name), frame, atomic=True) for frame in frames(system)]
    for options in ({"threads": 3}, {"skin": 0.5}, {"threads": 2, "skin": 0.3}):
        model = kind_model(name, **options)
        for _ in range(2):
            found = model.evaluate(system.coord, system.atype, atomic=True, **given).outputs
            for key, value in found.items():
                for f, expected in enumerate(alone):
                    if "threads" in options:
                        assert relative(value[f], expected[key]) <= SAME, key
                    else:
                        assert np.array_equal(value[f], expected[key]), key


@NATIVE
@ALL
def test_repeated_evaluations_are_the_same_bits(name: str) -> None:
    model, frame = kind_model(name, threads=3), frames(kind(name).systems[0])[0]
    first = outputs(model, frame, atomic="deepmd")
    outputs(model, frames(kind(name).systems[1])[0])
    again = outputs(model, frame, atomic="deepmd")
    assert all(np.array_equal(first[key], again[key]) for key in first)


@NATIVE
def test_no_atoms_and_atoms_without_neighbours() -> None:
    model = kind_model("hybrid_sides")
    found = model.evaluate(np.zeros((0, 3)), np.zeros(0, dtype=int)).outputs
    assert found["energy"] == 0.0
    assert found["force"].shape == (0, 3)
    far = model.evaluate(np.array([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0]]), np.array([0, 2])).outputs
    assert not far["force"].any()
    assert np.isfinite(far["atom_energy"]).all()


def test_two_atoms_in_one_place() -> None:
    for name in ("hybrid_energy", "hybrid_polar"):
        frame = frames(kind(name).systems[0])[0]
        coords = frame["coords"].copy()
        coords[3] = coords[7]
        with pytest.raises(dpa2.InputError, match=r"same (position|place)|same point"):
            outputs(kind_model(name), frame, coords=coords)


def test_overflow_names_the_block() -> None:
    frame = frames(kind("hybrid_sides").systems[0])[0]
    with pytest.warns(dpa2.NeighborOverflowWarning, match="se_e2_a block, more than its sel of"):
        outputs(kind_model("hybrid_sides", on_overflow="warn"), frame)


def test_a_short_list_of_the_whole_is_remarked() -> None:
    """se_e2_a would take more than there is; both devices say so."""
    data = copy.deepcopy(kind("hybrid_energy"))
    members = data.config["descriptor"]["list"]
    members[0]["sel"], members[1]["repinit"]["nsel"] = [4, 4, 20], 25
    members[0]["rcut"] = 5.5
    frame = frames(data.systems[0])[0]
    for device in (DEVICE, "reference"):
        with pytest.warns(dpa2.NeighborOverflowWarning, match=r"(hybrid|se_e2_a) block"):
            outputs(model_of(data, on_overflow="warn", device=device), frame, forces=False)


@NATIVE
def test_memory_is_estimated() -> None:
    model = kind_model("hybrid_dipole")
    small, large = (model.memory_estimate(n, 30.0) for n in (1000, 100_000))
    assert 50 * small < large < 200 * small
    part = dpa2.Model(single_part("hybrid_dipole"), precision="float64", device=DEVICE)
    assert model.memory_estimate(1000, 30.0) > part.memory_estimate(1000, 30.0)


#: in a process of its own, whose memory is what it has taken itself
SHORT_OF_MEMORY = """
import os, sys
import dpa2
import numpy as np

model, n, rng = dpa2.load(sys.argv[1]), 20, np.random.default_rng(9)
coords = np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 3) * 2.0 + rng.normal(size=(n**3, 3)) * 0.1
types, given = rng.integers(0, 3, n**3), {"box": 2.0 * n * np.eye(3), "fparam": [0.1]}
resident = next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith("VmRSS"))
os.environ["DPA2_MEMORY_LIMIT"] = str(resident + (20 << 20))
try:
    model.evaluate(coords, types, **given)
except dpa2.OutOfMemoryError as error:
    print(error)
del os.environ["DPA2_MEMORY_LIMIT"]
first = model.evaluate(coords, types, **given)
os.environ["DPA2_MEMORY_LIMIT"] = str(resident)  # the next one needs no more
again = model.evaluate(coords, types, **given)
print(np.array_equal(first.forces, again.forces))
"""


@NATIVE
@needs.linux
def test_memory_is_asked_for_of_all_members_at_once(tmp_path: Path) -> None:
    data = kind("hybrid_energy")
    write_safetensors(tmp_path / "hybrid.safetensors", ModelData(data.config, data.weights))
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "hybrid.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    error, same = done.stdout.splitlines()
    assert error.startswith("evaluating 8000 atoms needs"), error
    assert same == "True"


def single_part(name: str) -> ModelData:
    """The first dpa2 of a hybrid by itself, with another fitting net."""
    config = copy.deepcopy(kind(name).config)
    config["descriptor"] = next(one for one in schema.descriptors(config) if one["type"] == "dpa2")
    weights = {key: np.ones(weight.shape, weight.dtype) for key, weight in schema.expected_weights(config).items()}
    return ModelData(config, weights)


def test_cutoffs_of_all_members() -> None:
    found = cutoffs(kind_model("hybrid_nested"))
    assert (found["dpa1 0"], found["se_e2_a 2"], found["repinit 3"]) == ((3.6, 14), (3.2, 24), (3.0, 30))
    assert schema.rcut(kind("hybrid_nested").config) == 3.6


# ------------------------------------------------------------------------------------------------- what is refused


@NATIVE
def test_what_is_refused() -> None:
    data = ModelData(kind("hybrid_energy").config, kind("hybrid_energy").weights)
    with pytest.raises(dpa2.UnsupportedModelError, match=r"hybrid.*on the CPU only"):
        dpa2.Model(data, device="cuda").evaluate(np.zeros((1, 3)), [0])
    with pytest.raises(dpa2.UnsupportedModelError, match=r"hybrid.*cannot be compressed"):
        compress(data)
    with pytest.raises(dpa2.UnsupportedModelError, match="no gradients of models of hybrid descriptors"):
        gradient(data, {}, {"type": "ener"}, 1e-3)


CONFIGURATIONS: list[tuple[str, Any, str]] = [
    ("0.sel", [9, 9], "sel has 2 entries, but there are 3 types"),
    ("0.sel", [0, 0, 0], "sel is 0 in all"),
    ("0.axis_neuron", 7, "axis_neuron is 7, above the last neuron 6"),
    ("0.rcut_smth", 5.0, "rcut_smth is 5"),
    ("1.repinit.rcut", 2.0, "must be below those of repinit"),
    ("0.neuron", [], "neuron must have 1 to"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), CONFIGURATIONS)
def test_members_that_contradict_themselves(place: str, value: Any, message: str) -> None:
    config = copy.deepcopy(kind("hybrid_energy").config)
    node: Any = config["descriptor"]["list"]
    *way, last = place.split(".")
    for part in way:
        node = node[int(part) if part.isdecimal() else part]
    node[last] = value
    with pytest.raises(dpa2.ModelFileError, match=message):
        schema.expected_weights(config)
