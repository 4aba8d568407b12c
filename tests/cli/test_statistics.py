"""`dpa2 model-devi` and `dpa2 neighbor-stat` against deepmd-kit's commands of these names (tests/golden/dp_test)."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from pathlib import Path

import dpa2
import numpy as np
import pytest
from cases import GOLDEN
from cli_runs import interrupt, run_command
from datasets import BOX, write_all
from dpa2 import outputs
from dpa2.cli import main
from dpa2.data import Frame, read_structures, write_frame
from dpa2.deviation import deviation
from dpa2.neighbors import NeighborStatistics

ANSWERS = GOLDEN / "dp_test"
FILES = GOLDEN / "files"
MODELS = [str(FILES / name) for name in ("trained/model.pt", "trained/model_ema.pt", "version1/model.pt")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data sets in the working directory."""
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that must succeed; its stdout."""
    return run_command(capsys, *args)


# -------------------------------------------------------------------------------- model-devi


@pytest.mark.parametrize("system", ["standard", "mixed"])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("plain", []),
        ("plain", ["--workers", "1"]),
        ("atomic", ["--atomic"]),
        ("real", ["--real_error", "--relative", "0.5"]),
        ("relative", ["--relative", "1", "-f", "5"]),
    ],
)
def test_writes_what_deepmd_kit_writes(
    name: str, args: list[str], system: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys, "model-devi", "-m", *MODELS, "-s", system, "-o", "devi.out", *args)
    expected = (ANSWERS / f"devi_{name}_{system}.out").read_text()
    assert Path("devi.out").read_text() == expected
    largest = max(float(line.split()[4]) for line in expected.splitlines()[2:])
    assert f"{system}: {len(expected.splitlines()) - 2} frames, largest max_devi_f {largest:.6e}" in out


def test_relative_deviation_of_the_virial(here: Path) -> None:
    """deepmd-kit 3.2.0 cannot do it: it divides arrays whose shapes do not fit."""
    (source,) = read_structures("standard")
    frame = next(iter(source))
    found = [dpa2.load(path).evaluate(frame.coords, frame.types, frame.box) for path in MODELS]
    plain, relative = deviation(found, frame), deviation(found, frame, relative_v=0.3)
    mean = np.mean([result.virial for result in found], axis=0) / 6
    np.testing.assert_allclose(relative.virial, plain.virial / (np.linalg.norm(mean) + 0.3), rtol=1e-12)
    np.testing.assert_array_equal(relative.forces, plain.forces)


@pytest.mark.filterwarnings("default::dpa2.ReadingWarning")
@pytest.mark.parametrize("missing", ["virial", "energy", "force"])
def test_errors_to_the_labels_that_are_there(missing: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label that is not there leaves its columns nan, and the others as deepmd-kit has them."""
    for path in Path("standard").glob(f"set.*/{missing}.npy"):
        path.unlink()
    args = ["model-devi", "-m", *MODELS, "-s", "standard", "-o", "devi.out", "--real_error", "--relative", "0.5"]
    assert main(args) == 0
    name = {"force": "forces"}.get(missing, missing)
    said = f"dpa2: warning: standard: some frames have no {name} to compare with: the columns of it are nan there\n"
    assert capsys.readouterr().err == said
    ours, theirs = np.loadtxt("devi.out"), np.loadtxt(ANSWERS / "devi_real_standard.out")
    nan = {"virial": slice(1, 4), "force": slice(4, 7), "energy": slice(7, 8)}[missing]
    assert np.isnan(ours[:, nan]).all()
    ours[:, nan] = theirs[:, nan]
    np.testing.assert_array_equal(ours, theirs)


