"""What kernels execute, counted without a GPU: known numbers of known kernels, and the limits of an evaluation."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice, EmulationError

BENCH = Path(__file__).resolve().parents[2] / "bench"

SOURCE = """
#include "cuda/portable.cuh"

// s (32 stride) = in, sum over `times` of s in[t]
extern "C" __global__ void __launch_bounds__(128) strided(real* out, const real* in, int stride, int times) {
  DYNAMIC_SHARED(real, s);
  const int t = threadIdx.x % 32;
  for (int k = threadIdx.x; k < 33 * stride + times; k += blockDim.x) s[k] = in[k % 32];
  __syncthreads();
  real acc = 0;
#pragma unroll 1
  for (int k = 0; k < times; ++k) acc += s[t * stride + k] * in[k];
  out[blockIdx.x * blockDim.x + threadIdx.x] = acc;
}

// Lane t goes round t % 8 times.
extern "C" __global__ void uneven(int* out, const int* in) {
  int acc = 0;
#pragma unroll 1
  for (int k = 0; k < threadIdx.x % 8; ++k) acc = acc * 3 + in[k];
  out[threadIdx.x] = acc;
}

// What math functions become.
extern "C" __global__ void functions(real* out, const real* in) {
  const real x = in[threadIdx.x];
  real* to = out + 6 * threadIdx.x;
  to[0] = DeviceMath::exp(x), to[1] = DeviceMath::tanh(x), to[2] = DeviceMath::log1p(x * x);
  to[3] = DeviceMath::sqrt(x * x + real(1)), to[4] = x / (x * x + real(2)), to[5] = __shfl_xor_sync(FULL_MASK, x, 5);
}

extern "C" __global__ void gather(float* out, const float* in, int stride) {
  out[threadIdx.x] = in[threadIdx.x * stride];
}

struct __align__(16) Four { float x, y, z, w; };

