"""From what users pass (lists, arrays of any kind, element symbols) to the arrays of the core, or a clear refusal.

Every function raises :class:`dpa2.InputError` with what was wrong, where, and what to do. Arrays that already have
the right type and layout are passed on without a copy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Float: TypeAlias = NDArray[np.float64]
Int: TypeAlias = NDArray[np.int32]
Pbc: TypeAlias = tuple[bool, bool, bool]

# Farther out than this (a millimetre) a double no longer resolves a bond to the precision that is promised. It is
# the limit of the compiled core, too.
LARGEST_LENGTH = 1.0e7
# A periodic cell is refused when its volume is below this fraction of the box with the same edge lengths.
FLATTEST_CELL = 1.0e-10
# A cell so small that more copies of it than this lie within the cutoff holds no matter: a mistaken unit or axis.
MOST_IMAGES = 1_000_000
_CPU_DEVICE_TYPES = (1, 3, 11, 13)  # DLPack: kDLCPU and the host-accessible CUDAHost, ROCMHost, CUDAManaged


@dataclass(frozen=True)
class Batch:
    """Checked input: one row per frame, ready for the core.

    ``coords`` (nframes, natoms, 3) angstrom; ``types`` (nframes, natoms); ``boxes`` (nframes, 3, 3) with lattice
    vectors as rows, or None; ``fparam`` (nframes, nf) or None; ``aparam`` (nframes, natoms, na) or None;
    ``has_frame_axis``: whether the caller's coordinates had one; ``spins`` (nframes, natoms, 3), or None where the
    model has none.
    """

    coords: Float
    types: Int
    boxes: Float | None
    pbc: Pbc
    fparam: Float | None
    aparam: Float | None
    has_frame_axis: bool
    spins: Float | None = None

    def frame(self, f: int) -> tuple[Float, Int, Float | None, Pbc, Float | None, Float | None]:
        """Of one frame: coordinates, types, box, periodic directions, frame and atomic parameters."""
        boxes, fparam, aparam = (None if rows is None else rows[f] for rows in (self.boxes, self.fparam, self.aparam))
        return self.coords[f], self.types[f], boxes, self.pbc, fparam, aparam

    def spins_of(self, f: int) -> dict[str, Float]:
        """Of one frame: what the engine of a spin model is given besides, by its name."""
        return {} if self.spins is None else {"spins": self.spins[f]}


def to_array(value: Any, name: str) -> NDArray[Any]:
    """Any array-like on the CPU (``__array__``, DLPack, sequences) as a NumPy array, without a copy where possible."""
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise InputError(f"{name} is a masked array with masked entries; fill them in or leave those atoms out")
        return np.asarray(value.data)
    if isinstance(value, np.ndarray):
        return value
    device = getattr(value, "__dlpack_device__", None)
    if device is not None and device()[0] not in _CPU_DEVICE_TYPES:
        raise InputError(f"{name} is not in the memory of the CPU; copy it there first, for example with {name}.cpu()")
    try:
        if device is not None and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except Exception as error:  # whatever a foreign __array__ raises is about this one argument
        raise InputError(f"{name} cannot be read as an array: {error}") from error


def to_floats(value: Any, name: str) -> Float:
    """An array of real numbers as C-contiguous float64."""
    array = to_array(value, name)
    if array.dtype.kind not in "fiu":
        what = "rows of different lengths or objects" if array.dtype == object else f"elements of type {array.dtype}"
        raise InputError(f"{name} must be an array of real numbers, but has {what}")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def is_atoms(value: Any) -> bool:
    """Whether this is a structure of ASE, without ASE."""
    return hasattr(value, "get_positions")


def box_of_atoms(atoms: Any) -> tuple[Float | None, Any]:
    """The box of a structure of ASE and its periodic directions; None for both where there is no such direction."""
    return (atoms.cell.array, atoms.pbc) if atoms.pbc.any() else (None, None)


def check_coords(value: Any) -> tuple[Float, bool]:
    """``coords`` as (nframes, natoms, 3), and whether a frame axis was there."""
    if isinstance(value, (list, tuple)) and any(is_atoms(entry) for entry in value[:1]):
        raise InputError("coords is a list of objects with atoms, as of ASE: pass one after the other")
    if is_atoms(value):
        raise InputError(
            "coords is an object with atoms, as of ASE: pass atoms.positions, atoms.symbols, atoms.cell.array and "
            "pbc=atoms.pbc, or give the atoms a calculator: atoms.calc = dpa2.ase.DPA2Calculator(model)"
        )
    coords = to_floats(value, "coords")
    if coords.ndim not in (2, 3) or coords.shape[-1] != 3:
        hint = ""
        if coords.ndim == 1 and coords.size % 3 == 0:
            hint = "; reshape a flat array with coords.reshape(-1, 3)"
        elif coords.ndim == 2 and coords.shape[1] % 3 == 0:
            hint = "; reshape flat frames with coords.reshape(nframes, -1, 3)"
        raise InputError(f"coords must have shape (natoms, 3) or (nframes, natoms, 3), got {coords.shape}{hint}")
    framed = coords.ndim == 3
    frames = coords if framed else coords[None]
    if frames.size and not (frames.min() >= -LARGEST_LENGTH and frames.max() <= LARGEST_LENGTH):  # true for NaN as well
        frame, atom, axis = (int(i) for i in np.argwhere(~(np.abs(frames) <= LARGEST_LENGTH))[0])
        where = f"atom {atom}" + (f" of frame {frame}" if framed else "")
        number = frames[frame, atom, axis]
        what = "is not finite" if not math.isfinite(number) else "is too large; coordinates are in angstrom"
        raise InputError(f"coords of {where}: {'xyz'[axis]} = {number:g} {what}")
    return frames, framed


def _describe(type_map: Sequence[str]) -> str:
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(type_map[:12]))
    return shown + (f", ... {len(type_map) - 1} {type_map[-1]}" if len(type_map) > 12 else "")


def _atom_of(index: Sequence[int]) -> str:
    return f"atom {index[-1]}" + (f" of frame {index[0]}" if len(index) == 2 else "")


def _types_from_symbols(symbols: NDArray[Any], type_map: Sequence[str]) -> Int:
    index = {name: i for i, name in enumerate(type_map)}
    known = _describe(type_map)
    names, inverse = np.unique(symbols, return_inverse=True)
    lookup = np.empty(len(names), dtype=np.int32)
    for k, name in enumerate(names):
        symbol = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
        if symbol not in index:
            where = _atom_of([int(i) for i in np.argwhere(symbols == name)[0]])
            raise InputError(f"types: {where} is {symbol!r}, which the model does not know; its type_map is {known}")
        lookup[k] = index[symbol]
    return lookup[inverse].reshape(symbols.shape)


def check_types(value: Any, type_map: Sequence[str], nframes: int, natoms: int, framed: bool) -> Int:
    """``types`` as (nframes, natoms) indices into ``type_map``; negative ones are virtual atoms."""
    wanted = f"({natoms},)" + (f" or ({nframes}, {natoms})" if framed else "")
    if value is None:
        raise InputError(f"types must have shape {wanted}: pass element symbols, or indices into the model's type_map")
    if isinstance(value, str):
        names = re.findall("[A-Z][a-z]?", value)
        hint = f", as {names}" if "".join(names) == value and len(names) == natoms else ""
        raise InputError(
            f"types must have shape {wanted}, got one string, {value[:60]!r}: pass a list with a name for each "
            f"atom{hint}"
        )
    types = to_array(value, "types")
    if types.dtype == object and types.size and all(isinstance(t, str) for t in types.flat):
        types = types.astype(str)
    if types.shape != (natoms,) and not (framed and types.shape == (nframes, natoms)):
        raise InputError(f"types must have shape {wanted} to match coords, got {types.shape}")
    if types.dtype.kind in "US":
        checked = _types_from_symbols(types, type_map)
    elif types.dtype.kind in "iu" or types.size == 0:
        if types.size and int(types.max()) >= len(type_map):
            index = [int(i) for i in np.argwhere(types >= len(type_map))[0]]
            raise InputError(
                f"types: {_atom_of(index)} has type {types[tuple(index)]}, but the model has "
                f"{_count(len(type_map), 'type')} ({_describe(type_map)})"
            )
        # Any negative number marks a virtual atom; clipped first, because int64 values could wrap around.
        if types.size and types.dtype.itemsize > 4 and types.dtype.kind == "i" and int(types.min()) < 0:
            types = np.maximum(types, -1)
        checked = np.ascontiguousarray(types, dtype=np.int32)
    else:
        raise InputError(
            f"types must be integers (indices into the model's type_map: {_describe(type_map)}) or element symbols, "
            f"but has elements of type {types.dtype}"
        )
    return np.broadcast_to(checked, (nframes, natoms))


def check_pbc(value: Any, has_box: bool) -> Pbc:
    """``pbc`` as three booleans; None means periodic where there is a box."""
    if value is None:
        return (has_box, has_box, has_box)
    flags = to_array(value, "pbc")
    boolean = flags.dtype == bool or (flags.dtype.kind in "iu" and bool(np.isin(flags, (0, 1)).all()))
    if not boolean or flags.shape not in ((), (3,)):
        raise InputError(f"pbc must be None, True, False or three of them, one per lattice vector; got {value!r}")
    x, y, z = (bool(flag) for flag in np.broadcast_to(flags, 3))
    if (x or y or z) and not has_box:
        raise InputError("pbc asks for periodic boundaries, but there is no box; pass the lattice vectors as box=")
    return (x, y, z)


def _extent(rows: list[list[float]]) -> tuple[float, float, list[float]]:
    """Of one to three vectors: the length, area or volume spanned; the product of their lengths; each one's height.

    A height is the distance between the faces that the other vectors span. Plain floats, because this runs in every
    evaluation and NumPy's linear algebra takes far longer on three numbers.
    """
    lengths = [math.hypot(*row) for row in rows]
    if len(rows) == 1:
        return lengths[0], lengths[0], lengths
    normals = [_cross(rows[a - 2], rows[a - 1]) for a in range(len(rows))]
    if len(rows) == 2:
        area = math.hypot(*normals[0])
        return area, math.prod(lengths), [area / max(length, 1e-300) for length in reversed(lengths)]
    volume = abs(math.fsum(x * y for x, y in zip(rows[0], normals[0], strict=True)))
    return volume, math.prod(lengths), [volume / max(math.hypot(*normal), 1e-300) for normal in normals]


def _cross(a: list[float], b: list[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _images(heights: list[float], rcut: float) -> float:
    """How many periodic copies of a cell lie within the cutoff, at most."""
    return math.prod(2.0 * math.ceil(rcut / max(height, 1e-300)) + 1.0 for height in heights)


def _reduced_heights(box: Float, pbc: Pbc, where: str) -> list[float]:
    from ._native import reduced_lattice

    try:
        rows = reduced_lattice(np.where(np.asarray(pbc)[:, None], box, 0.0), pbc)[0].tolist()
    except InputError as error:
        raise InputError(f"box{where}: {error}; lattice vectors are rows, in angstrom: {box.tolist()}") from error
    return _extent([rows[a] for a in range(3) if pbc[a]])[2]


def _checked_cell(box: Float, pbc: Pbc, rcut: float, where: str) -> Float | None:
    """None for a good cell; a flat one with open directions comes back with unit normals as the open vectors."""
    rows = box.tolist()
    if not all(abs(x) <= LARGEST_LENGTH for row in rows for x in row):
        raise InputError(f"box{where} has an entry that is not finite or too large (in angstrom): {box.tolist()}")
    periodic = [a for a in range(3) if pbc[a]]
    spanned, product, heights = _extent([rows[a] for a in periodic])
    if spanned <= FLATTEST_CELL * product:
        raise InputError(
            f"box{where} is singular: its periodic lattice vectors are zero or linearly dependent: {box.tolist()}. "
            "Pass box=None for an open system, or pbc= to open single directions"
        )
    images = _images(heights, rcut)
    if images > MOST_IMAGES:
        # Those of the vectors as given. The search goes by the reduced lattice, which has fewer where these are skewed.
        images = _images(_reduced_heights(box, pbc, where), rcut)
    if images > MOST_IMAGES:
        raise InputError(
            f"box{where} is too small: {images:.1e} periodic copies of it lie within the model's cutoff of {rcut:g} "
            f"angstrom; lattice vectors are rows, in angstrom: {box.tolist()}"
        )
    spanned, product, _ = _extent(rows)
    if spanned > FLATTEST_CELL * product:
        return None
    # Slabs and wires often come with zero vectors in their open directions: any independent vectors do for those.
    completed: Float = box.copy()
    basis = np.linalg.svd(box[periodic])[2][len(periodic) :]
    for a, normal in zip([a for a in range(3) if not pbc[a]], basis, strict=True):
        completed[a] = normal
    return completed


def check_box(value: Any, pbc: Any, rcut: float, nframes: int, framed: bool) -> tuple[Float | None, Pbc]:
    """``box`` as (nframes, 3, 3) or None (open in every direction), and the periodic directions."""
    if value is None:
        return None, check_pbc(pbc, False)
    flags = check_pbc(pbc, True)
    box = to_floats(value, "box")
    if box.shape in ((3, 3), (9,)):
        boxes, one_for_all = box.reshape(1, 3, 3), True
    elif framed and box.shape in ((nframes, 3, 3), (nframes, 9)):
        boxes, one_for_all = box.reshape(nframes, 3, 3), False
    else:
        wanted = "(3, 3) or (9,)" + (f", or with one per frame ({nframes}, 3, 3) or ({nframes}, 9)" if framed else "")
        hint = "; for edge lengths pass numpy.diag(lengths)" if box.shape == (3,) else ""
        if not framed and box.ndim > 1 and box.size == 9:
            hint = "; coords has no frame axis, so box must not have one"
        raise InputError(f"box must have shape {wanted}, with lattice vectors as rows, got {box.shape}{hint}")
    if not any(flags):
        return None, flags
    for f in range(len(boxes)):
        cell = _checked_cell(boxes[f], flags, rcut, "" if one_for_all else f" of frame {f}")
        if cell is not None:
            boxes = boxes.copy()  # the caller's array stays as it is
            boxes[f] = cell
    return np.broadcast_to(boxes, (nframes, 3, 3)), flags


def counted(types: Int, atom_exclude_types: Sequence[int]) -> NDArray[np.bool_]:
    """The atoms that have outputs: those that are neither virtual nor of an excluded type."""
    mask: NDArray[np.bool_] = types >= 0
    return mask & ~np.isin(types, atom_exclude_types) if len(atom_exclude_types) else mask


def check_finite(array: Float, name: str) -> None:
    """Refuse numbers that are none, by their place."""
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name}[{', '.join(map(str, index))}] = {array[index]:g} is not finite")


def check_fparam(value: Any, fitting: dict[str, Any], nframes: int, framed: bool) -> Float | None:
    """``fparam`` as (nframes, numb_fparam); the model's own default where none is given."""
    nf = int(fitting["numb_fparam"])
    if value is None:
        if nf == 0:
            return None
        default = fitting.get("default_fparam")
        if default is None and fitting.get("own_defaults"):
            return None
        if default is None:
            needed = _count(nf, "frame parameter")
            raise InputError(f"the model takes {needed} and has no default: pass fparam=, shape ({nf},)")
        return np.broadcast_to(np.asarray(default, dtype=np.float64).reshape(nf), (nframes, nf))
    if nf == 0:
        raise InputError("fparam was given, but the model takes no frame parameters: leave it out")
    fparam = to_floats(value, "fparam")
    check_finite(fparam, "fparam")
    if fparam.shape == (nf,) or (nf == 1 and fparam.shape == ()):
        return np.broadcast_to(fparam.reshape(nf), (nframes, nf))
    if framed and (fparam.shape == (nframes, nf) or (nf == 1 and fparam.shape == (nframes,))):
        return fparam.reshape(nframes, nf)
    wanted = f"({nf},)" + (f" or one row per frame ({nframes}, {nf})" if framed else "")
    raise InputError(f"fparam must have shape {wanted}, got {fparam.shape}")


