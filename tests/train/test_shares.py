"""Batches that processes share, which are threads here: their frames, and the gradient of one loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
import training_cases as training
from data_cases import LABELS, LMDB, TYPE_MAP
from dpa2.errors import InputError
from dpa2.files import ModelData
from dpa2.train import GradientEngine
from dpa2.train.batch import Label
from dpa2.train.loading import open_section
from dpa2.train.order import Order
from dpa2.train.processes import Alone, Processes
from dpa2.train.random import Generator
from dpa2.train.resume import Stream
from process_threads import results, together

#: sums in another order, as a part of the gradient's norm
ROUNDING = 1e-13
ENERGY = [Label(*label, False) for label in LABELS["ener"]]

# ------------------------------------------------------------------------------------------------------- one gradient

CASES = {case.name: case for case in training.CASES}
#: models with every loss of theirs; one has excluded types and placeholders among its atoms
MODELS = ("exclude_all", "virtual_davg", "dipole", "dos", "property_extensive", "population_double")


@cache
def case_of(name: str) -> tuple[GradientEngine, str, dict[str, Any]]:
    """An engine, the type of the fitting net, and five frames, the last of which has fewer atoms."""
    case = CASES[name]
    golden = case.load()
    system = next(s for s in golden.systems if s.name == case.system)
    model = dpa2.Model(ModelData(golden.config, golden.weights), threads=1, on_overflow="ignore")
    one = training.batch(golden, system)
    nframes = len(one["coord"])
    rows = [k % nframes for k in range(5)]
    batch = {
        key: np.array(value)[rows] if isinstance(value, np.ndarray) and value.ndim and len(value) == nframes else value
        for key, value in one.items()
    }
    batch["atype"] = np.array(np.broadcast_to(one["atype"], (nframes, one["coord"].shape[1])))[rows]
    batch["atype"][4, -1] = -1
    for label in ("energy", "force", "virial", "dipole", "atom_dipole", "dos", "atom_dos", "atom_population"):
        if label in batch:
            batch[label] = batch[label] * np.linspace(0.9, 1.3, 5).reshape(5, *[1] * (batch[label].ndim - 1))
    return GradientEngine(model), golden.config["fitting_net"]["type"], batch


def rows_of(batch: dict[str, Any], rows: slice) -> dict[str, Any] | None:
    """Some frames of a batch; None: none of them."""
    if rows.start == rows.stop:
        return None
    return {key: value[rows] if isinstance(value, np.ndarray) else value for key, value in batch.items()}


def without_gradient(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "gradient"}


@pytest.mark.parametrize(("name", "count"), [
    ("exclude_all", 2), ("virtual_davg", 7), ("dipole", 3), ("dos", 2), ("property_extensive", 7),
    ("population_double", 3),
    *(pytest.param(name, count, marks=pytest.mark.slow) for name in MODELS for count in (2, 3, 7)),
])  # fmt: skip
def test_gradient(name: str, count: int) -> None:
    """Every loss: value, what is displayed and the gradient are those of the whole batch, wherever its frames are."""
    engine, kind, batch = case_of(name)
    losses = {key: training.LOSSES[kind][key] for key in CASES[name].losses}
    for key, loss in losses.items():
        section = loss | {"starter_learning_rate": training.STARTER}
        whole = engine.gradient(batch, section, training.RATE)
        found = results(
            count,
            lambda team, section=section: engine.shared_gradient(
                rows_of(batch, team.mine(5)), section, training.RATE, team
            ),
        )
        np.testing.assert_equal(engine.value(batch, section, training.RATE), without_gradient(whole))
        values = results(
            count,
            lambda team, section=section: engine.shared_value(
                rows_of(batch, team.mine(5)), section, training.RATE, team
            ),
        )
        np.testing.assert_equal(values, [without_gradient(found[0])] * count)
        norm = np.sqrt(sum((value**2).sum() for value in whole["gradient"].values()))
        for rank, each in enumerate(found):
            assert each["value"] == pytest.approx(whole["value"], rel=1e-13), key
            assert each["parts"] == pytest.approx(whole["parts"], rel=1e-13, nan_ok=True), key
            assert bool(each["gradient"]) == (rank == 0)
        assert found[0]["gradient"].keys() == whole["gradient"].keys()
        for parameter, value in whole["gradient"].items():
            error = np.abs(found[0]["gradient"][parameter] - value).max()
            assert error <= ROUNDING * norm, (key, parameter)


def test_labels_that_one_process_lacks() -> None:
    """A label counts as missing in the whole batch, as for one process."""
    engine, _, batch = case_of("virtual_davg")
    section = training.LOSSES["ener"]["mix"]
    less = {key: value for key, value in batch.items() if key != "virial"}
    whole = engine.gradient(less, section, training.RATE)

    def share(team: Processes) -> Any:
        return engine.shared_gradient(rows_of(less if team.rank else batch, team.mine(5)), section, training.RATE, team)

    for each in results(2, share):
        assert each["value"] == pytest.approx(whole["value"], rel=1e-13)
        assert np.isnan(each["parts"]["rmse_v"])


def test_error_of_one_process() -> None:
    """All end with it, whatever they were waiting for."""
    engine, _, batch = case_of("virtual_davg")
    section = training.LOSSES["ener"]["mix"]

    def share(team: Processes, wrong: Callable[[dict[str, Any]], Any]) -> Any:
        mine = rows_of(batch, team.mine(5))
        assert mine is not None
        if team.rank == 1:
            wrong(mine)
        with team.together():
            return engine.shared_gradient(mine, section, training.RATE, team)

    for wrong, message in (
        (lambda mine: mine.update(coord=mine["coord"][:, :-1]), "coord must have shape"),
        (lambda mine: mine.update(energy=np.full_like(mine["energy"], 1e200)), "the loss of the batch is not finite"),
    ):
        found = together(3, lambda team, wrong=wrong: share(team, wrong))
        assert [type(each) for each in found] == [InputError] * 3
        assert all(message in str(each) for each in found)


# ------------------------------------------------------------------------------------------------------- batches


def test_shares() -> None:
    """All frames, in order; the first process has as many as any other."""
    for count in range(12):
        for size in range(1, 6):
            teams = []
            for rank in range(size):
                team = Alone()
                team.rank, team.size = rank, size
                teams.append(list(range(count))[team.mine(count)])
            assert list(chain(*teams)) == list(range(count))
            assert len(teams[0]) == max(map(len, teams))
            assert max(map(len, teams)) - min(map(len, teams)) <= 1


def batches(section: dict[str, Any], size: int, rank: int | None, count: int) -> list[Any]:
    """The frames of so many batches: of one process of several, or of the larger batch of one."""
    data = open_section(section, TYPE_MAP, ENERGY, shares=size)
    team = Alone()
    team.rank, team.size = rank or 0, size
    stream = Stream(data, Generator(0), 5, 2, "training", mine=None if rank is None else team.mine)
    found = []
    for _ in range(count):
        batch = stream.next()
        stream.ahead()
        if batch is None:
            found.append([])
            continue
        found.append(list(zip(batch["frames"].tolist(), batch["energy"].ravel().tolist(), strict=True)))
        assert 0 < len(batch["coord"]) == len(batch["frames"])
    stream.close()
    return found


@pytest.mark.parametrize("section", [
    {"systems": ["long", "standard"], "batch_size": [2, 1]},
    {"systems": ["long", "standard"], "batch_size": "auto:12", "auto_prob": "prob_uniform"},
    {"systems": ["close"], "batch_size": 1, "min_pair_dist": 0.5},
    {"systems": str(LMDB), "batch_size": 2},
    {"systems": str(LMDB), "batch_size": "mix:9"},
])  # fmt: skip
@pytest.mark.parametrize("size", [2, 3])
def test_batches(section: dict[str, Any], size: int, folder: Path) -> None:
    """Those of one process of the larger batches, shared in order."""
    systems = section["systems"]
    if isinstance(systems, list):
        section = section | {"systems": [str(folder / name) for name in systems]}
    whole = batches(section, size, None, 30)
    shares = [batches(section, size, rank, 30) for rank in range(size)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole
    assert all(len(parts[0]) >= len(parts[-1]) for parts in zip(*shares, strict=True))
    size_of = section["batch_size"]
    if isinstance(size_of, int):
        larger = batches(section | {"batch_size": size * size_of}, 1, None, 30)
    elif isinstance(size_of, list):
        larger = batches(section | {"batch_size": [size * each for each in size_of]}, 1, None, 30)
    elif size_of.startswith("mix:"):
        larger = batches(section | {"batch_size": f"mix:{size * 9}"}, 1, None, 30)
    else:
        return
    assert larger == whole


def test_order_beyond_its_end() -> None:
    """An order that was kept for small batches goes on with larger ones, of which there are fewer."""

    class Data:
        frames = (5, 3)
        probabilities = np.array([0.5, 0.5])

        def __init__(self, sizes: tuple[int, int]) -> None:
            self.sizes = sizes

    small = Order(Data((1, 1)), Generator(1), 5, 2)
    for _ in range(11):
        small.next()
    large = Order(Data((4, 4)), Generator(1), 5, 2)
    large.state = small.state
    assert {draw.system for draw in (large.next() for _ in range(9))} == {0, 1}
