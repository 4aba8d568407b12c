"""Models on the emulated GPU against deepmd-kit, option by option, and against the compiled core."""

from __future__ import annotations

import copy
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import Golden, ModelCase, System, golden_cases
from dpa2.compress import chosen
from dpa2.files import ModelData
from dpa2.reference import ReferenceModel
from gpu_models import emulate, frame_of, gpu_model
from helpers import CASES, golden, model_of, relative

QUANTITIES = {"energy": "energy", "atom_energy": "atom_energy", "force": "forces", "virial": "virial"}
#: cases that are also evaluated with deepmd-kit's atomic virial: three backward passes more
ATOMIC = ("base", "published_medium", "davg_exclude", "virtual_davg")
#: every kind of pair features, in single precision
FLOAT32 = ("base", "strip", "published_medium", "published_small", "published_strip")


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch)


def parameters_of(system: System, frame: int = 0) -> dict[str, Any]:
    given = {"fparam": system.fparam, "aparam": system.aparam}
    return {name: None if value is None else value[frame] for name, value in given.items()}


def assert_answers(model: dpa2.Model, system: System, tolerance: float, atomic: bool) -> None:
    """Of the first frame."""
    frame, expected = frame_of(system), {name: value[0] for name, value in system.expected.items()}
    descriptor, rotation = model.descriptor(*frame, rot_mat=True)
    answers = model.evaluate(*frame, **parameters_of(system), atomic="deepmd" if atomic else False)
    errors = {name: relative(getattr(answers, ours), expected[name]) for name, ours in QUANTITIES.items()}
    real = system.atype >= 0
    errors["descriptor"] = relative(descriptor, expected["descriptor"])
    errors["rot_mat"] = relative(rotation[real], expected["rot_mat"][real])
    if atomic:
        errors["atom_virial"] = relative(answers.atom_virial, expected["atom_virial"])
    assert max(errors.values()) <= tolerance, f"{system.name}: {errors}"


#: one of each way to give the types and to join the blocks; the long list is in what has the marker `slow`
QUICK = {"base", "davg_strip", "one_side", "g1g1", "res_incr", "fparam_aparam_case", "random_07", "random_10"}


@pytest.mark.parametrize(
    "case",
    needs.mostly_slow(golden_cases(), QUICK, lambda case: case.name),
    ids=lambda case: case.name,
)
def test_parity_with_deepmd_kit(case: ModelCase) -> None:
    """A frame of each system."""
    data, model = golden(case.name), gpu_model(case.name)
    systems = data.systems if case.name in ATOMIC else data.systems[:2]
    assert systems
    for system in systems:
        assert_answers(model, system, case.tolerance, case.name in ATOMIC)


@pytest.mark.parametrize("name", FLOAT32)
def test_float32_is_as_good_as_that_of_the_cpu(name: str) -> None:
    """The bound of the CPU on single models, for all systems together (see test_golden): twice deepmd-kit's error."""
    data, model = golden(name), gpu_model(name, precision="float32")
    worst: dict[str, float] = {}
    for system in data.systems:
        for f in range(len(system.coord)):
            frame = frame_of(system, f)
            answers = model.evaluate(*frame, **parameters_of(system, f))
            found = {
                "descriptor": model.descriptor(*frame),
                "atom_energy": answers.atom_energy,
                "force": answers.forces,
            }
            for quantity, value in found.items():
                error = float(np.abs(value - system.expected[quantity][f]).max())
                worst[quantity] = max(worst.get(quantity, 0.0), error)
    for quantity, error in worst.items():
        assert error <= 2.0 * data.float32_error[quantity][0], quantity


@pytest.mark.parametrize("name", ["base", "davg_rough_strip", "published_medium"])
def test_the_order_of_threads_changes_nothing(name: str) -> None:
    """The whole evaluation with threads and blocks in orders drawn at random: bit by bit the same."""
    from cuda_emulator.driver import driver

    system, model = golden(name).systems[-1], gpu_model(name)
    answers = []
    try:
        for seed in (None, 1, 2):
            driver().set_seed(seed)
            answers.append(model.evaluate(*frame_of(system), **parameters_of(system), atomic=True))
    finally:
        driver().set_seed(None)
    for other in answers[1:]:
        for quantity in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
            np.testing.assert_array_equal(getattr(answers[0], quantity), getattr(other, quantity), err_msg=quantity)
    assert relative(answers[0].forces, system.expected["force"][0]) <= CASES[name].tolerance


def crowded(name: str) -> tuple[ModelData, tuple[Any, Any, Any]]:
    """A model with room for many neighbours, and a frame that has them."""
    given = golden(name)
    config = copy.deepcopy(given.config)
    config["descriptor"]["repinit"] |= {"nsel": 400, "three_body_sel": 200}
    config["descriptor"]["repformer"]["nsel"] = 200
    coords, types, box = frame_of(given.systems[0])
    return ModelData(config, given.weights), (coords * 0.55, types, box * 0.55)


CROWDED = [("base", "float64", 1e-10), ("davg_strip", "float64", 1e-10), ("out_conv_false_rough", "float64", 1e-10),
           ("base", "float32", 2e-4)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "bound"), CROWDED)
def test_crowded_atoms(name: str, precision: str, bound: float) -> None:
    """More neighbours than any tile of a kernel has room for, and than a block has threads for."""
    data, frame = crowded(name)
    found = dpa2.Model(data, precision=precision, device="cuda").evaluate(*frame)
    wanted = dpa2.Model(data, precision="float64", threads=1).evaluate(*frame)
    for quantity in ("energy", "forces", "virial", "atom_energy"):
        assert relative(getattr(found, quantity), getattr(wanted, quantity)) <= bound, quantity


