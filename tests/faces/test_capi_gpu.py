"""The C interface on the emulated GPU: a program without Python has the numbers of the CPU; errors."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from c_library import INVALID_INPUT, OK, STRICT, call, message, output_of, package_flags
from c_library import load as load_on_cpu
from cuda_emulator.driver import environment
from dpa2.files import ModelData, write_safetensors
from gpu_models import emulate
from helpers import case_system, golden, relative

pytestmark = [needs.library, needs.c_compiler]

PROGRAM = r"""
#include <dpa2.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, dpa2_last_error());
  exit(1);
}

static void print(const char *name, const double *numbers, int count) {
  printf("%s", name);
  for (int k = 0; k < count; ++k) printf(" %.17g", numbers[k]);
  printf("\n");
}

int main(int argc, char **argv) {
  dpa2_model *model;
  dpa2_domain *domain;
  int natoms, periodic;
  double box[9], energy, *coords, *weights, *rows, *parameters[2] = {NULL, NULL};
  if (argc != 4 || scanf("%d %d", &natoms, &periodic) != 2) return 2;
  if (dpa2_model_load_device(argv[1], argv[2], 0.0, argv[3], &model) != DPA2_OK) fail("load");
  fprintf(stderr, "%s %s\n", dpa2_model_device(model), dpa2_model_precision(model));
  coords = calloc(3 * (size_t)natoms + 1, sizeof *coords);
  weights = calloc((size_t)natoms + 1, sizeof *weights);
  int *types = calloc((size_t)natoms + 1, sizeof *types);
  for (int k = 0; k < 9; ++k) if (scanf("%lf", box + k) != 1) return 2;
  for (int i = 0; i < natoms; ++i) {
    if (scanf("%d %lf %lf %lf", types + i, coords + 3 * i, coords + 3 * i + 1, coords + 3 * i + 2) != 4) return 2;
    weights[i] = 1.0 + i;
  }
  const int sizes[2] = {dpa2_model_fparam_dim(model), natoms * dpa2_model_aparam_dim(model)};
  for (int p = 0; p < 2; ++p) {
    parameters[p] = calloc((size_t)sizes[p] + 1, sizeof **parameters);
    for (int k = 0; k < sizes[p]; ++k) if (scanf("%lf", parameters[p] + k) != 1) return 2;
  }
  for (int repeat = 0; repeat < 2; ++repeat)
    for (int k = 0; k < dpa2_model_noutputs(model); ++k) {
      const dpa2_output *output = dpa2_model_output(model, k);
      const int count = (output->per_atom ? natoms : 1) * output->size;
      const char *names[2] = {output->name, "force"};
      double *arrays[2] = {calloc((size_t)count + 1, sizeof(double)), calloc(3 * (size_t)natoms + 1, sizeof(double))};
      const int both = names[0][0] == 'v' || names[0][5] == 'v'; /* virials go with forces */
      if (dpa2_compute(model, natoms, coords, types, periodic ? box : NULL, NULL, parameters[0], parameters[1], 1,
                       both ? 2 : 1, names, arrays) != DPA2_OK)
        fail(output->name);
      print(output->name, arrays[0], count);
      free(arrays[0]);
      free(arrays[1]);
    }
  const char *weighted[1] = {"atom_energy"};
  const double *given[1] = {weights};
  rows = calloc(3 * (size_t)natoms + 10, sizeof *rows);
  if (dpa2_vjp(model, natoms, coords, types, periodic ? box : NULL, NULL, parameters[0], parameters[1], 1, 1, weighted,
               given, rows + 9, rows) != DPA2_OK)
    fail("vjp");
  print("vjp", rows, 3 * natoms + 9);
  printf("memory %d\n", dpa2_model_memory_estimate(model, 10, 30.0, 0, 1) < 0);
  if (dpa2_domain_create(&domain) != DPA2_OK) fail("domain");
  const int no_neighbors = 0;
  const int *const nobody = &no_neighbors;
  if (dpa2_domain_set_atoms(domain, 1, 1, coords, NULL, &no_neighbors, &nobody, -1) != DPA2_OK) fail("atoms");
  printf("domain %d\n", dpa2_domain_evaluate(domain, model, types, types[0], parameters[0], parameters[1], NULL, 1,
                                             &energy, NULL, NULL, NULL, NULL));
  dpa2_domain_free(domain);
  dpa2_model_free(model);
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu_program")
    source = folder / "program.c"
    source.write_text(PROGRAM)
    output_of(["cc", "-std=c11", *STRICT, source, *package_flags(), "-o", folder / "program"])
    return folder / "program"


def model_file(name: str, folder: Path) -> Path:
    path = folder / f"{name}.safetensors"
    write_safetensors(path, ModelData(golden(name).config, golden(name).weights))
    return path


def run(program: Path, words: list[Any], name: str, system: str, **variables: str) -> tuple[dict[str, Any], str]:
    """Numbers by name, those of the last time; and what the model says that it is."""
    s = case_system(name, system)
    box = np.zeros(9) if s.box is None else np.asarray(s.box[0]).ravel()
    rows = [*box, *(x for t, r in zip(s.atype, s.coord[0], strict=True) for x in (int(t), *r))]
    rows += [float(x) for given in (s.fparam, s.aparam) if given is not None for x in np.ravel(given[0])]
    text = f"{len(s.atype)} {int(s.box is not None)} " + " ".join(
        repr(x if isinstance(x, int) else float(x)) for x in rows
    )
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    done = subprocess.run([program, *words], input=text, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {word: np.array([float(x) for x in row]) for word, *row in lines}, done.stderr.strip()


CASES = [("base", "bulk", "float64", 1e-11), ("base", "bulk", "float32", 2e-4),
         pytest.param("fparam_aparam", None, "float64", 1e-11, marks=pytest.mark.slow)]  # fmt: skip


@pytest.mark.parametrize(("name", "system", "precision", "bound"), CASES)
def test_a_program_without_python_has_the_numbers_of_the_cpu(
    program: Path, name: str, system: str | None, precision: str, bound: float, tmp_path: Path
) -> None:
    system = system or golden(name).systems[0].name
    path = model_file(name, tmp_path)
    wanted, _ = run(program, [path, precision, "cpu"], name, system)
    found, says = run(program, [path, precision, "cuda"], name, system, **environment())
    assert says == f"cuda:0 {precision}"
    assert found.keys() == wanted.keys() > {"energy", "force", "atom_virial", "descriptor", "rot_mat", "vjp"}
    for quantity in found.keys() - {"memory", "domain"}:
        assert relative(found[quantity], wanted[quantity]) <= bound, quantity
    assert (wanted["memory"], wanted["domain"]) == (0, OK)
    assert (found["memory"], found["domain"]) == (0, OK)


def test_the_program_is_free_of_python(program: Path, tmp_path: Path) -> None:
    """What the process has mapped at its end, with the emulated libraries loaded."""
    preload = tmp_path / "maps.c"
    preload.write_text(
        "#include <stdio.h>\n__attribute__((destructor)) static void maps(void) { char line[4096];\n"
        'FILE *f = fopen("/proc/self/maps", "r"); while (f && fgets(line, sizeof line, f)) fputs(line, stderr); }\n'
    )
    output_of(["cc", "-shared", "-fPIC", preload, "-o", tmp_path / "maps.so"])
    path, variables = model_file("base", tmp_path), environment()
    says = run(program, [path, "float32", "cuda"], "base", "bulk", LD_PRELOAD=str(tmp_path / "maps.so"), **variables)[1]
    assert Path(variables["DPA2_CUDA_DRIVER"]).name in says
    assert "libpython" not in says


def place() -> np.ndarray:
    return np.zeros(1, dtype=np.uintp)


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "cuda:01", "cuda:1 ", "CUDA", "cuda:99999", "cpu:0"])
def test_names_of_devices(device: str, tmp_path: Path) -> None:
    model, path = place(), model_file("base", tmp_path)
    assert call("model_load_device", str(path).encode(), None, 0.0, device.encode(), model) == INVALID_INPUT
    assert message().startswith(f"device must be 'cpu', 'cuda' or 'cuda:N' with the number of a GPU, not '{device}'")
    assert model[0] == 0


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch)
    model, path = place(), model_file("base", tmp_path)
    assert call("model_load_device", str(path).encode(), None, 0.0, b"cuda:9", model) == INVALID_INPUT
    assert "CUDA device 9" in message()
    assert model[0] == 0


