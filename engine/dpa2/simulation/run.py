"""A run of dynamics: its files, what ends it, and how it goes on after it was ended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from ..errors import Error, InputError, WorkFailedError
from ..inputs import Float, Int
from ..outputs import Blocks, errors_named, replacing
from .dynamics import Integrator, pressure_with_motion, temperature_of
from .signals import signals_noted
from .structures import is_periodic, snapshot
from .trajectories import Trajectory, check_length, open_trajectory

COLUMNS = ("step", "time/ps", "E_pot/eV", "E_kin/eV", "T/K", "P/GPa", "conserved/eV", "volume/A^3")
#: how often more than the warmest that was asked for is absurd, and at least of what temperature, K
_ABSURD, _ROOM = 20.0, 300.0
#: by how much a volume may change
_VOLUMES = 4.0
_VERSION = 1


@dataclass(frozen=True)
class Files:
    """Where a run is written."""

    trajectory: str
    log: str
    restart: str


@dataclass(frozen=True)
class Intervals:
    """Steps between frames (and restart files), and between rows of the log."""

    frames: int
    rows: int


class Run:
    """Atoms on their way, and the files of it.

    After :meth:`begin` or :meth:`resume` the files are open until :meth:`close`. A restart file is written with every
    frame, and says how long the others were: what they have more is cut off when the run goes on.

    Attributes:
        step: the steps that are complete.

    Args:
        integrator: the atoms that move, and how.
        steps: how many there are to be.
        files, intervals: what is written, and when.
        job: what the run depends on; it only goes on with the same.
        cutoff: an atom with no other within it is lost, angstrom.
    """

    def __init__(
        self,
        integrator: Integrator,
        steps: int,
        files: Files,
        intervals: Intervals,
        job: Mapping[str, Any],
        cutoff: float,
    ) -> None:
        self.integrator, self.atoms, self.steps = integrator, integrator.atoms, steps
        self.files, self.intervals, self.job, self.cutoff = files, intervals, dict(job), cutoff
        self.step = 0
        self._trajectory: Trajectory
        self._log: Blocks
        self._open: list[Trajectory | Blocks] = []
        self._sound: tuple[int, dict[str, Any], Atoms, list[float]]
        self._saved = -1
        self._hottest = self._volume = 0.0
        self._alone: Int = np.zeros(0, dtype=np.int64)

    def begin(self) -> list[float]:
        """Open the files, and write the first frame and row; the row."""
        self.atoms.get_forces()
        self._set_limits(temperature_of(self.atoms, self.integrator.freedom))
        self._open_files()
        with errors_named(self.files.log):
            self._log.add("# " + " ".join(f"{name:>18}" for name in COLUMNS) + "\n")
        self._keep()
        self._write_row()
        self._save()
        return self._sound[3]

    def resume(self, state: Mapping[str, Any]) -> list[float]:
        """Go on from what :func:`read_restart` found; the row of that step."""
        said = json.loads(str(state["said"]))
        if not os.path.isfile(self.files.log):
            raise InputError(f"{self.files.log}: the log to go on with is not there")
        check_length(self.files.log, said["log"])
        self.integrator.restore(dict(state))
        self.step = self._saved = int(said["step"])
        self.atoms.get_forces()
        self._volume, self._hottest = said["volume"], said["hottest"]
        self._alone = np.array(said["alone"], dtype=np.int64)
        self._open_files(said["trajectory"], said["log"])
        self._keep()
        return self._sound[3]

    def _open_files(self, trajectory: int | None = None, log: int | None = None) -> None:
        self._trajectory = open_trajectory(self.files.trajectory, trajectory)
        self._open.append(self._trajectory)
        with errors_named(self.files.log):
            self._log = Blocks(self.files.log, log)
        self._open.append(self._log)

    def advance(self) -> list[float]:
        """One step, with what is written after it; the row of the log that would stand there.

        Raises:
            WorkFailedError: the atoms went astray: numbers that are not finite, an absurd temperature or volume, an
                atom that is lost.
        """
        try:
            self.integrator.step()
            self.step += 1
            row = self._row()
            self._check(row)
        except (Error, ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
            if isinstance(error, (WorkFailedError, MemoryError)):
                raise
            raise self._astray(str(error)) from error
        self._keep(row)
        if self.step % self.intervals.rows == 0:
            self._write_row()
        if self.step % self.intervals.frames == 0:
            self._save()
        return row

    def close(self, whole: bool) -> None:
        """Close the files; if the run is ``whole`` so far, they have its last step as well."""
        try:
            if whole and self._saved >= 0:
                self._save_end()
        finally:
            for file in self._open:
                file.close()

    def _save_end(self) -> None:
        """Frame, row and restart file of the last sound step.

        The restart file says how long the others are without them where they are not due, so that a run that goes on
        has the frames and rows of one that did not stop.
        """
        step, state, atoms, _ = self._sound
        if step != self._saved and step % self.intervals.frames == 0:
            self._trajectory.add(atoms)
        lengths = (self._trajectory.position(), self._log.size)
        if step % self.intervals.frames:
            self._trajectory.add(atoms)
        if step % self.intervals.rows:
            self._write_row()
        self._sync()
        if step != self._saved:
            self._write_restart(step, state, *lengths)

    def _save(self) -> None:
        """A frame, and the restart file after it."""
        step, state, atoms, _ = self._sound
        self._trajectory.add(atoms)
        self._sync()
        self._write_restart(step, state, self._trajectory.position(), self._log.size)

    def _sync(self) -> None:
        self._trajectory.sync()
        with errors_named(self.files.log):
            self._log.sync()

    def _write_restart(self, step: int, state: Mapping[str, Any], trajectory: int, log: int) -> None:
        said = {
            "version": _VERSION,
            "step": step,
            "steps": self.steps,
            "trajectory": trajectory,
            "log": log,
            "volume": self._volume,
            "hottest": self._hottest,
            "alone": self._alone.tolist(),
            "job": self.job,
        }
        with replacing(self.files.restart) as part, open(part, "wb") as handle:
            np.savez(handle, said=np.array(json.dumps(said)), numbers=self.atoms.numbers, **state)
        self._saved = step

    def _write_row(self) -> None:
        step, *values = self._sound[3]
        with errors_named(self.files.log):
            self._log.add(f"  {int(step):18d} " + " ".join(f"{value:18.13g}" for value in values) + "\n")

    def _keep(self, row: list[float] | None = None) -> None:
        """Remember this step as sound, all at once: an interrupt may come at any moment."""
        row = self._row() if row is None else row
        self._sound = (self.step, self.integrator.state(), snapshot(self.atoms), row)

    def _row(self) -> list[float]:
        atoms = self.atoms
        return [
            float(self.step),
            self.step * self.integrator.settings.timestep / 1000.0,
            float(atoms.calc.results["energy"]),
            float(atoms.get_kinetic_energy()),
            temperature_of(atoms, self.integrator.freedom),
            pressure_with_motion(atoms),
            self.integrator.conserved(),
            float(atoms.get_volume()) if is_periodic(atoms) else math.nan,
        ]

    def _set_limits(self, temperature: float) -> None:
        wanted = self.integrator.settings.temperature or 0.0
        self._hottest = _ABSURD * max(temperature, wanted, _ROOM)
        self._volume = float(self.atoms.get_volume()) if is_periodic(self.atoms) else 0.0
        self._alone = self._lonely()

    def _check(self, row: list[float]) -> None:
        """Raises WorkFailedError where a run has gone astray."""
        _, _, energy, kinetic, temperature, _, _, volume = row
        if not (math.isfinite(energy + kinetic) and np.isfinite(self.atoms.positions).all()):
            raise self._astray("numbers are not finite")
        if temperature > self._hottest:
            raise self._astray(f"the temperature is {temperature:.4g} K")
        if self._volume and not self._volume / _VOLUMES < volume < self._volume * _VOLUMES:
            raise self._astray(f"the volume went from {self._volume:.4g} to {volume:.4g} angstrom^3")
        if self.step % min(self.intervals.frames, self.intervals.rows) == 0:
            lost = np.setdiff1d(self._lonely(), self._alone)
            if len(lost):
                raise self._astray(
                    f"atom {int(lost[0])} ({self.atoms.symbols[int(lost[0])]}) is lost: no other is within the cutoff "
                    f"of {self.cutoff:g} angstrom"
                )

    def _lonely(self) -> Int:
        """The atoms that have no other within the cutoff."""
        if self.atoms.pbc.all() or len(self.atoms) == 1:
            return np.zeros(0, dtype=np.int64)
        found: Int = np.setdiff1d(np.arange(len(self.atoms)), neighbor_list("i", self.atoms, self.cutoff))
        return found

    def _astray(self, why: str) -> WorkFailedError:
        number = max(self.step, self._sound[0] + 1)
        return WorkFailedError(
            f"the run went astray in step {number}: {why}. The frames and the restart file of up to step "
            f"{self._saved} are kept. Begin with a relaxed structure (dpa2 relax), or with a shorter --timestep"
        )


def read_restart(path: str) -> dict[str, Any]:
    """What a restart file holds.

    Raises:
        InputError: it is not there, or is none.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no run to go on with; leave out --restart to begin one")
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
        said = json.loads(str(state["said"]))
        if said["version"] != _VERSION or not {"positions", "momenta", "cell", "random", "numbers"} <= state.keys():
            raise ValueError("another version")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise InputError(f"{path}: this is no restart file of dpa2 md, or it is damaged ({error})") from error
    return state


