"""Bad inputs, one row each: `dpa2 train` ends before its first step, with one line that says what is wrong, where."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import training_checks as checks
import training_runs as runs
from dpa2.cli import main
from dpa2.files.torch_zip import TorchArchive
from training_inputs import changed

pytestmark = pytest.mark.usefixtures("run_folder")

DATA, VALIDATION = "training.training_data", "training.validation_data"
REPINIT, REPFORMER = "model.descriptor.repinit", "model.descriptor.repformer"
#: of bad inputs, and of what argparse refuses
STATUS = 2

Config = dict[str, Any]
#: what is wrong with the files, the input or the options, and words of the message
Row = tuple[Callable[[Config], Config | None] | dict[str, Any], list[str], tuple[str, ...]]


def check_refused(
    config: Config, options: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, the status of bad inputs, and nothing that a step would have left."""
    if not os.path.lexists("input.json"):
        Path("input.json").write_text(json.dumps(config))
    capsys.readouterr()
    try:
        status: Any = main(["train", "input.json", "--threads", "1", *options])
    except SystemExit as error:  # argparse
        status = error.code
    said = capsys.readouterr().err.splitlines()
    assert status == STATUS, said
    usage = [line for line in said[:-1] if line.startswith(("usage:", " "))]
    assert said[:-1] == usage
    assert "error: " in said[-1]
    for word in words:
        assert word in said[-1]
    assert not list(Path().glob("model.ckpt*"))
    assert not os.path.exists("lcurve.out")


# ------------------------------------------------------------------------------------------------------ what is wrong


def array(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Config], None]:
    """Another array in a set of a system, such as "one/force"; ``change`` may work in place."""

    def make(config: Config) -> None:
        system, label = name.split("/")
        path = Path(system, "set.000", f"{label}.npy")
        values = np.load(path)
        found = change(values)
        np.save(path, values if found is None else found)

    return make


def number(name: str, frame: int, value: float, column: int = 4) -> Callable[[Config], None]:
    """A number in a frame."""

    def change(values: np.ndarray) -> None:
        values.reshape(len(values), -1)[frame, column % values[0].size] = value

    return array(name, change)


def removed(*paths: str) -> Callable[[Config], None]:
    def make(config: Config) -> None:
        for path in paths:
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    return make


def written(path: str, text: str) -> Callable[[Config], None]:
    def make(config: Config) -> None:
        Path(path).write_text(text)

    return make


def cut(path: str, size: int) -> Callable[[Config], None]:
    """Without its last bytes."""

    def make(config: Config) -> None:
        os.truncate(path, os.path.getsize(path) - size)

    return make


