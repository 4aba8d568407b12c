"""Every kernel through NVIDIA's own compiler, for every architecture, and what it takes there. No GPU needed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import needs
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu_resources")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_within_their_limits(resources: Any, architecture: str) -> None:
    assert resources.ARCHITECTURES == ARCHITECTURES
    limits = json.loads(resources.LIMITS.read_text(encoding="utf-8"))
    try:
        compiler = resources.nvidia.Nvrtc()
        resources.nvidia.disassembler()
    except (ImportError, OSError) as error:
        pytest.skip(f"NO KERNEL WAS COMPILED: {error}")
    if compiler.version != limits["compiler"]:
        pytest.skip(f"NO KERNEL WAS COMPILED: NVRTC {compiler.version}, the limits are for {limits['compiler']}")
    seen = set()
    for precision in resources.PRECISIONS:
        rows = list(resources.compiled(compiler, architecture, precision))
        assert [line for row in rows for line in resources.exceeded(row, limits)] == []
        seen |= {row.kernel for row in rows}
    assert seen == set(limits["kernels"])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", ["product.cu", "g1_update.cu", "fitting.cu"])
def test_every_form_of_products_stays_in_registers(resources: Any, source: str, architecture: str) -> None:
    """Large tiles and small ones, by multiply-adds and by tensor cores where there are any."""
    needs.nvidia_compilers()
    compiler = resources.nvidia.Nvrtc()
    for precision, each in (("float", 8), ("float", 2), ("double", 4), ("double", 2)):
        for tensor in [{}, *([{"TENSOR": "1"}] if architecture != "sm_75" else [])]:
            options = resources.nvidia.options({"real": precision, "ROWS": str(each), **tensor})
            given = [*options, f"-arch={architecture}", "--ptxas-options=-v"]
            log, code = compiler.compile(resources.SOURCES / source, given, "CUBIN")
            machines = resources.gpu_sass.parse(resources.nvidia.disassemble(code))
            for kernel, used in resources.parse(log).items():
                assert (used["spilled"], used["stack"]) == (0, 0), (kernel, precision, each, tensor)
                if tensor or each > 2:
                    assert resources.gpu_sass.generic(machines[kernel].code) == 0, (kernel, precision, each, tensor)
            names = {one.name.split(".")[0] for machine in machines.values() for one in machine.code}
            assert bool(names & {"HMMA", "DMMA"}) == bool(tensor)


def test_limits_allow_no_spills(resources: Any) -> None:
    limits = json.loads(resources.LIMITS.read_text(encoding="utf-8"))["kernels"]
    spilled = {name for name, both in limits.items() for limit in both.values() if limit["spilled"] > 0}
    assert spilled == set()


def test_options_of_production(resources: Any) -> None:
    """What CuPy adds by itself is there without it as well."""
    assert set(resources.nvidia.options({})) >= {"-ftz=true", "--device-as-default-execution-space"}


def test_the_limits_name_every_kernel(resources: Any) -> None:
    from cuda_emulator.build import kernels_of

    named = {name for path in resources.SOURCES.glob("*.cu") for name in kernels_of(path.read_text(encoding="utf-8"))}
    assert named == set(json.loads(resources.LIMITS.read_text(encoding="utf-8"))["kernels"])


def test_the_compiler_of_the_limits_is_the_one_that_is_pinned(resources: Any) -> None:
    """And all of NVIDIA's packages are of one version."""
    text = (BENCH.parent / "pyproject.toml").read_text(encoding="utf-8")
    version = json.loads(resources.LIMITS.read_text(encoding="utf-8"))["compiler"]
    for package in (resources.nvidia.NVRTC, resources.nvidia.LINKER, resources.nvidia.DISASSEMBLER):
        assert f'"{package}=={version}; ' in text


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "expected"),
    [
        ("sm_90", 128, 32, 0, 1.0),
        ("sm_90", 128, 33, 0, 0.75),  # 40 registers a thread: 48 warps
        ("sm_90", 128, 255, 0, 0.125),
        ("sm_90", 32, 32, 0, 0.5),  # 32 blocks at most
        ("sm_90", 128, 32, 100 * 1024, 0.125),
        ("sm_80", 1024, 64, 0, 0.5),
        ("sm_75", 128, 32, 16 * 1024, 0.5),
        ("sm_75", 128, 32, 65 * 1024, 0.0),
    ],
)
def test_occupancy(
    resources: Any, architecture: str, threads: int, registers: int, shared: int, expected: float
) -> None:
    assert resources.occupancy(architecture, threads, registers, shared) == expected


def test_logs_are_read(resources: Any) -> None:
    log = """ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 384 bytes smem
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    assert resources.parse(log) == {
        "one": {"registers": 40, "spilled": 12, "stack": 16, "static_shared": 384},
        "two": {"registers": 8, "spilled": 0, "stack": 0, "static_shared": 0},
    }


def test_a_limit_is_a_limit(resources: Any) -> None:
    row = resources.Resources("a.cu", "k", "float", "sm_90", 40, 4, 16, 2, 128, 128, 49152, 0.1)
    none = resources.exceeded(row, {"kernels": {}})
    assert len(none) == 1
    assert "has no limits" in none[0]
    limit = {"registers": 39, "spilled": 0, "stack": 0, "generic": 0, "static_shared": 64}
    found = resources.exceeded(row, {"kernels": {"k": {"float": limit}}})
    names = [text.split(": ")[1].split(" ")[0] for text in found]
    assert names == ["registers", "spilled", "stack", "generic", "static_shared", "49280", "occupancy"]
    generous = {"registers": 40, "spilled": 4, "stack": 16, "generic": 2, "static_shared": 128, "shared": 49280}
    generous["occupancy"] = {"sm_90": 0.1}
    assert resources.exceeded(row, {"kernels": {"k": {"float": generous}}}) == []