def progress_of(state: Mapping[str, Any]) -> tuple[int, int]:
    """The step of a restart file, and how many there were to be."""
    said = json.loads(str(state["said"]))
    return int(said["step"]), int(said["steps"])


def check_job(path: str, state: Mapping[str, Any], job: Mapping[str, Any], atoms: Atoms) -> None:
    """Raises InputError if a restart file is of another run."""
    before = json.loads(str(state["said"]))["job"]
    for name in sorted(before.keys() | job.keys()):
        if before.get(name) != job.get(name):
            values = "" if name == "model" else f" ({before.get(name)}, and now {job.get(name)})"
            raise InputError(
                f"{path}: the run to go on with had another {name}{values}; give the options that it began with, or "
                "leave out --restart to begin anew"
            )
    if not np.array_equal(state["numbers"], atoms.numbers):
        raise InputError(f"{path}: the run to go on with is of other atoms")


def read_log(path: str) -> dict[str, Float]:
    """The columns of a log by name; they are empty if it has no rows."""
    rows: list[list[float]] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError):
                rows.append([float(word) for word in line.split()])
    table = np.array([row for row in rows if len(row) == len(COLUMNS)]).reshape(-1, len(COLUMNS))
    return dict(zip(COLUMNS, table.T, strict=True))


def go(run: Run, state: Mapping[str, Any] | None, on_row: Callable[[list[float]], None]) -> None:
    """Begin a run, or resume it from a state, bring it to its end and close the files.

    ``on_row`` gets the numbers of :data:`COLUMNS` of every step. After Ctrl-C or SIGTERM, which wait for the end of a
    step, the files have the last step.
    """
    whole = False
    try:
        with signals_noted() as noted:
            on_row(run.begin() if state is None else run.resume(state))
            while run.step < run.steps:
                noted.act()
                on_row(run.advance())
        whole = True
    except KeyboardInterrupt:
        whole = True
        raise
    finally:
        run.close(whole)
