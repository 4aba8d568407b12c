"""``deepmd.infer.model_devi``: how far several potentials are from each other, or from labels, for arrays of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpa2.errors import InputError
from dpa2.inputs import Float

from .arguments import Array
from .potential import DeepPot

__all__ = ["calc_model_devi", "calc_model_devi_e", "calc_model_devi_f", "calc_model_devi_v"]


def _spread(values: ArrayLike, real: ArrayLike | None) -> Float:
    """Over the models, the first axis: the standard deviation, or the root mean square error."""
    found = np.asarray(values, dtype=np.float64)
    middle = found.mean(axis=0) if real is None else np.asarray(real, dtype=np.float64)
    spread: Float = np.sqrt(np.mean((found - middle) ** 2, axis=0))
    return spread


def _size(values: ArrayLike, real: ArrayLike | None) -> Float:
    """The norm of the models' mean, or of the labels."""
    middle = np.mean(np.asarray(values, dtype=np.float64), axis=0) if real is None else np.asarray(real)
    size: Float = np.linalg.norm(middle, axis=-1)
    return size


def calc_model_devi_f(
    fs: ArrayLike, real_f: ArrayLike | None = None, relative: float | None = None, atomic: bool = False
) -> tuple[Float, ...]:
    """The deviation of forces.

    Args:
        fs: (nmodels, nframes, natoms, 3).
        real_f: (nframes, natoms, 3): the error to these in place of the deviation.
        relative: divide by the norm of the mean, or of ``real_f``, plus this.
        atomic: also return that of every atom.

    Returns:
        the largest, the smallest and the mean over the atoms, (nframes,) each; with ``atomic`` also (nframes, natoms).
    """
    found = np.linalg.norm(_spread(fs, real_f), axis=-1)
    if relative is not None:
        found = found / (_size(fs, real_f) + relative)
    return (found.max(axis=-1), found.min(axis=-1), found.mean(axis=-1), *([found] if atomic else []))


def calc_model_devi_e(es: ArrayLike, real_e: ArrayLike | None = None) -> Float:
    """The deviation of energies (nmodels, nframes, 1), or their error to ``real_e`` (nframes, 1): (nframes,)."""
    return _spread(es, real_e)[..., 0]


def calc_model_devi_v(
    vs: ArrayLike, real_v: ArrayLike | None = None, relative: float | None = None
) -> tuple[Float, Float, Float]:
    """The deviation of virials.

    Args:
        vs: (nmodels, nframes, 9). real_v: (nframes, 9): the error to these in place of the deviation.
        relative: divide by the norm of the mean, or of ``real_v``, plus this. deepmd-kit 3.2.0 divides arrays whose
            shapes do not fit there.

    Returns:
        the largest, the smallest and the root mean square over the components, (nframes,) each.
    """
    found = _spread(vs, real_v)
    if relative is not None:
        found = found / (_size(vs, real_v) + relative)[..., None]
    return found.max(axis=-1), found.min(axis=-1), np.linalg.norm(found, axis=-1) / 3.0


def calc_model_devi(
    coord: ArrayLike,
    box: ArrayLike | None,
    atype: ArrayLike,
    models: Sequence[DeepPot],
    fname: str | None = None,
    frequency: int = 1,
    mixed_type: bool = False,
    fparam: ArrayLike | None = None,
    aparam: ArrayLike | None = None,
    real_data: Mapping[str, Any] | None = None,
    atomic: bool = False,
    relative: float | None = None,
    relative_v: float | None = None,
) -> Array:
    """The deviation of potentials on frames of as many atoms.

    Args:
        coord, box, atype, fparam, aparam, mixed_type: as for :meth:`DeepPot.eval`.
        models: two at least; one is enough with ``real_data``.
        fname: rows are appended to this file, as ``dpa2 model-devi`` writes them.
        frequency: steps between frames.
        real_data: ``energy`` (nframes, 1) and ``virial`` (nframes, 9) per atom, ``force`` (nframes, natoms, 3): the
            errors to these in place of the deviation.
        atomic: also the deviation of the force on every atom.
        relative, relative_v: see :func:`calc_model_devi_f` and :func:`calc_model_devi_v`.

    Returns:
        (nframes, 8): step, max_devi_v, min_devi_v, avg_devi_v, max_devi_f, min_devi_f, avg_devi_f, devi_e; virials and
        energies per atom, eV; forces eV/angstrom. With ``atomic`` further natoms columns.

    Raises:
        InputError: no models; and see :meth:`DeepPot.eval`.
    """
    if not models:
        raise InputError("models is empty: a deviation needs some")
    found = [model.eval(coord, box, atype, fparam=fparam, aparam=aparam, mixed_type=mixed_type) for model in models]
    natoms = np.shape(atype)[-1]
    energies, forces, virials = (np.stack([one[k] for one in found]) for k in range(3))
    real = dict.fromkeys(("energy", "force", "virial")) if real_data is None else real_data
    of_forces = calc_model_devi_f(forces, real["force"], relative, atomic=True)
    columns = [
        np.arange(forces.shape[1]) * float(frequency),
        *calc_model_devi_v(virials / natoms, real["virial"], relative_v),
        *of_forces[:3],
        calc_model_devi_e(energies / natoms, real["energy"]),
    ]
    rows: Array = np.concatenate([np.stack(columns, axis=1), *([of_forces[3]] if atomic else [])], axis=1)
    if fname is not None:
        _append(fname, rows, atomic)
    return rows


def _append(path: str, rows: Array, atomic: bool) -> None:
    from dpa2.deviation import columns_header, values_line

    with open(path, "a", encoding="utf-8") as file:
        file.write("# \n" + columns_header(atomic))
        for row in rows:
            file.write(values_line(int(row[0]), row[1:].tolist()))
