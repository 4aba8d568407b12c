"""Which kernels are compiled into the package (meson's option `kernels`), and for what: src/gpu/packaged_kernels.txt.

    python bench/gpu_kernels.py
    python bench/gpu_kernels.py --update

A kernel is compiled with names that depend on the model: the precision, the activation function, how many warps share
a block. The list has those of deepmd-kit's published inputs of water and of the packaged model, in both precisions,
with and without series, and with tables; then those of other kinds and of deepmd-kit's default options. All have tanh.
PTX is for a compute capability and all later ones; machine code, which the driver need not translate, for one. No GPU
is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from dpa2.compress import compress
from dpa2.embedded import default_model_path
from dpa2.files import ModelData, read
from gpu_cases import FORMER, MODELS, PRECISIONS, PUBLISHED, model_of_water
from kind_models import kind

LIST = ROOT / "src" / "gpu" / "packaged_kernels.txt"
PTX = ("compute_75", "compute_80", "compute_90")
MACHINE_CODE = ("sm_80", "sm_90")
NOT_PACKAGED = {"tensor_check.cu"}  # asked for by an option
MOST_WARPS = 4  # of a block, series_most_warps of src/cuda/series.hpp
HEAD = f"""\
# Kernels that are compiled into the package: written by bench/{Path(__file__).name}, read by package_kernels.cpp.
"""

#: source and defines
Module = tuple[str, tuple[tuple[str, str], ...]]


def published() -> dict[str, ModelData]:
    """Those of deepmd-kit's examples of water, and the packaged model."""
    with default_model_path() as path:
        packaged = read(path)
    no_attention = FORMER | {"nlayers": 3, "update_g2_has_attn": False}
    compressible = model_of_water(PUBLISHED | {"tebd_input_mode": "strip"}, no_attention)
    medium = model_of_water(PUBLISHED, FORMER)
    return {
        "small": model_of_water(PUBLISHED, no_attention),
        "medium": medium,
        "large": model_of_water(PUBLISHED, FORMER | {"nlayers": 12}),
        "compressible": compressible,
        "compressed": compress(compressible)[0],
        "compressed medium": compress(medium)[0],
        "packaged": packaged,
    }


def others() -> dict[str, ModelData]:
    """What else is likely: other kinds, a table of pairs, deepmd-kit's default options, h2 that changes."""
    fitted = {
        name: model_of_water(PUBLISHED, FORMER, {"type": name} | more)
        for name, more in {"dipole": {}, "polar": {}, "dos": {}, "property": {}}.items()
    }
    table = kind("zbl")
    return {
        **fitted,
        "zbl": ModelData(table.config, table.weights),
        **{name: MODELS[name].make() for name in ("defaults", "h2")},
    }


def modules(data: ModelData) -> Iterator[Module]:
    """What a model compiles, in both precisions, with series and without; some several times."""
    from dpa2._native import NativeGpuPlan

    before = os.environ.get("DPA2_SERIES")
    try:
        for series in ("on", "off"):
            os.environ["DPA2_SERIES"] = series
            for precision in PRECISIONS.values():
                plan = NativeGpuPlan(json.dumps(data.config), data.weights, precision, data.checked)
                for source, _, defines in plan.kernels():
                    yield source, tuple(defines)
    finally:
        os.environ.pop("DPA2_SERIES")
        if before is not None:
            os.environ["DPA2_SERIES"] = before


def any_warps(module: Module) -> set[Module]:
    """How many warps the three-body block has depends on the weights, for each interval of the series takes memory."""
    source, defines = module
    if source != "three_body_series.cu":
        return {module}
    return {
        (source, tuple((name, str(warps)) if name == "WARPS" else (name, value) for name, value in defines))
        for warps in range(1, MOST_WARPS + 1)
    }


def wanted() -> list[Module]:
    """Everything that the list has."""
    found: set[Module] = set()
    for data in published().values():
        found |= {each for module in modules(data) for each in any_warps(module)}
    for name, data in others().items():
        more = {each for module in modules(data) for each in any_warps(module)}
        found |= {module for module in more if name != "zbl" or module[0] == "pair_table.cu"}
    # what is loaded when it is first needed, and not with a model: nothing but the precision goes into it
    late = {path.name for path in (ROOT / "src/cuda").glob("*.cu")} - {source for source, _ in found} - NOT_PACKAGED
    found |= {(source, (("real", precision),)) for source in late for precision in PRECISIONS}
    return sorted(found)


def lines(found: list[Module]) -> str:
    """The list as it is written."""
    architectures = ",".join((*PTX, *MACHINE_CODE))
    return HEAD + "".join(
        " ".join([architectures, source, *(f"{name}={value}" for name, value in defines)]) + "\n"
        for source, defines in found
    )


def main(arguments: list[str] | None = None) -> None:
    """Print or write the list."""
    parser = argparse.ArgumentParser(description="The kernels that are compiled into the package.")
    parser.add_argument("--update", action="store_true", help=f"write {LIST.relative_to(ROOT)}")
    args: Any = parser.parse_args(arguments)
    text = lines(wanted())
    if args.update:
        LIST.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
