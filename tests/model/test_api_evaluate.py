"""Model.evaluate and Model.descriptor: every accepted form of input means the same, and results have the right form."""

from __future__ import annotations

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, DEVICES, SYMBOLS, TYPES, frames, make_model
from dpa2.inputs import check_input

pytestmark = pytest.mark.parametrize("device", DEVICES)


def assert_same(one: dpa2.Result, other: dpa2.Result) -> None:
    for name in ("energy", "forces", "virial", "atom_energy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_one_frame_has_no_frame_axis(device: str) -> None:
    model = make_model(device)
    result = model.evaluate(COORDS, TYPES, BOX)
    assert isinstance(result.energy, float)
    assert result.forces.shape == (5, 3)
    assert result.virial.shape == (3, 3)
    assert result.atom_energy.shape == (5,)
    assert result.atom_virial is None
    assert model.descriptor(COORDS, TYPES, BOX).shape == (5, model.descriptor_dim)
    assert abs(result.energy - result.atom_energy.sum()) < 1e-12 * max(1.0, abs(result.energy))


def test_frames_equal_single_evaluations(device: str) -> None:
    model = make_model(device)
    coords = frames(3)
    batch = model.evaluate(coords, TYPES, BOX, atomic=True)
    descriptor, rotation = model.descriptor(coords, TYPES, BOX, rot_mat=True)
    assert batch.energy.shape == (3,)
    assert batch.forces.shape == (3, 5, 3)
    assert batch.virial.shape == (3, 3, 3)
    assert batch.atom_energy.shape == (3, 5)
    assert batch.atom_virial.shape == (3, 5, 3, 3)
    assert rotation.shape == (3, 5, 4, 3)
    for f in range(3):
        single = model.evaluate(coords[f], TYPES, BOX)
        assert single.energy == batch.energy[f]
        np.testing.assert_array_equal(single.forces, batch.forces[f])
        np.testing.assert_array_equal(single.virial, batch.virial[f])
        np.testing.assert_array_equal(model.descriptor(coords[f], TYPES, BOX), descriptor[f])
    one = model.evaluate(coords[:1], TYPES, BOX)
    assert one.energy.shape == (1,)
    assert one.energy[0] == batch.energy[0]


def test_symbols_mean_the_same_as_indices(device: str) -> None:
    model = make_model(device)
    expected = model.evaluate(COORDS, TYPES, BOX)
    for types in (SYMBOLS, tuple(SYMBOLS), np.array(SYMBOLS), np.array(SYMBOLS, dtype=object), np.array(SYMBOLS, "S2")):
        assert_same(model.evaluate(COORDS, types, BOX), expected)
    for kind in (np.int8, np.uint16, np.int64, list):
        types = list(map(int, TYPES)) if kind is list else TYPES.astype(kind)
        assert_same(model.evaluate(COORDS, types, BOX), expected)


def test_types_per_frame(device: str) -> None:
    model = make_model(device)
    coords = frames(2)
    types = np.array([TYPES, TYPES[::-1]])
    result = model.evaluate(coords, types, BOX)
    assert result.energy[1] == model.evaluate(coords[1], TYPES[::-1], BOX).energy
    symbols = [SYMBOLS, SYMBOLS[::-1]]
    assert_same(model.evaluate(coords, symbols, BOX), result)


def test_forms_of_the_box(device: str) -> None:
    model = make_model(device)
    coords = frames(2)
    expected = model.evaluate(coords, TYPES, BOX)
    for box in (BOX.ravel(), BOX.tolist(), np.array([BOX, BOX]), np.array([BOX, BOX]).reshape(2, 9)):
        assert_same(model.evaluate(coords, TYPES, box), expected)
    other = np.array([BOX, 1.1 * BOX])
    assert model.evaluate(coords, TYPES, other).energy[1] == model.evaluate(coords[1], TYPES, 1.1 * BOX).energy


def test_three_frames_with_one_box(device: str) -> None:
    # (3, 3) is one box for all, never a row per frame
    model = make_model(device)
    coords = frames(3)
    assert_same(model.evaluate(coords, TYPES, BOX), model.evaluate(coords, TYPES, np.array([BOX] * 3)))


def test_periodic_directions(device: str) -> None:
    model = make_model(device)
    open_box = model.evaluate(COORDS, TYPES)
    assert_same(model.evaluate(COORDS, TYPES, BOX, pbc=False), open_box)
    assert_same(model.evaluate(COORDS, TYPES, BOX, pbc=[0, 0, 0]), open_box)
    periodic = model.evaluate(COORDS, TYPES, BOX)
    assert_same(model.evaluate(COORDS, TYPES, BOX, pbc=(True, True, True)), periodic)
    assert_same(model.evaluate(COORDS, TYPES, BOX, pbc=np.True_), periodic)
    assert periodic.energy != open_box.energy


def test_open_direction_needs_no_lattice_vector(device: str) -> None:
    model = make_model(device)
    slab = BOX.copy()
    slab[2] = 0.0
    flat = model.evaluate(COORDS, TYPES, slab, pbc=(True, True, False))
    slab[2] = [0.0, 0.0, 50.0]
    tall = model.evaluate(COORDS, TYPES, slab, pbc=(True, True, False))
    assert flat.energy == pytest.approx(tall.energy, rel=1e-12)
    np.testing.assert_allclose(flat.forces, tall.forces, atol=1e-11)
    np.testing.assert_allclose(flat.virial, tall.virial, atol=1e-11)
    wire = np.zeros((3, 3))
    wire[1] = BOX[1]
    thin = model.evaluate(COORDS, TYPES, wire, pbc=(False, True, False))
    wide = model.evaluate(COORDS, TYPES, BOX + np.diag([50.0, 0.0, 50.0]), pbc=(False, True, False))
    assert thin.energy == pytest.approx(wide.energy, rel=1e-12)


@pytest.mark.parametrize("times", needs.mostly_slow([3, 40, 100, 300], [3, 100]))
@pytest.mark.parametrize("open_axis", [None, 0, 1, 2])
def test_a_skewed_cell_is_the_same_lattice(device: str, times: int, open_axis: int | None) -> None:
    """Periodic vectors plus multiples of others; an open one may be anything that is independent."""
    model = make_model(device)
    pbc = [axis != open_axis for axis in range(3)]
    box, shear = np.diag([4.0, 4.0, 4.0]), np.array([[1, 0, 0], [times, 1, 0], [-times + 1, times, 1]])
    if open_axis is not None:
        shear[[a for a in range(3) if a != open_axis], open_axis] = 0
    expected = model.evaluate(COORDS, TYPES, box, pbc=pbc, atomic=True)
    for order in ([0, 1, 2], [1, 0, 2]):  # right-handed and left-handed
        flags = [pbc[axis] for axis in order]
        found = model.evaluate(COORDS, TYPES, (shear @ box)[order], pbc=flags, atomic=True)
        for name in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9, err_msg=name)
    # Also where atoms are many cells away.
    moved = COORDS + np.array([[0, 0, 0], [1, 0, 0], [0, -3, 0], [0, 0, 2], [5, 5, 5]]) @ (box * np.array(pbc)[:, None])
    found = model.evaluate(moved, TYPES, shear @ box, pbc=pbc)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-9)


