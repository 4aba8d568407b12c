"""deepmd-kit's answers for the kinds of models that LAMMPS takes: tensors by the compute, sums by the pair style."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from cases import Golden, System
from dpa2.files import ModelData, write_safetensors
from hybrid_cases import HYBRID_CASES
from kind_cases import KIND_CASES, KindCase, load_kind
from lammps_runs import (
    COEFF,
    DIVISIONS,
    NKTV2P,
    ORDER,
    Cluster,
    Setup,
    answer,
    assert_python_engine,
    combination_data,
    difference,
    divided,
    engine_of,
    measure,
    model_data,
    refusal,
    succeed,
    systems,
    systems_of,
    table,
    tensors,
)

TENSORS = [
    case
    for case in (*KIND_CASES, *HYBRID_CASES)
    if case.fitting.get("type") in ("dipole", "polar") and case.folder != "multitask"
]
COMBINATIONS = [case for case in KIND_CASES if case.combination]
#: of several models or descriptors
POTENTIALS = [*COMBINATIONS, *(case for case in HYBRID_CASES if not case.fitting)]
#: name -> (ranks, newton)
RANKS = {"1 rank": (1, "on"), "2 ranks": (2, "on"), "2 ranks, newton off": (2, "off"), "4 ranks": (4, "on")}


def prepare(folder: Path, case: KindCase) -> Golden:
    """The model of a case and its systems that LAMMPS can have, the first frame of each."""
    golden = load_kind(case)
    write_safetensors(folder / f"{case.name}.safetensors", ModelData(golden.config, golden.weights))
    for system in systems_here(golden):
        box, coords = np.eye(3), system.coord[0]
        if system.box is None:
            half = float(np.abs(coords).max()) + 5.0
            box, coords = 2.0 * half * box, coords + half
        else:
            box = system.box[0].reshape(3, 3)
        types = np.where(system.atype < 0, len(golden.config["type_map"]), system.atype)
        masses = [12.0] * (len(golden.config["type_map"]) + 1)
        Cluster(f"{case.name}_{system.name}", box, coords, types, masses).write(folder)
    return golden


def systems_here(golden: Golden) -> list[System]:
    chosen = [s for s in golden.systems if s.box is None or not np.any(np.triu(s.box[0].reshape(3, 3), 1))]
    assert {system.box is None for system in chosen} == {True, False}, "one with a cell and one without"
    return chosen


def setup(case: KindCase, golden: Golden, system: System, newton: str) -> tuple[Setup, list[str], str]:
    """Box and atoms, the lines for atomic parameters, the words for elements and parameters."""
    before = ["boundary f f f"] if system.box is None else []
    words = [*golden.config["type_map"], "NULL"]
    lines = []
    if system.fparam is not None:
        words += ["fparam", *(f"{x:.17g}" for x in system.fparam[0])]
    if system.aparam is not None:
        (values,) = system.aparam[0].T
        lines = ["fix p all property/atom d_a ghost yes"]
        lines += [f"set atom {i + 1} d_a {x:.17g}" for i, x in enumerate(values)]
        lines += ["compute a all property/atom d_a"]
        words += ["aparam_from_compute", "a"]
    return Setup(f"{case.name}_{system.name}", newton, before, after_box=lines), lines, " ".join(words)


@pytest.mark.parametrize("division", needs.mostly_slow(RANKS, {"1 rank"}))
def test_tensors(tmp_path: Path, division: str) -> None:
    ranks, newton = RANKS[division]
    script: list[str] = []
    expected = {}
    for case in TENSORS:
        golden = prepare(tmp_path, case)
        for system in systems_here(golden):
            place, _, words = setup(case, golden, system, newton)
            place.style, place.coeff = "zero 5.0", ["pair_coeff * *"]
            quantity = case.fitting["type"]
            columns = 3 if quantity == "dipole" else 9
            script += [*place.lines(), f"compute t all dpa2/tensor/atom {case.name}.safetensors {words}"]
            script += tensors("t", columns, place.system)
            expected[place.system] = (system.expected[quantity][0], system.expected[f"global_{quantity}"][0])
    succeed(tmp_path, script, ranks)
    assert len(expected) >= 12
    for name, (per_atom, whole) in expected.items():
        columns = whole.size
        found = table(tmp_path / f"{name}.dump")[:, 2:]
        sums = np.array((tmp_path / f"{name}.sums").read_text(encoding="ascii").split(), dtype=float)
        assert difference(found, per_atom.reshape(-1, columns)) < 1e-10, name
        assert difference(sums, whole.reshape(columns)) < 1e-10, name


@pytest.mark.parametrize("division", needs.mostly_slow(RANKS, {"1 rank"}))
def test_combinations(tmp_path: Path, division: str) -> None:
    ranks, newton = RANKS[division]
    script: list[str] = []
    expected = {}
    for case in POTENTIALS:
        golden = prepare(tmp_path, case)
        for system in systems_here(golden):
            place, _, words = setup(case, golden, system, newton)
            elements, _, parameters = words.partition("NULL")
            place.style = f"dpa2 {case.name}.safetensors {parameters}"
            place.coeff = [f"pair_coeff * * {elements} NULL"]
            script += [*place.lines(), *measure(place.system)]
            expected[place.system] = {name: array[0] for name, array in system.expected.items()}
    succeed(tmp_path, script, ranks)
    assert len(expected) >= 10
    for name, of_deepmd in expected.items():
        found = answer(tmp_path, name)
        assert difference(found.energy, of_deepmd["energy"]) < 1e-10, name
        assert difference(found.forces, of_deepmd["force"]) < 1e-10, name
        assert difference(found.atom_energy, of_deepmd["atom_energy"][:, 0]) < 1e-10, name
        virial = of_deepmd["virial"].reshape(3, 3) * NKTV2P
        centroid = -found.centroid.sum(axis=0)
        assert difference(centroid[:6], np.array([virial[index] for index in ORDER])) < 1e-10, name
        symmetric = 0.5 * (virial + virial.T)  # environments are not scaled alike in all directions: the virial is not
        pressure = found.pressure * found.volume
        assert difference(pressure, np.array([symmetric[index] for index in ORDER])) < 1e-10, name


@pytest.mark.parametrize("division", needs.mostly_slow(DIVISIONS, {"2 ranks"}))
def test_combinations_in_any_division_of_space(tmp_path: Path, division: str) -> None:
    script: list[str] = []
    for system in systems():
        system.write(tmp_path)
    for kind in ("zbl", "linear_ener"):
        write_safetensors(tmp_path / f"{kind}.safetensors", combination_data(kind))
        for name in systems_of(division):
            setup = divided(division, name)
            setup.style = f"dpa2 {kind}.safetensors"
            script += [*setup.lines(), *measure(f"{name}_{kind}")]
    succeed(tmp_path, script, DIVISIONS[division][0])
    for kind in ("zbl", "linear_ener"):
        model = engine_of(combination_data(kind))
        for name in systems_of(division):
            assert_python_engine(answer(tmp_path, f"{name}_{kind}"), name, model)


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_deviations_of_combinations(tmp_path: Path, ranks: int) -> None:
    """Of a combination, another one and a single network."""
    models = {"zbl": combination_data("zbl"), "linear": combination_data("linear_ener"), "one": model_data(seed=8)}
    for name, data in models.items():
        write_safetensors(tmp_path / f"{name}.safetensors", data)
    (system,) = [s for s in systems() if s.name == "triclinic"]
    system.write(tmp_path)
    files = " ".join(f"{name}.safetensors" for name in models)
    script = Setup("triclinic", style=f"dpa2 {files} out_freq 1 out_file devi.out atomic", coeff=[COEFF]).lines()
    succeed(tmp_path, [*script, "run 0"], ranks)
    row = np.array((tmp_path / "devi.out").read_text(encoding="ascii").splitlines()[1].split(), dtype=float)
    results = [engine_of(data).evaluate(system.coords, system.types, system.box) for data in models.values()]
    forces = np.array([result.forces for result in results])
    devi_f = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    devi_v = np.array([result.virial / len(system.types) for result in results]).std(axis=0)
    expected = [devi_v.max(), devi_v.min(), np.sqrt((devi_v**2).mean()), devi_f.max(), devi_f.min(), devi_f.mean()]
    assert np.allclose(row[1:7], expected, rtol=1e-8, atol=1e-12)
    assert np.allclose(row[7:], devi_f, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("kind", ["zbl", "linear_ener"])
def test_a_pair_below_the_table_ends_all_ranks(tmp_path: Path, kind: str, ranks: int) -> None:
    write_safetensors(tmp_path / "model.safetensors", combination_data(kind))
    (system,) = [s for s in systems() if s.name == "orthogonal"]
    coords = system.coords.copy()
    coords[7] = coords[3] + [0.1, 0.1, 0.1]
    Cluster("close", system.box, coords, np.where(np.arange(len(coords)) == 7, system.types[3], system.types)).write(
        tmp_path
    )
    message = refusal(tmp_path, [*Setup("close").lines(), "run 0"], ranks)
    assert "model.safetensors" in message
    assert "table" in message
    assert "4 and 8" in message or "8 and 4" in message


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_atom_that_gets_the_table_far_from_all_is_a_warning(tmp_path: Path, ranks: int) -> None:
    """Where deepmd-kit's switch is clamped: said once for a model."""
    (case,) = [case for case in COMBINATIONS if case.name == "zbl"]
    golden = prepare(tmp_path, case)
    (system,) = [s for s in systems_here(golden) if s.name == "sparse"]
    place, _, words = setup(case, golden, system, "on")
    place.style, place.coeff = f"dpa2 {case.name}.safetensors", [f"pair_coeff * * {words}"]
    said = succeed(tmp_path, [*place.lines(), "run 2"], ranks)
    assert said.count("its energy is then the pair table's") == 1
