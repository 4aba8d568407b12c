"""Runs shared by processes, which are threads here: the curve of one process with the larger batch, and errors."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_runs as runs
from dpa2.errors import InputError, WorkFailedError
from dpa2.train import checkpoint
from dpa2.train.prepare import from_input
from dpa2.train.processes import Alone, Processes
from process_threads import results, together

#: what a few steps make of sums in another order
STEPS = 1e-11
#: parameters in single precision may be rounded up or down
SINGLE = 2.0**-21


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
def test_larger_batch(name: str, count: int, size: int, run_folder: Path) -> None:
    """The learning curve and all of the last checkpoint are those of one process with the larger batch."""
    whole, curve = run(config_of(name, count * size), 0)
    found, own = run(config_of(name, size), count)
    assert own == curve
    check_same(found, whole)


def test_restart(run_folder: Path) -> None:
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
def test_restart_with_more_processes(run_folder: Path) -> None:
    """The order of the data goes on, with batches that are larger than they were."""
    run(config_of("plain", 1, save_freq=4), 0)
    found, _ = run(config_of("plain", 1, numb_steps=30), 4, "model.ckpt-8.pt")
    assert found["dpa2"]["step"] == 30


def test_statistics_of_a_file(run_folder: Path) -> None:
    """One process writes them, all take them."""
    config = config_of("plain", 1, stat_file="statistics.hdf5", numb_steps=0)
    first, again, whole = run(config, 2)[0], run(config, 2)[0], run(config_of("plain", 2, numb_steps=0), 0)[0]
    for name, value in whole["model"].items():
        if name != "_extra_state":
            np.testing.assert_array_equal(first["model"][name], value, err_msg=name)
            np.testing.assert_allclose(again["model"][name], value, rtol=1e-13, atol=1e-14, err_msg=name)


def test_without_seed(run_folder: Path) -> None:
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


def test_frame_that_one_process_cannot_read(run_folder: Path) -> None:
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
def test_full_disk(name: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not list(run_folder.glob("*.part"))


def test_what_is_shown(run_folder: Path) -> None:
    """An error of the one that shows how far it is ends all, with a checkpoint of the step."""

    def steps(team: Processes) -> None:
        def progress(step: Any) -> None:
            if team.is_first and step["step"] == 3:
                raise OSError(28, "No space left on device")

        from_input(config_of("plain", 1), processes=team).trainer(threads=1).run(progress)

    assert [type(each) for each in together(2, steps)] == [OSError] * 2
    assert checkpoint.Checkpoint("model.ckpt.pt").step == 3


def test_diverging(run_folder: Path) -> None:
    """A loss that is not finite in one process."""
    force = np.load("one/set.000/force.npy")
    force[2] = 1e200
    np.save("one/set.000/force.npy", force)
    found = failing(config_of("plain", 1, numb_steps=50), 2)
    assert [type(each) for each in found] == [WorkFailedError] * 2
    assert str(found[0]) == str(found[1])
    assert "the loss of the batch is not finite" in str(found[0])
    assert " 2" in str(found[0]).partition("frames")[2].partition(":")[0]


def test_unexpected_errors_end_all_at_once(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_different_inputs(run_folder: Path) -> None:
    def steps(team: Processes) -> None:
        config = config_of("plain", 1)
        config["model"]["fitting_net"]["neuron"] = [12, 12 + team.rank]
        with team.together():
            from_input(config, processes=team).trainer(threads=1)

    found = together(2, steps)
    assert all(isinstance(each, InputError) and "different models" in str(each) for each in found)
