"""The schema of configuration and weights that the core states, against deepmd-kit's own files and defaults."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASE, ModelCase, golden_cases, load_golden
from dpa2 import _native, files
from dpa2.errors import ModelFileError
from dpa2.files import ModelData, schema
from model_files import assert_same, make

# deepmd-kit's defaults, as its documentation states them; None of an option that has none
DEFAULTS: dict[str, dict[str, Any]] = {
    "descriptor": {
        "type": "dpa2", "precision": "float64", "smooth": True, "exclude_types": [], "env_protection": 0.0,
        "concat_output_tebd": True, "add_tebd_to_repinit_out": False, "use_econf_tebd": False, "use_tebd_bias": False,
    },
    "repinit": {
        "rcut": None, "rcut_smth": None, "nsel": None, "neuron": [25, 50, 100], "axis_neuron": 16, "tebd_dim": 8,
        "tebd_input_mode": "concat", "activation_function": "tanh", "resnet_dt": False, "type_one_side": False,
        "use_three_body": False, "three_body_neuron": [2, 4, 8], "three_body_rcut": 4.0, "three_body_rcut_smth": 0.5,
        "three_body_sel": 40,
    },
    "repformer": {
        "rcut": None, "rcut_smth": None, "nsel": None, "nlayers": 3, "g1_dim": 128, "g2_dim": 16, "axis_neuron": 4,
        "direct_dist": False, "update_g1_has_conv": True, "update_g1_has_drrd": True, "update_g1_has_grrg": True,
        "update_g1_has_attn": True, "update_g2_has_g1g1": True, "update_g2_has_attn": True, "update_h2": False,
        "attn1_hidden": 64, "attn1_nhead": 4, "attn2_hidden": 16, "attn2_nhead": 4, "attn2_has_gate": False,
        "activation_function": "tanh", "update_style": "res_avg", "use_sqrt_nnei": True, "g1_out_conv": True,
        "g1_out_mlp": True, "ln_eps": 1e-5,
    },
    "fitting_net": {
        "type": "ener", "neuron": [120, 120, 120], "activation_function": "tanh", "resnet_dt": True, "numb_fparam": 0,
        "numb_aparam": 0, "default_fparam": None, "dim_case_embd": 0, "use_aparam_as_mask": False, "atom_ener": [],
        "precision": "float64",
    },
}  # fmt: skip


@pytest.mark.parametrize("section", DEFAULTS)
def test_defaults_are_those_of_deepmd_kit(section: str) -> None:
    options = schema.section(section)
    assert {key: option.default for key, option in options.items()} == DEFAULTS[section]
    required = {key for key, option in options.items() if option.presence == "required"}
    assert required == ({"rcut", "rcut_smth", "nsel"} if section.startswith("rep") else set())


def test_the_canonical_configuration_has_these_options_and_no_others() -> None:
    """As `cases` states them, which the generator of the golden files reads where there is no dpa2."""
    descriptor = dict(BASE["descriptor"])
    sections = {name: descriptor.pop(name) for name in ("repinit", "repformer")}
    sections |= {"descriptor": descriptor, "fitting_net": BASE["fitting_net"]}
    for name, given in sections.items():
        assert set(given) == set(schema.section(name))
    always = {key for key, option in schema.section("model").items() if option.presence != "optional"}
    assert set(BASE) == {*always, "format_version", "descriptor", "fitting_net"}


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
def test_weights_are_those_of_deepmd_kit(case: ModelCase) -> None:
    """Names, shapes and precisions as in what deepmd-kit's own models held."""
    golden = load_golden(case)
    expected = schema.expected_weights(golden.config)
    assert {name: weight.shape for name, weight in expected.items()} == {n: w.shape for n, w in golden.weights.items()}
    assert {name: weight.dtype for name, weight in expected.items()} == {n: w.dtype for n, w in golden.weights.items()}
    schema.check_weights(golden.config, golden.weights)


