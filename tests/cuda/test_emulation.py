"""The emulation of CUDA itself: what threads do together, what it reports, that mistakes in a kernel are seen."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice, EmulationError
from cuda_emulator.build import kernels_of
from cuda_emulator.sanitize import run

DEFINES = {"real": "double"}
ROOT = Path(__file__).resolve().parents[2]


class Bench:
    """Sources of a test in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, body: str, *args: Any, block: int = 64, grid: int = 1, shared: int = 0, seed: int | None = None
    ) -> None:
        """Run a kernel with this text after its name."""
        text = '#include "cuda/portable.cuh"\nextern "C" __global__ void k' + textwrap.dedent(body)
        (self.folder / "k.cu").write_text(text, encoding="utf-8")
        EmulatedDevice(seed, sources=self.folder).launch("k.cu", "k", grid, block, args, shared, DEFINES)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ints(n: int = 64) -> Any:
    return np.zeros(n, np.int32)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_barriers_and_shared_memory(bench: Bench, seed: int | None) -> None:
    """Every thread reads what another one wrote, round after round; blocks share nothing."""
    out = ints(128)
    bench.run(
        """(int* out) {
          __shared__ int ring[64];
          DYNAMIC_SHARED(int, sums);
          const int t = threadIdx.x;
          sums[t] = 0;
          for (int round = 0; round < 5; ++round) {
            ring[t] = 100 * round + t;
            __syncthreads();
            sums[t] += ring[(t + 7) % 64];
            __syncthreads();
          }
          out[blockIdx.x * 64 + t] = sums[t] + 10000 * blockIdx.x;
        }""",
        out,
        grid=2,
        shared=256,
        seed=seed,
    )
    expected = 1000 + 5 * ((np.arange(64) + 7) % 64)
    np.testing.assert_array_equal(out, np.concatenate([expected, expected + 10000]))


@pytest.mark.parametrize("seed", [None, 3])
def test_shuffles_and_votes(bench: Bench, seed: int | None) -> None:
    out, many = np.zeros((9, 32), np.int32), np.zeros(32)
    bench.run(
        """(int* out, double* many) {
          const int t = threadIdx.x, v = t * t;
          out[t] = __shfl_sync(FULL_MASK, v, 5);
          out[32 + t] = __shfl_up_sync(FULL_MASK, v, 3);
          out[64 + t] = __shfl_down_sync(FULL_MASK, v, 30);
          out[96 + t] = __shfl_xor_sync(FULL_MASK, v, 17);
          out[128 + t] = __shfl_down_sync(FULL_MASK, v, 1, 8);
          out[160 + t] = static_cast<int>(__ballot_sync(FULL_MASK, t % 3 == 0));
          out[192 + t] = __any_sync(FULL_MASK, t == 4) + 2 * __all_sync(FULL_MASK, t != 4);
          out[224 + t] = __syncthreads_count(t < 11) + 100 * __syncthreads_or(t == 1);
          out[224 + t] += 1000 * __syncthreads_and(t == 1);
          const unsigned half = t < 16 ? 0x0000ffffu : 0xffff0000u;
          if (t < 16) {
            out[256 + t] = __shfl_xor_sync(half, v, 1);
            __syncwarp(half);
          } else {
            out[256 + t] = __shfl_xor_sync(half, v, 2);
          }
          many[t] = __shfl_xor_sync(FULL_MASK, 1.0 / (t + 1), 31);
        }""",
        out,
        many,
        block=32,
        seed=seed,
    )
    t = np.arange(32)
    v = t * t
    np.testing.assert_array_equal(out[0], np.full(32, 25))
    np.testing.assert_array_equal(out[1], np.where(t < 3, v, (t - 3) ** 2))
    np.testing.assert_array_equal(out[2], np.where(t < 2, (t + 30) ** 2, v))
    np.testing.assert_array_equal(out[3], (t ^ 17) ** 2)
    np.testing.assert_array_equal(out[4], np.where(t % 8 == 7, v, (t + 1) ** 2))
    np.testing.assert_array_equal(out[5], np.full(32, sum(1 << k for k in range(0, 32, 3)), np.uint32).view(np.int32))
    np.testing.assert_array_equal(out[6], np.ones(32))
    np.testing.assert_array_equal(out[7], np.full(32, 111))
    np.testing.assert_array_equal(out[8], np.where(t < 16, (t ^ 1) ** 2, (t ^ 2) ** 2))
    np.testing.assert_array_equal(many, 1.0 / (32 - t))


