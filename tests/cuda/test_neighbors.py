"""The neighbour search on the emulated device against the compiled core, box by box."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.arguments import layout
from cuda_emulator.sanitize import run
from device_lists import COMPARED, assert_prefixes, assert_same_lists, random_frame
from device_search import DeviceSearch
from dpa2 import _native
from dpa2.errors import InputError
from dpa2.reference import neighbors as reference
from random_model import random_model

SOURCES = Path(__file__).resolve().parents[2] / "src" / "cuda"
OPEN = (False, False, False)
PERIODIC = (True, True, True)
KERNELS = ["wrap_atoms", "prefix_sums", "fill_bins", "find_neighbors", "prefix_sums", "store_lists", "prefix_sums",
           "fill_incoming", "sort_incoming"]  # fmt: skip
IN_MEMORY = 6145  # candidates of a centre: too many for shared memory


def model_with(seed: int, nsel: int, repformer: int, three: int = 8) -> dict[str, Any]:
    """A model with three-body terms and a cutoff of 4 angstrom."""
    sizes = {"nsel": nsel, "rcut": 4.0, "use_three_body": True, "three_body_sel": three, "three_body_rcut": 3.0}
    rng = np.random.default_rng(seed)
    return random_model(rng, ntypes=3, repinit=sizes, repformer={"nsel": repformer, "rcut": 3.0})[0]


def short_model(seed: int, **repinit: Any) -> dict[str, Any]:
    """A model with short cutoffs, so that few atoms are enough for all that lists can be."""
    sizes = {"rcut": 2.0, "rcut_smth": 0.5, "three_body_rcut": 1.5} | repinit
    return random_model(np.random.default_rng(seed), ntypes=3, repinit=sizes, repformer={"rcut": 1.5})[0]


@pytest.mark.parametrize("part", needs.mostly_slow(range(6), {0}))
def test_random_boxes(part: int) -> None:
    """Cubic, triclinic, left-handed, tiny, partially periodic and open ones; fixed and random schedules."""
    device = EmulatedDevice()
    for seed in range(60 * part, 60 * (part + 1)):
        device.seed = None if seed % 3 == 0 else seed
        frame = random_frame(seed)
        got = assert_same_lists(device, *frame, candidates=IN_MEMORY if seed % 5 == 0 else 0)
        want = reference.build(*frame).remarks
        worst, closest = got.remarks[0]
        assert worst == {entry[0]: entry[1:] for entry in want.overflow}
        assert (closest is None) == (want.closest is None)
        if closest is not None:
            assert closest[2] == pytest.approx(want.closest[2], abs=1e-12)
            assert closest[:2] == want.closest[:2] or closest[2] != want.closest[2]


@pytest.mark.parametrize("edge", [1.9, 2.5, 3.2])
@pytest.mark.parametrize("candidates", [0, IN_MEMORY])
def test_lattice_of_equal_distances(edge: float, candidates: int) -> None:
    """Whole shells of ties, some at the cutoffs and at nsel; distances in shared memory and not."""
    rng = np.random.default_rng(1)
    config = random_model(rng, ntypes=3, repinit={"nsel": 41, "rcut": 4.0}, repformer={"nsel": 11})[0]
    config["descriptor"]["repinit"]["three_body_sel"] = 11
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * edge
    types = (np.arange(8) % 3).astype(np.int32)
    found = assert_same_lists(
        EmulatedDevice(seed=2), grid + 0.1, types, np.eye(3) * 2 * edge, PERIODIC, config, candidates
    )
    assert found.remarks[0][1] is not None
    assert found.remarks[0][1][2] == pytest.approx(edge, abs=1e-12)


@pytest.mark.parametrize(("natoms", "edge"), [(3, 2.1), (5, 2.4), (14, 3.1)])
def test_crowded(natoms: int, edge: float) -> None:
    """Hundreds of candidates per centre, of which few are kept; a third of the pairs is excluded."""
    rng = np.random.default_rng(natoms)
    config = random_model(rng, ntypes=3, repinit={"nsel": 70, "rcut": 5.5}, repformer={"nsel": 33})[0]
    config["pair_exclude_types"], config["descriptor"]["exclude_types"] = [[0, 1]], [[2, 2]]
    coords = rng.uniform(size=(natoms, 3)) * edge
    types = rng.integers(-1, 3, natoms).astype(np.int32)
    found = assert_same_lists(EmulatedDevice(seed=1), coords, types, np.eye(3) * edge, PERIODIC, config)
    assert found.remarks[0][0]["repinit"][1] > 150


def test_many_bins() -> None:
    """A long box: its bins are summed by several blocks."""
    box = np.diag([9000.0, 5.0, 4.0])
    rng = np.random.default_rng(3)
    coords, types = rng.uniform(size=(1500, 3)) @ box, rng.integers(0, 3, 1500).astype(np.int32)
    assert_same_lists(EmulatedDevice(seed=4), coords, types, box, PERIODIC, short_model(3))


def test_far_atoms_cost_no_memory() -> None:
    coords = np.array([[0.0, 0, 0], [1e7, 0, 0], [1e7, 1, 1], [-9e6, 5e6, 1e7]])
    config = random_model(np.random.default_rng(4), ntypes=3)[0]
    types = np.array([0, 1, 2, 0], np.int32)
    assert_same_lists(EmulatedDevice(), coords, types, None, OPEN, config)
    mixed = np.array([[7.3, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert_same_lists(EmulatedDevice(), coords, types, mixed, (True, False, False), config)


@pytest.mark.parametrize("seed", [13, 8])
def test_one_answer_whatever_the_schedule(seed: int) -> None:
    coords, types, box, pbc, config = random_frame(seed)
    device = EmulatedDevice()
    search = DeviceSearch(device, config)
    coords = np.ascontiguousarray(coords)
    given = search.given(coords, types, search.inputs([box], pbc, len(types)))
    first, capacity = search.search(given)
    for device.seed in range(6):
        again = search.run(given, capacity)
        assert again.lists.keys() == first.lists.keys()
        for name, array in first.lists.items():
            assert array.tobytes() == again.lists[name].tobytes(), name
        assert first.systems.tobytes() == again.systems.tobytes()
        assert first.status.tobytes() == again.status.tobytes()


def test_no_atoms_and_nobody_there() -> None:
    config = random_model(np.random.default_rng(6), ntypes=3)[0]
    device = EmulatedDevice()
    search = DeviceSearch(device, config)
    coords, types = np.zeros((0, 3)), np.zeros(0, np.int32)
    found, _ = search.search(search.given(coords, types, search.inputs([None], OPEN, 0)))
    assert found.start.tolist() == [0]
    assert found.begin.tolist() == [0]
    assert_same_lists(device, np.zeros((1, 3)), np.zeros(1, np.int32), None, OPEN, config)
    assert_same_lists(device, np.zeros((2, 3)), np.full(2, -1, np.int32), None, OPEN, config)
    assert_same_lists(device, np.zeros((1, 3)), np.zeros(1, np.int32), np.eye(3) * 3.9, PERIODIC, config)


@pytest.mark.parametrize("pbc", [PERIODIC, (True, False, True), OPEN])
def test_frames_side_by_side(pbc: tuple[bool, bool, bool]) -> None:
    """Every frame with its own cell and virtual atoms: the lists of each alone, and what there is to say of it."""
    rng = np.random.default_rng(7)
    config = model_with(7, 25, 9)
    frames, n = 5, 9
    boxes = [np.eye(3) * edge + rng.uniform(-0.3, 0.3, (3, 3)) for edge in (4.0, 5.0, 6.5, 9.0, 3.5)]
    coords = np.stack([rng.uniform(size=(n, 3)) @ box * 1.4 for box in boxes])
    types = rng.integers(0, 3, (frames, n)).astype(np.int32)
    types[1, 0], types[3, 4] = -1, -1
    search = DeviceSearch(EmulatedDevice(seed=5), config)
    given = search.given(coords, types, search.inputs(boxes, pbc, n))
    found, _ = search.search(given)
    assert found.pad_types.tolist() == np.maximum(types[:, 0], 0).tolist()
    parts = [_native.neighbors(coords[f], types[f], boxes[f], pbc, json.dumps(config)) for f in range(frames)]
    want = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name not in ("start", "j")}
    ends = np.cumsum([0, *(part["start"][-1] for part in parts)])
    want["start"] = np.concatenate([[0], *(part["start"][1:] + end for part, end in zip(parts, ends, strict=False))])
    want["j"] = np.concatenate([part["j"] + f * n for f, part in enumerate(parts)])
    for name in COMPARED:
        np.testing.assert_array_equal(found.lists[name], want[name], err_msg=name)
    np.testing.assert_allclose(found.d, want["d"], rtol=0, atol=1e-12)
    assert_prefixes(found, want, frames * n)
    for f in range(frames):
        alone = reference.build(coords[f], types[f], boxes[f], pbc, config).remarks
        assert found.remarks[f][0] == {entry[0]: entry[1:] for entry in alone.overflow}
        assert found.remarks[f][1] is not None
        assert found.remarks[f][1] == pytest.approx(alone.closest, abs=1e-12)
    assert len({found.remarks[f][1] for f in range(frames)}) == frames


@pytest.mark.parametrize("lattice", [False, True])
def test_ghosts(lattice: bool) -> None:
    """The first atoms have lists, all may be neighbours; numbers decide between equal distances, and are named."""
    rng = np.random.default_rng(8)
    config = model_with(8, 19, 5)
    coords = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 1.6
    coords = coords[rng.permutation(64)] + (0.0 if lattice else rng.normal(scale=0.1, size=(64, 3)))
    types, ids = rng.integers(-1, 3, 64).astype(np.int32), rng.permutation(64).astype(np.int32) * 7 + 1
    search = DeviceSearch(EmulatedDevice(seed=9), config)
    given = search.given(coords, types, search.inputs([None], OPEN, 64), centres=23, ids=ids)
    found, _ = search.search(given)
    want = search.on_cpu(given)
    for name in COMPARED:
        np.testing.assert_array_equal(found.lists[name], want[name], err_msg=name)
    np.testing.assert_allclose(found.d, want["d"], rtol=0, atol=1e-14)
    assert_prefixes(found, want, 64)
    assert (found.j >= 23).any()
    worst, closest = found.remarks[0]
    named = ("repinit", "three_body", "repformer")
    assert {name: value[:2] for name, value in worst.items()} == {
        name: tuple(value) for name, value in zip(named, want["overflow"].tolist(), strict=True) if value[1]
    }
    assert worst["repinit"][0] in ids
    assert closest is not None
    assert list(closest[:2]) == want["pair"].tolist()


def test_ghosts_of_one_number() -> None:
    """Images of an atom share its number: then their places decide, x before y before z, in any schedule."""
    config = short_model(9)
    coords = np.array([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    types, ids = np.zeros(7, np.int32), np.array([3, 9, 5, 5, 9, 5, 9], np.int32)
    for seed in range(8):
        search = DeviceSearch(EmulatedDevice(seed=seed), config)
        found, _ = search.search(search.given(coords, types, search.inputs([None], OPEN, 7), centres=1, ids=ids))
        assert found.j.tolist() == [2, 5, 3, 4, 6, 1]


def water_like() -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(10)
    config = model_with(10, 30, 11)
    box = np.eye(3) * 7.0
    return config, rng.uniform(size=(31, 3)) @ box, rng.integers(-1, 3, 31).astype(np.int32), box


@pytest.mark.parametrize("what", ["candidates_per_centre", "master", "repformer"])
@pytest.mark.parametrize("short_by", [1, 10**9])
def test_what_does_not_fit(what: str, short_by: int) -> None:
    """No list, nothing written beyond a buffer, and how much is needed; with that much everything fits."""
    config, coords, types, box = water_like()
    search = DeviceSearch(EmulatedDevice(seed=11), config)
    given = search.given(coords, types, search.inputs([box], PERIODIC, 31))
    right, enough = search.search(given)
    needed = {"master": len(right.j), "repformer": len(right.repformer_j)}
    want = _native.neighbors(coords, types, box, PERIODIC, json.dumps(wide(config)))
    needed["candidates_per_centre"] = int(np.diff(want["start"]).max())
    for name, number in needed.items():
        setattr(enough, name, number)
    assert search.run(given, enough).status["failed"][0] == 0
    setattr(enough, what, max(0 if what != "candidates_per_centre" else 1, needed[what] - short_by))
    found = search.run(given, enough)
    assert found.status["failed"][0] == 1
    for name in ("start", "repformer_start", "three_start", "begin", "repformer_begin"):
        assert not found.lists[name].any(), name
    assert found.status[f"needed_{'candidates' if what == 'candidates_per_centre' else what}"][0] == needed[what]
    for name in ("master", "repformer"):
        assert found.status[f"needed_{name}"][0] >= needed[name]
        assert what == "candidates_per_centre" or found.status[f"needed_{name}"][0] == needed[name]
    search.check(given, found)  # that there was no room is nobody's mistake
    again = search.run(given, search.grown(given, enough, found.status))
    assert again.status["failed"][0] == 0
    assert again.j.tobytes() == right.j.tobytes()


def wide(config: dict[str, Any]) -> dict[str, Any]:
    """The same model with room for all neighbours in its lists, and nothing excluded."""
    descriptor = dict(config["descriptor"], exclude_types=[])
    descriptor["repinit"] = dict(descriptor["repinit"], nsel=10**6)
    return dict(config, descriptor=descriptor, pair_exclude_types=[])


@pytest.mark.parametrize("bins", [1, 2, 7])
def test_few_bins_cost_time_only(bins: int) -> None:
    config, coords, types, box = water_like()
    search = DeviceSearch(EmulatedDevice(), config)
    given = search.given(coords, types, search.inputs([box], PERIODIC, 31))
    right, enough = search.search(given)
    enough.bins_per_frame = bins
    found = search.run(given, enough)
    assert found.status["wanted_bins"][0] == 27
    for name, array in right.lists.items():
        assert array.tobytes() == found.lists[name].tobytes(), name


def test_more_edges_than_numbers() -> None:
    config, coords, types, box = water_like()
    search = DeviceSearch(EmulatedDevice(), config)
    given = search.given(coords, types, search.inputs([box], PERIODIC, 31))
    found, capacity = search.search(given)
    found.status["needed_master"] = 3 * 2**30
    with pytest.raises(
        InputError, match=r"3221225472 neighbours within 4 angstrom \(repinit\) .* evaluate fewer atoms"
    ):
        search.grown(given, capacity, found.status)


@pytest.mark.parametrize("periodic", [True, False])
def test_launches(periodic: bool) -> None:
    """One order to clear and nine kernels, ten where a direction is open; the plan asks for the same buffers."""
    config, coords, types, box = water_like()
    search = DeviceSearch(EmulatedDevice(), config)
    given = search.given(coords, types, search.inputs([box if periodic else None], PERIODIC if periodic else OPEN, 31))
    _, capacity = search.search(given)
    taken, order = search.taken, search.order
    assert order == ["clear", *([] if periodic else ["extents"]), *KERNELS]
    search.run(given, capacity, planning=True)
    assert (search.taken, search.order) == (taken, order)


@pytest.mark.parametrize("seed", [None, 3])
def test_prefix_sums(seed: int | None) -> None:
    """Of several arrays in one launch; so many blocks that one looks back further than a warp can see at once."""
    rng, device, tile = np.random.default_rng(0), EmulatedDevice(seed=seed), 2048
    sizes = [(0, tile - 1, tile), (tile + 1, 70 * tile + 3, -1), (5, -1, -1)]
    for case, three in enumerate(sizes):
        jobs, want = {}, {}
        for name, n in zip(("first", "second", "third"), three, strict=True):
            count = rng.integers(2**29 if case == 2 else 0, 2**30 if case == 2 else 50, max(n, 0)).astype(np.int32)
            start, total = device.empty(max(n + 1, 0), np.int32), device.empty(1, np.int64)
            want[name] = np.concatenate([[0], np.cumsum(count, dtype=np.int64)])
            capacity = int(want[name][-1]) - (1 if case == 1 and name == "second" else 0)
            jobs[name] = {"start": start, "total": total, "count": count, "n": n, "capacity": min(capacity, 2**31 - 1)}
        blocks = sum(n // tile + 1 for n in three if n >= 0)
        failed = np.zeros(1, np.int32)
        state = {"state": np.zeros(blocks, np.uint64), "ticket": np.zeros(1, np.int32), "failed": failed}
        device.start("prefix_sums.cu", "prefix_sums", blocks, 256, "SumArgs", jobs | state, 0, {"real": "double"})
        for name, n in zip(("first", "second", "third"), three, strict=True):
            if n >= 0:
                np.testing.assert_array_equal(jobs[name]["start"], np.minimum(want[name], 2**31 - 1))
                assert jobs[name]["total"][0] == want[name][-1]
        assert failed[0] == (case > 0)
    assert want["first"][-1] > 2**31 - 1


BOX = np.eye(3) * 6.0


@pytest.mark.parametrize(
    ("coords", "types", "box", "pbc", "message"),
    [
        ([[0.0, 0, 0], [np.nan, 1, 1]], [0, 0], None, OPEN, "coordinate 0 of atom 1 is not finite: nan"),
        ([[0.0, 0, 0], [1, 1, np.inf]], [0, 0], BOX, PERIODIC, "coordinate 2 of atom 1 is not finite: inf"),
        ([[0.0, 0, 0], [1, np.nan, 1]], [0, -1], BOX, PERIODIC, "coordinate 1 of atom 1 is not finite"),
        ([[0.0, 0, 0], [3, 4, 5]], [0, 3], None, OPEN, "atom 1 has type 3, but the model has 3 types"),
        ([[0.0, 0, 0], [3, 4, np.nan]], [0, 3], None, OPEN, "atom 1 has type 3"),
        ([[0.0, 0, np.nan], [3, 4, 5]], [0, 3], None, OPEN, "coordinate 2 of atom 0"),
        ([[0.0, 0, 0], [3, 4, 5]], [7, 9], None, OPEN, "atom 0 has type 7"),
        ([[0.0, 0, 0], [3, 4, 5]], [0, 0], None, PERIODIC, "needs a box"),
        ([[0.0, 0, 0], [3, 4, 5]], [0, 0], np.zeros((3, 3)), PERIODIC, "singular"),
        ([[0.0, 0, 0], [3, 4, 5]], [0, 0], np.full((3, 3), np.inf), PERIODIC, "finite"),
        ([[0.0, 0, 0], [6e9, 1, 1]], [0, 0], BOX, PERIODIC, "atom 1 is too large"),
        ([[0.0, 0, 0], [1, -1.1e7, 1]], [0, 0], None, OPEN, "coordinate 1 of atom 1 is too large"),
        ([[0.0, 0, 0], [3, 4, 5]], [0, 0], np.diag([0.01, 0.01, 5.0]), PERIODIC, "too small for 2 atoms"),
        ([[0.0, 0, 0], [9e6, 4, 5]], [0, 0], np.diag([0.01, 9.0, 5.0]), PERIODIC, "from the periodic cell: 9e+08 "),
        ([[0.0, 0, 0], [3, 4, 5]], [0, 0], np.array([[1.0, 0, 0], [1e6, 1, 0], [0, 0, 1]]), PERIODIC, "too skewed"),
        (np.ones((2, 3)), [0, 0], None, OPEN, "atoms 0 and 1 are at the same place"),
        ([[0.0, 0, 0], [1, 1, 1], [7, 1, -5]], [0, 0, 0], BOX, PERIODIC, "atoms 1 and 2 "),
    ],
)  # fmt: skip
def test_errors(coords: Any, types: Any, box: Any, pbc: Any, message: str) -> None:
    """What the CPU says; and the lists that other kernels see are empty."""
    config = random_model(np.random.default_rng(7), ntypes=3)[0]
    coords, types = np.array(coords), np.array(types, np.int32)
    search = DeviceSearch(EmulatedDevice(), config)
    with pytest.raises(InputError) as wanted:
        _native.neighbors(coords, types, box, pbc, json.dumps(config))
    with pytest.raises(InputError, match=message.replace("+", r"\+")) as raised:
        search.search(search.given(coords, types, search.inputs([box], pbc, len(types))))
    if "too small" not in message:  # how far the atoms spread in the cell only the CPU takes into account
        assert str(raised.value) == str(wanted.value)


def test_the_first_frame_with_a_mistake_is_named() -> None:
    config = random_model(np.random.default_rng(7), ntypes=3)[0]
    coords = np.tile(np.arange(9.0).reshape(3, 3), (3, 1, 1))
    types = np.zeros((3, 3), np.int32)
    coords[1, 2], coords[2, 0, 0] = coords[1, 0], np.nan
    search = DeviceSearch(EmulatedDevice(seed=1), config)
    given = search.given(coords, types, search.inputs([None] * 3, OPEN, 3))
    found = search.run(given, search.guess(given))
    assert found.status["failed"][0] == 1
    assert not found.start.any()
    with pytest.raises(InputError, match="atoms 0 and 2 are at the same place"):
        search.check(given, found)
    assert found.systems["wrong"].tolist() == [0, 0, 2]
    assert found.systems["same_place"].tolist() == [[-1, -1], [0, 2], [-1, -1]]


def test_structs_are_what_python_reads() -> None:
    assert layout("SystemStatus", np.float64).itemsize == 96
    assert layout("SearchInput", np.float64).itemsize == 224


SANITIZED = """
from pathlib import Path
from cuda_emulator import EmulatedDevice
from device_lists import assert_same_lists, random_frame
device = EmulatedDevice(sanitizer={sanitizer!r}, sources=Path({folder!r}))
for seed in range({boxes}):
    device.seed = None if seed % 2 else seed
    assert_same_lists(device, *random_frame(seed), candidates=0 if seed % 5 else 6145)
