"""Atomic energies from descriptors, and the gradient of their weighted sum with respect to g1."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device import Array
from .geometry import Geometry
from .launcher import BLOCK, Launcher
from .prepared import Prepared


class Fitting:
    """The fitting network on the atoms of one frame."""

    def __init__(
        self, model: Prepared, run: Launcher, geometry: Geometry, active: Array, fparam: Any, aparam: Any
    ) -> None:
        self.model, self.run, self.geometry, self.active = model, run, geometry, active
        self.fixed, self.aparam = model.fixed_input(fparam), model.atom_input(aparam)
        self._slopes: list[Array] = []

    def _hidden(self, g1: Array | None, kept: str) -> Array:
        """The last hidden layer; with a name in `kept`, slopes stay for the backward."""
        run, model, n = self.run, self.model, self.geometry.natoms
        width, ntebd = model.fitting_width, model.descriptor_dim - model.n1
        x = run.array("fitting_x", n, width)
        run.each(
            *("fitting.cu", "fitting_input", n * width, width, model.n1, ntebd, model.aparam_at, model.naparam, x, g1),
            *(model.tebd, self.geometry.types, self.fixed, self.aparam),
            defines=model.act_fitting,
        )
        self._slopes = []
        for number, layer in enumerate(model.fitting_layers):
            inputs, outputs = layer.w.shape
            z = run.array(f"fitting_z{kept}_{number}", n, outputs)
            y = run.array(f"fitting_y{number}", n, outputs)
            run.gemm(x, layer.w, z)
            run.each(
                *("fitting.cu", "fitting_hidden", n * outputs, outputs, inputs, layer.skip, y, z, z, x, layer.b),
                layer.idt,
                defines=model.act_fitting,
            )
            self._slopes.append(z)
            x = y
        return x

    def _energy(self, y: Array, energy: Array, vacuum: Array | None, raw: bool) -> None:
        model = self.model
        self.run.warps(
            *("fitting.cu", "fitting_energy", self.geometry.natoms, int(y.shape[1]), int(raw), energy, y),
            *(model.w_out, model.b_out, vacuum, model.energy_bias, self.active, self.geometry.types),
            defines=model.act_fitting,
        )

    def energies(self, g1: Array) -> Array:
        """(n) atomic energies, float64."""
        n, workspace, vacuum = self.geometry.natoms, self.run.workspace, None
        if self.model.vacuum:
            vacuum = workspace("vacuum_energy", n, np.float64)
            self._energy(self._hidden(None, "_vacuum"), vacuum, None, True)
        energy = workspace("atom_energy", n, np.float64)
        self._energy(self._hidden(g1, ""), energy, vacuum, False)
        return energy

    def backward(self, seed: Array | None) -> Array:
        """(n, n1) the gradient of sum_i seed_i E_i with respect to the g1 of the last `energies`."""
        run, model, n = self.run, self.model, self.geometry.natoms
        width = int(model.w_out.shape[0])
        dy = run.array(f"fitting_dy{len(model.fitting_layers)}", n, width)
        run.each(
            *("fitting.cu", "fitting_energy_backward", n * width, width, dy, model.w_out, self.active, seed),
            defines=model.act_fitting,
        )
        for number, layer in reversed(list(enumerate(model.fitting_layers))):
            inputs, outputs = layer.w.shape
            dz, dx = run.array("fitting_dz", n, outputs), run.array(f"fitting_dy{number}", n, inputs)
            run.run(
                *("fitting.cu", "fitting_hidden_backward", -(-n * max(inputs, outputs) // BLOCK), n, outputs, inputs),
                *(layer.skip, dz, dx, dy, self._slopes[number]),
                defines=model.act_fitting,
            )
            run.gemm(dz, layer.w, dx, transpose_b=True, accumulate=layer.skip != 0)
            dy = dx
        dg1 = run.array("dg1_fitting", n, model.n1)
        run.each(
            *("linear.cu", "copy_columns", n * model.n1, model.n1, 0, dg1, model.n1, dy, int(dy.shape[1])),
            defines=model.act,
        )
        return dg1
