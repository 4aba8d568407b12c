"""The host code of the neighbour search (src/gpu/search.hpp) with its kernels on the emulated device.

The code is compiled into a library of its own that asks Python for memory and for launches.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Sequence
from ctypes import c_char_p, c_double, c_int, c_longlong, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cuda_emulator import EmulatedDevice
from cuda_emulator.arguments import layout
from cuda_emulator.build import SOURCES, _digest, _run, cache_folder, compiler, compiler_version
from dpa2.errors import InputError
from numpy.typing import NDArray

HOST = Path(__file__).resolve().parent / "cuda" / "search_library.cpp"
GUARD = 64  # bytes behind every buffer that nobody may write
BLOCKS = ("repinit", "three_body", "repformer")
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unknown-pragmas", f"-I{SOURCES}"]

TAKE = ctypes.CFUNCTYPE(c_void_p, c_char_p, c_longlong)
RELEASE = ctypes.CFUNCTYPE(None, c_void_p)
CLEAR = ctypes.CFUNCTYPE(None, c_void_p, c_longlong)
LAUNCH = ctypes.CFUNCTYPE(None, c_char_p, c_char_p, c_longlong, c_int, c_longlong, c_void_p, c_longlong)


def _structure(name: str, **members: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(members.items())})


Calls = _structure("Calls", take=TAKE, release=RELEASE, clear=CLEAR, launch=LAUNCH)
Settings = _structure(
    "Settings",
    rcut=c_double * 3,
    nsel=c_int * 3,
    use_three=c_int,
    ntypes=c_int,
    env_protection=c_double,
    pair_excluded=c_void_p,
    descr_excluded=c_void_p,
)
Given = _structure(
    "Given",
    **dict.fromkeys(("frames", "atoms", "centres", "open"), c_int),
    **dict.fromkeys(("coords", "types", "input", "ids"), c_void_p),
)
CapacityStruct = _structure(
    "CapacityStruct",
    **dict.fromkeys(("candidates_per_centre", "bins_per_frame", "master", "repformer"), c_int),
)
List = _structure("List", start=c_void_p, j=c_void_p, centre=c_void_p, capacity=c_int, most=c_int)
IncomingStruct = _structure("IncomingStruct", begin=c_void_p, edges=c_void_p)
FrameStruct = _structure(
    "FrameStruct",
    **dict.fromkeys(("centres", "atoms", "frames"), c_int),
    **dict.fromkeys(("types", "given_types", "pad_types", "d", "r", "wrapped"), c_void_p),
    **dict.fromkeys(("master", "repformer", "three"), List),
    **dict.fromkeys(("incoming", "repformer_incoming"), IncomingStruct),
    **dict.fromkeys(("pad_repinit", "pad_three", "ids", "systems", "failed"), c_void_p),
)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled host code; kept with the kernels."""
    lists = [path for path in sorted((SOURCES / "neighbors").glob("*.cpp")) if path.name != "settings.cpp"]
    units = [HOST, *sorted((SOURCES / "gpu").glob("search*.cpp")), *lists]  # settings come from the test
    headers = [
        path for part in ("gpu", "neighbors", "cuda", "math", "fold") for path in sorted((SOURCES / part).glob("*.hpp"))
    ]
    text = [path.read_text(encoding="utf-8") for path in (*units, *headers)]
    target = cache_folder() / f"search-{_digest(*text, *FLAGS, *compiler(), compiler_version())}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            part = Path(folder) / "search.so"
            _run([*compiler(), *FLAGS, *map(str, units), "-pthread", "-o", str(part)])
            part.replace(target)
    found = ctypes.CDLL(str(target))
    for name in ("search_new", "host_new"):
        getattr(found, name).restype = c_void_p
    for name in ("search_input", "search_grown", "search_check", "host_build"):
        getattr(found, name).restype = c_char_p
    found.host_edges.restype = c_longlong
    return found


def _raise(message: bytes | None) -> None:
    if message is not None:
        raise InputError(message.decode())


def _at(array: Any) -> Any:
    return None if array is None else c_void_p(array.ctypes.data)


def exclusion_mask(pairs: Sequence[Sequence[int]], ntypes: int) -> NDArray[np.int8] | None:
    """(ntypes, ntypes) 1 for the excluded pairs of types, in both orders."""
    if not pairs:
        return None
    mask = np.zeros((ntypes, ntypes), dtype=np.int8)
    for a, b in pairs:
        mask[a, b] = mask[b, a] = 1
    return mask


