"""Neighbour lists of the compiled core for the engine of a device, whose own search is tested apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from dpa2 import _native
from dpa2.cuda.device import Array, Device
from dpa2.cuda.geometry import BlockList, Incoming, Lists
from dpa2.inputs import Pbc
from dpa2.remarks import Remarks


class HostLists:
    """Lists from the compiled core, on the host; copied to the device. Remarks are not made."""

    def __init__(self, device: Device, config: dict[str, Any]) -> None:
        self._device, self._config_json = device, json.dumps(config)

    def build(self, coords: Array, types: Array, box: Any, pbc: Pbc) -> Lists:
        device, natoms = self._device, len(types)
        found = _native.neighbors(device.asnumpy(coords), device.asnumpy(types), box, pbc, self._config_json)
        whole = ("start", "j", "n_three", "n_repformer", "pad_repinit", "pad_three")
        lists = {name: device.asarray(found[name].astype(np.int32)) for name in whole}
        lists |= {name: device.asarray(found[name]) for name in ("d", "r")}
        centre = np.repeat(np.arange(natoms, dtype=np.int32), np.diff(found["start"]))
        reverse = incoming(device.xp, lists["j"], natoms)
        return Lists(**lists, remarks=Remarks(), centre=device.asarray(centre), incoming=reverse)

    def block(self, lists: Lists, count: Array) -> tuple[BlockList, Incoming]:
        xp = self._device.xp
        rank = xp.arange(lists.j.shape[0], dtype=np.int32) - lists.start[lists.centre]
        edge = xp.flatnonzero(rank < count[lists.centre]).astype(np.int32)
        start = xp.zeros(count.shape[0] + 1, dtype=np.int32)
        start[1:] = xp.cumsum(count)
        j = xp.ascontiguousarray(lists.j[edge])
        return BlockList(start, edge, j, int(count.max())), incoming(xp, j, count.shape[0])


def incoming(xp: Any, j: Array, natoms: int) -> Incoming:
    order = xp.argsort(j, kind="stable").astype(np.int32)
    begin = xp.searchsorted(j[order], xp.arange(natoms + 1, dtype=np.int32), side="left").astype(np.int32)
    return Incoming(begin, order)
