"""The CUDA engine on the emulated device against deepmd-kit, option by option, and against the compiled core."""

from __future__ import annotations

import copy
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import Golden, ModelCase, System, golden_cases
from cuda_emulator import EmulatedDevice
from dpa2.cuda.engine import CudaEngine
from dpa2.files import ModelData
from helpers import CASES, golden, model_of, relative
from host_lists import HostLists

QUANTITIES = {"energy": "energy", "atom_energy": "atom_energy", "force": "forces", "virial": "virial"}
#: cases that are also evaluated with deepmd-kit's atomic virial: three backward passes more
ATOMIC = ("base", "published_medium", "davg_exclude", "virtual_davg")
#: every kind of pair features, in single precision
FLOAT32 = ("base", "strip", "published_medium", "published_small", "published_strip")
NO_PBC = (False, False, False)


def engine_of(name: str, precision: str = "float64", **options: Any) -> CudaEngine:
    data = golden(name)
    device = options.pop("device", None) or EmulatedDevice()
    return CudaEngine(ModelData(data.config, data.weights), precision, device, **options)


def frame_of(system: System, frame: int = 0) -> tuple[Any, ...]:
    """coords, types, box and pbc of a frame."""
    box = None if system.box is None else system.box[frame]
    return system.coord[frame], system.atype.astype(np.int32), box, (True,) * 3 if box is not None else NO_PBC


def parameters_of(system: System, frame: int = 0) -> tuple[Any, Any]:
    given = (system.fparam, system.aparam)
    return tuple(None if value is None else value[frame] for value in given)  # type: ignore[return-value]


def assert_answers(engine: CudaEngine, system: System, tolerance: float, atomic: int) -> None:
    frame, parameters = frame_of(system), parameters_of(system)
    expected = {name: value[0] for name, value in system.expected.items()}
    descriptor, rotation, _ = engine.descriptor(*frame, atomic != 0, 1)
    answers = engine.evaluate(*frame, *parameters, atomic, 1)
    errors = {name: relative(answers[ours], expected[name]) for name, ours in QUANTITIES.items()}
    errors["descriptor"] = relative(descriptor, expected["descriptor"])
    if atomic:
        assert rotation is not None
        real = system.atype >= 0
        errors["rot_mat"] = relative(rotation[real], expected["rot_mat"][real])
        errors["atom_virial"] = relative(answers["atom_virial"], expected["atom_virial"])
    assert max(errors.values()) <= tolerance, f"{system.name}: {errors}"


#: one of each way to give the types and to join the blocks; the long list is in what has the marker `slow`
QUICK = {"base", "davg_strip", "one_side", "g1g1", "res_incr", "fparam_aparam_case", "random_07", "random_10"}


@pytest.mark.parametrize(
    "case",
    needs.mostly_slow(golden_cases(), QUICK, lambda case: case.name),
    ids=lambda case: case.name,
)
def test_parity_with_deepmd_kit(case: ModelCase) -> None:
    """A frame of each system; with the lists of the compiled core, whose search has tests of its own."""
    data = golden(case.name)
    device = EmulatedDevice()
    engine = engine_of(case.name, device=device, neighbors=HostLists(device, data.config))
    systems = data.systems if case.name in ATOMIC else data.systems[:2]
    for system in systems:
        assert_answers(engine, system, case.tolerance, 2 if case.name in ATOMIC else 0)


@pytest.mark.parametrize("name", FLOAT32)
def test_float32_is_as_good_as_that_of_the_cpu(name: str) -> None:
    """The bound of the CPU on single models, for all systems together (see test_golden): twice deepmd-kit's error."""
    data, engine = golden(name), engine_of(name, "float32")
    worst: dict[str, float] = {}
    for system in data.systems:
        for f in range(len(system.coord)):
            frame = frame_of(system, f)
            answers = engine.evaluate(*frame, *parameters_of(system, f), 0, 1)
            answers["descriptor"] = engine.descriptor(*frame, False, 1)[0]
            for quantity, ours in (("descriptor", "descriptor"), ("atom_energy", "atom_energy"), ("force", "forces")):
                error = float(np.abs(answers[ours] - system.expected[quantity][f]).max())
                worst[quantity] = max(worst.get(quantity, 0.0), error)
    for quantity, error in worst.items():
        assert error <= 2.0 * data.float32_error[quantity][0], quantity


