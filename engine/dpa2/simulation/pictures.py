"""Pictures of runs, equations of state and phonons. Need matplotlib: ``pip install 'dpa2[plot]'``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inputs import Float
from ..plots import figure_colours, new_figure, save

if TYPE_CHECKING:
    pass


def _panel(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.4, linewidth=0.5)
    axes.ticklabel_format(axis="y", useOffset=False)


def draw_dynamics(path: str, columns: Mapping[str, Float], natoms: int, title: str) -> None:
    """Energies, temperature, pressure (or volume, where that changes) and the drift of a run over its time.

    Args:
        path: of the picture: .png, .pdf or .svg.
        columns: those of :func:`dpa2.simulation.run.read_log`.
        natoms: of the structure.
        title: goes on top.
    """
    time = columns["time/ps"]
    potential, kinetic = (1000.0 * columns[name] / natoms for name in ("E_pot/eV", "E_kin/eV"))
    kept = 1000.0 * (columns["conserved/eV"] - columns["conserved/eV"][0]) / natoms
    panels: list[tuple[str, str, dict[str, Float]]] = [
        ("energy less that of the first step", "meV per atom", {
            "potential": potential - potential[0], "kinetic": kinetic - kinetic[0],
        }),
        ("temperature", "K", {"": columns["T/K"]}),
    ]  # fmt: skip
    for name, unit, values in (
        ("pressure", "GPa", columns["P/GPa"]),
        ("volume", "Å³", columns["volume/A^3"]),
        ("drift of the conserved quantity", "meV per atom", kept),
    ):
        if np.isfinite(values).all() and (name != "volume" or np.ptp(values) > 0.0):
            panels.append((name, unit, {"": values}))
    across = 2 if len(panels) > 1 else 1
    down = -(-len(panels) // across)
    figure = new_figure(4.6 * across, 2.9 * down)
    figure.suptitle(title, fontsize=9)
    colours = figure_colours(2)
    for k, (name, unit, lines) in enumerate(panels):
        axes = figure.add_subplot(down, across, k + 1)
        for colour, (label, values) in zip(colours, lines.items(), strict=False):
            axes.plot(time, values, color=colour, linewidth=1, label=label, marker="o" if len(time) < 30 else "", ms=3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
        elif name in ("temperature", "pressure", "volume"):
            mean = float(values.mean())
            axes.axhline(mean, color="0.4", linewidth=0.8, linestyle="--", label=f"mean {mean:.4g} {unit}")
            axes.legend(fontsize=8)
        _panel(axes, name, "time, ps", unit)
    save(figure, path)
