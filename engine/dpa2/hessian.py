"""Second derivatives of the energy: the part of :class:`dpa2.Model` that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError, OutOfMemoryError
from .gradients import check_direction
from .inputs import Batch, Float, check_input
from .runner import Progress, Runner
from .spins import Spins

if TYPE_CHECKING:
    from .files import ModelData


class SecondDerivatives(Spins):
    """The Hessian of the energy and its products with directions, exact to rounding (docs/theory.md, 15.6)."""

    _data: ModelData
    _device: str
    _engine: Any
    _runner: Runner

    @property
    def has_hessian(self) -> bool:
        """Whether :meth:`evaluate` computes Hessians by itself: a model of deepmd-kit's ``hessian_mode``.

        :meth:`hessian` is there for every potential of one network. False on a GPU, with the reference and where the
        model is compressed, which have no second derivatives.
        """
        config = self._data.config
        return self._device == "cpu" and config.get("hessian_mode", False) and not config.get("compression")

    def hessian_product(
        self,
        coords: ArrayLike,
        types: ArrayLike,
        box: ArrayLike | None,
        direction: ArrayLike,
        pbc: bool | Sequence[bool] | None = None,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> Float:
        """The Hessian of the energy times a direction: minus the change of the forces when atoms move along it.

        For the price of a few evaluations with forces, and no matrix. Exact to rounding, at fixed neighbour lists:
        nothing is done by differences.

        Args:
            coords, types, box, pbc, fparam, aparam: as for :meth:`evaluate`.
            direction: (natoms, 3), or several at once (n, natoms, 3). With a frame axis in ``coords`` (natoms, 3) for
                all frames, one per frame (nframes, natoms, 3), or several for each (nframes, n, natoms, 3).
            progress: called with (products done, products in all) after every one.

        Returns:
            In the shape of ``direction``, with an axis of frames in front if ``coords`` has one: ``H @ direction`` with
            H_ik = d2E/dx_i dx_k; in eV/angstrom^2 times the unit of the direction. Zero for virtual atoms.

        Products of small structures are computed side by side on the model's threads.

        Raises:
            UnsupportedModelError: no potential, a combination of models, or a compressed model: the message says which.
            InputError: ``direction`` of another shape or not finite; a model on a GPU, or the reference; see also
                :meth:`evaluate`, for OutOfMemoryError and for warnings as well.
        """
        self._check_hessian()
        batch = check_input(self._data.config, coords, types, box, pbc, fparam, aparam)
        nframes, natoms = batch.types.shape
        directions, several = check_direction(direction, nframes, natoms, batch.has_frame_axis)
        count = directions.shape[1]
        rows = np.empty((nframes * count, natoms, 3))

        def of_product(k: int, threads: int) -> Any:
            frame, which = divmod(k, count)
            velocity = directions[frame, which]
            rows[k], remarks = self._engine.hessian_product(*batch.frame(frame), velocity, threads)
            return remarks

        self._run_products(batch, of_product, rows, count, progress)
        out = rows.reshape(nframes, count, natoms, 3)
        out = out if several else out[:, 0]
        return out if batch.has_frame_axis else out[0]

    def hessian(
        self,
        coords: ArrayLike,
        types: ArrayLike,
        box: ArrayLike | None = None,
        pbc: bool | Sequence[bool] | None = None,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> Float:
        """The Hessian of the energy, d2E/dx_i dx_k: of phonons and vibrations the matrix of force constants.

        3 natoms products with single directions (see :meth:`hessian_product`), of small structures side by side on the
        model's threads. In periodic systems an atom moves together with all its images: the matrix is that of
        the wave vector 0 of the box.

        Args:
            coords, types, box, pbc, fparam, aparam: as for :meth:`evaluate`.
            progress: called with (rows done, rows in all) after every one.

        Returns:
            (3 natoms, 3 natoms), eV/angstrom^2; with a frame axis in ``coords`` one per frame. Row and column
            3 i + a belong to coordinate a of atom i, as in deepmd-kit. Symmetric to rounding. Zero for virtual atoms.

        Raises:
            UnsupportedModelError, InputError: see :meth:`hessian_product`.
            OutOfMemoryError: the matrix does not fit into memory, or a product does not.
        """
        self._check_hessian()
        batch = check_input(self._data.config, coords, types, box, pbc, fparam, aparam)
        found = self._hessians(batch, progress)
        return found if batch.has_frame_axis else found[0]

    def _check_hessian(self) -> None:
        self._refuse_spins("second derivatives")
        if self._device == "reference":
            raise InputError('the reference has no second derivatives: load the model with device="cpu"')
        if self._device != "cpu":
            raise InputError(
                f"second derivatives are computed on the CPU, and the model is on {self._device}: load it with "
                'device="cpu"'
            )

    def _hessians(self, batch: Batch, progress: Progress | None) -> Float:
        """(nframes, 3 natoms, 3 natoms): row by row, which columns are too."""
        nframes, natoms = batch.types.shape
        width = 3 * natoms
        _require_memory(nframes, natoms)
        rows = np.empty((nframes * width, width))

        def of_row(k: int, threads: int) -> Any:
            frame, which = divmod(k, width)
            unit = np.zeros(width)
            unit[which] = 1.0
            product, remarks = self._engine.hessian_product(*batch.frame(frame), unit.reshape(natoms, 3), threads)
            rows[k] = product.reshape(width)
            return remarks

        self._run_products(batch, of_row, rows, width, progress)
        return rows.reshape(nframes, width, width)

    def _run_products(self, batch: Batch, product: Any, rows: Float, per_frame: int, progress: Progress | None) -> None:
        checked = {"rows": "a second derivative"}
        large = "directions or parameters"
        self._runner.run(batch, product, {"rows": rows}, checked, progress, per_frame=per_frame, large=large)


def by_frames(progress: Progress, nframes: int, natoms: int) -> Progress:
    """Of rows of Hessians: ``progress`` with (frames done, frames in all) after the last row of each."""

    def of_rows(done: int, _: int) -> None:
        if done % (3 * natoms) == 0:
            progress(done // (3 * natoms), nframes)

    return of_rows


def _require_memory(nframes: int, natoms: int) -> None:
    """Raise :class:`OutOfMemoryError` if so many Hessians do not fit."""
    from ._native import available_memory

    wanted = 8 * nframes * (3 * natoms) ** 2
    available, limit = available_memory()
    if wanted > available:
        of = f"of {natoms} atoms" if nframes == 1 else f"of {nframes} frames with {natoms} atoms"
        raise OutOfMemoryError(
            f"the Hessian {of} takes {wanted / 1e9:.3g} GB, but {limit} leaves {available / 1e9:.3g} GB: ask for fewer "
            "frames at once, or for products with directions (hessian_product), which need no matrix"
        )
