"""Models as users see them: load one, evaluate structures with it, save it.

Lengths in angstrom, energies in eV, forces in eV/angstrom, virials in eV (``virial = -dE/dstrain``; the pressure is
``trace(virial) / (3 volume)``).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .engines import make_engine, make_gpu
from .errors import InputError
from .files import schema
from .gradients import check_weights
from .hessian import SecondDerivatives, by_frames
from .inputs import Float, box_of_atoms, check_input, counted, is_atoms
from .memory import MemoryEstimate
from .options import Atomic, OnOverflow, Precision, atomic_mode, checked_device, checked_flag, checked_skin, choice
from .quantities import OF_DESCRIPTOR, evaluated, has_derivatives, must_be_finite, weighable
from .remarks import Reporter
from .results import Output, Result
from .runner import Progress, Runner
from .threads import checked_threads

if TYPE_CHECKING:
    from ase import Atoms

    from .files import ModelData


class Model(SecondDerivatives, MemoryEstimate):
    """A DPA-2 model, ready to evaluate. Made by :func:`dpa2.load`; immutable, and safe to share between threads."""

    def __init__(
        self,
        data: ModelData,
        precision: Precision | None = None,
        threads: int | None = None,
        device: str = "cpu",
        on_overflow: OnOverflow = "warn",
        skin: float = 0.0,
    ) -> None:
        self._device = checked_device(device)
        self._on_overflow = choice(on_overflow, ("warn", "error", "ignore"), "on_overflow")
        if precision is not None:
            choice(precision, ("float64", "float32"), "precision")
        self._threads = checked_threads(threads)
        self._requested = (precision, None if threads is None else self._threads)
        if device == "reference" and precision == "float32":
            raise InputError('the reference computes in float64 only; leave precision out, or use device="cpu"')
        own = "float64" if device == "reference" else str(data.config["precision"])
        self._precision = precision or own
        self._data = data
        self._reporter = Reporter(data.config, on_overflow)
        from ._native import kind, outputs

        self._kind = kind(json.dumps(data.config))
        self._outputs = tuple(Output(*description) for description in outputs(json.dumps(data.config)))
        self._skin = checked_skin(skin, self.rcut)
        on_gpu = self._device.startswith("cuda")
        self._gpu = make_gpu(data, self._precision, self._device) if on_gpu else None
        self._runner = Runner(self._gpu, self._reporter, self._threads if self._device == "cpu" else 1)
        self._engine: Any = None if on_gpu else make_engine(data, self._precision, self._device, self._skin)

    @property
    def type_map(self) -> tuple[str, ...]:
        """The names of the atom types, in the order of their indices."""
        return tuple(self._data.config["type_map"])

    @property
    def rcut(self) -> float:
        """The cutoff of the neighbour list, angstrom. Messages pass between neighbours, so energies reach farther."""
        return schema.rcut(self._data.config)

    @property
    def descriptor_dim(self) -> int:
        """The length of an atom's descriptor; in a combination of models that of the first which has one."""
        return self._shape("descriptor")[0]

    @property
    def kind(self) -> str:
        """What the outputs are: "energy", "spin", "dipole", "polar", "dos", "property" or "population"."""
        return self._kind

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the model computes: what :meth:`evaluate` finds, then the two results of :meth:`descriptor`.

        A Hessian (:attr:`has_hessian`) is not among them: it is neither of the structure nor of an atom.
        """
        return self._outputs

    def _shape(self, name: str) -> tuple[int, ...]:
        """Of the value of an output."""
        return next(output.shape for output in self._outputs if output.name == name)

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration with deepmd-kit's names, every default filled in. A copy: changes have no effect."""
        return copy.deepcopy(self._data.config)

    @property
    def precision(self) -> str:
        """``"float64"`` or ``"float32"``: what the model computes in. Results are float64 arrays either way."""
        return self._precision

    @property
    def threads(self) -> int:
        """The number of threads of an evaluation."""
        return self._threads

    @property
    def device(self) -> str:
        """``"cpu"`` (the compiled core), ``"cuda"`` or ``"cuda:N"`` (a GPU) or ``"reference"`` (NumPy)."""
        return self._device

    @property
    def skin(self) -> float:
        """How far neighbour lists reach beyond the cutoff to be reused from call to call, angstrom; 0: no reuse."""
        return self._skin

    @overload
    def descriptor(
        self,
        coords: ArrayLike | Atoms,
        types: ArrayLike | None = None,
        box: ArrayLike | None = None,
        pbc: bool | Sequence[bool] | None = None,
        rot_mat: Literal[False] = False,
        *,
        spin: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Float: ...

    @overload
    def descriptor(
        self,
        coords: ArrayLike | Atoms,
        types: ArrayLike | None = None,
        box: ArrayLike | None = None,
        pbc: bool | Sequence[bool] | None = None,
        *,
        rot_mat: Literal[True],
        spin: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> tuple[Float, Float]: ...

    @overload
    def descriptor(
        self,
        coords: ArrayLike | Atoms,
        types: ArrayLike | None = None,
        box: ArrayLike | None = None,
        pbc: bool | Sequence[bool] | None = None,
        rot_mat: bool = False,
        *,
        spin: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Float | tuple[Float, Float]: ...

    def descriptor(
        self,
        coords: ArrayLike | Atoms,
        types: ArrayLike | None = None,
        box: ArrayLike | None = None,
        pbc: bool | Sequence[bool] | None = None,
        rot_mat: bool = False,
        *,
        spin: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> Float | tuple[Float, Float]:
        """The descriptor of every atom: invariant under rotation, translation and permutation of equal atoms.

        Of a model of any kind; in a combination of models that of the first which has one; in a spin model that of the
        atoms among atoms and virtual atoms.

        Args:
            coords, types, box, pbc, spin, progress: as for :meth:`evaluate`. ``coords`` may be an ``ase.Atoms``, which
                says the others itself; spins are its initial magnetic moments.
            rot_mat: also return the equivariant rotation matrices.

        Returns:
            (natoms, descriptor_dim), dimensionless; with ``rot_mat`` a pair, the second (natoms, g2_dim, 3).
            With a frame axis in ``coords`` both have one in front.

        Raises:
            InputError: see :meth:`evaluate`.
        """
        if is_atoms(coords):
            coords, types, box, pbc, spin = self._of_atoms(coords, types, box, pbc, spin)
        if frames := self._on_device(coords, types, box, pbc):
            found, rotation = frames.descriptor(rot_mat)
            return (found, rotation) if rot_mat else found
        batch = check_input(self._data.config, coords, types, box, pbc, spin=spin, with_parameters=False)
        nframes, natoms = batch.types.shape
        out = np.empty((nframes, natoms, self.descriptor_dim))
        rotations = np.empty((nframes, natoms, *self._shape("rot_mat"))) if rot_mat else None

        def of_frame(f: int, threads: int) -> Any:
            found = self._engine.descriptor(*batch.frame(f)[:4], bool(rot_mat), threads, **batch.spins_of(f))
            out[f], rotation, remarks = found
            if rotations is not None:
                rotations[f] = rotation
            return remarks

        results = {"descriptor": out} if rotations is None else {"descriptor": out, "rot_mat": rotations}
        self._runner.run(batch, of_frame, results, {"descriptor": "the descriptor"}, progress)
        drop = (slice(None) if batch.has_frame_axis else 0,)
        return out[drop] if rotations is None else (out[drop], rotations[drop])

    def _of_atoms(self, atoms: Any, *others: Any) -> tuple[Any, ...]:
        """Coordinates, types, box, pbc and spins of a structure of ASE, beside which nothing else may say them."""
        if any(other is not None for other in others):
            raise InputError("an ase.Atoms says its types, box, pbc and spins itself: leave them out")
        spins = None
        if self._kind == "spin":
            from .ase import spins_of_atoms

            spins = spins_of_atoms(atoms)
        return atoms.positions, atoms.get_chemical_symbols(), *box_of_atoms(atoms), spins

    def evaluate(
        self,
        coords: ArrayLike,
        types: ArrayLike | None = None,
        box: ArrayLike | None = None,
        pbc: bool | Sequence[bool] | None = None,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        atomic: Atomic = False,
        *,
        spin: ArrayLike | None = None,
        forces: bool = True,
        hessian: bool | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Everything that the model computes for one structure or for many: of energy models energy, forces, virial.

        Anything with ``__array__`` or DLPack in the memory of the CPU serves as an array. With ``device="cuda"``,
        ``coords`` may lie on the GPU (DLPack): the answers then do too, as CuPy arrays, not checked for finiteness,
        and :meth:`Result.check` says when they stand.

        Args:
            coords: (natoms, 3) or (nframes, natoms, 3), angstrom. Atoms may lie outside the box.
            types: (natoms,) or (nframes, natoms): element symbols, or indices into :attr:`type_map`. A negative index
                is a virtual atom: nobody's neighbour, no energy, no force.
            box: None (open), (3, 3) or (9,) with lattice vectors as rows, angstrom; or one per frame in front.
            pbc: periodic directions: None (all of them if there is a box), a bool, or three.
            fparam: frame parameters, (numb_fparam,) or (nframes, numb_fparam); the model's own default if left out.
            aparam: atomic parameters, (natoms, numb_aparam), (nframes, natoms, numb_aparam), or (numb_aparam,) for all.
            atomic: also return the virial per atom. True or "edge": half of each edge's share to either end, which
                does not depend on how atoms are wrapped; "deepmd": as deepmd-kit 3.2.0 defines it, which does. It means
                nothing where a model has no derivatives.
            spin: of spin models, (natoms, 3) or (nframes, natoms, 3), in the unit of the data that the model was
                trained on; those of types without spins (:attr:`use_spin`) have to be there and do not matter.
            forces: False: values only, in about a third of the time; the result has no forces and no virial.
            hessian: also compute the Hessian, ``result.outputs["hessian"]`` (3 natoms, 3 natoms); None: with forces,
                of models with :attr:`has_hessian`. See :meth:`hessian` for what it is and costs.
            progress: called with (frames done, frames in all) after every frame.

        Returns:
            A :class:`Result`. A frame axis in ``coords`` means a frame axis on every field. Dipoles have derivatives,
            as ``force`` and ``virial`` of :attr:`Result.outputs`; other kinds than energies and dipoles have none.

        Many small frames are evaluated side by side on the model's threads, large ones one after the other; on a GPU
        small frames as one batch.

        Raises:
            OutOfMemoryError: the structure needs more memory than there is (see :meth:`memory_estimate`).
            InputError: wrong shapes, unknown types, coordinates that are not finite, a singular box, missing or
                unexpected parameters; atoms nearer than a pair table begins; more neighbours than ``sel`` if the model
                was loaded with ``on_overflow="error"``.

        Warns:
            NeighborOverflowWarning: once per model, when an atom has more neighbours than ``sel``.
            ClosePairWarning: once per model, when two atoms that interact are closer than half of the least distance
                in the model's training data, or than 0.5 angstrom where the model does not know it.
            TableEnergyWarning: once per model, when one that goes over to a pair table gives an atom the table's
                energy because all others are far away.
        """
        mode, gradient = atomic_mode(atomic), checked_flag(forces, "forces")
        if not has_derivatives(self._outputs):
            mode, gradient = 0, False
        elif mode and not gradient:
            raise InputError("the atomic virial is computed with forces only: leave out atomic, or forces=False")
        second = (self.has_hessian and gradient) if hessian is None else checked_flag(hessian, "hessian")
        if second:
            self._check_hessian()
        if frames := self._on_device(coords, types, box, pbc):
            shapes = evaluated(self._outputs, frames.natoms, gradient, mode != 0)
            return Result.of_outputs(self._kind, *frames.evaluate(fparam, aparam, mode, shapes))
        batch = check_input(self._data.config, coords, types, box, pbc, fparam, aparam, spin=spin)
        nframes, natoms = batch.types.shape
        shapes = evaluated(self._outputs, natoms, gradient, mode != 0)
        results: dict[str, Any] = {name: np.empty((nframes, *shape)) for name, shape in shapes.items()}

        def of_frame(f: int, threads: int) -> Any:
            found = self._engine.evaluate(*batch.frame(f), mode, threads, gradient, **batch.spins_of(f))
            for name, shape in shapes.items():
                results[name][f] = np.reshape(found[name], shape)
            return found["remarks"]

        checked = must_be_finite(self._kind, self._outputs)
        self._runner.run(batch, of_frame, results, checked, None if second and natoms else progress, atomic=mode)
        if second:
            results["hessian"] = self._hessians(batch, progress and by_frames(progress, nframes, natoms))
        mask = counted(batch.types, self._data.config["atom_exclude_types"]).astype(np.int32)
        results.setdefault("mask", mask)  # a property may have this name
        if self._kind == "spin":
            results["mask_mag"] = self._magnetic(batch.types)[:, :, None]
        return Result.of_outputs(self._kind, results if batch.has_frame_axis else {n: a[0] for n, a in results.items()})

    def vjp(
        self,
        coords: ArrayLike,
        types: ArrayLike,
        box: ArrayLike | None,
        weights: Mapping[str, ArrayLike],
        pbc: bool | Sequence[bool] | None = None,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> tuple[Float, Float]:
        """The gradient of a weighted sum of outputs, a vector-Jacobian product, at the price of an evaluation.

        The sum S takes the values of atoms: sum_i w_i E_i of atomic energies, sum_ik w_ik mu_ik of dipoles, sum_ic g_ic
        D_ic of descriptors and so on, or several together. With w = 1 of energies its gradients are minus the forces
        and minus the virial.

        Args:
            coords, types, box, pbc, progress: as for :meth:`evaluate`.
            weights: arrays by the names of outputs, in their shapes: "descriptor" (natoms, descriptor_dim), "rot_mat"
                (natoms, g2_dim, 3), and whatever the model has one of per atom: "atom_energy" (natoms,), "dipole"
                (natoms, 3), "polar" (natoms, 3, 3), "atom_dos", "population", ``"atom_"`` and the name of a property;
                with a frame axis in ``coords`` also one per frame.
            fparam, aparam: as for :meth:`evaluate`; they do not matter for descriptors and rotation matrices.

        Returns:
            dS/dx (natoms, 3), for S in eV in eV/angstrom, and dS/de (3, 3) for a strain e that moves coordinates and
            box, ``x -> x + e @ x`` for a column x. With a frame axis in ``coords`` both have one in front.

        Raises:
            InputError: unknown names or wrong shapes in ``weights``; see also :meth:`evaluate`.
        """
        self._refuse_spins("gradients of weighted sums")
        widths = self._weighable()
        if frames := self._on_device(coords, types, box, pbc):
            on_device: tuple[Float, Float] = frames.vjp(weights, widths, fparam, aparam)
            return on_device
        of_fitting = isinstance(weights, Mapping) and any(
            name in widths for name in weights if name not in OF_DESCRIPTOR
        )
        batch = check_input(self._data.config, coords, types, box, pbc, fparam, aparam, with_parameters=of_fitting)
        nframes, natoms = batch.types.shape
        given = check_weights(weights, widths, nframes, natoms, batch.has_frame_axis)
        gradient, strain = np.empty((nframes, natoms, 3)), np.empty((nframes, 3, 3))

        def of_frame(f: int, threads: int) -> Any:
            rows = {name: array[f] for name, array in given.items()}
            gradient[f], strain[f], remarks = self._engine.vjp(*batch.frame(f), rows, threads)
            return remarks

        results, checked = {"force": gradient, "virial": strain}, {"force": "a gradient", "virial": "a gradient"}
        self._runner.run(batch, of_frame, results, checked, progress, weights=given, large="weights or parameters")
        return (gradient, strain) if batch.has_frame_axis else (gradient[0], strain[0])

    def _weighable(self) -> dict[str, tuple[int, ...]]:
        """The outputs that have a gradient by weights, and the shape of an atom's value."""
        return {o.name: o.shape for o in self._outputs if weighable(o) or o.name in OF_DESCRIPTOR}

    def check(self) -> bool:
        """Wait for everything that was queued on a GPU, for arrays that lie there, since the last check.

        Returns:
            Whether all results stand. False: neighbour lists of an evaluation had grown beyond their buffers, which
            are larger now, and its results hold NaN; :meth:`Result.check` has it done again, and so does the same call.

        Raises:
            InputError: an atom that could not be evaluated.
        """
        return True if self._gpu is None else self._gpu.queue.check()

    def _on_device(self, *frames: Any) -> Any:
        """Coordinates, types, box and pbc, where the model and the coordinates are on a GPU; else None."""
        if self._gpu is None:
            return None
        from .cuda.gpu import device_frames

        at_once = self._on_overflow == "error"  # before the result is used
        return device_frames(self._gpu, self._data.config, self._reporter, at_once, *frames)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to ``path`` in the native format (``.safetensors``), weights as they were in its file.

        Raises:
            InputError: ``path`` is no path, or does not end in ``.safetensors``. OSError: it cannot be written.
        """
        from .files import checked_path, write_safetensors

        where = checked_path(path)
        if where.suffix != ".safetensors":
            raise InputError(
                f"models are saved in the native format, under a name ending in .safetensors, got {str(where)!r}"
            )
        write_safetensors(where, self._data)

    def __repr__(self) -> str:
        types = " ".join(self.type_map[:8]) + (f" ... ({len(self.type_map)} types)" if len(self.type_map) > 8 else "")
        plural = "" if self._threads == 1 else "s"
        kind = "" if self._kind == "energy" else f"{self._kind}, "
        return (
            f"<dpa2.Model {types}: {kind}descriptor_dim {self.descriptor_dim}, rcut {self.rcut:g}, {self._precision}, "
            f"{self._device}, {self._threads} thread{plural}>"
        )

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Weights travel along, so that a worker needs no access to the file; the thread count is chosen again there.
        precision, threads = self._requested
        options = (precision, threads, self._device, self._on_overflow, self._skin)
        return _rebuild, (self._data.config, self._data.weights, self._data.frozen, *options)


def _rebuild(config: dict[str, Any], weights: dict[str, NDArray[Any]], frozen: tuple[str, ...], *options: Any) -> Model:
    from .files import ModelData

    return Model(ModelData(config, weights, frozen=frozen), *options)


class _Embedded:
    """Stands for the model that comes with the package; None does not, which may be a mistake of the caller."""

    def __repr__(self) -> str:
        return "<the embedded model>"


def load(
    path: str | os.PathLike[str] | _Embedded = _Embedded(),  # noqa: B008 -- it has no state
    head: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    device: str = "cpu",
    on_overflow: OnOverflow = "warn",
    skin: float = 0.0,
    compress: bool | float | None = None,
) -> Model:
    """Read a model file: deepmd-kit's (``.pt``, ``.pth``, ``.dp``, ``.yaml``, ...) or dpa2's own (``.safetensors``).

    Nothing in the file is executed.

    Args:
        path: the model file, or its name in a folder that the environment variable ``DPA2_MODELS`` names; without one
            the embedded model of water, which knows O and H.
        head: which model of a multi-task file.
        precision: "float64" or "float32"; the file's own by default (the reference knows float64 only).
        threads: threads per evaluation; by default ``OMP_NUM_THREADS``, else the cores that this process may use.
        device: "cpu"; "cuda" or "cuda:N", an NVIDIA GPU; or "reference", the slow NumPy specification.
        on_overflow: what to do when an atom has more neighbours than the model's ``sel``: "warn" (once), "error",
            "ignore".
        skin: for molecular dynamics, angstrom: neighbours are looked for up to the cutoff + skin and remembered until
            an atom has moved by half the skin, or the atoms, types or box are others. Results are the same bits.
        compress: None: tables in place of embedding networks where the file has them, from ``dpa2 compress`` or
            deepmd-kit's ``dp compress``. False: the networks all the same. True or a number: tables made now, with
            errors of values and slopes of at most that number (1e-8).

    Raises:
        ModelFileError: a missing, corrupt or inconsistent file; UnsupportedModelError, a subclass: a model of a kind
            that dpa2 does not evaluate (the message names it).
        InputError: wrong arguments; a multi-task file without ``head`` (the message lists the heads).
    """
    from .files import read

    if isinstance(path, _Embedded):
        from .embedded import default_model_path

        with default_model_path() as embedded:
            return load(embedded, head, precision, threads, device, on_overflow, skin, compress)
    data = read(path, head)
    if compress is not None:
        from .compress import chosen

        data = chosen(data, compress)
    return Model(data, precision, threads, device, on_overflow, skin)
