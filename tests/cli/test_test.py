"""`dpa2 test` against what deepmd-kit's `dp --pt test` printed and wrote (tests/golden/dp_test)."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import dpa2
import needs
import numpy as np
import pytest
from cases import GOLDEN
from cli_runs import interrupt, run_command
from data_cases import LMDB, lmdb_frames
from datasets import SYSTEMS, write_all, write_raw
from dpa2 import cli
from dpa2.accuracy import Accuracy
from dpa2.data import read_structures
from dpa2.errors import InputError
from dpa2.streams import evaluate_frames

ANSWERS = GOLDEN / "dp_test"
MODEL = str(GOLDEN / "files" / "trained" / "model.pt")
ONE_RUN = re.compile(r"-?\d\.\d{18}e[+-]\d\d")


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the data sets."""
    folder = tmp_path_factory.mktemp("systems")
    write_all(folder)
    return folder


@pytest.fixture
def here(systems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data sets by their own names in the working directory, and a list of them."""
    for path in systems.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("systems.txt").write_text("mixed\nopen\n\nstandard\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run ``dpa2 test`` that must succeed; its stdout."""
    return run_command(capsys, "test", "-m", MODEL, *args)


def fail(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """Run ``dpa2 test`` that must fail; its status and message."""
    status = cli.main(["test", *args])
    captured = capsys.readouterr()
    assert captured.err.startswith("dpa2: error: ")
    return status, captured.err


def answer(name: str) -> str:
    return (ANSWERS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("all", ["-f", "systems.txt"]),
        ("all", ["-s", *SYSTEMS]),
        ("two_frames", ["-f", "systems.txt", "-n", "2"]),
        ("atomic", ["-s", "standard", "-a"]),
        ("shuffled", ["-f", "systems.txt", "-n", "2", "--shuffle-test", "-r", "7"]),
        ("hdf5", ["-s", "standard.hdf5#/water/standard"]),
        ("hdf5", ["-s", "standard.hdf5"]),
    ],
)
def test_prints_what_deepmd_kit_prints(
    name: str, args: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *args) == answer(f"{name}.txt")


def test_processes_find_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "-f", "systems.txt", "--workers", "2") == answer("all.txt")


def test_folder_is_searched_for_systems(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("standard.hdf5").unlink()
    out = run(capsys, "-s", ".")
    assert out.splitlines()[1] == "# testing system : mixed"
    assert out == answer("all.txt")


def test_raw_text_files_give_the_figures_of_the_arrays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(Path("text"), Path("standard"))
    out = run(capsys, "-s", "text", "-a")
    assert out.replace("system : text", "system : standard") == answer("atomic.txt")


def test_detail_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "-f", "systems.txt", "-d", "detail")
    names = sorted(path.name for path in ANSWERS.glob("detail.*"))
    assert len(names) == 6
    assert sorted(path.name for path in Path().glob("detail.*")) == names
    for name in names:
        ours, theirs = Path(name).read_text(encoding="utf-8").splitlines(), answer(name).splitlines()
        assert ours[0] == theirs[0]
        assert [ONE_RUN.sub("#", line) for line in ours] == [ONE_RUN.sub("#", line) for line in theirs]
        np.testing.assert_allclose(np.loadtxt(ours), np.loadtxt(theirs), rtol=0, atol=1e-12)


def test_prefix_of_detail_files_is_taken_as_deepmd_kit_takes_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "-s", "open", "-d", "some.where")
    assert sorted(path.name for path in Path().glob("some.*")) == [
        f"some.{name}.out" for name in ("e", "e_peratom", "f", "v", "v_peratom")
    ]


