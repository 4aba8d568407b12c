"""Checkpoints: written as deepmd-kit's own, read back, and what is wrong with others."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import GOLDEN
from dpa2.errors import InputError, ModelFileError
from dpa2.files import torch_writer
from dpa2.files.torch_zip import TorchArchive
from dpa2.train import checkpoint
from dpa2.train.averages import MovingAverage
from dpa2.train.gradient import PREFIX, parameters
from dpa2.train.layout import layout
from dpa2.train.optimizer import Adam

FILES = GOLDEN / "files"
LINKED = ".descriptor."
UNLINKED = "tebd_transform"


def check_equal(found: Any, expected: Any, where: str = "") -> None:
    """The same objects, keys in the same order, arrays to the last bit."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            check_equal(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        assert found.tobytes() == expected.tobytes(), where
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected), where
        assert len(found) == len(expected), where
        for k, pair in enumerate(zip(found, expected, strict=True)):
            check_equal(*pair, f"{where}/{k}")
    else:
        assert found == expected, where
        assert type(found) is type(expected), where


def loaded(path: Path) -> Any:
    with TorchArchive(path) as archive:
        return checkpoint._loaded(archive.unpickle())


def restored(path: Path) -> tuple[checkpoint.Checkpoint, dict[str, Any], dict[str, str], Adam, MovingAverage]:
    """A checkpoint of deepmd-kit, and all that a run needs to go on from it."""
    found = checkpoint.Checkpoint(path)
    sections = found.definition.get("model_dict", {checkpoint.SINGLE: found.definition})
    tasks = {task: found.model(task, section) for task, section in sections.items()}
    links: dict[str, str] = {}
    first, *others = tasks
    for task in others:
        shared = [name for name in layout(tasks[task].config) if LINKED in name and UNLINKED not in name]
        links |= {checkpoint.full_name(task, name): checkpoint.full_name(first, name) for name in shared}
    values = {}
    for task, data in tasks.items():
        for name in parameters(data):
            full = checkpoint.full_name(task, PREFIX + name)
            if full not in links:
                values[full] = data.weights[name]
    optimizer, average = Adam({}, values), MovingAverage(0.5, values)
    checkpoint.restore(found, optimizer, average, checkpoint.numbering(tasks, links))
    return found, tasks, links, optimizer, average


@pytest.mark.parametrize("name", ["trained", "multitask"])
def test_deepmd(name: str, tmp_path: Path) -> None:
    """A checkpoint of deepmd-kit, taken apart and written again: state, optimizer and averages, in its order."""
    path = FILES / name / "model.pt"
    found, tasks, links, optimizer, average = restored(path)
    original = loaded(path)
    infos = original["model"]["_extra_state"]["train_infos"]
    group = original["optimizer"]["param_groups"][0]
    progress = checkpoint.Progress(infos["step"] + 1, infos["lr"], group["lr"], group["initial_lr"])
    written = tmp_path / "model.ckpt-1.pt"
    checkpoint.write(written, checkpoint.contents(tasks, found.definition, progress, optimizer, average, links))
    again = loaded(written)
    assert again.pop("dpa2") == {"version": 1, "step": 1}
    check_equal(again, original)
    of_average = checkpoint.contents(
        checkpoint.averaged(tasks, average, links), found.definition, progress, links=links
    )
    del of_average["dpa2"]
    checkpoint.write(written, of_average)
    check_equal(loaded(written), loaded(FILES / name / "model_ema.pt"))


def test_steps_done(tmp_path: Path) -> None:
    """deepmd-kit does the step that it stores again; ours goes on behind it."""
    found, tasks, links, optimizer, average = restored(FILES / "trained" / "model.pt")
    assert found.step == 0
    path = tmp_path / "model.pt"
    for step in (0, 1, 7):
        progress = checkpoint.Progress(step, 0.1, 0.2, 0.3, {"state": {"list": [1, 2.5, None, np.arange(3)]}})
        checkpoint.write(path, checkpoint.contents(tasks, found.definition, progress, optimizer, average, links))
        again = checkpoint.Checkpoint(path)
        assert again.step == step
        check_equal(again.own["state"], progress.own["state"])
    content = loaded(path)
    content["model"]["_extra_state"]["train_infos"]["step"] = 9  # deepmd-kit went on from it
    checkpoint.write(path, content)
    assert checkpoint.Checkpoint(path).step == 9
    assert checkpoint.Checkpoint(path).own == {}


def test_evaluation(tmp_path: Path) -> None:
    """What is written is a model file like deepmd-kit's."""
    found, tasks, _, optimizer, _ = restored(FILES / "trained" / "model.pt")
    path = tmp_path / "model.pt"
    checkpoint.write(
        path, checkpoint.contents(tasks, found.definition, checkpoint.Progress(1, 0.1, 0.1, 0.1), optimizer)
    )
    coords, types, box = np.random.default_rng(1).uniform(0, 5, (9, 3)), np.arange(9) % 2, 6.0 * np.eye(3)
    energies = [dpa2.load(file).evaluate(coords, types, box).energy for file in (path, FILES / "trained" / "model.pt")]
    assert energies[0] == energies[1]


