"""Combinations that are damaged, inconsistent, or of parts that cannot be combined: the message of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_files as mf
import numpy as np
import pytest
from dpa2 import files
from dpa2.errors import ModelFileError
from dpa2.files import combination
from kind_files import KINDS, changed, linear_modules, make_linear, make_zbl
from model_files import Module


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "models is a list of 0"),
        ({"models": 3}, "models is 3"),
        ({"models.1": 3}, r"models\[1\] is 3"),
        (
            {"models.1": {"type": "frozen", "model_file": "a.pth"}},
            r"models\[1\].*'frozen', a model in a file of its own",
        ),
        ({"models.1": {"type": "inner_potential"}}, r"models\[1\].*DPA-4 only"),
        ({"models.1": {"type": "linear_ener", "models": []}}, "a combination inside of a combination"),
        ({"models.1": {"type": "pairtab2"}}, r"models\[1\] is a model of type 'pairtab2'"),
        ({"models.1": {}}, r"models\[1\] is a model of type None"),
        ({"models.0.fitting_net": {"type": "dipole"}}, r"models\[0\] has the fitting net 'dipole', and only energies"),
        ({"models.0.descriptor": {"type": "hybrid", "list": []}}, r"models\[0\]: .*descriptor.list is a list of 0"),
        ({"models.0.descriptor": {"type": "se_e2_a"}}, "se_e2_a"),
        ({"models.0.bridging_method": "ZBL"}, "bridging_method 'ZBL'.*DPA-4"),
    ],
)
def test_other_parts_are_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        files.read(changed(tmp_path / "m.pt", make_linear(), change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "product"}, "weights is 'product', expected 'sum', 'mean' or a list of 3"),
        ({"weights": [1.0]}, "weights is a list of 1"),
        ({"weights": [1.0, 2.0, float("nan")]}, r"weights\[2\] is nan"),
        ({"weights": [1.0, 2.0, "x"]}, r"weights\[2\] is 'x'"),
        ({"type_map": KeyError}, "type_map"),
        ({"pair_exclude_types": [[0, 7]]}, "pair_exclude_types"),
        ({"models.0.descriptor.repinit.rcut": -1.0}, r"models\[0\]: .*repinit.rcut"),
        ({"models.1.rcut": float("nan")}, r"models\[1\].rcut is nan"),
        ({"models.1.rcut": KeyError}, r"models\[1\].rcut is missing"),
        ({"models.1.sel": 0}, r"models\[1\].sel is 0"),
        ({"models.1.sel": ["x"]}, r"models\[1\].sel is list"),
        ({"models.1.type_map": ["O", "H"]}, r"tab_info of models\[1\] is .*of 3 types is one of 2"),
        (
            {"models.0.fitting_net.numb_fparam": 1, "models.2.fitting_net.numb_fparam": 2},
            r"models\[0\] has 1 frame and 0 atomic parameters, another one 2 and 0",
        ),
    ],
)
def test_bad_definitions_of_linear_models(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        files.read(changed(tmp_path / "m.pt", make_linear(), change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sw_rmin": KeyError}, "sw_rmin is missing"),
        ({"sw_rmax": 0.5}, "sw_rmax is 0.5, expected more than sw_rmin, 0.5"),
        ({"sw_rmax": 0.25}, "sw_rmax is 0.25"),
        ({"sw_rmax": float("nan")}, "sw_rmax is nan"),
        ({"fitting_net": {"type": "polar"}}, "'polar', and only energies can be combined"),
        ({"spin": {"use_spin": [True]}}, "spin.use_spin is a list of 1, expected 3 booleans"),
    ],
)
def test_bad_definitions_of_tables(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        files.read(changed(tmp_path / "m.pt", make_zbl(), change))


INFO, DATA = "atomic_model.models.1.tab_info", "atomic_model.models.1.tab_data"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (INFO, None, r"the table of models\[1\] is missing \(tab_info\)"),
        (DATA, None, r"the table of models\[1\] is missing \(tab_data\)"),
        (INFO, [0.25, 0.125, 8, 3], r"table of models\[1\] ends short: 8 pieces .* are 288 numbers, tab_data has 252"),
        (INFO, [0.25, 0.125, 6, 3], r"the table of models\[1\] is too long: 6 pieces .* are 216 numbers"),
        (INFO, [0.25, 0.0, 7, 3], "a positive step"),
        (INFO, [0.25, -0.125, 7, 3], "a positive step"),
        (INFO, [0.25, np.nan, 7, 3], "a positive step"),
        (INFO, [np.inf, 0.125, 7, 3], "a positive step"),
        (INFO, [-0.25, 0.125, 7, 3], r"tab_info of models\[1\] is \[-0.25"),
        (INFO, [0.25, 0.125, 7.5, 3], "pieces"),
        (INFO, [0.25, 0.125, 0, 3], "pieces"),
        (INFO, [0.25, 0.125, 1e300, 3], "pieces"),
        (INFO, [0.25, 0.125, np.nan, 3], "pieces"),
        (INFO, [0.25, 0.125, 7, 2], "of 2 types is one of 3"),
        (INFO, [0.25, 0.125, 7], r"shape \(3,\), expected 4 numbers"),
        (DATA, np.full((3, 3, 7, 4), np.nan), "finite"),
        (DATA, np.ones((3, 3, 4, 7)), r"models.1.tab_data' has shape \(3, 3, 4, 7\)"),
        (DATA, np.ones((3, 3, 7, 4), np.int64), "int64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["linear", "zbl"])
@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_damaged_tables(name: str, array: Any, message: str, kind: str, suffix: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    tensors = mf.state(model)
    if array is None:
        del tensors[name]
    else:
        tensors[name] = np.asarray(array)
    if suffix == "pt":
        content = {"_extra_state": {"model_params": mf.definition(model)}}
        content |= {f"model.Default.{key}": value for key, value in tensors.items()}
        path = mf.write_zip(tmp_path / "m.pt", {"model": content})
    else:
        root = mf.module_tree(tensors)
        root.attributes["model_def_script"] = mf.json.dumps(mf.definition(model))
        path = mf.write_zip(tmp_path / "m.pth", root, {"constants.pkl": b"."})
    with pytest.raises(ModelFileError, match=message):
        files.read(path)


def test_a_table_that_ends_short_in_other_formats(tmp_path: Path) -> None:
    model = make_zbl()
    tree = mf.tree(model)
    variables = tree["model"]["models"][1]["tab"]["@variables"]
    variables["tab_data"] = variables["tab_data"][:-4]
    for path in (mf.write_dp(tmp_path / "m.dp", tree), mf.write_yaml(tmp_path / "m.yaml", tree)):
        with pytest.raises(ModelFileError, match=r"the table of models\[1\] ends short"):
            files.read(path)
    model.weights["models.1.tab_data"] = model.weights["models.1.tab_data"][:, :, :-1]
    with pytest.raises(ModelFileError, match=r"the table of models\[1\] ends short"):
        files.write_safetensors(tmp_path / "m.safetensors", model)


def test_a_table_with_another_list_than_its_network(tmp_path: Path) -> None:
    tree = mf.tree(make_zbl())
    tree["model"]["models"][1]["rcut"] = 3.0
    with pytest.raises(ModelFileError, match="the pair table has rcut 3"):
        files.read(mf.write_dp(tmp_path / "m.dp", tree))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model["models"][0].update(pair_exclude_types=[[0, 0]]), "excluded types of its own"),
        (lambda model: model["models"][0].update(type="zbl"), r"models\[0\] is a model of type 'zbl'"),
        (lambda model: model["models"].__setitem__(0, 3), r"models\[0\] is a model of type None"),
        (lambda model: model["models"][0]["fitting"].update(type="dos"), "only energies"),
        (lambda model: model["models"][1].pop("tab"), "'tab' is missing"),
        (lambda model: model["models"][1]["tab"].update({"@version": 2}), "version 2"),
        (lambda model: model.update({"@version": 4}), "version 4"),
        (lambda model: model.update(models=None), "'models' is not a list"),
    ],
)
def test_damaged_trees_of_combinations(change: Any, message: str, tmp_path: Path) -> None:
    tree = mf.tree(make_linear())
    change(tree["model"])
    with pytest.raises(ModelFileError, match=message):
        files.read(mf.write_dp(tmp_path / "m.dp", tree))


def test_a_list_that_stands_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of a combination may share what they exclude; a copy for each would take much memory."""
    monkeypatch.setattr(combination, "_MAX_EXCLUSIONS", 1000)
    model = make_linear()
    part = mf.definition(model)["models"][0]
    part["descriptor"]["exclude_types"] = [[0, 0]] * 400
    change = {f"models.{k}": part for k in (0, 2)}
    with pytest.raises(ModelFileError, match=r"do not use|has shape"):  # the weights are those of another part
        files.read(changed(tmp_path / "m.pt", model, change))
    with pytest.raises(ModelFileError, match="hostile file: its models exclude 1200 pairs"):
        files.read(changed(tmp_path / "m.pt", model, {"models": [part] * 3}))
    with pytest.raises(ModelFileError, match="models is a list of 101"):
        files.read(changed(tmp_path / "m.pt", model, {"models": mf.definition(model)["models"][:1] * 101}))


