"""What a run refuses before it costs time, what it says of inputs, and what it leaves when it ends."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_checks as checks
import training_runs as runs
from data_cases import LMDB, TYPE_MAP
from dpa2.cli import main
from dpa2.errors import InputError
from dpa2.files.torch_zip import TorchArchive
from dpa2.train.averages import MovingAverage
from dpa2.train.dataset import batch_sizes
from dpa2.train.inputs import normalise
from dpa2.train.lmdb import LmdbSet
from dpa2.train.loading import open_section
from dpa2.train.prepare import from_input
from dpa2.train.resume import Stream
from dpa2.train.schedule import Schedule
from dpa2.train.sel import ratio_of
from dpa2.train.trainer import Trainer
from training_checks import content
from training_inputs import BASE, changed

pytestmark = pytest.mark.usefixtures("run_folder")


def plain(**changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(runs.RUNS["plain"])
    config["training"].update(changes)
    return config


def trainer(**changes: Any) -> Trainer:
    return from_input(plain(**changes)).trainer(threads=1)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of data sections that are closed, as it happens."""
    names: list[str] = []
    original = Stream.close

    def close(stream: Stream) -> None:
        names.append(stream.loader.name)
        original(stream)

    monkeypatch.setattr(Stream, "close", close)
    return names


BOTH = ["training.training_data", "training.validation_data"]


def test_keys_without_effect_are_said() -> None:
    lines: list[str] = []
    from_input(plain(tensorboard=True), lines.append)
    assert [line for line in lines if "no effect" in line] == ["warning: training.tensorboard has no effect"]
    lines.clear()
    from_input(plain(), lines.append)
    assert not any("no effect" in line for line in lines)


def test_lmdb_data_are_shuffled_only_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int | None] = []
    original = LmdbSet.pass_over

    def pass_over(data: LmdbSet, seed: int | None) -> Any:
        seeds.append(seed)
        return original(data, seed)

    monkeypatch.setattr(LmdbSet, "pass_over", pass_over)
    data = open_section({"systems": str(LMDB), "batch_size": 2}, TYPE_MAP, [])
    assert seeds == []
    assert data.epoch == sum(data.lengths)
    assert len(seeds) == 1


def test_own_loop_has_its_folders() -> None:
    run = trainer(save_dir="d/e", save_ckpt="f/model.ckpt")
    run.step()
    assert run.save() == Path("d/e/model.ckpt-1.pt")
    assert os.readlink("f/model.ckpt.pt") == "../d/e/model.ckpt-1.pt"


@pytest.mark.parametrize("changes", [{"save_dir": "file/e"}, {"save_ckpt": "file/model.ckpt"}, {"save_dir": "file"}])
def test_folders_that_cannot_be_are_found_before_the_first_step(changes: dict[str, str], closed: list[str]) -> None:
    Path("file").write_text("x")
    with pytest.raises(OSError, match="file"):
        trainer(**changes)
    assert sorted(closed) == BOTH