def check_aparam(value: Any, fitting: dict[str, Any], nframes: int, natoms: int, framed: bool) -> Float | None:
    """``aparam`` as (nframes, natoms, numb_aparam)."""
    na = int(fitting["numb_aparam"])
    if value is None:
        if na == 0 or fitting.get("use_aparam_as_mask"):
            return None
        raise InputError(f"the model takes {_count(na, 'atomic parameter')}: pass aparam=, shape ({natoms}, {na})")
    if na == 0:
        raise InputError("aparam was given, but the model takes no atomic parameters: leave it out")
    aparam = to_floats(value, "aparam")
    check_finite(aparam, "aparam")
    shape = aparam.shape
    if shape == (natoms, na) or (na == 1 and shape == (natoms,)):
        return np.broadcast_to(aparam.reshape(natoms, na), (nframes, natoms, na))
    if framed and (shape == (nframes, natoms, na) or (na == 1 and shape == (nframes, natoms))):
        return aparam.reshape(nframes, natoms, na)
    if shape == (na,) or (na == 1 and shape == ()):  # the same for every atom
        return np.ascontiguousarray(np.broadcast_to(aparam.reshape(na), (nframes, natoms, na)))
    wanted = f"({natoms}, {na})" + (f", ({nframes}, {natoms}, {na})" if framed else "") + f" or ({na},)"
    raise InputError(f"aparam must have shape {wanted}, got {shape}")


