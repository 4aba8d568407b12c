"""`dpa2 select` and `dpa2 compare` with real runs, against distances and choices that NumPy computes in full."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, frames, model_data, work_in
from cli_runs import interrupt, run_command
from datasets import write_all
from dpa2 import streams
from dpa2.cli import main
from dpa2.data import read_structures, write_frame
from dpa2.files import ModelData, write_safetensors

COUNT = 30
FEW = ["H", "O", "H"]  # of the other frames, in a box of their own


def write_models() -> None:
    """Models that differ a little from ``model.safetensors``, and one of other elements."""
    data, rng = model_data(), np.random.default_rng(5)
    for name in ("second", "third"):
        weights = {key: array * rng.normal(1.0, 0.02, size=array.shape) for key, array in data.weights.items()}
        write_safetensors(f"{name}.safetensors", ModelData(data.config, weights))
    write_safetensors("other.safetensors", ModelData({**data.config, "type_map": ["O", "H", "N"]}, data.weights))


def write_md(name: str, count: int = COUNT, seed: int = 3) -> None:
    """Frames of two compositions with labels, taking turns."""
    rng = np.random.default_rng(seed)
    with open(name, "w") as handle:
        for k, coords in enumerate(frames(count, seed)):
            few = k % 3 == 2
            kept = coords[:3] if few else coords
            labels: dict[str, Any] = {"energy": rng.normal(), "virial": rng.normal(size=9)}
            arrays = {"forces": rng.normal(size=kept.shape), "atom_ener": rng.normal(size=len(kept))}
            write_frame(handle, kept, FEW if few else SYMBOLS, BOX, None, arrays, {**labels, "name": f"frame {k}"})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models, a run and a data set in the working directory."""
    work_in(tmp_path, monkeypatch)
    write_models()
    write_md("md.xyz")
    write_md("train.xyz", 7, seed=4)
    monkeypatch.setattr(streams, "TASK_FRAMES", 8)
    return tmp_path


def fail(capsys: pytest.CaptureFixture[str], *args: str, status: int = 2) -> str:
    """Run a command that must fail; its message."""
    assert main(list(args)) == status
    return capsys.readouterr().err


def vectors(name: str, pooling: str = "types") -> np.ndarray:
    """(n, 3 dim) the means over O, H, C side by side, with zeros for what a frame lacks; "mean": (n, dim)."""
    model, rows = dpa2.load("model.safetensors"), []
    for frame in read_structures(name)[0]:
        types = frame.types_in(model.type_map)
        found = model.descriptor(frame.coords, types, frame.box)
        means = [found[types == t].mean(axis=0) if (types == t).any() else np.zeros(found.shape[1]) for t in range(3)]
        rows.append(found.mean(axis=0) if pooling == "mean" else np.concatenate(means))
    return np.array(rows)


def distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one[:, None] - two[None], axis=-1)


def farthest(points: np.ndarray, first: int | None, among: Any = None, start: Any = None) -> Any:
    """Farthest points, with all distances anew at every step."""
    may = list(range(len(points))) if among is None else np.flatnonzero(among).tolist()
    chosen: list[int] = []
    found: list[float] = []
    while len(chosen) < len(may):
        left = [k for k in may if k not in chosen]
        before = [distances(points[left], points[chosen]).min(axis=1)] if chosen else []
        before += [start[left]] if start is not None else []
        away = np.min(before, axis=0) if before else None
        k = first if away is None else int(away.argmax())
        chosen.append(first if away is None else left[k])  # type: ignore[arg-type,index]
        found.append(np.inf if away is None else float(away[k]))  # type: ignore[index]
    return chosen, np.array(found)