// Each lane one of 16 bytes: at t % pairs * by.
extern "C" __global__ void fours(float* out, int divide, int by) {
  __shared__ Four s[256];
  for (int k = threadIdx.x; k < 256; k += blockDim.x) s[k] = Four{1.0f * k, 0, 0, 2.0f * k};
  __syncthreads();
  const Four v = s[threadIdx.x / divide * by];
  out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

// The compiler puts constants together: a register is below zero for some lanes, and what is added brings it back.
extern "C" __global__ void around(float* out) {
  __shared__ float s[1024];
  for (int k = threadIdx.x; k < 1024; k += blockDim.x) s[k] = 1.0f * k;
  __syncthreads();
  const int group = threadIdx.x % 8;
  out[threadIdx.x] = s[group * 36 + 400 - (group == 0 ? 300 : 0)];
}

extern "C" __global__ void beyond(real* out) {
  DYNAMIC_SHARED(real, s);
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x + 1];
}
""".replace("DeviceMath", "dpa2::DeviceMath")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("known") / "cuda"
    folder.mkdir()
    (folder / "known.cu").write_text(SOURCE, encoding="utf-8")
    return folder


@pytest.fixture
def device(sources: Path) -> EmulatedDevice:
    needs.nvidia_compilers()
    from cuda_emulator.compiled import executed

    executed()  # what others counted
    return EmulatedDevice(sanitizer="ptx", sources=sources)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    needs.nvidia_compilers()
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu_counts")


def only() -> Any:
    """What the one kernel that ran has counted."""
    from cuda_emulator.compiled import executed

    (found,) = executed()
    return found


def accesses(found: Any, operation: str) -> list[int]:
    """Accesses of warps, wavefronts and the fewest, of all loads or stores of shared memory."""
    rows = [
        row
        for one, row in zip(found.kernel.accesses, found.accesses, strict=True)
        if one.operation.startswith(operation)
    ]
    return [int(n) for n in np.sum(rows, axis=0)[:3]]


FLOAT, DOUBLE = {"real": "float"}, {"real": "double"}


@pytest.mark.parametrize(("stride", "banks"), [(1, 1), (8, 8), (33, 1), (36, 4), (32, 32)])
def test_bank_conflicts_of_strides(device: EmulatedDevice, stride: int, banks: int) -> None:
    """gcd(stride, 32) lanes meet in a bank; so many wavefronts each, and multiply-adds as written."""
    rng = np.random.default_rng(0)
    out, given, times, blocks, warps = device.empty(3 * 64, np.float32), rng.normal(size=32).astype(np.float32), 7, 3, 2
    args = (out, given, np.int32(stride), np.int32(times))
    device.launch("known.cu", "strided", blocks, 32 * warps, args, 4 * (33 * stride + times), FLOAT)
    flat = given[np.arange(33 * stride + times) % 32]
    wanted = sum(flat[np.arange(32) * stride + k].astype(np.float64) * given[k] for k in range(times))
    np.testing.assert_allclose(out.reshape(-1, 32), np.tile(wanted, (6, 1)), rtol=1e-5, atol=1e-6)
    found = only()
    assert (found.launches, found.blocks_launched, found.threads) == (1, blocks, 64)
    assert found.shared == 4 * (33 * stride + times)
    loads = blocks * warps * times
    assert accesses(found, "ld.shared") == [loads, loads * banks, loads]
    fused = [one.block for one in found.kernel.kernel.instructions if one.operation.startswith("fma")]
    assert sum(int(found.blocks[block, 0]) for block in fused) == loads
    assert sum(int(found.blocks[block, 1]) for block in fused) == 32 * loads


def test_double_precision_goes_by_half_warps(device: EmulatedDevice) -> None:
    out, given = device.empty(32, np.float64), np.ones(32)
    device.launch("known.cu", "strided", 1, 32, (out, given, np.int32(1), np.int32(4)), 8 * 37, DOUBLE)
    np.testing.assert_array_equal(out, 4.0)
    assert accesses(only(), "ld.shared") == [4, 8, 8]


# All different: four quarters. The same for all, for pairs: two halves. Every other one of 16 bytes: twice as many.
FOURS = [(1, 1, 4, 4), (32, 1, 2, 2), (2, 1, 2, 2), (8, 1, 2, 2), (1, 2, 8, 4)]


@pytest.mark.parametrize(("divide", "by", "needed", "least"), FOURS)
def test_wavefronts_of_16_bytes(device: EmulatedDevice, divide: int, by: int, needed: int, least: int) -> None:
    out = device.empty(32, np.float32)
    device.launch("known.cu", "fours", 1, 32, (out, np.int32(divide), np.int32(by)), 0, FLOAT)
    np.testing.assert_array_equal(out, 3.0 * (np.arange(32) // divide * by))
    assert accesses(only(), "ld.shared") == [1, needed, least]


def test_addresses_of_shared_memory_have_32_bits(device: EmulatedDevice) -> None:
    out = device.empty(32, np.float32)
    device.launch("known.cu", "around", 1, 32, (out,), 0, FLOAT)
    group = np.arange(32) % 8
    np.testing.assert_array_equal(out, np.where(group == 0, 100, 36 * group + 400))


def test_lanes_that_go_round_less_often_wait(device: EmulatedDevice) -> None:
    out, given = device.empty(32, np.int32), np.arange(8, dtype=np.int32)
    device.launch("known.cu", "uneven", 1, 32, (out, given), 0, FLOAT)
    found = only()
    looped = next(one.block for one in found.kernel.kernel.instructions if one.operation.startswith("mad"))
    assert [int(n) for n in found.blocks[looped]] == [7, 4 * sum(range(8))]


@pytest.mark.parametrize(("defines", "kind", "tolerance"), [(FLOAT, np.float32, 3e-7), (DOUBLE, np.float64, 1e-15)])
def test_functions_of_the_compiler(device: EmulatedDevice, defines: Any, kind: Any, tolerance: float) -> None:
    x = np.random.default_rng(3).normal(scale=2.0, size=32).astype(kind)
    out = device.empty((32, 6), kind)
    device.launch("known.cu", "functions", 1, 32, (out, x), 0, defines)
    y = x.astype(np.longdouble)
    wanted = [np.exp(y), np.tanh(y), np.log1p(y * y), np.sqrt(y * y + 1), y / (y * y + 2), y[np.arange(32) ^ 5]]
    np.testing.assert_allclose(out.T, np.array(wanted).astype(np.float64), rtol=tolerance)


def test_shared_memory_has_an_end(device: EmulatedDevice) -> None:
    with pytest.raises(EmulationError, match="beyond the shared memory"):
        device.launch("known.cu", "beyond", 1, 32, (device.empty(32, np.float32),), 4 * 32, FLOAT)
    device.launch("known.cu", "beyond", 1, 32, (device.empty(32, np.float32),), 4 * 33, FLOAT)


def test_machine_code_is_matched_with_what_was_executed(device: EmulatedDevice, counts: Any) -> None:
    """As many multiply-adds and loads of shared memory in the machine's instructions as in the PTX."""
    out, given = device.empty(64, np.float32), np.ones(32, np.float32)
    device.launch("known.cu", "strided", 1, 64, (out, given, np.int32(1), np.int32(5)), 4 * 38, FLOAT)
    found, sass = only(), counts.gpu_sass
    module = counts.module_of(found.source, found.defines)
    machine = sass.machine_code(module.numbered, counts.ARCHITECTURE)["strided"]
    total = sass.executed(found.kernel.kernel, machine, [int(n) for n in found.blocks[:, 0]])
    assert total["FFMA"] == 10
    assert total["LDS"] == 10
    assert total["BAR"] == 2
    assert 30 <= sum(total.values()) <= 10 * len(machine.code)