def test_models_of_the_cpu_say_so(tmp_path: Path) -> None:
    path = model_file("base", tmp_path)
    assert call("model_device", load_on_cpu(path).address) == b"cpu"
    assert call("model_device", None) is None
    for device in (b"cpu", None):
        model = place()
        assert call("model_load_device", str(path).encode(), b"float32", 1.0, device, model) == OK
        assert call("model_device", int(model[0])) == b"cpu"
        assert call("model_precision", int(model[0])) == b"float32"
        call("model_free", int(model[0]))


CPP = r"""
#include <dpa2.hpp>
#include <cstdio>

int main(int argc, char **argv) try {
  const dpa2::Model model(argv[1], "float64", 0.0, argv[argc - 1]);
  dpa2::Structure pair;
  pair.coords = {0.0, 0.0, 0.0, 0.96, 0.0, 0.0};
  pair.types = {0, 1};
  std::printf("%s %.17g\n", model.device().c_str(), model.evaluate(pair).energy);
} catch (const dpa2::Error &error) {
  std::printf("%d %s\n", error.status(), error.what());
}
"""


def test_cplusplus(tmp_path: Path) -> None:
    source, program, path = tmp_path / "program.cpp", tmp_path / "program", model_file("base", tmp_path)
    source.write_text(CPP)
    output_of(["c++", "-std=c++17", *STRICT, source, *package_flags(), "-o", program])
    answers = [output_of([program, path, device], **environment()).split() for device in ("cpu", "cuda")]
    assert [name for name, _ in answers] == ["cpu", "cuda:0"]
    assert float(answers[1][1]) == pytest.approx(float(answers[0][1]), rel=1e-11)
    assert output_of([program, path, "tpu"]).startswith(f"{INVALID_INPUT} device must be")
