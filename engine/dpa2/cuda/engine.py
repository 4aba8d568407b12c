"""A model on a device: descriptors, energies, forces and virials of one frame at a time."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpa2.inputs import Float, Int, Pbc
from dpa2.remarks import Remarks

from .device import Array, Device
from .entry import backward_entry, forward_entry
from .fitting import Fitting
from .geometry import Geometry, ListSource, make_geometry
from .launcher import Launcher
from .neighbors import NeighborSearch
from .prepared import Prepared
from .repformer import LayerState, Repformer

if TYPE_CHECKING:
    from dpa2.files import ModelData


def shapes(natoms: int, atomic: int, with_forces: bool) -> dict[str, tuple[int, ...]]:
    """Of the arrays of an evaluation, by name."""
    found: dict[str, tuple[int, ...]] = {"energy": (1,), "atom_energy": (natoms,)}
    if with_forces:
        found |= {"forces": (natoms, 3), "virial": (3, 3)}
    if atomic:
        found["atom_virial"] = (natoms, 3, 3)
    return found


class CudaEngine:
    """A model of one precision on one device. One evaluation at a time: they share the workspace.

    ``neighbors`` makes the neighbour lists; by default kernels do.
    """

    def __init__(self, data: ModelData, precision: str, device: Device, neighbors: ListSource | None = None) -> None:
        self.device = device
        self.config = data.config
        self.run = Launcher(device, precision)
        self.model = Prepared(data.config, data.weights, self.run)
        self.neighbors: ListSource = neighbors or NeighborSearch(device, data.config)
        self.lock = Lock()

    # ------------------------------------------------------------------------------------------- arrays of the host

    def evaluate(
        self,
        coords: Float,
        types: Int,
        box: Float | None,
        pbc: Pbc,
        fparam: Float | None,
        aparam: Float | None,
        atomic: int,
        threads: int,
        forces: bool = True,
    ) -> dict[str, Any]:
        """Energy, forces, virial, atomic energies and remarks of a frame, as NumPy arrays.

        ``atomic``: 0, or the definition of the atomic virial, 1 "edge" or 2 "deepmd". ``threads`` means nothing here.
        """
        with self.lock:
            found = self.evaluate_arrays(coords, types, box, pbc, fparam, aparam, atomic, forces)
            remarks = found.pop("remarks")
            host = {name: self.device.asnumpy(array) for name, array in found.items()}
        return {**host, "energy": float(host["energy"][0]), "remarks": remarks}

    def descriptor(
        self, coords: Float, types: Int, box: Float | None, pbc: Pbc, rot_mat: bool, threads: int
    ) -> tuple[Float, Float | None, Remarks]:
        """Descriptors (n, dim), rotation matrices (n, n2, 3) where asked for, and remarks."""
        with self.lock:
            descriptor, rotation, remarks = self.descriptor_arrays(coords, types, box, pbc, rot_mat)
            host = self._float64(descriptor)
            return host, None if rotation is None else self._float64(rotation), remarks

    def vjp(
        self,
        coords: Float,
        types: Int,
        box: Float | None,
        pbc: Pbc,
        fparam: Float | None,
        aparam: Float | None,
        atom_energy: Float | None,
        descriptor: Float | None,
        threads: int,
    ) -> tuple[Float, Float, Remarks]:
        """The gradient to coordinates (n, 3) and strain (3, 3) of the sum of atomic energies and descriptors with these
        weights, and remarks.
        """
        with self.lock:
            gradient, strain, remarks = self.vjp_arrays(
                coords, types, box, pbc, fparam, aparam, atom_energy, descriptor
            )
            return self.device.asnumpy(gradient), self.device.asnumpy(strain), remarks

    def _float64(self, array: Array) -> NDArray[np.float64]:
        return self.device.asnumpy(array).astype(np.float64)

    # ------------------------------------------------------------------------------------------- arrays of the device

    def evaluate_arrays(
        self,
        coords: Any,
        types: Any,
        box: Any,
        pbc: Pbc,
        fparam: Any = None,
        aparam: Any = None,
        atomic: int = 0,
        with_forces: bool = True,
    ) -> dict[str, Any]:
        """The same with arrays of the device, valid until the next call: nothing but sizes and ``remarks`` of the
        neighbour lists comes to the host, where the lists are made on the device.

        coords (n, 3) angstrom and types (n) may be arrays of the host or of any library that speaks DLPack.
        energy (1), forces (n, 3), virial (3, 3), atom_energy (n), atom_virial (n, 3, 3) with ``atomic``; float64.
        Without ``with_forces`` there is no backward pass.
        """
        x, kinds = self._atoms(coords, types)
        n, workspace, device = int(kinds.shape[0]), self.run.workspace, self.device
        if n == 0:
            zeros = {name: device.zeros(shape, np.float64) for name, shape in shapes(0, atomic, with_forces).items()}
            return {**zeros, "remarks": Remarks()}
        geometry = self._geometry(x, kinds, box, pbc)
        fitting = Fitting(self.model, self.run, geometry, self._active(kinds, geometry), fparam, aparam)
        frame = _Frame(self.model, self.run, geometry, gradient=with_forces)
        atom_energy = fitting.energies(frame.g1)
        energy, lists = workspace("energy", 1, np.float64), geometry.lists
        self.run.run("assemble.cu", "column_sums", 1, n, 1, energy, atom_energy, block=256)
        found = {"energy": energy, "atom_energy": atom_energy, "remarks": lists.remarks}
        if not with_forces:
            return found
        gamma = frame.backward(fitting.backward(None), "gamma")
        atom_virial = workspace("atom_virial", (n, 9), np.float64) if atomic else None
        found["forces"], found["virial"] = self._assemble(geometry, gamma, atom_virial)
        if atomic == 2:
            wrapped = device.asarray(_wrapped(device.asnumpy(x), box, pbc))
            for axis in range(3):
                seed = device.xp.ascontiguousarray(wrapped[:, axis])
                seeded = frame.backward(fitting.backward(seed), "seeded_gamma")
                self.run.run(
                    *("assemble.cu", "assemble_deepmd", -(-n // 128), n, axis, atom_virial, seeded, gamma, wrapped),
                    *(lists.d, lists.start, lists.centre, lists.incoming.begin, lists.incoming.edges),
                )
        if atom_virial is not None:
            found["atom_virial"] = atom_virial.reshape(n, 3, 3)
        return found

    def _active(self, kinds: Array, geometry: Geometry) -> Array:
        """(n) 1 for atoms that have an energy."""
        active: Array = (self.model.type_counts[geometry.types] * (kinds >= 0)).astype(np.float64)
        return active

    def _assemble(self, geometry: Geometry, gamma: Array, atom_virial: Array | None = None) -> tuple[Array, Array]:
        """Forces (n, 3) and virial (3, 3) from the gradients of the edge vectors; atomic virials (n, 9) if wanted."""
        n, workspace, lists = geometry.natoms, self.run.workspace, geometry.lists
        forces, virials = workspace("forces", (n, 3), np.float64), workspace("virials", (n, 9), np.float64)
        self.run.run(
            *("assemble.cu", "assemble", -(-n // 128), n, forces, virials, atom_virial, gamma, lists.d, lists.start),
            *(lists.incoming.begin, lists.incoming.edges),
        )
        virial = workspace("virial", 9, np.float64)
        self.run.run("assemble.cu", "column_sums", 9, n, 9, virial, virials, block=256)
        return forces, virial.reshape(3, 3)

    def vjp_arrays(
        self,
        coords: Any,
        types: Any,
        box: Any,
        pbc: Pbc,
        fparam: Any,
        aparam: Any,
        atom_energy: Any,
        descriptor: Any,
    ) -> tuple[Array, Array, Remarks]:
        """The same with arrays of the device; weights may be of the host as well, None for zeros."""
        x, kinds = self._atoms(coords, types)
        if kinds.shape[0] == 0:
            return self.device.zeros((0, 3), np.float64), self.device.zeros((3, 3), np.float64), Remarks()
        model, run = self.model, self.run
        geometry = self._geometry(x, kinds, box, pbc)
        frame = _Frame(model, run, geometry, gradient=True)
        dg1 = self.device.zeros((geometry.natoms, model.n1), run.real)
        if atom_energy is not None:
            fitting = Fitting(model, run, geometry, self._active(kinds, geometry), fparam, aparam)
            fitting.energies(frame.g1)
            dg1 = dg1 + fitting.backward(self.device.asarray(atom_energy, np.float64))
        if descriptor is not None:
            dg1 = dg1 + self.device.asarray(descriptor, np.float64)[:, : model.n1].astype(run.real)
        forces, virial = self._assemble(geometry, frame.backward(dg1, "gamma"))
        return -forces, -virial, geometry.lists.remarks

    def descriptor_arrays(
        self, coords: Any, types: Any, box: Any, pbc: Pbc, rot_mat: bool = False
    ) -> tuple[Array, Array | None, Remarks]:
        """The descriptor as arrays of the device, in the precision of the model."""
        x, kinds = self._atoms(coords, types)
        model, run = self.model, self.run
        if kinds.shape[0] == 0:
            empty = self.device.zeros((0, model.descriptor_dim), run.real)
            return empty, self.device.zeros((0, model.n2, 3), run.real) if rot_mat else None, Remarks()
        geometry = self._geometry(x, kinds, box, pbc)
        frame = _Frame(model, run, geometry, gradient=False)
        parts = [frame.g1, model.tebd[geometry.types]] if model.concat_tebd else [frame.g1]
        descriptor = self.device.xp.concatenate(parts, axis=1)
        rotation = frame.layers.rotation(frame.g2, frame.h2) if rot_mat else None
        return descriptor, rotation, geometry.lists.remarks

    def _atoms(self, coords: Any, types: Any) -> tuple[Array, Array]:
        return self.device.asarray(coords, np.float64), self.device.asarray(types, np.int32)

    def _geometry(self, coords: Array, types: Array, box: Any, pbc: Pbc) -> Geometry:
        lists = self.neighbors.build(coords, types, box, pbc)
        kinds = self.device.xp.maximum(types, np.int32(0))
        return make_geometry(self.neighbors, lists, kinds, self.model.use_three)


class _Frame:
    """The descriptor of one frame, and the way back from it."""

    def __init__(self, model: Prepared, run: Launcher, geometry: Geometry, gradient: bool) -> None:
        self._model, self._run, self._geometry = model, run, geometry
        self._entry = forward_entry(model, run, geometry, gradient)
        self.layers = Repformer(model, run, geometry, self._entry)
        self._states: list[LayerState] = []
        g1, self.g2, self.h2 = self._entry.g1, self._entry.g2, self._entry.h2
        for number, layer in enumerate(model.layers):
            state, out = self.layers.forward(number, g1, self.g2, self.h2, gradient)
            if not layer.last:
                self.g2, self.h2 = self.layers.forward_pairs(number, state, gradient)
            self._states.append(state)
            g1 = out
        self.g1 = g1

    def backward(self, dg1: Array, name: str) -> Array:
        """(ne, 3) gradients of the edge vectors, given that of the last g1; in the buffer called ``name``."""
        self.layers.begin_backward()
        for number in reversed(range(len(self._states))):
            dg1 = self.layers.backward(number, self._states[number], dg1)
        layers = self.layers
        return backward_entry(
            self._model, self._run, self._geometry, self._entry, dg1, layers.dg2, layers.dh2, layers.dw, name
        )


def _wrapped(coords: NDArray[np.float64], box: Any, pbc: Pbc) -> NDArray[np.float64]:
    """The coordinates inside the cell along its periodic directions."""
    if box is None:
        return coords
    rows = np.asarray(box, dtype=np.float64).reshape(3, 3)
    cells = np.floor(coords @ np.linalg.inv(rows)) * np.asarray(pbc, dtype=bool)
    inside: NDArray[np.float64] = coords - cells @ rows
    return inside
