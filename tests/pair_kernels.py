"""The kernels of the pair channel on a device, launched as the host does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gpu_device import KernelDevice
from pair_formulas import SHIFT, PairLayer, tiles

KINDS = {"float": np.float32, "double": np.float64}
UPDATE_WARPS = 4
#: bytes in which a block tells its warps which centre is next, in float
SLOTS = 32
#: -D... of the path that takes any number of edges, for all centres
GENERAL = {"PAIR_FAST": 0}


def tile_bytes(size: int) -> int:
    return 32 * (32 + 16 // size) * size


def whole_vectors(numbers: int) -> int:
    return -(-numbers // 4) * 4


class PairKernels:
    """The pair channel of a layer, of centres whose edges begin at ``start``.

    ``inputs``: g2, h2, w; ``U``: the update by g1g1, or None; ``blocks``: 0 is one per centre; ``room``: rows behind
    the edges, which nobody may read or write.
    """

    def __init__(
        self, device: KernelDevice, real: str, start: Any, layer: PairLayer, inputs: list[Any], U: Any = None,
        blocks: int = 0, room: int = 0, defines: Mapping[str, str | int] | None = None,
    ) -> None:  # fmt: skip
        self.device, self.real, self.layer, self.inputs, self.U = device, real, layer, inputs, U
        self.start = np.asarray(start, dtype=np.int32)
        self.edges, self.centres = int(self.start[-1]), len(self.start) - 1
        self.most = int(np.diff(self.start).max())
        self.n2 = len(layer.update.b)
        self.heads = 0 if layer.attention is None else len(layer.attention.A)
        self.blocks, self.room = blocks or self.centres, room
        # The paths in registers are for float, and for rows of whole vectors that are one tile.
        fast = {"PAIR_FAST": int(real == "float" and self.n2 <= 32 and self.n2 % 4 == 0)}
        self.defines = {"real": real, **fast, **(defines or {})}

    def constant(self, value: Any) -> Any:
        return np.ascontiguousarray(value, KINDS[self.real])

    def up(self, rows: Any) -> Any:
        """With the rows that are nobody's."""
        rows = np.asarray(rows)
        return self.constant(np.concatenate([rows, np.full((self.room, *rows.shape[1:]), np.nan)]))

    def down(self, rows: Any) -> Any:
        assert np.isnan(rows[self.edges :]).all(), "the kernel wrote behind the edges"
        return rows[: self.edges]

    def empty(self, *shape: int) -> Any:
        return self.device.empty(shape, KINDS[self.real])

    def constants(self) -> dict[str, Any]:
        of, f = self.layer.attention, self.layer.update
        found: dict[str, Any] = dict.fromkeys(
            ("query", "query_t", "value", "value_t", "bias", "h2_weight", "g1g1_r", "gain", "norm_shift")
        )
        found |= {
            "linear_w": tiles(f.w[None]), "linear_wt": tiles(f.w.T[None]), "linear_b": f.b, "linear_r": f.r[0],
        }  # fmt: skip
        if self.U is not None:
            found["g1g1_r"] = f.r[1]
        if of is not None:
            found |= {"query": tiles(of.A), "query_t": tiles(of.A.transpose(0, 2, 1)), "h2_weight": of.h2}
            if of.B is not None:
                found |= {"value": tiles(of.B), "value_t": tiles(of.B.transpose(0, 2, 1)), "bias": of.bias}
                found |= {"gain": f.gain * f.r[2], "norm_shift": f.shift * f.r[2]}
        found = {name: None if value is None else self.constant(value) for name, value in found.items()}
        smooth = of is not None and of.smooth
        return found | {
            "n2": self.n2, "heads": self.heads, "gate": int(of is not None and of.gate),
            "nsel": of.nsel if of is not None and smooth else 0, "shift": SHIFT if smooth else 0,
            "a": f.a, "h2_a": f.h2_a, "h2_r": f.h2_r, "eps": f.eps,
        }  # fmt: skip

    def _run(self, kernel: str, struct: str, backward: bool, values: dict[str, Any]) -> None:
        chunks, size = -(-self.n2 // 32), np.dtype(KINDS[self.real]).itemsize
        g2, h2, w = (self.up(x) for x in self.inputs)
        common = {"g2": g2, "h2": h2, "w": w, "start": self.start, "centres": self.centres, "most": self.most}
        common |= {"with": self.constants(), "taken": None}
        if self.heads == 0:
            grid = -(-(self.edges + self.room) // (32 * UPDATE_WARPS))
            numbers = grid * UPDATE_WARPS * chunks * 1024 if backward and chunks > 1 else 0
            common["scratch"] = self.empty(numbers) if numbers else None
            shared = UPDATE_WARPS * tile_bytes(size)
            self.device.start(
                *("pair_update.cu", kernel.replace("layer", "update"), grid, 32 * UPDATE_WARPS, struct),
                *(common | values, shared, self.defines),
            )
            return
        rounds = -(-self.heads // (4 if self.real == "float" else 2))
        warps = -(-self.heads // rounds)
        numbers, shared = (self._fast if self.defines["PAIR_FAST"] else self._general)(backward, warps, rounds)
        common["scratch"] = self.empty(self.blocks * numbers) if numbers else None
        shared = (SLOTS if size == 4 else 0) + size * shared
        common["taken"] = self.device.empty(2, np.int32)
        common["taken"][...] = 0
        self.device.start(
            *("pair_layer.cu", kernel, self.blocks, 32 * warps, struct, common | values, shared, self.defines)
        )

    def _fast(self, backward: bool, warps: int, rounds: int) -> tuple[int, int]:
        """Numbers of scratch and of shared memory of a block, of the paths in registers."""
        tiles, of_tile = -(-self.most // 32), 1176
        if not backward:
            return (warps * 2048 if tiles > 1 else 0), (2 + warps) * of_tile + 64 + 160 * warps + 128
        scratch = (warps + (rounds > 1)) * 1024
        if tiles > 1:
            scratch = warps * ((2 + rounds) * 1024 + 128) + tiles * (1024 + 128 * (self.heads + 1))
        return scratch, (2 + 2 * warps) * of_tile + 64

    def _general(self, backward: bool, warps: int, rounds: int) -> tuple[int, int]:
        """The same of the path for any number of channels."""
        chunks, size = -(-self.n2 // 32), np.dtype(KINDS[self.real]).itemsize
        one_tile = self.n2 <= 32 and self.most <= 32
        if backward:
            arrays = (max(2, rounds) if one_tile else max(4, 2 + rounds)) * chunks
            numbers = warps * 128 + whole_vectors(-(-self.most // 32) * 96 * self.heads + self.most * 3)
        else:
            arrays, numbers = 0 if one_tile else 2 * chunks, 0
        numbers += warps * arrays * 1024 + whole_vectors(self.most * self.n2)
        kinds = 2 if backward else 1  # tiles of a warp
        edges = (1 + kinds) * 128 + warps * (160 if backward else 192)
        return numbers, tile_bytes(size) // size * (1 + kinds * warps) + edges

    def forward(self) -> dict[str, np.ndarray]:
        """out, and h2 where that is updated."""
        of, rows = self.layer.attention, self.edges + self.room
        found = {"out": self.empty(rows, self.n2)}
        if of is not None and of.h2 is not None:
            found["h2"] = self.empty(rows, 3)
        values = {
            "out": found["out"], "h2_out": found.get("h2"), "U": None if self.U is None else self.up(self.U),
        }  # fmt: skip
        self._run("pair_layer", "PairLayerArgs", False, values)
        return {name: self.down(x) for name, x in found.items()}

    def backward(self, seeds: Mapping[str, Any], begin: float = 1) -> dict[str, np.ndarray]:
        """Gradients of g2, h2, w and U, given those of out and h2; that of w is added to ``begin``."""
        found = {
            "g2": self.up(seeds["out"]),
            "h2": self.up(seeds["h2"]),
            "w": self.up(np.full(self.edges, begin)),
        }
        if self.U is not None:
            found["U"] = self.empty(self.edges + self.room, self.n2)
        values = {"dg2": found["g2"], "dh2": found["h2"], "dw": found["w"], "dU": found.get("U")}
        self._run("pair_layer_backward", "PairLayerBackwardArgs", True, values)
        return {name: self.down(x) for name, x in found.items()}
