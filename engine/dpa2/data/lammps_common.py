"""What LAMMPS's dumps and data files have in common: units, elements of types, tilted boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import InputError
from ..inputs import Float
from . import elements
from .labels import Labels
from .xyz_comment import BOHR

_UNITS = {"metal": 1.0, "real": 1.0, "electron": BOHR, "nano": 10.0, "micro": 1e4, "cgs": 1e8, "si": 1e10}
# the comment of a mass may be this far from the element that it names
_OFF = 0.2


def length_unit(style: str, where: str) -> float:
    """How many angstrom the unit of length of a style of units is."""
    if style not in _UNITS:
        raise InputError(
            f"{where}: lengths in units {style[:20]!r} are not angstrom; {', '.join(_UNITS)} are converted"
        )
    return _UNITS[style]


def restricted_box(bounds: Float, tilt: Sequence[float] = (0.0, 0.0, 0.0)) -> Float:
    """Lattice vectors as rows from lo and hi of each direction, (3, 2), and xy, xz, yz."""
    x, y, z = (bounds[:, 1] - bounds[:, 0]).tolist()
    xy, xz, yz = tilt
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])


def check_box(box: Float, where: str) -> Float:
    """Refuse a box with an edge that is not positive."""
    if not (np.isfinite(box).all() and (np.diag(box) > 0.0).all()):
        edges = " ".join(f"{edge:g}" for edge in np.diag(box))
        raise InputError(f"{where}: the edges of the box must be positive numbers, found {edges}")
    return box


def elements_by_mass(masses: Mapping[int, float], labels: Labels, where: str) -> dict[int, str]:
    """The elements of types by their masses, and a warning that says so."""
    found = elements.of_masses(masses, where)
    said = ", ".join(f"type {number} is {symbol} ({masses[number]:g})" for number, symbol in found.items())
    labels.warn("mass", f"{labels.path}: elements from the masses: {said}; --types says it otherwise")
    return found


def named_elements(masses: Mapping[int, float], names: Mapping[int, str], where: str) -> dict[int, str] | None:
    """The elements that comments or labels give to types; None if they are not elements.

    Raises:
        InputError: a mass that is not the element's at all.
    """
    if not names or not all(elements.is_element(name) for name in names.values()):
        return None
    for number, symbol in names.items():
        expected = elements.mass_of(symbol)
        mass = masses.get(number, expected)
        if not abs(mass - expected) <= _OFF * expected + (1.1 if symbol == "H" else 0.0):  # deuterium
            message = f"type {number} is called {symbol}, but its mass is {mass:g}, not {expected:g}"
            raise InputError(f"{where}: {message}; {elements.HINT}")
    return dict(names)


def symbols_of(numbers: Iterable[int], found: Mapping[int, str], where: str) -> list[str]:
    """The element of every atom by its type.

    Raises:
        InputError: a type of which nothing is known.
    """
    symbols = []
    for number in numbers:
        if number not in found:
            raise InputError(f"{where}: nothing says which element type {number} is; {elements.HINT}")
        symbols.append(found[number])
    return symbols