@dataclass
class Found:
    """What a search has left on the device, cut to what is filled, and what the host learned."""

    lists: dict[str, NDArray[Any]]
    status: Any
    systems: Any
    remarks: list[tuple[dict[str, tuple[int, int, int]], tuple[int, int, float] | None]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["lists"][name]
        except KeyError as error:
            raise AttributeError(name) from error


class DeviceSearch:
    """The search of a model on a device. ``config``: its canonical configuration."""

    def __init__(self, device: EmulatedDevice, config: dict[str, Any]) -> None:
        option, self.device = config["descriptor"], device
        repinit, repformer, ntypes = option["repinit"], option["repformer"], len(config["type_map"])
        three = bool(repinit["use_three_body"])
        self._masks = [
            exclusion_mask(pairs, ntypes) for pairs in (config["pair_exclude_types"], option["exclude_types"])
        ]
        self.settings = Settings(
            (c_double * 3)(repinit["rcut"], repinit["three_body_rcut"] if three else 0.0, repformer["rcut"]),
            (c_int * 3)(repinit["nsel"], repinit["three_body_sel"] if three else 0, repformer["nsel"]),
            three,
            ntypes,
            option["env_protection"],
            *map(_at, self._masks),
        )
        self.three = three
        self._library = library()
        self._search = c_void_p(self._library.search_new(ctypes.byref(self.settings)))
        #: names of the buffers in the order of the last run, and the kernels that it launched; "clear" for zeros
        self.taken: list[str] = []
        self.order: list[str] = []
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        self._sizes: dict[int, int] = {}
        self._planning = False
        self._failure: BaseException | None = None
        self._calls = Calls(TAKE(self._take), RELEASE(self._release), CLEAR(self._clear), LAUNCH(self._launch))

    def __del__(self) -> None:
        self._library.search_free(self._search)

    # What the host code asks for

    def _take(self, name: bytes, size: int) -> int | None:
        self.taken.append(name.decode())
        if self._planning:
            return None
        guard = 0 if self.device.sanitizer else GUARD  # a sanitizer sees to it itself
        buffer = self.device.empty(max(size + guard, 1), np.uint8)
        self._buffers[buffer.ctypes.data] = buffer
        self._sizes[buffer.ctypes.data] = size
        return int(buffer.ctypes.data)

    def _release(self, at: int | None) -> None:
        self.taken.append("release")
        if at is not None:  # what was in it is of no use any more
            self._buffers[at][: self._sizes[at]] = 0xEE

    def _clear(self, at: int | None, size: int) -> None:
        self.order.append("clear")
        if at is not None:
            self._buffers[at][:size] = 0

    def _launch(self, source: bytes, name: bytes, blocks: int, threads: int, shared: int, args: int, size: int) -> None:
        self.order.append(name.decode())
        if self._planning or self._failure is not None:
            return
        try:
            packed = np.frombuffer(ctypes.string_at(args, size), dtype=np.uint8).copy()
            self.device.start_bytes(source.decode(), name.decode(), blocks, threads, packed, shared, {"real": "double"})
        except BaseException as error:  # must not go through the host code
            self._failure = error

    # What tests ask for

    def inputs(self, boxes: Sequence[Any], pbc: Sequence[bool], atoms: int) -> Any:
        """The cells of the frames. Raises InputError for a box that cannot be used."""
        cells = np.zeros(len(boxes), dtype=layout("SearchInput", np.float64))
        periodic = (c_int * 3)(*map(int, pbc))
        for f, box in enumerate(boxes):
            given = None if box is None else np.ascontiguousarray(box, dtype=np.float64)
            at = c_void_p(cells[f : f + 1].ctypes.data)
            _raise(self._library.search_input(self._search, _at(given), periodic, c_int(atoms), at))
        return cells

    def given(self, coords: Any, types: Any, cells: Any, centres: int | None = None, ids: Any = None) -> Any:
        """coords (frames, n, 3) and types (frames, n), contiguous; atoms beyond ``centres`` are ghosts."""
        atoms, is_open = types.size, not bool(cells["periodic"].all())
        sizes = (len(cells), atoms, atoms if centres is None else centres, is_open)
        to = Given(*sizes, _at(coords), _at(types), _at(cells), _at(ids))
        to.arrays = (coords, types, cells, ids)  # live as long
        return to

    def guess(self, given: Any) -> Any:
        to = CapacityStruct()
        self._library.search_guess(self._search, ctypes.byref(given), ctypes.byref(to))
        return to

    def grown(self, given: Any, capacity: Any, status: Any) -> Any:
        to = CapacityStruct.from_buffer_copy(capacity)
        _raise(self._library.search_grown(self._search, ctypes.byref(given), _at(status), ctypes.byref(to)))
        return to

    def check(self, given: Any, found: Found) -> None:
        """Raises InputError where something cannot be used."""
        _raise(self._library.search_check(self._search, ctypes.byref(given), _at(found.systems)))

    def run(self, given: Any, capacity: Any, planning: bool = False) -> Found:
        """One search; nothing is raised or repeated."""
        self.taken, self.order, self._planning, self._failure = [], [], planning, None
        self._buffers, self._sizes = {}, {}
        status = self.device.empty(1, layout("SearchStatus", np.float64))
        systems = self.device.empty(given.frames, layout("SystemStatus", np.float64))
        frame = FrameStruct()
        self._library.search_enqueue(
            *(self._search, ctypes.byref(self._calls), ctypes.byref(given), ctypes.byref(capacity)),
            *(ctypes.byref(frame), None if planning else _at(status), None if planning else _at(systems)),
        )
        if self._failure is not None:
            raise self._failure
        if planning:
            return Found({}, status, systems)
        for at, buffer in self._buffers.items():
            assert (buffer[self._sizes[at] :] == 0xFF).all(), "a kernel has written beyond a buffer"
        assert frame.failed == status.ctypes.data + status.dtype.fields["failed"][1]
        return Found(
            self._lists(frame), status, systems, [self._remarks(systems[f : f + 1]) for f in range(given.frames)]
        )

    def search(self, given: Any) -> tuple[Found, Any]:
        """As an engine does: again with more room until everything fits. Raises InputError."""
        capacity = self.guess(given)
        for _ in range(4):
            found = self.run(given, capacity)
            self.check(given, found)
            if not found.status["failed"][0]:
                return found, capacity
            capacity = self.grown(given, capacity, found.status)
        raise AssertionError("the lists still do not fit")

    def _array(self, at: int, dtype: Any, count: int) -> NDArray[Any]:
        return self._buffers[at].view(np.uint8)[: count * np.dtype(dtype).itemsize].view(dtype).copy()

    def _lists(self, frame: Any) -> dict[str, NDArray[Any]]:
        atoms, centres, i4, f8 = frame.atoms, frame.centres, np.int32, np.float64
        found = {
            "types": self._array(frame.types, i4, atoms),
            "pad_types": self._array(frame.pad_types, i4, frame.frames),
            "wrapped": self._array(frame.wrapped, f8, 3 * atoms).reshape(-1, 3),
            "pad_repinit": self._array(frame.pad_repinit, i4, centres),
            "pad_three": self._array(frame.pad_three, i4, centres),
        }
        for name, block in (("", frame.master), ("repformer_", frame.repformer)):
            start = found[f"{name}start"] = self._array(block.start, i4, centres + 1)
            assert 0 <= start[-1] <= block.capacity
            for part in ("j", "centre"):
                found[name + part] = self._array(getattr(block, part), i4, start[-1])
            assert centres == 0 or start[-1] == 0 or np.diff(start).max() <= block.most
        if self.three:
            found["three_start"] = self._array(frame.three.start, i4, centres + 1)
        edges = int(found["start"][-1])
        found["d"] = self._array(frame.d, f8, 3 * edges).reshape(-1, 3)
        found["r"] = self._array(frame.r, f8, edges)
        for name, incoming in (("", frame.incoming), ("repformer_", frame.repformer_incoming)):
            begin = found[f"{name}begin"] = self._array(incoming.begin, i4, atoms + 1)
            found[f"{name}edges"] = self._array(incoming.edges, i4, begin[-1])
        return found

    def _remarks(self, system: Any) -> tuple[dict[str, tuple[int, int, int]], tuple[int, int, float] | None]:
        overflow, pair, r = (c_int * 12)(), (c_int * 2)(), c_double()
        many = self._library.search_remarks(self._search, _at(system), overflow, pair, ctypes.byref(r))
        worst = {BLOCKS[overflow[4 * k]]: tuple(overflow[4 * k + 1 : 4 * k + 4]) for k in range(many)}
        return worst, None if pair[0] < 0 else (pair[0], pair[1], r.value)

    def on_cpu(self, given: Any) -> dict[str, Any]:
        """The CPU's lists of centres and ghosts, from everybody else as candidates."""
        atoms, centres, code = given.atoms, given.centres, self._library
        others = np.array([[j for j in range(atoms) if j != i] for i in range(centres)], dtype=np.int32).reshape(
            centres, -1
        )
        count = np.full(centres, atoms - 1, dtype=np.int32)
        first = np.array([row.ctypes.data for row in others], dtype=np.uint64)
        host = c_void_p(code.host_new())
        try:
            _raise(code.host_build(host, self._search, ctypes.byref(given), _at(count), _at(first)))
            edges = code.host_edges(host)
            to: dict[str, Any] = {
                "start": np.zeros(centres + 1, np.int64),
                "j": np.zeros(edges, np.int32),
                "d": np.zeros((edges, 3)),
            }
            to |= {name: np.zeros(centres, np.int32) for name in ("n_three", "n_repformer", "pad_repinit", "pad_three")}
            to |= {"overflow": np.zeros((3, 2), np.int32), "pair": np.zeros(2, np.int32)}
            code.host_copy(host, *map(_at, to.values()))
        finally:
            code.host_free(host)
        return to