def test_parity_plot(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = needs.package("matplotlib.image")
    run(capsys, "-s", "standard", "--plot", "parity.png")
    picture = image.imread("parity.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 2 * picture.shape[0]  # energy, force, virial side by side
    assert 0.01 < (picture[:, :, :3].min(axis=2) < 0.9).mean() < 0.2


def test_plot_without_matplotlib(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    status, message = fail(capsys, "-m", MODEL, "-s", "standard", "--plot", "parity.png")
    assert status == 2
    assert "pip install 'dpa2[plot]'" in message


@pytest.mark.parametrize(
    ("status", "args", "message"),
    [
        (2, ["-s", "nowhere"], "no such structure file or folder: nowhere"),
        (2, ["-f", "nowhere.txt"], "nowhere.txt"),
        (2, ["-f", "empty.txt"], "empty.txt: no paths in this list"),
        (2, ["-s", "standard.hdf5#/ice"], "standard.hdf5#/ice: there is no group '/ice' in this file"),
        (2, ["-s", "open", "-d", "no/detail"], "the folder of the detail files does not exist: no"),
        (2, ["-s", "open", "--plot", "parity.txt"], "must end in .png or .pdf or .svg"),
        (2, ["-s", "open", "-a"], "open, frame 0: there are no energies of atoms to compare with (atom_ener.npy)"),
        (2, ["-s", "nothing"], "nothing: no frames in this system: its arrays have no rows"),
        (2, ["-s", "far"], "far, frame 1: coords of atom 2: y = nan is not finite"),
        (2, ["-s", "xenon"], "xenon, frame 0: atom 1 is 'Xe', which the model does not know"),
    ],
)
def test_failures(status: int, args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.txt").write_text("\n")
    for name in ("nothing", "far", "xenon"):
        shutil.copytree("open", name)
        shutil.rmtree(f"{name}/set.001")
    coords = np.load("far/set.000/coord.npy")
    coords[1, 7] = np.nan
    np.save("far/set.000/coord.npy", coords)
    Path("xenon/type_map.raw").write_text("Xe H")
    for path in Path("nothing/set.000").iterdir():
        np.save(path, np.load(path)[:0])
    found, text = fail(capsys, "-m", MODEL, *args)
    assert message in text
    assert found == status


def test_interrupt_leaves_finished_systems(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "evaluate", call=2)
    assert cli.main(["test", "-m", MODEL, "-f", "systems.txt", "-d", "detail"]) == 130
    captured = capsys.readouterr()
    assert captured.err == "dpa2: interrupted\n"
    first = answer("all.txt").split("# ---------------output")[1]
    assert first in captured.out
    assert len(Path("detail.e.out").read_text().splitlines()) == 5


def test_errors_of_parts_add_up(systems: Path) -> None:
    (source,) = read_structures(systems / "standard")
    model = dpa2.load(MODEL)
    whole, first, second = Accuracy(), Accuracy(), Accuracy()
    for k, (frame, result) in enumerate(evaluate_frames(model, source)):
        whole.add(frame, result)
        (first if k < 2 else second).add(frame, result)
    first.merge(second)
    assert (first.frames, whole.frames) == (5, 5)
    assert first.lines() == whole.lines()
    assert len(whole.lines()) == 14


def test_frames_without_a_label_are_not_counted() -> None:
    accuracy = Accuracy()
    assert accuracy.lines() == []
    frame = dpa2.data.Frame(np.zeros((2, 3)), np.zeros(2, dtype=np.int32), None)
    result = dpa2.Result(1.0, np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(2))
    accuracy.add(frame, result)
    frame.energy = 3.0
    accuracy.add(frame, result)
    assert accuracy.frames == 2
    assert accuracy.lines()[:2] == ["Energy MAE         : 2.000000e+00 eV", "Energy RMSE        : 2.000000e+00 eV"]


@pytest.mark.parametrize("kind", ["deepmd", "xyz", "dump"])
@pytest.mark.parametrize(
    "command",
    [
        ["eval", "-m", MODEL, "{}"],
        ["eval", "-m", MODEL, "{}", "-o", "out.extxyz"],
        ["eval", "-m", MODEL, "{}", "--save-deepmd", "saved"],
        ["descriptor", "-m", MODEL, "{}", "-o", "out.npy"],
        ["test", "-m", MODEL, "-s", "{}"],
        ["model-devi", "-m", MODEL, MODEL, "-s", "{}"],
        ["neighbor-stat", "-m", MODEL, "-s", "{}"],
    ],
)
def test_no_frames_are_an_error_of_every_command(
    command: list[str], kind: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("open", "deepmd", ignore=shutil.ignore_patterns("set.001"))
    for path in Path("deepmd/set.000").iterdir():
        np.save(path, np.load(path)[:0])
    Path("none.xyz").write_text("\n\n")
    Path("none.dump").write_text("ITEM: UNITS\nmetal\n")
    name = {"deepmd": "deepmd", "xyz": "none.xyz", "dump": "none.dump"}[kind]
    assert cli.main([word.format(name) for word in command]) == 2
    assert f"dpa2: error: {name}: no frames in this" in capsys.readouterr().err
    assert not Path("out.extxyz").exists()
    assert not Path("out.npy").exists()
    assert not Path("saved").exists()


# --------------------------------------------------------------------------------------------- LMDB data sets


def test_lmdb_averages_are_those_of_deepmd_kit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of energies and forces; deepmd-kit leaves out all virials of a number of atoms where one frame lacks it."""
    shutil.copytree(LMDB, LMDB.name)
    ours = run(capsys, "-s", LMDB.name).splitlines()
    theirs = answer("lmdb.txt").splitlines()
    at = [lines.index("# ----------weighted average of errors----------- ") for lines in (ours, theirs)]
    assert ours[at[0] : at[0] + 8] == theirs[at[1] : at[1] + 8]
    assert ours[1:3] == ["# testing system : frames.lmdb", "# number of test data : 21 "]
    assert run(capsys, "-s", LMDB.name, "--workers", "2").splitlines() == ours


def test_lmdb_is_evaluated_as_other_files_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(LMDB, LMDB.name)
    run_command(capsys, "eval", "-m", MODEL, LMDB.name, "-o", "out.npz")
    model, frames = dpa2.load(MODEL), lmdb_frames()
    with np.load("out.npz") as found:
        assert found["natoms"].tolist() == [len(frame["atom_types"]) for frame in frames]
        forces = np.split(found["forces"], np.cumsum(found["natoms"])[:-1])
        for k, frame in enumerate(frames):
            types = np.array([1, 0])[frame["atom_types"]]  # the model has O first, the file H
            wanted = model.evaluate(frame["coords"], types, frame["cells"])
            assert found["energy"][k] == pytest.approx(wanted.energy, abs=1e-10)
            np.testing.assert_allclose(forces[k], wanted.forces, rtol=0, atol=1e-10)


def test_labels_of_lmdb_frames() -> None:
    (source,) = read_structures(LMDB)
    assert source.count() == 21
    for frame, written in zip(source, lmdb_frames(), strict=True):
        assert frame.names == ("H", "O")
        assert frame.pbc == (True, True, True)
        assert frame.energy == float(written["energies"])
        assert frame.forces is not None
        np.testing.assert_array_equal(frame.forces, written["forces"])
        assert (frame.virial is None) == ("virials" not in written)
        if frame.virial is not None:
            np.testing.assert_array_equal(frame.virial, written["virials"])
    (other,) = read_structures(LMDB, forces_key="coord")
    frame = next(iter(other))
    np.testing.assert_array_equal(frame.forces, frame.coords)
    with pytest.raises(InputError, match=r"frames\.lmdb: no frame has an array 'forces', which --forces-key names"):
        next(iter(read_structures(LMDB, forces_key="forces")[0]))
    with pytest.raises(InputError, match="leave --stress-key out"):
        read_structures(LMDB, stress_key="stress")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"force": np.zeros((2, 3))}, r"few.lmdb, frame 7: force must be 9 numbers, found shape \(2, 3\)"),
        ({"energy": np.zeros(2)}, r"energy must be 1 number, found shape \(2,\)"),
        ({"box": np.ones(6)}, r"box must be 9 numbers, found shape \(6,\)"),
        ({"atype": np.array([0, 1, 2])}, "types must be integers from -1 to 1, those of H O"),
        ({"atype": np.array([0.0, 1.0, 1.0])}, "types must be integers from -1 to 1, those of H O"),
        ({"aparam": np.zeros(4)}, r"aparam must be a multiple of 3 numbers \(atoms\), found 4"),
    ],
)
def test_bad_lmdb_frames(changes: dict[str, np.ndarray], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = {"atype": np.array([1, 0, 0]), "coord": np.ones((3, 3)), "energy": np.float64(1.0)} | changes
    source = SimpleNamespace(type_map=("H", "O"), frame=lambda number: frame, where=lambda k: f"few.lmdb, frame {k}")
    with pytest.raises(InputError, match=message):
        read_structures(LMDB)[0]._frame(source, 7)


def test_lmdb_frames_may_be_open_and_say_which_labels_they_have() -> None:
    frame = {
        "atype": np.array([1, -1]), "coord": np.ones(6), "box": np.zeros(9), "energy": np.float64(1.0),
        "find_energy": np.asarray(0), "virial": np.arange(9.0), "find_virial": np.asarray(1.0),
        "atom_ener": np.ones((2, 1)), "aparam": np.arange(4.0), "fparam": np.ones(2), "dipole": np.ones(3),
    }  # fmt: skip
    source = SimpleNamespace(type_map=None, frame=lambda number: frame, where=lambda k: "")
    found = read_structures(LMDB, types=("O", "H"))[0]._frame(source, 0)
    assert found.names == ("O", "H")
    assert found.types.tolist() == [1, -1]
    assert found.coords.shape == (2, 3)
    assert found.box is None
    assert found.pbc == (False, False, False)
    assert found.energy is None
    assert found.virial is not None
    assert found.virial.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert found.aparam is not None
    assert found.aparam.tolist() == [[0, 1], [2, 3]]
    assert sorted(found.labels) == ["atom_ener", "dipole"]
    assert found.labels["atom_ener"].shape == (2,)