"""


CROWD = """
import numpy as np
from random_model import random_model
config = random_model(np.random.default_rng(1), ntypes=2)[0]
coords = np.random.default_rng(2).normal(size=(300, 3)) * 2.0
coords[250:] += np.random.default_rng(3).normal(size=(50, 3)) * 1000.0
assert_same_lists(device, coords, np.zeros(300, np.int32), np.eye(3) * 300.0, (True, True, True), config)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizer", "boxes"), [("address", 24), ("thread", 12)])
def test_sanitizers_find_nothing(sanitizer: str, boxes: int) -> None:
    needs.sanitizer(sanitizer)
    done = run(SANITIZED.format(sanitizer=sanitizer, boxes=boxes, folder=str(SOURCES)), sanitizer)
    assert done.returncode == 0, done.stderr[-6000:]


LAST_LANE = "  if (lane == 31) of_warp[warp] = sum;\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizer", "source", "old", "new"),
    [
        ("thread", "sort.cuh", "__syncwarp(FULL_MASK);", ""),
        ("thread", "bins.cu", "__syncthreads();", ""),
        ("thread", "prefix_sums.cu", f"{LAST_LANE}  __syncthreads();", LAST_LANE),
        ("address", "candidates.cu", "hit && at < a.capacity", "hit"),
    ],
)  # fmt: skip
def test_mistakes_are_found(tmp_path: Path, sanitizer: str, source: str, old: str, new: str) -> None:
    needs.sanitizer(sanitizer)
    folder = tmp_path / "cuda"
    shutil.copytree(SOURCES, folder)
    text = (folder / source).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{source} has changed: {old!r} is not there"
    (folder / source).write_text(text.replace(old, new), encoding="utf-8")
    # One centre has more candidates than the search believes at first.
    done = run(SANITIZED.format(sanitizer=sanitizer, boxes=12, folder=str(folder)) + CROWD, sanitizer)
    report = "data race" if sanitizer == "thread" else "heap-buffer-overflow"
    assert report in done.stderr, done.stderr[-3000:]
    assert f"{source}:" in done.stderr
