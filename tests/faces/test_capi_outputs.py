"""Outputs by name and gradients of weighted sums through the C interface; and programs of its first version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ctypes import c_char_p, c_void_p
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from c_library import (
    HEADER,
    INVALID_INPUT,
    STRICT,
    Handle,
    Parts,
    assert_ok,
    call,
    descriptions,
    doubles,
    load,
    message,
    named,
    new_domain,
    output_of,
    package_flags,
)
from cases import SAME
from dpa2.embedded import default_model_path
from dpa2.files import ModelData, write_safetensors
from gpu_models import emulate
from helpers import case_system, golden, model_of, relative
from pages import ROOT

pytestmark = needs.library

V1 = ROOT / "tests" / "faces" / "abi_1"


class Case:
    """A model and a frame of it, as Python and as C see them."""

    def __init__(self, name: str, folder: Path, where: str = "bulk", device: str | None = None) -> None:
        data, system = golden(name), case_system(name, where)
        path = folder / f"{name}.safetensors"
        if not path.exists():
            write_safetensors(path, ModelData(data.config, data.weights))
        self.model, self.python = load(path, device=device), model_of(data, device="cpu")
        rows = [None if a is None else a[0] for a in (system.box, system.fparam, system.aparam)]
        self.coords, self.types = system.coord[0], system.atype.astype(np.intc)
        self.box = None if rows[0] is None else rows[0].reshape(3, 3)
        self.parameters = {"fparam": rows[1], "aparam": rows[2]}

    @property
    def natoms(self) -> int:
        return len(self.types)

    def inputs(self, threads: int = 1) -> tuple[Any, ...]:
        given = (doubles(self.coords), self.types, doubles(self.box), None, *map(doubles, self.parameters.values()))
        return (self.model.address, self.natoms, *given, threads)

    def places(self, rows: Mapping[str, int]) -> dict[str, np.ndarray]:
        """NaN for the outputs of these names, which have so many rows."""
        shapes = {name: tuple(one.shape[: one.ndim]) for name, one in descriptions(self.model).items()}
        return {name: np.full((n, *shapes[name]), np.nan) for name, n in rows.items()}

    def expected(self) -> dict[str, np.ndarray]:
        found = self.python.evaluate(self.coords, self.types, self.box, **self.parameters, atomic=True).outputs
        rows, rotations = self.python.descriptor(self.coords, self.types, self.box, rot_mat=True)
        return {**found, "descriptor": rows, "rot_mat": rotations}

    def weights(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.natoms)
        rows = rng.normal(size=(self.natoms, self.python.descriptor_dim))
        return {"descriptor": rows, "atom_energy": rng.normal(size=self.natoms)}


def compute(case: Case, arrays: Mapping[Any, Any], threads: int = 1) -> int:
    return int(call("compute", *case.inputs(threads), *named(arrays)))


def vjp(case: Case, weights: Mapping[Any, Any], gradient: Any, strain: Any, threads: int = 1) -> int:
    return int(call("vjp", *case.inputs(threads), *named(weights), gradient, strain))


def domain_inputs(case: Case, parts: Parts, domain: Handle, threads: int = 1) -> tuple[Any, ...]:
    parameters = map(doubles, case.parameters.values())
    return (domain.address, case.model.address, parts.types, int(case.types[0]), *parameters, parts.exchange, threads)


def to_owners(parts: Parts, rows: np.ndarray) -> np.ndarray:
    np.add.at(rows, parts.owner[parts.nlocal :], rows[parts.nlocal :].copy())
    return rows[: parts.nlocal]


# ------------------------------------------------------------------------------------------------ whole systems


@pytest.mark.parametrize("name", ["base", "fparam_aparam"])
def test_a_model_says_what_it_computes(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    assert call("model_kind", case.model.address) == case.python.kind.encode()
    found = descriptions(case.model)
    assert list(found) == [o.name for o in case.python.outputs]
    for output in case.python.outputs:
        one = found[output.name]
        shape = tuple(one.shape[: one.ndim])
        assert (one.unit.decode(), shape, bool(one.per_atom)) == (output.unit, output.shape, output.per_atom)
        assert (one.reduction.decode(), one.of.decode()) == (output.reduction, output.of)
        assert one.size == np.prod(output.shape)
    assert [name for name, one in found.items() if one.ghosts] == ["force", "atom_virial"]
    for index in (-1, len(found), 2**31 - 1):
        assert call("model_output", case.model.address, index) is None


@pytest.mark.parametrize("where", ["bulk", "open"])
@pytest.mark.parametrize("name", ["base", "rough_strip", "fparam_aparam", "virtual_davg"])
def test_outputs_are_those_of_python(name: str, where: str, tmp_path: Path) -> None:
    """The same bits, all at once in any order, and every one that can be asked for by itself."""
    case = Case(name, tmp_path, where)
    expected = case.expected()
    rows = {one: case.natoms if d.per_atom else 1 for one, d in descriptions(case.model).items()}
    for order in (1, -1):
        arrays = case.places(dict(list(rows.items())[::order]))
        assert_ok(compute(case, arrays))
        for one, found in arrays.items():
            assert found.tobytes() == np.ascontiguousarray(expected[one]).tobytes(), one
    for one in ("energy", "atom_energy", "force", "descriptor", "rot_mat"):
        arrays = case.places({one: rows[one]})
        assert_ok(compute(case, arrays))
        assert arrays[one].tobytes() == np.ascontiguousarray(expected[one]).tobytes(), one


@pytest.mark.parametrize("name", ["base", "fparam_aparam", "virtual_davg"])
def test_gradients_are_those_of_python(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    weights = case.weights()
    for chosen in (weights, *({key: rows} for key, rows in weights.items())):
        gradient, strain = np.full((case.natoms, 3), np.nan), np.full((3, 3), np.nan)
        assert_ok(vjp(case, chosen, gradient, strain))
        expected = case.python.vjp(case.coords, case.types, case.box, chosen, **case.parameters)
        assert np.array_equal(gradient, expected[0])
        assert np.array_equal(strain, expected[1])
        gradient[:] = np.nan
        assert_ok(vjp(case, chosen, gradient, None, threads=2))
        assert relative(gradient, expected[0]) <= SAME


def test_parameters_are_for_energies_only(tmp_path: Path) -> None:
    case = Case("fparam_aparam", tmp_path)
    expected, weights = case.expected(), case.weights()
    case.parameters = {"fparam": None, "aparam": None}
    arrays = case.places({"descriptor": case.natoms})
    assert_ok(compute(case, arrays))
    assert np.array_equal(arrays["descriptor"], expected["descriptor"])
    gradient = np.empty((case.natoms, 3))
    assert_ok(vjp(case, {"descriptor": weights["descriptor"]}, gradient, None))
    for status in (compute(case, case.places({"energy": 1})), vjp(case, weights, gradient, None)):
        assert status == INVALID_INPUT
        assert "the model needs fparam (2 values per frame)" in message()


def test_warnings_come_with_results(tmp_path: Path) -> None:
    case = Case("binding_sel", tmp_path)
    assert_ok(compute(case, case.places({"energy": 1})))
    assert "only the nearest" in message("last_warning")
    assert_ok(vjp(case, {"atom_energy": np.ones(case.natoms)}, np.empty((case.natoms, 3)), None))
    assert "only the nearest" in message("last_warning")


# ------------------------------------------------------------------------------------------------ parts of systems


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a model is; the GPU is emulated."""
    if request.param == "cuda":
        emulate(monkeypatch)
    return str(request.param)


