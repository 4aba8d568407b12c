"""Training shared by processes, which are threads here: the curve of one process with the larger batch, and errors."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import sys
import types
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
import training_cases as training
import training_runs as runs
from data_cases import LABELS, LMDB, TYPE_MAP
from dpa2.cli import main
from dpa2.errors import EvaluationError, InputError
from dpa2.files import ModelData
from dpa2.train import GradientEngine, checkpoint
from dpa2.train.batch import Label
from dpa2.train.loading import open_section
from dpa2.train.order import Order
from dpa2.train.prepare import from_input
from dpa2.train.processes import Alone, Processes, join, launched
from dpa2.train.random import Generator
from dpa2.train.resume import Stream
from process_threads import results, together

#: sums in another order, as a part of the gradient's norm; and what a few steps make of that
ROUNDING, STEPS = 1e-13, 1e-11
#: parameters in single precision may be rounded up or down
SINGLE = 2.0**-21
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


# ------------------------------------------------------------------------------------------------------- runs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the data, in which runs are."""
    runs.write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUM_WORKERS", str(runs.STREAMS))
    return tmp_path


def config_of(name: str, size: int, **changes: Any) -> dict[str, Any]:
    """A run whose batches are of so many frames, and with which the numbers of atoms are the same in a batch."""
    config = copy.deepcopy(runs.RUNS[name])
    config["training"].update(changes)
    for data in config["training"].get("data_dict", {"": config["training"]}).values():
        data["training_data"]["batch_size"] = size
    return config


def run(config: dict[str, Any], count: int, restart: str | None = None) -> tuple[dict[str, Any], str]:
    """The last checkpoint and the learning curve of a run by so many processes, 0: by one without any team."""
    if restart is None:
        for path in Path().glob("model*"):
            path.unlink()

    def steps(team: Alone | None) -> None:
        preparation = from_input(copy.deepcopy(config), processes=team)
        preparation.count_neighbors()
        from_where = None if restart is None else checkpoint.Checkpoint(restart)
        preparation.trainer(restart=from_where, threads=1).run()

    if count:
        results(count, steps)
    else:
        steps(None)
    return checkpoint.Checkpoint("model.ckpt.pt").content, Path("lcurve.out").read_text()


def check_alike(found: Any, expected: Any) -> None:
    """The same texts and numbers, of which those of the loss are equal to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            check_alike(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            check_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=STEPS)
    else:
        assert found == expected


def check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Weights, moments and averages that are equal to rounding, and the same places in the data."""
    arrays, stated = runs.summary(found)
    others, wanted = runs.summary(expected)
    check_alike(stated, wanted)
    for name, value in others.items():
        if value.dtype.kind == "f" and value.size:
            tolerance = STEPS if value.dtype == np.float64 else SINGLE
            assert np.abs(arrays[name] - value).max() <= tolerance * max(1.0, float(np.abs(value).max())), name
        else:
            np.testing.assert_array_equal(arrays[name], value, err_msg=name)


@pytest.mark.parametrize(("name", "count", "size"), [
    ("averaged", 2, 1), ("tasks", 2, 1),
    *(pytest.param(*case, marks=pytest.mark.slow)
      for case in (("plain", 3, 1), ("plain", 4, 2), ("averaged", 3, 2), ("tasks", 3, 2), ("single", 2, 2))),
])  # fmt: skip
def test_larger_batch(name: str, count: int, size: int, here: Path) -> None:
    """The learning curve and all of the last checkpoint are those of one process with the larger batch."""
    whole, curve = run(config_of(name, count * size), 0)
    found, own = run(config_of(name, size), count)
    assert own == curve
    check_same(found, whole)


def test_restart(here: Path) -> None:
    """Stopped and restarted, and done once more, it has the same bits."""
    config = config_of("plain", 1, save_freq=4)
    whole, _ = run(config, 3)
    shutil.copy("model.ckpt-4.pt", "start.pt")
    bits = Path("model.ckpt-9.pt").read_bytes()
    run(config, 3)
    assert Path("model.ckpt-9.pt").read_bytes() == bits
    run(config, 3, "start.pt")
    assert Path("model.ckpt-9.pt").read_bytes() == bits
    # as many frames in other shares
    check_same(run(config_of("plain", 3, save_freq=4), 0, "start.pt")[0], whole)


@pytest.mark.slow
def test_restart_with_more_processes(here: Path) -> None:
    """The order of the data goes on, with batches that are larger than they were."""
    run(config_of("plain", 1, save_freq=4), 0)
    found, _ = run(config_of("plain", 1, numb_steps=30), 4, "model.ckpt-8.pt")
    assert found["dpa2"]["step"] == 30