def test_integer_atomics_and_early_ends(bench: Bench) -> None:
    """Threads that have ended are no longer waited for at a barrier."""
    out = ints(4)
    bench.run(
        """(int* out) {
          if (threadIdx.x >= 40) return;
          const int old = atomicAdd(out, 1);
          atomicMax(out + 1, old);
          __syncthreads();
          if (threadIdx.x == 0) out[2] = out[0];
          atomicCAS(out + 3, 0, 7);
        }""",
        out,
        seed=5,
    )
    assert out.tolist() == [40, 39, 40, 7]


def test_memory_begins_undefined(bench: Bench) -> None:
    out = np.zeros(2)
    bench.run(
        """(double* out) {
          __shared__ double kept[1];
          DYNAMIC_SHARED(double, given);
          out[0] = kept[0];
          out[1] = given[0];
          kept[0] = given[0] = 1.0;
        }""",
        out,
        block=1,
        grid=2,
        shared=8,
    )
    assert np.isnan(out).all()
    assert np.isnan(EmulatedDevice().empty(3, np.float32)).all()


def test_a_lane_outside_of_the_mask_has_no_value(bench: Bench) -> None:
    out = np.zeros(32)
    bench.run(
        "(double* out) { if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0xffffu, 1.0, 8); }", out, block=32
    )
    assert (out[:8] == 1.0).all()
    assert np.isnan(out[8:16]).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "if (threadIdx.x < 8) __syncwarp(FULL_MASK);",
            "deadlock in block .*\n.*has ended: threads 8-63\n.*syncwarp.*0-7",
        ),
        (
            "if (threadIdx.x % 32 < 16) x[0] = __shfl_sync(FULL_MASK, 1, 0); __syncthreads();",
            "deadlock.*\n.*0-15, 32-47",
        ),
        ("if (threadIdx.x == 3) while (x[0] == 0) __syncthreads(); else __syncthreads();", "meet in different places"),
        ("if (threadIdx.x < 32) __syncthreads(); else __syncthreads_count(1);", "meet in different places"),
        ("if (threadIdx.x == 9) x[0] = __shfl_sync(0xffu, 1, 0);", "is not for lane 9"),
        ("x[0] = __shfl_sync(FULL_MASK, 1, 0, 12);", "wrong width"),
        ("if (threadIdx.x == 0) x[0] = __ballot_sync(1u, 1); else x[1] = __any_sync(3u, 1);", "is not for lane"),
    ],
)
def test_misuse_is_reported(bench: Bench, body: str, message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        bench.run("(int* x) {\n" + body.replace("; else", ";\nelse") + "\n}", ints())
    bench.run("(int* x) { __syncthreads(); x[threadIdx.x] = 1; }", ints())  # and the next launch is none the worse


@pytest.mark.parametrize(
    "statement",
    [
        "float* f = (float*)x; atomicAdd(f, 1.0f);",  # the order would show
        "x[0] = __activemask();",
        "__shfl(x[0], 1);",
        'asm volatile("mov.u32 %0, %1;" : "=r"(x[0]) : "r"(x[1]));',
    ],
)
def test_what_kernels_may_not_use_does_not_compile(bench: Bench, statement: str) -> None:
    with pytest.raises(EmulationError, match="rror:"):
        bench.run("(int* x) { " + statement + " }", ints())


def test_arguments_are_checked(bench: Bench) -> None:
    body = "(double* out, const float* in, int n, double a) { out[0] = n + a; }"
    out, given = np.zeros(1), np.zeros(2, np.float32)
    good: list[Any] = [out, given, np.int32(2), np.float64(3.0)]
    bench.run(body, *good)
    assert out[0] == 5.0
    bench.run(body, out, None, np.int32(2), np.float64(3.0))
    read_only = np.zeros(1)
    read_only.flags.writeable = False
    wrong: list[tuple[int, Any, str]] = [
        (0, np.zeros(1, np.float32), "argument 0 of k must be an array of float64, not an array of float32"),
        (0, np.zeros((4, 4))[:, 1], "not contiguous"),
        (0, read_only, "read-only"),
        (1, np.zeros(2), "must be an array of float32"),
        (2, 2, "must be a NumPy scalar of type int32, not 2 of type int"),
        (2, np.int64(2), "must be a NumPy scalar of type int32"),
        (3, np.float32(2), "must be a NumPy scalar of type float64"),
    ]
    for position, value, message in wrong:
        args = [*good[:position], value, *good[position + 1 :]]
        with pytest.raises(EmulationError, match=message):
            bench.run(body, *args)
    with pytest.raises(EmulationError, match="4 parameters, 3 arguments"):
        bench.run(body, *good[:3])
    for block, shared in ((0, 0), (1025, 0), (32, 1 << 20)):
        with pytest.raises(EmulationError, match=r"threads, not|of shared memory"):
            bench.run(body, *good, block=block, shared=shared)


def test_launch_bounds_hold(bench: Bench) -> None:
    (bench.folder / "b.cu").write_text(
        '#include "cuda/portable.cuh"\n'
        'extern "C" __global__ void __launch_bounds__(2 * (16 + 16), 4) b(int* x) { x[0] = blockDim.x; }\n'
    )
    assert kernels_of((bench.folder / "b.cu").read_text()) == {"b": "2 * (16 + 16), 4"}
    device, x = EmulatedDevice(sources=bench.folder), ints(1)
    device.launch("b.cu", "b", 1, 64, (x,), 0, DEFINES)
    assert x[0] == 64
    with pytest.raises(EmulationError, match="1 to 64 threads, not 65"):
        device.launch("b.cu", "b", 1, 65, (x,), 0, DEFINES)


# ---------------------------------------------------------------------------------------- mistakes in a kernel

SUMS = """
import sys
from pathlib import Path
import numpy as np
from cuda_emulator import EmulatedDevice
def main(sanitizer, folder, seed=None):
    device = EmulatedDevice(seed, sanitizer, sources=Path(folder))
    count = np.arange(700, dtype=np.int32) % 13
    start, totals = device.empty(701, np.int32), device.empty(2, np.int64)
    device.launch("sums.cu", "prefix_sums", 1, 128, (np.int32(700), start, totals, count), 0, {"real": "double"})
    assert start.tolist() == [0, *np.cumsum(count).tolist()], "wrong value"
    assert totals.tolist() == [int(count.sum()), 12], "wrong value"
"""
FIRST = "    if (lane == 31) of_warp[warp] = sum;\n"
SHUFFLE = "__shfl_up_sync(FULL_MASK, sum, step);"
MUTATIONS = {
    "read_after_write": (FIRST + "    __syncthreads();\n", FIRST),
    "write_after_read": ("    __syncthreads();  // before the next chunk's sums replace these", ""),
    "shared_out_of_bounds": (FIRST, FIRST.replace("[warp]", "[warp + 29]")),
    "wrong_mask": (
        f"const long long other = {SHUFFLE}\n      if (lane >= step) sum += other;",
        f"if (lane >= step) sum += {SHUFFLE}",
    ),
}


def mutate(folder: Path, name: str | None, source: str = "sums.cu") -> Path:
    """A copy of a kernel source, with a mistake in it."""
    text = (Path(__file__).parent / source).read_text(encoding="utf-8")
    if name is not None:
        old, new = MUTATIONS[name]
        assert text.count(old) == 1, f"{source} has changed: {old!r} is not there"
        text = text.replace(old, new)
    (folder / source).write_text(text, encoding="utf-8")
    return folder


def outcome(folder: Path, seed: int | None) -> str:
    """What running the sums without a sanitizer shows: nothing, a wrong value, or a report."""
    scope: dict[str, Any] = {}
    exec(SUMS, scope)
    try:
        scope["main"]("", str(folder), seed)
    except AssertionError:
        return "wrong value"
    except EmulationError as error:
        return str(error)
    return ""


def sanitized(folder: Path, sanitizer: str) -> Any:
    needs.sanitizer(sanitizer)
    return run(f"{SUMS}\nmain({sanitizer!r}, {str(folder)!r})", sanitizer)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["", "address", "thread"])
