"""Tensor cores, emulated: fragments and rounding as PTX's manual has them, and products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice, EmulationError
from cuda_emulator.sanitize import run as run_sanitized
from node_products import Nodes

Array = Any
PRECISIONS = ("float32", "float64")
SHAPE = {"float32": (16, 8, 8), "float64": (8, 4, 8)}  # rows, depth, columns of one product

#: a, b and what is added to in rows; every lane finds its numbers by the manual's words for groups and members
ONE_PRODUCT = """
#include "cuda/portable.cuh"
#include "cuda/mma.cuh"
using namespace dpa2;
extern "C" __global__ void __launch_bounds__(32) one(real* d, const real* a, const real* b) {
  const int group = threadIdx.x / 4, member = threadIdx.x % 4;
#ifdef SINGLE
  float own[2][2];
  Factor<float> fa[2][2], fb[2];
  for (int h = 0; h < 2; ++h)
    for (int s = 0; s < 2; ++s) own[h][s] = d[(group + 8 * h) * 8 + 2 * member + s];
  for (int q = 0; q < 2; ++q) {
    for (int h = 0; h < 2; ++h) fa[q][h] = factor_of(a[(group + 8 * h) * 8 + member + 4 * q]);
    fb[q] = factor_of(b[(member + 4 * q) * 8 + group]);
  }
  BEFORE
  multiply_add(own, fa, fb);
  for (int h = 0; h < 2; ++h)
    for (int s = 0; s < 2; ++s) d[(group + 8 * h) * 8 + 2 * member + s] = own[h][s];
#else
  double own[2] = {d[group * 8 + 2 * member], d[group * 8 + 2 * member + 1]};
  const Factor<double> fa = factor_of(a[group * 4 + member]), fb = factor_of(b[member * 8 + group]);
  BEFORE
  multiply_add(own, fa, fb);
  d[group * 8 + 2 * member] = own[0];
  d[group * 8 + 2 * member + 1] = own[1];
#endif
}
"""


class OneProduct:
    """One product of a warp, in a folder of its own."""

    def __init__(self, folder: Path, precision: str, seed: int | None = None, sanitizer: str = "") -> None:
        (folder / "one.cu").write_text(ONE_PRODUCT, encoding="utf-8")
        self.device, self.real = EmulatedDevice(seed, sanitizer, sources=folder), np.dtype(precision).type
        self.precision = precision

    def run(self, d: Array, a: Array, b: Array, before: str = ";") -> Array:
        """d + a b"""
        out = np.ascontiguousarray(d, self.real)
        defines: dict[str, str | int] = {"real": "float" if self.precision == "float32" else "double", "BEFORE": before}
        defines |= {"SINGLE": 1} if self.precision == "float32" else {}
        arrays = [out, *(np.ascontiguousarray(x, self.real) for x in (a, b))]
        self.device.launch("one.cu", "one", 1, 32, tuple(arrays), 0, defines)
        return out


@pytest.fixture(params=PRECISIONS)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> OneProduct:
    return OneProduct(tmp_path, request.param, 5)


def test_every_number_of_a_fragment_has_its_place(product: OneProduct) -> None:
    """Whole numbers, so that nothing is rounded: one wrong lane would show."""
    rows, depth, columns = SHAPE[product.precision]
    rng = np.random.default_rng(1)
    a, b = rng.integers(-99, 99, (rows, depth)), rng.integers(-99, 99, (depth, columns))
    d = rng.integers(-99, 99, (rows, columns))
    np.testing.assert_array_equal(product.run(d, a, b), d + a @ b)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_compiler_s_instructions_are_the_same(tmp_path: Path, precision: str) -> None:
    """What NVIDIA's compiler makes of the products, bit by bit."""
    needs.nvidia_compilers()
    rows, depth, columns = SHAPE[precision]
    rng, found = np.random.default_rng(6), []
    d, a, b = rng.normal(size=(rows, columns)), rng.normal(size=(rows, depth)), rng.normal(size=(depth, columns))
    for sanitizer in ("", "ptx"):
        found.append(OneProduct(tmp_path, precision, sanitizer=sanitizer).run(d, a, b))
    np.testing.assert_array_equal(*found)


def test_a_product_is_for_whole_warps(product: OneProduct) -> None:
    a, b = np.ones(SHAPE[product.precision][:2]), np.ones(SHAPE[product.precision][1:])
    with pytest.raises(EmulationError, match=r"deadlock.*(\n.*)*mma.*has ended|deadlock.*(\n.*)*has ended.*(\n.*)*mma"):
        product.run(np.zeros((len(a), 8)), a, b, before="if (threadIdx.x == 3) return;")
    with pytest.raises(EmulationError, match="meet in different places"):
        product.run(np.zeros((len(a), 8)), a, b, before="if (threadIdx.x == 3) __syncwarp();")