@pytest.mark.parametrize("name", ["base", "fparam_aparam", "virtual_davg"])
def test_ghosts(name: str, device: str, tmp_path: Path) -> None:
    """Images as ghosts give the numbers of the whole."""
    case, domain = Case(name, tmp_path, device=device), new_domain()
    expected = case.expected()
    layers = golden(name).config["descriptor"]["repformer"]["nlayers"]
    for threads in (1, 2):
        parts = Parts(case.coords, case.types, case.box, call("model_rcut", case.model.address) + 0.2)
        assert_ok(parts.set(domain))
        rows = {
            one: parts.nall if d.ghosts else parts.nlocal if d.per_atom else 1
            for one, d in descriptions(case.model).items()
        }
        arrays = case.places(rows)
        assert_ok(call("domain_compute", *domain_inputs(case, parts, domain, threads), *named(arrays)))
        for one in ("force", "atom_virial"):
            arrays[one] = to_owners(parts, arrays[one])
        for one, found in arrays.items():
            assert relative(found.reshape(expected[one].shape), expected[one]) <= 10 * SAME, one
        assert [kind for kind, _, _ in parts.calls] == ["forward"] * 2 * layers + ["reverse"] * layers

        weights = case.weights()
        for chosen in (weights, *({key: w} for key, w in weights.items())):
            parts.calls.clear()
            gradient, strain = np.full((parts.nall, 3), np.nan), np.full((3, 3), np.nan)
            inputs = domain_inputs(case, parts, domain, threads)
            assert_ok(call("domain_vjp", *inputs, *named(chosen), gradient, strain))
            whole = case.python.vjp(case.coords, case.types, case.box, chosen, **case.parameters)
            assert relative(to_owners(parts, gradient), whole[0]) <= 10 * SAME
            assert relative(strain, whole[1]) <= 10 * SAME
            assert [kind for kind, _, _ in parts.calls] == ["forward"] * layers + ["reverse"] * layers


