"""The update of g2 and h2 but for the attention: linear2, LayerNorm and residual, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from pair_formulas import Update, tiles
from pair_kernels import KINDS, start_update


class Rows:
    """The kernels on rows of ``edges`` edges, in arrays that have room for some more."""

    def __init__(self, edges: int, n2: int, terms: str, real: str, seed: int | None = 11) -> None:
        self.edges, self.n2, self.real, self.capacity = edges, n2, real, edges + 70
        self.device = EmulatedDevice(seed=seed, max_shared=48 * 1024)
        rng = np.random.default_rng(100 * edges + n2)

        def draw(*shape: int) -> Any:
            return rng.normal(size=shape).astype(np.float32).astype(float)

        self.update = Update(draw(n2, n2) * 0.25, draw(n2), draw(3, n2), draw(n2), draw(n2), 0.75, 0.5, 1.25, 2.0**-10)
        self.has_U, self.has_z, self.has_h2 = "U" in terms, "z" in terms, "h" in terms
        self.inputs = {"g2": draw(edges, n2), "h2": draw(edges, 3)}
        self.U, self.z, self.dh = draw(edges, n2), draw(edges, n2), draw(edges, 3)
        self.z -= self.z.mean(axis=1, keepdims=True)
        self.z = self.z.astype(np.float32).astype(float)
        self.dout, self.dh2 = draw(edges, n2), draw(edges, 3)

    def up(self, rows: Any) -> Any:
        """With rows that nobody may read or write."""
        room = np.full((self.capacity - len(rows), rows.shape[1]), np.nan)
        return np.ascontiguousarray(np.concatenate([rows, room]), KINDS[self.real])

    def constant(self, value: Any) -> Any:
        return np.ascontiguousarray(value, KINDS[self.real])

    def run(self, kernel: str, values: dict[str, Any]) -> None:
        f = self.update
        common = {
            "start": np.array([0, self.edges // 3, self.edges], np.int32), "centres": 2, "n2": self.n2, "a": f.a,
            "h2_a": f.h2_a, "h2_r": f.h2_r, "eps": f.eps, "b": self.constant(f.b), "linear_r": self.constant(f.r[0]),
            "g1g1_r": self.constant(f.r[1]) if self.has_U else None, "w": self.constant(tiles(f.w[None])),
            "gain": self.constant(f.gain * f.r[2]) if self.has_z else None,
            "z": self.up(self.z) if self.has_z else None,
            "g2": self.up(self.inputs["g2"]),
        }  # fmt: skip
        start_update(self.device, self.real, kernel, self.capacity, common | values)

    def forward(self) -> list[Any]:
        out, h2_out = (self.device.empty((self.capacity, width), KINDS[self.real]) for width in (self.n2, 3))
        values = {
            "out": out, "h2_out": h2_out if self.has_h2 else None, "h2": self.up(self.inputs["h2"]),
            "U": self.up(self.U) if self.has_U else None, "dh": self.up(self.dh) if self.has_h2 else None,
            "shift": self.constant(self.update.shift * self.update.r[2]) if self.has_z else None,
        }  # fmt: skip
        self.run("pair_update", values)
        assert np.isnan(out[self.edges :]).all()
        return [out[: self.edges], h2_out[: self.edges] if self.has_h2 else self.inputs["h2"]]

    def backward(self) -> dict[str, Any]:
        kind, f = KINDS[self.real], self.update
        found = {"g2": self.up(self.dout), "h2": self.up(self.dh2)}
        for name, width, there in (("z", self.n2, self.has_z), ("U", self.n2, self.has_U), ("dh", 3, self.has_h2)):
            if there:
                found[name] = self.device.empty((self.capacity, width), kind)
        values = {
            "dg2": found["g2"], "dh2": found["h2"] if self.has_h2 else None, "dz": found.get("z"), "dU": found.get("U"),
            "ddh": found.get("dh"), "w_t": self.constant(tiles(f.w.T[None])),
            "dlinear": self.device.empty((self.capacity, self.n2), kind) if self.n2 > 32 else None,
        }  # fmt: skip
        self.run("pair_update_backward", values)
        if not self.has_h2:
            del found["h2"]
        assert all(np.isnan(x[self.edges :]).all() for x in found.values())
        return {name: x[: self.edges] for name, x in found.items()}


@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize("n2", [6, 16, 32, 33, 128, 256])
@pytest.mark.parametrize(("edges", "terms"), [(0, "Uzh"), (1, "z"), (33, ""), (150, "Uzh"), (130, "U"), (64, "zh")])
def test_against_numpy(edges: int, terms: str, n2: int, real: str) -> None:
    rows = Rows(edges, n2, terms, real)
    bound = 1e-13 if real == "double" else 1e-5
    U, z, dh = (
        x if there else None for x, there in ((rows.U, rows.has_U), (rows.z, rows.has_z), (rows.dh, rows.has_h2))
    )
    for got, want in zip(rows.forward(), rows.update.forward(**rows.inputs, U=U, z=z, dh=dh), strict=True):
        assert np.abs(got - want).max(initial=0) <= bound * np.abs(want).max(initial=1)
    wanted, found = rows.update.backward(rows.inputs["g2"], z, rows.dout, rows.dh2), rows.backward()
    for name, got in found.items():
        assert np.abs(got - wanted[name]).max(initial=0) <= bound * np.abs(wanted[name]).max(initial=1), name


@pytest.mark.cuda
def test_gradients_are_those_of_the_forward() -> None:
    """Central differences of the kernel itself, one input at a time."""
    rows, rng, step = Rows(40, 38, "Uzh", "double"), np.random.default_rng(5), 1e-5
    found = rows.backward()
    places: dict[str, Any] = {"g2": rows.inputs["g2"], "h2": rows.inputs["h2"], "U": rows.U, "z": rows.z, "dh": rows.dh}
    for name, value in places.items():
        direction, kept = rng.normal(size=value.shape), value.copy()
        difference = 0.0
        for sign in (1, -1):
            value += sign * step * direction
            out, h2 = rows.forward()
            difference += sign * float((out * rows.dout).sum() + (h2 * rows.dh2).sum()) / (2 * step)
            value[...] = kept
        assert (found[name] * direction).sum() == pytest.approx(difference, rel=1e-7, abs=1e-7), name


@pytest.mark.cuda
@pytest.mark.parametrize("n2", [32, 70])
def test_same_bits_whatever_the_schedule(n2: int) -> None:
    seen = set()
    for seed in (None, 1, 2):
        rows = Rows(140, n2, "Uzh", "float", seed)
        seen.add(b"".join(x.tobytes() for x in itertools.chain(rows.forward(), rows.backward().values())))
    assert len(seen) == 1