def test_the_kernel_as_it_is_passes(tmp_path: Path, sanitizer: str) -> None:
    mutate(tmp_path, None)
    if sanitizer:
        done = sanitized(tmp_path, sanitizer)
        assert done.returncode == 0, done.stderr[-4000:]
    else:
        assert {outcome(tmp_path, seed) for seed in (None, *range(20))} == {""}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", ["read_after_write", "write_after_read"])
def test_a_removed_barrier_is_a_race(tmp_path: Path, mutation: str) -> None:
    """The thread sanitizer names both lines, whatever the values are."""
    done = sanitized(mutate(tmp_path, mutation), "thread")
    assert done.returncode != 0
    report = done.stderr[done.stderr.index("WARNING: ThreadSanitizer: data race") :]
    assert report.count("sums.cu:") >= 2


@pytest.mark.slow
def test_a_removed_barrier_shows_in_values(tmp_path: Path) -> None:
    """A read after a write in every schedule; a write after a read in random ones only: why races are looked for."""
    folder = mutate(tmp_path, "read_after_write")
    assert {outcome(folder, seed) for seed in (None, *range(5))} == {"wrong value"}
    folder = mutate(tmp_path, "write_after_read")
    assert "wrong value" in {outcome(folder, seed) for seed in range(10)}


