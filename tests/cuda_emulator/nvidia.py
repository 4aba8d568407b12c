"""NVIDIA's compilers from PyPI, which need no GPU: source -> PTX -> machine code -> instructions."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from dpa2._native import kernel_options

from .build import SOURCES

NVRTC, LINKER, DISASSEMBLER = "nvidia-cuda-nvrtc", "nvidia-nvjitlink", "nvidia-cuda-nvdisasm"


def version(package: str) -> str:
    """Of an installed package, or ""."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def missing() -> str:
    """Which of the packages is not installed, or ""."""
    return next((package for package in (NVRTC, LINKER, DISASSEMBLER) if not version(package)), "")


def _library(package: str, *patterns: str) -> tuple[ctypes.CDLL, str]:
    """The last one of the libraries of a package, and its version; ImportError where it is not installed."""
    try:
        files, version = metadata.files(package) or [], metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"{package} is not installed") from error
    library = None
    for pattern in patterns:
        found = [str(file.locate()) for file in files if re.search(pattern, file.name) and "alt" not in file.name]
        if not found:
            raise ImportError(f"{package} {version} has no library for this system")
        library = ctypes.CDLL(found[0], mode=ctypes.RTLD_GLOBAL)
    assert library is not None
    return library, version


def path_of_nvrtc() -> str:
    """The library of the run-time compiler."""
    return next(str(f.locate()) for f in metadata.files(NVRTC) or [] if re.fullmatch(r"libnvrtc\.so\.\d+", f.name))


class Nvrtc:
    """NVIDIA's run-time compiler. Raises ImportError where the package is not installed."""

    def __init__(self) -> None:
        # First the library that the other one looks up by name only.
        found = _library(NVRTC, r"libnvrtc-builtins\.so\.[\d.]+$", r"libnvrtc\.so\.\d+$")
        self._library, self.version = found

    def compile(self, path: Path, options: list[str], result: str = "") -> tuple[str, bytes]:
        """The compiler's log for a source, and its "PTX" or "CUBIN"; RuntimeError with the log where it fails."""
        library, program, size = self._library, ctypes.c_void_p(), ctypes.c_size_t()
        if library.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None) != 0:
            raise RuntimeError(f"{path.name}: NVRTC takes no program")
        try:
            encoded = [option.encode() for option in options]
            status = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            text = log.value.decode(errors="replace")
            if status != 0:
                raise RuntimeError(f"{path.name} with {' '.join(options)}:\n{text}")
            if not result:
                return text, b""
            getattr(library, f"nvrtcGet{result}Size")(program, ctypes.byref(size))
            buffer = ctypes.create_string_buffer(size.value)
            getattr(library, f"nvrtcGet{result}")(program, buffer)
            return text, buffer.raw
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))


def options(defines: dict[str, str], folder: Path = SOURCES) -> list[str]:
    """What kernels below a folder are compiled with where they run, besides the architecture."""
    return kernel_options(list(defines.items()), str(folder))


def ptx(path: Path, defines: dict[str, str], architecture: str = "sm_90") -> str:
    """The PTX of a source below src/cuda, with the lines that instructions come from."""
    target = architecture.replace("sm", "compute")
    more = [f"-I{SOURCES}", f"-arch={target}", "-lineinfo"]
    return Nvrtc().compile(path, [*options(defines, path.parent.parent), *more], "PTX")[1].rstrip(b"\0").decode()


def assemble(text: str, architecture: str) -> bytes:
    """Machine code of PTX, with its lines."""
    library, _ = _library(LINKER, r"libnvJitLink\.so\.\d+$")
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [f"-arch={architecture}".encode(), b"-lineinfo"]
    data = text.encode()
    # The functions of nvJitLink carry the version of the interface in their names.
    prefix = next(p for p in (f"__nvJitLink{{}}_{v}" for v in _versions()) if hasattr(library, p.format("Create")))

    def call(name: str, *args: object) -> None:
        if getattr(library, prefix.format(name))(*args) != 0:
            getattr(library, prefix.format("GetErrorLogSize"))(handle, ctypes.byref(size))
            log = ctypes.create_string_buffer(max(1, size.value))
            getattr(library, prefix.format("GetErrorLog"))(handle, log)
            raise RuntimeError(f"nvJitLink, {name}: {log.value.decode(errors='replace')}")

    call("Create", ctypes.byref(handle), len(options), (ctypes.c_char_p * len(options))(*options))
    call("AddData", handle, 2, data, len(data) + 1, b"kernel.ptx")  # 2: PTX
    call("Complete", handle)
    call("GetLinkedCubinSize", handle, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    call("GetLinkedCubin", handle, buffer)
    call("Destroy", ctypes.byref(handle))
    return buffer.raw


def _versions() -> list[str]:
    return [f"{major}_{minor}" for major in (13, 12) for minor in range(12, -1, -1)]


def disassembler() -> str:
    """The path of nvdisasm; ImportError where it is not installed."""
    try:
        files = metadata.files(DISASSEMBLER) or []
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"{DISASSEMBLER} is not installed") from error
    return next(str(file.locate()) for file in files if file.name.startswith("nvdisasm"))


def disassemble(cubin: bytes) -> str:
    """The instructions of machine code, with the lines that they come from."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin + b"\0")  # some compilers leave out the last byte
        file.flush()
        command = [disassembler(), "-g", "-c", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"nvdisasm: {done.stderr[:2000]}")
    return done.stdout
