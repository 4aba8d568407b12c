"""Models of every kind with device="cuda" on the emulated driver: against deepmd-kit and against the CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import Golden, System
from gpu_models import OnDevice, emulate, host
from helpers import model_of, relative
from kind_cases import KIND_CASES, KindCase, load_kind

pytestmark = pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")
SAME = 1e-11
BY_NAME = {case.name: case for case in KIND_CASES}
#: one of each kind, with what is special about it; the others have the marker `slow`
QUICK = {"dipole", "polar_full", "property", "population", "zbl", "linear_table"}
#: refused: the table sees more pairs than the descriptor
REFUSED = "zbl_excluded"
CASE = pytest.mark.parametrize(
    "case",
    needs.mostly_slow([c for c in KIND_CASES if c.name != REFUSED], QUICK, lambda case: case.name),
    ids=lambda case: case.name,
)


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch)


@cache
def kind(name: str) -> Golden:
    return load_kind(BY_NAME[name])


@cache
def on_cpu(name: str, precision: str = "float64") -> dpa2.Model:
    return model_of(kind(name), device="cpu", precision=precision)


def on_gpu(name: str, precision: str = "float64", **options: Any) -> dpa2.Model:
    return model_of(kind(name), device="cuda", precision=precision, **options)


def given(system: System, frames: Any = slice(None)) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Coordinates, types and boxes of frames, and the parameters by name."""
    box = None if system.box is None else np.reshape(system.box, (-1, 3, 3))[frames]
    parameters = {"fparam": system.fparam, "aparam": system.aparam}
    types = system.atype if system.atype.ndim == 1 else system.atype[frames]
    return (system.coord[frames], types.astype(np.int32), box), {
        name: value[frames] for name, value in parameters.items() if value is not None
    }


def assert_same(found: Any, wanted: Any, bound: float = SAME) -> None:
    assert found.keys() >= wanted.keys() - {"mask"}
    errors = {name: relative(host_of(found[name]), wanted[name]) for name in wanted if name in found}
    assert max(errors.values()) <= bound, errors


