"""Kernels that are compiled into the package: made by the tool, found by key, and what happens without them."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator import build, driver, nvidia
from device_programs import device_program, line_of, sources_of_tests
from dpa2._native import kernel_package, packaged_image
from dpa2.cli import main
from dpa2.cuda.packaged import PackagedKernels, packaged_kernels
from native_programs import start
from pages import ROOT

pytestmark = [needs.linux, needs.compiler]

TOOL = ["package_kernels.cpp", "kernel_package.cpp", "packing.cpp", "nvrtc.cpp", "device.cpp", "driver.cpp"]
NOWHERE = {"DPA2_NVRTC": "/nowhere/libnvrtc.so"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of the tests."""
    return sources_of_tests(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def program() -> Path:
    """The native test of the host."""
    return device_program()


@pytest.fixture(scope="module")
def tool() -> Path:
    """src/gpu/package_kernels.cpp."""
    return build.program("package_kernels", [ROOT / "src/gpu" / unit for unit in TOOL], [ROOT / "src"])


def make(tool: Path, folder: Path, text: str, package: Path, nvrtc: str = "") -> tuple[int, str]:
    """A package of the kernels below a folder, by the emulated compiler if no other is given."""
    wanted = package.with_suffix(".txt")
    wanted.write_text(text, encoding="utf-8")
    variables = driver.environment()
    return start([tool, folder, wanted, nvrtc or variables["DPA2_NVRTC"], package, f"{package}.d"], 300, **variables)


@pytest.fixture
def evaluate(program: Path, sources: Path, tool: Path, tmp_path: Path) -> Any:
    """Launch a kernel of the tests' sources by the program, with a package for some architectures."""
    folder = Path(shutil.copytree(sources, tmp_path / "sources"))
    package = folder / "kernels.bin"

    def run(
        architectures: str, overrides: dict[str, str] | None = None, edit: Any = None, **options: Any
    ) -> tuple[int, str, driver.Log]:
        if architectures:
            status, output = make(tool, folder, f"{architectures} small.cu real=double\n", package)
            assert status == 0, output
        if edit is not None:
            edit(folder, package)
        log = tmp_path / "log.json"
        variables = driver.environment(**{"sources": folder, **options}, log=log)
        status, output = start([program, "graph"], 120, **{**variables, **(overrides or {})})
        return status, output, driver.read_log(log.read_text() if log.exists() else '{"launches": [], "counts": {}}')

    return run


@pytest.mark.parametrize(("architectures", "device"), [("compute_75", 75), ("compute_75", 120), ("sm_80", 80)])
def test_packaged_kernels_need_no_compiler(evaluate: Any, architectures: str, device: int) -> None:
    status, output, log = evaluate(architectures, NOWHERE, architecture=device)
    assert status == 0, output
    assert [one.source for one in log.launches] == ["small.cu"] * 2
    assert log.counts["modules"] == 1


def test_the_package_may_be_elsewhere_or_off(evaluate: Any, tmp_path: Path) -> None:
    def move(_: Path, package: Path) -> None:
        package.rename(tmp_path / "moved.bin")

    elsewhere = {"DPA2_CUDA_KERNELS": str(tmp_path / "moved.bin")}
    status, output, _ = evaluate("compute_75", NOWHERE | elsewhere, move)
    assert status == 0, output
    status, output, _ = evaluate("compute_75", NOWHERE | {"DPA2_CUDA_KERNELS": "off"})
    assert status == 1
    assert "They are compiled because DPA2_CUDA_KERNELS is off" in line_of(output, "thrown")
    status, output, _ = evaluate("compute_75", NOWHERE | {"DPA2_CUDA_KERNELS": "/nowhere/kernels.bin"})
    assert status == 1
    assert "DPA2_CUDA_KERNELS names /nowhere/kernels.bin, which cannot be read" in line_of(output, "thrown")


def damage(_: Path, package: Path) -> None:
    content = bytearray(package.read_bytes())
    content[-1] ^= 1
    package.write_bytes(content)


def cut(_: Path, package: Path) -> None:
    package.write_bytes(package.read_bytes()[:50])


def change_source(folder: Path, _: Path) -> None:
    source = folder / "cuda/small.cu"
    source.write_text(source.read_text() + "\n// another\n")


def change_header(folder: Path, _: Path) -> None:
    header = folder / "math/activation.hpp"
    header.write_text(header.read_text() + "\n// another\n")


@pytest.mark.parametrize(
    ("architectures", "edit", "version", "why"),
    [
        ("", None, 13000, "this build of dpa2 brings no compiled kernels"),
        ("compute_80", None, 13000, "has no kernels of small.cu -Dreal=double for compute capability 7.5"),
        ("sm_80", None, 13000, "has no kernels of small.cu"),
        ("compute_75", damage, 13000, "is damaged: small.cu -Dreal=double for compute_75 is not what was written"),
        ("compute_75", cut, 13000, "is damaged"),
        ("compute_75", change_source, 13000, "was made of other sources for small.cu -Dreal=double"),
        ("compute_75", change_header, 13000, "was made of other sources for small.cu -Dreal=double"),
        (
            "compute_75",
            None,
            12000,
            "loading the packaged kernels of small.cu for compute_75: CUDA_ERROR_UNSUPPORTED_PTX",
        ),
    ],
)
def test_what_cannot_be_used_is_compiled(evaluate: Any, architectures: str, edit: Any, version: int, why: str) -> None:
    """Where there is no compiler either, the error says both."""
    status, output, log = evaluate(architectures, {"DPA2_EMULATED_VERSION": str(version)}, edit)
    assert status == 0, output
    assert log.counts["modules"] == 1
    status, output, _ = evaluate("", {"DPA2_EMULATED_VERSION": str(version)} | NOWHERE)
    assert status == 1
    thrown = line_of(output, "thrown")
    assert "kernels are compiled by NVRTC, which cannot be loaded" in thrown
    assert "pip install nvidia-cuda-nvrtc" in thrown
    assert "They are compiled because " in thrown
    assert why in thrown


def test_machine_code_goes_before_ptx(evaluate: Any) -> None:
    """So that a driver which refuses PTX does not matter."""
    old = {"DPA2_EMULATED_VERSION": "12000"}
    status, output, log = evaluate("compute_75,sm_75", NOWHERE | old)
    assert status == 0, output
    assert log.counts["modules"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm_80 small.cu real\n", "'real' is no name=value"),
        ("sm_80\n", "a line without a source"),
        ("sm_80 none.cu real=float\n", "none.cu cannot be read"),
        ("sm_80 small.cu real=float MISTAKE=1\n", "this is a mistake"),
    ],
)
def test_lists_that_are_wrong(tool: Path, sources: Path, tmp_path: Path, text: str, expected: str) -> None:
    status, output = make(tool, sources, text, tmp_path / "kernels.bin")
    assert status == 1
    assert expected in output
    assert not (tmp_path / "kernels.bin").exists()
    assert start([tool], 60)[0] == 2


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("gpu_kernels")


