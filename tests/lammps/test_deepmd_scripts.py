"""Input scripts of deepmd-kit, with ``pair_style deepmd``, and what happens where deepmd-kit is there as well."""

from __future__ import annotations

import os
import struct
import subprocess
from importlib import metadata
from pathlib import Path

import needs
import numpy as np
import pytest
from dpa2.files import write_safetensors
from dpa2.lammps import PLUGIN, discover, plugin_directory
from lammps_runs import (
    COEFF,
    Setup,
    answer,
    assert_python_engine,
    measure,
    model_data,
    prepare,
    refusal,
    run,
    succeed,
    systems,
)

SYSTEM = next(system for system in systems() if system.name == "triclinic")
NOTE = "This is the style deepmd of dpa2; that of deepmd-kit needs 'plugin unload pair deepmd'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    write_safetensors(tmp_path / "other.safetensors", model_data(seed=8))
    return tmp_path


def deepmd(words: str = "model.safetensors", *coeff: str) -> Setup:
    return Setup("triclinic", style=f"deepmd {words}", coeff=coeff or [COEFF])


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_scripts_run_as_they_are(folder: Path, ranks: int) -> None:
    """Types by position and by name, alone and in a hybrid style, with several models and the keywords of both."""
    models = "model.safetensors other.safetensors"
    script = [*deepmd("model.safetensors", "pair_coeff * *").lines(), *measure("bare")]
    script += [*deepmd().lines(), *measure("named")]
    hybrid = Setup("triclinic", style="hybrid/overlay deepmd model.safetensors zero 2.0")
    hybrid.coeff = ["pair_coeff * * deepmd O H C", "pair_coeff * * zero"]
    script += [*hybrid.lines(), *measure("hybrid")]
    keywords = "out_freq 1 out_file {} atomic relative 0.5 relative_v 0.5"
    for style in ("deepmd", "dpa2"):
        words = f"{style} {models} {keywords.format(style)}"
        script += [*Setup("triclinic", style=words).lines(), "run 0"]
    said = succeed(folder, script, ranks)
    assert "DPA-2 interatomic potentials, as deepmd" in said
    for name in ("bare", "named", "hybrid"):
        assert_python_engine(answer(folder, name), "triclinic")
    ours, theirs = ((folder / name).read_text(encoding="ascii") for name in ("dpa2", "deepmd"))
    assert ours == theirs
    assert len(theirs.splitlines()) == 2
    header = "# step max_devi_v min_devi_v avg_devi_v max_devi_f min_devi_f avg_devi_f atm_devi_f(N)"
    assert " ".join(theirs.splitlines()[0].split()) == header


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "pair_style deepmd needs a model file: pair_style deepmd model.safetensors"),
        ("graph.pb", f"Convert it once: dpa2 convert graph.pb graph.safetensors. {NOTE}"),
        ("graph", f"'graph' is no model file (.safetensors) and no keyword. {NOTE}"),
        ("model.safetensors ttm 1", "the keyword ttm of deepmd-kit is not known here: temperatures of electrons reach"),
        ("model.safetensors virtual_len 0.4", "the keyword virtual_len of deepmd-kit is not known here"),
        ("model.safetensors center_group all", "the keyword center_group of deepmd-kit is not known here: the whole"),
        ("model.safetensors threads 1 again", "pair_style deepmd: unknown keyword 'again'"),
    ],
)
def test_refusals(folder: Path, words: str, message: str) -> None:
    assert message in refusal(folder, deepmd(words, "pair_coeff * *").lines())


