"""What a model says of atoms, and of the whole structure, by the type of its fitting net (theory 9.5).

ener        atom_energy (1)         energy = sum
dipole      dipole (3)              global_dipole = sum
polar       polar (3, 3)            global_polar = sum
dos         atom_dos (numb_dos)     dos = sum
property    atom_<name> (task_dim)  <name> = sum, or with intensive sum / number of active atoms (0/0 is no number)
population  population (2)          nothing
"""

from __future__ import annotations

import numpy as np

from .common import Array, Config, IntArray, Weights
from .fitting import fitting
from .tensor import dipole, polar

#: fitting types whose sums have derivatives
DIFFERENTIABLE = ("ener", "dipole")


def names(option: Config) -> tuple[str, str | None]:
    """The names of the values of atoms and of the structure; option is config["fitting_net"]."""
    if option["type"] == "property":
        return f"atom_{option['property_name']}", str(option["property_name"])
    known: dict[str, tuple[str, str | None]] = {
        "ener": ("atom_energy", "energy"),
        "dipole": ("dipole", "global_dipole"),
        "polar": ("polar", "global_polar"),
        "dos": ("atom_dos", "dos"),
        "population": ("population", None),
    }
    return known[option["type"]]


def head(
    descriptor: Array,
    rotation: Array,
    types: IntArray,
    active: Array,
    fparam: Array | None,
    aparam: Array | None,
    config: Config,
    weights: Weights,
) -> Array:
    """(n, ...) the values of atoms. Arguments as for ``fitting``; rotation (n, g2_dim, 3)."""
    option = config["fitting_net"]
    z = fitting(descriptor, types, active, fparam, aparam, config, weights)
    if option["type"] == "dipole":
        return dipole(z, rotation)
    if option["type"] == "polar":
        return polar(z, rotation, types, active, option, weights)
    return z


def reduced(values: Array, active: Array, option: Config) -> Array:
    """(...) the value of the structure, of those of the atoms (n, ...)."""
    total: Array = values.sum(axis=0)
    if option["type"] == "property" and option["intensive"]:
        with np.errstate(invalid="ignore"):
            total = total / active.sum()
    return total
