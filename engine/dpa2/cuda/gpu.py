"""A model on a GPU: frames of the host as batches, and frames that lie on the device already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import Error, InputError
from dpa2.files import schema
from dpa2.gradients import Weights, check_weights
from dpa2.inputs import Batch, Float, check_aparam, check_box, check_fparam, check_types
from dpa2.quantities import OF_DESCRIPTOR
from dpa2.remarks import Remarks, Reporter, warn

from .arrays import Array, arrays_of, on_device
from .hooks import cupy_hooks

if TYPE_CHECKING:
    from dpa2.files import ModelData

# An evaluation that is void every time: the core's buffers grow with every one of them.
_MOST_REPEATS = 8

# The legacy default stream, as the driver and the array API number it.
_DEFAULT_STREAM = (0, 1)

T = TypeVar("T")


class Known:
    """What was made last of an array of the host, for when the same numbers come again: they do, step after step."""

    def __init__(self) -> None:
        self._last: tuple[Any, NDArray[Any], Any] | None = None

    def of(self, value: Any, key: Any, make: Callable[[Any], T]) -> T:
        """``make(value)``, or what it gave the last time, for the same numbers and ``key``."""
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            return make(value)
        last = self._last
        if last is not None:
            known, numbers, found = last
            if known == key and numbers.dtype == value.dtype and np.array_equal(numbers, value):
                made: T = found
                return made
        made = make(value)
        self._last = (key, value.copy(), made)
        return made


class GpuModel:
    """A model of one precision on one device. Any thread may evaluate; evaluations take turns.

    Args:
        device: "cuda" or "cuda:N".
    """

    def __init__(self, data: ModelData, precision: str, device: str) -> None:
        from dpa2._native import NativeGpuModel

        number = int(device.partition(":")[2] or 0)
        hooks = cupy_hooks(number)
        self.native = NativeGpuModel(json.dumps(data.config), data.weights, precision, data.checked, device, hooks)
        for message in self.native.warnings:
            warn(message, RuntimeWarning)
        self.arrays = arrays_of(hooks, number)
        self.queue = Queue(self.native)
        self.types, self.box = Known(), Known()

    def run(
        self,
        batch: Batch,
        frames: slice,
        results: Mapping[str, Float],
        atomic: int = 0,
        weights: Weights | None = None,
    ) -> list[Remarks]:
        """Fills ``results``, whose rows are these frames, with what has their names; arrays of the host.

        With ``weights`` forces and virial are the gradients of :meth:`dpa2.Model.vjp`.
        """
        rows: list[Any] = [batch.coords, batch.types, batch.boxes, batch.fparam, batch.aparam]
        names = ("coords", "types", "boxes", "fparam", "aparam")
        inputs: dict[str, Any] = {
            name: np.ascontiguousarray(array[frames])
            for name, array in zip(names, rows, strict=True)
            if array is not None
        }
        for name, weight in (weights or {}).items():  # the core's forces are minus the gradient
            inputs[name] = np.negative(weight[frames])
        nframes, natoms = inputs["types"].shape
        places = dict(results)
        found = self.queue.pass_by(
            lambda: self.native.evaluate(nframes, natoms, batch.pbc, inputs, places, atomic, vjp=weights is not None)
        )
        return [Remarks(*one) for one in found]


class Pending:
    """An evaluation that was queued; ``check`` waits for it, and has it done again where it is void."""

    def __init__(self, queue: Queue, run: Callable[[], None], report: Callable[[Sequence[Remarks]], None]) -> None:
        self._queue, self._run, self._report = queue, run, report
        self.number, self.stands = 0, False
        self.remarks: Sequence[Remarks] = ()

    def check(self) -> None:
        queue = self._queue
        with queue.lock:
            for _ in range(_MOST_REPEATS):
                if self.stands:
                    break
                alone = queue.since == (1 if queue.waits(self) else 0)
                try:
                    if not queue.waits(self):
                        queue.put(self, self._run)
                    queue.settle()
                except Error:
                    if alone:
                        raise
                    # of which evaluation that is shows when this one is repeated alone
            if not self.stands:
                raise Error("an evaluation on the GPU stays void however large its buffers are: please report it")
            self._run = _nothing  # which had kept what was evaluated
        self.say()

    def say(self) -> None:
        """Reports what there is to say about a result that stands, once."""
        report, self._report = self._report, _nothing
        report(self.remarks)


def _nothing(*_: Any) -> None:
    """What is left to do for a result that stands."""


class Queue:
    """What has been queued and not yet looked at: a look says of all of them together whether they stand."""

    def __init__(self, native: Any) -> None:
        self.lock = RLock()
        self.since = 0  # evaluations since the last look
        self._native = native
        self._waiting: WeakSet[Pending] = WeakSet()
        self._number = 0

    def waits(self, pending: Pending) -> bool:
        return pending in self._waiting

    def put(self, pending: Pending, run: Callable[[], None]) -> None:
        """Queues an evaluation. Raises what was wrong with it, or with one before it that was not looked at."""
        with self.lock:
            try:
                run()
            except BaseException:
                self._forget()
                raise
            self._number += 1
            self.since += 1
            pending.number = self._number
            self._waiting.add(pending)

    def pass_by(self, run: Callable[[], T]) -> T:
        """What is not queued: arrays of the host. What was wrong with others is left to their checks."""
        with self.lock:
            try:
                return run()
            except Error:
                if self.since == 0:
                    raise
                self._forget()
                return run()

    def settle(self) -> bool:
        """Waits for all, and says whether all results stand. Raises what was wrong with one of them."""
        with self.lock:
            try:
                stands, remarks = self._native.check()
            except BaseException:
                self._forget()
                raise
            for pending in self._waiting:
                pending.stands = stands
                if stands and pending.number == self._number:  # the remarks are those of the last evaluation
                    pending.remarks = [Remarks(*one) for one in remarks]
            self._waiting.clear()
            self.since = 0
            return bool(stands)

    def check(self) -> bool:
        """The same, and reports what there is to say."""
        with self.lock:
            waiting = list(self._waiting)
            stands = self.settle()
        for pending in waiting:
            if pending.stands:
                pending.say()
        return stands

    def _forget(self) -> None:
        """After an error, whose evaluation is not known: what waits has to be done again when it is checked."""
        self._waiting.clear()
        while self.since > 0:
            self.since -= 1
            with suppress(Error):
                self._native.check()
                self.since = 0


class DeviceFrames:
    """Frames as the user passed them, coordinates on the device; see :meth:`dpa2.Model.evaluate` for the arguments.

    Shapes are checked; coordinates and types are by the neighbour search.

    Args:
        reporter: of remarks, when results are checked.
        at_once: check every result before it is returned.
    """

    def __init__(
        self,
        model: GpuModel,
        config: dict[str, Any],
        reporter: Reporter,
        at_once: bool,
        coords: Any,
        types: Any,
        box: Any,
        pbc: Any,
    ) -> None:
        self._model, self._arrays, self._config = model, model.arrays, config
        self._reporter, self._at_once = reporter, at_once
        x = self._arrays.take(coords, "float64", "coords")
        shape = tuple(int(extent) for extent in x.shape)
        if len(shape) not in (2, 3) or shape[-1] != 3:
            raise InputError(f"coords must have shape (natoms, 3) or (nframes, natoms, 3), got {shape}")
        self._framed = len(shape) == 3
        self._nframes, self._natoms = shape[:-1] if self._framed else (1, shape[0])
        self._inputs = {"coords": x, "types": self._types(types)}
        self._boxes, self._pbc = self._cell(box, pbc)

    # ---------------------------------------------------------------------------------------------------- arguments

    def _types(self, types: Any) -> Array:
        shape = (self._nframes, self._natoms)

        def make(value: Any) -> Array:
            if not on_device(value):
                value = check_types(value, self._config["type_map"], *shape, self._framed)
            return self._rows(value, "int32", "types", (self._natoms,))

        # Work on the default stream is in order, and no graph of the caller's can hold what is kept here.
        if on_device(types) or self._arrays.stream not in _DEFAULT_STREAM:
            return make(types)
        return self._model.types.of(types, (*shape, self._framed), make)

    def _cell(self, box: Any, pbc: Any) -> tuple[Float | None, tuple[bool, bool, bool]]:
        """Nine numbers of each frame, which the host needs to lay out the search."""
        rcut, frames = schema.rcut(self._config), (self._nframes, self._framed)

        def make(value: Any) -> tuple[Float | None, tuple[bool, bool, bool]]:
            boxes, directions = check_box(value, pbc, rcut, *frames)
            return None if boxes is None else np.ascontiguousarray(boxes), directions

        given = self._host(box, "box")
        return self._model.box.of(given, (*frames, pbc), make) if pbc is None or isinstance(pbc, bool) else make(given)

    def _host(self, value: Any, name: str) -> Any:
        if not on_device(value):
            return value
        return self._arrays.host(self._arrays.take(value, "float64", name))

    def _rows(self, value: Any, dtype: str, name: str, one: tuple[int, ...]) -> Array:
        """(nframes, *one) on the device; an array of the device may have one row for all frames."""
        array = self._arrays.take(value, dtype, name)
        shape, rows = tuple(int(extent) for extent in array.shape), (self._nframes, *one)
        if shape == rows and (self._framed or not on_device(value)):
            return array
        if shape == one:
            return array.reshape(rows) if self._nframes == 1 else self._arrays.repeated(array, self._nframes)
        wanted = f"{one}" + (f" or {rows}" if self._framed else "")
        raise InputError(f"{name} must have shape {wanted}, got {shape}")

    def _parameters(self, fparam: Any, aparam: Any) -> dict[str, Array]:
        option = schema.parameters(self._config)
        wide = (int(option["numb_fparam"]), int(option["numb_aparam"]))
        given: dict[str, Any] = {"fparam": fparam, "aparam": aparam}
        for (name, value), width in zip(given.items(), wide, strict=True):
            if width == 0 or not on_device(value):
                given[name] = self._host(value, name)
        if not on_device(given["fparam"]):
            given["fparam"] = check_fparam(given["fparam"], option, self._nframes, self._framed)
        if not on_device(given["aparam"]):
            given["aparam"] = check_aparam(given["aparam"], option, self._nframes, self._natoms, self._framed)
        rows = {"fparam": (wide[0],), "aparam": (self._natoms, wide[1])}
        return {
            name: self._rows(value, "float64", name, rows[name]) for name, value in given.items() if value is not None
        }

    def _weights(self, weights: Any, widths: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """Minus the weights: the core's forces are minus the gradient. ``widths``: of an atom, by name."""
        found: dict[str, Array] = {}
        of_host: Any = weights
        if isinstance(weights, Mapping):
            of_host = {}
            for name, value in weights.items():
                minus = None
                if on_device(value) and name in widths:
                    width = () if widths[name] == (1,) else widths[name]
                    rows = self._rows(value, "float64", f"the weights of {name!r}", (self._natoms, *width))
                    minus = self._arrays.negative(rows)
                if minus is None:
                    of_host[name] = self._host(value, str(name))
                else:
                    found[name] = minus
        if of_host or not found:
            given = check_weights(of_host, widths, self._nframes, self._natoms, self._framed)
            for name, one in given.items():
                found[name] = self._rows(-one, "float64", name, one.shape[1:])
        return found

    # ------------------------------------------------------------------------------------------------------- results

    def _run(
        self,
        wanted: dict[str, tuple[int, ...]],
        more: dict[str, Array] | None = None,
        atomic: int = 0,
        vjp: bool = False,
    ) -> tuple[dict[str, Array], Pending | None]:
        """Arrays of these shapes, with a frame axis where the coordinates have one, and what is to be checked."""
        axis = (self._nframes,) if self._framed else ()
        if self._nframes * self._natoms == 0:
            return {
                name: self._arrays.take(np.zeros((*axis, *shape)), "float64", name) for name, shape in wanted.items()
            }, None
        arrays, native, inputs = self._arrays, self._model.native, {**self._inputs, **(more or {})}
        found = {name: arrays.empty((*axis, *shape)) for name, shape in wanted.items()}
        frames, natoms, pbc, boxes = self._nframes, self._natoms, self._pbc, self._boxes

        def run() -> None:
            places = {name: arrays.address(array) for name, array in found.items()}
            given: dict[str, Any] = {name: arrays.address(array) for name, array in inputs.items()}
            native.evaluate(
                frames, natoms, pbc, {**given, "boxes": boxes}, places, atomic, vjp=vjp, stream=arrays.stream
            )

        queue = self._model.queue
        pending = Pending(queue, run, self._say)
        with queue.lock:  # what is checked at once is the last evaluation, whose remarks are known
            queue.put(pending, run)
            if self._at_once:
                pending.check()
        return found, pending

    def _say(self, remarks: Sequence[Remarks]) -> None:
        """Reports what there is to say; only then types come to the host."""
        if any(self._reporter.has_to_say(one) for one in remarks):
            types = self._arrays.host(self._inputs["types"]).reshape(self._nframes, self._natoms)
            batch = Batch(types, types, None, self._pbc, None, None, self._framed)
            for f, one in enumerate(remarks):
                self._reporter.report(one, batch, f)

    @property
    def natoms(self) -> int:
        """Atoms of a frame."""
        return self._natoms

    def evaluate(
        self, fparam: Any, aparam: Any, atomic: int, shapes: dict[str, tuple[int, ...]]
    ) -> tuple[dict[str, Any], Pending | None]:
        """Outputs of these shapes in a frame, by name, as arrays of the device, float64; to be checked."""
        return self._run(shapes, self._parameters(fparam, aparam), atomic)

    def vjp(self, weights: Any, widths: Mapping[str, tuple[int, ...]], fparam: Any, aparam: Any) -> tuple[Array, Array]:
        """See :meth:`dpa2.Model.vjp`; arrays of the device, float64."""
        given = self._weights(weights, widths)
        of_fitting = any(name not in OF_DESCRIPTOR for name in given)
        parameters = self._parameters(fparam, aparam) if of_fitting else {}
        found, _ = self._run({"force": (self._natoms, 3), "virial": (3, 3)}, {**given, **parameters}, vjp=True)
        return found["force"], found["virial"]

    def descriptor(self, rot_mat: bool) -> tuple[Array, Array | None]:
        """Descriptors, and rotation matrices where asked for, as arrays of the device, float64."""
        wanted: dict[str, tuple[int, ...]] = {"descriptor": (self._natoms, int(self._model.native.descriptor_dim))}
        if rot_mat:
            wanted["rot_mat"] = (self._natoms, int(schema.base(self._config)["descriptor"]["repformer"]["g2_dim"]), 3)
        found, _ = self._run(wanted)
        return found["descriptor"], found.get("rot_mat")


def device_frames(
    model: GpuModel, config: dict[str, Any], reporter: Reporter, at_once: bool, coords: Any, *others: Any
) -> DeviceFrames | None:
    """The frames, where the coordinates lie on a device; others: types, box and pbc."""
    return DeviceFrames(model, config, reporter, at_once, coords, *others) if on_device(coords) else None
