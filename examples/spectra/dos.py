"""Density of states of a structure or along a trajectory: in all, and of the atoms of every element.

    python examples/spectra/dos.py                                            the water box of the examples
    python examples/spectra/dos.py md.extxyz --model dos.pth --energies -20 10

Needs matplotlib for the plot: pip install 'dpa2[plot]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dpa2
import numpy as np
from dpa2.data import read_structures
from numpy.typing import NDArray

Float = NDArray[np.float64]
HERE = Path(__file__).resolve().parent


def densities(model: dpa2.Model, path: str) -> tuple[Float, dict[str, Float], int]:
    """Per atom, states per eV: of frames (frames, energies), of elements {name: (atoms of all frames, energies)}; and
    the number of atoms of a frame.
    """
    totals, of_elements = [], {}
    for frame in read_structures(path)[0]:
        types = frame.types_in(model.type_map)
        found = model.evaluate(frame.coords, types, frame.box, frame.pbc).outputs
        totals.append(found["dos"] / found["mask"].sum())
        for t in np.unique(types[found["mask"] > 0]):
            of_elements.setdefault(model.type_map[t], []).append(found["atom_dos"][types == t])
    return np.array(totals), {name: np.concatenate(rows) for name, rows in of_elements.items()}, len(types)


def draw(path: str, energies: Float, totals: Float, of_elements: dict[str, Float], title: str) -> None:
    """Means over atoms and frames, with bands of the spread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    mean, spread = totals.mean(axis=0), totals.std(axis=0)
    above.plot(energies, mean, color="k", linewidth=1.2, label="all atoms")
    if len(totals) > 1:
        above.fill_between(energies, mean - spread, mean + spread, color="k", alpha=0.2, linewidth=0)
    for k, (name, rows) in enumerate(of_elements.items()):
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        below.plot(energies, mean, color=f"C{k}", linewidth=1.2, label=f"{name}, mean and spread over atoms")
        below.fill_between(energies, mean - spread, mean + spread, color=f"C{k}", alpha=0.25, linewidth=0)
    above.set(title=title, xlim=(energies[0], energies[-1]))
    below.set(xlabel="energy (eV)")
    for axes in (above, below):
        axes.set(ylabel="states per eV and atom")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Evaluate, integrate, write, draw."""
    parser = argparse.ArgumentParser(description="Density of states of a structure or along a trajectory.")
    parser.add_argument("input", nargs="?", default=str(HERE.parent / "water_192.extxyz"), help="default: %(default)s")
    parser.add_argument(
        "--model",
        default=str(HERE / "models" / "water_dos.safetensors"),
        help="model of densities of states (default: that of this folder)",
    )
    parser.add_argument(
        "--energies",
        nargs=2,
        type=float,
        default=(-36.0, -4.0),
        metavar=("FIRST", "LAST"),
        help="the grid of the labels, eV: no model file says it (default: that of the model of this folder)",
    )
    parser.add_argument("--output", help="write the means there, as text")
    parser.add_argument("--plot", default="dos.png", help="picture (default: %(default)s)")
    args = parser.parse_args()

    model = dpa2.load(args.model)
    if model.kind != "dos":
        raise SystemExit(f"--model {args.model}: a model of kind dos is needed, this one is of kind {model.kind}")
    totals, of_elements, natoms = densities(model, args.input)
    energies = np.linspace(*args.energies, totals.shape[1])
    step = energies[1] - energies[0]
    frames = "1 frame" if len(totals) == 1 else f"{len(totals)} frames"
    print(f"{frames} of {natoms} atoms; {len(energies)} energies, {step:g} eV apart")
    print(f"states per atom: {step * totals.mean(axis=0).sum():.4f}")
    for name, rows in of_elements.items():
        print(f"        of {name:>4}: {step * rows.mean(axis=0).sum():.4f}")
    if args.output:
        columns = [energies, totals.mean(axis=0), *(rows.mean(axis=0) for rows in of_elements.values())]
        header = "energy/eV, states per eV and atom: all " + " ".join(of_elements)
        np.savetxt(args.output, np.array(columns).T, header=header, fmt="%.6f")
    draw(args.plot, energies, totals, of_elements, f"Density of states, {frames}")
    print(f"written {args.plot}")


if __name__ == "__main__":
    main()
