"""The example with i-PI, end to end: the real `i-pi`, the driver of the example, a UNIX socket."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import needs
import numpy as np
import pytest

pytest.importorskip("ase", reason=needs.reason("ase"))
pytest.importorskip("ipi", reason=needs.reason("ipi"))

import ase.io
import ase.units
from dpa2.ase import DPA2Calculator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WATER = EXAMPLES / "water_192.extxyz"
LIMIT = 60.0  # seconds for everything that is waited for
BEADS, STEPS = 4, 5

#: the hartree in eV: ASE (2014 CODATA) converts with one, i-PI with the other
ASE_HARTREE, IPI_HARTREE = 27.21138602, 1 / 0.036749326


@contextmanager
def running(command: list[str], folder: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block, with its output in a file."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        open(folder / log, "wb") as output,
        subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the example as it stands, but for its length, its socket and one more property."""
    folder = tmp_path_factory.mktemp("examples") / "ipi"
    shutil.copytree(EXAMPLES / "ipi", folder)
    shutil.copy(WATER, folder.parent)
    address = f"dpa2-{uuid.uuid4().hex[:12]}"
    text = (folder / "input.xml").read_text(encoding="utf-8")
    for old, new in {
        "<total_steps> 10 <": f"<total_steps> {STEPS} <",
        "<address> dpa2 <": f"<address> {address} <",
        "stride='10'": f"stride='{STEPS}'",
        "[ step,": "[ virial_md{megapascal}, step,",
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "input.xml").write_text(text, encoding="utf-8")
    ipi = shutil.which("i-pi", path=sysconfig.get_path("scripts")) or shutil.which("i-pi")
    assert ipi is not None
    driver = [sys.executable, "driver.py", "--address", address]
    try:
        with running([ipi, "input.xml"], folder, "ipi.log") as server, running(driver, folder, "driver.log") as client:
            codes = client.wait(LIMIT), server.wait(LIMIT)
    except subprocess.TimeoutExpired:
        codes = (-1, -1)
    finally:
        Path(f"/tmp/ipi_{address}").unlink(missing_ok=True)
    assert codes == (0, 0), (folder / "ipi.log").read_text()[-2000:] + (folder / "driver.log").read_text()[-2000:]
    return folder


def properties(folder: Path) -> dict[str, np.ndarray]:
    """The columns of `water.out` by name, without units; (steps,) or (steps, 6)."""
    path = folder / "water.out"
    columns = re.findall(r"^# col\S+ +(\d+)(?:-(\d+))? +--> (\w+)", path.read_text(), re.MULTILINE)
    data = np.loadtxt(path)
    assert data.shape[1] == max(int(last or first) for first, last, _ in columns)
    return {name: data[:, int(first) - 1 : int(last or first)].squeeze() for first, last, name in columns}


def last_beads(folder: Path) -> list[np.ndarray]:
    """The positions of every bead after the last step, angstrom."""
    frames = [list(ase.io.iread(folder / f"water.pos_{bead}.xyz", format="xyz")) for bead in range(BEADS)]
    assert [len(frame) for frame in frames] == [2] * BEADS
    return [frame[-1].positions for frame in frames]


def test_all_steps_were_done(finished: Path) -> None:
    found = properties(finished)
    assert found["step"].tolist() == list(range(STEPS + 1))
    assert all(np.isfinite(values).all() for values in found.values())


def test_first_step_is_the_structure(finished: Path) -> None:
    """All beads start at the same place: i-PI's energy and virial are the calculator's."""
    atoms = ase.io.read(WATER)
    atoms.calc = DPA2Calculator(threads=1)
    found = properties(finished)
    assert found["potential"][0] / IPI_HARTREE * ASE_HARTREE == pytest.approx(atoms.get_potential_energy(), abs=5e-4)
    stress = atoms.get_stress()[[0, 1, 2, 5, 4, 3]] / (1e6 * ase.units.Pascal)
    np.testing.assert_allclose(found["virial_md"][0] / BEADS, -stress, rtol=1e-4)  # i-PI's megapascal is 3e-5 off


def test_last_step_is_the_mean_over_the_beads(finished: Path) -> None:
    """Energies of the written beads, whose five digits are good for some meV, and beads that have moved apart."""
    atoms = ase.io.read(WATER)
    atoms.calc = DPA2Calculator(threads=1)
    energies, beads = [], last_beads(finished)
    for positions in beads:
        atoms.positions = positions
        energies.append(atoms.get_potential_energy())
    found = properties(finished)["potential"]
    assert found[-1] / IPI_HARTREE * ASE_HARTREE == pytest.approx(np.mean(energies), abs=0.03)
    assert found[-1] - found[0] > 1.0
    assert np.ptp(energies) > 0.1
    assert np.linalg.norm(beads[1] - beads[0], axis=1).max() > 0.02


def test_energy_is_conserved(finished: Path) -> None:
    """What the thermostat takes included, by far better than the potential energy changes."""
    found = properties(finished)
    assert np.ptp(found["conserved"]) < 0.03
    assert np.ptp(found["potential"]) > 1.0


def test_driver_without_server_says_so(tmp_path: Path) -> None:
    driver = [sys.executable, str(EXAMPLES / "ipi" / "driver.py"), "--address", uuid.uuid4().hex, "--patience", "0.1"]
    with running(driver, tmp_path, "log") as client:
        assert client.wait(LIMIT) == 1
    assert "no i-PI is listening at the UNIX socket" in (tmp_path / "log").read_text()
