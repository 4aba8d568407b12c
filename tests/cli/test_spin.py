"""Commands with spin models: `dpa2 test` as deepmd-kit prints it, `dpa2 eval` with spins, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import dpa2
import numpy as np
import pytest
from cases import GOLDEN
from cli_runs import figures_and_files, run_command
from dpa2.cli import main
from dpa2.data import read_structures
from dpa2.data.labels import magnetic_forces_of, spins_of
from spin_cases import FILES
from spin_sets import SPIN_SYSTEMS, write_spins

MODEL = str(FILES / "spin" / "model.pt")
ANSWERS = GOLDEN / "spin_tests"
pytestmark = pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data sets in the working directory."""
    write_spins(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def fail(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) != 0
    return capsys.readouterr().err


def test_prints_and_writes_what_deepmd_kit_does(capsys: pytest.CaptureFixture[str]) -> None:
    out = run_command(capsys, "test", "-m", MODEL, "-s", *SPIN_SYSTEMS, "-d", "plain")
    written = sorted(path.name for path in ANSWERS.glob("plain.*.out"))
    assert figures_and_files(out) == ((ANSWERS / "plain.txt").read_text(), written)
    assert sorted(path.name for path in Path().glob("plain.*.out")) == written
    assert {"plain.fr.out", "plain.fm.out", "plain.s.out"} < set(written)
    for name in written:
        ours, theirs = Path(name).read_text().splitlines(), (ANSWERS / name).read_text().splitlines()
        assert ours[0] == theirs[0]
        assert [len(line.split()) for line in ours] == [len(line.split()) for line in theirs]
        np.testing.assert_allclose(np.loadtxt(ours), np.loadtxt(theirs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "words"), [("atomic", [*SPIN_SYSTEMS, "-a"]), ("mixed", ["mixed"])])
def test_atomic_energies_and_mixed_type(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = run_command(capsys, "test", "-m", MODEL, "-s", *words)
    assert out == (ANSWERS / f"{name}.txt").read_text()


def test_processes_find_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    out = run_command(capsys, "test", "-m", MODEL, "-s", *SPIN_SYSTEMS, "--workers", "1")
    assert out == (ANSWERS / "plain.txt").read_text()


def test_results_as_files(capsys: pytest.CaptureFixture[str]) -> None:
    """The spins go along, so that the outputs are data sets for spin models again."""
    outputs = ["-o", "out.npz", "--save-deepmd", "saved", "--descriptor", "--atomic", "edge"]
    said = run_command(capsys, "eval", "-m", MODEL, "alloy", *outputs)
    assert "max magnetic" in said
    run_command(capsys, "eval", "-m", MODEL, "alloy", "-o", "out.extxyz")
    model = dpa2.load(MODEL, threads=1)
    with np.load("out.npz") as npz:
        found = dict(npz)
    assert found.keys() == {
        "energy", "virial", "natoms", "types", "forces", "atom_energy", "magnetic_forces", "mask_mag", "atom_virial",
        "descriptor",
    }  # fmt: skip
    assert found["mask_mag"].dtype == np.int32
    frames = list(read_structures("alloy")[0])
    saved, xyz = list(read_structures("saved")[0]), list(read_structures("out.extxyz")[0])
    assert len(frames) == len(saved) == len(xyz) == 3
    for f, frame in enumerate(frames):
        spins = spins_of(frame)
        types = frame.types_in(model.type_map)
        expected = model.evaluate(frame.coords, types, frame.box, spin=spins)
        np.testing.assert_array_equal(found["magnetic_forces"][f], expected.magnetic_forces)
        np.testing.assert_array_equal(found["forces"][f], expected.forces)
        np.testing.assert_array_equal(found["mask_mag"][f], types != 1)
        descriptor = model.descriptor(frame.coords, types, frame.box, spin=spins)
        np.testing.assert_array_equal(found["descriptor"][f], descriptor)
        for other in (saved[f], xyz[f]):
            np.testing.assert_array_equal(spins_of(other), spins)
            np.testing.assert_array_equal(magnetic_forces_of(other), expected.magnetic_forces)
            assert other.energy == expected.energy
    said = run_command(capsys, "test", "-m", MODEL, "-s", "saved")
    assert "Force spin MAE      : 0.000000e+00 eV/uB" in said


def test_the_summary_of_one_frame(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(capsys, "eval", "-m", MODEL, "alloy", "-o", "all.extxyz")
    lines = Path("all.extxyz").read_text().splitlines()
    Path("one.extxyz").write_text("\n".join(lines[:8]) + "\n")
    said = run_command(capsys, "eval", "-m", MODEL, "one.extxyz")
    assert "magnetic    max " in said
    assert "eV per unit of spin" in said


def test_descriptors(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(capsys, "descriptor", "-m", MODEL, "alloy", "-o", "out.npy")
    found = np.load("out.npy")
    model = dpa2.load(MODEL, threads=1)
    frame = next(iter(read_structures("alloy")[0]))
    expected = model.descriptor(frame.coords, frame.types_in(model.type_map), frame.box, spin=spins_of(frame))
    np.testing.assert_array_equal(found[0], expected)


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    """The spins are repeated with the box."""
    run_command(capsys, "eval", "-m", MODEL, "alloy", "-o", "all.extxyz")
    said = run_command(capsys, "bench", "-m", MODEL, "all.extxyz", "--atoms", "40", "--steps", "1")
    assert re.search(r"^forces +largest difference from one box \S+e-1[3-6] eV/angstrom$", said, re.MULTILINE)


def test_missing_spins(capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("alloy").glob("set.*/spin.npy"):
        path.unlink()
    for command in (["test", "-m", MODEL, "-s", "alloy"], ["eval", "-m", MODEL, "alloy"]):
        message = fail(capsys, *command)
        assert "alloy, frame 0: the model needs the spins of the atoms, and there are none: spin.npy" in message
    np.save("alloy/set.000/spin.npy", np.zeros((2, 6)))
    assert "alloy, frame 0: spin must be 3 x the 6 atoms, found 6 numbers" in fail(
        capsys, "test", "-m", MODEL, "-s", "alloy"
    )


def test_deviations_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(capsys, "model-devi", "-m", MODEL, MODEL, "-s", "alloy")
    assert f"{MODEL}: this is a spin model; model-devi compares energies, forces and virials" in message


def test_a_label_of_a_tensor_is_none_of_these(capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(capsys, "test", "-m", MODEL, "-s", "alloy", "--label-key", "spin")
    assert "this is a spin model, with --energy-key NAME" in message