def assert_same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Of all that an engine answers."""
    assert one["remarks"] == other["remarks"]
    for quantity in one.keys() - {"remarks"}:
        np.testing.assert_array_equal(one[quantity], other[quantity], err_msg=quantity)


@pytest.mark.parametrize("name", ["base", "davg_rough_strip", "published_medium"])
def test_lists_of_the_device_and_the_order_of_threads_change_nothing(name: str) -> None:
    """The whole evaluation from kernels, threads and blocks in orders drawn at random: bit by bit the same."""
    system = golden(name).systems[-1]
    frame, parameters = frame_of(system), parameters_of(system)
    answers = [
        engine_of(name, device=EmulatedDevice(seed=seed)).evaluate(*frame, *parameters, 1, 1) for seed in (None, 1, 2)
    ]
    for other in answers[1:]:
        assert_same_bits(answers[0], other)
    assert relative(answers[0]["forces"], system.expected["force"][0]) <= CASES[name].tolerance


def test_atomic_virial_of_edges_is_that_of_the_cpu() -> None:
    system = golden("base").systems[0]
    found = engine_of("base").evaluate(*frame_of(system), None, None, 1, 1)
    wanted = model_of(golden("base"), device="cpu").evaluate(system.coord, system.atype, system.box, atomic="edge")
    assert wanted.atom_virial is not None
    assert relative(found["atom_virial"], wanted.atom_virial[0]) <= 1e-12


CROWDED = [("base", "float64", 1e-10), ("davg_strip", "float64", 1e-10), ("out_conv_false_rough", "float64", 1e-10),
           ("base", "float32", 2e-4)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "bound"), CROWDED)
def test_crowded_atoms(name: str, precision: str, bound: float) -> None:
    """More neighbours than any tile of a kernel has room for, and than a block has threads for."""
    given = golden(name)
    config = copy.deepcopy(given.config)
    config["descriptor"]["repinit"] |= {"nsel": 400, "three_body_sel": 200}
    config["descriptor"]["repformer"]["nsel"] = 200
    system = given.systems[0]
    coords, types, box, pbc = frame_of(system)
    squeezed = (coords * 0.55, types, box * 0.55, pbc)
    data = ModelData(config, given.weights)
    device = EmulatedDevice(max_shared=1 << 20)
    found = CudaEngine(data, precision, device).evaluate(*squeezed, None, None, 0, 1)
    shapes = [launch.shapes for launch in device.launches if launch.kernel == "pair_attention"]
    edges = max(shape[0] for launched in shapes for shape in launched if shape is not None)
    assert edges > 33 * len(types)
    model = dpa2.Model(data, precision="float64", threads=1)
    wanted = model.evaluate(squeezed[0], types, squeezed[2])
    for quantity in ("energy", "forces", "virial", "atom_energy"):
        assert relative(found[quantity], getattr(wanted, quantity)) <= bound, quantity


def test_buffers_are_used_again() -> None:
    """No allocation in the steady state, and nothing of one frame in the next."""
    data, device = golden("base"), EmulatedDevice()
    engine = engine_of("base", device=device)
    bulk, tiny = data.systems[0], data.systems[-1]
    first = engine.evaluate(*frame_of(bulk), None, None, 1, 1)
    held = engine.run.workspace.bytes
    engine.evaluate(*frame_of(tiny), None, None, 1, 1)
    again = engine.evaluate(*frame_of(bulk), None, None, 1, 1)
    assert engine.run.workspace.bytes == held
    assert_same_bits(first, again)


def first_layers(data: Golden, nlayers: int) -> dict[str, np.ndarray]:
    """The weights of a model that ends after so many layers: what the last layer lacks, the new last one loses."""
    block = "descriptor.repformers.layers."
    end = f"{block}{data.config['descriptor']['repformer']['nlayers'] - 1}."
    kept = {name.removeprefix(end) for name in data.weights if name.startswith(end)}

    def keeps(name: str) -> bool:
        number, _, part = name.removeprefix(block).partition(".")
        return not name.startswith(block) or int(number) < nlayers - 1 or (int(number) == nlayers - 1 and part in kept)

    return {name: value for name, value in data.weights.items() if keeps(name)}


@pytest.mark.parametrize(("name", "most"), [("published_small", 25), ("published_medium", 25), ("base", 35)])
def test_few_launches_per_layer(name: str, most: int) -> None:
    """Kernels and products of a middle layer, forward and backward: the difference that one more layer makes."""
    data = golden(name)
    system = data.systems[-1]
    counts = []
    for nlayers in (2, 3):
        config = {**data.config, "descriptor": {**data.config["descriptor"]}}
        config["descriptor"]["repformer"] = {**config["descriptor"]["repformer"], "nlayers": nlayers}
        device = EmulatedDevice()
        engine = CudaEngine(ModelData(config, first_layers(data, nlayers)), "float64", device)
        engine.evaluate(*frame_of(system), None, None, 0, 1)
        counts.append(len(device.launches))
    assert counts[1] - counts[0] <= most


def test_no_atoms_and_atoms_without_neighbours() -> None:
    engine = engine_of("base")
    nothing = engine.evaluate(np.zeros((0, 3)), np.zeros(0, np.int32), None, NO_PBC, None, None, 1, 1)
    assert nothing["energy"] == 0.0
    assert nothing["atom_virial"].shape == (0, 3, 3)
    assert engine.descriptor(np.zeros((0, 3)), np.zeros(0, np.int32), None, NO_PBC, True, 1)[0].shape[0] == 0
    far = np.array([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]])
    types = np.array([0, 1], dtype=np.int32)
    found = engine.evaluate(far, types, None, NO_PBC, None, None, 1, 1)
    wanted = model_of(golden("base"), device="cpu").evaluate(far, types)
    assert found["energy"] == pytest.approx(wanted.energy, rel=1e-12)
    assert not found["forces"].any()


@pytest.mark.parametrize("name", ["base", "rough_strip", "published_medium", "fparam_aparam", "virtual_davg"])
def test_gradients_of_weighted_sums_are_those_of_the_cpu(name: str) -> None:
    system = golden(name).systems[0]
    frame, parameters, cpu = frame_of(system), parameters_of(system), model_of(golden(name), device="cpu")
    engine, rng = engine_of(name), np.random.default_rng(4)
    energies, rows = rng.normal(size=len(system.atype)), rng.normal(size=(len(system.atype), cpu.descriptor_dim))
    for weights in ({"atom_energy": energies}, {"descriptor": rows}, {"atom_energy": energies, "descriptor": rows}):
        given = (weights.get("atom_energy"), weights.get("descriptor"))
        gradient, strain, _ = engine.vjp(*frame, *parameters, *given, 1)
        wanted = cpu.vjp(*frame[:3], weights, fparam=parameters[0], aparam=parameters[1])
        assert relative(gradient, wanted[0]) <= 1e-12
        assert relative(strain, wanted[1]) <= 1e-11


def test_energies_without_forces_launch_no_backward() -> None:
    system, device = golden("base").systems[0], EmulatedDevice()
    engine = engine_of("base", device=device)
    found = engine.evaluate(*frame_of(system), None, None, 0, 1, False)
    launched = {launch.kernel for launch in device.launches}
    assert not [kernel for kernel in launched if "backward" in kernel or kernel == "assemble"]
    full = engine_of("base").evaluate(*frame_of(system), None, None, 0, 1)
    assert_same_bits(found, {name: full[name] for name in ("energy", "atom_energy", "remarks")})


def test_too_little_shared_memory_is_an_error_that_says_so() -> None:
    engine = engine_of("base", device=EmulatedDevice(max_shared=2000))
    with pytest.raises(dpa2.UnsupportedModelError, match="shared memory per block"):
        engine.evaluate(*frame_of(golden("base").systems[-1]), None, None, 0, 1)
