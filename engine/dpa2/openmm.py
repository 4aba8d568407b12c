"""DPA-2 potentials in OpenMM: :func:`make_force`. Needs OpenMM 8.4 or newer, which has ``PythonForce``.

>>> from dpa2.openmm import make_force                          # doctest: +SKIP
>>> system.addForce(make_force(topology, "model.pth"))          # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import ArrayLike
from openmm import unit

from .embedded import DEFAULT_SKIN, model_of
from .errors import InputError
from .files.schema import parameters
from .inputs import Float, Int, check_aparam, check_fparam, check_types, to_array
from .model import Model
from .options import OnOverflow, Precision

__all__ = ["Computation", "make_force"]

#: kJ/mol per eV: the elementary charge times Avogadro's number, both exact in the SI
KJ_PER_MOL = 1.602176634e-19 * 6.02214076e23 / 1000.0
#: angstrom per nm
ANGSTROM = 10.0


class Computation:
    """What OpenMM calls in every step: energy and forces at the positions of a ``State``.

    It can be pickled, and takes the weights of the model along, as ``openmm.XmlSerializer`` needs it.

    Args:
        model: a potential.
        types: (natoms,) indices into the type map of the model, of the particles that OpenMM passes.
        periodic: whether the box of the ``State`` is that of the atoms.
        fparam, aparam: as for :meth:`dpa2.Model.evaluate`.
    """

    def __init__(self, model: Model, types: Int, periodic: bool, fparam: Any = None, aparam: Any = None) -> None:
        self.model = model
        self.types = types
        self.periodic = periodic
        self.fparam = fparam
        self.aparam = aparam

    def __call__(self, state: Any) -> tuple[float, Float]:
        """Energy in kJ/mol, and forces (natoms, 3) in kJ/mol/nm.

        Raises:
            InputError: what cannot be evaluated. OpenMM passes the message on in an ``OpenMMException``.
        """
        coords = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM
        if len(coords) != len(self.types):
            raise InputError(
                f"dpa2: the force was made for {len(self.types)} particles, but the system has {len(coords)}; make it "
                "from the topology of this system, and give particles= for a part of it"
            )
        box = None
        if self.periodic:
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer) * ANGSTROM
        found = self.model.evaluate(coords, self.types, box, None, self.fparam, self.aparam, hessian=False)
        return float(found.energy) * KJ_PER_MOL, np.asarray(found.forces) * (KJ_PER_MOL * ANGSTROM)


def make_force(
    atoms: Any,
    model: str | os.PathLike[str] | Model | None = None,
    *,
    particles: Sequence[int] | None = None,
    periodic: bool | None = None,
    head: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    device: str | None = None,
    on_overflow: OnOverflow | None = None,
    skin: float | None = None,
    fparam: ArrayLike | None = None,
    aparam: ArrayLike | None = None,
) -> openmm.PythonForce:
    """A force for ``openmm.System.addForce``: the energy of a DPA-2 model and its forces, on any platform of OpenMM.

    Args:
        atoms: what all particles of the system are: an ``openmm.app.Topology``, or a sequence with an element symbol,
            or an index into the model's type map, for each.
        model: the path of a model file, a :class:`dpa2.Model`, or None for the embedded model of water.
        particles: indices of the particles that the model is for; all by default. The energy is that of these alone,
            as if there were no others: forces between them and the rest are those of other forces of the system.
        periodic: whether the box of the system repeats the atoms. By default a topology decides, by its box; without
            one it has to be said.
        head, precision, threads, device, on_overflow: as for :func:`dpa2.load`; not with a :class:`dpa2.Model`.
        skin: how far neighbour lists reach beyond the cutoff to be reused, angstrom; 1 by default. Forces are the same
            with any skin. Not with a :class:`dpa2.Model`.
        fparam: frame parameters, (numb_fparam,).
        aparam: atomic parameters of the particles that the model is for, (natoms, numb_aparam) or (numb_aparam,).

    Returns:
        An ``openmm.PythonForce``, named ``dpa2``. ``openmm.XmlSerializer`` keeps it together with the model.

    Raises:
        InputError: wrong arguments, an element that the model does not know, a model that is no potential.
        ModelFileError: see :func:`dpa2.load`.
    """
    if not hasattr(openmm, "PythonForce"):
        raise InputError(
            f"OpenMM {openmm.version.version} has no PythonForce; install 8.4 or newer with: pip install 'dpa2[openmm]'"
        )
    options = {
        "head": head,
        "precision": precision,
        "threads": threads,
        "device": device,
        "on_overflow": on_overflow,
        "skin": skin,
    }
    loaded = model_of(model, options, skin=DEFAULT_SKIN)
    if loaded.kind != "energy":
        raise InputError(f"a force in OpenMM is made of a potential, but this model is of kind {loaded.kind!r}")
    names, box = _names(atoms)
    chosen = list(range(len(names))) if particles is None else _chosen(particles, len(names))
    types = _types([names[k] for k in chosen], chosen, loaded)
    if periodic is None:
        periodic = box
    if not isinstance(periodic, (bool, np.bool_)):
        raise InputError("periodic must be True or False where there is no topology to take it from")
    if not chosen:
        raise InputError("there are no particles to make a force for")
    takes = parameters(loaded.config)
    check_fparam(fparam, takes, 1, False)
    check_aparam(aparam, takes, 1, len(chosen), False)
    given = [None if each is None else np.array(each, dtype=np.float64) for each in (fparam, aparam)]
    computation = Computation(loaded, types, bool(periodic), *given)
    force = openmm.PythonForce(computation, {}, [] if particles is None else chosen)
    force.setUsesPeriodicBoundaryConditions(bool(periodic))
    force.setName("dpa2")
    return force


def _names(atoms: Any) -> tuple[list[Any], bool | None]:
    """What every particle is, and whether there is a box; None where that is not said."""
    if hasattr(atoms, "getPeriodicBoxVectors") and hasattr(atoms, "atoms"):
        elements = [atom.element for atom in atoms.atoms()]
        return [None if e is None else e.symbol for e in elements], atoms.getPeriodicBoxVectors() is not None
    if isinstance(atoms, str):
        raise InputError("atoms must be a topology, or a sequence with a symbol for each particle, got one string")
    array = to_array(atoms, "atoms")
    if array.ndim != 1:
        raise InputError(
            f"atoms must be a topology of OpenMM, or a sequence with a symbol for each particle, got {type(atoms)}"
        )
    return array.tolist(), None


def _chosen(particles: Any, natoms: int) -> list[int]:
    array = to_array(particles, "particles")
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise InputError("particles must be a sequence of indices of particles, at least one; leave it out for all")
    if array.min() < 0 or array.max() >= natoms:
        raise InputError(f"particles: indices go from 0 to {natoms - 1}, got {array.min()} to {array.max()}")
    if len(np.unique(array)) < array.size:
        raise InputError("particles: an index stands there twice")
    return [int(k) for k in array]


def _types(names: list[Any], chosen: list[int], model: Model) -> Int:
    for name, k in zip(names, chosen, strict=True):
        if name is None:
            raise InputError(f"particle {k} has no element (a virtual site?); leave it out with particles=")
        if isinstance(name, str) and name not in model.type_map:
            known = ", ".join(model.type_map)
            raise InputError(f"particle {k} is {name!r}, which the model does not know; its types are {known}")
    return np.array(check_types(names, model.type_map, 1, len(names), False)[0])
