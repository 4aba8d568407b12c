"""Raman spectrum of a molecule: vibrations of an energy model, and how a polarizability model changes along them.

    python examples/spectra/raman.py                                          a molecule of water
    python examples/spectra/raman.py --input benzene.xyz --model energy.pth --polar polar.pth

Needs matplotlib for the plot: pip install 'dpa2[plot]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dpa2
import numpy as np
from dpa2.data import read_structures
from dpa2.data.elements import mass_of
from numpy.typing import NDArray

Float = NDArray[np.float64]
HERE = Path(__file__).resolve().parent

WATER = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])  # angstrom
TO_WAVENUMBER = 521.470898  # 1/cm for sqrt(eV/(angstrom^2 g/mol))
KELVIN_TO_WAVENUMBER = 0.695034800  # 1/cm


def relax(model: dpa2.Model, coords: Float, types: list[str], force: float) -> Float:
    """Coordinates where no force is larger than so many eV/angstrom, by Newton's method in small steps."""
    for _ in range(100):
        forces = model.evaluate(coords, types).forces
        if np.abs(forces).max() < force:
            return coords
        curvature, modes = np.linalg.eigh(force_constants(model, coords, types))
        along = modes.T @ forces.ravel() / np.maximum(np.abs(curvature), 1.0)
        step = (modes @ along).reshape(-1, 3)
        coords = coords + step * min(1.0, 0.1 / np.abs(step).max())
    raise SystemExit(f"forces are still {np.abs(forces).max():.2g} eV/angstrom: start from a better structure")


def force_constants(model: dpa2.Model, coords: Float, types: list[str], step: float = 1e-3) -> Float:
    """(3 natoms, 3 natoms), eV/angstrom^2: second derivatives of the energy, by central differences of forces."""
    size = coords.size
    moves = step * np.eye(size).reshape(size, *coords.shape)
    forces = model.evaluate(np.concatenate([coords + moves, coords - moves]), types).forces
    matrix = (forces[size:] - forces[:size]).reshape(size, size) / (2.0 * step)
    return 0.5 * (matrix + matrix.T)


def vibrations(matrix: Float, mass: Float, coords: Float) -> tuple[Float, Float]:
    """Wavenumbers (modes,), 1/cm, negative for imaginary ones; and displacements (modes, natoms, 3) per unit of the
    normal coordinate, (g/mol)^-1/2, without translations and rotations.
    """
    root = np.sqrt(mass)
    rigid = [np.tile(axis, (len(mass), 1)) for axis in np.eye(3)]
    rigid += [np.cross(axis, coords - np.average(coords, axis=0, weights=mass)) for axis in np.eye(3)]
    frame = np.array([(root[:, None] * move).ravel() for move in rigid]).T
    left, size, _ = np.linalg.svd(frame)
    inner = left[:, int((size > 1e-4 * size[0]).sum()) :]  # linear molecules have five rigid motions
    weights = np.repeat(root, 3)
    squares, modes = np.linalg.eigh(inner.T @ (matrix / np.outer(weights, weights)) @ inner)
    wavenumbers = np.sign(squares) * np.sqrt(np.abs(squares)) * TO_WAVENUMBER
    return wavenumbers, ((inner @ modes).T / weights).reshape(-1, len(mass), 3)


def polarizability_gradient(model: dpa2.Model, coords: Float, types: list[str]) -> Float:
    """(3, 3, natoms, 3), angstrom^2: derivatives of the polarizability of the molecule, exact, a backward pass each."""
    gradient = np.empty((3, 3, *coords.shape))
    for i in range(3):
        for j in range(3):
            weights = np.zeros((len(coords), 3, 3))
            weights[:, i, j] = 1.0  # the polarizability is the sum of those of the atoms
            gradient[i, j] = model.vjp(coords, types, None, {"polar": weights})[0]
    return gradient


def activity(tensor: Float) -> tuple[Float, Float]:
    """Raman activities (modes,), angstrom^4 per g/mol, and depolarization ratios, of linearly polarized light.

    Args:
        tensor: (modes, 3, 3) derivatives of the polarizability along normal coordinates.
    """
    mean = np.trace(tensor, axis1=1, axis2=2) / 3.0
    traceless = 0.5 * (tensor + np.swapaxes(tensor, 1, 2)) - mean[:, None, None] * np.eye(3)
    anisotropy = 1.5 * (traceless**2).sum(axis=(1, 2))
    isotropic = 45.0 * mean**2
    return isotropic + 7.0 * anisotropy, 3.0 * anisotropy / np.maximum(isotropic + 4.0 * anisotropy, 1e-300)