def test_a_process_without_atoms_takes_part(device: str, tmp_path: Path) -> None:
    """NULL is an array where there is nothing to write, and the exchanges are those of the others."""
    case, domain = Case("base", tmp_path, device=device), new_domain()
    parts = Parts(np.zeros((0, 3)), np.zeros(0, dtype=int), None, 4.0)
    assert_ok(parts.set(domain))
    layers = golden("base").config["descriptor"]["repformer"]["nlayers"]
    energy, strain = np.full(1, np.nan), np.full((3, 3), np.nan)
    inputs = domain_inputs(case, parts, domain)
    assert_ok(call("domain_compute", *inputs, *named({"energy": energy, "force": None, "descriptor": None})))
    assert energy[0] == 0.0
    assert [kind for kind, _, _ in parts.calls] == ["forward"] * 2 * layers + ["reverse"] * layers
    parts.calls.clear()
    assert_ok(call("domain_vjp", *inputs, *named({"descriptor": None}), None, strain))
    assert not strain.any()
    assert [kind for kind, _, _ in parts.calls] == ["forward"] * layers + ["reverse"] * layers


# ------------------------------------------------------------------------------------------------ what is refused

ONE, FIVE, ROWS = np.zeros(1), np.zeros(99), np.zeros(9999)
OUTPUTS = [
    ({}, "there must be at least one of the outputs, not 0"),
    (
        {"energy": ONE, "dipole": ONE},
        "the model has no output 'dipole'; it has energy, atom_energy, force, virial, ",
    ),
    ({"": ONE}, "the model has no output ''"),
    ({None: ONE}, "name 0 of the outputs is NULL"),
    ({"energy": None}, "the array of the output 'energy' is NULL"),
    ({"energy": ONE, "force": None}, "the array of the output 'force' is NULL"),
    ({"energy": ONE, "virial": FIVE}, "virials are computed with forces only: 'force' is not among the outputs"),
    ({"atom_virial": ROWS}, "virials are computed with forces only: 'force' is not among the outputs"),
]
WEIGHTS = [
    ({}, "there must be at least one of the weights, not 0"),
    ({"energy": ONE}, "there is no gradient of 'energy'; weights may be those of atom_energy, descriptor, rot_mat"),
    ({"atom_energy": ROWS, None: ONE}, "name 1 of the weights is NULL"),
    ({"atom_energy": None}, "the array of weights of 'atom_energy' is NULL"),
    ({"atom_energy": np.full(99, np.nan)}, "number 0 of the weights of 'atom_energy' is not finite: nan"),
    (
        {"descriptor": np.where(np.arange(9999) == 13, np.inf, 0)},
        "number 13 of the weights of 'descriptor' is not",
    ),
]


def assert_refused(status: int, part: str) -> None:
    assert status == INVALID_INPUT
    assert part in message()


@pytest.mark.parametrize(("arrays", "part"), OUTPUTS, ids=range(len(OUTPUTS)))
def test_outputs_that_are_refused(arrays: dict[Any, Any], part: str, tmp_path: Path) -> None:
    case, domain = Case("base", tmp_path), new_domain()
    parts = Parts(case.coords, case.types, case.box, call("model_rcut", case.model.address))
    assert_ok(parts.set(domain))
    assert_refused(compute(case, arrays), part)
    assert_refused(call("domain_compute", *domain_inputs(case, parts, domain), *named(arrays)), part)
    assert parts.calls == []


@pytest.mark.parametrize(("weights", "part"), WEIGHTS, ids=range(len(WEIGHTS)))
def test_weights_that_are_refused(weights: dict[Any, Any], part: str, tmp_path: Path) -> None:
    case, domain = Case("base", tmp_path), new_domain()
    parts = Parts(case.coords, case.types, case.box, call("model_rcut", case.model.address))
    assert_ok(parts.set(domain))
    gradient = np.empty((parts.nall, 3))
    assert_refused(vjp(case, weights, gradient, None), part)
    assert_refused(call("domain_vjp", *domain_inputs(case, parts, domain), *named(weights), gradient, None), part)
    assert parts.calls == []


