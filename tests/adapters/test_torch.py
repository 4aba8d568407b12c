"""dpa2.torch against dpa2 itself, and its gradients against central differences (``torch.autograd.gradcheck``)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, frames, make_model
from gpu_models import OnDevice, emulate, host
from helpers import golden, model_of, relative
from kind_models import CASES, kind, kind_model
from kind_models import frames as frames_of
from pages import run_page

torch = needs.package("torch")
import dpa2.torch  # noqa: E402

pytestmark = [needs.native, pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")]

SAME = 1e-12
NAMES = ("energy", "atom_energy", "descriptor", "rot_mat")
SLAB = (True, True, False)
#: kinds of models for every run: a mean, virtual atoms, tensors, sums of models
QUICK = ("property", "dipole_virtual", "polar", "zbl")


def tensor(array: Any, derived: bool = True) -> Any:
    return torch.tensor(np.array(array, dtype=float), dtype=torch.float64, requires_grad=derived)


def module(outputs: Any = NAMES, **options: Any) -> Any:
    return dpa2.torch.Module(make_model("cpu", **options), outputs)


def own_values(model: dpa2.Model, coords: Any, types: Any, box: Any = None, **given: Any) -> dict[str, Any]:
    """What dpa2 says itself, in the adapter's shapes."""
    pbc = given.get("pbc")
    result = model.evaluate(coords, types, box, **given)
    descriptor, rot_mat = model.descriptor(coords, types, box, pbc, rot_mat=True)
    return {
        "energy": result.energy,
        "atom_energy": result.atom_energy,
        "descriptor": descriptor,
        "rot_mat": rot_mat,
    }


def assert_same(found: Any, expected: Any, bound: float = SAME) -> None:
    assert set(found) == set(expected)
    for name, rows in expected.items():
        assert relative(found[name].detach().numpy(), rows) <= bound, name