def test_the_code_of_a_kernel_is_read(counts: Any) -> None:
    text = """\t.section\t.text.one,"ax",@progbits
        .type           one,@function
\t//## File "ptx", line 3
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/               @P0 LD.E R2, desc[UR4][R2.64] ;
\t//## File "ptx", line 4
        /*0020*/                   FFMA R2, R2, R2, R2 ;
        /*0030*/                   NOP;
        .type           $__internal_0_$__cuda_sm20_div_s64,@function
        /*0040*/                   IMAD R1, R1, R1, R1 ;
"""
    machine = counts.gpu_sass.parse(text)["one"]
    assert [(code.number, code.name, code.predicate) for code in machine.code] == [
        (3, "LDC", ""), (3, "LD.E", "@P0"), (4, "FFMA", ""),
    ]  # fmt: skip
    assert [code.name for code in machine.functions["$__internal_0_$__cuda_sm20_div_s64"]] == ["IMAD"]
    assert counts.gpu_sass.generic(machine.code) == 1


def counted(counts: Any, more: tuple[str, ...] = (), size: float = 100.0, **values: Any) -> Any:
    known = {
        "model": "m", "precision": "float", "kernel": "k", "launches": 1, "instructions": 100.0, "fma": 40.0,
        "fma_share": 0.4, "wavefronts": 10.0, "waves_per_fma": 0.25, "conflicts": 0.1, "tensor": 0.0, "special": 1.0,
        "sectors": 9.0, "traffic": 99.0, "generic": 0, "shared": 1024,
    }  # fmt: skip
    rows = [counts.Row(**(known | values)), *(counts.Row(**(known | {"kernel": name})) for name in more)]
    return counts.Counts(rows, [], 1, size)


def test_a_limit_is_a_limit(counts: Any) -> None:
    limits = {"models": {"m": {"float": counts.limits_of(counted(counts))}}}
    assert counts.exceeded(counted(counts), limits) == []
    beyond = {"launches": 2, "instructions": 200.0, "fma_share": 0.3, "waves_per_fma": 0.5, "conflicts": 0.3}
    for name, value in {**beyond, "generic": 1, "shared": 2048}.items():
        (wrong,) = counts.exceeded(counted(counts, **{name: value}), limits)
        assert f"k: {name} " in wrong
    (wrong,) = counts.exceeded(counted(counts, size=200.0), limits)
    assert wrong == "m (float): 200 bytes per atom, at most 103 allowed"
    more = counts.exceeded(counted(counts, ("new",)), limits)
    assert more == ["m (float), new has no limits: bench/gpu_counts.py --update writes them"]
    limits["models"]["m"]["float"]["kernels"]["gone"] = {}
    assert counts.exceeded(counted(counts), limits) == ["m (float): gone was not launched"]
    unknown = counts.exceeded(counted(counts), {"models": {}})
    assert [text.split(" ")[-1] for text in unknown] == ["allowed", "them"]