RACE = """
import numpy as np
from pathlib import Path
from cuda_emulator import EmulatedDevice
EmulatedDevice(None, "thread", sources=Path({folder!r})).launch(
    "r.cu", "r", 3, 64, (np.zeros(192),), 512, {{"real": "double"}}
)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("barrier", "races"), [("__syncthreads();", False), ("", True), ("__syncwarp();", True)])
def test_a_race_at_the_end_of_a_kernel(tmp_path: Path, barrier: str, races: bool) -> None:
    """Where threads run one after another to their end, that order must not hide anything."""
    text = f"""#include "cuda/portable.cuh"
    extern "C" __global__ void r(double* out) {{
      DYNAMIC_SHARED(double, s);
      s[threadIdx.x] = threadIdx.x;
      {barrier}
      out[64 * blockIdx.x + threadIdx.x] = s[63 - threadIdx.x];
    }}"""
    (tmp_path / "r.cu").write_text(text, encoding="utf-8")
    needs.sanitizer("thread")
    done = run(RACE.format(folder=str(tmp_path)), "thread")
    assert ("data race" in done.stderr) == races, done.stderr[-3000:]
    assert (done.returncode != 0) == races


def test_a_write_beyond_shared_memory_is_found_at_its_line(tmp_path: Path) -> None:
    folder = mutate(tmp_path, "shared_out_of_bounds")
    text = (folder / "sums.cu").read_text(encoding="utf-8")
    line = text[: text.index("of_warp[warp + 29] = sum")].count("\n") + 1
    done = sanitized(folder, "address")
    assert done.returncode != 0
    assert f"sums.cu:{line}" in done.stderr


def test_a_wrong_mask_is_a_deadlock(tmp_path: Path) -> None:
    folder = mutate(tmp_path, "wrong_mask")
    for seed in (None, 1, 2):
        assert "__shfl_up_sync (mask 0xffffffff)" in outcome(folder, seed)