def test_a_cell_that_is_too_skewed_or_too_small_is_refused(device: str) -> None:
    model = make_model(device)
    for box, message in (
        (np.array([[4.0, 0, 0], [2e6, 4, 0], [0, 0, 4]]), "box: the box is too skewed: .* pass those"),
        (np.array([[4e-3, 0, 0], [0.4, 4e-3, 0], [0, 0.4, 4e-3]]), "box is too small"),
    ):
        with pytest.raises(dpa2.InputError, match=message):
            model.evaluate(COORDS, TYPES, box)


@pytest.mark.parametrize("atomic", [True, "edge", "deepmd"])
def test_atomic_virial_sums_to_the_virial(device: str, atomic: bool | str) -> None:
    model = make_model(device)
    result = model.evaluate(COORDS, TYPES, BOX, atomic=atomic)
    assert result.atom_virial.shape == (5, 3, 3)
    np.testing.assert_allclose(
        result.atom_virial.sum(axis=0), result.virial, atol=1e-9 * np.abs(result.atom_virial).max()
    )
    assert_same(result, model.evaluate(COORDS, TYPES, BOX))


def test_edge_shares_do_not_depend_on_wrapping(device: str) -> None:
    model = make_model(device)
    moved = COORDS + np.array([[1, 0, 0], [0, -2, 0], [0, 0, 0], [3, 1, 1], [0, 0, -1]]) @ BOX
    one = model.evaluate(COORDS, TYPES, BOX, atomic="edge").atom_virial
    other = model.evaluate(moved, TYPES, BOX, atomic="edge").atom_virial
    np.testing.assert_allclose(one, other, atol=1e-9 * np.abs(one).max())


def test_virtual_atoms_do_nothing(device: str) -> None:
    model = make_model(device)
    expected = model.evaluate(COORDS, TYPES, BOX)
    coords = np.concatenate([COORDS, [[0.5, 0.5, 0.5]]])
    result = model.evaluate(coords, [*TYPES, -1], BOX)
    assert result.energy == pytest.approx(expected.energy, rel=1e-12)
    np.testing.assert_allclose(result.forces[:5], expected.forces, atol=1e-11)
    np.testing.assert_array_equal(result.forces[5], 0.0)
    assert result.atom_energy[5] == 0.0
    huge = np.array([*TYPES, -(2**40) + 1])  # would be a valid index in its lower 32 bits
    assert model.evaluate(coords, huge, BOX).energy == result.energy


def test_nothing_to_do(device: str) -> None:
    model = make_model(device)
    empty = model.evaluate(np.empty((0, 3)), [])
    assert empty.energy == 0.0
    assert empty.forces.shape == (0, 3)
    assert not empty.virial.any()
    assert model.descriptor(np.empty((0, 3)), []).shape == (0, model.descriptor_dim)
    none = model.evaluate(np.empty((0, 5, 3)), TYPES, BOX, atomic=True)
    assert none.energy.shape == (0,)
    assert none.atom_virial.shape == (0, 5, 3, 3)