def test_factors_must_be_rounded(tmp_path: Path) -> None:
    one = OneProduct(tmp_path, "float32")
    with pytest.raises(EmulationError, match="not rounded to tf32"):
        one.run(np.zeros((16, 8)), np.ones((16, 8)), np.ones((8, 8)), before="fb[0].large |= 1u;")


def test_both_parts_are_the_number(tmp_path: Path) -> None:
    """Times one, which has no small part: within the last bit, ties of the rounding included, at every exponent."""
    one, rng = OneProduct(tmp_path, "float32"), np.random.default_rng(2)
    numbers = np.concatenate([rng.normal(size=120), [1 + 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-11 - 2.0**-23, 2 - 2.0**-23,
                                                     3e37, -3e-30, 0.0, 1.0]]).astype(np.float32)  # fmt: skip
    found = one.run(np.zeros((16, 8)), numbers.reshape(16, 8), np.eye(8))
    assert (np.abs(found.ravel() - numbers) <= np.spacing(np.abs(numbers))).all()
    exact = found.ravel() == numbers
    assert 0.6 < exact[:120].mean() < 0.9  # three in four: what is left has 12 bits, of which 11 are kept
    assert exact[120:].sum() >= 6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["a", "b"])
def test_what_is_not_finite_stays_so(tmp_path: Path, value: float, side: str) -> None:
    """Also numbers that are not numbers in any of their ways to be written."""
    one = OneProduct(tmp_path, "float32")
    for bits in (None, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001):
        given = np.float32(value) if bits is None else np.array([bits], np.uint32).view(np.float32)[0]
        a, b = np.ones((16, 8), np.float32), np.ones((8, 8), np.float32)
        (a if side == "a" else b)[2, 5] = given
        found = one.run(np.zeros((16, 8)), a, b)
        bad = np.zeros((16, 8), bool)
        bad[(2, slice(None)) if side == "a" else (slice(None), 5)] = True
        assert not np.isfinite(found[bad]).any()
        assert (found[~bad] == 8).all()


def test_sums_drop_bits_toward_zero(tmp_path: Path) -> None:
    """As cards were found to do: what the accuracy of kernels is judged by."""
    one = OneProduct(tmp_path, "float32")
    a, b = np.zeros((16, 8)), np.zeros((8, 8))
    a[0, 0] = b[0, 0] = 1.0
    for d, wanted in ((2.0**24 + 2, 2.0**24 + 2), (-(2.0**25), -(2.0**25) + 2), (2.0**26, 2.0**26)):
        found = one.run(np.full((16, 8), d), a, b)
        assert found[0, 0] == wanted
        assert (found.ravel()[1:] == np.float32(d)).all()


