"""`dpa2 md` against ASE's integrators called by hand, and what a run leaves whenever it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cli_runs import interrupt, ordinary_signals, run_command
from dpa2.cli import main
from dpa2.data import read_structures
from simulated import MOLECULE, run_json, write_crystal, write_molecule

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
from ase import units
from ase.md.verlet import VelocityVerlet
from dpa2.ase import DPA2Calculator
from dpa2.simulation.dynamics import Settings, degrees_of_freedom, start_velocities, temperature_of
from dpa2.simulation.run import COLUMNS, read_log, read_restart
from dpa2.simulation.summary import drift

pytestmark = pytest.mark.filterwarnings("default::dpa2.NeighborOverflowWarning")

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
NVE = ["--ensemble", "nve", "--temperature", "300", "--timestep", "0.5", "--seed", "7", "--precision", "float64"]
NVT = ["--ensemble", "nvt", *NVE[2:]]
NPT = ["--ensemble", "npt", *NVE[2:]]
EVERY = ["--interval", "6", "--log-interval", "4"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_molecule(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def frames(path: str) -> Any:
    return ase.io.read(path, ":")


def assert_same_run(one: str, other: str) -> None:
    """The trajectories and logs of two runs, byte by byte, and the numbers of their restart files."""
    for suffix in (".extxyz", ".log"):
        assert Path(one + suffix).read_bytes() == Path(other + suffix).read_bytes()
    first, second = (read_restart(f"{name}.restart.npz") for name in (one, other))
    assert first.keys() == second.keys()
    for name in first.keys() - {"said"}:
        np.testing.assert_array_equal(first[name], second[name])


# -------------------------------------------------------------------------------- the numbers


def test_nve_is_that_of_ase_and_conserves_energy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(capsys, "md", "molecule.xyz", *NVE, "--steps", "200", "--interval", "50")
    atoms = ase.io.read("molecule.xyz")
    atoms.calc = DPA2Calculator(precision="float64")
    start_velocities(atoms, 300.0, np.random.default_rng(7))
    VelocityVerlet(atoms, 0.5 * units.fs).run(200)
    last = frames("md.extxyz")[-1]
    assert len(frames("md.extxyz")) == 5
    np.testing.assert_allclose(last.positions, atoms.positions, atol=1e-10)
    np.testing.assert_allclose(last.get_momenta(), atoms.get_momenta(), atol=1e-10)
    columns = read_log("md.log")
    assert columns["step"].tolist() == list(range(0, 201, 10))
    np.testing.assert_allclose(columns["E_pot/eV"] + columns["E_kin/eV"], columns["conserved/eV"], atol=1e-8)
    # of the order of the square of the step: vibrations of 9 fs, of which each turns a few meV
    assert np.ptp(columns["conserved/eV"]) < 1e-3 < np.ptp(columns["E_pot/eV"])
    assert columns["T/K"][0] == pytest.approx(300.0)
    assert np.isnan(columns["P/GPa"]).all()
    assert document["steps"] == 200
    assert document["time_ps"] == pytest.approx(0.1)
    assert document["temperature_K"]["mean"] == pytest.approx(columns["T/K"].mean())
    assert document["volume"]["mean"] is None
    assert abs(document["drift_eV_per_atom_ps"]) < 1e-3


def test_error_of_energy_falls_with_the_square_of_the_step(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spread = []
    for step, steps in (("0.4", "50"), ("0.2", "100")):
        args = ["--ensemble", "nve", "--temperature", "300", "--timestep", step, "--seed", "3", "--overwrite"]
        run_command(capsys, "md", "molecule.xyz", *args, "--steps", steps, "--precision", "float64")
        spread.append(np.ptp(read_log("md.log")["conserved/eV"]))
    assert 2.5 < spread[0] / spread[1] < 6.0


def test_first_velocities() -> None:
    atoms = ase.Atoms("OH2" * 40, positions=np.random.default_rng(0).uniform(0, 20, (120, 3)))
    start_velocities(atoms, 250.0, np.random.default_rng(1))
    assert degrees_of_freedom(atoms) == 357
    assert temperature_of(atoms) == pytest.approx(250.0, rel=1e-12)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0.0, atol=1e-12)
    kinetic = (atoms.get_momenta() ** 2).sum(axis=1) / (2 * atoms.get_masses())
    oxygen = kinetic[atoms.numbers == 8].mean() / (1.5 * units.kB)
    assert oxygen == pytest.approx(250.0, rel=0.5)  # light and heavy atoms alike
    alone = ase.Atoms("O")
    start_velocities(alone, 250.0, np.random.default_rng(1))
    assert temperature_of(alone) == pytest.approx(250.0)


def test_drift() -> None:
    time_ps = np.linspace(0.0, 2.0, 11)
    assert drift(time_ps, -3e4 + 0.06 * time_ps, 3) == pytest.approx(0.02)
    assert np.isnan(drift(time_ps[:1], time_ps[:1], 3))
    assert np.isnan(drift(time_ps, np.full(11, np.nan), 3))


@pytest.mark.parametrize("thermostat", needs.mostly_slow(["bussi", "langevin", "nose-hoover"], {"langevin"}))
def test_thermostats_reach_their_temperature(thermostat: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first velocities are at twice the temperature, less what goes into the potential."""
    args = ["--ensemble", "nvt", "--temperature", "600", "--timestep", "0.5", "--tdamp", "20", "--seed", "2"]
    options = ["--thermostat", thermostat, "--steps", "2000", "--log-interval", "5"]
    document = run_json(capsys, "md", "molecule.xyz", *args, *options)
    # 6 degrees of freedom: of the mean over some 100 times of relaxation
    assert document["temperature_K"]["mean"] == pytest.approx(600.0, rel=0.25)
    assert Settings(**document["settings"]).thermostat == thermostat
    momentum = frames("md.extxyz")[-1].get_momenta().sum(axis=0)
    np.testing.assert_allclose(momentum, 0.0, atol=1e-6)