def given(frame: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A frame of a golden file as arguments."""
    parameters = {name: tensor(frame[name], False) for name in ("fparam", "aparam") if name in frame}
    box = tensor(np.reshape(frame["box"], (3, 3))) if "box" in frame else None
    return (tensor(frame["coords"]), torch.tensor(frame["types"]), box), parameters


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("coords", [COORDS, frames(3)], ids=["structure", "frames"])
@pytest.mark.parametrize(("box", "pbc"), [(None, None), (BOX, None), (BOX, SLAB)], ids=["open", "box", "slab"])
def test_values_are_those_of_dpa2(coords: np.ndarray, box: Any, pbc: Any) -> None:
    expected = own_values(make_model("cpu"), coords, TYPES, box, pbc=pbc)
    cell = None if box is None else tensor(box)
    assert_same(module()(tensor(coords), torch.tensor(TYPES), cell, pbc=pbc), expected)
    with torch.no_grad():
        found = module()(tensor(coords), TYPES, cell, pbc=pbc)
    assert_same(found, expected)
    assert not any(rows.requires_grad for rows in found.values())


@pytest.mark.parametrize("name", needs.mostly_slow(CASES, QUICK))
def test_values_and_gradients_of_other_kinds(name: str) -> None:
    model = kind_model(name)
    potential = dpa2.torch.Module(model)
    system = min(kind(name).systems, key=lambda s: len(s.atype))
    frame = frames_of(system)[0]
    structure, parameters = given(frame)
    expected = model.evaluate(**frame, forces=False).outputs
    for key, rows in potential(*structure, **parameters).items():
        assert relative(rows.detach().numpy().ravel(), np.ravel(expected[key])) <= SAME, key

    def outputs(coords: Any, box: Any) -> tuple[Any, ...]:
        return tuple(potential(coords, structure[1], box, **parameters).values())

    assert torch.autograd.gradcheck(outputs, (structure[0], structure[2]), eps=1e-5, atol=1e-5, fast_mode=True)


def test_parameters() -> None:
    model, rng = make_model("cpu", nf=2, na=1), np.random.default_rng(0)
    coords, fparam, aparam = frames(2), rng.normal(size=(2, 2)), rng.normal(size=(2, 5, 1))
    found = dpa2.torch.Module(model)(tensor(coords), TYPES, fparam=tensor(fparam, False), aparam=tensor(aparam, False))
    expected = model.evaluate(coords, TYPES, fparam=fparam, aparam=aparam)
    assert_same(found, {"energy": expected.energy, "atom_energy": expected.atom_energy})
    one = dpa2.torch.Module(model, "energy")(
        tensor(coords[1]), TYPES, fparam=tensor(fparam[1], False), aparam=tensor(aparam[1], False)
    )
    assert_same(one, {"energy": expected.energy[1]})


def test_types_of_numbers_are_kept() -> None:
    exact = module(("energy", "descriptor"))(tensor(COORDS), TYPES, tensor(BOX))
    coords, box = tensor(COORDS).float().detach().requires_grad_(), tensor(BOX).float().detach().requires_grad_()
    found = module(("energy", "descriptor"))(coords, TYPES, box)
    assert {rows.dtype for rows in found.values()} == {torch.float32}
    assert_same(found, {name: rows.detach().numpy() for name, rows in exact.items()}, 1e-5)
    for rows in torch.autograd.grad(found["energy"] + found["descriptor"].sum(), (coords, box)):
        assert rows.dtype == torch.float32
        assert bool(rows.abs().max() > 0)


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("outputs", ["energy", "atom_energy", "descriptor", "rot_mat", ("energy", "descriptor")])
@pytest.mark.parametrize("pbc", [True, SLAB], ids=["box", "slab"])
def test_gradcheck(outputs: Any, pbc: Any) -> None:
    potential = module(outputs)

    def values(coords: Any, box: Any) -> tuple[Any, ...]:
        return tuple(potential(coords, TYPES, box, pbc=pbc).values())

    assert torch.autograd.gradcheck(values, (tensor(COORDS), tensor(BOX)), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_gradcheck_of_frames_and_of_open_structures() -> None:
    potential = module(("energy", "descriptor"))
    check = {"eps": 1e-5, "atol": 1e-6, "fast_mode": True}
    boxes = tensor(np.stack([BOX, 1.1 * BOX]))
    assert torch.autograd.gradcheck(
        lambda x, h: tuple(potential(x, TYPES, h).values()), (tensor(frames(2)), boxes), **check
    )
    assert torch.autograd.gradcheck(lambda x: tuple(potential(x, TYPES).values()), (tensor(COORDS),), **check)


def test_forces_and_virial() -> None:
    coords, box = tensor(frames(2)), tensor(BOX)
    wanted = make_model("cpu").evaluate(frames(2), TYPES, BOX)
    energy = module("energy")(coords, TYPES, box)["energy"]
    of_coords, of_box = torch.autograd.grad(energy.sum(), (coords, box))
    assert relative(-of_coords.numpy(), wanted.forces) <= SAME
    strain = torch.einsum("fik,fil->kl", of_coords, coords) + of_box.T @ box
    assert relative(-strain.detach().numpy(), wanted.virial.sum(axis=0)) <= SAME


def test_the_gradient_is_the_same_however_it_is_computed() -> None:
    """With forces that come with energies, and from weights of atoms."""
    coords = tensor(COORDS)
    found = module(("energy", "atom_energy"))(coords, TYPES, tensor(BOX))
    (stored,) = torch.autograd.grad(3.0 * found["energy"], coords, retain_graph=True)
    (weighted,) = torch.autograd.grad(3.0 * found["atom_energy"].sum(), coords, retain_graph=True)
    (both,) = torch.autograd.grad(found["energy"] + 2.0 * found["atom_energy"].sum(), coords)
    assert relative(weighted.numpy(), stored.numpy()) <= SAME
    assert relative(both.numpy(), stored.numpy()) <= SAME


def test_structures_of_different_sizes() -> None:
    rng, model = np.random.default_rng(1), make_model("cpu")
    sizes, boxes = [5, 3, 5, 1], np.stack([BOX * m for m in (1.0, 1.1, 1.2, 0.9)])
    parts = [(frames(1, seed)[0][:n], TYPES[:n]) for seed, n in enumerate(sizes)]
    order = rng.permutation(sum(sizes))
    coords, types = (np.concatenate(rows)[order] for rows in zip(*parts, strict=True))
    batch = np.repeat(np.arange(4), sizes)[order]
    x, h, potential = tensor(coords), tensor(boxes), module()
    found = potential(x, torch.tensor(types), h, batch=torch.tensor(batch))
    rows = [rng.normal(size=np.shape(found[name].detach())) for name in NAMES]
    torch.autograd.backward([found[name] for name in NAMES], [tensor(array, False) for array in rows])
    weights = dict(zip(NAMES, rows, strict=True))
    for k in range(4):
        mine = np.flatnonzero(batch == k)
        expected = own_values(model, coords[mine], types[mine], boxes[k])
        assert_same({n: found[n][k if n == "energy" else mine] for n in NAMES}, expected)
        of_atoms = {n: weights[n][mine] for n in NAMES if n != "energy"}
        of_atoms["atom_energy"] = of_atoms["atom_energy"] + weights["energy"][k]
        gradient, strain = model.vjp(coords[mine], types[mine], boxes[k], of_atoms)
        assert relative(x.grad.numpy()[mine], gradient) <= SAME
        moved = gradient.T @ coords[mine] + h.grad.numpy()[k].T @ boxes[k]
        assert relative(moved, strain) <= 1e-11
    symbols = [model.type_map[t] for t in types]
    again = potential(x, symbols, h, batch=torch.tensor(batch))
    assert_same(again, {name: rows.detach().numpy() for name, rows in found.items()}, 0.0)


def test_gradients_within_functions_of_torch() -> None:
    potential, coords = module("energy"), tensor(COORDS, False)
    found = torch.func.grad(lambda x: potential(x, TYPES, tensor(BOX, False))["energy"])(coords)
    assert relative(-found.numpy(), make_model("cpu").evaluate(COORDS, TYPES, BOX).forces) <= SAME


@pytest.mark.parametrize("outputs", ["energy", "descriptor"])
def test_second_derivatives_are_refused(outputs: str) -> None:
    coords = tensor(COORDS)
    value = module(outputs)(coords, TYPES, tensor(BOX))[outputs].sum()
    (gradient,) = torch.autograd.grad(value, coords, create_graph=True)
    with pytest.raises(dpa2.SecondDerivativeError, match=r"Model\.hessian"):
        torch.autograd.grad(gradient.square().sum(), coords)
    with pytest.raises(dpa2.SecondDerivativeError):
        torch.autograd.functional.hessian(lambda x: module(outputs)(x, TYPES)[outputs].sum(), coords)


def test_as_a_module() -> None:
    layer = torch.nn.Linear(module().model.descriptor_dim, 1).double()
    chain = torch.nn.ModuleDict({"of": module("descriptor"), "layer": layer})
    assert set(chain.state_dict()) == {"layer.weight", "layer.bias"}
    coords = tensor(COORDS)
    copied = copy.deepcopy(chain)
    total = copied["layer"](copied["of"](coords, TYPES)["descriptor"]).sum()
    total.backward()
    assert bool(coords.grad.abs().max() > 0)
    assert bool(copied["layer"].weight.grad.abs().max() > 0)
    assert "outputs=('descriptor',)" in repr(chain)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": COORDS}, r"coords must be a torch\.Tensor, got ndarray"),
        ({"coords": torch.zeros(15, dtype=torch.float64)}, r"coords must have shape .* got \(15,\)"),
        (
            {"coords": torch.zeros((5, 3), dtype=torch.int64)},
            r"floating-point type, got torch\.int64: pass coords\.double",
        ),
        ({"coords": torch.full((5, 3), torch.nan)}, "coords of atom 0.*: x = nan is not finite"),
        ({"coords": torch.zeros((5, 3), device="meta"), "box": None}, "coords are on meta, and the model is on cpu"),
        ({"types": TYPES[:3]}, "types must have shape"),
        ({"types": torch.tensor([0, 1, 1, 3, 0])}, "atom 3.* has type 3, but the model has 3 types"),
        ({"types": ["O", "H", "H", "Xx", "O"]}, "atom 3 .*is 'Xx', which the model does not know"),
        ({"types": torch.zeros(5)}, "types must be integers"),
        ({"box": None, "pbc": True}, "pbc asks for periodic boundaries, but there is no box"),
        ({"box": torch.ones(3)}, r"box must have shape \(3, 3\)"),
        ({"box": torch.zeros((3, 3))}, "box.* is singular"),
        ({"box": torch.ones((2, 3, 3))}, r"box must have shape \(3, 3\)"),
        ({"box": torch.eye(3, device="meta")}, "box is on meta, and coords on cpu"),
        ({"fparam": torch.zeros(1, requires_grad=True)}, "there are no derivatives by fparam"),
        ({"fparam": torch.zeros(1)}, "fparam was given, but the model takes no frame parameters"),
        ({"batch": torch.zeros(5)}, "batch must be a tensor of integers"),
        ({"batch": torch.zeros(4, dtype=torch.int64)}, r"batch must have shape \(5,\)"),
        ({"batch": torch.tensor([0, 0, 2, 2, 2])}, "no atoms of structure 1"),
        ({"batch": torch.tensor([0, 0, -1, 2, 2])}, "batch has the structure -1"),
        ({"batch": torch.tensor([0, 0, 1, 1, 1]), "box": torch.ones((3, 3, 3))}, "no atoms of structure 2"),
        ({"batch": torch.tensor([0, 0, 1, 1, 1]), "fparam": torch.ones((3, 1))}, "fparam must have 2 rows"),
    ],
)
def test_wrong_input(changes: dict[str, Any], message: str) -> None:
    arguments = {"coords": tensor(COORDS), "types": TYPES, "box": tensor(BOX), **changes}
    with pytest.raises(dpa2.InputError, match=message):
        module("energy")(**arguments)


def test_wrong_outputs_and_models() -> None:
    for name in ("force", "virial", "dipole"):
        with pytest.raises(dpa2.InputError, match=f"outputs: '{name}' is none of those that have gradients"):
            module(name)
    with pytest.raises(dpa2.InputError, match="outputs must name at least one"):
        module(())
    spin = golden_spin()
    with pytest.raises(dpa2.UnsupportedModelError, match="this is a spin model"):
        dpa2.torch.Module(spin)


def golden_spin() -> dpa2.Model:
    path = Path(__file__).parents[1] / "golden" / "spin" / "files" / "spin" / "model.pt"
    return dpa2.load(path, threads=1)


# --------------------------------------------------------------------------------------------------------------- a GPU


@needs.linux
@needs.compiler
def test_arrays_of_an_emulated_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tensor on a GPU goes through but for PyTorch itself, which has no emulated devices."""
    from dpa2.differentiable import Differentiable, Frames

    emulate(monkeypatch)
    data, rng = golden("base"), np.random.default_rng(0)
    system = data.systems[0]
    coords, types = system.coord[:1], np.asarray(system.atype, np.int32)[None]
    box = None if system.box is None else np.reshape(system.box[:1], (1, 3, 3))
    cpu, gpu = (Differentiable(model_of(data, device=device), NAMES) for device in ("cpu", "cuda"))
    there: Any = OnDevice(coords)
    there.shape = coords.shape
    own, device = Frames(coords, types, box, None), Frames(there, types, box, None)
    expected, (force, virial) = cpu.values(own, True)
    found, derivatives = gpu.values(device, True)
    for name in NAMES:
        assert relative(host(found[name]), expected[name]) <= 1e-10, name
    for rows, wanted in zip(derivatives, (force, virial), strict=True):
        assert relative(host(rows), wanted) <= 1e-10
    weights = {name: rng.normal(size=expected[name].shape) for name in NAMES}
    gradients = [of.gradient(f, weights, np, np.ones(types.shape)) for of, f in ((cpu, own), (gpu, device))]
    for rows, wanted in zip(gradients[1], gradients[0], strict=True):
        assert relative(host(rows), wanted) <= 1e-10


@pytest.mark.requires_gpu
def test_tensors_stay_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("NOTHING WAS RUN ON A GPU: this PyTorch sees none")
    model = make_model("cpu")
    outputs = ("energy", "atom_energy", "descriptor")
    on_gpu = dpa2.torch.Module(dpa2.Model(model._data, device="cuda"), outputs)
    host_x, host_h = tensor(frames(2)), tensor(BOX)
    x, h = (one.detach().cuda().requires_grad_() for one in (host_x, host_h))
    found, expected = on_gpu(x, TYPES, h), module(outputs)(host_x, TYPES, host_h)
    for name in outputs:
        assert found[name].device.type == "cuda"
        assert relative(found[name].detach().cpu().numpy(), expected[name].detach().numpy()) <= 1e-10
    total, wanted = (values["energy"].sum() + values["descriptor"].square().sum() for values in (found, expected))
    for rows, same in zip(
        torch.autograd.grad(total, (x, h)), torch.autograd.grad(wanted, (host_x, host_h)), strict=True
    ):
        assert relative(rows.cpu().numpy(), same.numpy()) <= 1e-10


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("adapters.md", tmp_path, monkeypatch, "PyTorch")
    assert names["forces"].shape == names["coords"].shape
    assert names["of_box"].shape == (3, 3)
