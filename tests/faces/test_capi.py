"""The C interface, driven through ctypes: numbers, sharing, threads, ghosts.

What it refuses is in test_capi_errors.py, what compilers and linkers see of it in test_capi_builds.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from c_library import (
    EXCHANGE,
    INVALID_INPUT,
    LIBRARY,
    SIGNATURES,
    Answer,
    Handle,
    Parts,
    assert_ok,
    call,
    evaluate,
    load,
    message,
    new_domain,
)
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import CASES, case_system, golden, model_of, relative

pytestmark = needs.library

FIELDS = ("energy", "forces", "virial", "atom_energy", "atom_virial")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native_files")


def native_file(name: str, folder: Path, changes: dict[str, Any] | None = None, tag: str = "") -> Path:
    """The model of a golden file in the native format; `changes` replace options of its repinit block."""
    path = folder / f"{name}{tag}.safetensors"
    if not path.exists():
        case = golden(name)
        config = json.loads(json.dumps(case.config))
        config["descriptor"]["repinit"].update(changes or {})
        write_safetensors(path, ModelData(config, case.weights))
    return path


def first_frame(name: str, system: str) -> tuple[Any, ...]:
    """Coordinates, types, box, fparam and aparam of one frame."""
    s = case_system(name, system)
    frame = [None if a is None else np.asarray(a)[0] for a in (s.box, s.fparam, s.aparam)]
    box = None if frame[0] is None else frame[0].reshape(3, 3)
    return s.coord[0], s.atype, box, frame[1], frame[2]


def python_answer(name: str, system: str, **options: Any) -> dpa2.Result:
    coords, types, box, fparam, aparam = first_frame(name, system)
    return model_of(golden(name), device="cpu", **options).evaluate(
        coords, types, box, fparam=fparam, aparam=aparam, atomic=True
    )


def difference(answer: Any, expected: Any) -> float:
    """Largest relative difference of all results; either may be an Answer or a Result."""
    return max(relative(np.squeeze(getattr(answer, f)), np.squeeze(getattr(expected, f))) for f in FIELDS)


# ------------------------------------------------------------------------------------------------ library and models


def test_versions() -> None:
    from dpa2 import _native

    assert call("abi_version") == 6
    assert call("version").decode() == dpa2.__version__
    assert call("isa").decode() == _native.isa()


def test_an_isa_that_does_not_exist(folder: Path) -> None:
    """Its choice is made once per process."""
    code = (
        "import ctypes, os; lib = ctypes.CDLL(os.environ['LIB']); lib.dpa2_isa.restype = ctypes.c_char_p; "
        "lib.dpa2_last_error.restype = ctypes.c_char_p; print(lib.dpa2_isa(), lib.dpa2_last_error())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], env={"DPA2_ISA": "v9", "LIB": str(LIBRARY)}, capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("b'' b'DPA2_ISA=v9: no such instruction-set level")


@pytest.mark.parametrize("name", ["base", "seven_types", "fparam_aparam", "default_fparam"])
def test_questions(name: str, folder: Path) -> None:
    model, python = load(native_file(name, folder)), model_of(golden(name), device="cpu")
    a = model.address
    assert call("model_ntypes", a) == len(python.type_map)
    assert [call("model_type_name", a, t).decode() for t in range(len(python.type_map))] == list(python.type_map)
    assert [call("model_type_index", a, s.encode()) for s in python.type_map] == list(range(len(python.type_map)))
    assert [call("model_type_name", a, t) for t in (-1, len(python.type_map))] == [None, None]
    assert [call("model_type_index", a, s) for s in (b"Xx", b"", None)] == [-1, -1, -1]
    assert call("model_rcut", a) == python.rcut
    assert call("model_descriptor_dim", a) == python.descriptor_dim
    config = json.loads(call("model_config", a))
    assert config == golden(name).config
    assert call("model_g2_dim", a) == config["descriptor"]["repformer"]["g2_dim"]
    fitting = config["fitting_net"]
    assert call("model_fparam_dim", a) == fitting["numb_fparam"]
    assert call("model_aparam_dim", a) == fitting["numb_aparam"]
    assert call("model_has_default_fparam", a) == int(fitting["default_fparam"] is not None)
    assert call("model_precision", a) == b"float64"
    assert call("model_precision", load(native_file(name, folder), "float32").address) == b"float32"
    assert call("model_exchange_width", a) >= config["descriptor"]["repformer"]["g1_dim"]
    small, large = (call("model_memory_estimate", a, n, 40.0, 0, 1) for n in (1000, 2000))
    assert 0 < small < large < call("model_memory_estimate", a, 2000, 40.0, 1, 2)


def test_a_buffer_is_a_file(folder: Path) -> None:
    path = native_file("base", folder)
    data = bytearray(path.read_bytes())
    buffer = (np.frombuffer(data, dtype=np.uint8)).tobytes()
    model = Handle("model_free", "model_load_buffer", buffer, len(buffer), b"sent", None, 0.0)
    del buffer, data
    coords, types, box, _, _ = first_frame("base", "bulk")
    one, two = (evaluate(m, coords, types, box) for m in (load(path), model))
    assert all(np.array_equal(getattr(one, f), getattr(two, f)) for f in FIELDS)


# ------------------------------------------------------------------------------------------------ whole systems


@pytest.mark.parametrize("system", ["bulk", "open", "tiny"])
@pytest.mark.parametrize("name", ["base", "rough_strip", "fparam_aparam", "virtual_davg", "aparam_mask"])
def test_evaluate(name: str, system: str, folder: Path) -> None:
    coords, types, box, fparam, aparam = first_frame(name, system)
    model, expected = load(native_file(name, folder)), python_answer(name, system)
    assert difference(evaluate(model, coords, types, box, fparam, aparam), expected) <= SAME
    golden_energy = case_system(name, system).expected["energy"][0]
    answer = evaluate(model, coords, types, box, fparam, aparam, threads=3)
    assert difference(answer, expected) <= SAME
    assert relative(answer.energy[0], golden_energy) <= CASES[name].tolerance


def test_what_is_not_asked_for_is_not_computed(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, energy, kinds = load(native_file("base", folder)), np.zeros(1), types.astype(np.intc)
    inputs = (model.address, len(kinds), coords, kinds, box, None, None, None, 1)
    assert_ok(call("evaluate", *inputs, energy, None, None, None, None))
    assert relative(energy[0], python_answer("base", "bulk").energy) <= SAME


def test_directions_are_periodic_as_said(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, kinds = load(native_file("base", folder)), types.astype(np.intc)
    python = model_of(golden("base"), device="cpu")
    for pbc in ([1, 0, 1], [0, 0, 0], [1, 1, 1]):
        energy = np.zeros(1)
        flags = np.array(pbc, dtype=np.intc)
        inputs = (model.address, len(kinds), coords, kinds, box, flags, None, None, 1)
        assert_ok(call("evaluate", *inputs, energy, None, None, None, None))
        assert relative(energy[0], python.evaluate(coords, types, box, pbc=[bool(p) for p in pbc]).energy) <= SAME


def test_a_default_of_fparam(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("default_fparam", "bulk")
    model = load(native_file("default_fparam", folder))
    default = golden("default_fparam").config["fitting_net"]["default_fparam"]
    given = [evaluate(model, coords, types, box, fparam).energy[0] for fparam in (None, default, [0.0, 0.0])]
    assert given[0] == given[1] != given[2]


@pytest.mark.parametrize("threads", [1, 2])
def test_descriptor(threads: int, folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, kinds = load(native_file("base", folder)), types.astype(np.intc)
    rows = np.full((len(kinds), call("model_descriptor_dim", model.address)), np.nan)
    rotations = np.full((len(kinds), call("model_g2_dim", model.address), 3), np.nan)
    assert_ok(call("descriptor", model.address, len(kinds), coords, kinds, box, None, threads, rows, rotations))
    expected = model_of(golden("base"), device="cpu").descriptor(coords, types, box, rot_mat=True)
    assert relative(rows, expected[0]) <= SAME
    assert relative(rotations, expected[1]) <= SAME
    assert_ok(call("descriptor", model.address, len(kinds), coords, kinds, box, None, threads, rows, None))


def test_a_skin_changes_nothing(folder: Path) -> None:
    path = native_file("base", folder)
    plain, skinned = load(path), load(path, skin=1.0)
    coords, types, box, _, _ = first_frame("base", "bulk")
    for step in range(4):
        moved = coords + 0.03 * step * np.sin(np.arange(coords.size)).reshape(-1, 3)
        assert difference(evaluate(skinned, moved, types, box), evaluate(plain, moved, types, box)) <= SAME


def test_threads_share_a_model(folder: Path) -> None:
    model = load(native_file("base", folder))
    coords, types, box, _, _ = first_frame("base", "bulk")
    expected = [evaluate(model, coords * s, types, box * s).forces for s in (1.0, 1.01)]
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}

    def work(k: int) -> None:
        scale = (1.0, 1.01)[k]
        found[k] = [evaluate(model, coords * scale, types, box * scale).forces for _ in range(10)]

    workers = [threading.Thread(target=work, args=(k,)) for k in found]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k, forces in found.items():
        assert len(forces) == 10
        assert all(np.array_equal(f, expected[k]) for f in forces)


def test_messages_belong_to_threads(folder: Path) -> None:
    model, kinds = load(native_file("base", folder)), np.zeros(1, dtype=np.intc)
    barrier, said = threading.Barrier(2), {}

    def work(value: float) -> None:
        first = message()
        coords = np.array([[0.0, 0.0, value]])
        inputs = (model.address, 1, coords, kinds, None, None, None, None, 1)
        status = call("evaluate", *inputs, np.zeros(1), None, None, None, None)
        barrier.wait()
        said[str(value)] = (first, status, message())
        barrier.wait()

    workers = [threading.Thread(target=work, args=(value,)) for value in (np.nan, np.inf)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for value in ("nan", "inf"):
        assert said[value] == ("", INVALID_INPUT, f"coordinate 2 of atom 0 is not finite: {value}")


def test_too_many_neighbours_are_a_warning(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("binding_sel", "bulk")
    answer = evaluate(load(native_file("binding_sel", folder)), coords, types, box)
    assert "neighbours within the cutoff of the model's" in message("last_warning")
    assert "only the nearest" in message("last_warning")
    assert relative(answer.energy[0], case_system("binding_sel", "bulk").expected["energy"][0]) <= 1e-10
    model = load(native_file("binding_sel", folder))  # loading forgets it
    assert message("last_warning") == ""
    parts, domain = Parts(coords, types, box, call("model_rcut", model.address)), new_domain()
    assert_ok(parts.set(domain))
    parts.evaluate(domain, model)
    assert "only the nearest" in message("last_warning")
    evaluate(load(native_file("base", folder)), *first_frame("base", "open")[:3])
    assert message("last_warning") == ""


# ------------------------------------------------------------------------------------------------ parts of systems


@pytest.mark.parametrize("system", ["bulk", "open", "tiny"])
@pytest.mark.parametrize("name", ["base", "rough_strip", "fparam_aparam", "virtual_davg", "published_medium"])
def test_ghosts(name: str, system: str, folder: Path) -> None:
    """Images as ghosts give the numbers of the whole, with lists that reach farther than they have to or not."""
    coords, types, box, fparam, aparam = first_frame(name, system)
    model, domain = load(native_file(name, folder)), new_domain()
    expected = python_answer(name, system)
    layers = golden(name).config["descriptor"]["repformer"]["nlayers"]
    for reach, threads in ((0.0, 1), (0.5, 2)):
        parts = Parts(coords, types, box, call("model_rcut", model.address) + reach)
        assert_ok(parts.set(domain))
        answer = parts.evaluate(domain, model, fparam=fparam, aparam=aparam, threads=threads)
        assert difference(answer, expected) <= SAME
        assert [kind for kind, _, _ in parts.calls] == ["forward"] * layers + ["reverse"] * layers
        width = call("model_exchange_width", model.address)
        assert all(size == 8 and 0 < w <= width for _, w, size in parts.calls)


def test_ghosts_descriptor(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, domain = load(native_file("base", folder)), new_domain()
    parts = Parts(coords, types, box, call("model_rcut", model.address))
    assert_ok(parts.set(domain))
    rows = np.full((parts.nlocal, call("model_descriptor_dim", model.address)), np.nan)
    rotations = np.full((parts.nlocal, call("model_g2_dim", model.address), 3), np.nan)
    inputs = (domain.address, model.address, parts.types, int(types[0]), parts.exchange, 2)
    assert_ok(call("domain_descriptor", *inputs, rows, rotations))
    expected = model_of(golden("base"), device="cpu").descriptor(coords, types, box, rot_mat=True)
    assert relative(rows, expected[0]) <= SAME
    assert relative(rotations, expected[1]) <= SAME
    assert {kind for kind, _, _ in parts.calls} == {"forward"}


def test_float32_rows_have_four_bytes(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, domain = load(native_file("base", folder), "float32"), new_domain()
    parts = Parts(coords, types, box, call("model_rcut", model.address))
    assert_ok(parts.set(domain))
    answer = parts.evaluate(domain, model)
    assert {size for _, _, size in parts.calls} == {4}
    single, double = python_answer("base", "bulk", precision="float32"), python_answer("base", "bulk")
    assert relative(answer.forces, single.forces) <= 1e-5
    assert 0 < relative(answer.forces, double.forces) <= 2e-4


def test_bits_of_an_entry_may_be_masked(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, domain = load(native_file("base", folder)), new_domain()
    parts = Parts(coords, types, box, call("model_rcut", model.address))
    for one in parts.lists:
        one |= 1 << 30
    assert_ok(parts.set(domain, mask=0x3FFFFFFF))
    assert difference(parts.evaluate(domain, model), python_answer("base", "bulk")) <= SAME


def test_models_share_lists_that_are_the_same(folder: Path) -> None:
    """Lists that cannot be made any more, because an entry is wrong now, show who makes its own."""
    coords, types, box, _, _ = first_frame("base", "bulk")
    first, same = load(native_file("base", folder)), load(native_file("base", folder), "float32")
    other = load(native_file("base", folder, {"nsel": 65}, "_65"))
    parts, domain = Parts(coords, types, box, call("model_rcut", first.address)), new_domain()
    assert_ok(parts.set(domain, names=False))
    answers = [parts.evaluate(domain, first)]
    parts.lists[0][0] += 1_000_000
    answers.append(parts.evaluate(domain, same))
    assert parts.try_evaluate(domain, other, Answer(parts.nall, parts.nlocal)) == INVALID_INPUT
    assert message().startswith("neighbour 0 of atom 0 is number 1000")
    parts.lists[0][0] -= 1_000_000
    answers.append(parts.evaluate(domain, other))
    # another step forgets them
    parts.lists[0][0] += 1_000_000
    assert_ok(parts.set(domain, names=False))
    assert parts.try_evaluate(domain, same, Answer(parts.nall, parts.nlocal)) == INVALID_INPUT
    expected = python_answer("base", "bulk")
    assert difference(answers[0], expected) <= SAME
    assert relative(answers[1].forces, expected.forces) <= 2e-4
    wider = evaluate(other, coords, types, box)  # nsel is part of the model
    assert difference(answers[2], wider) <= SAME < relative(wider.forces, expected.forces)


def test_models_with_other_types_have_lists_of_their_own(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, domain = load(native_file("base", folder)), new_domain()
    parts = Parts(coords, types, box, call("model_rcut", model.address))
    assert_ok(parts.set(domain))
    one = parts.evaluate(domain, model)
    parts.types = np.where(parts.types == 0, -1, parts.types).astype(np.intc)
    two = parts.evaluate(domain, model)
    kinds = np.where(types == 0, -1, types)
    assert difference(two, evaluate(model, coords, kinds, box)) <= SAME < relative(two.forces, one.forces)


def test_a_domain_outlives_a_model(folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    domain = new_domain()
    expected = python_answer("base", "bulk")
    for _ in range(3):
        model = load(native_file("base", folder))
        parts = Parts(coords, types, box, call("model_rcut", model.address))
        assert_ok(parts.set(domain))
        assert difference(parts.evaluate(domain, model), expected) <= SAME
        model.free()


def test_a_process_without_atoms_takes_part(folder: Path) -> None:
    model, domain = load(native_file("base", folder)), new_domain()
    layers = golden("base").config["descriptor"]["repformer"]["nlayers"]
    parts = Parts(np.empty((0, 3)), [], None, call("model_rcut", model.address))
    assert (parts.nlocal, parts.nall) == (0, 0)
    assert_ok(parts.set(domain))
    answer = parts.evaluate(domain, model)
    assert answer.energy[0] == 0.0
    assert not answer.virial.any()
    assert [kind for kind, _, _ in parts.calls] == ["forward"] * layers + ["reverse"] * layers


@pytest.mark.parametrize("code", [1, -5])
def test_a_callback_that_fails(code: int, folder: Path) -> None:
    coords, types, box, _, _ = first_frame("base", "bulk")
    model, domain = load(native_file("base", folder)), new_domain()
    parts = Parts(coords, types, box, call("model_rcut", model.address))
    assert_ok(parts.set(domain))
    parts.fail = code
    assert parts.try_evaluate(domain, model, Answer(parts.nall, parts.nlocal)) == EXCHANGE
    assert message() == f"the forward exchange failed with code {code}"
    assert len(parts.calls) == 1
    parts.fail = 0
    assert difference(parts.evaluate(domain, model), python_answer("base", "bulk")) <= SAME


def test_every_function_is_here() -> None:
    from c_library import declared

    assert set(SIGNATURES) == set(declared())
