"""Neighbour lists of a device in the memory of a GPU, emulated or real, against those of the compiled core."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from dpa2 import _native
from dpa2.cuda.neighbors import DeviceLists, NeighborSearch
from random_model import STRUCTURES, draw_options, random_model, random_structure

#: what is the same integers on both
COMPARED = ("start", "j", "image", "n_three", "n_repformer", "pad_repinit", "pad_three")


def random_frame(seed: int) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    config, _ = random_model(rng, **draw_options(rng))
    kind, natoms = STRUCTURES[seed % len(STRUCTURES)], int(rng.integers(1, 9))
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]), natoms, kind, bool(rng.integers(2)))
    return coords, types.astype(np.int32), box, pbc, config


def assert_transposed(device: Any, j: Any, incoming: Any, natoms: int) -> None:
    """``incoming`` has the edges that end at each atom, in ascending order; j is on the host."""
    order = np.argsort(j, kind="stable")
    np.testing.assert_array_equal(device.asnumpy(incoming.edges), order)
    np.testing.assert_array_equal(device.asnumpy(incoming.begin), np.searchsorted(j[order], np.arange(natoms + 1)))


def assert_same_lists(device: Any, coords: Any, types: Any, box: Any, pbc: Any, config: dict[str, Any]) -> DeviceLists:
    """The lists of a frame on any device against those of the compiled core."""
    search = NeighborSearch(device, config)
    lists = search.build(device.asarray(coords), device.asarray(types), box, pbc, images=True)
    want = _native.neighbors(coords, types, box, pbc, json.dumps(config))
    got = {name: device.asnumpy(getattr(lists, name)) for name in (*COMPARED, "d", "r", "centre")}
    for name in COMPARED:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    np.testing.assert_allclose(got["d"], want["d"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(got["r"], want["r"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(got["centre"], np.repeat(np.arange(len(coords)), np.diff(want["start"])))
    assert_transposed(device, got["j"], lists.incoming, len(coords))
    rank = np.arange(len(got["j"])) - got["start"][got["centre"]]
    for name in ("n_repformer", "n_three"):
        block, incoming = search.block(lists, getattr(lists, name))
        edge = np.flatnonzero(rank < got[name][got["centre"]])
        np.testing.assert_array_equal(np.diff(device.asnumpy(block.start)), got[name])
        np.testing.assert_array_equal(device.asnumpy(block.edge), edge)
        np.testing.assert_array_equal(device.asnumpy(block.j), got["j"][edge])
        assert block.most == max(got[name])
        assert_transposed(device, got["j"][edge], incoming, len(coords))
    return lists
