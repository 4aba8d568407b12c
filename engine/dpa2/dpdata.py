"""DPA-2 models as a driver of dpdata, which finds it by itself where both are installed.

>>> import dpdata                                               # doctest: +SKIP
>>> labeled = dpdata.System("data", fmt="deepmd/npy").predict(driver="dpa2", model="model.pth")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from dpdata.driver import Driver
from numpy.typing import ArrayLike

from .errors import InputError

if TYPE_CHECKING:
    from .model import Model
    from .options import OnOverflow, Precision

__all__ = ["DPA2Driver"]


@Driver.register("dpa2")  # type: ignore[misc, unused-ignore]
class DPA2Driver(Driver):  # type: ignore[misc, unused-ignore]
    """Labels the frames of a ``dpdata.System``: ``system.predict(driver="dpa2", model="model.pth")``.

    Energies are in eV, forces in eV/angstrom, virials in eV with the sign of deepmd-kit, ``-dE/dstrain``, which is that
    of dpdata. Atoms go by their names; names of the system that no atom has do not matter. Frame and atomic parameters
    and spins are taken from the system, as ``fparam``, ``aparam`` and ``spins``, where it has them.

    Args:
        model: the path of a model file, a :class:`dpa2.Model`, or None for the embedded model of water.
        head, precision, threads, device, on_overflow: as for :func:`dpa2.load`; not with a :class:`dpa2.Model`.
        fparam: frame parameters for all frames, (numb_fparam,), in place of those of the system.
        aparam: atomic parameters for all frames, (natoms, numb_aparam) or (numb_aparam,), likewise.

    Raises:
        InputError: wrong arguments, a model that is no potential; when labelling, what :meth:`dpa2.Model.evaluate`
            refuses.
        ModelFileError: see :func:`dpa2.load`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model | None = None,
        *,
        head: str | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        device: str | None = None,
        on_overflow: OnOverflow | None = None,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
    ) -> None:
        from .embedded import model_of  # dpdata imports this module in every program: models only where they are used

        options = {
            "head": head,
            "precision": precision,
            "threads": threads,
            "device": device,
            "on_overflow": on_overflow,
        }
        self.model = model_of(model, options)
        if self.model.kind not in ("energy", "spin"):
            raise InputError(f"dpdata's labels are those of a potential, but this model is of kind {self.model.kind!r}")
        self._given = {"fparam": fparam, "aparam": aparam}

    def label(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a system with ``energies``, ``forces`` and ``virials``; called by dpdata.

        Args:
            data: that of a ``dpdata.System``; it stays as it is.

        Raises:
            InputError: the frames cannot be evaluated.
        """
        from .files.schema import parameters

        names, types = list(data["atom_names"]), np.asarray(data["atom_types"])
        if types.size and not (types.min() >= 0 and types.max() < len(names)):
            raise InputError(f"atom_types go from 0 to {len(names) - 1}, got {types.min()} to {types.max()}")
        coords = np.asarray(data["coords"])
        box = None if data.get("nopbc", False) else data["cells"]
        takes = parameters(self.model.config)
        given: dict[str, Any] = dict(self._given)
        for name, count in (("fparam", takes["numb_fparam"]), ("aparam", takes["numb_aparam"])):
            if given[name] is None and count > 0:
                given[name] = data.get(name)
        spins = data.get("spins") if self.model.kind == "spin" else None
        found = self.model.evaluate(coords, [names[t] for t in types], box, **given, spin=spins, hessian=False)
        labels = {"energies": found.energy, "forces": found.forces, "virials": found.virial}
        if self.model.kind == "spin":
            labels["force_mags"] = found.magnetic_forces
        return {**data, **labels}