def test_objects(tmp_path: Path) -> None:
    """Everything that a checkpoint can hold comes back, arrays that occur twice take their place once."""
    shared = np.arange(6.0).reshape(2, 3)
    value = {
        "ordered": OrderedDict([("b", shared), ("a", shared), ("t", shared.T)]),
        "numbers": [0, 255, 256, -1, 2**31 - 1, 2**31, -(2**63), 10**30, 1.5, float("inf"), True, False, None],
        3: (1, ("ä\ud800"[:1], ""), [], {}),
        "arrays": [
            np.array(7, dt) for dt in ("float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
        ],
        "empty": np.zeros((0, 4)),
    }
    path = tmp_path / "objects.pt"
    with path.open("wb") as handle:
        torch_writer.write(handle, value)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        storages = [info for info in archive.infolist() if "/data/" in info.filename]
        assert len(storages) == 11
        assert archive.read("archive/version") == b"3\n"
    data = path.read_bytes()
    for info in storages:  # the header, the name and what fills up to the boundary
        length = int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
        assert (info.header_offset + 30 + len(info.filename) + length) % 64 == 0
    check_equal(loaded(path), {**value, "ordered": dict(value["ordered"])})


@pytest.mark.parametrize("value", [
    {1.5: 0}, {"a": object()}, [np.array(["text"])], [np.arange(3, dtype=np.uint32)], b"bytes", {"a": {1, 2}},
])  # fmt: skip
def test_no_objects(value: Any, tmp_path: Path) -> None:
    with (tmp_path / "objects.pt").open("wb") as handle, pytest.raises(TypeError, match="a checkpoint cannot hold"):
        torch_writer.write(handle, value)


def test_deep_object(tmp_path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    with (tmp_path / "objects.pt").open("wb") as handle, pytest.raises(TypeError, match="holds itself"):
        torch_writer.write(handle, value)


def test_other_models() -> None:
    """The section must ask for the weights of the file."""
    found = checkpoint.Checkpoint(FILES / "trained" / "model.pt")
    section = found.definition
    with pytest.raises(ModelFileError, match=r"model.pt: .*has shape"):
        found.model("Default", {**section, "fitting_net": {**section["fitting_net"], "neuron": [7, 7]}})
    with pytest.raises(ModelFileError, match=r"model\.pt: .*(missing|does not use|do not use)"):
        found.model("Default", {**section, "descriptor": {**section["descriptor"], "use_tebd_bias": True}})
    with pytest.raises(ModelFileError, match=r"has no model 'ice', but Default"):
        found.model("ice", section)


@pytest.mark.parametrize(("change", "message"), [
    (lambda content: content["optimizer"]["param_groups"][0].update(params=[0, 1]), "of 2 parameters, but the model"),
    (lambda content: content["optimizer"].pop("state"), "damaged, or not of Adam"),
    (lambda content: content["optimizer"]["state"].update({0: {"step": 1}}), "damaged, or not of Adam"),
    (lambda content: content["optimizer"]["state"][0].update(exp_avg=np.zeros(2)), "another shape"),
    (lambda content: content["optimizer"]["state"][0]["exp_avg_sq"].fill(-1.0), "not finite"),
    (lambda content: content.pop("ema"), "has no moving averages"),
    (lambda content: content["ema"]["model"].popitem(), "moving average of .* missing or damaged"),
    (lambda content: content["model"].pop("_extra_state"), "no definition of a model"),
    (lambda content: content["model"]["_extra_state"]["train_infos"].update(step=-3), "number of steps is -3"),
    (lambda content: content.update(model=[1, 2]), "no model state"),
])  # fmt: skip
def test_damaged(change: Any, message: str, tmp_path: Path) -> None:
    content = loaded(FILES / "trained" / "model.pt")
    content["optimizer"]["state"] = {
        key: {name: np.array(value) for name, value in state.items()}
        for key, state in content["optimizer"]["state"].items()
    }
    change(content)
    path = tmp_path / "damaged.pt"
    checkpoint.write(path, content)
    with pytest.raises((ModelFileError, InputError), match=message) as raised:
        restored(path)
    assert str(path) in str(raised.value)


def test_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(ModelFileError, match="there is no such file"):
        checkpoint.Checkpoint(path)
    path.write_bytes((FILES / "trained" / "model.pt").read_bytes()[:-5000])
    with pytest.raises(ModelFileError, match=str(path)):
        checkpoint.Checkpoint(path)
    with pytest.raises(ModelFileError, match="no training checkpoint"):
        checkpoint.Checkpoint(FILES / "trained" / "model.pth")
