"""Fine-tuning and changed biases against deepmd-kit's: learning curves to the digit, checkpoints."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_runs as runs
import tuning_runs as tuned
from dpa2.cli import main
from dpa2.files import read
from training_checks import check_checkpoint, content, train


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the checkpoint that all runs begin with."""
    folder = tmp_path_factory.mktemp("start")
    tuned.write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NUM_WORKERS", str(runs.STREAMS))
        assert train(runs.RUNS[tuned.START]) == 0
        os.rename("model.ckpt-6.pt", tuned.CHECKPOINT)
    return folder


@pytest.fixture(autouse=True)
def folder(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that has links to these."""
    for name in ("one", "two", "three", "four", "five", tuned.CHECKPOINT):
        (tmp_path / name).symlink_to(start / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUM_WORKERS", str(runs.STREAMS))
    return tmp_path


def tune(name: str, *options: str, **changes: Any) -> int:
    config, own = tuned.TUNED[name]
    return train(config, "--finetune", tuned.CHECKPOINT, *own, *options, **changes)


def state(path: str = "model.ckpt.pt") -> dict[str, Any]:
    found: dict[str, Any] = content(path)["model"]
    return {name: value for name, value in found.items() if name != "_extra_state"}


@pytest.mark.parametrize("name", tuned.TUNED)
def test_deepmd(name: str) -> None:
    """The learning curve, and all that the last checkpoint holds."""
    assert tune(name) == 0
    expected = runs.expected(name, tuned.FILE)
    assert Path("lcurve.out").read_text() == expected["curve"]
    check_checkpoint(expected)


def test_weights_are_those_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first step only the bias of a kept head differs; of a new fitting net nothing outside it is equal."""
    assert tune("branch", numb_steps=0) == 0
    before, found = state(tuned.CHECKPOINT), state("model.ckpt-0.pt")
    differ = []
    for name, value in found.items():
        if not np.array_equal(before[name.replace(".Default.", ".right.")], value):
            differ.append(name.removeprefix("model.Default.atomic_model."))
    assert differ == ["out_bias", "out_std"]
    assert "Change output bias of ['O', 'H', 'Cu'] from [" in capsys.readouterr().out
    assert tune("set", numb_steps=0) == 0
    for name, value in state("model.ckpt-0.pt").items():
        same = np.array_equal(before[name.replace(".Default.", ".left.")], value)
        changed = ".fitting_net.filter_layers." in name or name.endswith(("out_bias", "out_std"))
        assert same != changed, name


def test_types_keep_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    """A model for fewer types in another order computes for these types what it computed before."""
    assert tune("fewer", numb_steps=0) == 0
    import dpa2

    old, new = dpa2.load(tuned.CHECKPOINT, head="left"), dpa2.load("model.ckpt-0.pt")
    coord = np.load("four/set.000/coord.npy").reshape(4, -1, 3)
    types = np.loadtxt("four/type.raw", dtype=int)
    box = np.load("four/set.000/box.npy").reshape(4, 3, 3)
    first = old.evaluate(coord, np.tile(types, (4, 1)), box).forces
    np.testing.assert_allclose(new.evaluate(coord, np.tile(1 - types, (4, 1)), box).forces, first, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "options", "change", "message"), [
    ("branch", ("--model-branch", "middle"), {}, "has no head 'middle'; it has left, right"),
    ("several", ("--model-branch", "left"), {}, "is for one task"),
    ("new", (), {"repinit": {"nsel": 30}}, "model.descriptor.repinit.nsel is 30, but 40 in start.pt"),
    ("branch", (), {"repformer": {"g2_dim": 6}}, "give the sections of the file, or --use-pretrain-script"),
])  # fmt: skip
def test_refused(
    name: str, options: tuple[str, ...], change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config, own = copy.deepcopy(tuned.TUNED[name])
    for block, values in change.items():
        config["model"]["descriptor"][block].update(values)
    assert train(config, "--finetune", tuned.CHECKPOINT, *own, *options) == 2
    assert message in capsys.readouterr().err


def test_refused_starts(capsys: pytest.CaptureFixture[str]) -> None:
    config = tuned.TUNED["branch"][0]
    assert train(config, "--model-branch", "left") == 2
    assert "--model-branch chooses a model of the file of --finetune" in capsys.readouterr().err
    assert train(config, "--finetune", "no.pt") == 2
    assert "no.pt: there is no such file" in capsys.readouterr().err
    assert tune("branch", numb_steps=0) == 0
    os.rename("model.ckpt-0.pt", "single.pt")
    assert train(config, "--finetune", "single.pt", "--model-branch", "left") == 2
    assert "single.pt has one model, so that the branch 'left' is not there" in capsys.readouterr().err
    assert train(config, "--finetune", "single.pt", numb_steps=0) == 0


def test_differences_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    config = copy.deepcopy(tuned.TUNED["branch"][0])
    config["model"]["descriptor"]["repinit"]["rcut_smth"] = 0.75
    config["model"]["fitting_net"]["activation_function"] = "relu"
    assert train(config, "--finetune", tuned.CHECKPOINT, "--model-branch", "left", numb_steps=0) == 0
    printed = capsys.readouterr().out
    assert "model.descriptor.repinit.rcut_smth is 0.75 in the input, but 0.5 in start.pt" in printed
    assert "model.fitting_net.activation_function is 'relu' in the input, but 'tanh' in start.pt" in printed


def test_change_bias(capsys: pytest.CaptureFixture[str]) -> None:
    """The command does to a file what fine-tuning does to its model, and all else in it stays."""
    assert tune("branch", numb_steps=0) == 0
    expected = read("model.ckpt-0.pt").weights
    options = ["--head", "right", "--threads", "1"]
    assert main(["change-bias", tuned.CHECKPOINT, "-s", "one", *options]) == 0
    found, before = state("start_updated.pt"), state(tuned.CHECKPOINT)
    for name in ("out_bias", "out_std"):
        full = f"model.right.atomic_model.{name}"
        np.testing.assert_allclose(found.pop(full), expected[name], rtol=0, atol=1e-10)
        del before[full]
    for name, value in before.items():
        np.testing.assert_array_equal(found[name], value)
    assert content("start_updated.pt")["optimizer"].keys() == content(tuned.CHECKPOINT)["optimizer"].keys()
    assert train(runs.RUNS[tuned.START], "--restart", "start_updated.pt", numb_steps=7) == 0
    assert tune("set", numb_steps=0) == 0
    Path("list.txt").write_text("one\n")
    assert main(["change-bias", "model.ckpt-6.pt", "-f", "list.txt", "-m", "set", "-o", "s.safetensors", *options]) == 2
    capsys.readouterr()
    command = ["change-bias", tuned.CHECKPOINT, "-f", "list.txt", "-m", "set", "-o", "s.safetensors", *options]
    assert main(command) == 0
    bias = read("model.ckpt-0.pt").weights["out_bias"]
    np.testing.assert_allclose(read("s.safetensors").weights["out_bias"], bias, rtol=0, atol=1e-10)
    assert "Change output bias of ['O', 'H', 'Cu']" in capsys.readouterr().out
    assert main(["change-bias", "s.safetensors", "-b", "1", "2", "-3.5", "-o", "t.safetensors"]) == 0
    assert read("t.safetensors").weights["out_bias"].ravel().tolist() == [1.0, 2.0, -3.5]


@pytest.mark.parametrize(("arguments", "message"), [
    (["start.pt", "-s", "one"], "choose one with --head NAME; it has left, right"),
    (["start.pt", "--head", "left", "-b", "1", "2"], "-b has 2 numbers, but the model has the types O, H, Cu"),
    (["start.pt", "--head", "left", "-b", "1", "2", "nan"], "-b must be finite numbers"),
    (["start.pt", "--head", "left", "-s", "five"], "five: atom 1 is 'N', which the model does not know"),
    (["start.pt", "--head", "left", "-s", "one", "nowhere"], "-s[1]: there is no folder nowhere"),
    (["start.pt", "--head", "left", "-o", "x.pth"], "must end in .pt or .safetensors"),
    (["x.pth"], "say with -o which file .safetensors to write"),
])  # fmt: skip
def test_change_bias_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["change-bias", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not os.path.exists("start_updated.pt")


def test_change_bias_without_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned.runs.write_system(folder / "bare", 2, 5, "bare")
    (folder / "bare" / "set.000" / "energy.npy").unlink()
    assert main(["change-bias", tuned.CHECKPOINT, "--head", "left", "-s", "bare"]) == 2
    assert "no frame of these data has the label" in capsys.readouterr().err
