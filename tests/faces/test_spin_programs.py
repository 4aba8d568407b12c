"""Spin models through dpa2.hpp and through `dpa2.cython_api.ModelHandle`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from c_library import STRICT, output_of, package_flags
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import model_of, relative
from spin_cases import spin_frames, spin_golden

pytestmark = needs.library

#: reads a structure from its arguments, and prints every output
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>

#include <dpa2.hpp>

int main(int count, char** arguments) {
  try {
    const dpa2::Model model(arguments[1]);
    dpa2::Structure s;
    int next = 3;
    const auto number = [&] { return next < count ? std::atof(arguments[next++]) : 0.0; };
    s.types.resize(static_cast<std::size_t>(std::atoi(arguments[2])));
    for (int& type : s.types) type = static_cast<int>(number());
    for (std::size_t k = 0; k < 3 * s.types.size(); ++k) s.coords.push_back(number());
    for (std::size_t k = 0; k < 3 * s.types.size(); ++k) s.spins.push_back(number());
    for (const auto& [name, values] : model.compute(s, {"energy", "force", "force_mag", "virial"})) {
      std::printf("%s", name.c_str());
      for (const double value : values) std::printf(" %.17g", value);
      std::printf("\n");
    }
    std::printf("scale %.17g\n", model.virtual_scale(2));
    s.spins.pop_back();
    static_cast<void>(model.compute(s, {"energy"}));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
"""


def native_file(folder: Path) -> Path:
    data = spin_golden("spin")
    write_safetensors(folder / "spin.safetensors", ModelData(data.config, data.weights))
    return folder / "spin.safetensors"


@pytest.mark.slow  # a program is compiled
def test_a_program_in_cpp(tmp_path: Path) -> None:
    (tmp_path / "spin.cpp").write_text(PROGRAM)
    output_of(["c++", "-std=c++17", *STRICT, tmp_path / "spin.cpp", *package_flags(), "-o", tmp_path / "spin"])
    frame = spin_frames("spin", "open")[0]
    words = [repr(float(value)) for key in ("types", "coords", "spin") for value in np.ravel(frame[key])]
    command = [tmp_path / "spin", native_file(tmp_path), str(len(frame["types"])), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "spins must have 27 numbers, not 26\n")
    found = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert found.pop("scale") == "0.5"
    expected = model_of(spin_golden("spin"), device="cpu").evaluate(**frame).outputs
    assert sorted(found) == ["energy", "force", "force_mag", "virial"]
    for name, line in found.items():
        assert relative(np.array(line.split(), dtype=float), np.ravel(expected[name])) <= SAME, name


def test_the_handle_for_cython(tmp_path: Path) -> None:
    from dpa2.cython_api import ModelHandle

    model, python = ModelHandle(native_file(tmp_path)), model_of(spin_golden("spin"), device="cpu")
    frame = spin_frames("spin", "bulk")[0]
    assert (model.kind, model.virtual_scale) == ("spin", (0.3, 0.0, 0.5))
    found, expected = model.compute(**frame), python.evaluate(**frame, atomic=True).outputs
    assert list(found) == ["energy", "atom_energy", "force", "force_mag", "virial", "atom_virial"]
    for name, rows in found.items():
        assert relative(rows, expected[name]) <= SAME, name
    with pytest.raises(dpa2.InputError, match="needs the spins of the atoms"):
        model.compute(frame["coords"], frame["types"])
    with pytest.raises(dpa2.InputError, match=r"spin must have shape \(14, 3\), got \(3,\)"):
        model.compute(frame["coords"], frame["types"], spin=[0.0, 0.0, 1.0])
    with pytest.raises(dpa2.InputError, match="dpa2_compute_spin"):
        model.evaluate(frame["coords"], frame["types"])