def test_the_list_is_that_of_the_published_models(bench: Any) -> None:
    """A kernel that is compiled with other names than before changes it: bench/gpu_kernels.py --update."""
    found = bench.wanted()
    assert bench.LIST.read_text(encoding="utf-8") == bench.lines(found)
    assert len(found) > 60
    assert {source for source, _ in found} == {p.name for p in build.SOURCES.glob("cuda/*.cu")} - bench.NOT_PACKAGED
    for data in bench.published().values():
        mine = set(bench.modules(data))
        assert len(mine) > 20
        assert mine <= set(found)


@pytest.fixture
def real_package(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small sources by NVIDIA's compiler, as the package of this process."""
    needs.nvidia_compilers()
    package = tmp_path / "kernels.bin"
    text = "compute_75,compute_80,sm_80 g2_embed.cu real=float ACT=1\nsm_90 lists.cu real=double\n"
    status, output = make(tool, build.SOURCES, text, package, nvidia.path_of_nvrtc())
    assert status == 0, output
    assert "4 images" in output
    monkeypatch.setenv("DPA2_CUDA_SOURCES", str(build.SOURCES))
    monkeypatch.setenv("DPA2_CUDA_KERNELS", str(package))
    return package


def test_kernels_of_nvidias_compiler(real_package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PTX is assembled for later GPUs too; what is there is said."""
    rule = Path(f"{real_package}.d").read_text().split()
    assert rule[0] == f"{real_package}:"
    assert {f"{build.SOURCES}/cuda/g2_embed.cu", f"{build.SOURCES}/cuda/portable.cuh"} <= set(rule)
    images = kernel_package()[2]
    assert [image[3] for image in images] == [True] * 4
    for k, (architecture, source, _, _) in enumerate(images):
        content = packaged_image(k)
        if architecture.startswith("sm_"):
            assert content.startswith(b"\x7fELF")
            continue
        text = content.decode()
        assert f".target {architecture.replace('compute', 'sm')}\n" in text
        for device in ("sm_75", "sm_80", "sm_90", "sm_100"):
            if int(device[3:]) >= int(architecture[8:]):
                machine = nvidia.assemble(text, device)
                named = build.kernels_of((build.SOURCES / "cuda" / source).read_text())
                assert named.keys() <= set(re.findall(r"\.text\.(\w+):", nvidia.disassemble(machine)))
    main(["info"])
    assert (
        f"GPU kernels    2 modules of NVRTC {kernel_package()[1]} in the package, as PTX for compute capability "
        "7.5, 8.0 and later, as machine code for 8.0, 9.0\n"
    ) in capsys.readouterr().out


def test_what_is_said_without_a_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DPA2_CUDA_SOURCES", str(build.SOURCES))
    monkeypatch.setenv("DPA2_CUDA_KERNELS", "off")
    main(["info", "--json"])
    found = json.loads(capsys.readouterr().out)["gpu_kernels"]
    assert (found["modules"], found["missing"]) == (0, "DPA2_CUDA_KERNELS is off")
    assert str(packaged_kernels()).startswith(
        "none in the package (DPA2_CUDA_KERNELS is off): compiled by NVRTC or CuPy"
    )
    stale = PackagedKernels("k", "12.0", [], [], 0, 3, "")
    assert "those of the package are of other sources" in str(stale)


@pytest.mark.slow
def test_the_package_of_this_installation(bench: Any) -> None:
    """If there is one: it has all of the list, and the assembler takes its PTX for every GPU that it is for."""
    found = packaged_kernels()
    if not found.path:
        pytest.skip(f"NO PACKAGE WAS LOOKED AT: {found.missing}")
    needs.nvidia_compilers()
    images = {(a, s, tuple(d)): k for k, (a, s, d, fresh) in enumerate(kernel_package()[2]) if fresh}
    assert found.stale == 0
    assert {(a, *module) for module in bench.wanted() for a in (*bench.PTX, *bench.MACHINE_CODE)} == set(images)
    for (architecture, source, _), k in images.items():
        if architecture.startswith("compute_"):
            devices = [architecture.replace("compute", "sm"), *(["sm_100"] if architecture == bench.PTX[-1] else [])]
            for device in devices:
                machine = nvidia.assemble(packaged_image(k).decode(), device)
                assert machine.startswith(b"\x7fELF"), (source, device)
    assert Path(found.path).stat().st_size < 15e6
