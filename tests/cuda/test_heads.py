"""From the fitting network's numbers to outputs, emulated: against the formulas, gradients by central differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import mutate
from cuda_emulator.sanitize import run as run_sanitized
from helpers import relative

Array = np.ndarray
FRAMES, PER_FRAME, NTYPES = 2, 19, 3
#: kind, width of the network, rows of the rotation matrix, kind of rows without a descriptor
CASES = {
    "dos": ("values", 70, 0, 0),
    "property": ("values", 3, 0, 1),
    "one number": ("values", 1, 0, 2),
    "dipole": ("dipole", 33, 33, 0),
    "narrow dipole": ("dipole", 5, 5, 2),
    "polar": ("polar", 34, 34, 1),
    "full polar": ("polar", 7 * 7, 7, 0),
    "wide polar": ("polar", 35 * 35, 35, 2),
}
PRECISION = pytest.mark.parametrize("precision", ["float64", "float32"])
BOUND = {"float64": 1e-13, "float32": 1e-6}  # values are double; gradients are rounded to the model's precision


class Head:
    """A head on random numbers: some atoms virtual, one type without outputs."""

    def __init__(self, name: str, precision: str = "float64", seed: int | None = 11, device: Any = None) -> None:
        rng = np.random.default_rng(3)
        self.kind, self.width, self.n2, self.vacuum = CASES[name]
        self.diagonal = self.kind == "polar" and self.width == self.n2
        self.device, self.real = device or EmulatedDevice(seed), np.dtype(precision).type
        n = self.n = FRAMES * PER_FRAME
        rows = n + (0, FRAMES, n)[self.vacuum]
        self.net = rng.normal(size=(rows, self.width)).astype(self.real)
        self.C = rng.normal(size=(n, 3, self.n2)).astype(self.real)
        self.given = rng.integers(-1, NTYPES, n).astype(np.int32)
        self.types = np.maximum(self.given, 0).astype(np.int32)
        self.counted = np.array([1, 0, 1], np.int32)
        self.bias, self.scale = rng.normal(size=(2, NTYPES, self.width))
        self.shift: Array | None = rng.normal(size=NTYPES)
        self.scaled = True
        self.numbers = {"values": self.width, "dipole": 3, "polar": 9}[self.kind]
        self.seed = rng.normal(size=(n, self.numbers))
        self.failed = np.zeros(1, np.int32)

    @property
    def counts(self) -> Array:
        return (self.given >= 0) & (self.counted[self.types] != 0)

    def values(self, net: Array, C: Array) -> Array:
        """(n, numbers) of each atom"""
        n = self.n
        z: Array = net[:n]
        if self.vacuum:
            z = z - (np.repeat(net[n:], PER_FRAME, axis=0) if self.vacuum == 1 else net[n:])
        z = z * (self.scale[self.types] if self.scaled else 1.0) + self.bias[self.types]
        if self.kind == "dipole":
            z = np.einsum("ic,ixc->ix", z, C)
        elif self.kind == "polar":
            if self.diagonal:
                z = np.einsum("ic,ixc,iyc->ixy", z, C, C)
            else:
                square = z.reshape(n, self.n2, self.n2)
                z = np.einsum("icd,ixc,iyd->ixy", (square + square.transpose(0, 2, 1)) / 2, C, C)
            if self.shift is not None:
                z = z + self.shift[self.types, None, None] * np.eye(3)
            z = z.reshape(n, 9)
        return np.where(self.counts[:, None], z, 0.0)

    def _launch(self, kernel: str, struct: str, values: Any) -> None:
        z = {
            "net": self.net,
            "scale": self.scale if self.scaled else None,
            "bias": self.bias,
            "counted": self.counted,
            "given_types": self.given,
            "types": self.types,
            "failed": self.failed,
            "centres": self.n,
            "per_frame": PER_FRAME,
            "width": self.width,
            "vacuum": self.vacuum,
        }
        of_tensors = {"C": self.C, "n2": self.n2, "diagonal": int(self.diagonal)} if self.kind != "values" else {}
        defines = {"real": "float" if self.real is np.float32 else "double"}
        self.device.start("head.cu", kernel, -(-self.n // 4), 128, struct, {**values, **of_tensors, "z": z}, 0, defines)

    def forward(self) -> Array:
        out = self.device.empty((self.n, self.numbers), np.float64)
        if self.kind == "values":
            self._launch("head_values", "HeadValuesArgs", {"out": out})
        else:
            self._launch(self.kind, "TensorArgs", {"out": out, "shift": self.shift})
        found: Array = out
        return found

    def backward(self, seed: Array | None, component: int = -1) -> tuple[Array, Array | None]:
        dnet = self.device.empty((self.n, self.width), self.real)
        dC = self.device.empty(self.C.shape, self.real) if self.kind != "values" else None
        values = {"dnet": dnet, "seed": {"seed": seed, "component": component, "unused": 0}}
        if self.kind == "values":
            self._launch("head_values_backward", "HeadValuesBackwardArgs", values)
        else:
            self._launch(f"{self.kind}_backward", "TensorBackwardArgs", {**values, "dC": dC})
        return dnet, dC


@PRECISION
@pytest.mark.parametrize("name", CASES)
def test_values(name: str, precision: str) -> None:
    head = Head(name, precision)
    net, C = head.net.astype(np.float64), head.C.astype(np.float64)
    assert relative(head.forward(), head.values(net, C)) <= 1e-13
    head.scaled, head.shift = False, None
    assert relative(head.forward(), head.values(net, C)) <= 1e-13


@PRECISION
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, precision: str) -> None:
    """Central differences along a direction; outputs are of second degree in the rotation matrix at most."""
    head, rng = Head(name, precision), np.random.default_rng(4)
    net, C = head.net.astype(np.float64), head.C.astype(np.float64)
    along = rng.normal(size=(head.n, head.width)), rng.normal(size=C.shape)
    moved = np.zeros_like(net)
    moved[: head.n] = along[0]
    for seed, component in ((head.seed, -1), (None, 1), (head.seed[:, 0].copy(), 0)):
        if component >= head.numbers:
            continue
        weights = head.seed
        if component >= 0:
            weights = np.zeros_like(head.seed)
            weights[:, component] = 1.0 if seed is None else seed
        dnet, dC = head.backward(seed, component)
        of_net = (weights * (head.values(net + moved, C) - head.values(net - moved, C))).sum(axis=1) / 2
        assert relative((dnet * along[0]).sum(axis=1), of_net) <= BOUND[precision] * 10
        if dC is not None:
            of_C = (weights * (head.values(net, C + along[1]) - head.values(net, C - along[1]))).sum(axis=1) / 2
            assert relative((dC * along[1]).sum(axis=(1, 2)), of_C) <= BOUND[precision] * 10


@pytest.mark.parametrize("name", ["dos", "dipole", "full polar"])
def test_an_evaluation_that_failed_is_not_a_number(name: str) -> None:
    head = Head(name)
    head.failed[0] = 1
    assert np.isnan(head.forward()).all()


def totals(head: Head, values: Array, mean: bool) -> Array:
    out = head.device.empty((FRAMES, values.shape[1]), np.float64)
    args = {"out": out, "values": values, "counted": head.counted, "given_types": head.given, "types": head.types,
            "failed": head.failed, "per_frame": PER_FRAME, "width": values.shape[1], "mean": int(mean),
            "unused": 0}  # fmt: skip
    blocks = FRAMES * values.shape[1]
    head.device.start("assemble.cu", "value_totals", blocks, 256, "ValueTotalsArgs", args, 0, {"real": "double"})
    found: Array = out
    return found


def test_values_of_frames() -> None:
    head = Head("dos")
    values = head.values(head.net, head.C)
    frames = values.reshape(FRAMES, PER_FRAME, -1)
    assert relative(totals(head, values, False), frames.sum(axis=1)) <= 1e-14
    counting = head.counts.reshape(FRAMES, PER_FRAME).sum(axis=1)
    assert 0 < counting.min() < PER_FRAME
    assert relative(totals(head, values, True), frames.sum(axis=1) / counting[:, None]) <= 1e-14
    head.given[PER_FRAME:] = -1
    found = totals(head, head.values(head.net, head.C), True)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()  # the mean of nothing
    head.failed[0] = 1
    assert np.isnan(totals(head, values, False)).all()


def everything(device: EmulatedDevice) -> bytes:
    """Every kernel, the bits of what they give."""
    found: list[Array] = []
    for name in CASES:
        head = Head(name, "float32", device=device)
        values = head.forward()
        found += [values, totals(head, values, True)]
        found += [array for array in head.backward(head.seed) if array is not None]
    return b"".join(array.tobytes() for array in found)


def test_one_answer_whatever_the_schedule() -> None:
    assert len({everything(EmulatedDevice(seed=seed)) for seed in (None, 1, 2)}) == 1


def sanitized(sanitizer: str, sources: Path) -> Any:
    needs.sanitizer(sanitizer)
    return run_sanitized(
        "import sys; from pathlib import Path; sys.path.insert(0, 'cuda'); import test_heads\n"
        f"device = test_heads.EmulatedDevice(sanitizer={sanitizer!r}, sources=Path({str(sources)!r}))\n"
        "test_heads.everything(device)",
        sanitizer,
    )


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing(sanitizer: str) -> None:
    done = sanitized(sanitizer, SOURCES / "cuda")
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if (i >= p.z.centres) return;", ""),
        ("for (int c = lane; c < p.n2; c += 32) {", "for (int c = lane; c < p.n2 + 32; c += 32) {"),
        ("p.diagonal != 0 ? k : k / n2", "p.diagonal != 0 ? k : k"),
    ],
)
def test_an_edge_that_is_forgotten_is_found(tmp_path: Path, old: str, new: str) -> None:
    done = sanitized("address", mutate(tmp_path, "head.cu", old, new))
    assert "AddressSanitizer: " in done.stderr, done.stderr[-3000:]
    assert "head.cu:" in done.stderr