def cut_hdf5(config: Config) -> Config:
    from datasets import write_hdf5

    write_hdf5(Path("one.hdf5"), "/one", Path("one"))
    os.truncate("one.hdf5", os.path.getsize("one.hdf5") // 2)
    return changed(config, {f"{DATA}.systems": ["one.hdf5"], f"{DATA}.batch_size": 1})


def no_labels(config: Config) -> None:
    for system in ("one", "two"):
        for path in Path(system, "set.000").glob("*.npy"):
            if path.stem not in ("coord", "box"):
                path.unlink()


def one_set_without_forces(config: Config) -> None:
    shutil.copytree("one/set.000", "one/set.001")
    os.unlink("one/set.001/force.npy")


def no_frames(config: Config) -> None:
    for path in Path("two", "set.000").glob("*.npy"):
        np.save(path, np.load(path)[:0])


def parameters(*widths: int) -> Callable[[Config], Config]:
    """Frames of systems with so many parameters, for a model of the first number of them."""

    def make(config: Config) -> Config:
        for system, width in zip(("one", "two", "three"), widths, strict=False):
            nframes = len(np.load(f"{system}/set.000/energy.npy"))
            np.save(f"{system}/set.000/fparam.npy", np.ones((nframes, width)))
        return changed(config, {"model.fitting_net.numb_fparam": widths[0], VALIDATION: ...})

    return make


def checkpoint(after: Callable[[Config], Any] = lambda config: None) -> Callable[[Config], Any]:
    """A checkpoint start.pt of the same input, to begin with; ``after`` changes something."""

    def make(config: Config) -> Any:
        assert checks.train(config, numb_steps=0) == 0
        os.rename("model.ckpt-0.pt", "start.pt")
        for path in ("lcurve.out", "input.json", *(str(path) for path in Path().glob("model*"))):
            os.unlink(path)
        return after(config)

    return make


def cut_checkpoint(where: str) -> Callable[[Config], Any]:
    """A checkpoint that ends early: within its directory, which stands last, or within its arrays."""
    return checkpoint(cut("start.pt", 50) if where == "end" else cut("start.pt", 100_000))


def weight_lost(config: Config) -> None:
    """A checkpoint whose file is whole, and one array of which has fewer bytes than it says."""
    import zipfile

    with TorchArchive(Path("start.pt")):
        pass
    with zipfile.ZipFile("start.pt") as old, zipfile.ZipFile("other.pt", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry, data[:-8] if "/data/" in entry.filename and len(data) > 1000 else data)
    os.replace("other.pt", "start.pt")


# ------------------------------------------------------------------------------------------------------------ the rows

UNKNOWN: dict[str, Row] = {
    f"unknown key {key}": ({key: 1}, [], (f"{key} is not a key of the input",))
    for key in (
        *("nonsense", "model.nonsense", "model.descriptor.nonsense", f"{REPINIT}.nonsense", f"{REPFORMER}.nonsense"),
        *("model.fitting_net.nonsense", "learning_rate.nonsense", "loss.nonsense", "training.nonsense"),
        *(f"{DATA}.nonsense", f"{VALIDATION}.nonsense"),
    )
} | {
    "unknown key optimizer": ({"optimizer": {"type": "Adam", "nonsense": 1}}, [], ("optimizer.nonsense is not a key",)),
    "unknown key validating": ({"validating": {"nonsense": 1}}, [], ("validating.nonsense is not a key",)),
    "unknown key mixed_precision": (
        {"training.mixed_precision": {"compute_prec": "float32", "nonsense": 1}},
        [],
        ("training.mixed_precision.nonsense is not a key",),
    ),
    "unknown preset": ({"model.preset_out_bias": {"energy": [1.0]}}, [], ("model.preset_out_bias.energy", "3 types")),
}

MISSING: dict[str, Row] = {
    "no input": (lambda config: os.symlink("nowhere", "input.json"), [], ("input.json cannot be read",)),
    "no folder": ({f"{DATA}.systems": ["one", "nowhere"]}, [], (f"{DATA}.systems[1]: there is no folder nowhere",)),
    "no folder for validation": (
        {f"{VALIDATION}.systems": "nowhere"},
        [],
        (f"{VALIDATION}.systems", "no folder nowhere"),
    ),
    "no type.raw": (removed("one/type.raw"), [], ("no system in one: no folder with a file type.raw",)),
    "no set": (removed("one/set.000"), [], ("one",)),
    "no coordinates": (removed("two/set.000/coord.npy"), [], ("two/set.000/coord.npy: this file is missing",)),
    "no box": (removed("two/set.000/box.npy"), [], ("two/set.000/box.npy: this file is missing",)),
    "no statistics": (
        {"training.stat_file": "stat.hdf5", "training.stat_file_mode": "read"},
        [],
        ("stat.hdf5",),
    ),
    "no checkpoint": ({}, ["--init-model", "nowhere.pt"], ("nowhere.pt: there is no such file",)),
    "no restart": ({}, ["--restart", "nowhere"], ("nowhere.pt: there is no such file",)),
    "no frozen model": ({}, ["--init-frz-model", "nowhere.pth"], ("nowhere.pth: there is no such file",)),
    "no pretrained": ({}, ["--finetune", "nowhere.pt"], ("nowhere.pt: there is no such file",)),
    "no systems": ({f"{DATA}.systems": []}, [], (f"{DATA}.systems", "must be the path of a folder, or a list")),
    "no labels": (no_labels, [], ("no system has any label that the loss compares with: energy, force, virial",)),
    "labels of some sets": (one_set_without_forces, [], ("set.000 has force.npy and set.001 has not",)),
    "no fparam": ({"model.fitting_net.numb_fparam": 2}, [], ("one: set.000 has no fparam.npy",)),
}

SHAPES: dict[str, Row] = {
    f"shape of {label}": (
        array(f"one/{label}", lambda values: values.reshape(len(values), -1)[:, :-1]),
        [],
        (f"one/set.000/{label}.npy: {label} must have shape (", f", {width}), found (5, {width - 1})"),
    )
    for label, width in (("coord", 24), ("box", 9), ("force", 24), ("virial", 9))
} | {
    "frames of energies": (
        array("one/energy", lambda values: values[:-1]),
        [],
        ("one/set.000/energy.npy: energy must", "found (4"),
    ),
    "frames of boxes": (
        array("one/box", lambda values: values[:-1]),
        [],
        ("one/set.000/box.npy: box must have shape",),
    ),
    "fparam of two widths": (
        parameters(2, 3),
        [],
        ("two/set.000/fparam.npy: fparam must have shape (3, 2), found (3, 3)",),
    ),
    "texts": (array("one/force", lambda values: values.astype(str)), [], ("one/set.000/force.npy", "numbers")),
    "no atoms": (written("one/type.raw", ""), [], ("one/type.raw: a system without atoms cannot be trained on",)),
    "no frames": (no_frames, [], ("two: no frames in this system",)),
}

NUMBERS: dict[str, Row] = {
    f"{value} in {label}": (
        number(f"two/{label}", 1, value),
        [],
        (f"two/set.000/{label}.npy, row 1 (frame 1 of two)", f"found {value:g} where"),
    )
    for label in ("coord", "box", "energy", "force")
    for value in (float("nan"), float("inf"), float("-inf"))
} | {
    "nan in virial": (
        number("one/virial", 4, np.nan),
        [],
        ("one/set.000/virial.npy, row 4 (frame 4 of one)", "found nan"),
    ),
    "box without volume": (
        array("two/box", lambda values: values * np.repeat([1.0, 0.0], [6, 3])),
        [],
        ("two, frame 0: box is singular",),
    ),
    "box of zeros": (array("two/box", np.zeros_like), [], ("two, frame 0: box is singular",)),
}

MODELS: dict[str, Row] = {
    "element that the model lacks": (
        written("two/type_map.raw", "O H Xe\n"),
        [],
        ("two: atom", "is 'Xe', which the model does not know"),
    ),
    "type without a name": (written("two/type.raw", "0 1 0 1 1 7\n"), [], ("two", "atom 5 has type 7", "has 3 names")),
    "negative type": (
        written("two/type.raw", "0 1 0 1 1 -2\n"),
        [],
        ("two", "atom 5 has type -2; the only negative type is -1"),
    ),
    "type that is no number": (written("two/type.raw", "0 1 0 1 1 H\n"), [], ("two/type.raw",)),
    "number of atoms": (written("two/type.raw", "0 1 0 1 1\n"), [], ("two/set.000/coord.npy: coord must have shape",)),
    "sel of zero": ({f"{REPINIT}.nsel": 0}, [], (f"{REPINIT}.nsel is 0, expected an integer or a text, at least 1",)),
    "sel of repinit below that of repformer": ({f"{REPINIT}.nsel": 19}, [], ("nsel",)),
    "cutoffs the wrong way round": ({f"{REPFORMER}.rcut": 99.0}, [], ("model", "rcut")),
    "width of zero": ({"model.fitting_net.neuron": [12, 0]}, [], ("model: fitting_net.neuron[1] is 0",)),
    "activation": (
        {"model.fitting_net.activation_function": "swish"},
        [],
        ("fitting_net.activation_function", "swish"),
    ),
}

VALUES: dict[str, Row] = {
    f"{key} is {value}": ({key: value}, [], (key.partition("[")[0], words))
    for key, value, words in (
        (f"{DATA}.batch_size", 0, "is 0, expected an integer"),
        (f"{DATA}.batch_size", -1, "is -1, expected an integer"),
        (f"{DATA}.batch_size", [2, 0], "is [2, 0], expected an integer"),
        (f"{DATA}.batch_size", [2], "2 systems"),
        (f"{DATA}.batch_size", "auto:0", "batch_size"),
        (f"{VALIDATION}.numb_btch", 0, "is 0, expected an integer, at least 1"),
        ("training.numb_steps", -1, "is -1, expected an integer, at least 0"),
        ("training.numb_steps", 2.5, "is 2.5, expected an integer"),
        ("training.numb_steps", "many", "is 'many', expected an integer"),
        ("training.numb_steps", None, "is None, expected an integer"),
        ("training.disp_freq", 0, "is 0, expected an integer, at least 1"),
        ("training.gradient_max_norm", -1.0, "is -1.0, expected a number, at least 0"),
        ("training.ema_decay", 1.5, "is 1.5, expected a number"),
        ("loss.type", "energies", "is 'energies', expected one of ener, dos"),
        ("loss.loss_func", "rms", "is 'rms', expected one of mse, mae"),
        ("loss.start_pref_f", "large", "is 'large', expected a number"),
        ("learning_rate.type", "linear", "is 'linear', expected one of exp, cosine, wsd"),
        ("learning_rate.start_lr", 0.0, "is 0.0, expected a number, above 0"),
        ("learning_rate.start_lr", -0.1, "is -0.1, expected a number, above 0"),
        ("learning_rate.decay_steps", 0, "is 0, expected an integer, at least 1"),
    )
} | {
    "unknown optimizer": (
        {"optimizer": {"type": "SGD"}},
        [],
        ("optimizer.type is 'SGD', expected one of Adam, AdamW",),
    ),
    "optimizer that is not there": ({"optimizer": {"type": "LKF"}}, [], ("optimizer.type is LKF, which is not there",)),
    "beta": ({"optimizer": {"adam_beta1": 1.0}}, [], ("optimizer.adam_beta1 is 1.0, expected a number",)),
    "prefactors of zero": (
        {"loss": {f"{end}_pref_{term}": 0 for end in ("start", "limit") for term in "efv"}},
        [],
        ("loss has no term whose prefactors are not zero",),
    ),
    "neither steps nor epochs": ({"training.numb_steps": ...}, [], ("one of numb_steps and numb_epoch",)),
    "no JSON": (written("input.json", '{"model": '), [], ("input.json is not JSON: line 1",)),
}

FILES: dict[str, Row] = {
    "npy cut": (cut("two/set.000/force.npy", 8), [], ("two/set.000/force.npy: not a readable .npy file",)),
    "npy without its header": (
        lambda config: os.truncate("two/set.000/force.npy", 20),
        [],
        ("two/set.000/force.npy: not a readable .npy file",),
    ),
    "npy without a byte": (lambda config: os.truncate("one/set.000/coord.npy", 0), [], ("one/set.000/coord.npy",)),
    "hdf5 cut": (cut_hdf5, [], ("one.hdf5", "not a readable HDF5 file")),
    "checkpoint cut at its end": (cut_checkpoint("end"), ["--restart", "start.pt"], ("start.pt",)),
    "checkpoint cut": (cut_checkpoint("middle"), ["--init-model", "start.pt"], ("start.pt",)),
    "pretrained cut": (cut_checkpoint("middle"), ["--finetune", "start.pt"], ("start.pt",)),
    "checkpoint without bytes": (
        lambda config: Path("start.pt").touch(),
        ["--restart", "start.pt"],
        ("start.pt",),
    ),
    "array of a checkpoint cut": (checkpoint(weight_lost), ["--restart", "start.pt"], ("start.pt",)),
    "no frozen model but a checkpoint": (
        checkpoint(),
        ["--init-frz-model", "start.pt"],
        ("start.pt", "no frozen model"),
    ),
}


def other(**changes: Any) -> Callable[[Config], Any]:
    """A checkpoint, and then another input."""
    places = {name.replace("__", "."): value for name, value in changes.items()}
    return checkpoint(lambda config: changed(config, places))


STARTS: dict[str, Row] = {
    f"{option} of other widths": (
        other(model__fitting_net__neuron=[12, 10]),
        [option, "start.pt"],
        ("start.pt", "fitting_net"),
    )
    for option in ("--init-model", "--restart")
} | {
    "fine-tuning of other widths": (
        other(model__descriptor__repformer__g1_dim=10),
        ["--finetune", "start.pt"],
        ("start.pt", "g1_shape_tranform.matrix"),
    ),
    "restart with other types": (
        other(model__type_map=["O", "H", "Cu", "N"]),
        ["--restart", "start.pt"],
        ("start.pt", "type_embedding"),
    ),
    "restart with more layers": (
        other(model__descriptor__repformer__nlayers=3),
        ["--restart", "start.pt"],
        ("start.pt",),
    ),
    "branch that is not there": (
        checkpoint(),
        ["--finetune", "start.pt", "--model-branch", "ice"],
        ("start.pt", "'ice' is not there"),
    ),
    "branch without fine-tuning": ({}, ["--model-branch", "ice"], ("--model-branch", "--finetune")),
    "restart and init-model": (
        checkpoint(),
        ["--restart", "start.pt", "--init-model", "start.pt"],
        ("not allowed with",),
    ),
    "restart and finetune": (checkpoint(), ["--restart", "start.pt", "--finetune", "start.pt"], ("not allowed with",)),
    "unknown option": ({}, ["--nonsense"], ("--nonsense",)),
    "threads": ({}, ["--threads", "0"], ("--threads",)),
}

PLACES: dict[str, Row] = {
    "folder of the curve": ({"training.disp_file": "none/lcurve.out"}, [], ("does not exist: none",)),
    "file where a folder must be": ({"training.save_dir": "input.json"}, [], ("input.json",)),
    "output over the input": ({"training.disp_file": "input.json"}, [], ("would overwrite the input input.json",)),
}

ROWS: dict[str, Row] = UNKNOWN | MISSING | SHAPES | NUMBERS | MODELS | VALUES | FILES | STARTS | PLACES


@pytest.mark.parametrize("name", ROWS)
def test_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, options, words = ROWS[name]
    config: Config = copy.deepcopy(runs.RUNS["plain"])
    config = changed(config, wrong) if isinstance(wrong, dict) else wrong(config) or config
    check_refused(config, options, words, capsys)


def test_validation_data_are_read_when_they_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad frame of theirs is found with the first row of the curve; the step before is kept."""
    number("three/force", 3, np.nan)({})
    assert checks.train(runs.RUNS["plain"]) == STATUS
    assert "three/set.000/force.npy, row 3 (frame 3 of three), atom 1: found nan" in capsys.readouterr().err
    assert os.readlink("model.ckpt.pt") == "model.ckpt-1.pt"


@contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    """Nobody may write into these; of the superuser, to whom that means nothing, another user is made."""
    root = os.geteuid() == 0
    try:
        for folder in folders:
            folder.chmod(0o555)
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


@needs.linux
@pytest.mark.parametrize("folder", [".", "checkpoints", "links"])
def test_read_only_folders(folder: str, run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of the run, of its checkpoints, and of the links to them."""
    changes = {"checkpoints": {"training.save_dir": "checkpoints"}, "links": {"training.save_ckpt": "links/model.ckpt"}}
    config = changed(runs.RUNS["plain"], changes.get(folder, {}))
    Path("input.json").write_text(json.dumps(config))
    Path(folder).mkdir(exist_ok=True)
    run_folder.chmod(0o777)
    with read_only(run_folder / folder):
        check_refused(config, [], ("Permission denied",), capsys)
    assert not list(run_folder.rglob("*.part"))