def test_null_in_other_places(tmp_path: Path) -> None:
    case = Case("base", tmp_path)
    outputs, gradient = named({"energy": ONE}), np.empty((case.natoms, 3))
    weights = named({"atom_energy": np.ones(case.natoms)})
    for name, last, what in (("compute", outputs, ()), ("vjp", weights, (gradient, None))):
        assert_refused(call(name, None, *case.inputs()[1:], *last, *what), "model is NULL")
        assert_refused(call(name, *case.inputs(), last[0], None, last[2], *what), "names is NULL")
        arrays = "arrays" if name == "compute" else "weights"
        assert_refused(call(name, *case.inputs(), last[0], last[1], None, *what), f"{arrays} is NULL")
        assert_refused(call(name, *case.inputs(), -3, *last[1:], *what), "at least one of the")
        inputs = (None, case.model.address, case.types, 0, None, None, None, 1)
        assert_refused(call(f"domain_{name}", *inputs, *last, *what), "domain is NULL")
    assert_refused(call("vjp", *case.inputs(), *weights, None, None), "gradient is NULL")
    twice = (2, (c_char_p * 2)(b"energy", b"energy"), (c_void_p * 2)(ONE.ctypes.data, ONE.ctypes.data))
    assert_refused(call("compute", *case.inputs(), *twice), "'energy' is named twice among the outputs")
    assert_ok(call("compute", *case.inputs(), *outputs))


def test_numbers_out_of_range(tmp_path: Path) -> None:
    data = golden("base")
    weights = data.weights | {"out_bias": np.full_like(data.weights["out_bias"], 1e308)}
    write_safetensors(tmp_path / "base.safetensors", ModelData(data.config, weights))
    case = Case("base", tmp_path)
    assert_refused(compute(case, case.places({"energy": 1})), "energy is not a finite number: atoms are so close")
    large, gradient = np.full((case.natoms, 12), 1.7e308), np.empty((case.natoms, 3))
    part = "a gradient is not a finite number: atoms are so close to each other, or weights or parameters so large"
    assert_refused(vjp(case, {"descriptor": large}, gradient, None), part)


def test_no_atoms_have_no_parameters(tmp_path: Path) -> None:
    """As a domain, a structure without atoms needs no array of atomic parameters."""
    case, energy, strain = Case("fparam_aparam", tmp_path), np.ones(1), np.ones((3, 3))
    dim = call("model_fparam_dim", case.model.address)
    assert dim > 0
    assert call("model_aparam_dim", case.model.address) > 0
    inputs = (case.model.address, 0, None, None, None, None, np.zeros(dim), None, 1)
    assert_ok(call("compute", *inputs, *named({"energy": energy, "force": None})))
    assert energy[0] == 0.0
    assert_ok(call("vjp", *inputs, *named({"atom_energy": None}), None, strain))
    assert not strain.any()


# ------------------------------------------------------------------------------------------------ programs of before


@needs.c_compiler
def test_a_program_of_version_1(tmp_path: Path) -> None:
    """Compiled with the header of then, linked with the library of today."""
    flags = [flag for flag in package_flags() if flag != f"-I{HEADER.parent}"]
    assert len(flags) < len(package_flags())
    program = tmp_path / "program"
    output_of(["cc", "-std=c11", *STRICT, f"-I{V1}", V1 / "program.c", *flags, "-o", program])
    with default_model_path() as path:
        printed = output_of([program, path]).split()
        model = dpa2.load(path, precision="float64", threads=1)
    coords, types = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]), [0, 1, 1]
    expected = model.evaluate(coords, types)
    rows = (expected.energy, expected.energy, expected.forces, expected.virial, model.descriptor(coords, types)[0])
    assert printed[0] == "1"
    np.testing.assert_array_equal([float(word) for word in printed[1:]], np.concatenate([np.ravel(r) for r in rows]))


def test_what_version_1_declares_is_still_declared() -> None:
    """Word for word, comments and the names of parameters apart; enumerations may have grown."""

    def declarations(text: str) -> set[str]:
        plain = re.sub(r"/\*.*?\*/|^#.*?$|extern \"C\" {", " ", text, flags=re.DOTALL | re.MULTILINE)
        parts = re.findall(r"(?:typedef|DPA2_API)[^;{]*(?:\{[^}]*\}[^;]*)?;", plain)
        found = set()
        for part in parts:
            if enum := re.match(r"typedef enum (\w+) \{(.*)\}", part, re.DOTALL):
                found |= {f"{enum[1]}: {' '.join(one.split())}" for one in enum[2].split(",")}
            else:
                found.add(" ".join(re.sub(r"\w+(?=[,)])", "", part).split()))
        return found

    before = declarations((V1 / "dpa2.h").read_text(encoding="utf-8"))
    assert len(before) > 30
    assert before <= declarations(HEADER.read_text(encoding="utf-8"))
