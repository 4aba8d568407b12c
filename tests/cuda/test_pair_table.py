"""Pair tables and their mix with a network, emulated: against the formulas, gradients by central differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.arguments import layout
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import mutate
from cuda_emulator.sanitize import run as run_sanitized
from helpers import relative

Array = np.ndarray
NTYPES, NSPLINE, RMIN, STEP, RCUT, FRAMES, PER_FRAME = 2, 14, 0.5, 0.25, 4.2, 2, 17
ALPHA, SW_RMIN, SW_RMAX, LEAST = 0.3, 1.0, 2.6, 1e-20
PRECISION = pytest.mark.parametrize("precision", ["float64", "float32"])


class Pairs:
    """Random edges: centres without any, with more than a warp takes, and with far ones alone."""

    def __init__(self, precision: str = "float64", seed: int | None = 11, device: Any = None) -> None:
        rng = np.random.default_rng(5)
        self.device, self.real = device or EmulatedDevice(seed), np.dtype(precision).type
        self.n = FRAMES * PER_FRAME
        counts = rng.integers(0, 12, self.n)
        counts[[0, 7, 20, 30]] = 0, 45, 3, 2
        self.start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.centre = np.repeat(np.arange(self.n), counts)
        edges = len(self.centre)
        near = rng.uniform(0.9, 3.0, self.n)[self.centre]
        self.r = np.minimum(near + rng.exponential(0.7, edges), 5.9)
        self.r[(self.centre == 30) | (self.centre == 31)] += 20.0  # nothing within the table's reach
        self.j = rng.integers(0, self.n, edges).astype(np.int32)
        direction = rng.normal(size=(edges, 3))
        self.direction = direction / np.linalg.norm(direction, axis=1)[:, None]
        self.given = rng.integers(-1, NTYPES, self.n).astype(np.int32)
        self.given[[7, 20, 30]] = 0, 1, 1
        self.types = np.maximum(self.given, 0).astype(np.int32)
        self.pieces = rng.normal(size=(NTYPES, NTYPES, NSPLINE, 4))
        self.table_bias, self.bias = rng.normal(size=(2, NTYPES))
        self.counted = np.array([1, 1], np.int32)
        self.network = rng.normal(size=self.n)
        self.failed = np.zeros(1, np.int32)
        self.alpha = ALPHA

    def pair(self, r: Array) -> Array:
        q = (r - RMIN) / STEP
        k = np.minimum(q.astype(int), NSPLINE - 1)
        f = q - q.astype(int)
        c = self.pieces[self.types[self.centre], self.types[self.j], k]
        u = ((c[:, 0] * f + c[:, 1]) * f + c[:, 2]) * f + c[:, 3]
        return np.where((r < RCUT) & (r < RMIN + NSPLINE * STEP), u, 0.0)

    def table(self, r: Array) -> Array:
        energies = 0.5 * np.bincount(self.centre, self.pair(r), self.n) + self.table_bias[self.types]
        return np.where(self.given < 0, 0.0, energies)

    def share(self, r: Array) -> tuple[Array, Array]:
        """Of the table, and whether the least denominator makes it."""
        a = np.exp(-r / self.alpha)
        num, den = np.bincount(self.centre, r * a, self.n), np.bincount(self.centre, a, self.n)
        sigma = num / np.maximum(den, LEAST)
        v = (sigma - SW_RMIN) / (SW_RMAX - SW_RMIN)
        w = np.where(v < 0, 1.0, np.where(v < 1, 1 + v**3 * (-6 * v**2 + 15 * v - 10), 0.0))
        w[sigma == 0] = 0
        return w, (num != 0) & (den < LEAST)

    def mixed(self, r: Array, network: Array) -> Array:
        w, _ = self.share(r)
        whole = (1 - w) * network + w * self.table(r) + self.bias[self.types]
        return np.where((self.given >= 0) & (self.counted[self.types] != 0), whole, 0.0)

    def _table(self) -> dict[str, Any]:
        return {
            "pieces": self.pieces,
            "bias": self.table_bias,
            "d": self.direction * self.r[:, None],
            "r": self.r,
            "start": self.start,
            "j": self.j,
            "given_types": self.given,
            "types": self.types,
            "failed": self.failed,
            "rmin": RMIN,
            "step": STEP,
            "rcut": RCUT,
            "nspline": NSPLINE,
            "ntypes": NTYPES,
            "centres": self.n,
            "unused": 0,
        }

    def _launch(self, kernel: str, struct: str, values: dict[str, Any], threads_each: int = 32) -> None:
        blocks = -(-self.n * threads_each // 128)
        real = {"real": "float" if self.real is np.float32 else "double"}
        self.device.start("pair_table.cu", kernel, blocks, 128, struct, values, 0, real)

    def energies(self) -> Array:
        out: Array = self.device.empty(self.n, np.float64)
        self._launch("pair_energies", "PairEnergiesArgs", {"energy": out, "table": self._table()})
        return out

    def mix(self, kept: bool = True, ids: Array | None = None) -> tuple[Array, dict[str, Any], Array]:
        """Energies, what the gradient needs, and the notes of the frames."""
        names = ("network", "pairs", "distance", "denominator", "numerator")
        notes = {name: self.device.empty(self.n, np.float64) if kept else None for name in names}
        energy, systems = self.network.copy(), np.zeros(FRAMES, layout("SystemStatus", np.float64))
        values = {"energy": energy, **notes, "systems": systems, "ids": ids, "bias": self.bias,
                  "counted": self.counted, "rmin": SW_RMIN, "rmax": SW_RMAX, "alpha": self.alpha,
                  "table": self._table(), "per_frame": PER_FRAME, "unused": 0}  # fmt: skip
        self._launch("zbl", "ZblArgs", values)
        return energy, notes, systems

    def seeds(self, network: Array, seed: Array) -> Array:
        out: Array = self.device.empty(self.n, np.float64)
        values = {"out": out, "network": network, "seed": seed, "centres": self.n, "unused": 0}
        self._launch("zbl_seeds", "ZblSeedsArgs", values, 1)
        return out

    def gradient(self, seed: Array | None, notes: dict[str, Any] | None = None, onto: Array | None = None) -> Array:
        gamma: Array = self.device.empty((len(self.r), 3), self.real) if onto is None else onto.copy()
        given = notes or dict.fromkeys(("pairs", "distance", "denominator", "numerator"))
        values = {"gamma": gamma, "seed": seed, **{k: v for k, v in given.items() if k != "network"},
                  "table": self._table(), "alpha": self.alpha, "accumulate": int(onto is not None),
                  "unused": 0}  # fmt: skip
        self._launch("pair_gradient", "PairGradientArgs", values)
        return gamma


def differences(f: Any, pairs: Pairs, seed: Array) -> Array:
    """The derivative of sum_i seed_i f(r)_i by every distance; each is seen by its centre alone."""
    h, out = 1e-6, np.zeros(len(pairs.r))
    at = pairs.start[:-1].copy()
    while True:  # one edge of every centre at a time
        chosen = at[at < pairs.start[1:]]
        if len(chosen) == 0:
            return out
        step = np.zeros(len(pairs.r))
        step[chosen] = h
        change = (f(pairs.r + step) - f(pairs.r - step)) / (2 * h)
        out[chosen] = (seed * change)[pairs.centre[chosen]]
        at = np.minimum(at + 1, pairs.start[1:])


def test_energies_of_a_table() -> None:
    pairs = Pairs()
    assert relative(pairs.energies(), pairs.table(pairs.r)) <= 1e-14
    pairs.failed[0] = 1
    assert np.isnan(pairs.energies()).all()


@PRECISION
def test_gradient_of_a_table(precision: str) -> None:
    pairs, rng = Pairs(precision), np.random.default_rng(1)
    bound, live = 1e-6 if precision == "float32" else 1e-8, (pairs.given >= 0).astype(float)
    for seed in (None, rng.normal(size=pairs.n)):
        weights = live if seed is None else seed * live
        wanted = differences(pairs.table, pairs, weights)[:, None] * pairs.direction
        assert relative(pairs.gradient(seed), wanted) <= bound
        onto = rng.normal(size=wanted.shape).astype(pairs.real)
        assert relative(pairs.gradient(seed, onto=onto), wanted + onto) <= bound


def test_mixed_energies() -> None:
    pairs = Pairs()
    w, clamped = pairs.share(pairs.r)
    assert {0.0, 1.0} < set(w)
    assert ((w > 0) & (w < 1)).any()
    pairs.counted[0] = 0
    energy, _, systems = pairs.mix()
    assert relative(energy, pairs.mixed(pairs.r, pairs.network)) <= 1e-13
    assert clamped.sum() == (systems["clamped_count"]).sum() > 0
    first = [int(np.flatnonzero(rows)[0]) if rows.any() else -1 for rows in clamped.reshape(FRAMES, PER_FRAME)]
    codes = [0 if number < 0 else 0x80000000 - number for number in first]
    assert systems["clamped"].tolist() == codes
    ids = np.arange(100, 100 + pairs.n, dtype=np.int32)[::-1].copy()
    found = pairs.mix(kept=False, ids=ids)
    np.testing.assert_array_equal(found[0], energy)
    assert found[2]["clamped"][1] == 0x80000000 - int(ids[PER_FRAME:][clamped[PER_FRAME:]].min())


@PRECISION
@pytest.mark.parametrize("alpha", [ALPHA, 0.1])
def test_gradient_of_the_mix(precision: str, alpha: float) -> None:
    """Also where the least denominator acts: in all atoms but the nearest pairs, with the smaller alpha."""
    pairs, rng = Pairs(precision), np.random.default_rng(2)
    pairs.alpha, pairs.counted[1] = alpha, 0
    energy, notes, _ = pairs.mix()
    assert relative(energy, pairs.mixed(pairs.r, pairs.network)) <= 1e-13
    seed = rng.normal(size=pairs.n)
    h = 1e-6
    of_network = (pairs.mixed(pairs.r, pairs.network + h) - pairs.mixed(pairs.r, pairs.network - h)) / (2 * h)
    assert relative(pairs.seeds(notes["network"], seed), seed * of_network) <= 1e-8
    along = differences(lambda r: pairs.mixed(r, pairs.network), pairs, seed)
    onto = rng.normal(size=(len(pairs.r), 3)).astype(pairs.real)
    wanted = along[:, None] * pairs.direction + onto
    assert relative(pairs.gradient(seed, notes, onto), wanted) <= (1e-6 if precision == "float32" else 1e-7)


def test_a_pair_before_the_table_begins_is_not_a_number() -> None:
    pairs = Pairs()
    edge = int(pairs.start[7])
    pairs.r[edge] = RMIN - 1e-9
    assert np.isnan(pairs.energies()[7])
    energy, notes, _ = pairs.mix()
    assert np.isnan(energy[7])
    assert np.isnan(pairs.gradient(None, notes, np.zeros((len(pairs.r), 3)))[edge]).all()


def everything(device: EmulatedDevice) -> bytes:
    """Every kernel, the bits of what they give."""
    pairs = Pairs("float32", device=device)
    energy, notes, systems = pairs.mix()
    seed = pairs.seeds(notes["network"], pairs.network)
    arrays = [pairs.energies(), energy, systems, seed, pairs.gradient(None), pairs.gradient(seed, notes)]
    return b"".join(array.tobytes() for array in arrays)


def test_one_answer_whatever_the_schedule() -> None:
    assert len({everything(EmulatedDevice(seed=seed)) for seed in (None, 1, 2)}) == 1


def sanitized(sanitizer: str, sources: Path) -> Any:
    needs.sanitizer(sanitizer)
    return run_sanitized(
        "import sys; from pathlib import Path; sys.path.insert(0, 'cuda'); import test_pair_table\n"
        f"device = test_pair_table.EmulatedDevice(sanitizer={sanitizer!r}, sources=Path({str(sources)!r}))\n"
        "test_pair_table.everything(device)",
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
    [("e < a.start[i + 1]; e += 32", "e < a.start[i + 1] + 32; e += 32"), ("if (i >= p.table.centres) return;", "")],
)
def test_an_edge_that_is_forgotten_is_found(tmp_path: Path, old: str, new: str) -> None:
    file = "pair_table.cu"
    done = sanitized("address", mutate(tmp_path, file, old, new))
    assert "AddressSanitizer: " in done.stderr, done.stderr[-3000:]
    assert f"{file}:" in done.stderr
