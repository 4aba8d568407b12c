"""Wrong input: an InputError that says what, where, and what to do; never another exception, never a number."""

from __future__ import annotations

from typing import Any

import dpa2
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
from api_models import BOX, COORDS, DEVICES, SYMBOLS, TYPES, frames, make_model, model_data
from dpa2.inputs import check_input
from dpa2.model import Model
from hypothesis import given, settings

NAN = COORDS.copy()
NAN[3, 1] = np.nan
INF_FRAME = frames(3)
INF_FRAME[2, 4, 0] = -np.inf
FAR = COORDS.copy()
FAR[1, 2] = 3e9
SINGULAR = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 4.0, 1e-13]])

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("flat coords", {"coords": COORDS.ravel()}, r"got \(15,\); reshape a flat array with coords.reshape\(-1, 3\)"),
    ("flat frames", {"coords": frames(2).reshape(2, 15)}, r"reshape flat frames with coords.reshape\(nframes, -1, 3\)"),
    ("transposed", {"coords": COORDS.T}, r"coords must have shape \(natoms, 3\)"),
    ("four axes", {"coords": COORDS[None, None]}, r"coords must have shape"),
    ("ragged", {"coords": [[0.0, 0.0, 0.0], [1.0]]}, "coords cannot be read as an array"),
    ("words", {"coords": np.full((5, 3), "x")}, "coords must be an array of real numbers"),
    ("complex", {"coords": COORDS + 1j}, "coords must be an array of real numbers.*complex128"),
    ("objects", {"coords": COORDS.astype(object)}, "coords must be an array of real numbers"),
    ("None", {"coords": None}, "coords must be an array of real numbers"),
    ("NaN", {"coords": NAN}, r"coords of atom 3: y = nan is not finite"),
    ("inf in a frame", {"coords": INF_FRAME}, r"coords of atom 4 of frame 2: x = -inf is not finite"),
    ("far away", {"coords": FAR}, r"coords of atom 1: z = 3e\+09 is too large; coordinates are in angstrom"),
    ("masked", {"coords": np.ma.masked_less(COORDS, 0.0)}, "coords is a masked array with masked entries"),
    ("fewer types", {"types": TYPES[:4]}, r"types must have shape \(5,\) to match coords, got \(4,\)"),
    ("type frames", {"types": TYPES[None]}, r"types must have shape \(5,\) to match coords, got \(1, 5\)"),
    ("one word", {"types": "OHHCO"}, r"types must have shape \(5,\)"),
    ("type 3", {"types": [0, 1, 3, 0, 0]}, r"atom 2 has type 3, but the model has 3 types \(0 O, 1 H, 2 C\)"),
    ("huge type", {"types": np.array([0, 1, 2**32, 0, 0])}, "atom 2 has type 4294967296"),
    ("float types", {"types": TYPES.astype(float)}, "types must be integers .* or element symbols, .* float64"),
    ("bool types", {"types": TYPES == 1}, "types must be integers"),
    ("mixed types", {"types": np.array(["O", 1, 1, 2, 0], dtype=object)}, "types must be integers"),
    ("no types", {"types": None}, "types must have shape"),
    (
        "unknown symbol",
        {"types": [*SYMBOLS[:4], "Xe"]},
        r"atom 4 is 'Xe', which the model does not know; .*0 O, 1 H, 2 C",
    ),
    ("edges", {"box": [4.0, 4.0, 4.0]}, r"box must have shape .* got \(3,\); for edge lengths pass numpy.diag"),
    ("box frames", {"box": BOX[None]}, "coords has no frame axis, so box must not have one"),
    ("box of six", {"box": [4.0, 4.0, 4.0, 90, 90, 90]}, r"box must have shape \(3, 3\) or \(9,\)"),
    ("singular", {"box": SINGULAR}, "box is singular: its periodic lattice vectors are zero or linearly dependent"),
    ("zero box", {"box": np.zeros((3, 3))}, "Pass box=None for an open system"),
    ("flat slab", {"box": np.diag([4.0, 4.0, 0.0])}, "pbc= to open single directions"),
    ("NaN box", {"box": np.diag([4.0, np.nan, 4.0])}, "box has an entry that is not finite"),
    ("tiny box", {"box": 1e-3 * BOX}, "box is too small: .* periodic copies of it lie within the model's cutoff of 4"),
    ("one thin edge", {"box": np.diag([4.0, 1e-9, 4.0])}, "box is too small"),
    ("pbc word", {"box": BOX, "pbc": "TTF"}, "pbc must be None, True, False or three of them"),
    ("pbc of two", {"box": BOX, "pbc": [True, False]}, "pbc must be"),
    ("pbc of 2s", {"box": BOX, "pbc": [2, 2, 2]}, "pbc must be"),
    ("pbc without box", {"pbc": True}, "pbc asks for periodic boundaries, but there is no box"),
    ("fparam", {"fparam": [0.1]}, "fparam was given, but the model takes no frame parameters: leave it out"),
    ("aparam", {"aparam": [[0.1]] * 5}, "aparam was given, but the model takes no atomic parameters: leave it out"),
    ("atomic", {"atomic": "half"}, 'atomic must be False, True, "edge" or "deepmd", got \'half\''),
    ("atomic 2", {"atomic": 2}, "atomic must be False"),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input(device: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=f"(?s){message}"):
        make_model(device).evaluate(**{"coords": COORDS, "types": TYPES, **change})


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"nf": 2}, {}, r"takes 2 frame parameters and has no default: pass fparam=, shape \(2,\)"),
        ({"nf": 1}, {}, "takes 1 frame parameter and"),
        ({"nf": 2}, {"fparam": [0.1]}, r"fparam must have shape \(2,\), got \(1,\)"),
        ({"nf": 2}, {"fparam": [[0.1, 0.2]]}, r"fparam must have shape \(2,\), got \(1, 2\)"),
        ({"nf": 2}, {"fparam": [0.1, np.nan]}, r"fparam\[1\] = nan is not finite"),
        ({"nf": 2}, {"fparam": "warm"}, "fparam must be an array of real numbers"),
        ({"na": 2}, {}, r"takes 2 atomic parameters: pass aparam=, shape \(5, 2\)"),
        ({"na": 2}, {"aparam": np.ones(5)}, r"aparam must have shape \(5, 2\) or \(2,\), got \(5,\)"),
        ({"na": 2}, {"aparam": np.full((5, 2), np.inf)}, r"aparam\[0, 0\] = inf is not finite"),
    ],
)
def test_bad_parameters(options: dict[str, int], given: dict[str, Any], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        make_model("reference", **options).evaluate(COORDS, TYPES, BOX, **given)


@pytest.mark.parametrize("device", DEVICES)
def test_atoms_at_the_same_place(device: str) -> None:
    model = make_model(device)
    coords = frames(2)
    coords[1, 3] = coords[1, 0]
    for call in (model.evaluate, model.descriptor):
        with pytest.raises(dpa2.InputError, match=r"^frame 1: atoms 0 and 3 .*at the same p"):
            call(coords, TYPES, BOX)
        with pytest.raises(dpa2.InputError, match=r"^atoms 0 and 3 .*at the same p"):
            call(coords[1], TYPES, BOX)


class Overflown:
    """A core whose numbers left their range."""

    def evaluate(self, coords: np.ndarray, *_: object) -> dict[str, Any]:
        numbers = {"energy": np.ones(1), "atom_energy": np.ones(len(coords)), "virial": np.ones((3, 3))}
        return {**numbers, "force": np.full_like(coords, np.inf), "remarks": ([], None)}

    def descriptor(self, coords: np.ndarray, *_: object) -> tuple[Any, ...]:
        return np.nan, None, ([], None)


def test_numbers_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(model_data(), device="reference")
    monkeypatch.setattr(model, "_engine", Overflown())
    with pytest.raises(dpa2.InputError, match="a force is not a finite number"):
        model.evaluate(COORDS, TYPES, BOX)
    with pytest.raises(dpa2.InputError, match="frame 0: the descriptor is not a finite number"):
        model.descriptor(frames(1), TYPES, BOX)


def test_bad_frames_are_named() -> None:
    model = make_model("reference")
    coords = frames(2)
    boxes = np.array([BOX, np.zeros((3, 3))])
    with pytest.raises(dpa2.InputError, match="box of frame 1 is singular"):
        model.evaluate(coords, TYPES, boxes)
    with pytest.raises(dpa2.InputError, match="atom 2 of frame 1 is 'Zz'"):
        model.evaluate(coords, [SYMBOLS, [*SYMBOLS[:2], "Zz", *SYMBOLS[3:]]])
    with pytest.raises(
        dpa2.InputError, match=r"per frame \(2, 3, 3\) or \(2, 9\), with lattice vectors as rows, got \(3, 9\)"
    ):
        model.evaluate(coords, TYPES, np.tile(BOX.ravel(), (3, 1)))


class OnDevice:
    """A tensor that lives on a GPU."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self) -> object:
        raise AssertionError("must not be asked for")


class Broken:
    """A tensor that refuses to become an array, as one that requires gradients does."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("call detach() first")


def test_arrays_that_cannot_be_read() -> None:
    model = make_model("reference")
    with pytest.raises(dpa2.InputError, match=r"coords is not in the memory of the CPU; .*coords\.cpu\(\)"):
        model.evaluate(OnDevice(), TYPES)
    with pytest.raises(dpa2.InputError, match=r"coords cannot be read as an array: call detach\(\) first"):
        model.evaluate(Broken(), TYPES)


def test_input_errors_are_value_errors() -> None:
    assert issubclass(dpa2.InputError, ValueError)
    assert issubclass(dpa2.InputError, dpa2.Error)
    assert issubclass(dpa2.UnsupportedModelError, dpa2.ModelFileError)


ARRAYS = st.one_of(
    npst.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_, np.complex64, "U2", "S1"]),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.none(),
    st.text(max_size=5),
    st.floats(),
    st.lists(st.lists(st.floats(), max_size=3), max_size=3),
)