def check_spin(value: Any, config: dict[str, Any], nframes: int, natoms: int, framed: bool) -> Float | None:
    """``spin`` as (nframes, natoms, 3); None for models without spins."""
    if config.get("type") != "spin":
        if value is not None:
            raise InputError("spin was given, but the model has no spins: leave it out")
        return None
    if value is None:
        raise InputError(f"this is a spin model, its energies depend on spins: pass spin=, shape ({natoms}, 3)")
    spins = to_floats(value, "spin")
    check_finite(spins, "spin")
    if spins.shape == (natoms, 3):
        return np.broadcast_to(spins, (nframes, natoms, 3))
    if framed and spins.shape == (nframes, natoms, 3):
        return spins
    wanted = f"({natoms}, 3)" + (f" or one per frame ({nframes}, {natoms}, 3)" if framed else "")
    raise InputError(f"spin must have shape {wanted}, got {spins.shape}")


def check_input(
    config: dict[str, Any],
    coords: ArrayLike,
    types: Any,
    box: ArrayLike | None,
    pbc: Any,
    fparam: ArrayLike | None = None,
    aparam: ArrayLike | None = None,
    *,
    spin: ArrayLike | None = None,
    with_parameters: bool = True,
) -> Batch:
    """Everything that a model of this ``config`` is asked to evaluate; ``with_parameters`` False for descriptors."""
    from .files import schema

    frames, framed = check_coords(coords)
    nframes, natoms = frames.shape[:2]
    checked_types = check_types(types, config["type_map"], nframes, natoms, framed)
    boxes, flags = check_box(box, pbc, schema.rcut(config), nframes, framed)
    checked_fparam = checked_aparam = None
    if with_parameters:
        fitting = schema.parameters(config)
        checked_fparam = check_fparam(fparam, fitting, nframes, framed)
        checked_aparam = check_aparam(aparam, fitting, nframes, natoms, framed)
    spins = check_spin(spin, config, nframes, natoms, framed)
    return Batch(frames, checked_types, boxes, flags, checked_fparam, checked_aparam, framed, spins)