def test_statistics_of_a_file(here: Path) -> None:
    """One process writes them, all take them."""
    config = config_of("plain", 1, stat_file="statistics.hdf5", numb_steps=0)
    first, again, whole = run(config, 2)[0], run(config, 2)[0], run(config_of("plain", 2, numb_steps=0), 0)[0]
    for name, value in whole["model"].items():
        if name != "_extra_state":
            np.testing.assert_array_equal(first["model"][name], value, err_msg=name)
            np.testing.assert_allclose(again["model"][name], value, rtol=1e-13, atol=1e-14, err_msg=name)


def test_without_seed(here: Path) -> None:
    """All draw the same, though nobody says from which seed: tasks, frames, and the first weights."""
    config = config_of("tasks", 1, seed=None, numb_steps=20)

    def steps(team: Processes) -> list[np.ndarray]:
        trainer = from_input(copy.deepcopy(config), processes=team).trainer(threads=1)
        order = [trainer.step()["task"] for _ in range(16)]
        places = [pickle.dumps(task.training.state) for task in trainer.tasks.values()]
        assert team.gather((order, places)) == [(order, places)] * 2
        return [value.copy() for value in trainer.optimizer.parameters.values()]

    first, second = results(2, steps)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def failing(config: dict[str, Any], count: int) -> list[Any]:
    return together(count, lambda team: from_input(copy.deepcopy(config), processes=team).trainer(threads=1).run())


def test_frame_that_one_process_cannot_read(here: Path) -> None:
    """All end with its message, and the steps before are kept."""
    config = config_of("plain", 1, stat_file="statistics", numb_steps=0, enable_ema=False)
    run(config, 2)
    config["training"].update(numb_steps=50, save_freq=1000, disp_training=False)
    config["training"]["training_data"]["auto_prob"] = "prob_sys_size;0:1:0.9;1:2:0.1"
    force = np.load("two/set.000/force.npy")
    force[:, 3] = np.nan
    np.save("two/set.000/force.npy", force)
    found = failing(config, 3)
    assert [type(each) for each in found] == [InputError] * 3
    assert len(set(map(str, found))) == 1
    assert "force.npy, row" in str(found[0])
    assert checkpoint.Checkpoint("model.ckpt.pt").step > 0