# -------------------------------------------------------------------------------- runs that go on


@pytest.mark.parametrize(
    "how",
    [
        NVE,
        [*NVT, "--thermostat", "bussi"],
        [*NVT, "--thermostat", "langevin"],
        [*NVT, "--thermostat", "nose-hoover"],
    ],
    ids=lambda how: how[-1] if "nvt" in how else "nve",
)
def test_a_run_in_two_parts_is_one(how: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = [*how, *EVERY]
    run_command(capsys, "md", "molecule.xyz", *how, "--steps", "30", "-o", "whole.extxyz")
    run_command(capsys, "md", "molecule.xyz", *how, "--steps", "15", "-o", "parts.extxyz")
    assert len(frames("parts.extxyz")) == 4  # 0, 6, 12 and the last one
    out = run_command(capsys, "md", "molecule.xyz", *how, "--steps", "30", "-o", "parts.extxyz", "--restart")
    assert "going on    after step 15" in out
    assert_same_run("whole", "parts")
    out = run_command(capsys, "md", "molecule.xyz", *how, "--steps", "30", "-o", "parts.extxyz", "--restart")
    assert "is at step 30 already" in out
    assert_same_run("whole", "parts")


@pytest.mark.slow
@pytest.mark.parametrize("barostat", ["mtk", "berendsen"])
def test_npt_in_two_parts_is_one(barostat: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = [write_crystal(here, 4.2, 6.8), *NPT, "--barostat", barostat, *EVERY, "--pdamp", "200"]
    for name, steps in (("whole", "20"), ("parts", "9"), ("parts", "20")):
        restart = ["--restart"] if Path(f"{name}.log").exists() else []
        run_command(capsys, "md", *how, "--steps", steps, "-o", f"{name}.extxyz", *restart)
    assert_same_run("whole", "parts")
    columns = read_log("whole.log")
    assert np.ptp(columns["volume/A^3"]) > 0.0
    assert np.isfinite(columns["P/GPa"]).all()
    assert np.isfinite(columns["conserved/eV"]).all() == (barostat == "mtk")


def test_traj_goes_on_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, steps in (("whole", "20"), ("parts", "9"), ("parts", "20")):
        restart = ["--restart"] if Path(f"{name}.log").exists() else []
        run_command(capsys, "md", "molecule.xyz", *NVE, *EVERY, "--steps", steps, "-o", f"{name}.traj", *restart)
    whole, parts = frames("whole.traj"), frames("parts.traj")
    assert len(whole) == len(parts) == 5
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.get_forces(), other.get_forces())


class Killed(BaseException):
    """Nothing handles this."""


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, Killed])
def test_a_run_that_ended_in_a_step_goes_on(
    error: type[BaseException],
    suffix: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = ["molecule.xyz", *NVE, *EVERY, "--steps", "30"]
    run_command(capsys, "md", *how, "-o", f"whole{suffix}")
    with monkeypatch.context() as patch:
        interrupt(patch, "evaluate", 18)  # the 17th step
        if error is KeyboardInterrupt:
            assert main(["md", *how, "-o", f"parts{suffix}"]) == 130
            assert "the run up to step 16" in capsys.readouterr().err
            assert len(frames(f"parts{suffix}")) == 4
            assert read_log("parts.log")["step"].tolist() == [0, 4, 8, 12, 16]
        else:
            patch.setattr("builtins.KeyboardInterrupt", Killed)
            original = dpa2.Model.evaluate

            def killed(model: dpa2.Model, *args: Any, **keywords: Any) -> Any:
                try:
                    return original(model, *args, **keywords)
                except KeyboardInterrupt:
                    raise Killed from None

            patch.setattr(dpa2.Model, "evaluate", killed)
            with pytest.raises(Killed):
                main(["md", *how, "-o", f"parts{suffix}"])
            with open(f"parts{suffix}", "ab") as file:
                file.write(b"3\nhalf a fra")
    assert main(["md", *how, "-o", f"parts{suffix}"]) == 2
    assert "go on with --restart, begin anew with --overwrite" in capsys.readouterr().err
    run_command(capsys, "md", *how, "-o", f"parts{suffix}", "--restart")
    assert Path("whole.log").read_bytes() == Path("parts.log").read_bytes()
    for one, other in zip(frames(f"whole{suffix}"), frames(f"parts{suffix}"), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)


@needs.linux
@pytest.mark.parametrize("number", needs.mostly_slow(SIGNALS, {signal.SIGTERM}), ids=lambda number: number.name)
def test_signals(number: signal.Signals, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["molecule.xyz", *NVE, *EVERY, "-o", "parts.extxyz"]
    command = [sys.executable, "-m", "dpa2", "md", *how, "--steps", "1000000"]
    pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, preexec_fn=ordinary_signals, **pipes) as run:
        while run.poll() is None and not (os.path.exists("parts.log") and len(read_log("parts.log")["step"]) > 10):
            time.sleep(0.05)
        run.send_signal(number)
        assert run.stderr is not None
        said = run.stderr.read().decode()
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert run.returncode == expected[number], said
    step = json.loads(str(read_restart("parts.restart.npz")["said"]))["step"]
    assert step > 0
    found = list(read_structures("parts.extxyz")[0]) if number != signal.SIGKILL else []
    if found:
        assert len(found) == step // 6 + 1 + bool(step % 6)
        assert read_log("parts.log")["step"][-1] == step
        assert f"the run up to step {step}" in said
    steps = str(step + 15)
    run_command(capsys, "md", *how, "--steps", steps, "--restart")
    run_command(capsys, "md", *how[:-1], "whole.extxyz", "--steps", steps)
    assert_same_run("whole", "parts")


def test_only_the_same_run_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(capsys, "md", "molecule.xyz", *NVE, "--steps", "4")
    Path("other.xyz").write_text(MOLECULE.replace("H 0.9572", "O 1.2"))
    length = ["--restart", "--steps", "8"]
    wrong = {
        "had another timestep (0.5, and now 1.0)": ["molecule.xyz", *NVE, *length, "--timestep", "1"],
        "had another ensemble (nve, and now nvt)": ["molecule.xyz", *NVT, *length],
        "had another precision": ["molecule.xyz", *NVE, *length, "--precision", "float32"],
        "had another interval (100, and now 5)": ["molecule.xyz", *NVE, *length, "--interval", "5"],
        "is of other atoms": ["other.xyz", *NVE, *length],
        "is at step 4 already; give more": ["molecule.xyz", *NVE, "--restart", "--steps", "2"],
        "there is no run to go on with": ["molecule.xyz", *NVE, *length, "-o", "new.extxyz"],
    }
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    for message, args in wrong.items():
        assert main(["md", *args]) == 2
        assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
    Path("md.log").write_text("# short\n")
    assert main(["md", "molecule.xyz", *NVE, *length]) == 2
    assert "it was changed since" in capsys.readouterr().err
    Path("md.restart.npz").write_bytes(before["md.restart.npz"][:200])
    assert main(["md", "molecule.xyz", *NVE, *length]) == 2
    assert "no restart file of dpa2 md, or it is damaged" in capsys.readouterr().err


# -------------------------------------------------------------------------------- what goes wrong


def test_a_lost_atom_ends_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--ensemble", "nve", "--temperature", "40000", "--timestep", "1", "--seed", "1", "--steps", "500"]
    assert main(["md", "molecule.xyz", *how, *EVERY]) == 1
    said = capsys.readouterr().err
    assert "is lost: no other is within the cutoff" in said
    assert "Traceback" not in said
    log, saved = read_log("md.log"), read_restart("md.restart.npz")
    assert np.isfinite(log["T/K"]).all()
    assert np.isfinite(saved["positions"]).all()
    assert len(frames("md.extxyz")) == json.loads(str(saved["said"]))["step"] // 6 + 1


@pytest.mark.filterwarnings("default::dpa2.ClosePairWarning")
@pytest.mark.parametrize("step", ["30", "1e7"])
def test_an_absurd_step_ends_the_run(step: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--ensemble", "nve", "--temperature", "300", "--timestep", step, "--seed", "1", "--steps", "500"]
    assert main(["md", "molecule.xyz", *how]) == 1
    said = capsys.readouterr().err
    assert "the run went astray in step" in said
    assert "a shorter --timestep" in said
    assert len(frames("md.extxyz")) >= 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["molecule.xyz", *NPT, "--steps", "2"], "npt needs a cell with a volume"),
        (["molecule.xyz", *NVT[:2], *NVT[4:], "--steps", "2"], "--ensemble nvt needs a --temperature"),
        (["molecule.xyz", *NVE, "--steps", "2", "--thermostat", "bussi"], "--thermostat is for --ensemble nvt"),
        (["molecule.xyz", *NVT, "--steps", "2", "--pressure", "1"], "--pressure is for --ensemble npt"),
        (["molecule.xyz", *NVE, "--steps", "2", "--tdamp", "5"], "--tdamp is for a thermostat"),
        (["molecule.xyz", *NVE, "--time", "1e-5"], "less than a step"),
        (["molecule.xyz", *NVE, "--steps", "2", "--velocities", "file"], "the file has no momenta"),
        (["molecule.xyz", *NVE, "--steps", "2", "-o", "out.npz"], "must end in .extxyz or .xyz or .traj"),
        (["molecule.xyz", *NVE, "--steps", "2", "-o", "molecule.xyz"], "would overwrite the input"),
        (["molecule.xyz", *NVE, "--steps", "2", "-o", "nowhere/md.xyz"], "the folder of the output does not exist"),
        (["molecule.xyz", *NVE, "--steps", "2", "--plot", "md.gif"], "must end in .png or .pdf or .svg"),
        (["molecule.xyz", *NVE, "--steps", "2", "--restart", "--overwrite"], "give one of them"),
        (["two.xyz", *NVE, "--steps", "2"], "choose one with --frame"),
        (["two.xyz", *NVE, "--steps", "2", "--frame", "2"], "the file has 2 frames, there is no frame 2"),
        (["two.xyz", *NVE, "--steps", "2", "--frame", "-3"], "the file has 2 frames, there is no frame -3"),
        (["copper.xyz", *NVE, "--steps", "2"], "'Cu', which the model does not know"),
        (["fixed.xyz", *NVT, "--steps", "2", "--thermostat", "nose-hoover"], "take bussi or langevin"),
        (["all.xyz", *NVE, "--steps", "2"], "all atoms are fixed"),
    ],
)
def test_wrong_input(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("two.xyz").write_text(MOLECULE + MOLECULE)
    Path("copper.xyz").write_text("1\n\nCu 0 0 0\n")
    columns = "Properties=species:S:1:pos:R:3:move_mask:L:1"
    Path("fixed.xyz").write_text(f"2\n{columns}\nO 0 0 0 F\nH 1 0 0 T\n")
    Path("all.xyz").write_text(f"2\n{columns}\nO 0 0 0 F\nH 1 0 0 F\n")
    before = sorted(os.listdir())
    assert main(["md", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [("--ensemble", "nvx"), ("--timestep", "-1"), ("--steps", "0"), ("--temperature", "-5"), ("--time", "inf")],
)
def test_wrong_options(option: str, value: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    length = [] if option == "--time" else ["--steps", "5"]
    with pytest.raises(SystemExit) as ended:
        main(["md", "molecule.xyz", *NVE, *length, option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


# -------------------------------------------------------------------------------- the rest


def test_fixed_atoms_and_velocities_of_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("fixed.xyz").write_text(
        '3\nProperties=species:S:1:pos:R:3:move_mask:L:1 pbc="F F F"\nO 0 0 0 F\nH 0.96 0 0 T\nH -0.24 0.93 0 T\n'
    )
    for thermostat in ("bussi", "langevin"):
        how = [*NVT, "--thermostat", thermostat, "--steps", "10", "--interval", "5", "--overwrite"]
        run_command(capsys, "md", "fixed.xyz", *how)
        assert all(atoms.positions[0].tolist() == [0.0, 0.0, 0.0] for atoms in frames("md.extxyz"))
        assert read_log("md.log")["T/K"][0] == pytest.approx(300.0)
    run_command(capsys, "md", "molecule.xyz", *NVE, "--steps", "10", "-o", "first.extxyz")
    last = frames("first.extxyz")[-1]
    length = ["--ensemble", "nve", "--timestep", "0.5", "--steps", "2", "--precision", "float64"]
    run_command(capsys, "md", "first.extxyz", "--frame", "-1", "--velocities", "file", *length, "-o", "next.extxyz")
    np.testing.assert_allclose(frames("next.extxyz")[0].get_momenta(), last.get_momenta(), atol=1e-12)


def test_table_log_and_plot(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.package("matplotlib")
    out = run_command(capsys, "md", "molecule.xyz", *NVT, "--time", "0.01", *EVERY, "--plot", "md.png")
    assert "run         NVT, bussi, 0.5 fs, 300 K, tdamp 100 fs, seed 7, 20 steps of 0.01 ps in all" in out
    rows = [line.split() for line in out.splitlines() if line.split()[0].isdigit()]
    assert [row[0] for row in rows] == ["0", "6", "12", "18"]
    assert "written     md.extxyz, md.log, md.restart.npz, md.png" in out
    assert Path("md.log").read_text().splitlines()[0].split() == ["#", *COLUMNS]
    assert Path("md.png").read_bytes().startswith(b"\x89PNG")
