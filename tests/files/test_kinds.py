"""Files of other kinds than energies of one network: every format gives the same model, and what is said in it."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import model_files as mf
import numpy as np
import pytest
from dpa2 import files
from dpa2.cli.convert import with_precision
from dpa2.compress import compress, decompress
from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import ModelData
from dpa2.neighbors import cutoffs
from kind_files import (
    FITTINGS,
    KIND_WRITERS,
    KINDS,
    changed,
    make_fitting,
    make_linear,
    make_zbl,
    read_again,
)
from model_files import assert_same, make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", KIND_WRITERS)
def test_every_format_gives_the_same_model(kind: str, suffix: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    path = KIND_WRITERS[suffix](tmp_path / f"model.{suffix}", model)
    assert_same(files.read(path), model)
    assert files.heads(path) == []


def test_heads_of_all_kinds(tmp_path: Path) -> None:
    models = {name: model() for name, model in KINDS.items()} | {"energy": make()}
    path = mf.write_pt(tmp_path / "m.pt", models)
    assert files.heads(path) == list(models)
    for name, model in models.items():
        assert_same(files.read(path, name), model, name)


# ------------------------------------------------------------------------------------------------- fitting nets


def with_options(path: Path, model: ModelData, change: dict[str, Any], *removed: str) -> Path:
    """A checkpoint whose definition says other things about the fitting net."""
    params = mf.definition(model)
    params["fitting_net"].update(change)
    for key in removed:
        del params["fitting_net"][key]
    return mf.write_pt(path, model, params=params)


@pytest.mark.parametrize(
    ("given", "meant"),
    [([0.5, -1.0, 2], [0.5, -1.0, 2.0]), (0.5, [0.5, 0.5, 0.5]), (None, [1.0, 1.0, 1.0])],
)
def test_scale_of_polarizabilities(given: Any, meant: list[float], tmp_path: Path) -> None:
    model = make_fitting("polar")
    found = files.read(with_options(tmp_path / "m.pt", model, {"scale": given}))
    assert found.config["fitting_net"]["scale"] == meant
    found = files.read(with_options(tmp_path / "m.pt", model, {}, "scale", "fit_diag", "shift_diag"))
    assert found.config["fitting_net"] == model.config["fitting_net"] | {"scale": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (2, "scale is 2, expected a list of 3 numbers.*decimal point"),
        (True, "scale is True"),
        ("x", "scale is 'x'"),
        ([1.0, 2.0], "scale is a list of 2"),
        ([1.0, 2.0, None], r"scale\[2\] is None"),
        ([1.0, 2.0, float("nan")], r"scale\[2\] is nan"),
        (float("inf"), r"scale\[0\] is inf"),
    ],
)
def test_bad_scales(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        files.read(with_options(tmp_path / "m.pt", make_fitting("polar"), {"scale": given}))


def frozen(path: Path, model: ModelData, attributes: dict[str, Any], change: dict[str, Any] | None = None) -> Path:
    """A frozen file whose fitting net has these attributes."""
    root = mf.module_tree(mf.state(model))
    params = mf.definition(model)
    params["fitting_net"].update(change or {})
    root.attributes["model_def_script"] = mf.json.dumps(params)
    root.attributes["atomic_model"].attributes["fitting_net"].attributes.update(attributes)
    return mf.write_zip(path, root, {"constants.pkl": b"\x80\x02)."})


def test_attributes_of_frozen_files_count(tmp_path: Path) -> None:
    model = make_fitting("polar")
    scale = np.array(model.config["fitting_net"]["scale"])[:, None]
    path = frozen(tmp_path / "m.pth", model, {"scale": scale, "shift_diag": True}, {"scale": 3.0, "shift_diag": False})
    assert_same(files.read(path), model)
    path = frozen(tmp_path / "m.pth", model, {"scale": np.ones(3)})
    with pytest.raises(ModelFileError, match=r"scale has shape \(3,\)"):
        files.read(path)


def test_old_properties_do_not_distinguish_types(tmp_path: Path) -> None:
    model = make_fitting("property")
    assert_same(files.read(with_options(tmp_path / "m.pt", model, {}, "distinguish_types")), model)
    tree = mf.tree(model)
    fitting = tree["model"]["fitting"]
    fitting["@version"] = 5
    del fitting["distinguish_types"]
    model.config["fitting_net"]["distinguish_types"] = False
    assert_same(files.read(mf.write_dp(tmp_path / "m.dp", tree)), model)
    assert_same(files.read(frozen(tmp_path / "m.pth", model, {"distinguish_types": False})), model)


@pytest.mark.parametrize("kind", ["dipole", "polar", "dos"])
def test_energies_of_single_atoms_mean_nothing_there(kind: str, tmp_path: Path) -> None:
    model = make_fitting(kind)
    assert_same(files.read(with_options(tmp_path / "m.pt", model, {"atom_ener": [1.0, None, None]})), model)


@pytest.mark.parametrize("name", ["", "x" * 101, "gap\x1b[2J", 3])
def test_names_of_properties(name: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="property_name"):
        files.read(with_options(tmp_path / "m.pt", make_fitting("property"), {"property_name": name}))


def test_a_property_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="property_name is missing"):
        files.read(with_options(tmp_path / "m.pt", make_fitting("property"), {}, "property_name"))


def test_serialized_trees_of_version_1_have_no_output_statistics(tmp_path: Path) -> None:
    for kind in FITTINGS:
        model = make_fitting(kind)
        tree = mf.tree(model)
        tree["model"]["@version"] = 1
        del tree["model"]["@variables"]
        model.weights["out_bias"] *= 0.0
        model.weights["out_std"] = np.ones_like(model.weights["out_std"])
        assert_same(files.read(mf.write_dp(tmp_path / "m.dp", tree)), model)


@pytest.mark.parametrize(("kind", "version"), [("dipole", 5), ("polar", 6), ("property", 7), ("population", 5)])
def test_newer_fitting_nets_are_refused(kind: str, version: int, tmp_path: Path) -> None:
    tree = mf.tree(make_fitting(kind))
    tree["model"]["fitting"]["@version"] = version
    with pytest.raises(UnsupportedModelError, match=f"version {version}"):
        files.read(mf.write_dp(tmp_path / "m.dp", tree))


@pytest.mark.parametrize("kind", FITTINGS)
def test_widths_are_checked(kind: str, tmp_path: Path) -> None:
    for name in ("out_bias", "fitting_net.bias_atom_e", "fitting_net.filter_layers.networks.0.layers.2.bias"):
        model = make_fitting(kind)
        model.weights[name] = np.concatenate([model.weights[name]] * 2, axis=-1)
        with pytest.raises(ModelFileError, match=f"{name}' has shape"):
            files.read(mf.write_pt(tmp_path / "m.pt", model))


# ------------------------------------------------------------------------------------------------- combinations


@pytest.mark.parametrize(
    ("given", "meant"),
    [("sum", [1.0] * 3), ("mean", [1 / 3] * 3), (KeyError, [1 / 3] * 3), ([1, -2, 0], [1.0, -2.0, 0.0])],
)
def test_factors_of_a_linear_model(given: Any, meant: list[float], tmp_path: Path) -> None:
    model = make_linear()
    path = changed(tmp_path / "m.pt", model, {"weights": given})
    assert files.read(path).config["weights"] == meant


def test_what_is_written_inside_a_part_is_ignored(tmp_path: Path) -> None:
    model = make_linear()
    change = {
        "models.0.pair_exclude_types": [[0, 1]], "models.0.atom_exclude_types": [0], "models.0.preset_out_bias": {},
        "models.2.spin": {"use_spin": [True]}, "models.2.type": "standard", "models.1.pair_exclude_types": [[0, 0]],
        "models.0.bridging_method": "none",
    }  # fmt: skip
    assert_same(files.read(changed(tmp_path / "m.pt", model, change)), model)


def test_types_of_parts_are_those_of_the_whole(tmp_path: Path) -> None:
    model = make_linear()
    assert_same(files.read(changed(tmp_path / "m.pt", model, {"models.2.type_map": KeyError})), model)
    with pytest.raises(ModelFileError, match=r"models\[1\] does not have the type 'O'"):
        files.read(changed(tmp_path / "m.pt", model, {"models.1.type_map": ["X", "Y", "Z"]}))


def test_shared_parts_of_a_linear_model(tmp_path: Path) -> None:
    model = make_linear()
    params = mf.definition(model)
    change = {
        "shared_dict": {"one": params["models"][0]["descriptor"], "names": params["models"][2]["type_map"]},
        "models.0.descriptor": "one:1", "models.2.type_map": "names",
    }  # fmt: skip
    assert_same(files.read(changed(tmp_path / "m.pt", model, change)), model)
    with pytest.raises(ModelFileError, match="shared part 'two' is not defined"):
        files.read(changed(tmp_path / "m.pt", model, {**change, "models.0.descriptor": "two"}))


def test_lists_of_a_table_are_summed(tmp_path: Path) -> None:
    model = make_linear()
    assert_same(files.read(changed(tmp_path / "m.pt", model, {"models.1.sel": [10, 15, 5]})), model)


def test_the_alpha_that_acts(tmp_path: Path) -> None:
    """The builder of deepmd-kit ignores what a definition says; a tree and a frozen file hold what is in use."""
    model = make_zbl()
    assert files.read(changed(tmp_path / "m.pt", model, {"smin_alpha": 0.3})).config["smin_alpha"] == 0.1
    model.config["smin_alpha"] = 0.25
    assert files.read(mf.write_dp(tmp_path / "m.dp", mf.tree(model))).config["smin_alpha"] == 0.25
    root = mf.module_tree(mf.state(model))
    root.attributes["model_def_script"] = mf.json.dumps(mf.definition(model))
    assert files.read(mf.write_zip(tmp_path / "m.pth", root, {"constants.pkl": b"."})).config["smin_alpha"] == 0.1
    root.attributes["atomic_model"].attributes["smin_alpha"] = 0.25
    assert files.read(mf.write_zip(tmp_path / "m.pth", root, {"constants.pkl": b"."})).config["smin_alpha"] == 0.25


@pytest.mark.parametrize("kind", ["zbl", "linear"])
def test_compressed_combinations(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    made, tables = compress(model, 1e-3)
    names = [f"models.{k}." for k, part in enumerate(model.config["models"]) if "descriptor" in part]
    assert list(dict.fromkeys(table.prefix for table in tables)) == names
    for prefix in names:
        assert f"{prefix}descriptor.repinit.table" in made.weights
    assert_same(read_again(made, tmp_path), made)
    assert_same(decompress(made), model)
    part = made.config["models"][int(names[-1].split(".")[1])]
    alone = make_alone(model, names[-1])
    expected, _ = compress(alone, 1e-3)
    assert part["compression"] == expected.config["compression"]
    name = "descriptor.repinit.table"
    np.testing.assert_array_equal(made.weights[names[-1] + name], expected.weights[name])


def test_tables_of_parts_that_deepmd_kit_compressed(tmp_path: Path) -> None:
    model = make_linear()
    tree = mf.tree(model)
    node = tree["model"]["models"][2]["descriptor"]
    data, info = np.random.default_rng(0).normal(size=(5, 24)), np.array([-1.0, 0.0, 4.5, 0.5, 1.5, -1.0])
    variables = {"compress_data": [data], "compress_info": [info]}
    node["repinit_variable"]["compress"] = {"@variables": variables, "geo_compress": True}
    found = files.read(mf.write_dp(tmp_path / "m.dp", tree))
    grid = {"lower": -1.0, "step": 0.5, "segments": [[2, 1], [3, 3]]}
    assert found.config["models"][2].pop("compression") == {"max_error": None, "repinit": grid}
    assert found.weights.pop("models.2.descriptor.repinit.table").shape == (1, 5, 6, 4)
    assert_same(found, model)


def make_alone(model: ModelData, prefix: str) -> ModelData:
    """A part of a combination as a model by itself."""
    part = model.config["models"][int(prefix.split(".")[1])]
    top = {key: value for key, value in model.config.items() if key in make().config}
    weights = {name.removeprefix(prefix): value for name, value in model.weights.items() if name.startswith(prefix)}
    return ModelData({**top, **copy.deepcopy(part)}, weights)


def test_precision_of_combinations(tmp_path: Path) -> None:
    single = read_again(with_precision(make_zbl(), "float32"), tmp_path)
    network = single.config["models"][0]
    assert single.config["precision"] == network["descriptor"]["precision"] == "float32"
    assert network["fitting_net"]["precision"] == "float32"
    kept = {name for name, value in single.weights.items() if value.dtype == np.float64}
    assert kept == {"models.1.tab_data"}
    mixed = make_linear()
    for block in ("descriptor", "fitting_net"):
        mixed.config["models"][0][block]["precision"] = "float32"
    assert read_again(mixed, tmp_path).config["precision"] == "float64"


def test_cutoffs_of_combinations() -> None:
    model: Any = SimpleNamespace(config=make_linear().config)
    found = cutoffs(model)
    assert found["table 1"] == (3.5, 30)
    assert set(found) == {"repinit 0", "repformer 0", "table 1", "repinit 2", "three_body 2", "repformer 2"}
