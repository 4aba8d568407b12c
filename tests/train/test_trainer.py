"""Runs against deepmd-kit's: learning curves to the digit, checkpoints; interrupted ones against whole ones."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_checks as checks
import training_runs as runs
from cases import GOLDEN
from dpa2.errors import EvaluationError, InputError
from dpa2.files import read
from dpa2.train import checkpoint
from dpa2.train.frozen import Frozen
from dpa2.train.prepare import from_input
from dpa2.train.trainer import Trainer
from training_checks import check_checkpoint, content

pytestmark = pytest.mark.usefixtures("run_folder")


def train(name: str, *options: str, **changes: Any) -> int:
    return checks.train(runs.RUNS[name], *options, **changes)


def trainer(name: str, **changes: Any) -> Trainer:
    config = copy.deepcopy(runs.RUNS[name])
    config["training"].update(changes)
    return from_input(config).trainer(threads=1)


def check_curve(found: str, expected: str, single: bool) -> None:
    """The same digits; in single precision the last one of each number may differ by one."""
    if not single:
        assert found == expected
        return
    for row, other in zip(found.splitlines(), expected.splitlines(), strict=True):
        if row.startswith("#"):
            assert row == other
            continue
        for number, wanted in zip(map(Decimal, row.split()), map(Decimal, other.split()), strict=True):
            assert number.is_nan() == wanted.is_nan(), (row, other)
            if not wanted.is_nan():
                unit = Decimal(1).scaleb(int(wanted.as_tuple().exponent))
                assert abs(number - wanted) <= unit, (row, other)


@pytest.mark.parametrize("name", runs.RUNS)
def test_deepmd(name: str, run_folder: Path) -> None:
    """The learning curve, the files, and all that the last checkpoint holds."""
    assert train(name) == 0
    expected, single = runs.expected(name), name == "single"
    check_curve(Path("lcurve.out").read_text(), expected["curve"], single)
    files = sorted(path.name for path in run_folder.iterdir() if ".ckpt" in path.name or path.name == "checkpoint")
    assert [file for file in files if not file.endswith(".safetensors")] == expected["stated"]["files"]
    suffixes = [f".{task}.safetensors" for task in runs.RUNS[name]["model"].get("model_dict", ())] or [".safetensors"]
    native = [file.removesuffix(".pt") + suffix for file in files if file.endswith(".pt") for suffix in suffixes]
    assert [file for file in files if file.endswith(".safetensors")] == sorted(native)
    check_checkpoint(expected, single)


@pytest.mark.parametrize(("name", "threads"), [
    ("plain", 1), ("averaged", 1), ("tasks", 1), ("plain", 2),
    pytest.param("averaged", 2, marks=pytest.mark.slow), pytest.param("tasks", 2, marks=pytest.mark.slow),
])  # fmt: skip
def test_restart(name: str, threads: int, run_folder: Path) -> None:
    """Stopped after some steps and restarted, it ends in the same bits; with data, averages and tasks as they were."""
    options = ("--threads", str(threads))
    assert train(name, *options) == 0
    whole = {path.name: path.read_bytes() for path in run_folder.glob("model*ckpt-*.pt")}
    curve = Path("lcurve.out").read_text()
    for path in run_folder.glob("model*"):
        path.unlink()
    Path("lcurve.out").unlink()
    steps = runs.RUNS[name]["training"]["numb_steps"]
    config = copy.deepcopy(runs.RUNS[name])
    first = from_input(config).trainer(threads=threads)
    for number in range(steps - 3):
        first._one(_Nowhere(), _Nowhere(), lambda step: None)  # type: ignore[arg-type]
        assert first.done == number + 1
    saved = first.save()
    assert train(name, *options, "--restart", str(saved)) == 0
    for path in run_folder.glob(f"model*ckpt-{steps}.pt"):
        assert path.read_bytes() == whole[path.name], path.name
    rows = [row for row in curve.splitlines() if not row.startswith("#") and int(row.split()[0]) > steps - 3]
    assert [row for row in Path("lcurve.out").read_text().splitlines() if not row.startswith("#")] == rows


class _Nowhere:
    """Takes what a curve or a clock is given."""

    def add(self, results: Any) -> None:
        pass

    def line(self, step: int) -> str:
        return ""


def started(*options: str, **changes: Any) -> subprocess.Popen[bytes]:
    """A long run in a process of its own, of which the first checkpoint is there."""
    changes |= {"numb_steps": 100_000, "disp_freq": 1, "save_freq": 5}
    process = checks.start(runs.RUNS["plain"], "--threads", "1", *options, **changes)
    for _ in range(600):
        if os.path.exists("model_ema.ckpt.pt") or process.poll() is not None:
            break
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("number", "status", "message"), [
    (signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"ended by SIGTERM"),
])  # fmt: skip
def test_ended(number: int, status: int, message: bytes, run_folder: Path) -> None:
    """A signal ends the run after a step, with a checkpoint of this step, from which it goes on."""
    process = started()
    time.sleep(0.2)
    process.send_signal(number)
    assert message in process.communicate(timeout=60)[1]
    assert process.returncode == status
    last = int(Path("lcurve.out").read_text().splitlines()[-1].split()[0])
    assert os.readlink("model.ckpt.pt") == f"model.ckpt-{last}.pt"
    assert Path("checkpoint").read_text() == f"model.ckpt-{last}.pt"
    assert checkpoint.Checkpoint("model.ckpt.pt").step == last
    assert len(list(run_folder.glob("model.ckpt-*.pt"))) <= 5
    assert not [path for path in run_folder.iterdir() if path.name.endswith(".part")]
    assert train("plain", "--restart", "model.ckpt", numb_steps=last + 1) == 0
    assert checkpoint.Checkpoint("model.ckpt.pt").step == last + 1


def test_killed(run_folder: Path) -> None:
    """Whatever moment a run is killed at, the newest checkpoint is whole."""
    for round in range(4):
        for path in run_folder.glob("model*"):
            path.unlink()
        process = started()
        time.sleep(0.05 + 0.037 * round)
        process.kill()
        process.communicate(timeout=60)
        found = checkpoint.Checkpoint("model.ckpt.pt")
        assert found.step >= 5
        assert found.step == int(os.readlink("model.ckpt.pt").removeprefix("model.ckpt-").removesuffix(".pt"))


def test_full_disk(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint that does not fit ends the run; the one before stays the newest, nothing is left of the other."""
    from dpa2.files import torch_writer

    write, calls = torch_writer.write, []

    def full(handle: Any, value: Any, root: str) -> None:
        calls.append(root)
        if "-8" in root:
            handle.write(b"the beginning")
            raise OSError(28, "No space left on device")
        write(handle, value, root)

    monkeypatch.setattr(torch_writer, "write", full)
    assert train("plain") == 2
    assert "model.ckpt-8.pt: No space left on device" in capsys.readouterr().err
    assert os.readlink("model.ckpt.pt") == "model.ckpt-4.pt"
    assert checkpoint.Checkpoint("model.ckpt.pt").step == 4
    assert not [path for path in run_folder.iterdir() if path.name.endswith(".part") or "-8" in path.name]