@pytest.mark.parametrize("name", ["-8", "lcurve.out"])
def test_full_disk(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the first process cannot write ends all; the checkpoint before stays whole."""
    from dpa2.files import torch_writer
    from dpa2.train.display import Curve

    write, add = torch_writer.write, Curve.add

    def full(handle: Any, value: Any, root: str) -> None:
        if name in root:
            raise OSError(28, "No space left on device", root)
        write(handle, value, root)

    def full_curve(curve: Any, row: Any) -> None:
        if name == "lcurve.out" and row.step > 4:
            raise OSError(28, "No space left on device", name)
        add(curve, row)

    monkeypatch.setattr(torch_writer, "write", full)
    monkeypatch.setattr(Curve, "add", full_curve)
    found = failing(config_of("plain", 1), 2)
    assert [type(each) for each in found] == [OSError] * 2
    assert "No space left" in str(found[1])
    assert os.readlink("model.ckpt.pt") == ("model.ckpt-4.pt" if name == "-8" else "model.ckpt-6.pt")
    assert not list(here.glob("*.part"))


def test_what_is_shown(here: Path) -> None:
    """An error of the one that shows how far it is ends all, with a checkpoint of the step."""

    def steps(team: Processes) -> None:
        def progress(step: Any) -> None:
            if team.is_first and step["step"] == 3:
                raise OSError(28, "No space left on device")

        from_input(config_of("plain", 1), processes=team).trainer(threads=1).run(progress)

    assert [type(each) for each in together(2, steps)] == [OSError] * 2
    assert checkpoint.Checkpoint("model.ckpt.pt").step == 3


def test_diverging(here: Path) -> None:
    """A loss that is not finite in one process."""
    force = np.load("one/set.000/force.npy")
    force[2] = 1e200
    np.save("one/set.000/force.npy", force)
    found = failing(config_of("plain", 1, numb_steps=50), 2)
    assert [type(each) for each in found] == [EvaluationError] * 2
    assert str(found[0]) == str(found[1])
    assert "the loss of the batch is not finite" in str(found[0])
    assert " 2" in str(found[0]).partition("frames")[2].partition(":")[0]


def test_unexpected_errors_end_all_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for a process that has a bug, or that Ctrl-C has ended."""

    def steps(team: Processes, error: BaseException) -> None:
        with team.together():
            if team.rank == 1:
                raise error
            team.gather(0)

    found = together(2, lambda team: steps(team, KeyError("a bug")))
    assert found[2] == 1
    assert "KeyError: 'a bug'" in capsys.readouterr().err
    assert together(2, lambda team: steps(team, KeyboardInterrupt()))[2] == 130
    assert "interrupted" in capsys.readouterr().err


def test_different_inputs(here: Path) -> None:
    def steps(team: Processes) -> None:
        config = config_of("plain", 1)
        config["model"]["fitting_net"]["neuron"] = [12, 12 + team.rank]
        with team.together():
            from_input(config, processes=team).trainer(threads=1)

    found = together(2, steps)
    assert all(isinstance(each, InputError) and "different models" in str(each) for each in found)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of the cores that several may use; what is asked for goes before."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    class Communicator:
        def Get_rank(self) -> int:
            return 0

        def Get_size(self) -> int:
            return 3

    for sharing, wanted in (([3] * 8, 2), ([3] * 2, 1), ([1] * 4, 4), ([1, 1, 2, 2], 3), ([3] * 3, 1), ([], None)):
        team = Processes(Communicator(), sharing)
        assert team.threads(None) == wanted
        assert team.threads(5) == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Processes(Communicator(), [3] * 8).threads(None) is None


# ------------------------------------------------------------------------------------------------------- launchers


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what a launcher has left."""
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI", "MV2_", "SLURM_")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(("variables", "place"), [
    ({}, None),
    ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "1"}, (1, 4)),
    ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
    ({"MV2_COMM_WORLD_RANK": "5", "MV2_COMM_WORLD_SIZE": "6"}, (5, 6)),
    ({"PMIX_RANK": "2", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, (2, 3)),
    ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, None),
    ({"PMI_RANK": "", "PMI_SIZE": "x"}, None),
])  # fmt: skip
def test_launchers(variables: dict[str, str], place: Any, environment: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert launched() == place


def test_no_mpi4py(environment: pytest.MonkeyPatch, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for where a launcher has started several processes, by the first of them, and nowhere else."""
    from dpa2.cli import common

    environment.setitem(sys.modules, "mpi4py", None)
    assert isinstance(join(), Alone)
    Path("input.json").write_text(json.dumps(config_of("plain", 1, numb_steps=0)))
    environment.setenv("PMI_RANK", "0")
    environment.setenv("PMI_SIZE", "2")
    assert main(["train", "input.json", "--threads", "1"]) == 2
    message = capsys.readouterr().err
    assert "mpi4py is missing, with which 2 processes of MPI train together: pip install 'dpa2[mpi]'" in message
    assert not list(here.glob("model*"))
    environment.setattr(common, "_silent", False)
    environment.setenv("PMI_RANK", "1")
    assert main(["train", "input.json", "--threads", "1"]) == 2
    assert capsys.readouterr().err == ""
    environment.setattr(common, "_silent", False)
    assert main(["train", "input.json", "--threads", "1", "--no-mpi"]) == 0
    environment.setenv("PMI_SIZE", "1")
    assert main(["train", "input.json", "--threads", "1"]) == 0


def stand_in(size: int) -> types.ModuleType:
    """An mpi4py whose MPI sees so many processes."""

    class Communicator:
        def Get_rank(self) -> int:
            return 0

        def Get_size(self) -> int:
            return size

    module, mpi = types.ModuleType("mpi4py"), types.ModuleType("mpi4py.MPI")
    mpi.COMM_WORLD = Communicator()  # type: ignore[attr-defined]
    mpi.Get_library_version = lambda: "Some MPI 4\nof somebody\0"  # type: ignore[attr-defined]
    module.MPI = mpi  # type: ignore[attr-defined]
    return module


def test_another_mpi(environment: pytest.MonkeyPatch) -> None:
    """Started by the mpirun of one MPI, with an mpi4py of another, each process would train alone."""
    environment.setitem(sys.modules, "mpi4py", stand_in(1))
    environment.setenv("OMPI_COMM_WORLD_RANK", "0")
    environment.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"4 processes of MPI, but mpi4py sees 1: it uses another MPI \(Some MPI 4\)"):
        join()
    assert join(False).size == 1
    environment.delenv("OMPI_COMM_WORLD_SIZE")
    assert join().size == 1
    with pytest.raises(InputError, match="no other processes of MPI: start them with mpirun"):
        join(True)