def test_restart_files(folder: Path) -> None:
    """Ours say what they need; deepmd-kit's hold nothing of the style, and scripts give it again."""
    succeed(folder, [*deepmd().lines(), "run 0", "write_restart ours", "clear", "read_restart ours", *measure("ours")])
    assert_python_engine(answer(folder, "ours"), "triclinic")
    content = (folder / "ours").read_bytes()
    start = content.index(struct.pack("<i", 0x32617064), content.index(b"deepmd"))
    end = start + 4  # behind the mark

    def number(place: int) -> int:
        return int(struct.unpack("<i", content[place : place + 4])[0])

    end += 4 + number(end)  # words of the pair_style line
    assert number(end + 4) == 1  # behind a width: there was a pair_coeff
    end += 12 + number(end + 8) + 8 * 3 * 3  # elements, and factors of pairs of types
    (folder / "theirs").write_bytes(content[:start] + content[end:])
    succeed(folder, ["read_restart theirs", *deepmd().lines()[-2:], *measure("theirs")])
    assert_python_engine(answer(folder, "theirs"), "triclinic")
    assert "pair_style deepmd has no model: give the pair_style line again" in refusal(
        folder, ["read_restart theirs", COEFF, "run 0"]
    )


def test_the_name_is_given_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = deepmd().lines()
    unknown = "Unrecognized pair style 'deepmd'"
    assert unknown in refusal(folder, ["plugin unload pair deepmd", *start[1:]])
    monkeypatch.setenv("DPA2_DEEPMD_STYLES", "off")
    assert unknown in refusal(folder, start)
    succeed(folder, [*Setup("triclinic").lines(), "run 0"])


SOURCE = """
#include <lammps/error.h>
#include <lammps/lammps.h>
#include <lammps/pair.h>
using namespace LAMMPS_NS;
static Pair* create(LAMMPS* lmp) { lmp->error->all(FLERR, "this is the other deepmd"); }
struct Plugin { const char *version, *style, *name, *info, *author; void *creator, *handle; };
extern "C" void lammpsplugin_init(void* lmp, void* handle, void* regfunc) {
  Plugin plugin{static_cast<LAMMPS*>(lmp)->version, "pair", "deepmd", "other", "others", (void*)create, handle};
  reinterpret_cast<void (*)(Plugin*, void*)>(regfunc)(&plugin, lmp);
}
"""


@pytest.mark.slow
@needs.compiler
def test_beside_another_plugin_of_that_name(folder: Path) -> None:
    """Who is loaded first has the name, until it is unloaded."""
    lammps = discover.find()
    (folder / "others").mkdir()
    (folder / "other.cpp").write_text(SOURCE, encoding="ascii")
    include = [f"-I{lammps.headers.parent}", *([f"-I{lammps.mpi}"] if lammps.mpi else [])]
    defines = [f"-D{define}" for define in lammps.defines]
    other = folder / "others" / "otherplugin.so"
    command = ["c++", "-std=c++17", "-fPIC", "-shared", *defines, *include, str(folder / "other.cpp"), "-o", str(other)]
    subprocess.run(command, check=True, capture_output=True)
    program = Path(str(metadata.distribution("lammps").locate_file("lammps/lmp")))

    def said(folders: list[Path | str], *before: str) -> str:
        (folder / "in.both").write_text("\n".join([*before, *deepmd().lines()[1:], "run 0"]), encoding="ascii")
        env = {**os.environ, "LAMMPS_PLUGIN_PATH": os.pathsep.join(map(str, folders)), "OMP_NUM_THREADS": "1"}
        env["LD_LIBRARY_PATH"] = str(lammps.mpi.parent / "lib") if lammps.mpi else ""
        arguments = [program, "-in", "in.both", "-log", "none"]
        done = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    ours = plugin_directory()
    assert "this is the other deepmd" in said([other.parent, ours])
    assert "this is the other deepmd" not in said([ours, other.parent])
    assert "Loop time" in said([ours, other.parent])
    assert "this is the other deepmd" in said([ours], "plugin unload pair deepmd", f"plugin load {other}")
    again = said([other.parent], "plugin unload pair deepmd", f"plugin load {Path(ours) / PLUGIN}")
    assert "Loop time" in again


def test_without_a_pair_coeff(folder: Path) -> None:
    done = run(folder, [*deepmd().lines()[:-1], "run 0"])
    assert done.returncode != 0
    assert np.any(["pair_coeff" in line or "coeffs are not set" in line for line in done.stdout.splitlines()])
