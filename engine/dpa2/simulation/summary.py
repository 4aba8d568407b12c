"""What a log of dynamics says as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..inputs import Float


def drift(time: Float, conserved: Float, natoms: int) -> float:
    """The slope of a conserved quantity, eV per atom and ps, by least squares; NaN of fewer than two times."""
    if len(time) < 2 or not np.isfinite(conserved).all():
        return float("nan")
    return float(np.polyfit(time - time[0], conserved - conserved[0], 1)[0]) / natoms


class Summary:
    """Means and spreads over the rows of a log, and the drift.

    Args:
        columns: those of :func:`dpa2.simulation.run.read_log`.
        natoms: of the structure.
    """

    def __init__(self, columns: Mapping[str, Float], natoms: int) -> None:
        self.columns = columns
        self.drift = drift(columns["time/ps"], columns["conserved/eV"], natoms)

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        names = {
            "potential_energy": "E_pot/eV",
            "kinetic_energy": "E_kin/eV",
            "temperature_K": "T/K",
            "pressure_GPa": "P/GPa",
            "conserved_energy": "conserved/eV",
            "volume": "volume/A^3",
        }
        found: dict[str, Any] = {"rows": len(self.columns["step"])}
        for name, column in names.items():
            values = self.columns[column]
            found[name] = {
                "first": float(values[0]),
                "last": float(values[-1]),
                "mean": float(values.mean()),
                "std": float(values.std()),
            }
        found["drift_eV_per_atom_ps"] = self.drift
        return found

    def lines(self) -> list[str]:
        """For people."""
        found = self.facts()
        temperature, pressure, volume = found["temperature_K"], found["pressure_GPa"], found["volume"]
        lines = [f"temperature {temperature['mean']:.2f} K on average, standard deviation {temperature['std']:.2f}"]
        if np.isfinite(pressure["mean"]):
            lines.append(f"pressure    {pressure['mean']:.4f} GPa on average, standard deviation {pressure['std']:.4f}")
            if volume["std"] > 0.0:
                lines.append(
                    f"volume      {volume['mean']:.3f} angstrom^3 on average, standard deviation {volume['std']:.3f}"
                )
        if np.isfinite(self.drift):
            lines.append(f"drift       {1000.0 * self.drift:.4g} meV per atom and ps, of the conserved quantity")
        return lines
