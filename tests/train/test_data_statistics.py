"""Statistics of training data against deepmd-kit's and against formulas written out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from data_cases import LABELS, NEIGHBORS, STATISTICS, TYPE_MAP, expected, write
from dpa2.train.batch import Label
from dpa2.train.dataset import DataSet
from dpa2.train.loading import Loader
from dpa2.train.order import Draw, Order
from dpa2.train.random import Generator
from dpa2.train.sel import neighbor_statistics
from dpa2.train.statistics import Environment, Output, Parameters, Statistics


def section(name: str) -> dict[str, Any]:
    """The model of a case with deepmd-kit's defaults."""
    return copy.deepcopy(expected()["statistics"][name]["section"])


def data_of(folder: Path, name: str, systems: list[str] | None = None) -> DataSet:
    case, model = STATISTICS[name], section(name)
    fitting = model["fitting_net"]
    labels = [Label(*label, False) for label in LABELS[fitting["type"]]]
    for key, of_atoms in (("fparam", False), ("aparam", True)):
        if fitting.get(f"numb_{key}"):
            labels.append(Label(key, fitting[f"numb_{key}"], of_atoms, True))
    paths = [str(folder / system) for system in systems or case["systems"]]
    return DataSet(
        {"systems": paths, "batch_size": 1, "min_pair_dist": case.get("min_pair_dist", 0.0)}, TYPE_MAP, labels
    )


def sample(data: DataSet) -> Any:
    return Loader(data, Order(data, Generator(0), 1, 0)).sample(10**6)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_those_of_deepmd_kit(folder: Path, name: str) -> None:
    found = Statistics(section(name)).add(sample(data_of(folder, name)))
    wanted = expected()["statistics"][name]
    weights = found.weights()
    for key, value in wanted["weights"].items():
        np.testing.assert_allclose(weights.pop(key), value, rtol=1e-12, atol=1e-14, err_msg=key)
    assert not weights
    assert found.observed_type == wanted["observed_type"]


def test_frames_without_the_label_do_not_count(folder: Path) -> None:
    """And where no frame has one, the bias stays what it is."""
    model = section("standard")
    (batch,) = [next(iter(sample(data_of(folder, "standard"))))]
    del batch["energy"]
    assert not {"out_bias", "out_std"} & Statistics(model).add([batch]).weights().keys()


def test_a_type_that_no_frame_has(folder: Path) -> None:
    weights = Statistics(section("standard")).add(sample(data_of(folder, "standard"))).weights()
    assert weights["descriptor.repformers.mean"][2].tolist() == [0.0] * 4
    assert weights["descriptor.repformers.stddev"][2].tolist() == [0.1] * 4


def test_tasks_with_one_descriptor_are_merged_by_their_sums(folder: Path) -> None:
    model = section("two")
    together = Environment(model)
    single = []
    for system in ("standard", "long"):
        single.append(Environment(model))
        for batch in sample(data_of(folder, "two", [system])):
            single[-1].add(batch)
            together.add(batch)
    single[0].merge(single[1])
    for name, value in together.weights().items():
        np.testing.assert_allclose(single[0].weights()[name], value, rtol=1e-12)