def host_of(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else host(value)


@CASE
def test_answers_are_those_of_deepmd_kit(case: KindCase) -> None:
    """All frames of all systems as batches; atomic virials of deepmd-kit's kind."""
    model = on_gpu(case.name)
    for system in kind(case.name).systems:
        frame, parameters = given(system)
        found = model.evaluate(*frame, atomic="deepmd", **parameters).outputs
        wanted = {name: system.expected[name] for name in case.answers}
        assert_same(found, wanted, case.tolerance)


@CASE
def test_everything_is_that_of_the_cpu(case: KindCase) -> None:
    """Atomic virials by halves, values alone, descriptors, gradients of each output of atoms."""
    model, cpu, rng = on_gpu(case.name), on_cpu(case.name), np.random.default_rng(4)
    system = kind(case.name).systems[0]
    frame, parameters = given(system)
    assert model.outputs == cpu.outputs
    assert_same(
        model.evaluate(*frame, atomic=True, **parameters).outputs,
        cpu.evaluate(*frame, atomic=True, **parameters).outputs,
    )
    values = model.evaluate(*frame, forces=False, **parameters).outputs
    assert_same(values, cpu.evaluate(*frame, forces=False, **parameters).outputs, SAME)
    for found, wanted in zip(model.descriptor(*frame, rot_mat=True), cpu.descriptor(*frame, rot_mat=True), strict=True):
        assert relative(found, wanted) <= SAME
    rows = {o.name: o.shape for o in cpu.outputs if o.per_atom and not o.of}
    weights = {name: rng.normal(size=(*system.coord.shape[:2], *shape)) for name, shape in rows.items()}
    for chosen in (weights, *({name: rows} for name, rows in weights.items())):
        pairs = zip(model.vjp(*frame, chosen, **parameters), cpu.vjp(*frame, chosen, **parameters), strict=True)
        for found, wanted in pairs:
            assert relative(found, wanted) <= SAME, tuple(chosen)


@pytest.mark.parametrize("name", needs.mostly_slow(sorted(BY_NAME.keys() - {REFUSED}), {"dipole", "zbl"}))
def test_float32(name: str) -> None:
    """No further from the CPU's float32 than that is from float64."""
    system = kind(name).systems[0]
    frame, parameters = given(system, 0)
    found, near, far = (
        model.evaluate(*frame, atomic="deepmd", **parameters).outputs
        for model in (on_gpu(name, "float32"), on_cpu(name, "float32"), on_cpu(name))
    )
    for output in BY_NAME[name].answers:
        scale = max(1.0, np.abs(far[output]).max())
        bound = max(2.0 * np.abs(near[output] - far[output]).max() / scale, 2e-6)
        assert relative(found[output], near[output]) <= bound, output


@pytest.mark.parametrize("name", needs.mostly_slow([
    "dipole", "polar", "dos", "property", "population_double", "zbl",
], {"dipole", "zbl"}))  # fmt: skip
def test_arrays_of_the_device(name: str) -> None:
    """The same bits as from arrays of the host, and there they stay."""
    model, system = on_gpu(name), kind(name).systems[0]
    (coords, types, box), parameters = given(system)
    box = None if box is None else box[0]
    parameters = {key: OnDevice(value) for key, value in parameters.items()}
    frames = np.stack([coords[0], coords[0] + 0.01])
    of_host = {key: host_of(value.held) for key, value in parameters.items()}
    of_host = {key: np.stack([value[0]] * 2) for key, value in of_host.items()}
    on_device = {key: OnDevice(value) for key, value in of_host.items()}
    wanted = model.evaluate(frames, types, box, **of_host).outputs
    found = model.evaluate(OnDevice(frames), types, box, **on_device).check().outputs
    assert found.keys() == wanted.keys() - {"mask"}
    for output, rows in found.items():
        assert rows.__dlpack_device__() == (2, 0)
        np.testing.assert_array_equal(host_of(rows), wanted[output])
    output = next(o for o in model.outputs if o.per_atom and not o.of)
    width = () if output.shape == (1,) else output.shape
    weights = np.random.default_rng(1).normal(size=(*frames.shape[:2], *width))
    pairs = zip(
        model.vjp(OnDevice(frames), types, box, {output.name: OnDevice(weights)}, **on_device),
        model.vjp(frames, types, box, {output.name: weights}, **of_host),
        strict=True,
    )
    for rows, same in pairs:
        np.testing.assert_array_equal(host_of(rows), same)


def test_a_linear_combination_takes_arrays_of_the_host() -> None:
    model = on_gpu("linear_table")
    (coords, types, box), _ = given(kind("linear_table").systems[0], 0)
    with pytest.raises(dpa2.UnsupportedModelError, match=r"linear combination .* memory of the host"):
        model.evaluate(OnDevice(coords), types, box).check()
    wanted = on_cpu("linear_table").evaluate(coords, types, box).outputs
    assert_same(model.evaluate(coords, types, box).outputs, wanted)
    assert model.check()


def test_no_atoms() -> None:
    """As on the CPU: sums are zero, the mean of nothing is not a number."""
    for name in ("dipole", "property", "population", "zbl", "linear_table"):
        parameters = given(kind(name).systems[0], 0)[1]
        if "aparam" in parameters:
            parameters["aparam"] = parameters["aparam"][:0]
        found, wanted = (
            model.evaluate(np.zeros((0, 3)), [], **parameters).outputs for model in (on_gpu(name), on_cpu(name))
        )
        assert found.keys() == wanted.keys()
        for output, rows in wanted.items():
            np.testing.assert_array_equal(found[output], rows)


def pair(r: float) -> tuple[np.ndarray, list[int]]:
    return np.array([[0.0, 0.0, 0.0], [r, 0.0, 0.0], [0.0, 40.0, 0.0]]), [0, 1, 1]


def test_pairs_before_the_table_begins() -> None:
    """An error from either side, with the CPU's words, and no number from the device."""
    for name in ("zbl", "linear_table"):
        models = on_gpu(name), on_cpu(name)
        for model in models:
            with pytest.raises(dpa2.InputError, match=r"atoms 0 and 1 are 0\.2 angstrom apart, and the pair table"):
                model.evaluate(*pair(0.2))
    model = on_gpu("zbl")
    model.evaluate(OnDevice(pair(2.0)[0]), pair(2.0)[1]).check()  # from now on nothing is waited for
    result = model.evaluate(OnDevice(pair(0.2)[0]), pair(0.2)[1])
    assert np.isnan(host_of(result.energy)).all()
    with pytest.raises(dpa2.InputError, match=r"atoms 0 and 1 are 0\.2 angstrom apart"):
        result.check()


def test_atoms_whose_energy_is_that_of_the_table_because_all_are_far() -> None:
    """The same warning from the CPU, from arrays of the host and of the device."""
    coords, types = pair(4.9)
    said, energies = set(), []
    for device, array in (("cpu", coords), ("cuda", coords), ("cuda", OnDevice(coords))):
        model = model_of(kind("zbl"), device=device, on_overflow="warn")
        with pytest.warns(dpa2.TableEnergyWarning) as record:
            energies.append(host_of(model.evaluate(array, types).check().outputs["energy"]))
        said.add(str(record[0].message))
    assert len(said) == 1
    assert relative(energies[1:], [energies[0]] * 2) <= SAME


def test_a_table_that_sees_more_than_the_descriptor_is_refused() -> None:
    with pytest.raises(dpa2.UnsupportedModelError, match=r"descriptor.exclude_types.* on the CPU only"):
        on_gpu(REFUSED)