class OnlyDlpack:
    """An array of another library: no ``__array__``."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **keywords: object) -> object:
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class OnlyArray:
    """An array of another library with ``__array__``."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.array


def test_foreign_arrays(device: str) -> None:
    model = make_model(device)
    expected = model.evaluate(COORDS, TYPES, BOX)
    for wrap in (OnlyDlpack, OnlyArray, np.asfortranarray, np.ndarray.tolist, np.ma.array):
        assert_same(model.evaluate(wrap(COORDS.copy()), wrap(TYPES.copy()), wrap(BOX.copy())), expected)


def test_reduced_and_strided_coordinates(device: str) -> None:
    model = make_model(device)
    rough = COORDS.astype(np.float32)
    assert_same(model.evaluate(rough, TYPES, BOX), model.evaluate(rough.astype(np.float64), TYPES, BOX))
    wide = np.zeros((5, 6))
    wide[:, ::2] = COORDS
    assert_same(model.evaluate(wide[:, ::2], TYPES, BOX), model.evaluate(COORDS, TYPES, BOX))
    read_only = COORDS.copy()
    read_only.flags.writeable = False
    assert_same(model.evaluate(read_only, TYPES, BOX), model.evaluate(COORDS, TYPES, BOX))


def test_good_arrays_are_not_copied_and_none_is_changed(device: str) -> None:
    model = make_model(device, nf=1, na=2)
    coords, types, box = frames(2), np.tile(TYPES.astype(np.int32), (2, 1)), np.array([BOX, BOX])
    fparam, aparam = np.ones((2, 1)), np.ones((2, 5, 2))
    batch = check_input(model.config, coords, types, box, None, fparam, aparam)
    for mine, theirs in (
        (batch.coords, coords),
        (batch.types, types),
        (batch.boxes, box),
        (batch.fparam, fparam),
        (batch.aparam, aparam),
    ):
        assert np.shares_memory(mine, theirs)
    slab = BOX.copy()
    slab[2] = 0.0
    before = coords.copy(), slab.copy()
    model.evaluate(coords, types, slab, pbc=(1, 1, 0), fparam=fparam, aparam=aparam)
    np.testing.assert_array_equal(coords, before[0])
    np.testing.assert_array_equal(slab, before[1])


def test_frame_parameters(device: str) -> None:
    model = make_model(device, nf=2)
    coords = frames(2)
    both = model.evaluate(coords, TYPES, BOX, fparam=[[0.1, 0.2], [0.3, -0.4]])
    assert both.energy[1] == model.evaluate(coords[1], TYPES, BOX, fparam=[0.3, -0.4]).energy
    assert_same(
        model.evaluate(coords, TYPES, BOX, fparam=[0.1, 0.2]),
        model.evaluate(coords, TYPES, BOX, fparam=[[0.1, 0.2]] * 2),
    )
    single = make_model(device, nf=1)
    assert_same(single.evaluate(COORDS, TYPES, fparam=0.3), single.evaluate(COORDS, TYPES, fparam=[0.3]))
    assert_same(
        single.evaluate(coords, TYPES, fparam=[0.3, 0.1]), single.evaluate(coords, TYPES, fparam=[[0.3], [0.1]])
    )
    default = make_model(device, nf=2, default=(0.5, -0.25))
    assert_same(default.evaluate(COORDS, TYPES, BOX), default.evaluate(COORDS, TYPES, BOX, fparam=[0.5, -0.25]))


def test_atomic_parameters(device: str) -> None:
    model = make_model(device, na=2)
    coords = frames(2)
    aparam = np.random.default_rng(0).normal(size=(2, 5, 2))
    both = model.evaluate(coords, TYPES, BOX, aparam=aparam)
    assert both.energy[1] == model.evaluate(coords[1], TYPES, BOX, aparam=aparam[1]).energy
    assert_same(
        model.evaluate(coords, TYPES, BOX, aparam=aparam[0]), model.evaluate(coords, TYPES, BOX, aparam=aparam[[0, 0]])
    )
    row = [0.2, -0.1]
    assert_same(model.evaluate(coords, TYPES, aparam=row), model.evaluate(coords, TYPES, aparam=np.tile(row, (5, 1))))
    single = make_model(device, na=1)
    flat = aparam[:, :, 0]
    assert_same(single.evaluate(coords, TYPES, aparam=flat), single.evaluate(coords, TYPES, aparam=flat[..., None]))
    assert_same(single.evaluate(COORDS, TYPES, aparam=flat[0]), single.evaluate(COORDS, TYPES, aparam=flat[0][:, None]))
    assert model.descriptor(COORDS, TYPES, BOX).shape == (5, model.descriptor_dim)  # takes no parameters


def test_progress(device: str) -> None:
    model = make_model(device)
    calls: list[tuple[int, int]] = []
    model.evaluate(frames(2), TYPES, BOX, progress=lambda *call: calls.append(call))
    model.descriptor(frames(1), TYPES, BOX, progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2), (1, 1)]