def spectrum(
    grid: Float, wavenumbers: Float, activities: Float, width: float, laser: float, temperature: float
) -> Float:
    """Intensities on a grid, 1/cm: Lorentzians of full width ``width``, weighted as light is scattered (Stokes)."""
    light = 1e7 / laser
    thermal = 1.0 - np.exp(-wavenumbers / (KELVIN_TO_WAVENUMBER * temperature))
    weights = activities * ((light - wavenumbers) / light) ** 4 / (wavenumbers * thermal)
    half = width / 2.0
    lines = half / np.pi / ((grid[:, None] - wavenumbers) ** 2 + half**2)
    summed: Float = lines @ weights
    return summed


def draw(path: str, grid: Float, intensity: Float, wavenumbers: Float, ratios: Float, title: str) -> None:
    """The spectrum, with the depolarization ratio at every line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    scale = intensity.max()
    axes.plot(grid, intensity / scale, color="C0", linewidth=1.2)
    near = 0.1 * (grid[-1] - grid[0])
    for k, (wavenumber, ratio) in enumerate(zip(wavenumbers, ratios, strict=True)):
        top = float(np.interp(wavenumber, grid, intensity)) / scale
        crowded_left = k > 0 and wavenumber - wavenumbers[k - 1] < near
        crowded_right = k + 1 < len(wavenumbers) and wavenumbers[k + 1] - wavenumber < near
        side = int(crowded_left) - int(crowded_right)  # labels of neighbours lean away from one another
        axes.annotate(
            f"{wavenumber:.0f}\n$\\rho$ = {ratio:.2f}",
            (wavenumber, top),
            xytext=(4 * side, 4),
            textcoords="offset points",
            ha=("right", "center", "left")[1 + side],
            fontsize=8,
        )
    axes.set(xlim=(grid[0], grid[-1]), ylim=(0.0, 1.2), title=title)
    axes.set(xlabel="Raman shift (1/cm)", ylabel="intensity (largest = 1)")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Relax, find the modes, differentiate, print, draw."""
    parser = argparse.ArgumentParser(description="Raman spectrum of a molecule.")
    parser.add_argument("--input", help="structure of a molecule (default: one of water)")
    parser.add_argument(
        "--model",
        default=str(HERE / "models" / "water_energy.safetensors"),
        help="energy model (default: that of a single molecule of water of this folder)",
    )
    parser.add_argument(
        "--polar",
        default=str(HERE / "models" / "water_polar.safetensors"),
        help="polarizability model, angstrom^3 (default: that of this folder)",
    )
    parser.add_argument("--force", type=float, default=1e-4, help="relax until, eV/angstrom (default: %(default)s)")
    parser.add_argument("--width", type=float, default=20.0, help="of the lines, 1/cm (default: %(default)s)")
    parser.add_argument("--laser", type=float, default=532.0, help="wavelength, nm (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=300.0, help="K (default: %(default)s)")
    parser.add_argument("--plot", default="raman.png", help="picture (default: %(default)s)")
    args = parser.parse_args()

    # float64: second derivatives by differences of forces ask for it
    energy = dpa2.load(args.model, precision="float64")
    polar = dpa2.load(args.polar, precision="float64")
    if energy.kind != "energy" or polar.kind != "polar":
        raise SystemExit(f"--model is of kind {energy.kind}, --polar of kind {polar.kind}: energy and polar are needed")
    coords, names = WATER, ["O", "H", "H"]
    if args.input:
        frame = next(iter(read_structures(args.input)[0]))
        if frame.box is not None:
            raise SystemExit(f"{args.input}: a structure without a cell is needed, a molecule")
        known = frame.names or energy.type_map
        coords, names = frame.coords, [known[t] for t in frame.types]

    coords = relax(energy, coords, names, args.force)
    mass = np.array([mass_of(name) for name in names])
    wavenumbers, modes = vibrations(force_constants(energy, coords, names), mass, coords)
    gradient = polarizability_gradient(polar, coords, names)
    tensors = np.einsum("ijax,kax->kij", gradient, modes)
    activities, ratios = activity(tensors)

    alpha = polar.evaluate(coords, names).outputs["global_polar"]
    print("polarizability, angstrom^3, principal values:", *(f"{x:.4f}" for x in np.linalg.eigvalsh(alpha)))
    print(f"{'mode':>4} {'wavenumber, 1/cm':>17} {'activity, A^4 mol/g':>20} {'depolarization':>15}")
    for k, row in enumerate(zip(wavenumbers, activities, ratios, strict=True)):
        print(f"{k + 1:4d} {row[0]:17.1f} {row[1]:20.3f} {row[2]:15.3f}")
    real = wavenumbers > 0.0
    if not real.all():
        print(f"{(~real).sum()} modes are imaginary and not drawn: the structure is no minimum of this model")
    grid = np.arange(0.0, 1.15 * wavenumbers.max() + 200.0, 2.0)
    shown = wavenumbers[real], activities[real]
    intensity = spectrum(grid, *shown, args.width, args.laser, args.temperature)
    draw(args.plot, grid, intensity, wavenumbers[real], ratios[real], "Raman spectrum")
    print(f"written {args.plot}")


if __name__ == "__main__":
    main()
