"""The kernels of the pair channel on a device, launched as the host does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda_emulator.arguments import structs
from gpu_device import KernelDevice
from pair_formulas import SHIFT, Attention, tiles

KINDS = {"float": np.float32, "double": np.float64}
UPDATE_WARPS = 4


def tile_bytes(size: int) -> int:
    return 32 * (32 + 16 // size) * size


class PairKernels:
    """Attention among the edges of centres whose edges begin at ``start``.

    ``inputs``: g2, h2, w; ``blocks``: 0 is one per centre.
    """

    def __init__(
        self, device: KernelDevice, real: str, start: Any, attention: Attention, inputs: list[Any], blocks: int = 0
    ) -> None:
        self.device, self.real, self.attention, self.inputs = device, real, attention, inputs
        self.start = np.asarray(start, dtype=np.int32)
        self.edges, self.centres = int(self.start[-1]), len(self.start) - 1
        self.most = int(np.diff(self.start).max())
        self.heads, self.n2, _ = attention.A.shape
        self.blocks = blocks or self.centres
        self.top: Any = None
        self.inv_sum: Any = None

    def up(self, value: Any) -> Any:
        return None if value is None else np.ascontiguousarray(value, KINDS[self.real])

    def empty(self, *shape: int) -> Any:
        return self.device.empty(shape, KINDS[self.real])

    def _run(self, kernel: str, struct: str, roles: int, tiles_of_warp: int, values: dict[str, Any]) -> None:
        """``roles``: arrays of scratch, of which one has the size of a tile of edges and all channels."""
        most, size = (4, 4) if self.real == "float" else (2, 8)
        rounds = -(-self.heads // most)
        warps = -(-self.heads // rounds)
        g2, h2, w = (self.up(x) for x in self.inputs)
        common = {
            "g2": g2, "h2": h2, "w": w, "start": self.start, "heads": self.heads,
            "h2_weight": self.up(self.attention.h2), "centres": self.centres, "n2": self.n2,
            "gate": int(self.attention.gate),
            "shift": SHIFT if self.attention.smooth else 0,
            "scratch": self.empty(self.blocks * warps * roles * -(-self.n2 // 32) * 1024) if roles else None,
            "query_t": self.up(tiles(self.attention.A.transpose(0, 2, 1))),
        }  # fmt: skip
        shared = tile_bytes(size) * (1 + tiles_of_warp * warps) + size * ((1 + tiles_of_warp) * 128 + warps * 160)
        self.device.start(
            "pair_attention.cu", kernel, self.blocks, 32 * warps, struct, common | values, shared, {"real": self.real}
        )

    @property
    def one_tile(self) -> bool:
        return self.n2 <= 32 and self.most <= 32

    def forward(self, keep: bool = True) -> list[np.ndarray]:
        """What there is of z and dh."""
        of = self.attention
        z = None if of.B is None else self.empty(self.edges, self.n2)
        dh = None if of.h2 is None else self.empty(self.edges, 3)
        self.top, self.inv_sum = (self.empty(self.edges, self.heads) if keep else None for _ in range(2))
        values = {
            "z": z, "dh": dh, "top": self.top, "inv_sum": self.inv_sum, "nsel": of.nsel if of.smooth else 0,
            "value": None if of.B is None else self.up(tiles(of.B)), "bias": self.up(of.bias),
        }  # fmt: skip
        self._run("pair_attention", "PairAttentionArgs", 0 if self.one_tile else 2, 1, values)
        return [x for x in (z, dh) if x is not None]

    def backward(self, seeds: list[Any], begin: Sequence[float] = (1, 1, 1)) -> list[np.ndarray]:
        """Gradients of g2, h2 and w, added to arrays of the numbers ``begin``; after :meth:`forward`."""
        of, given = self.attention, [self.up(x) for x in seeds]
        found: list[np.ndarray] = [
            np.full_like(self.up(x), number) for x, number in zip(self.inputs, begin, strict=True)
        ]
        values = {
            "dg2": found[0], "dh2": found[1], "dw": found[2], "top": self.top, "inv_sum": self.inv_sum,
            "most": self.most, "dz": None if of.B is None else given[0], "ddh": None if of.h2 is None else given[-1],
            "query": self.up(tiles(of.A)),
            "value_t": None if of.B is None else self.up(tiles(of.B.transpose(0, 2, 1))),
        }  # fmt: skip
        self._run("pair_attention_backward", "PairAttentionBackwardArgs", 1 if self.one_tile else 4, 2, values)
        return found


def start_update(
    device: KernelDevice, real: str, kernel: str, capacity: int, values: dict[str, Any], defines: Any = None
) -> None:
    """`pair_update` or `pair_update_backward`, in a grid for ``capacity`` edges; what is not given is null or 0."""
    struct = {"pair_update": "PairUpdateArgs", "pair_update_backward": "PairUpdateBackwardArgs"}[kernel]
    missing = {name: None if pointer else 0 for name, _, pointer, _ in structs()[struct] if name not in values}
    shared = UPDATE_WARPS * tile_bytes(np.dtype(KINDS[real]).itemsize)
    device.start(
        *("pair_update.cu", kernel, -(-capacity // (32 * UPDATE_WARPS)), 32 * UPDATE_WARPS, struct, values | missing),
        *(shared, {"real": real, **(defines or {})}),
    )