def test_several_systems_and_interrupt(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["model-devi", "-m", *MODELS[:2], "-s", "mixed", "standard", "-o", "devi.out"]
    run(capsys, *args)
    whole = Path("devi.out").read_text()
    assert [line for line in whole.splitlines() if line.startswith("# ")][::2] == ["# mixed", "# standard"]
    interrupt(monkeypatch, "evaluate", call=4)
    assert main(args) == 130
    assert capsys.readouterr().err == "dpa2: interrupted\n"
    kept = Path("devi.out").read_text()
    assert whole.startswith(kept)
    assert len(kept.splitlines()) == 8  # all of the first system, the head of the second


def test_an_older_file_stays_until_the_new_one_is_whole(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["model-devi", "-m", *MODELS[:2], "-s", "standard", "-o", "devi.out"]
    Path("devi.out").write_text("old\n")
    seen: list[str] = []

    def full(blocks: outputs.Blocks, text: str) -> None:
        seen.append(Path("devi.out").read_text())
        if len(seen) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.Blocks, "add", full)
    assert main(args) != 0
    assert capsys.readouterr().err == "dpa2: error: devi.out: No space left on device\n"
    assert seen == ["old\n"] * 3
    assert Path("devi.out").read_text() == "old\n"
    assert not list(here.glob(".devi.out*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-m", MODELS[0], "-s", "standard"], "a deviation needs two models at least; one is enough with --real_error"),
        (
            ["-m", *MODELS, "-s", "bare", "--real_error"],
            "bare, frame 0: there are no labels to compare with: no energy,",
        ),
        (["-m", MODELS[0], "none.pth", "-s", "standard"], "none.pth"),
        (["-m", *MODELS, "-s", "standard", "-o", "no/devi.out"], "the folder of the output does not exist: no"),
    ],
)
def test_failures_of_model_devi(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("open", "bare")
    for name in ("energy", "force"):
        for path in Path("bare").glob(f"set.*/{name}.npy"):
            path.unlink()
    assert main(["model-devi", *args]) == 2
    assert message in capsys.readouterr().err


# -------------------------------------------------------------------------------- neighbor-stat


@pytest.mark.parametrize("system", ["open", "standard"])
def test_neighbors_are_those_of_deepmd_kit(system: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = json.loads((ANSWERS / "neighbors.json").read_text())
    out = run(capsys, "neighbor-stat", "-s", system, "-r", "2", "4")
    for rcut, part in zip((2, 4), out.split("\n\n")[1:], strict=True):
        closest, most = answers[f"{system} {rcut}"]
        assert f"rcut {rcut} angstrom" in part
        assert f"max_nbor_size: [{most}]" in part
        assert f"min_nbor_dist: {closest:f} " in out


def counted(frame: Frame, rcut: float) -> tuple[list[int], float]:
    """Neighbours per atom and the smallest distance, by trying every pair and image."""
    counts, closest = [0] * len(frame), np.inf
    shifts = list(itertools.product((-2, -1, 0, 1, 2), repeat=3)) if frame.box is not None else [(0, 0, 0)]
    for i, j in itertools.product(range(len(frame)), repeat=2):
        for shift in shifts:
            if frame.types[i] < 0 or frame.types[j] < 0 or (i == j and shift == (0, 0, 0)):
                continue
            step = np.zeros(3) if frame.box is None else np.array(shift) @ frame.box
            distance = float(np.linalg.norm(frame.coords[j] + step - frame.coords[i]))
            closest = min(closest, distance)
            counts[i] += distance <= rcut
    return counts, closest


def test_virtual_atoms_are_not_counted(here: Path) -> None:
    (source,) = read_structures("mixed")
    statistics = NeighborStatistics(["O", "H"], [3.0])
    most, closest, total = 0, np.inf, 0
    for frame in source:
        statistics.add(frame)
        counts, nearest = counted(frame, 3.0)
        most, closest, total = max(most, *counts), min(closest, nearest), total + sum(counts)
    assert statistics.most == [most]
    assert statistics.closest == pytest.approx(closest, rel=1e-14)
    assert statistics.mean[0] == pytest.approx(total / (28 - 7))
    assert statistics.frames == 4
    assert statistics.closest_where.startswith("mixed, frame ")


def test_sel_of_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(4)
    with open("dense.xyz", "w") as handle:
        write_frame(handle, rng.uniform(size=(40, 3)) @ BOX, ["O", "H"] * 20, BOX)
    out = run(capsys, "neighbor-stat", "-m", MODELS[0], "-s", "standard")
    assert said_about(out, "repinit")[:2] == ["rcut 3 angstrom, sel 12", "enough"]
    out = run(capsys, "neighbor-stat", "-m", MODELS[0], "-s", "dense.xyz")
    _, verdict, most = said_about(out, "repinit")
    assert verdict == f"NOT enough: the farthest {int(most) - 12} are dropped"


def said_about(out: str, block: str) -> list[str]:
    """What is said about a block: cutoff and sel, verdict, most neighbours."""
    (part,) = [part for part in out.split("\n\n") if part.startswith(block)]
    lines = part.splitlines()
    return [lines[0][15:], lines[3][15:].strip(), lines[1].partition("[")[2].partition("]")[0]]


def test_atoms_at_the_same_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open("same.xyz", "w") as handle:
        write_frame(handle, np.zeros((2, 3)), ["O", "H"])
    out = run(capsys, "neighbor-stat", "-s", "same.xyz", "-t", "O", "H", "-r", "3")
    assert "min_nbor_dist: 0.000000 (same.xyz, frame 0, atoms 0 and 1 are at the same place" in out
    with open("far.xyz", "w") as handle:
        write_frame(handle, np.diag([0.0, 50.0, 0.0])[:2], ["O", "H"])
    out = run(capsys, "neighbor-stat", "-s", "far.xyz", "-t", "O", "H", "-r", "3")
    assert "min_nbor_dist: inf (nobody has a neighbour)" in out
    assert "max_nbor_size: [0]\n" in out


@pytest.mark.parametrize(
    ("status", "args", "message"),
    [
        (
            2,
            ["-s", "standard", "-t", "O", "-r", "3"],
            "standard, frame 0: atom 0 is 'H', which the model does not know",
        ),
        (2, ["-s", "one.xyz", "-r", "3"], "one.xyz does not name its types at its head: give their names with -t"),
        (2, ["-s", "none"], "no such structure file or folder: none"),
    ],
)
def test_failures_of_neighbor_stat(
    status: int, args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("one.xyz").write_text("1\n\nO 0 0 0\n")
    assert main(["neighbor-stat", *args]) == status
    assert message in capsys.readouterr().err


def test_cutoffs_must_be_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["neighbor-stat", "-r", "-1"])
    assert "invalid positive length value: '-1'" in capsys.readouterr().err
    with pytest.raises(dpa2.InputError, match="cutoffs must be positive numbers, got"):
        NeighborStatistics(["O"], [0.0])
