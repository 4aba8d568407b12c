"""Integrators of ASE with a state that can be kept, so that a run goes on as if it had not been interrupted."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.nptberendsen import NPTBerendsen
from ase.md.verlet import VelocityVerlet

from ..errors import InputError
from ..inputs import Float
from ..optional import ase as ase_module
from ..units import EV_PER_ANGSTROM3_IN_GPA
from .structures import is_periodic, removed_coordinates

THERMOSTATS = ("bussi", "langevin", "nose-hoover")
BAROSTATS = ("mtk", "berendsen")

# What an integrator has beside positions, momenta and cell, by the name of its class. ASE keeps some of it to itself,
# and offers no other way to go on with a run.
_STATE = {
    "VelocityVerlet": (),
    "Langevin": (),
    "NPTBerendsen": (),
    "Bussi": ("transferred_energy",),
    "NoseHooverChainNVT": ("_q", "_p", "_thermostat._eta", "_thermostat._p_eta"),
    "IsotropicMTKNPT": (
        "_q",
        "_p",
        "_eps",
        "_p_eps",
        "_cell0",
        "_volume0",
        "_thermostat._eta",
        "_thermostat._p_eta",
        "_barostat._xi",
        "_barostat._p_xi",
    ),
}


@dataclass(frozen=True)
class Settings:
    """What a run is, but for its atoms, its model and its length.

    Attributes:
        ensemble: "nve", "nvt" or "npt".
        timestep: fs.
        temperature: K: of the thermostat, and of the velocities that a run begins with; None in NVE with given ones.
        pressure: GPa, of the barostat.
        thermostat: one of :data:`THERMOSTATS` in NVT. barostat: one of :data:`BAROSTATS` in NPT.
        tdamp, pdamp: time constants of thermostat and barostat, fs.
        compressibility: 1/GPa, of Berendsen's barostat.
        seed: of the random numbers.
    """

    ensemble: str
    timestep: float
    temperature: float | None = None
    pressure: float = 0.0
    thermostat: str = ""
    barostat: str = ""
    tdamp: float = 100.0
    pdamp: float = 1000.0
    compressibility: float = 0.46
    seed: int = 0

    def words(self) -> str:
        """For people."""
        with_what = f", {self.thermostat or self.barostat}" if self.ensemble != "nve" else ""
        parts = [f"{self.ensemble.upper()}{with_what}, {self.timestep:g} fs"]
        if self.temperature is not None:
            parts.append(f"{'starts at ' if self.ensemble == 'nve' else ''}{self.temperature:g} K")
        if self.ensemble == "npt":
            parts.append(f"{self.pressure:g} GPa")
        if self.ensemble != "nve":
            parts.append(f"tdamp {self.tdamp:g} fs")
        if self.ensemble == "npt":
            parts.append(f"pdamp {self.pdamp:g} fs")
        return ", ".join([*parts, f"seed {self.seed}"])

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def degrees_of_freedom(atoms: Atoms) -> int:
    """Of the velocities: without those of fixed coordinates; else, of several atoms, without those of the whole."""
    removed = removed_coordinates(atoms)
    return 3 * len(atoms) - (removed or (3 if len(atoms) > 1 else 0))


def start_velocities(atoms: Atoms, temperature: float, generator: np.random.Generator) -> None:
    """Velocities of Maxwell and Boltzmann, without net momentum, scaled to exactly this temperature, K."""
    masses = atoms.get_masses()[:, None]
    momenta = generator.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    atoms.set_momenta(momenta)  # constraints act
    remove_net_momentum(atoms)
    found = temperature_of(atoms)
    if found > 0.0:
        atoms.set_momenta(atoms.get_momenta() * math.sqrt(temperature / found))


def remove_net_momentum(atoms: Atoms) -> None:
    """Let the whole of several atoms rest, where none is fixed."""
    if not atoms.constraints and len(atoms) > 1:
        masses = atoms.get_masses()[:, None]
        momenta = atoms.get_momenta()
        atoms.set_momenta(momenta - masses * (momenta.sum(axis=0) / masses.sum()))


def temperature_of(atoms: Atoms, freedom: int | None = None) -> float:
    """K; ``freedom``: the degrees of freedom, where they are known already."""
    freedom = degrees_of_freedom(atoms) if freedom is None else freedom
    return 2.0 * float(atoms.get_kinetic_energy()) / (freedom * units.kB) if freedom > 0 else 0.0


def pressure_with_motion(atoms: Atoms) -> float:
    """The pressure with its kinetic part, GPa; NaN where there is no volume."""
    if not is_periodic(atoms):
        return math.nan
    of_virial = -float(atoms.calc.results["stress"][:3].sum()) / 3.0
    of_motion = 2.0 * float(atoms.get_kinetic_energy()) / (3.0 * float(atoms.get_volume()))
    return (of_virial + of_motion) * EV_PER_ANGSTROM3_IN_GPA


class Integrator:
    """One of ASE's integrators for some atoms.

    Attributes:
        freedom: the degrees of freedom that temperatures are of.

    Args:
        atoms: with a calculator and momenta.
        settings: what to integrate.
        generator: of the thermostat's random numbers.

    Raises:
        InputError: the atoms do not go with the ensemble, or ASE is too old.
    """

    def __init__(self, atoms: Atoms, settings: Settings, generator: np.random.Generator) -> None:
        check(atoms, settings)
        self.atoms, self.settings, self.generator = atoms, settings, generator
        self.freedom = degrees_of_freedom(atoms)
        self._dynamics: Any = self._made()
        self._names = _STATE[type(self._dynamics).__name__]

    def step(self) -> None:
        """A step; afterwards the results of the calculator are those of the new positions."""
        self._dynamics.step()
        self.atoms.get_forces()

    def conserved(self) -> float:
        """What the integrator would leave alone if its steps were infinitely small, eV; NaN if there is no such."""
        if self.settings.thermostat == "langevin" or self.settings.barostat == "berendsen":
            return math.nan
        if hasattr(self._dynamics, "get_conserved_energy"):
            return float(self._dynamics.get_conserved_energy())
        total = float(self.atoms.calc.results["energy"]) + float(self.atoms.get_kinetic_energy())
        return total - (float(self._dynamics.transferred_energy) if self.settings.thermostat == "bussi" else 0.0)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as arrays."""
        atoms = self.atoms
        own = {f"of{name}": np.array(_get(self._dynamics, name)) for name in self._names}
        return {
            "positions": atoms.positions.copy(),
            "momenta": atoms.get_momenta(),
            "cell": atoms.cell.array.copy(),
            "random": np.array(json.dumps(self.generator.bit_generator.state)),
            **own,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        restore_atoms(self.atoms, state)
        self.generator.bit_generator.state = json.loads(str(state["random"]))
        for name in self._names:
            value = state[f"of{name}"]
            _set(self._dynamics, name, float(value) if value.ndim == 0 else np.array(value))

    def _made(self) -> Any:
        """The integrator of ASE."""
        settings, atoms = self.settings, self.atoms
        dt, tdamp, pdamp = (fs * units.fs for fs in (settings.timestep, settings.tdamp, settings.pdamp))
        if settings.ensemble == "nve":
            return VelocityVerlet(atoms, dt)
        temperature = settings.temperature or 0.0
        # Some of ASE's integrators count 3 degrees of freedom for each atom, though the whole rests.
        counted = temperature * self.freedom / (3 * len(atoms))
        if settings.ensemble == "npt":
            pressure = settings.pressure / EV_PER_ANGSTROM3_IN_GPA
            if settings.barostat == "berendsen":
                compressibility = settings.compressibility * EV_PER_ANGSTROM3_IN_GPA
                return NPTBerendsen(
                    atoms,
                    dt,
                    temperature_K=counted,
                    pressure_au=pressure,
                    taut=tdamp,
                    taup=pdamp,
                    compressibility_au=compressibility,
                )
            chain = ase_module("ase.md.nose_hoover_chain", "NPT by Martyna, Tobias and Klein")
            if not hasattr(chain, "IsotropicMTKNPT"):
                raise InputError("--barostat mtk needs ASE 3.26 or newer; get it with: pip install --upgrade ase")
            return chain.IsotropicMTKNPT(
                atoms, dt, temperature_K=counted, pressure_au=pressure, tdamp=tdamp, pdamp=pdamp
            )
        if settings.thermostat == "nose-hoover":
            chain = ase_module("ase.md.nose_hoover_chain", "the thermostat of Nose and Hoover")
            return chain.NoseHooverChainNVT(atoms, dt, temperature_K=counted, tdamp=tdamp)
        if not atoms.constraints and len(atoms) > 1:
            atoms.set_constraint(FixCom())  # the whole rests, and is not counted
        if settings.thermostat == "langevin":
            return Langevin(atoms, dt, temperature_K=temperature, friction=1.0 / tdamp, fixcm=False, rng=self.generator)
        bussi = ase_module("ase.md.bussi", "the thermostat of Bussi")
        return bussi.Bussi(atoms, dt, temperature_K=temperature, taut=tdamp, rng=self.generator)


def restore_atoms(atoms: Atoms, state: dict[str, Any]) -> None:
    """Positions, cell and momenta of a state."""
    atoms.set_cell(state["cell"], scale_atoms=False)
    atoms.set_positions(state["positions"], apply_constraint=False)
    atoms.set_momenta(state["momenta"], apply_constraint=False)


def check(atoms: Atoms, settings: Settings) -> None:
    """Raises InputError where atoms do not go with an ensemble."""
    fixed = removed_coordinates(atoms)
    if settings.ensemble == "npt":
        if not is_periodic(atoms):
            raise InputError(
                "npt needs a cell with a volume that is periodic in all three directions, and this structure has none; "
                "take nvt"
            )
        if fixed:
            raise InputError("npt does not go with fixed atoms, which would not follow the cell; take nvt")
    if settings.thermostat == "nose-hoover" and fixed:
        raise InputError("the thermostat nose-hoover of ASE moves fixed atoms; take bussi or langevin")
    if degrees_of_freedom(atoms) < 1:
        raise InputError("all atoms are fixed: there is nothing to move")


def _get(thing: Any, name: str) -> Any:
    return reduce(getattr, name.split("."), thing)


def _set(thing: Any, name: str, value: Float | float) -> None:
    *path, last = name.split(".")
    setattr(reduce(getattr, path, thing), last, value)
