"""Sound files of every format: the same model must come out of each of them, bit for bit."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import model_files as mf
import numpy as np
import pytest
from dpa2 import files
from dpa2.errors import InputError, ModelFileError, UnsupportedModelError
from dpa2.files import ModelData
from model_files import WRITERS, assert_same, finished, make, write_native
from random_model import draw_options, random_model

OLD = {"use_sqrt_nnei": False, "g1_out_conv": False, "g1_out_mlp": False}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("seed", range(6))
def test_every_format_gives_the_same_model(kind: str, seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model = finished(*random_model(rng, **draw_options(rng)), distance=None if seed % 2 else 0.75)
    path = WRITERS[kind](tmp_path / f"model.{kind}", model)
    assert_same(files.read(path), model)
    assert files.heads(path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_the_name_of_a_file_does_not_matter(kind: str, tmp_path: Path) -> None:
    model = make()
    path = WRITERS[kind](tmp_path / "model.anything", model)
    assert_same(files.read(path), model)
    assert_same(files.read(str(path)), model)


@pytest.mark.parametrize("kind", ["pt", "pth", "dp", "yaml", "pt2", "safetensors"])
def test_float32_stays_float32(kind: str, tmp_path: Path) -> None:
    model = make(precision="float32")
    model.weights = {
        k: v.astype(np.float32) if not k.startswith("out_") and "bias_atom" not in k else v
        for k, v in model.weights.items()
    }
    found = files.read(WRITERS[kind](tmp_path / "model", model))
    assert_same(found, model)
    assert found.config["precision"] == "float32"
    assert found.weights["out_bias"].dtype == np.float64


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    bits = np.asarray(array, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


@pytest.mark.parametrize("kind", ["pt", "dp"])
def test_bfloat16_becomes_float32(kind: str, tmp_path: Path) -> None:
    model = make(precision="float32", distance=0.75)
    model.config["descriptor"]["precision"] = "bfloat16"
    model.weights = {k: np.ascontiguousarray(as_bfloat16(v)) for k, v in model.weights.items()}
    if kind == "pt":
        path = mf.write_pt(tmp_path / "model.pt", model, bfloat16=True)
    else:
        path = mf.write_dp(tmp_path / "model.dp", mf.tree(model), bfloat16=True)
    assert_same(files.read(path), model)


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"parameters": True}])
def test_other_ways_to_store_tensors(options: dict[str, Any], tmp_path: Path) -> None:
    model = make()
    assert_same(files.read(mf.write_pt(tmp_path / "model.pt", model, **options)), model)


def test_strided_tensors(tmp_path: Path) -> None:
    model = make()
    name = "fitting_net.filter_layers.networks.0.layers.0.matrix"
    matrix = model.weights[name]
    pickle = mf.Pickle()
    pickle.storages.append(np.ascontiguousarray(matrix.T).tobytes())
    args = pickle.storage("DoubleStorage", "0", matrix.size) + pickle.save(0)
    args += pickle.save(matrix.shape) + pickle.save((1, matrix.shape[0])) + b"\x89}"
    transposed = mf.Raw(mf.name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + args + b"tR")
    tensors = {**mf.state(model, "model.Default.atomic_model."), f"model.Default.atomic_model.{name}": transposed}
    content = {"_extra_state": {"model_params": mf.definition(model)}, **tensors}
    path = mf.write_stream(tmp_path / "m.pt", pickle.dump({"model": content}), pickle.storages)
    assert_same(files.read(path), model)


def pt_expt_name(name: str) -> str:
    for ours, theirs in (
        ("fitting_net.filter_layers", "fitting_net.nets"),
        ("filter_layers_strip", "embeddings_strip"),
        ("filter_layers", "embeddings"),
        (".networks.", "._module_networks."),
        ("type_embedding.embedding.embedding_net", "type_embedding.embedding_net"),
        ("Default.min_nbor_dist", "Default._min_nbor_dist"),
    ):
        name = name.replace(ours, theirs)
    for ours, theirs in ((".matrix", ".w"), (".bias", ".b")):
        if name.endswith(ours):
            return name.removesuffix(ours) + theirs
    return name


@pytest.mark.parametrize("mode", ["concat", "strip"])
def test_checkpoints_of_the_pt_expt_backend(mode: str, tmp_path: Path) -> None:
    model = make(repinit={"tebd_input_mode": mode})
    tensors = {pt_expt_name(k): v for k, v in mf.state(model, "model.Default.atomic_model.").items()}
    assert any(k.endswith("_module_networks.0.layers.0.w") for k in tensors)
    content = {"_extra_state": {"model_params": mf.definition(model)}, **tensors}
    assert_same(files.read(mf.write_zip(tmp_path / "m.pt", {"model": content})), model)


def test_heads_of_a_multi_task_checkpoint(tmp_path: Path) -> None:
    one, two = make(1), make(2, distance=None, fitting={"dim_case_embd": 2})
    path = mf.write_pt(tmp_path / "m.pt", {"water": one, "metal": two}, aliases={"metal": ["Cu", "alloys"]})
    assert files.heads(path) == ["water", "metal"]
    assert_same(files.read(path, "water"), one, "water")
    assert_same(files.read(path, head="metal"), two, "metal")
    assert_same(files.read(path, head="alloys"), two, "metal")
    with pytest.raises(InputError, match=r"water, metal \(alias Cu, alloys\)"):
        files.read(path)
    with pytest.raises(InputError, match=r"no head 'gold'.*water"):
        files.read(path, "gold")


def test_a_head_survives_in_the_native_format(tmp_path: Path) -> None:
    path = mf.write_pt(tmp_path / "m.pt", {"water": make(1), "metal": make(2)})
    model = files.read(path, "metal")
    native = write_native(tmp_path / "m.safetensors", model)
    assert_same(files.read(native), model, "metal")
    assert_same(files.read(native, "metal"), model, "metal")
    with pytest.raises(InputError, match="'metal'"):
        files.read(native, "water")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_head_of_a_single_model_is_an_error(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / "model", make())
    with pytest.raises(InputError, match="'nowhere'"):
        files.read(path, "nowhere")


def test_the_default_branch_has_a_name(tmp_path: Path) -> None:
    model = make()
    assert_same(files.read(mf.write_pt(tmp_path / "m.pt", model), "Default"), model)


def test_shared_parts_that_are_only_named(tmp_path: Path) -> None:
    model = make()
    params = mf.definition(model)
    branch = {**params, "descriptor": "shared", "type_map": "types"}
    whole = {
        "model_dict": {"a": branch},
        "shared_dict": {"shared": params["descriptor"], "types": params["type_map"]},
    }
    content = {"_extra_state": {"model_params": whole}, **mf.state(model, "model.a.atomic_model.")}
    assert_same(files.read(mf.write_zip(tmp_path / "m.pt", {"model": content}), "a"), model, "a")


def test_averaged_weights_are_left_aside(tmp_path: Path) -> None:
    model = make()
    content = {"_extra_state": {"model_params": mf.definition(model)}, **mf.state(model, "model.Default.atomic_model.")}
    averaged = {k: np.zeros_like(v) for k, v in mf.state(model).items()}
    path = mf.write_zip(tmp_path / "m.pt", {"model": content, "ema": {"decay": 0.999, "model": averaged}})
    assert_same(files.read(path), model)


# -------------------------------------------------------------------------------------------------- older versions


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    model = make(repformer={"update_style": "res_avg", "attn1_hidden": 64, "attn1_nhead": 4})
    params = mf.definition(model)
    for key in ("smooth", "env_protection", "exclude_types", "concat_output_tebd", "use_econf_tebd", "use_tebd_bias"):
        del params["descriptor"][key]
    for key in ("ln_eps", "direct_dist", "attn1_hidden", "attn1_nhead", "update_style", "use_sqrt_nnei"):
        del params["descriptor"]["repformer"][key]
    params["descriptor"]["repformer"]["ln_eps"] = None
    params["fitting_net"] = {"neuron": [4, 4]}
    del params["pair_exclude_types"]
    assert_same(files.read(mf.write_pt(tmp_path / "m.pt", model, params=params)), model)


def test_old_names_of_options(tmp_path: Path) -> None:
    model = make(descriptor={"add_tebd_to_repinit_out": True})
    params = mf.definition(model)
    params["descriptor"]["repformer_add_type_ebd_to_seq"] = params["descriptor"].pop("add_tebd_to_repinit_out")
    params["fitting_net"]["n_neuron"] = params["fitting_net"].pop("neuron")
    assert_same(files.read(mf.write_pt(tmp_path / "m.pt", model, params=params)), model)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["pt", "pth"])
def test_torch_files_without_newer_options(old: bool, bias: bool, kind: str, tmp_path: Path) -> None:
    options = {"repinit": {"use_three_body": False}, "descriptor": {"use_tebd_bias": bias}}
    model = make(**options, repformer=OLD if old else {})
    params = mf.definition(model)
    for key in OLD:
        del params["descriptor"]["repformer"][key]
    del params["descriptor"]["use_tebd_bias"]
    path = tmp_path / "model"
    found = files.read(
        mf.write_pt(path, model, params=params) if kind == "pt" else mf.write_pth(path, model, params=params)
    )
    assert_same(found, model)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["dp", "yaml", "pt2"])
def test_serialized_descriptors_before_version_3(version: int, kind: str, tmp_path: Path) -> None:
    model = make(
        repinit={"use_three_body": False}, repformer=OLD, descriptor={"use_tebd_bias": version == 1}, distance=None
    )
    tree = mf.tree(model)
    node = tree["model"]["descriptor"]
    node["@version"] = version
    for key in [*OLD, "ln_eps"]:
        del node["repformer_args"][key]
    for key in [k for k in node["repinit_args"] if "three_body" in k]:
        del node["repinit_args"][key]
    if version == 1:
        del node["use_tebd_bias"]
        for layer in node["repformers_variable"]["repformer_layers"]:
            layer.update(layer.pop("@variables"))
            layer["@version"] = 1
    writer = {"dp": mf.write_dp, "yaml": mf.write_yaml, "pt2": mf.write_pt2}[kind]
    found = files.read(writer(tmp_path / "model", tree))
    assert found.config["descriptor"]["repinit"]["three_body_neuron"] == [2, 4, 8]
    unused = {k: v for k, v in found.config["descriptor"]["repinit"].items() if "three_body" in k}
    model.config["descriptor"]["repinit"].update(unused)
    assert_same(found, model)


def test_serialized_models_of_version_1_have_no_output_statistics(tmp_path: Path) -> None:
    model = make()
    tree = mf.tree(model)
    tree["model"]["@version"] = 1
    del tree["model"]["@variables"]
    model.weights["out_bias"] = np.zeros_like(model.weights["out_bias"])
    model.weights["out_std"] = np.ones_like(model.weights["out_std"])
    assert_same(files.read(mf.write_dp(tmp_path / "m.dp", tree)), model)


@pytest.mark.parametrize("suffix", ["dp", "yaml"])
def test_tables_of_compressed_models_are_read(suffix: str, tmp_path: Path) -> None:
    model = make(repinit={"tebd_input_mode": "strip"})
    tree = mf.tree(model)
    tree["model"]["descriptor"]["@version"] = 4
    data, info = np.random.default_rng(0).normal(size=(5, 24)), np.array([-1.0, 0.0, 4.5, 0.5, 1.5, -1.0])
    table = {"@variables": {"compress_data": [data], "compress_info": [info]}, "geo_compress": True}
    tree["model"]["descriptor"]["repinit_variable"]["compress"] = table
    found = files.read((mf.write_dp if suffix == "dp" else mf.write_yaml)(tmp_path / f"m.{suffix}", tree))
    grid = {"lower": -1.0, "step": 0.5, "segments": [[2, 1], [3, 3]]}
    assert found.config.pop("compression") == {"max_error": None, "repinit": grid}
    # coefficients of the powers of s - begin become those of the powers of (s - begin) / length
    lengths = np.array([0.5, 0.5, 1.5, 1.5, 1.5])
    expected = data.reshape(5, 4, 6).transpose(0, 2, 1) * lengths[:, None, None] ** np.arange(6)[:, None]
    np.testing.assert_allclose(found.weights.pop("descriptor.repinit.table"), expected[None], rtol=1e-14)
    assert_same(found, model)


def test_a_model_with_compressed_types_alone_has_no_table(tmp_path: Path) -> None:
    model = make(repinit={"tebd_input_mode": "strip"})
    tree = mf.tree(model)
    tree["model"]["descriptor"]["@version"] = 4
    tree["model"]["descriptor"]["repinit_variable"]["compress"] = {"@variables": {}, "geo_compress": False}
    assert_same(files.read(mf.write_dp(tmp_path / "m.dp", tree)), model)


@pytest.mark.parametrize(
    "where",
    ["model", "descriptor", "fitting", "layer"],
)
def test_newer_versions_are_refused(where: str, tmp_path: Path) -> None:
    tree = mf.tree(make())
    node = {
        "model": tree["model"],
        "descriptor": tree["model"]["descriptor"],
        "fitting": tree["model"]["fitting"],
        "layer": tree["model"]["descriptor"]["repformers_variable"]["repformer_layers"][1]["linear1"],
    }[where]
    node["@version"] = 9
    with pytest.raises(UnsupportedModelError, match="version 9"):
        files.read(mf.write_yaml(tmp_path / "m.yaml", tree))


# ------------------------------------------------------------------------------------------------- other models


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spin": {"use_spin": [1], "virtual_scale": 0.3, "allow_missing_label": True}}, "spin.allow_missing.*DPA-4"),
        ({"modifier": {"type": "dipole_charge"}}, "modifier"),
        ({"type": "frozen"}, "frozen"),
        ({"bridging_method": "ZBL"}, "bridging_method.*DPA-4"),
        ({"descriptor": {"type": "dpa3"}}, "dpa3"),
        ({"descriptor": {"type": "hybrid", "list": [{"type": "se_e2_r"}]}}, "se_e2_r.*no rotation matrix"),
        ({"descriptor": {"type": "dpa2", "repinit_rcut": 6.0}}, "alpha"),
        ({"fitting_net": {"type": "direct_force_ener"}}, "direct_force_ener.*no derivatives"),
        *[
            ({"fitting_net": {"type": kind}}, f"{kind}.*makes no model of")
            for kind in ("direct_force", "denoise", "invar", "type_predict")
        ],
        *[({"fitting_net": {"type": kind}}, f"{kind}.*TensorFlow") for kind in ("wfc", "global_polar")],
    ],
)
@pytest.mark.parametrize("kind", ["pt", "pth"])
def test_other_models_are_refused_by_name(change: dict[str, Any], message: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    write = mf.write_pt if kind == "pt" else mf.write_pth
    write(path, make(), params=change)
    with pytest.raises(UnsupportedModelError, match=f"{message}.*dpa2"):
        files.read(path)


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("descriptor", {"type": "dpa1"}, "dpa1"),
        ("fitting", {"type": "denoise"}, "denoise"),
        ("fitting", {"mixed_types": False}, "all types"),
        (None, {"type": "spin_ener", "backbone_model": {"type": "linear"}}, "a spin model on one of type 'linear'"),
        (None, {"type": "linear", "models": [{"type": "linear"}]}, "models.0. is a model of type 'linear'"),
        (None, {"spin": {"use_spin": [True]}}, "type 'standard' with spins"),
    ],
)
def test_other_serialized_models_are_refused(
    node: str | None, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tree = mf.tree(make())
    (tree["model"][node] if node else tree["model"]).update(change)
    with pytest.raises(UnsupportedModelError, match=message):
        files.read(mf.write_dp(tmp_path / "m.dp", tree))


def test_a_data_modifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="modifier"):
        files.read(mf.write_pth(tmp_path / "m.pth", make(), modifier=b"something"))


@pytest.mark.parametrize("suffix", [".jax", ".savedmodel", ".savedmodeltf", ".tf2"])
def test_directories_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.mkdir()
    with pytest.raises(UnsupportedModelError, match=r"convert-backend.*\.safetensors"):
        files.read(path)


@pytest.mark.parametrize(("suffix", "content"), [(".pb", b"\n\x0b\n\x05"), (".json", b"{}"), (".pd", b"\x80\x02}.")])
def test_foreign_files_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModelError, match="supported are"):
        files.read(path)


@pytest.mark.parametrize("section", [(), ("repinit",), ("repformer",)])
def test_unknown_options_are_refused(section: tuple[str, ...], tmp_path: Path) -> None:
    model = make()
    params = mf.definition(model)
    node = params["descriptor"]
    for key in section:
        node = node[key]
    node["new_physics"] = 3
    with pytest.raises(UnsupportedModelError, match="new_physics"):
        files.read(mf.write_pt(tmp_path / "m.pt", model, params=params))


# --------------------------------------------------------------------------------- files that contradict themselves


def broken(model: ModelData, name: str, array: np.ndarray | None) -> ModelData:
    out = ModelData(copy.deepcopy(model.config), dict(model.weights))
    if array is None:
        del out.weights[name]
    else:
        out.weights[name] = array
    return out


LAYER = "descriptor.repformers.layers.0.linear1"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (f"{LAYER}.matrix", None, "missing"),
        ("out_bias", None, "missing"),
        (f"{LAYER}.matrix", np.ones((3, 3)), r"shape \(3, 3\)"),
        (f"{LAYER}.bias", np.ones(4, np.int64), "int64"),
        (f"{LAYER}.bias", np.full(4, np.nan), "finite"),
        ("descriptor.repinit.stddev", np.zeros((3, 4)), "is zero at element 0"),
        ("descriptor.repformers.layers.7.linear1.matrix", np.ones((3, 3)), "layers.7"),
        (f"{LAYER}.idt", np.ones(4), "do not use"),
    ],
)
@pytest.mark.parametrize("kind", ["pt", "pth"])
def test_weights_are_checked(name: str, array: np.ndarray | None, message: str, kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / "model", broken(make(), name, array))
    with pytest.raises(ModelFileError, match=message):
        files.read(path)


def test_an_incomplete_model_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(ModelFileError, match="missing"):
        files.write_safetensors(path, broken(make(), "out_bias", None))
    assert list(tmp_path.iterdir()) == []


def test_statistics_must_not_depend_on_the_slot(tmp_path: Path) -> None:
    model = make()
    tensors = mf.state(model, "model.Default.atomic_model.")
    name = "model.Default.atomic_model.descriptor.repinit.mean"
    tensors[name] = tensors[name] + np.arange(3.0)[None, :, None]
    content = {"_extra_state": {"model_params": mf.definition(model)}, **tensors}
    with pytest.raises(ModelFileError, match="slots"):
        files.read(mf.write_zip(tmp_path / "m.pt", {"model": content}))


def test_missing_files() -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        files.read("nowhere.pt")


def test_reading_imports_nothing_heavy(tmp_path: Path) -> None:
    path = mf.write_pt(tmp_path / "m.pt", make())
    code = (
        "import sys, dpa2.files; dpa2.files.read(sys.argv[1]);"
        "print([m for m in ('torch', 'h5py', 'yaml', 'safetensors', 'pickle5') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