@settings(deadline=None, max_examples=300)
@given(coords=ARRAYS, types=ARRAYS, box=ARRAYS, pbc=ARRAYS, fparam=ARRAYS, aparam=ARRAYS)
def test_anything_is_checked_or_refused(coords: Any, types: Any, box: Any, pbc: Any, fparam: Any, aparam: Any) -> None:
    config = model_data(nf=1, na=1).config
    try:
        batch = check_input(config, coords, types, box, pbc, fparam, aparam)
    except dpa2.InputError:
        return
    assert_good(batch, config)


@settings(deadline=None, max_examples=150)
@given(
    natoms=st.integers(0, 4),
    nframes=st.integers(0, 3),
    box=npst.arrays(np.float64, (3, 3), elements=st.floats(allow_subnormal=True)),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    data=st.data(),
)
def test_any_numbers_are_checked_or_refused(
    natoms: int, nframes: int, box: np.ndarray, pbc: tuple[bool, bool, bool], data: st.DataObject
) -> None:
    config = model_data(nf=1, na=1).config
    coords = data.draw(npst.arrays(np.float64, (nframes, natoms, 3), elements=st.floats(width=64)))
    types = data.draw(npst.arrays(np.int64, (natoms,), elements=st.integers(-(2**63), 2**63 - 1)))
    try:
        batch = check_input(config, coords, types, box, pbc, 0.5, np.zeros((natoms, 1)))
    except dpa2.InputError:
        bad = not (np.abs(coords) <= 1e7).all() or (types > 2).any()
        assert bad or any(pbc)  # a box without periodic directions is not looked at
    else:
        assert_good(batch, config)
        assert (types <= 2).all()


def assert_good(batch: Any, config: dict[str, Any]) -> None:
    nframes, natoms = batch.coords.shape[:2]
    assert batch.coords.shape == (nframes, natoms, 3)
    assert batch.coords.dtype == np.float64
    assert np.isfinite(batch.coords).all()
    assert batch.types.shape == (nframes, natoms)
    assert batch.types.dtype == np.int32
    assert (batch.types < len(config["type_map"])).all()
    assert batch.fparam.shape == (nframes, 1)
    assert batch.aparam.shape == (nframes, natoms, 1)
    if batch.boxes is None:
        assert not any(batch.pbc)
    else:
        assert batch.boxes.shape == (nframes, 3, 3)
        assert np.isfinite(batch.boxes).all()
        for box in batch.boxes:
            assert np.linalg.matrix_rank(box / np.linalg.norm(box, axis=1, keepdims=True), tol=1e-12) == 3
    for f in range(nframes):
        for part in (batch.coords, batch.types, batch.fparam, batch.aparam):
            assert part[f].flags.c_contiguous