@pytest.mark.parametrize(("options", "changes", "message"), [
    (["-o", "none/out.json"], {}, "the folder of the output does not exist: none"),
    (["-o", "one"], {}, "the output is a folder: one"),
    ([], {"disp_file": "none/lcurve.out"}, "the folder of the output does not exist: none"),
    ([], {"disp_file": "input.json"}, "the output would overwrite the input input.json"),
    ([], {"save_ckpt": "input.json/model.ckpt"}, "input.json"),
])  # fmt: skip
def test_outputs_are_checked_before_frames_are_looked_at(
    options: list[str], changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = json.dumps(plain(**changes))
    Path("input.json").write_text(given)
    assert main(["train", "input.json", *options]) != 0
    printed = capsys.readouterr()
    assert message in printed.err
    assert "min nbor dist" not in printed.out
    assert Path("input.json").read_text() == given


def test_an_input_may_be_what_a_run_wrote() -> None:
    assert checks.train(plain(), numb_steps=0) == 0
    assert main(["train", "out.json", "--skip-neighbor-stat", "--threads", "1"]) == 0


@pytest.mark.parametrize("start", [[], ["--finetune", "start.pt"], ["--init-frz-model", "start.pth"]])
def test_force_load_without_a_checkpoint_to_load(start: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.train(plain(), numb_steps=0) == 0
    shutil.copy("model.ckpt-0.pt", "start.pt")
    frozen = checks.training.TRAINING.parent / "files" / "trained" / "model.pth"
    shutil.copy(frozen, "start.pth")
    assert checks.train(plain(), *start, "--force-load", numb_steps=0) == 2
    assert "--force-load is for weights that the checkpoint of --init-model or --restart" in capsys.readouterr().err


def test_data_are_closed_when_a_run_ends(closed: list[str]) -> None:
    run = trainer(numb_steps=2)
    assert closed == []
    run.run()
    assert sorted(closed) == BOTH

    def stop(step: Any) -> None:
        raise RuntimeError("enough")

    run = trainer(numb_steps=2)
    with pytest.raises(RuntimeError, match="enough"):
        run.run(stop)
    assert sorted(closed) == sorted(2 * BOTH)


def test_a_batch_that_is_being_read_is_not_lost() -> None:
    """A stream that is closed goes on with it, and so does a run that finds its place again."""
    whole, other = trainer(), trainer()
    values = [whole.step()["value"] for _ in range(5)]
    assert [other.step()["value"] for _ in range(3)] == values[:3]
    stream = other.tasks["Default"].training
    before = stream.state
    assert isinstance(stream, Stream)
    stream.close()
    after = stream.state
    assert before.keys() == after.keys() >= {"system", "frames"}
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    assert [other.step()["value"] for _ in range(2)] == values[3:]


def test_tied_weights_stay_tied_in_a_changed_file() -> None:
    assert checks.train(runs.RUNS["tasks"], numb_steps=1) == 0
    path = "model.ckpt-1.pt"
    assert main(["change-bias", path, "--head", "left", "-b", "1", "2", "3", "-o", "new.pt"]) == 0
    assert os.path.getsize("new.pt") <= os.path.getsize(path) + 4096  # names and padding
    name = "atomic_model.descriptor.g1_shape_tranform.matrix"
    state = content("new.pt")["model"]
    assert state[f"model.left.{name}"] is state[f"model.right.{name}"]
    untied = "atomic_model.fitting_net.filter_layers.networks.0.layers.0.matrix"
    assert state[f"model.left.{untied}"] is not state[f"model.right.{untied}"]


def test_change_bias_goes_by_content() -> None:
    assert checks.train(plain(), numb_steps=0) == 0
    os.rename("model.ckpt-0.pt", "start.ckpt")
    assert main(["change-bias", "start.ckpt", "-b", "1", "2", "3", "-o", "new.pt"]) == 0
    assert content("new.pt")["model"]["model.Default.atomic_model.out_bias"].ravel().tolist() == [1.0, 2.0, 3.0]


def test_change_bias_opens_its_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.train(runs.RUNS["tasks"], numb_steps=0) == 0
    opened: list[str] = []
    original = TorchArchive.__init__

    def counted(archive: TorchArchive, path: Path) -> None:
        opened.append(path.name)
        original(archive, path)

    monkeypatch.setattr(TorchArchive, "__init__", counted)
    assert main(["change-bias", "model.ckpt-0.pt", "--head", "left", "-s", "one", "-o", "new.pt"]) == 0
    assert opened == ["model.ckpt-0.pt"]


@pytest.mark.parametrize("mode", ["set", "change"])
def test_change_bias_without_the_label(mode: str, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where there are statistics of parameters to be had."""
    config = plain(numb_steps=0)
    config["model"]["fitting_net"]["numb_fparam"] = 2
    runs.write_system(run_folder / "bare", 2, 5, "bare")
    for name, nframes in (("one", 5), ("two", 3), ("three", 4), ("bare", 2)):
        np.save(run_folder / name / "set.000" / "fparam.npy", np.arange(2.0 * nframes).reshape(nframes, 2))
    assert checks.train(config) == 0
    (run_folder / "bare" / "set.000" / "energy.npy").unlink()
    capsys.readouterr()
    assert main(["change-bias", "model.ckpt-0.pt", "-s", "bare", "-m", mode, "-o", "new.pt"]) == 2
    printed = capsys.readouterr()
    assert "no frame of these data has the label" in printed.err
    assert printed.out == ""
    assert not os.path.exists("new.pt")
    assert main(["change-bias", "model.ckpt-0.pt", "-s", "one", "-m", mode, "-o", "new.pt"]) == 0


REPINIT, DATA = "model.descriptor.repinit", "training.training_data"


@pytest.mark.parametrize("sel", ["auto:0", "auto:0.0", "auto:", "auto:1e3", "auto:+2", "auto: 2", "auto:inf", "Auto"])
def test_ratios_of_neighbours_are_the_same_everywhere(sel: str) -> None:
    with pytest.raises(InputError, match=rf"{REPINIT}\.nsel must be a positive integer"):
        normalise(changed(BASE, {f"{REPINIT}.nsel": sel}))
    with pytest.raises(InputError, match="here must be a positive integer"):
        ratio_of(sel, "here")


@pytest.mark.parametrize("rule", [
    "auto:0", "auto: 5", "auto:1_0", "auto:+3", "max:07", "max:9999999999", "filter:", "filter", "mixed:4", "mix",
    "all",
])  # fmt: skip
def test_rules_of_batch_sizes_are_the_same_everywhere(rule: str) -> None:
    with pytest.raises(InputError) as first:
        normalise(changed(BASE, {f"{DATA}.batch_size": rule}))
    with pytest.raises(InputError) as second:
        batch_sizes(rule, [5, 6], f"{DATA}.batch_size")
    assert str(first.value) == str(second.value)


@pytest.mark.parametrize("changes", [
    {"stop_lr_ratio": 0.1}, {"warmup_steps": 3, "warmup_ratio": 0.1}, {"type": "wsd", "stop_lr": 0.0},
    {"type": "wsd", "stop_lr": None, "stop_lr_ratio": 0.0},
])  # fmt: skip
def test_rates_are_checked_the_same_everywhere(changes: dict[str, Any]) -> None:
    section = {"start_lr": 0.001, "stop_lr": 1e-6, **changes}
    with pytest.raises(InputError) as first:
        normalise(changed(BASE, {"learning_rate": section}))
    with pytest.raises(InputError) as second:
        Schedule(section, 100)
    assert str(first.value) == str(second.value)


def test_bounds_of_inputs_hold_for_public_classes() -> None:
    with pytest.raises(InputError, match=r"training\.ema_decay is 1\.0, expected a number, at least 0 and below 1"):
        MovingAverage(1.0, {"a": np.zeros(2)})
    with pytest.raises(InputError, match=r"learning_rate\.decay_rate must be at most 1"):
        Schedule({"start_lr": 0.001, "stop_lr": 1e-6, "decay_rate": 1.5}, 100)
    with pytest.raises(InputError, match=r"learning_rate\.warmup_start_factor must be"):
        Schedule({"start_lr": 0.001, "stop_lr": 1e-6, "warmup_start_factor": -0.5}, 100)
