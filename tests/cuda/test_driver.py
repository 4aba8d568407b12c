"""The host of the GPU on emulated devices, in a program without Python; and what the emulated driver finds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator import driver, nvidia
from cuda_emulator.sanitize import command_prefix
from device_programs import device_program, line_of, sources_of_tests
from native_programs import start

pytestmark = [needs.linux, needs.compiler]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of the tests, with what they include."""
    return sources_of_tests(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def program() -> Path:
    """The native test."""
    return device_program()


@pytest.fixture
def check(program: Path, sources: Path, tmp_path: Path) -> Any:
    """Run one check of the program on emulated devices: exit status, output, log."""

    def run(
        name: str, overrides: dict[str, str] | None = None, where: Path = program, **options: Any
    ) -> tuple[int, str, driver.Log]:
        log = tmp_path / "log.json"
        variables = driver.environment(**{"sources": sources, **options}, log=log)
        prefix = command_prefix(options.get("sanitizer", ""))
        status, output = start([*prefix, where, name], 120, **{**variables, **(overrides or {})})
        empty = '{"launches": [], "counts": {}}'
        return status, output, driver.read_log(log.read_text() if log.exists() else empty)

    return run


@pytest.mark.parametrize("deferred", [False, True])
def test_launch(check: Any, deferred: bool) -> None:
    status, output, log = check("launch", deferred=deferred)
    assert status == 0, output
    assert "65281 bytes of dynamic shared memory beside 256 bytes of static" in line_of(output, "shared")
    assert "65 threads, a block of this kernel has at most 64" in line_of(output, "threads")
    assert "small.cu has no kernel nothing" in line_of(output, "kernel")
    assert "status 1" in line_of(output, "source")
    assert "nothing.cu cannot be read" in line_of(output, "source")
    assert "status 5" in line_of(output, "compile")
    assert "-DMISTAKE=1" in line_of(output, "compile")
    assert "this is a mistake" in output
    assert [one.kernel for one in log.launches] == ["scale", *["through_shared"] * 3]
    first = log.launches[0]
    assert (first.source, first.grid, first.block, first.bytes) == ("small.cu", (3, 1, 1), (2, 1, 1), 32)
    assert log.counts["copies_to_device"] == 2
    assert log.counts["copies_to_host"] == 4
    assert log.counts["live_allocations"] == 0
    assert log.counts.get("leaks", 0) == 0


@pytest.mark.parametrize("deferred", [False, True])
def test_graph(check: Any, deferred: bool) -> None:
    status, output, log = check("graph", deferred=deferred)
    assert status == 0, output
    for name, why in (("allocating", "cuMemAlloc during a capture"), ("waiting", "a stream that is captured")):
        assert why in line_of(output, name)
        assert "evaluate once before the capture" in line_of(output, name)
        assert f"{name} ends with 901" in output
    assert "905" in line_of(output, "isolation")
    assert "isolation ends with 901" in output
    assert log.counts["graph_launches"] == 2
    assert [one.graph for one in log.launches] == [True, True]
    assert log.counts["fills"] == 2
    assert log.counts["copies_to_device"] == 2
    assert log.counts["copies_to_host"] == 2


def test_devices(check: Any) -> None:
    status, output, log = check("devices", devices=2)
    assert status == 0, output
    assert "scale was loaded on another device than the current one" in line_of(output, "function")
    assert "a stream of another device" in line_of(output, "stream")
    assert "memory of another device" in line_of(output, "memory")
    assert "no context is current in this thread" in line_of(output, "thread")
    assert output.count("this machine has 0 to 1") == 2
    assert {one.device for one in log.launches} == {0, 1}
    assert log.counts["live_allocations"] == 0
    assert log.counts.get("leaks", 0) == 0


def test_memory(check: Any) -> None:
    status, output, _ = check("memory", memory=1 << 20)
    assert status == 0, output
    assert "status 4" in line_of(output, "memory")
    assert "has no 1099511627776 bytes of memory left" in line_of(output, "memory")


def test_a_kernel_that_fails(check: Any) -> None:
    """As with a real device, the error is known when something waits, and stays."""
    _, output, _ = check("failure")
    for name in ("waiting", "next"):
        assert "status 5" in line_of(output, name)
    assert output.count("cannot be used in this process any more, which must be started again") == 2
    assert "CUDA_ERROR_LAUNCH_FAILED (719)" in line_of(output, "waiting")
    assert "deadlock in block (0, 0, 0)" in output


def test_an_overrun_is_found(check: Any) -> None:
    _, output, _ = check("overrun")
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in line_of(output, "overrun")
    assert "a buffer of 8 bytes" in output
    needs.sanitizer("address")
    status, output, _ = check("overrun", sanitizer="address")
    assert status != 0
    assert "heap-buffer-overflow" in output
    assert "small.cu:" in output


def test_a_stream_that_does_not_wait_is_found(check: Any) -> None:
    assert "right: 32" in check("waits", deferred=True)[1]
    assert "right: 32" in check("no_wait")[1]
    status, output, _ = check("no_wait", deferred=True, seed=1)
    assert status == 0
    assert "right: 32" not in output


def test_a_barrier_that_is_missing_is_found(check: Any) -> None:
    needs.sanitizer("thread")
    status, output, _ = check("barrier", sanitizer="thread")
    assert status in (0, 1), output  # 1: nothing was checked
    assert "right" in output
    assert "data race" not in output
    status, output, _ = check("no_barrier", sanitizer="thread")
    assert "data race" in output
    assert "small.cu:" in output


@pytest.mark.parametrize("deferred", [False, True])
def test_threads(check: Any, deferred: bool) -> None:
    status, output, log = check("threads", deferred=deferred, seed=3)
    assert status == 0, output
    assert log.counts["launches"] == 80
    assert log.counts["modules"] == 4


def test_the_host_may_not_read_the_device(check: Any) -> None:
    status, output, _ = check("peek", only_kernels=True)
    assert status < 0
    assert "peeking" in output
    assert "got" not in output
    status, output, _ = check("launch", only_kernels=True)
    assert status == 0, output


@pytest.mark.parametrize(
    ("variables", "options", "expected"),
    [
        ({"DPA2_CUDA_DRIVER": "/nowhere/libcuda.so.1"}, {}, "whose library cannot be loaded"),
        ({"DPA2_CUDA_DRIVER": "libm.so.6"}, {}, "too old for dpa2: libm.so.6 has no cuInit"),
        ({"DPA2_EMULATED_VERSION": "11080"}, {}, "it knows CUDA 11.8, CUDA 12.0 is needed"),
        ({}, {"devices": 0}, "CUDA_ERROR_NO_DEVICE (100)"),
        ({}, {"architecture": 70}, "has compute capability 7.0, and the kernels need 7.5"),
        ({"DPA2_NVRTC": "/nowhere/libnvrtc.so"}, {}, "no error"),
        ({"DPA2_CUDA_SOURCES": "/nowhere"}, {}, "which has no cuda/portable.cuh"),
    ],
)
def test_what_cannot_be_opened(check: Any, variables: dict[str, str], options: dict[str, int], expected: str) -> None:
    _, output, _ = check("open", variables, **options)
    assert expected in line_of(output, "open"), output
    assert expected == "no error" or "status 1" in line_of(output, "open")


def test_no_compiler(check: Any) -> None:
    status, output, _ = check("launch", {"DPA2_NVRTC": "/nowhere/libnvrtc.so"})
    assert status == 1
    assert "kernels are compiled by NVRTC, which cannot be loaded" in line_of(output, "thrown")
    assert "pip install nvidia-cuda-nvrtc" in line_of(output, "thrown")


@pytest.mark.parametrize("below", ["cuda/src", "share/dpa2/src"])
def test_sources_are_found_beside_the_library(
    check: Any, program: Path, sources: Path, tmp_path: Path, below: str
) -> None:
    """As in a package, where the library is in lib, and as in a system's folders."""
    (tmp_path / "lib").mkdir()
    moved = Path(shutil.copy(program, tmp_path / "lib"))
    _, output, _ = check("open", {"DPA2_CUDA_SOURCES": ""}, where=moved)
    assert f"the sources of the kernels were not found beside {moved.parent}" in line_of(output, "open")
    shutil.copytree(sources, tmp_path / below)
    status, output, _ = check("graph", {"DPA2_CUDA_SOURCES": ""}, where=moved)
    assert status == 0, output


def test_the_real_compiler(check: Any) -> None:
    """It is found by name, with its second library, and compiles; the emulated driver cannot load what it makes."""
    if not nvidia.version(nvidia.NVRTC):
        pytest.skip(f"{nvidia.NVRTC} is not installed")
    status, output, _ = check("graph", {"DPA2_NVRTC": nvidia.path_of_nvrtc()})
    assert status == 1
    assert "loading the kernels of small.cu: CUDA_ERROR_INVALID_IMAGE" in line_of(output, "thrown"), output


def test_a_device_newer_than_the_compiler(check: Any) -> None:
    status, output, _ = check("graph", architecture=130)
    assert status == 0, output