def test_labels_that_are_no_numbers(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The frame is named, and the steps before its batch are kept; statistics of a file do not look at it first."""
    changes: dict[str, Any] = {"save_freq": 1000, "numb_steps": 50, "stat_file": "statistics.hdf5"}
    changes["disp_training"] = False  # validation would draw from the order of the data
    assert train("plain", **{**changes, "numb_steps": 0}) == 0
    source = trainer("plain", **changes).tasks["Default"].training
    order = [source.next()["where"] for _ in range(50)]
    before, frame = max((order.index(f"two, frame {frame}"), frame) for frame in range(3))
    assert before > 1
    force = np.load("two/set.000/force.npy")
    force[frame, 3] = np.nan
    np.save("two/set.000/force.npy", force)
    Path("model.ckpt.pt").unlink()
    capsys.readouterr()
    assert train("plain", **changes) == 2
    assert f"force.npy, row {frame} (frame {frame} of two), atom 1: found nan" in capsys.readouterr().err
    assert os.readlink("model.ckpt.pt") == f"model.ckpt-{before}.pt"
    assert checkpoint.Checkpoint("model.ckpt.pt").step == before


def test_diverging(capsys: pytest.CaptureFixture[str]) -> None:
    """A loss that is not finite ends the run without a checkpoint of what led to it."""
    for system in ("one", "two"):
        force = np.load(f"{system}/set.000/force.npy")
        np.save(f"{system}/set.000/force.npy", np.full_like(force, 1e200))
    assert train("plain") == 1
    assert "step 1: " in (message := capsys.readouterr().err)
    assert "the loss of the batch is not finite" in message
    assert not os.path.lexists("model.ckpt.pt")
    run = trainer("plain")
    kept = {name: value.copy() for name, value in run.optimizer.parameters.items()}
    with pytest.raises(EvaluationError, match="not finite"):
        run.step()
    assert run.done == 0
    for name, value in run.optimizer.parameters.items():
        np.testing.assert_array_equal(value, kept[name])


def test_own_loop() -> None:
    """A loop of one's own takes the steps that a run takes."""
    run = trainer("plain")
    values = [run.step()["value"] for _ in range(4)]
    assert run.save().name == "model.ckpt-4.pt"
    again = trainer("plain")
    assert [again.step(ahead=False)["value"] for _ in range(4)] == values


def test_init_model(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and statistics are those of the file, the rest begins anew; the file's model section if asked for."""
    assert train("plain", numb_steps=2) == 0
    os.rename("model.ckpt-2.pt", "start.pt")
    start = content("start.pt")
    assert train("plain", "--init-model", "start", numb_steps=0) == 0
    assert sorted(path.name for path in run_folder.glob("model.ckpt-*.pt")) == ["model.ckpt-0.pt"]
    found = content("model.ckpt-0.pt")
    assert found["optimizer"]["state"] == {}
    for name, value in start["model"].items():
        if name != "_extra_state":
            np.testing.assert_array_equal(found["model"][name], value)
    assert train("averaged", "--init-model", "start.pt", "--use-pretrain-script", numb_steps=3) == 0
    section = content("model.ckpt-3.pt")["model"]["_extra_state"]["model_params"]
    assert section["fitting_net"].get("seed") is None
    assert train("averaged", "--use-pretrain-script") == 2
    assert "--init-model or --init-frz-model: give one" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (("--init-model", "no.pt"), "no.pt: there is no such file"),
    (("--restart", "input.json"), "input.json.pt: there is no such file"),
    (("--restart", "a", "--init-model", "b"), "not allowed with"),
])  # fmt: skip
def test_no_start(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = train("plain", *options)
    except SystemExit as error:
        status = int(error.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err


def test_init_frozen_model(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A frozen model gives its weights to one of its definition; what only one of the two has is said."""
    frozen = str(GOLDEN / "files" / "trained" / "model.pth")
    data = read(frozen)
    Path("one/type_map.raw").write_text(" ".join(data.config["type_map"]))
    Path("one/type.raw").write_text("0 1 0 1 1 0 1 0")
    options = ("--init-frz-model", frozen, "--use-pretrain-script")
    changes = {"training_data": {"systems": "one"}, "validation_data": None, "numb_steps": 0, "enable_ema": False}
    assert train("plain", *options, **changes) == 0
    found = read("model.ckpt-0.pt")
    assert found.config == data.config
    for name, value in data.weights.items():
        np.testing.assert_array_equal(found.weights[name], value)
    assert "warning" not in capsys.readouterr().out
    definition = checkpoint.Checkpoint("model.ckpt.pt").definition
    definition["descriptor"]["use_tebd_bias"] = not data.config["descriptor"]["use_tebd_bias"]
    run = from_input(
        {**runs.RUNS["plain"], "model": definition, "training": {**runs.RUNS["plain"]["training"], **changes}}
    )
    lines: list[str] = []
    run.trainer(Frozen(frozen, lines.append))
    assert len(lines) == 1
    assert "embedding_net.layers.0.bias" in lines[0]
    assert train("plain", "--init-frz-model", "model.ckpt.pt", **changes) == 2
    assert "no frozen model" in capsys.readouterr().err


def test_force_load(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that a checkpoint lacks are drawn if that is allowed."""
    assert train("plain", numb_steps=0) == 0
    found = content("model.ckpt-0.pt")
    name = "model.Default.atomic_model.descriptor.g1_shape_tranform.matrix"
    lost = found["model"].pop(name)
    found["model"]["model.Default.atomic_model.out_bias"] += 1.0
    checkpoint.write(Path("less.pt"), found)
    assert train("plain", "--init-model", "less.pt", numb_steps=0) == 2
    assert "g1_shape_tranform.matrix' is missing" in capsys.readouterr().err
    assert train("plain", "--init-model", "less.pt", "--force-load", numb_steps=0) == 0
    again = content("model.ckpt-0.pt")["model"]
    np.testing.assert_array_equal(again[name], lost)  # drawn from the same seed
    for key, value in found["model"].items():
        if key != "_extra_state":
            np.testing.assert_array_equal(again[key], value)


@pytest.mark.parametrize("file", ["statistics.hdf5", "statistics"])
def test_statistics_file(file: str, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statistics are computed once; from then on those of the file are taken, also for other data."""
    assert train("plain", numb_steps=0, stat_file=file) == 0
    first = content("model.ckpt-0.pt")["model"]
    assert file not in capsys.readouterr().out
    assert train("plain", numb_steps=0) == 0
    check_same(content("model.ckpt-0.pt")["model"], first)
    for system in ("one", "two"):
        np.save(f"{system}/set.000/energy.npy", 7.0 + np.load(f"{system}/set.000/energy.npy"))
    assert train("plain", numb_steps=0, stat_file=file) == 0
    check_same(content("model.ckpt-0.pt")["model"], first)
    assert f"statistics are those of {file}" in capsys.readouterr().out


def check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Tensors that are equal to rounding: a file holds sums."""
    for name, value in expected.items():
        if name != "_extra_state":
            np.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-14)


def test_plot(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert train("plain", "--plot", "curve.svg", numb_steps=2) == 0
    assert b"rmse_e" in Path("curve.svg").read_bytes()
    assert train("plain", "--plot", "curve.txt") == 2
    assert "must end in .png or .pdf or .svg" in capsys.readouterr().err


def test_no_optimizer(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An average is a model, but no run goes on from it."""
    assert train("plain", numb_steps=4) == 0
    assert train("plain", "--restart", "model_ema.ckpt.pt") == 2
    assert "no state of an optimizer" in capsys.readouterr().err
    assert train("plain", "--init-model", "model_ema.ckpt.pt", numb_steps=0) == 0


def test_other_data(capsys: pytest.CaptureFixture[str]) -> None:
    """A restart with other data says so, since their order cannot go on."""
    assert train("plain", numb_steps=4) == 0
    data = {"systems": ["one"], "batch_size": 2}
    assert train("plain", "--restart", "model.ckpt.pt", training_data=data) == 2
    assert "the data or the environment's NUM_WORKERS have changed" in capsys.readouterr().err


def test_kept_checkpoints(run_folder: Path) -> None:
    """The newest are kept, later ones of a longer run before are removed, others and links stay."""
    for name in ("model.ckpt-99.pt", "model.ckpt-99.safetensors", "model.ckpt-x.pt", "other.ckpt-1.pt"):
        Path(name).write_text("x")
    assert train("plain", numb_steps=8, save_freq=2, max_ckpt_keep=2, enable_ema=False) == 0
    assert sorted(path.name for path in run_folder.iterdir() if "ckpt" in path.name) == [
        "model.ckpt-6.pt", "model.ckpt-6.safetensors", "model.ckpt-8.pt", "model.ckpt-8.safetensors",
        "model.ckpt-x.pt", "model.ckpt.pt", "model.ckpt.safetensors", "other.ckpt-1.pt",
    ]  # fmt: skip
    assert train("plain", numb_steps=8, save_freq=1, ckpt_keep_ratio=0.5, save_dir="d", save_ckpt="e/m") == 0
    assert sorted(path.name for path in Path("d").glob("m-*.pt")) == [f"m-{k}.pt" for k in (5, 6, 7, 8)]
    assert os.readlink("e/m.pt") == "../d/m-8.pt"
    assert sorted(path.name for path in Path("d").glob("m_ema-*.pt")) == [f"m_ema-{k}.pt" for k in (5, 6, 7, 8)]


def test_sel_without_counting() -> None:
    config = copy.deepcopy(runs.RUNS["plain"])
    config["model"]["descriptor"]["repinit"]["nsel"] = "auto:3"
    with pytest.raises(InputError, match="leave --skip-neighbor-stat out"):
        from_input(config).trainer()
    preparation = from_input(config)
    preparation.count_neighbors()
    assert isinstance(preparation.config["model"]["descriptor"]["repinit"]["nsel"], int)
    made = preparation.trainer(threads=1)
    assert made.tasks["Default"].data.config["min_nbor_dist"] > 0.3