def test_roles() -> None:
    options = {"use_econf_tebd": True, "fitting.numb_fparam": 1, "fitting.default_fparam": [0.5]}
    options |= {"fitting.numb_aparam": 1, "fitting.dim_case_embd": 2}
    found: dict[str, set[str]] = {}
    for name, weight in schema.expected_weights(ModelCase("roles", options).config).items():
        found.setdefault(weight.role, set()).add(name)
    blocks = ("repinit", "repinit_three_body", "repformers")
    assert found["environment_mean"] == {f"descriptor.{block}.mean" for block in blocks}
    assert found["environment_stddev"] == {f"descriptor.{block}.stddev" for block in blocks}
    fitting = {f"fitting_net.{a}param_{b}" for a in "fa" for b in ("avg", "inv_std")}
    assert found["statistic"] == fitting | {"fitting_net.bias_atom_e", "out_bias", "out_std"}
    assert found["constant"] == {
        "descriptor.econf_tebd", "fitting_net.case_embd", "fitting_net.default_fparam_tensor",
    }  # fmt: skip
    assert all(name.endswith((".matrix", ".bias", ".idt")) or "_residual." in name for name in found["parameter"])
    assert set(found) == {"environment_mean", "environment_stddev", "statistic", "constant", "parameter"}


def unaligned(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)


LAYER = "descriptor.repformers.layers.0.linear1.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(LAYER), f"'{LAYER}' is missing"),
        (lambda w: w.update({LAYER: w[LAYER][:-1]}), f"'{LAYER}' has shape .*expected"),
        (lambda w: w.update({LAYER: np.full_like(w[LAYER], np.inf)}), f"'{LAYER}' is not finite at element 0"),
        (
            lambda w: w.update({LAYER: w[LAYER].astype(np.int64)}),
            f"'{LAYER}' is no contiguous, aligned array of float64",
        ),
        (
            lambda w: w.update({LAYER: np.repeat(w[LAYER], 2)[::2]}),
            f"'{LAYER}' is no contiguous, aligned array of float64",
        ),
        (lambda w: w.update({LAYER: unaligned(w[LAYER])}), f"'{LAYER}' is no contiguous, aligned array of float64"),
        (lambda w: w["descriptor.repinit.stddev"].__setitem__((1, 2), 0.0), "stddev' is zero at element 6"),
        (lambda w: w.update(more=np.ones(1)), "'more' is not used"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_weights_are_checked(change: Any, message: str, dtype: str) -> None:
    model = make()
    weights = {name: array.astype(dtype) for name, array in model.weights.items()}
    schema.check_weights(model.config, weights)
    change(weights)
    with pytest.raises(ModelFileError, match=message):
        schema.check_weights(model.config, weights)


def test_arrays_that_are_not_aligned_are_copied(tmp_path: Path) -> None:
    model = make()
    odd = ModelData(model.config, {name: unaligned(array) for name, array in model.weights.items()})
    files.write_safetensors(tmp_path / "m.safetensors", odd)
    assert_same(files.read(tmp_path / "m.safetensors"), model)


def test_a_model_is_checked_once(tmp_path: Path) -> None:
    """What a reader returns is known to be finite, what a caller puts together is not; shapes are never trusted."""
    path = tmp_path / "m.safetensors"
    files.write_safetensors(path, make())
    data = files.read(path)
    assert data.checked
    assert not make().checked
    text = json.dumps(data.config)
    wrong = {**data.weights, LAYER: np.full_like(data.weights[LAYER], np.nan)}
    with pytest.raises(ModelFileError, match="not finite"):
        _native.NativeModel(text, wrong, "float64")
    for checked in (False, True):
        with pytest.raises(ModelFileError, match="has shape"):
            _native.NativeModel(text, {**data.weights, LAYER: np.ones(3)}, "float64", 0.0, checked)


def test_options_that_contradict_each_other() -> None:
    config = copy.deepcopy(make().config)
    config["descriptor"]["repformer"]["nsel"] = 900
    with pytest.raises(ModelFileError, match="nsel 900 of repformer must be below"):
        schema.expected_weights(config)
    with pytest.raises(ModelFileError, match="nsel 900 of repformer must be below"):
        schema.check_weights(config, make().weights)


def test_without_the_compiled_part_no_model_is_read() -> None:
    code = "import sys; sys.modules['dpa2._native'] = None; import dpa2; dpa2.load('x.pt', device='reference')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: the compiled part of dpa2 cannot be imported" in run.stderr
    assert "install the package with pip" in run.stderr
