"""The kernels of the first blocks on an emulated device, launched as the host does, and the reference on its edges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda_emulator import EmulatedDevice
from dpa2._native import folded
from dpa2.reference.common import EdgeList, Weights
from dpa2.reference.g2_embed import g2_embed
from dpa2.reference.repinit import repinit
from dpa2.reference.three_body import three_body
from dpa2.reference.type_embedding import type_embedding
from entry_series import Series

Arrays = dict[str, np.ndarray]
THREADS, SHARED = 128, 48 * 1024
SILUT = 8


@dataclass
class Edges:
    """Systems of one size side by side: some edges for every centre, the lists of the blocks their first ones."""

    frames: int
    centres: int
    atoms: int  # with ghosts, of one frame
    start: np.ndarray
    j: np.ndarray
    d: np.ndarray
    types: np.ndarray
    three: np.ndarray  # (centres) edges in that list
    repformer: np.ndarray
    pads: dict[str, np.ndarray]

    @property
    def number(self) -> int:
        return len(self.j)

    def centre(self) -> np.ndarray:
        return np.repeat(np.arange(self.centres), np.diff(self.start))

    def list(self, count: np.ndarray) -> np.ndarray:
        """(centres + 1) where the list of the first count[i] edges begins for centre i."""
        return np.concatenate([[0], np.cumsum(count)])

    def members(self, count: np.ndarray) -> np.ndarray:
        """Numbers of those edges in the master list."""
        rank = np.arange(self.number) - self.start[self.centre()]
        return np.flatnonzero(rank < count[self.centre()])

    def pad_types(self) -> np.ndarray:
        return self.types[:: self.centres // self.frames][: self.frames]


def draw_edges(seed: int, counts: list[list[int]], ntypes: int = 3, ghosts: int = 0, rcut: float = 3.0) -> Edges:
    """`counts`: edges of every centre, frame by frame. Neighbours may be ghosts where there is one frame."""
    rng = np.random.default_rng(seed)
    each = np.concatenate([np.array(frame, dtype=np.int64) for frame in counts])
    size, centres = len(counts[0]), len(each)
    start = np.concatenate([[0], np.cumsum(each)])
    first = np.repeat(np.arange(centres) // size * size, each)
    j = first + rng.integers(0, size + ghosts, start[-1])
    r = np.concatenate([np.sort(rng.uniform(0.7, rcut, n)) for n in each])
    unit = rng.normal(size=(start[-1], 3))
    d = r[:, None] * unit / np.linalg.norm(unit, axis=1)[:, None]
    pads = {name: rng.integers(0, 5, centres) for name in ("repinit", "three")}
    return Edges(
        *(len(counts), centres, centres + ghosts, start, j, d, rng.integers(0, ntypes, centres + ghosts)),
        *(np.maximum(each - rng.integers(0, 3, centres), 0), np.maximum(each - rng.integers(0, 4, centres), 0), pads),
    )


def edge_list(edges: Edges, frame: int, count: np.ndarray | None, d: Any) -> EdgeList:
    """One block's list of one frame, with ghosts as atoms without neighbours."""
    size = edges.centres // edges.frames
    own = slice(frame * size, (frame + 1) * size)
    each = np.diff(edges.start) if count is None else count
    start = edges.list(
        np.where((np.arange(edges.centres) >= own.start) & (np.arange(edges.centres) < own.stop), each, 0)
    )
    members = edges.members(each)
    members = members[edges.centre()[members] // size == frame]
    ghosts = edges.atoms - edges.centres
    local = np.concatenate([start[own.start : own.stop + 1], np.full(ghosts, start[-1])]) - start[own.start]
    vectors = d[members]
    return EdgeList(local, edges.centre()[members] - own.start, edges.j[members] - own.start, vectors,
                    np.sqrt((vectors**2).sum(axis=1)))  # fmt: skip


def reference(config: Any, weights: Any, edges: Edges, d: Any) -> Arrays:
    """D (centres, nd), g2, h2 and w (edges of the repformer, .) as the reference computes them."""
    options, known = config["descriptor"], Weights(weights)
    grids = config.get("compression") or {}
    tebd = type_embedding(config, known)
    size, ghosts = edges.centres // edges.frames, edges.atoms - edges.centres
    out: dict[str, list[Any]] = {name: [] for name in ("D", "g2", "h2", "w")}
    for frame in range(edges.frames):
        rows = slice(frame * size, (frame + 1) * size + ghosts)
        types = edges.types[rows]
        pads = {
            k: np.concatenate([v[frame * size : (frame + 1) * size], np.zeros(ghosts, int)])
            for k, v in edges.pads.items()
        }
        master = edge_list(edges, frame, None, d)
        D = [repinit(master, pads["repinit"], types, tebd, options, known, grids.get("repinit"))]
        if options["repinit"]["use_three_body"]:
            own = edge_list(edges, frame, edges.three, d)
            D.append(three_body(own, pads["three"], types, tebd, options, known, grids.get("three_body")))
        g2, h2, rest = g2_embed(edge_list(edges, frame, edges.repformer, d), types, options, known)
        for name, value in (("D", np.concatenate(D, axis=1)[:size]), ("g2", g2), ("h2", h2), ("w", rest.w)):
            out[name].append(value)
    return {name: np.concatenate(values) for name, values in out.items()}


def lane_row(lanes: int, size: int) -> int:
    return lanes if lanes * size // 16 % 2 else lanes + 16 // size


class Network:
    """An embedding network in the layout of embedding_net.hpp."""

    def __init__(self, model: Any, block: str, real: Any, smooth: bool) -> None:
        parts: list[Any] = []

        def place(value: Any) -> int:
            """Columns become a multiple of four."""
            if value is None:
                return -1
            matrix = np.atleast_2d(value)
            parts.append(np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % 4))).ravel())
            return sum(part.size for part in parts[:-1])

        typed = int(model[f"{block}.typed"])
        table = model.get(f"{block}.table.coefficients")
        layout: list[int] = [0]
        if table is not None:
            _, intervals, _, self.even = table.shape
            self.odd, layers = 0, 0
            parts = [model[f"{block}.table.nodes"].ravel(), table.ravel()]
            self.defines: dict[str, Any] = {"TABLE": 1}
        else:
            layout, widths, intervals, layers = [], [], 0, 0
            while f"{block}.layers.{layers}.in" in model:
                at = f"{block}.layers.{layers}"
                layout += [int(model[f"{at}.{name}"]) for name in ("in", "out", "skip")]
                widths.append(layout[-2])
                layout += [place(model.get(f"{at}.{name}")) for name in ("w", "b", "idt")]
                layers += 1
            self.even, self.odd = max(widths[0::2]), max(widths[1::2], default=0)
            number, *constants = model[f"{block}.activation"].ravel().tolist()
            self.defines = {"ACT": int(number)}
            if number == SILUT:
                self.defines |= dict(
                    zip(("SILUT_THRESHOLD", "SILUT_SLOPE", "SILUT_OFFSET"), map(repr, constants), strict=True)
                )

        def up(name: str) -> Any:
            value = model.get(f"{block}.{name}")
            return None if value is None else np.ascontiguousarray(value, real)

        if f"{block}.gate" in model:
            self.defines["GATED"] = 1
        weights = np.concatenate(parts).astype(real)
        self.args = {
            "layout": np.array(layout, np.int32), "weights": weights, "type_term": up("type_term"),
            "type_skip": up("type_skip"), "gate": up("gate"), "layers": layers, "intervals": intervals,
            "typed": typed, "even": self.even, "odd": self.odd, "gate_switch": int(smooth),
        }  # fmt: skip

    def numbers(self, tangent: bool, row: int) -> int:
        return (1 + tangent) * (self.even + self.odd) * row


