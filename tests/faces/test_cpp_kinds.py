"""Outputs by name and gradients through dpa2.hpp, for models of every kind: a program built against the package."""

from __future__ import annotations

import subprocess
from pathlib import Path

import needs
import numpy as np
import pytest
from c_library import STRICT, output_of, package_flags
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import relative
from kind_models import frames, kind, kind_model, system_of

pytestmark = [needs.library, pytest.mark.slow]  # a program is compiled

#: reads a structure from its arguments, and prints every output that no other call is for, and the gradient
PROGRAM = r"""
#include <cstdio>
#include <cstdlib>
#include <string>

#include <dpa2.hpp>

namespace {

void print(const std::string& name, const double* values, std::size_t count) {
  std::printf("%s", name.c_str());
  for (std::size_t k = 0; k < count; ++k) std::printf(" %.17g", values[k]);
  std::printf("\n");
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const dpa2::Model model(arguments[1]);
    dpa2::Structure s;
    dpa2::Cell cell;
    int next = 3;
    const auto number = [&] { return next < count ? std::atof(arguments[next++]) : 0.0; };
    s.types.resize(static_cast<std::size_t>(std::atoi(arguments[2])));
    for (double& value : cell.rows) value = number();
    s.cell = cell;
    for (int& type : s.types) type = static_cast<int>(number());
    for (std::size_t k = 0; k < 3 * s.types.size(); ++k) s.coords.push_back(number());
    for (int k = 0; k < model.fparam_dim(); ++k) s.fparam.push_back(number());
    const std::size_t of_atoms = s.types.size() * static_cast<std::size_t>(model.aparam_dim());
    for (std::size_t k = 0; k < of_atoms; ++k) s.aparam.push_back(number());
    std::vector<std::string> names;
    std::string weighed;
    for (const dpa2::Output& output : model.outputs()) {
      names.push_back(output.name);
      if (output.per_atom && output.of.empty() && weighed.empty()) weighed = output.name;
    }
    const dpa2::Arrays found = model.compute(s, names, 2);
    for (const auto& [name, values] : found) print(name, values.data(), values.size());
    const dpa2::Gradient gradient = model.vjp(s, {{weighed, found.at(weighed)}});
    print("gradient", gradient.coords.data(), gradient.coords.size());
    print("strain", gradient.strain.data(), gradient.strain.size());
    std::printf("kind_%s\n", model.kind().c_str());
    if (model.kind() != "energy") static_cast<void>(model.evaluate(s));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    (folder / "kinds.cpp").write_text(PROGRAM)
    output_of(["c++", "-std=c++17", *STRICT, folder / "kinds.cpp", *package_flags(), "-o", folder / "kinds"])
    return folder / "kinds"


@pytest.mark.parametrize("name", ["dipole", "polar_full", "dos", "property", "population_double", "zbl", "linear"])
def test_outputs_by_name(name: str, program: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, ModelData(kind(name).config, kind(name).weights))
    frame, model = frames(system_of(name, "bulk"))[0], kind_model(name, device="cpu")
    numbers = [frame["box"], frame["types"], frame["coords"], *(frame[n] for n in ("fparam", "aparam") if n in frame)]
    words = [repr(float(value)) for rows in numbers for value in np.ravel(rows)]
    done = subprocess.run([program, path, str(len(frame["types"])), *words], capture_output=True, text=True)
    lines = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert lines.pop(f"kind_{model.kind}") == ""
    if model.kind == "energy":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert (done.returncode, done.stderr.partition(":")[0]) == (
            1, f"the model has no energy, it is of the kind '{model.kind}'",
        )  # fmt: skip
    found = {output: np.array(line.split(), dtype=float) for output, line in lines.items()}
    expected = model.evaluate(**frame, atomic=model.kind in ("energy", "dipole")).outputs
    del expected["mask"]
    rows = model.descriptor(frame["coords"], frame["types"], frame["box"], rot_mat=True)
    expected |= dict(zip(("descriptor", "rot_mat"), rows, strict=True))
    weighed = next(o.name for o in model.outputs if o.per_atom and o.of == "")
    slopes = model.vjp(
        frame["coords"], frame["types"], frame["box"], {weighed: expected[weighed]},
        fparam=frame.get("fparam"), aparam=frame.get("aparam"),
    )  # fmt: skip
    expected |= dict(zip(("gradient", "strain"), slopes, strict=True))
    assert found.keys() == expected.keys()
    for output, values in found.items():
        assert relative(values, np.ravel(expected[output])) <= SAME