def test_parameters_of_another_task_count_by_its_probability(folder: Path) -> None:
    model = section("parameters")
    batches = list(sample(data_of(folder, "parameters")))
    first, second = Parameters(model, "fparam"), Parameters(model, "fparam")
    for batch in batches[:4]:
        first.add(batch)
    for batch in batches[4:]:
        second.add(batch)
    first.merge(second, 0.5)
    rows = np.concatenate([batch["fparam"] for batch in batches])
    weight = np.array([1.0] * 4 + [0.5] * 7)
    mean = weight @ rows / weight.sum()
    deviation = np.sqrt(weight @ (rows - mean) ** 2 / weight.sum())
    found = first.weights()
    np.testing.assert_allclose(found["fitting_net.fparam_avg"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["fitting_net.fparam_inv_std"], 1.0 / np.maximum(deviation, 0.9), rtol=1e-12)


def test_default_parameters_stand_for_those_that_lack(folder: Path) -> None:
    model = section("parameters")
    model["fitting_net"]["default_fparam"] = [0.5, -2.0]
    batch = next(iter(sample(data_of(folder, "standard"))))
    found = Parameters(model, "fparam")
    found.add(batch)
    assert found.weights()["fitting_net.fparam_avg"].tolist() == [0.5, -2.0]
    with pytest.raises(dpa2.InputError, match=r"standard, frame \d: no aparam, of which the model takes 1"):
        Parameters(model, "aparam").add(batch)


def test_bias_to_what_a_model_says(folder: Path) -> None:
    """What a model says already is taken off: by a model that is wrong by so much per atom this much is found."""
    output = Output(section("two"))
    wrong = np.array([0.7, -1.2])
    for batch in sample(data_of(folder, "two", ["mixed"])):
        batch["atype"] = np.maximum(batch["atype"], 0)
        output.add(batch, batch["energy"] - wrong[batch["atype"]].sum(axis=1, keepdims=True))
    found = output.solve()
    assert found is not None
    np.testing.assert_allclose(found[0][:, 0], [0.7, -1.2, 0.0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[1], 0.0, atol=1e-12)


def test_labels_of_atoms_go_before_those_of_frames(folder: Path) -> None:
    """Types without such labels are filled from the frames."""
    model = section("dos")
    batches = list(sample(data_of(folder, "dos")))
    for batch in batches:
        batch["atype"] = np.where(batch["atype"] == 0, -1, batch["atype"])
    output = Output(model)
    for batch in batches:
        output.add(batch)
    found = output.solve()
    assert found is not None
    atoms = np.concatenate([batch["atom_dos"][batch["atype"] == 1] for batch in batches])
    np.testing.assert_allclose(found[0][1], atoms.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found[1][1], atoms.std(axis=0), rtol=1e-12)
    assert not found[0][0].any()


def test_neighbor_statistics_are_those_of_deepmd_kit(folder: Path) -> None:
    wanted = expected()["neighbors"]
    found = neighbor_statistics(wanted["section"], data_of(folder, "standard", NEIGHBORS))
    assert found.model["descriptor"] == wanted["descriptor"]
    assert found.min_nbor_dist == pytest.approx(wanted["min_nbor_dist"], rel=1e-12)
    assert found.warnings == []
    assert wanted["section"]["descriptor"]["repinit"]["nsel"] == "auto"  # what was given is as it was


def test_too_few_neighbors_are_said(folder: Path) -> None:
    model = section("standard")
    found = neighbor_statistics(model, data_of(folder, "standard", NEIGHBORS))
    assert found.model == model
    assert len(found.warnings) == 3
    (most,) = [int(word) for word in found.warnings[0].split("up to ")[1].split()[:1]]
    wanted = expected()["neighbors"]["descriptor"]["repinit"]["nsel"]
    assert 4 * ((int(1.1 * most) + 3) // 4) == wanted
    assert "model.descriptor.repinit.nsel is 14, but atoms have up to" in found.warnings[0]
    assert str(folder) in found.warnings[0]


@pytest.mark.parametrize("wrong", ["automatic", "auto:", "auto:-1", "auto:nan", 0, 2.5, True, None])
def test_a_number_of_neighbors_that_is_none(folder: Path, wrong: Any) -> None:
    model = section("standard")
    model["descriptor"]["repformer"]["nsel"] = wrong
    with pytest.raises(dpa2.InputError, match=r"model\.descriptor\.repformer\.nsel must be a positive integer"):
        neighbor_statistics(model, data_of(folder, "standard"))


def test_bias_that_is_fixed_must_be_of_so_many_types(folder: Path) -> None:
    model = section("preset")
    model["preset_out_bias"] = {"energy": [1.0]}
    with pytest.raises(dpa2.InputError, match=r"preset_out_bias\.energy has 1 entries, but the model has 3 types"):
        Output(model)
    model["preset_out_bias"] = {"energy": [None, [1.0, 2.0], None]}
    with pytest.raises(dpa2.InputError, match=r"preset_out_bias\.energy\[1\] must be 1 numbers"):
        Output(model)


def test_cells_that_cannot_be(folder: Path) -> None:
    """And atoms at the same place: the frame is named."""
    data = data_of(folder, "standard")
    batch = data.read(Draw(0, np.array([3])))
    assert batch is not None
    batch["box"] = np.zeros((1, 3, 3))
    with pytest.raises(dpa2.InputError, match=r"standard, frame 3: .*singular"):
        Environment(section("standard")).add(batch)


def test_atoms_at_the_same_place(tmp_path: Path) -> None:
    write(tmp_path)
    coord = np.load(tmp_path / "long" / "set.001" / "coord.npy")
    coord[1, 6:] = coord[1, :3]
    np.save(tmp_path / "long" / "set.001" / "coord.npy", coord)
    with pytest.raises(dpa2.InputError, match=r"long, frame 8, atoms 0 and 2 are at the same place"):
        neighbor_statistics(section("two"), data_of(tmp_path, "two"))


def test_no_frame_is_left(folder: Path) -> None:
    with pytest.raises(dpa2.InputError, match="min_pair_dist leaves none"):
        Statistics(section("standard")).add([])