def test_wrong_tensor_cores_can_be_had(product: OneProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, depth, columns = SHAPE[product.precision]
    a, b = np.ones((rows, depth)), np.arange(depth * columns).reshape(depth, columns)
    monkeypatch.setenv("DPA2_EMULATED_PRODUCTS", "wrong")
    np.testing.assert_array_equal(product.run(np.zeros((rows, columns)), a, b), np.roll(a @ b, -1, axis=1))


# ------------------------------------------------------------------------------------------- products of matrices

FORMS = [("float32", 8), ("float32", 4), ("float32", 2), ("float64", 4), ("float64", 2)]
SIZES = [(1, 6, 1), (33, 240, 6), (64, 16, 64), (65, 21, 70), (130, 128, 130)]


def nodes(precision: str, each: int, tensor: bool = True, seed: int | None = 11) -> Nodes:
    return Nodes(EmulatedDevice(seed=seed), precision, each, tensor)


@pytest.mark.parametrize(("precision", "each"), FORMS)
def test_products_are_as_good_as_without(precision: str, each: int) -> None:
    """The mean error over the sum of magnitudes: no larger than that of multiply-adds, but for short sums."""
    rng, real = np.random.default_rng(3), np.dtype(precision).type
    for rows, k, n in SIZES:
        a, b = (rng.normal(size=shape).astype(real).astype(np.float64) for shape in ((rows, k), (k, n)))
        exact, magnitude = (np.asarray(x, np.longdouble) for x in (a, np.abs(a)))
        exact, magnitude = exact @ b.astype(np.longdouble), magnitude @ np.abs(b)
        errors = [
            float(np.sqrt((((nodes(precision, each, tensor).product(a, b)[0] - exact) / magnitude) ** 2).mean()))
            for tensor in (False, True)
        ]
        assert errors[1] <= max(errors[0], 1.5 * np.finfo(real).eps / 2), (rows, k, n)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_do_not_know_each_other(precision: str) -> None:
    """The same bits in any tile and in any order of threads, and numbers that are not finite stay in their row."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(130, 50)), rng.normal(size=(50, 70))
    want, _ = nodes(precision, 2, seed=None).product(a, b)
    a[[7, 64]] = np.nan
    a[90, 49] = np.inf
    others = np.setdiff1d(np.arange(130), [7, 64, 90])
    for each, seed in ((2, 3), (4, 4), (4, None)):
        found, _ = nodes(precision, each, seed=seed).product(a, b)
        assert found[others].tobytes() == want[others].tobytes()
        assert np.isnan(found[[7, 64]]).all()
        assert not np.isfinite(found[90]).any()


SANITIZED = """
import numpy as np
from cuda_emulator import EmulatedDevice
from node_products import Nodes
rng = np.random.default_rng(0)
a, b = rng.normal(size=(33, 21)), rng.normal(size=(21, 70))
for precision in ("float32", "float64"):
    out, _ = Nodes(EmulatedDevice(5, {sanitizer!r}), precision, None, True).product(a, b)
    assert abs(out - a @ b).max() < 1e-4
"""


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_products_are_free_of_races_and_overruns(sanitizer: str) -> None:
    needs.sanitizer(sanitizer)
    done = run_sanitized(SANITIZED.format(sanitizer=sanitizer), sanitizer)
    assert done.returncode == 0, done.stderr[-3000:]


# ------------------------------------------------------------------------------------------- products of tiles

TILES = """
#include "cuda/tiles_mma.cuh"
using namespace dpa2;
extern "C" __global__ void __launch_bounds__(32) tiles(real* out, const real* a, const real* b, int depth) {
  __shared__ Vector va[PADDED_TILE / VECTOR], vb[PADDED_TILE / VECTOR], vo[PADDED_TILE / VECTOR];
  real *const sa = va[0].v, *const sb = vb[0].v, *const so = vo[0].v;
  for (int k = threadIdx.x; k < TILE * TILE; k += 32) {
    sa[k / TILE * TILE_ROW + k % TILE] = a[k];
    sb[k / TILE * TILE_ROW + k % TILE] = b[k];
  }
  __syncwarp();
  FragmentResults results;
  results.clear();
  if constexpr (KIND == 0) results.add_rows_times_rows(depth, sa, sb);
  if constexpr (KIND == 1) results.add_rows_times_matrix(depth, sa, sb, TILE_ROW);
  if constexpr (KIND == 2) results.add_sum_over_rows(depth, sa, sb);
  if constexpr (KIND == 0) results.write_pairs(so);
  if constexpr (KIND == 1) results.write_channels(so);
  if constexpr (KIND == 2) results.write_sums(so);
  __syncwarp();
  for (int k = threadIdx.x; k < TILE * TILE; k += 32) out[k] = so[k / TILE * TILE_ROW + k % TILE];
}
"""
KINDS = {"pairs": lambda a, b: a @ b.T, "channels": lambda a, b: a @ b, "sums": lambda a, b: a.T @ b}


class Tiles:
    """One product of two tiles by one warp."""

    def __init__(self, folder: Path, precision: str, sanitizer: str = "") -> None:
        (folder / "tiles.cu").write_text(TILES, encoding="utf-8")
        self.device, self.real = EmulatedDevice(7, sanitizer, sources=folder), np.dtype(precision).type
        self.defines: dict[str, str | int] = {"real": "float" if precision == "float32" else "double"}

    def run(self, kind: str, a: Array, b: Array, depth: int) -> Array:
        out = self.device.empty((32, 32), self.real)
        given = [np.ascontiguousarray(x, self.real) for x in (a, b)]
        defines = self.defines | {"KIND": list(KINDS).index(kind)}
        self.device.launch("tiles.cu", "tiles", 1, 32, (out, *given, np.int32(depth)), 0, defines)
        return out


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_of_tiles(tmp_path: Path, kind: str, precision: str) -> None:
    """As deep as asked for, zeros beyond."""
    tiles, rng = Tiles(tmp_path, precision), np.random.default_rng(8)
    real, along = tiles.real, {"pairs": (1, 1), "channels": (1, 0), "sums": (0, 0)}[kind]
    for depth in (32, 20, 4, 0):
        a, b = (rng.normal(size=(32, 32)).astype(real).astype(np.float64) for _ in range(2))
        for x, axis in zip((a, b), along, strict=True):
            x[(slice(None),) * axis + (slice(depth, None),)] = 0.0
        error = np.abs(tiles.run(kind, a, b, depth) - KINDS[kind](a, b))
        assert (error <= 4 * np.finfo(real).eps * KINDS[kind](np.abs(a), np.abs(b))).all()


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_are_read_without_conflicts(tmp_path: Path, kind: str, precision: str) -> None:
    """Wavefronts of what NVIDIA's compiler makes of it: the fewest that could bring the same words."""
    needs.nvidia_compilers()
    from cuda_emulator.compiled import executed

    executed()
    Tiles(tmp_path, precision, "ptx").run(kind, np.ones((32, 32)), np.ones((32, 32)), 32)
    (found,) = executed()
    for one, row in zip(found.kernel.accesses, found.accesses, strict=True):
        if one.operation.startswith("ld.shared"):
            assert row[1] == row[2], (one.text, one.source)