def select(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """The document of a selection among the frames of the run."""
    return json.loads(run_command(capsys, "select", "-s", "md.xyz", "--json", *args))


@pytest.mark.parametrize("pooling", ["types", "mean"])
def test_farthest_points(pooling: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = vectors("md.xyz", pooling)
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    order, away = farthest(points, first)
    found = select(capsys, "-m", "model.safetensors", "-n", "12", "--pooling", pooling)
    assert [row["index"] for row in found["chosen"]] == order[:12]
    assert found["chosen"][0]["distance"] is None
    np.testing.assert_allclose([row["distance"] for row in found["chosen"][1:]], away[1:12], rtol=1e-10)
    np.testing.assert_allclose(found["farthest_left"], away[12], rtol=1e-10)
    assert (found["frames"], found["written"]) == (COUNT, [])
    least = float(away[8:10].mean())
    near = select(capsys, "-m", "model.safetensors", "--min-distance", str(least), "--pooling", pooling)
    assert [row["index"] for row in near["chosen"]] == order[:9]
    drawn = [select(capsys, "-m", "model.safetensors", "-n", "4", "--pooling", pooling, "--seed", "1") for _ in "ab"]
    assert drawn[0] == drawn[1]
    others = [row["index"] for row in drawn[0]["chosen"]]
    assert others == farthest(points, others[0])[0][:4]


def test_beside_a_training_set(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points, others = vectors("md.xyz"), vectors("train.xyz")
    start = distances(points, others).min(axis=1)
    order, away = farthest(points, None, start=start)
    found = select(capsys, "-m", "model.safetensors", "-n", "6", "--beside", "train.xyz")
    assert [row["index"] for row in found["chosen"]] == order[:6]
    np.testing.assert_allclose([row["distance"] for row in found["chosen"]], away[:6], rtol=1e-10)
    copies = ["select", "-s", "md.xyz", "-m", "model.safetensors", "--beside", "md.xyz", "-n", "3"]
    message = fail(capsys, *copies, status=1)
    assert "no frame was chosen" in message
    assert "are copies of these" in message


def test_active_learning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["model.safetensors", "second.safetensors", "third.safetensors"]
    models = [dpa2.load(name) for name in names]
    largest = []
    for frame in read_structures("md.xyz")[0]:
        forces = np.stack([m.evaluate(frame.coords, frame.types_in(m.type_map), frame.box).forces for m in models])
        largest.append(np.sqrt(((forces - forces.mean(axis=0)) ** 2).mean(axis=0).sum(axis=-1)).max())
    low, high = np.quantile(largest, [0.3, 0.8])
    limits = ["--f-lo", repr(float(low)), "--f-hi", repr(float(high))]
    may = (np.array(largest) >= low) & (np.array(largest) < high)
    found = select(capsys, "-m", *names, *limits)
    assert [row["index"] for row in found["chosen"]] == np.flatnonzero(may).tolist()
    np.testing.assert_allclose([row["max_devi_f"] for row in found["chosen"]], np.array(largest)[may], rtol=1e-9)
    counts = [int((np.array(largest) < low).sum()), int(may.sum()), int((np.array(largest) >= high).sum())]
    assert [found["accurate"], found["candidate"], found["failed"]] == counts
    run_command(capsys, "model-devi", "-m", *names, "-s", "md.xyz", "-o", "devi.out")
    np.testing.assert_allclose(np.loadtxt("devi.out")[:, 4], largest, rtol=1e-6)
    points = vectors("md.xyz")
    first = np.flatnonzero(may)[np.linalg.norm(points[may] - points[may].mean(axis=0), axis=1).argmin()]
    order, _ = farthest(points, int(first), may)
    thinned = select(capsys, "-m", *names, *limits, "-n", "5")
    assert [row["index"] for row in thinned["chosen"]] == order[:5]
    assert len(select(capsys, "-m", *names, *limits, "-n", "1000")["chosen"]) == may.sum()
    assert select(capsys, "-m", *names, *limits, "-n", "5", "--workers", "2") == thinned
    out = run_command(capsys, "select", "-s", "md.xyz", "-m", *names, *limits)
    assert f"candidate   {counts[1]} ({counts[1] / COUNT:.1%})" in out


def test_frames_are_written_as_they_were(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(here / "data")
    args = ["select", "-s", "md.xyz", "-m", "model.safetensors", "-n", "9", "--table", "chosen.csv"]
    Path("out.extxyz").write_text("older")
    out = run_command(capsys, *args, "-o", "out.extxyz", "--save-deepmd", "set")
    assert "chosen      9; no other is farther than " in out
    assert sorted(path.name for path in Path().glob("*.part")) == []
    with open("chosen.csv", newline="") as handle:
        table = list(csv.DictReader(handle))
    assert [int(row["rank"]) for row in table] == list(range(9))
    wanted = sorted(int(row["frame"]) for row in table)
    all_frames = list(read_structures("md.xyz")[0])
    written = list(read_structures("out.extxyz")[0])
    systems = [frame for system in read_structures("set") for frame in system]
    assert len(written) == len(systems) == 9
    for k, frame in zip(wanted, written, strict=True):
        of_file = all_frames[k]
        for name in ("coords", "box", "energy", "forces", "virial"):
            np.testing.assert_array_equal(getattr(frame, name), getattr(of_file, name), err_msg=name)
        np.testing.assert_array_equal(frame.labels["atom_ener"], of_file.labels["atom_ener"])
        assert frame.info["name"] == f"frame {k}"
        same = [each for each in systems if each.energy == of_file.energy]
        assert len(same) == 1
        np.testing.assert_array_equal(same[0].forces, of_file.forces)
        np.testing.assert_array_equal(same[0].labels["atom_ener"].ravel(), of_file.labels["atom_ener"].ravel())
    # systems of every kind: with virtual atoms, open, in two sets
    args = ["select", "-s", "data", "-m", "model.safetensors", "-n", "6"]
    run_command(capsys, *args, "--save-deepmd", "mixed", "--mixed-type")
    assert sum(len(list(system)) for system in read_structures("mixed")) == 6


def test_goes_on_where_it_was_interrupted(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["select", "-s", "md.xyz", "-m", "model.safetensors", "-o", "out.xyz"]
    with monkeypatch.context() as patch:
        interrupt(patch, "descriptor", 20)
        assert main([*args, "-n", "4"]) == 130
    assert "frames are kept in out.xyz.part" in capsys.readouterr().err
    assert "going on after " in run_command(capsys, *args, "-n", "5")
    run_command(capsys, *args[:-1], "whole.xyz", "-n", "5")
    assert Path("out.xyz").read_text() == Path("whole.xyz").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-n", "31"], "-n asks for 31 frames, but there are only 30"),
        (["-n", "0"], None),
        ([], "how many frames? give their number with -n, or how far apart they are with --min-distance"),
        (["-n", "3", "--f-lo", "0.1"], "--f-lo is about the deviation between models, which needs two models at least"),
        (["-m", "model.safetensors", "second.safetensors", "-n", "3"], "give its limits with --f-lo and --f-hi"),
        (
            ["-m", "model.safetensors", "second.safetensors", "--f-lo", "0.2", "--f-hi", "0.1"],
            "--f-lo must be below --f-hi, got 0.2 and 0.1",
        ),
        (
            ["-m", "model.safetensors", "other.safetensors", "--f-lo", "0", "--f-hi", "9"],
            "md.xyz, frame 0: atom 3 is 'C', which the model does not know; its type_map is O H N",
        ),
        (["-n", "1", "-s", "nan.xyz"], "nan.xyz, frame 1"),
        (["-n", "1", "-s", "empty.xyz"], "empty.xyz: "),
        (["-n", "3", "-s", "none.xyz"], "no such structure file or folder: none.xyz"),
        (["-n", "3", "-o", "out.npz"], "the output's name must end in .extxyz or .xyz"),
        (["-n", "3", "-o", "md.xyz"], "the output would overwrite the input md.xyz"),
        (["-n", "3", "--table", "out.txt"], "the output's name must end in .csv"),
        (["-n", "3", "--save-deepmd", "full"], "the folder to save to exists and is not empty: full"),
        (["-n", "3", "--beside", "md.xyz", "--seed", "1"], "--seed draws the first of the farthest points"),
        (["-n", "3", "--beside", "none"], "no such structure file or folder: none"),
        (["-n", "2", "--frames", "3"], "-n asks for 2 frames, but there is only 1"),
        (["-n", "1", "--frames", "99"], "md.xyz: there is no frame 99, but 30 frames"),
    ],
)
def test_wrong_input(args: list[str], message: str | None, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frame_with_nan("nan.xyz")
    Path("empty.xyz").touch()
    Path("full").mkdir()
    Path("full/file").touch()
    options = ["select", "-s", "md.xyz", *([] if "-m" in args else ["-m", "model.safetensors"]), *args]
    if message is None:
        with pytest.raises(SystemExit) as ended:
            main(options)
        assert ended.value.code == 2
        return
    assert message in fail(capsys, *options)
    assert sorted(os.listdir("full")) == ["file"]


def write_frame_with_nan(name: str) -> None:
    with open(name, "w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX)
        handle.write("1\nProperties=species:S:1:pos:R:3\nO nan 0 0\n")


def test_no_candidates(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.xyz").write_text("older")
    args = ["select", "-s", "md.xyz", "-m", "model.safetensors", "second.safetensors", "-o", "out.xyz", "--json"]
    status = main([*args, "--f-lo", "1000", "--f-hi", "2000"])
    captured = capsys.readouterr()
    assert status == 1
    assert "no candidates: 30 frames are accurate and 0 have failed; the largest deviations are " in captured.err
    found = json.loads(captured.out)
    assert (found["accurate"], found["candidate"], found["failed"], found["chosen"]) == (30, 0, 0, [])
    assert Path("out.xyz").read_text() == "older"
    assert not Path("out.xyz.part").exists()


def test_copies_are_chosen_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("twice.xyz").write_text(Path("train.xyz").read_text() * 2)
    assert main(["select", "-s", "twice.xyz", "-m", "model.safetensors", "-n", "9", "-o", "out.xyz"]) == 0
    assert "only 7 frames differ: all others are copies of these" in capsys.readouterr().err
    assert len(list(read_structures("out.xyz")[0])) == 7


def test_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = vectors("md.xyz"), vectors("train.xyz")
    away = distances(one, two)
    inner = distances(two, two)
    np.fill_diagonal(inner, np.inf)
    args = ["compare", "md.xyz", "train.xyz", "-m", "model.safetensors"]
    found = json.loads(run_command(capsys, *args, "--json", "--table", "near.csv"))
    assert [row["nearest_frame"] for row in found["nearest"]] == away.argmin(axis=1).tolist()
    np.testing.assert_allclose([row["distance"] for row in found["nearest"]], away.min(axis=1), rtol=1e-9)
    within = np.quantile(inner.min(axis=1), 0.95)
    np.testing.assert_allclose(found["within"], within, rtol=1e-9)
    assert found["covered"] == int((away.min(axis=1) <= within).sum())
    assert found["frames"] == [30, 7]
    with open("near.csv", newline="") as handle:
        table = list(csv.DictReader(handle))
    assert [int(row["nearest_frame"]) for row in table] == away.argmin(axis=1).tolist()
    out = run_command(capsys, *args, "--within", "1000")
    assert "covered     30 of 30 (100.0%): within 1000 of a frame of B\n" in out
    assert out.count(" -> train.xyz, ") == 10
    itself = json.loads(run_command(capsys, "compare", "md.xyz", "md.xyz", "-m", "model.safetensors", "--json"))
    assert itself["largest"] == 0.0
    single = run_command(capsys, "compare", "md.xyz", "train.xyz", "-m", "model.safetensors", "-f", "0")
    assert "B is a single frame" in single
    assert "no such structure file" in fail(capsys, "compare", "md.xyz", "none")
    assert "does not know" in fail(capsys, "compare", "md.xyz", "train.xyz", "-m", "other.safetensors")
