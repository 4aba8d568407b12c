"""Neighbour lists of the search on a device against those of the compiled core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from device_search import DeviceSearch, Found
from dpa2 import _native
from random_model import STRUCTURES, draw_options, random_model, random_structure

#: what is the same integers on both
COMPARED = ("start", "j", "pad_repinit", "pad_three")


def random_frame(seed: int) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    config, _ = random_model(rng, **draw_options(rng))
    kind, natoms = STRUCTURES[seed % len(STRUCTURES)], int(rng.integers(1, 9))
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]), natoms, kind, bool(rng.integers(2)))
    return coords, types.astype(np.int32), box, pbc, config


def assert_transposed(j: Any, begin: Any, edges: Any, natoms: int) -> None:
    """``edges`` has the edges that end at each atom, in ascending order."""
    order = np.argsort(j, kind="stable")
    np.testing.assert_array_equal(edges, order)
    np.testing.assert_array_equal(begin, np.searchsorted(j[order], np.arange(natoms + 1)))


def assert_prefixes(got: Found, want: dict[str, Any], natoms: int) -> None:
    """The lists of the blocks are the first edges of each centre, and all of them stand by neighbour too."""
    centres = len(got.start) - 1
    rank = np.arange(len(got.j)) - got.start[got.centre]
    np.testing.assert_array_equal(got.centre, np.repeat(np.arange(centres), np.diff(got.start)))
    assert_transposed(got.j, got.begin, got.edges, natoms)
    for name in ("repformer", "three") if "three_start" in got.lists else ("repformer",):
        number = want[f"n_{name}"]
        edge = np.flatnonzero(rank < number[got.centre])
        np.testing.assert_array_equal(np.diff(got.lists[f"{name}_start"]), number)
        if name == "three":
            continue
        np.testing.assert_array_equal(got.lists[f"{name}_j"], got.j[edge])
        np.testing.assert_array_equal(got.lists[f"{name}_centre"], got.centre[edge])
    assert_transposed(got.repformer_j, got.repformer_begin, got.repformer_edges, natoms)


def assert_images(coords: Any, box: Any, pbc: Any, got: Found, want: Any) -> None:
    """Which image of the neighbour an edge leads to, from its displacement."""
    moved = got.d - (coords[got.j] - coords[got.centre])
    if box is None:
        np.testing.assert_allclose(moved, 0, atol=1e-9 * max(1.0, np.abs(coords).max()))
        assert not want.any()
    else:
        np.testing.assert_allclose(moved, want @ np.where(np.asarray(pbc)[:, None], box, 0.0), atol=1e-8)


def assert_same_lists(
    device: Any, coords: Any, types: Any, box: Any, pbc: Sequence[bool], config: dict[str, Any], candidates: int = 0
) -> Found:
    """The lists of a frame. ``candidates``: room for each centre, if not what the search believes to be enough."""
    search = DeviceSearch(device, config)
    coords = np.ascontiguousarray(coords, dtype=np.float64)
    given = search.given(coords, types, search.inputs([box], pbc, len(types)))
    found, capacity = search.search(given)
    if candidates:
        capacity.candidates_per_centre = candidates
        found = search.run(given, capacity)
    want = _native.neighbors(coords, types, box, pbc, json.dumps(config))
    for name in COMPARED:
        np.testing.assert_array_equal(found.lists[name], want[name], err_msg=name)
    np.testing.assert_allclose(found.d, want["d"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.r, want["r"], rtol=0, atol=1e-12)
    assert_images(coords, box, pbc, found, want["image"])
    assert_prefixes(found, want, len(types))
    np.testing.assert_array_equal(found.types, np.maximum(types, 0))
    np.testing.assert_array_equal(found.pad_types, np.maximum(types[:1], 0))
    if box is None:
        np.testing.assert_array_equal(found.wrapped, coords)
    return found
