"""Pictures of runs, equations of state and phonons. Need matplotlib: ``pip install 'dpa2[plot]'``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inputs import Float
from ..plots import figure_colours, new_figure, save

if TYPE_CHECKING:
    from .equation_of_state import Fit
    from .phonons import Found

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


def draw_equation_of_state(path: str, volumes: Float, energies: Float, found: Fit, natoms: int) -> None:
    """Energies over volumes, and the fit through them.

    Args:
        path: of the picture: .png, .pdf or .svg.
        volumes, energies: (n,), angstrom^3 and eV.
        found: the fit. natoms: of the structure.
    """
    figure = new_figure(5.4, 4.0)
    axes = figure.subplots()
    curve, smooth = found.curve
    axes.plot(curve / natoms, 1000.0 * (smooth - found.energy) / natoms, color="C0", linewidth=1, label="fit")
    axes.plot(volumes / natoms, 1000.0 * (energies - found.energy) / natoms, "o", color="C1", ms=4, label="model")
    axes.axvline(found.volume / natoms, color="0.4", linewidth=0.8, linestyle="--")
    words = f"V0 {found.volume / natoms:.4f} Å³ per atom, B {found.bulk_modulus:.2f} GPa, B' {found.derivative:.2f}"
    axes.legend(fontsize=8)
    _panel(axes, words, "volume, Å³ per atom", "energy less that of the minimum, meV per atom")
    save(figure, path)


def draw_phonons(path: str, found: Found) -> None:
    """Bands along the path, with the density of states beside them.

    Args:
        path: of the picture: .png, .pdf or .svg.
        found: what is drawn.
    """
    from .phonons import ends_of

    figure = new_figure(7.4, 4.4)
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    bands = found.bands
    ticks: dict[float, list[str]] = {}
    for (first, last), distances, frequencies in zip(ends_of(bands), bands.distances, bands.frequencies, strict=True):
        axes.plot(distances, frequencies, color="C0", linewidth=1)
        for place, name in ((distances[0], first), (distances[-1], last)):
            names = ticks.setdefault(round(float(place), 9), [])
            if name not in names:
                names.append(name)
    axes.set_xticks(list(ticks), ["|".join("Γ" if name == "G" else name for name in names) for names in ticks.values()])
    for place in ticks:
        axes.axvline(place, color="0.7", linewidth=0.6)
    axes.set_xlim(min(ticks), max(ticks))
    together = np.concatenate(bands.frequencies)
    lowest, highest = float(together.min()), float(together.max())
    margin = 0.04 * (highest - lowest)
    axes.set_ylim(lowest - margin, highest + margin)
    axes.set_ylabel("frequency, THz")
    beside.plot(found.dos[1], found.dos[0], color="C0", linewidth=1)
    beside.set_xlim(left=0.0)
    beside.set_xlabel("density of states, 1/THz", fontsize=9)
    for each in (axes, beside):
        each.axhline(0.0, color="0.4", linewidth=0.8, linestyle="--")
        each.tick_params(labelsize=8)
    save(figure, path)
