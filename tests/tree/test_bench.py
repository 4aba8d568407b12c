"""The arithmetic of the benchmarks: counted work, replicated structures, fitted exponents, CSV files."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS
from dpa2.data import write_frame
from dpa2.embedded import default_model
from operations import OPERATIONS, Operation

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of bench/ as a module; the folder is in the path for what it imports."""
    monkeypatch.syspath_prepend(str(BENCH))
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def flops(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("flops", monkeypatch)


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("common", monkeypatch)


def published(layers: int = 6, attention: bool = True, strip: bool = False) -> dict[str, Any]:
    """The published family of water models: what the work depends on."""
    return {
        "descriptor": {
            "repinit": {
                "neuron": [25, 50, 100],
                "axis_neuron": 12,
                "tebd_input_mode": "strip" if strip else "concat",
                "use_three_body": True,
                "three_body_neuron": [2, 4, 8],
            },
            "repformer": {
                "nlayers": layers,
                "g1_dim": 128,
                "g2_dim": 32,
                "axis_neuron": 4,
                "g1_out_mlp": True,
                "g1_out_conv": True,
                "update_g1_has_conv": True,
                "update_g1_has_drrd": True,
                "update_g1_has_grrg": True,
                "update_g1_has_attn": False,
                "update_g2_has_g1g1": False,
                "update_g2_has_attn": attention,
                "update_h2": False,
                "attn1_nhead": 4,
                "attn2_nhead": 4,
            },
        },
        "fitting_net": {"neuron": [240, 240, 240]},
    }


# kMAC per atom of the published models for the mean neighbours of liquid water, counted independently
EXPECTED = {
    "small": (published(3, attention=False), 802, 900, 3.4),
    "medium": (published(6), 3891, 4983, 17.7),
    "large": (published(12), 7819, 10146, 35.9),
    "compressible": (published(3, attention=False, strip=True), 820, 917, 3.5),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_published_models(name: str, flops: ModuleType) -> None:
    config, forward, backward, mflop = EXPECTED[name]
    total = flops.total(flops.count(config, flops.Neighbors(88.8, 26.23, 698.4, 26.23, 698.4)))
    assert total.forward == pytest.approx(1e3 * forward, abs=1000)
    assert total.backward == pytest.approx(1e3 * backward, abs=1000)
    assert total.flops == pytest.approx(1e6 * mflop, abs=5e4)


def test_parts_of_the_medium_model(flops: ModuleType) -> None:
    parts = flops.count(published(), flops.Neighbors(88.8, 26.23, 698.4, 26.23, 698.4))
    found = {name: (round(macs.forward / 1e3, 1), round(macs.backward / 1e3, 1)) for name, macs in parts.items()}
    assert found == {
        "repinit net": (44.4, 44.4),
        "repinit moment+gram": (40.3, 80.6),
        "three-body": (15.6, 16.7),
        "shape transform": (146.2, 146.2),
        "g2 embed+linear2": (135.1, 135.1),
        "self MLP+linear1": (580.6, 580.6),
        "conv": (669.8, 695.0),
        "grrg+drrd": (87.1, 174.1),
        "attention linear": (1074.4, 1074.4),
        "attention pairs": (951.3, 1889.3),
        "fitting": (146.2, 146.2),
    }


def test_operations_add_up_to_the_model(flops: ModuleType) -> None:
    """The table of operations and the count of a model state the same work."""
    ops = {op.name: op for op in OPERATIONS}
    s = ops["conv"].sizes
    parts = flops.count(published(), flops.Neighbors(s["nr"], s["n"], s["n"] ** 2, s["n"], s["n"] ** 2))
    groups: dict[str, list[tuple[str, int]]] = {
        "repinit net": [("tabulate", 1)],
        "three-body": [("three_body", 1)],
        "shape transform": [("shape_transform", 1)],
        "g2 embed+linear2": [("g2_embed", 1), ("linear2", 5)],
        "self MLP+linear1": [("linear", 6)],
        "conv": [("conv", 6)],
        "grrg+drrd": [("symmetrization", 6)],
        "attention": [("pair_attention", 5), ("attention_factors", 1)],
        "repinit": [("repinit", 1)],
        "fitting": [("fitting", 1)],
    }
    parts["attention"] = parts["attention linear"] + parts["attention pairs"]
    parts["repinit"] = parts["repinit net"] + parts["repinit moment+gram"]
    for part, members in groups.items():
        forward = sum(times * ops[name].macs(s) for name, times in members)
        backward = sum(times * ops[name].macs_backward(s) for name, times in members)
        if part == "fitting":  # forward and backward in one pass
            backward -= forward
        assert (forward, backward) == pytest.approx((parts[part].forward, parts[part].backward)), part


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.name)
def test_operations_are_complete(operation: Operation) -> None:
    assert operation.macs(operation.sizes) >= 0
    assert operation.macs_backward(operation.sizes) >= 0


def test_every_option_has_a_price(flops: ModuleType) -> None:
    neighbors = flops.Neighbors(90.0, 26.0, 700.0, 26.0, 700.0)
    base = flops.total(flops.count(published(), neighbors))
    for option in ("update_g1_has_attn", "update_g2_has_g1g1", "update_h2"):
        config = published()
        config["descriptor"]["repformer"][option] = True
        total = flops.total(flops.count(config, neighbors))
        assert total.forward > base.forward, option
        assert total.backward > base.backward, option
    for option in ("update_g1_has_conv", "update_g1_has_drrd", "update_g1_has_grrg", "g1_out_mlp", "g1_out_conv"):
        config = published()
        config["descriptor"]["repformer"][option] = False
        assert flops.total(flops.count(config, neighbors)).forward < base.forward or option == "g1_out_mlp", option


def test_measured_neighbors(flops: ModuleType, common: ModuleType) -> None:
    model = default_model()
    structure = common.read_structure(None, (1, 1, 1), model.type_map)
    found = flops.measure(model.config, structure.coords, structure.types, structure.box)
    d = structure.coords[:, None] - structure.coords
    length = np.diag(structure.box)
    descriptor = model.config["descriptor"]
    means = []
    for rcut in (descriptor["repinit"]["rcut"], descriptor["repformer"]["rcut"]):
        assert 2 * rcut < length.min()
        r = np.linalg.norm(d - length * np.round(d / length), axis=-1)
        counts = (r < rcut).sum(axis=1) - 1
        means.append((counts.mean(), (counts**2).mean()))
    assert found.repinit == pytest.approx(means[0][0])
    assert (found.repformer, found.repformer_squared) == pytest.approx(means[1])
    # copies have the same neighbours
    large = common.read_structure(None, (2, 1, 3), model.type_map)
    assert len(large.types) == 6 * len(structure.types)
    again = flops.measure(model.config, large.coords, large.types, large.box)
    assert (again.repinit, again.three_body, again.repformer_squared) == pytest.approx(
        (found.repinit, found.three_body, found.repformer_squared)
    )


def test_structures_from_files(common: ModuleType, tmp_path: Path) -> None:
    with (tmp_path / "one.xyz").open("w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX)
    names = sorted(set(SYMBOLS))
    kinds = [names.index(symbol) for symbol in SYMBOLS]
    arrays = {"coord": np.stack([COORDS, COORDS]), "box": np.stack([BOX, BOX]), "atype": kinds, "type_map": names}
    np.savez(tmp_path / "one.npz", **arrays)
    type_map = ["H", "O", "C"]
    for name in ("one.xyz", "one.npz"):
        found = common.read_structure(str(tmp_path / name), (1, 2, 1), type_map)
        np.testing.assert_allclose(found.box, np.array(BOX) * [[1], [2], [1]])
        np.testing.assert_allclose(found.coords[len(SYMBOLS) :], np.array(COORDS) + BOX[1])
        assert [type_map[t] for t in found.types] == [*SYMBOLS, *SYMBOLS]
    assert common.copies("2") == (2, 2, 2)
    assert common.copies("1x2x3") == (1, 2, 3)
    for text in ("0", "1x2", "a"):
        with pytest.raises(ValueError, match=r"copies|invalid literal"):
            common.copies(text)


def test_csv(common: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    row = {**common.machine(), "value": 1.5}
    common.write_csv(str(path), [row])
    common.write_csv(str(path), [row, {**row, "value": "a,b"}])
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [r["value"] for r in rows] == ["1.5", "1.5", "a,b"]
    assert set(rows[0]) == {"date", "commit", "processor", "cores", "value"}
    assert rows[0]["processor"]
    with pytest.raises(SystemExit, match="other columns"):
        common.write_csv(str(path), [{"value": 1}])


def test_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = load("scaling", monkeypatch)
    atoms = [192, 1536, 12288]
    assert scaling.exponent(atoms, [3e-6 * n**1.5 for n in atoms]) == pytest.approx(1.5)
    assert np.isnan(scaling.exponent([192, 192], [1.0, 1.0]))


def test_worker_answers(common: ModuleType, tmp_path: Path) -> None:
    """The protocol of bench/peer.py, with dpa2 on one side of it."""
    model = default_model()
    structure = common.read_structure(None, (1, 1, 1), model.type_map)
    structure.save(tmp_path / "structure.npz")
    path = tmp_path / "model.safetensors"
    model.save(path)
    start = [sys.executable, str(BENCH / "worker.py"), "dpa2"]
    end = [str(tmp_path / "structure.npz"), "float64", "1"]
    service = common.Service("dpa2", [*start, str(path), *end], {"OMP_NUM_THREADS": "1"})
    expected = dpa2.load(path, precision="float64").evaluate(structure.coords, structure.types, structure.box)
    first = service.answer()
    assert first["energy"] == pytest.approx(expected.energy, abs=1e-9)
    second = service.ask()
    assert second["seconds"] > 0
    assert second["memory"] > 1
    assert second["energy"] != first["energy"]
    service.close()
    np.testing.assert_allclose(np.load(tmp_path / "structure.dpa2.npy"), expected.forces, atol=1e-10)
    broken = common.Service("dpa2", [*start, "missing.safetensors", *end])
    with pytest.raises(SystemExit, match=r"missing\.safetensors"):
        broken.answer()
    broken.close()