@pytest.mark.filterwarnings("ignore:the file does not say how close")
@pytest.mark.parametrize("name", ["base", "davg_strip", "davg_rough", "one_side"])
def test_compressed_models(name: str) -> None:
    """Against the reference, which reads the same tables; neither is close to the networks."""
    given = golden(name)
    data = chosen(ModelData(given.config, given.weights), 1e-3)
    system = given.systems[-1]
    coords, types, box = frame_of(system)
    found = dpa2.Model(data, precision="float64", device="cuda").evaluate(coords, types, box)
    pbc = (box is not None,) * 3
    wanted = ReferenceModel(data.config, data.weights).evaluate(coords, types, box, pbc)
    for quantity in ("energy", "force", "virial"):
        assert relative(found.outputs[quantity], wanted[quantity]) <= 1e-12, quantity
    assert relative(found.forces, system.expected["force"][0]) > 1e-9, "the tables were not read"


def first_layers(data: Golden, nlayers: int) -> ModelData:
    """The model that ends after so many layers: what the last layer lacks, the new last one loses."""
    block = "descriptor.repformers.layers."
    end = f"{block}{data.config['descriptor']['repformer']['nlayers'] - 1}."
    kept = {name.removeprefix(end) for name in data.weights if name.startswith(end)}

    def keeps(name: str) -> bool:
        number, _, part = name.removeprefix(block).partition(".")
        return not name.startswith(block) or int(number) < nlayers - 1 or (int(number) == nlayers - 1 and part in kept)

    config = {**data.config, "descriptor": {**data.config["descriptor"]}}
    config["descriptor"]["repformer"] = {**config["descriptor"]["repformer"], "nlayers": nlayers}
    return ModelData(config, {name: value for name, value in data.weights.items() if keeps(name)})


def steady_step(model: dpa2.Model, frame: tuple[Any, ...], **options: Any) -> Any:
    """What the driver was asked for in an evaluation like others before."""
    from cuda_emulator.driver import driver

    for _ in range(3):
        model.evaluate(*frame, **options)
    driver().reset()
    model.evaluate(*frame, **options)
    return driver().log()


@pytest.mark.parametrize(("name", "most"), [("published_small", 8), ("published_medium", 10), ("base", 17)])
def test_few_launches_per_layer(name: str, most: int) -> None:
    """Kernels of a middle layer, forward and backward: the difference that one more layer makes."""
    data = golden(name)
    frame = frame_of(data.systems[-1])
    counts = [
        len(steady_step(dpa2.Model(first_layers(data, n), precision="float64", device="cuda"), frame).launches)
        for n in (2, 3)
    ]
    assert 0 < counts[1] - counts[0] <= most


def test_a_steady_step_is_one_graph_and_one_read() -> None:
    """Of the medium model: its launches, and what crosses between host and device."""
    system, model = golden("published_medium").systems[0], gpu_model("published_medium")
    log = steady_step(model, frame_of(system))
    assert len(log.launches) <= 80
    assert all(launch.graph for launch in log.launches)
    names = ("copies_to_device", "copies_to_host", "graph_launches", "allocations")
    crossing = {name: log.counts.get(name, 0) for name in names}
    assert crossing == {"copies_to_device": 1, "copies_to_host": 1, "graph_launches": 1, "allocations": 0}


def test_energies_without_forces_launch_no_backward() -> None:
    system, model = golden("base").systems[0], gpu_model("base")
    log = steady_step(model, frame_of(system), forces=False)
    assert log.launches
    assert not [one.kernel for one in log.launches if "backward" in one.kernel or one.kernel == "assemble"]
    found, full = (model.evaluate(*frame_of(system), forces=forces) for forces in (False, True))
    np.testing.assert_array_equal(found.atom_energy, full.atom_energy)
    assert found.energy == full.energy


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, False)])
def test_virials_of_deepmd_kit_refer_to_the_box_as_given(pbc: tuple[bool, bool, bool]) -> None:
    """One that the search reduces, and one with open directions that are not orthogonal to the others."""
    coords, types, box = frame_of(golden("base").systems[0])
    skewed = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ box
    cpu, model = model_of(golden("base"), device="cpu"), gpu_model("base")
    found, wanted = (m.evaluate(coords, types, skewed, pbc=pbc, atomic="deepmd") for m in (model, cpu))
    assert relative(found.atom_virial, wanted.atom_virial) <= 1e-11


def test_atoms_without_neighbours() -> None:
    far, types = np.array([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]]), np.array([0, 1])
    found = gpu_model("base").evaluate(far, types)
    wanted = model_of(golden("base"), device="cpu").evaluate(far, types)
    assert found.energy == pytest.approx(wanted.energy, rel=1e-12)
    assert not found.forces.any()


@pytest.mark.parametrize("name", ["base", "rough_strip", "published_medium", "fparam_aparam", "virtual_davg"])
def test_gradients_of_weighted_sums_are_those_of_the_cpu(name: str) -> None:
    system = golden(name).systems[0]
    frame, parameters = frame_of(system), parameters_of(system)
    cpu, model, rng = model_of(golden(name), device="cpu"), gpu_model(name), np.random.default_rng(4)
    energies, rows = rng.normal(size=len(system.atype)), rng.normal(size=(len(system.atype), cpu.descriptor_dim))
    for weights in ({"atom_energy": energies}, {"descriptor": rows}, {"atom_energy": energies, "descriptor": rows}):
        gradient, strain = model.vjp(*frame, weights, **parameters)
        wanted = cpu.vjp(*frame, weights, **parameters)
        assert relative(gradient, wanted[0]) <= 1e-12
        assert relative(strain, wanted[1]) <= 1e-11