class EntryKernels:
    """Launches the kernels for one model. ``lanes``, ``narrow`` and ``scratch`` (blocks that work in global memory) are
    what the host chooses; without ``lanes`` the largest number that fits, in global memory where none does. ``warps``:
    of a block of the kernels of the series, which take the place of these; 0: the networks.
    """

    def __init__(self, config: Any, weights: Any, device: EmulatedDevice, precision: str = "double", lanes: int = 0,
                 narrow: bool = False, scratch: int = 0, warps: int = 0) -> None:  # fmt: skip
        self.config, self.device, self.lanes, self.scratch, self.warps = config, device, lanes, scratch, warps
        self.forms: list[tuple[str, int, bool]] = []  # kernel, lanes, in global memory: what was launched
        self.model = folded(json.dumps(config), weights)
        self.real = np.float64 if precision == "double" else np.float32
        self.size = np.dtype(self.real).itemsize
        self.base: dict[str, Any] = {"real": precision}
        if narrow:
            self.base["NARROW"] = 1
        options = config["descriptor"]
        self.ntypes, self.smooth = len(config["type_map"]), bool(options["smooth"])
        self.repinit = Network(self.model, "repinit", self.real, self.smooth)
        self.ng, self.axis = int(options["repinit"]["neuron"][-1]), int(options["repinit"]["axis_neuron"])
        self.n3 = 0
        if options["repinit"]["use_three_body"]:
            self.three = Network(self.model, "three_body", self.real, self.smooth)
            self.n3 = int(options["repinit"]["three_body_neuron"][-1])
        self.nd = self.ng * self.axis + self.n3
        self.n2 = int(options["repformer"]["g2_dim"])
        self.direct = float(self.model["repformer.inv_rcut"]) if options["repformer"]["direct_dist"] else 0.0

        if warps:
            self.make_series(options["repinit"]["activation_function"])

    def make_series(self, act: str) -> None:
        """From 0.6 angstrom on."""
        real, smooth = self.real, self.smooth
        low, high = [], []
        for mean, inv_std in zip(self.model["repinit.mean"], self.model["repinit.inv_std"], strict=True):
            low.append(-mean[0] * inv_std[0] - 1e-3)
            high.append((1 / 0.6 - mean[0]) * inv_std[0])
        self.repinit_series = Series(self.model, "repinit", act, real, smooth, min(low), max(high))
        if self.n3:
            spread = (1 / 0.6 + np.abs(self.model["three_body.mean"][:, 1:])) * np.abs(
                self.model["three_body.inv_std"][:, 1:]
            )
            most = float((spread**2).sum(axis=1).max())
            self.three_series = Series(self.model, "three_body", act, real, smooth, -most, most, self.ntypes)

    def up(self, name: str) -> Any:
        value = self.model.get(name)
        return None if value is None else np.ascontiguousarray(value, self.real)

    def statistics(self, block: str) -> dict[str, Any]:
        numbers = {name: float(self.model[f"{block}.{name}"]) for name in ("rcut_smth", "inv_width", "protection")}
        return {"mean": self.up(f"{block}.mean"), "inv_std": self.up(f"{block}.inv_std"), **numbers}

    def lists(self, edges: Edges, d: np.ndarray) -> None:
        """Arrays of edges with room for more than there are."""
        spare = 5

        def padded(value: Any, kind: Any) -> Any:
            out = self.device.empty((len(value) + spare, *np.shape(value)[1:]), kind)
            out[: len(value)] = value
            return out

        self.edges = edges
        self.at = {
            "d": padded(d, np.float64), "r": padded(np.sqrt((d**2).sum(axis=1)), np.float64),
            "start": edges.start.astype(np.int32), "j": padded(edges.j, np.int32),
            "types": edges.types.astype(np.int32),
        }  # fmt: skip
        self.pads = {name: value.astype(np.int32) for name, value in edges.pads.items()}
        self.pad_types = edges.pad_types().astype(np.int32)
        self.capacity = edges.number + spare
        centre = edges.centre()[edges.members(edges.repformer)]
        self.repformer_capacity = len(centre) + spare
        self.three_start = edges.list(edges.three).astype(np.int32)
        self.rep = {
            "d": self.at["d"], "r": self.at["r"], "types": self.at["types"], "master_start": self.at["start"],
            "start": edges.list(edges.repformer).astype(np.int32), "centre": padded(centre, np.int32),
            "centres": edges.centres, "smooth": int(self.smooth),
        }  # fmt: skip

    def _launch(self, source: str, kernel: str, struct: str, values: Any, net: Network, small: Any, work: Any) -> None:
        """``small(lanes)`` bytes and ``work(lanes)`` numbers of shared memory."""
        lanes, blocks = self.lanes, self.scratch
        if not lanes:
            lanes = 128 // self.size
            while lanes >= 4 and small(lanes) + work(lanes) * self.size > SHARED:
                lanes //= 2
            if lanes < 4:
                lanes, blocks = 128 // self.size, 2
        defines = self.base | net.defines | {"LANES": lanes} | ({"GLOBAL_WORK": 1} if blocks else {})
        shared = small(lanes) + (0 if blocks else work(lanes) * self.size)
        assert shared <= SHARED
        count = min(blocks, self.edges.centres) if blocks else self.edges.centres
        values |= {"scratch": self.device.empty(count * work(lanes), self.real) if blocks else None, "net": net.args}
        self.forms.append((kernel, lanes, blocks > 0))
        self.device.start(source, kernel, count, THREADS, struct, values, shared, defines)

    def _series(self, source: str, backward: bool, struct: str, values: Any, net: Network, series: Series,
                bytes_of_warp: int, **more: int) -> None:  # fmt: skip
        warps = min(self.warps, SHARED // bytes_of_warp)
        values = {"block": values | {"net": net.args, "scratch": None}, "series": series.args, **more}
        defines = self.base | net.defines | {"WARPS": warps}
        kernel, blocks = f"{source}_backward" if backward else source, -(-self.edges.centres // warps)
        self.device.start(f"{source}.cu", kernel, blocks, 32 * warps, struct, values, warps * bytes_of_warp, defines)

    def _repinit(self, backward: bool, values: Any) -> None:
        values = values | self.at | {
            "statistics": self.statistics("repinit"),
            "inv_nsel": float(self.model["repinit.inv_nsel"]), "centres": self.edges.centres,
            "ng": self.ng, "axis": self.axis, "ntypes": self.ntypes,
            "one_side": int(self.config["descriptor"]["repinit"]["type_one_side"]), "d_width": self.nd,
        }  # fmt: skip

        if self.warps:
            struct = "RepinitSeriesBackwardArgs" if backward else "RepinitSeriesArgs"
            series, net = self.repinit_series, self.repinit
            needed = series.repinit_bytes(net.numbers(backward, 1), backward, self.size)
            return self._series("repinit_series", backward, struct, values, net, series, needed)
        gated = "GATED" in self.repinit.defines

        def small(lanes: int) -> int:
            return (5 + 3 * (5 + gated) * backward) * lanes * self.size + 4 * lanes

        def work(lanes: int) -> int:
            return 4 * self.ng + self.repinit.numbers(backward, lane_row(lanes, self.size))

        name = "repinit_backward" if backward else "repinit"
        self._launch(
            "repinit.cu", name, "RepinitBackwardArgs" if backward else "RepinitArgs", values, self.repinit, small, work
        )

    def _three(self, backward: bool, values: Any) -> None:
        vectors = np.ascontiguousarray(self.model["three_body.pad"][:, 1:], self.real)
        values = values | self.at | {
            "statistics": self.statistics("three_body"),
            "inv_nsel_squared": float(self.model["three_body.inv_nsel_squared"]), "centres": self.edges.centres,
            "per_frame": self.edges.centres // self.edges.frames, "n3": self.n3, "ntypes": self.ntypes,
            "d_width": self.nd, "offset": self.nd - self.n3, "start": self.three_start,
            "master_start": self.at["start"],
            "pad": self.pads["three"], "pad_types": self.pad_types, "pad_v": vectors if vectors.any() else None,
        }  # fmt: skip

        if self.warps:
            struct = "ThreeBodySeriesBackwardArgs" if backward else "ThreeBodySeriesArgs"
            series, net, room = self.three_series, self.three, int(self.edges.three.max()) + 1
            needed = series.three_body_bytes(room, self.ntypes, net.numbers(backward, 1), backward, self.size)
            more = {"room": room, "words": series.words(self.ntypes)}
            return self._series("three_body_series", backward, struct, values, net, series, needed, **more)
        gated = "GATED" in self.three.defines

        def small(lanes: int) -> int:
            numbers = 8 * 32 + 3 * lanes + backward * (3 * (2 + gated) * lanes + (1 + gated) * 32 * 33)
            return numbers * self.size + (64 + lanes) * 4

        def work(lanes: int) -> int:
            return -(-self.n3 // 4) * 4 + self.three.numbers(backward, lane_row(lanes, self.size))

        name = "three_body_backward" if backward else "three_body"
        self._launch(
            "three_body.cu",
            name,
            "ThreeBodyBackwardArgs" if backward else "ThreeBodyArgs",
            values,
            self.three,
            small,
            work,
        )

    def _g2_embed(self, name: str, struct: str, values: Any) -> None:
        values = values | {
            "weight": self.up("repformer.g2.w"), "bias": self.up("repformer.g2.b"), "edges": self.rep,
            "statistics": self.statistics("repformer"), "direct": self.direct, "n2": self.n2,
        }  # fmt: skip
        number, *constants = self.model["repformer.activation"].ravel().tolist()
        defines = {"real": self.base["real"], "ACT": int(number)}
        if number == SILUT:
            defines |= dict(zip(("SILUT_THRESHOLD", "SILUT_SLOPE", "SILUT_OFFSET"), map(repr, constants), strict=True))
        self.device.start("g2_embed.cu", name, -(-self.repformer_capacity // 32), THREADS, struct, values, 0, defines)

    def forward(self) -> Arrays:
        empty, real, n, e = self.device.empty, self.real, self.edges.centres, self.repformer_capacity
        self.out = {
            "D": empty((n, self.nd), real),
            "g2": empty((e, self.n2), real),
            "h2": empty((e, 3), real),
            "w": empty(e, real),
        }
        self.M = empty((n, self.ng, 4), real)
        pad_G = self.up("repinit.pad_embedding")
        pad_R = None if pad_G is None else self.up("repinit.pad")
        pads = {"pad": self.pads["repinit"], "pad_types": self.pad_types, "pad_G": pad_G, "pad_R": pad_R,
                "per_frame": n // self.edges.frames}  # fmt: skip
        self._repinit(False, {"D": self.out["D"], "M": self.M, **pads})
        if self.n3:
            self._three(False, {"D": self.out["D"]})
        self._g2_embed("g2_embed", "G2EmbedArgs", {name: self.out[name] for name in ("g2", "h2", "w")})
        used = e - 5
        for name in ("g2", "h2", "w"):
            assert np.isnan(self.out[name][used:]).all(), "rows beyond the list were written"
        return {name: value if name == "D" else value[:used] for name, value in self.out.items()}

    def backward(self, seeds: Arrays) -> np.ndarray:
        """(edges, 3) gamma, given the gradients of what `forward` returned."""
        gamma = self.device.empty((self.capacity, 3), self.real)
        given = {}
        for name, value in seeds.items():
            rows = self.edges.centres if name == "D" else self.repformer_capacity
            given[name] = self.device.empty((rows, *value.shape[1:]), self.real)
            given[name][: len(value)] = value
        self._repinit(True, {"gamma": gamma, "dD": given["D"], "M": self.M})
        if self.n3:
            self._three(True, {"gamma": gamma, "dD": given["D"]})
        self._g2_embed("g2_embed_backward", "G2EmbedBackwardArgs",
                       {"gamma": gamma, "dg2": given["g2"], "dh2": given["h2"], "dw": given["w"]})  # fmt: skip
        assert np.isnan(gamma[self.edges.number :]).all(), "edges that do not exist were written"
        return gamma[: self.edges.number]