# ------------------------------------------------------------------------------- frozen files without a definition


def module_at(root: Module, path: str) -> dict[str, Any]:
    for name in path.split("."):
        root = root.attributes[name]
    return root.attributes


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("atomic_model", {"models": KeyError}, "no module atomic_model.models"),
        ("atomic_model", {"weights": KeyError}, "no model definition"),
        ("atomic_model", {"weights": {"a": 1}}, "weights is dict"),
        ("atomic_model.models", {"1": KeyError}, "atomic_model.models.1 is missing"),
        ("atomic_model.models", {"0": 3}, "no module atomic_model.models.0"),
        ("atomic_model.models.0", {"descriptor": Module({}, "__torch__.DescrptHybrid")}, "DescrptHybrid"),
        ("atomic_model.models.0", {"fitting_net": Module({}, "__torch__.DipoleFittingNet")}, "only energies"),
        ("atomic_model.models.0", {"pair_excl": Module({})}, "excluded types of its own"),
        ("atomic_model.models.0.descriptor", {"repformers": KeyError}, "repformers"),
        ("atomic_model.models.0.descriptor", {"smooth": 3}, "smooth is 3"),
        ("atomic_model.models.0.descriptor.repinit", {"nnei": None}, "repinit.nsel is None"),
        ("atomic_model.models.0.descriptor.repinit", {"rcut": KeyError}, r"models\[0\].*repinit.rcut is missing"),
        ("atomic_model.models.0.fitting_net", {"atom_ener": None}, "does not say its atom_ener"),
        ("atomic_model.models.2.descriptor", {"exclude_types": KeyError}, "does not say which .exclude_types"),
        ("atomic_model", {"pair_exclude_types": KeyError}, "does not say which .pair_exclude_types"),
    ],
)
def test_damaged_modules(path: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = linear_modules(KINDS["linear_excluded"]())
    node = module_at(root, path)
    for key, value in change.items():
        if value is KeyError:
            del node[key]
        else:
            node[key] = value
    with pytest.raises(ModelFileError, match=message):
        files.read(mf.write_zip(tmp_path / "m.pth", root, {"constants.pkl": b"."}))