def test_limits_only_become_stricter(counts: Any) -> None:
    known = counts.limits_of(counted(counts))
    better = {"instructions": 50.0, "fma_share": 0.8, "conflicts": 0.02}
    worse = {"launches": 2, "waves_per_fma": 0.5, "shared": 2048}
    found = counts.updated(known, counts.limits_of(counted(counts, ("new",), size=200.0, **better, **worse)))
    assert found["bytes_per_atom"] == known["bytes_per_atom"]
    assert found["kernels"].keys() == {"k", "new"}
    both = counts.limits_of(counted(counts, **better))["kernels"]["k"]
    assert found["kernels"]["k"] == both
    assert counts.updated(None, known) == known
    assert counts.updated({**known, "kernels": {"gone": {}}}, known)["kernels"].keys() == {"k"}


def test_exceptions_of_resources_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    stricter = importlib.import_module("common").stricter
    known = {"registers": 40, "spilled": 0, "occupancy": {"sm_80": 0.1, "sm_90": 0.2}}
    found = {"registers": 48, "spilled": 0, "shared": 50_000, "occupancy": {"sm_80": 0.15, "sm_75": 0.1}}
    assert stricter(known, found) == {"registers": 40, "spilled": 0, "occupancy": {"sm_80": 0.15}}


@pytest.mark.parametrize("model", needs.mostly_slow(["medium", "small", "defaults", "sel_120", "h2"], {"medium"}))
def test_counts_are_within_their_limits(counts: Any, model: str) -> None:
    limits = json.loads(counts.LIMITS.read_text(encoding="utf-8"))
    assert set(limits["models"]) == set(counts.MODELS)
    found = counts.count(model, "float")
    assert counts.exceeded(found, limits) == []
    assert found.launches == found.rows[0].launches


def test_launches_of_a_step() -> None:
    """The goal for the medium model, the search included."""
    limits = json.loads((BENCH / "gpu_counts.json").read_text(encoding="utf-8"))["models"]["medium"]["float"]
    assert limits["kernels"]["all"]["launches"] <= 80


@pytest.mark.parametrize(("atoms", "most"), [(10**5, 60.0), (10**6, 60.0)])
def test_memory_of_large_systems(monkeypatch: pytest.MonkeyPatch, atoms: int, most: float) -> None:
    """kB per atom of the medium model in single precision: what is planned, launches included."""
    monkeypatch.syspath_prepend(BENCH)
    found = importlib.import_module("gpu_memory").use("medium", "float", atoms)
    assert found.total < 1e3 * most * atoms
    assert found.slab < 1.01 * sum(size for _, size in found.pieces)


def test_memory_of_the_device_goes_by_sectors(device: EmulatedDevice) -> None:
    """32 lanes next to each other ask for 4 sectors of 32 bytes; every eighth number is a sector of its own."""
    given = np.zeros(64 * 8, np.float32)
    given = given[-(given.ctypes.data // 4) % 8 :][: 33 * 8]  # from the beginning of a sector
    out = device.empty(64, np.float32)
    for stride, sectors in ((1, 4), (2, 8), (8, 32)):
        device.launch("known.cu", "gather", 1, 32, (out, given, np.int32(stride)), 0, FLOAT)
        found = only()
        rows = [
            row
            for one, row in zip(found.kernel.accesses, found.accesses, strict=True)
            if one.operation.startswith("ld")
        ]
        assert [[int(n) for n in row[:3]] for row in rows] == [[1, sectors, 4]]
        assert found.read == sectors
        assert found.pieces("shared") == (0, 0)


def test_a_bound_is_the_busiest_part(counts: Any) -> None:
    card = importlib.import_module("gpu_roofline").Card(multiprocessors=10, clock=1.0, bandwidth=1.0)
    row = {"instructions": 400.0, "fma": 400.0, "tensor": 80.0, "wavefronts": 30.0, "special": 10.0, "traffic": 5000.0}
    single = {"issue": 10.0, "fma": 10.0, "tensor": 8.0, "shared": 3.0, "special": 2.0, "memory": 5.0}
    assert card.nanoseconds(row, False) == single
    assert card.nanoseconds(row, True) == single | {"fma": 20.0, "tensor": 16.0}
