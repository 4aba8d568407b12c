"""The neighbour search on the emulated device against the compiled core, box by box."""

from __future__ import annotations

from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.sanitize import run
from device_lists import COMPARED, assert_same_lists, random_frame
from dpa2.cuda.neighbors import NeighborSearch
from dpa2.errors import InputError
from dpa2.reference import neighbors as reference
from dpa2.remarks import least_distance
from random_model import random_model

OPEN = (False, False, False)
PERIODIC = (True, True, True)


@pytest.mark.parametrize("part", needs.mostly_slow(range(6), {0}))
def test_random_boxes(part: int) -> None:
    """Cubic, triclinic, left-handed, tiny, partially periodic and open ones; fixed and random schedules."""
    device = EmulatedDevice()
    for seed in range(60 * part, 60 * (part + 1)):
        device.seed = None if seed % 3 == 0 else seed
        frame = random_frame(seed)
        got = assert_same_lists(device, *frame)
        if seed % 4 == 0:
            worst = {entry[0]: entry for entry in reference.build(*frame).remarks.overflow}
            assert {entry[0]: entry for entry in got.remarks.overflow} == worst


def test_closest_pair() -> None:
    """That of the reference where it is too close, else none. Virtual atoms and excluded pairs are no pairs."""
    close = 0
    for seed in range(60):
        coords, types, box, pbc, config = random_frame(seed)
        config["min_nbor_dist"] = None if seed % 2 else 5.0
        want = reference.build(coords, types, box, pbc, config).remarks.closest
        got = NeighborSearch(EmulatedDevice(), config).build(coords, types, box, pbc).remarks.closest
        if want is None or want[2] >= least_distance(config)[0]:
            assert got is None
        else:
            close += 1
            assert got is not None
            assert got[2] == pytest.approx(want[2], abs=1e-12)
            assert set(got[:2]) == set(want[:2])
    assert close > 10


@pytest.mark.parametrize("edge", [1.9, 2.5, 3.2])
@pytest.mark.parametrize("max_shared", [65536, 512])
def test_lattice_of_equal_distances(edge: float, max_shared: int) -> None:
    """Whole shells of ties, some at the cutoffs and at nsel; distances in shared memory and not."""
    rng = np.random.default_rng(1)
    config = random_model(rng, ntypes=3, repinit={"nsel": 41, "rcut": 4.0}, repformer={"nsel": 11})[0]
    config["descriptor"]["repinit"]["three_body_sel"] = 11
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * edge
    device = EmulatedDevice(seed=2, max_shared=max_shared)
    assert_same_lists(device, grid + 0.1, (np.arange(8) % 3).astype(np.int32), np.eye(3) * 2 * edge, PERIODIC, config)


def test_many_bins_and_sums_over_several_chunks() -> None:
    """A long box, so that the atoms have more bins than one round of the sums takes."""
    rng = np.random.default_rng(3)
    config = random_model(
        rng, ntypes=3, repinit={"rcut": 2.0, "rcut_smth": 0.5, "three_body_rcut": 1.5}, repformer={"rcut": 1.5}
    )[0]
    box = np.diag([4000.0, 5.0, 4.0])
    coords = rng.uniform(size=(300, 3)) @ box
    assert_same_lists(EmulatedDevice(), coords, rng.integers(0, 3, 300).astype(np.int32), box, PERIODIC, config)


def test_far_atoms_cost_no_memory() -> None:
    config = random_model(np.random.default_rng(4), ntypes=3)[0]
    coords = np.array([[0.0, 0, 0], [1e7, 0, 0], [1e7, 1, 1], [-9e6, 5e6, 1e7]])
    assert_same_lists(EmulatedDevice(), coords, np.array([0, 1, 2, 0], np.int32), None, OPEN, config)


def test_one_answer_whatever_the_schedule() -> None:
    coords, types, box, pbc, config = random_frame(13)
    device = EmulatedDevice()
    first = NeighborSearch(device, config).build(coords, types, box, pbc, images=True)
    for seed in range(5):
        device.seed = seed
        again = NeighborSearch(device, config).build(coords, types, box, pbc, images=True)
        for name in (*COMPARED, "d", "r", "centre"):
            assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name
        assert first.incoming.edges.tobytes() == again.incoming.edges.tobytes()


def test_no_atoms_and_nobody_there() -> None:
    config = random_model(np.random.default_rng(6), ntypes=3)[0]
    search = NeighborSearch(EmulatedDevice(), config)
    assert search.build(np.zeros((0, 3)), np.zeros(0, np.int32)).start.tolist() == [0]
    assert_same_lists(EmulatedDevice(), np.zeros((1, 3)), np.zeros(1, np.int32), None, OPEN, config)
    assert_same_lists(EmulatedDevice(), np.zeros((2, 3)), np.full(2, -1, np.int32), None, OPEN, config)
    assert_same_lists(EmulatedDevice(), np.zeros((1, 3)), np.zeros(1, np.int32), np.eye(3) * 3.9, PERIODIC, config)


BOX = np.eye(3) * 6.0


@pytest.mark.parametrize(
    ("coords", "types", "box", "pbc", "message"),
    [
        (np.array([[0.0, 0, 0], [np.nan, 1, 1]]), [0, 0], None, OPEN, "atom 1"),
        (np.array([[0.0, 0, 0], [np.inf, 1, 1]]), [0, 0], BOX, PERIODIC, "atom 1"),
        (np.arange(6.0).reshape(2, 3), [0, 3], None, OPEN, "atom 1 has type 3"),
        (np.arange(6.0).reshape(2, 3), [0, 0], None, PERIODIC, "needs a box"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.zeros((3, 3)), PERIODIC, "singular"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.full((3, 3), np.inf), PERIODIC, "finite"),
        (np.array([[0.0, 0, 0], [6e9, 1, 1]]), [0, 0], BOX, PERIODIC, "atom 1 is too large"),
        (np.array([[0.0, 0, 0], [1, -1.1e7, 1]]), [0, 0], None, OPEN, "atom 1 is too large"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.diag([0.01, 0.01, 5.0]), PERIODIC, "too small for 2 atoms"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.array([[1.0, 0, 0], [1e6, 1, 0], [0, 0, 1]]), PERIODIC, "too skewed"),
        (np.ones((2, 3)), [0, 0], None, OPEN, "atoms 0 and 1 "),
        (np.array([[0.0, 0, 0], [1, 1, 1], [7, 1, -5]]), [0, 0, 0], BOX, PERIODIC, "atoms 1 and 2 "),
    ],
)
def test_errors(coords: Any, types: Any, box: Any, pbc: Any, message: str) -> None:
    config = random_model(np.random.default_rng(7), ntypes=3)[0]
    with pytest.raises(InputError, match=message):
        NeighborSearch(EmulatedDevice(), config).build(coords, np.array(types, np.int32), box, pbc)


SANITIZED = """
import numpy as np
from cuda_emulator import EmulatedDevice
from device_lists import assert_same_lists, random_frame
device = EmulatedDevice(sanitizer={sanitizer!r})
for seed in range({boxes}):
    device.seed = None if seed % 2 else seed
    device.max_shared = 65536 if seed % 5 else 64
    assert_same_lists(device, *random_frame(seed))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizer", "boxes"), [("address", 24), ("thread", 12)])
def test_sanitizers_find_nothing(sanitizer: str, boxes: int) -> None:
    needs.sanitizer(sanitizer)
    done = run(SANITIZED.format(sanitizer=sanitizer, boxes=boxes), sanitizer)
    assert done.returncode == 0, done.stderr[-6000:]
