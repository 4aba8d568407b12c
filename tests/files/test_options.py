"""The options of a model definition: which are legal, which are refused, which nobody looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dpa2
import model_files as mf
import numpy as np
import pytest
from dpa2 import files
from dpa2.errors import ModelFileError
from model_files import WRITERS, assert_same, make


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("type_map",), ["O", "O", "H"], "twice"),
        (("type_map",), [], "type_map"),
        (("type_map",), [1, 2, 3], "type_map"),
        (("descriptor", "repinit", "rcut"), None, "rcut"),
        (("descriptor", "repinit", "rcut"), -1.0, "positive"),
        (("descriptor", "repinit", "rcut"), float("nan"), "finite"),
        (("descriptor", "repinit", "rcut"), True, "rcut"),
        (("descriptor", "repinit", "rcut"), 1e5, "at most 10000"),
        (("descriptor", "env_protection"), -0.1, "at least 0"),
        (("descriptor", "repinit", "neuron"), [4, 0], r"neuron\[1\] is 0, expected an integer from 1"),
        (("descriptor", "repinit", "nsel"), "auto", "nsel"),
        (("descriptor", "repinit", "nsel"), 10**12, "nsel"),
        (("descriptor", "repinit", "neuron"), [], "neuron"),
        (("descriptor", "repinit", "axis_neuron"), 5, "axis_neuron"),
        (("descriptor", "repinit", "tebd_input_mode"), "add", "concat"),
        (("descriptor", "repinit", "rcut_smth"), 9.0, "rcut_smth"),
        (("descriptor", "repformer", "nsel"), 900, "nsel"),
        (("descriptor", "repformer", "nlayers"), 10**5, "nlayers"),
        (("descriptor", "repformer", "g1_dim"), 10**6, "number of weights"),
        (("descriptor", "repformer", "update_style"), "res_new", "res_avg"),
        (("descriptor", "repformer", "activation_function"), "swoosh", "swoosh"),
        (("descriptor", "repformer", "activation_function"), "tanh:2", "tanh"),
        (("descriptor", "repformer", "activation_function"), "silut:x", "colon"),
        (("descriptor", "smooth"), 1, "true or false"),
        (("descriptor", "precision"), "float8", "float64"),
        (("descriptor", "exclude_types"), [[0, 7]], "exclude_types"),
        (("descriptor", "exclude_types"), [[0]], r"exclude_types\[0\] has 1 entries, expected 2$"),
        (("descriptor", "\x1b[31m_é"), 1, r"the option descriptor\.\\x1b\[31m_é is unknown"),
        (("descriptor",), [], "descriptor"),
        (("descriptor", "repformer"), 3, "repformer"),
        (("fitting_net", "numb_fparam"), -1, "numb_fparam"),
        (("fitting_net", "default_fparam"), [1.0], "default_fparam"),
        (("fitting_net", "atom_ener"), [1.0, 2.0, 3.0, 4.0], "atom_ener"),
        (("atom_exclude_types",), [3], "atom_exclude_types"),
        (("pair_exclude_types",), "all", "pair_exclude_types"),
    ],
)
def test_options_are_checked(where: tuple[str, ...], value: Any, message: str, tmp_path: Path) -> None:
    model = make()
    params = mf.definition(model)
    node = params
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    with pytest.raises(ModelFileError, match=message):
        files.read(mf.write_pt(tmp_path / "m.pt", model, params=params))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_fitting_net_without_hidden_layers(kind: str, tmp_path: Path) -> None:
    """Its energies are linear in the descriptor; what deepmd-kit makes of one is in the golden files."""
    model = make(fitting={"neuron": [], "numb_fparam": 2, "default_fparam": [0.5, -1.0]})
    path = WRITERS[kind](tmp_path / f"m.{kind}", model)
    assert_same(files.read(path), model)
    loaded = dpa2.load(path)
    coords, types = np.array([[0.0, 0.0, 0.0], [1.1, 0.2, 0.0], [0.1, 1.2, 0.3]]), [0, 1, 2]
    layer, w = "fitting_net.filter_layers.networks.0.layers.0", loaded._data.weights
    row = (np.array([0.5, -1.0]) - w["fitting_net.fparam_avg"]) * w["fitting_net.fparam_inv_std"]
    x = np.concatenate([loaded.descriptor(coords, types), np.tile(row, (3, 1))], axis=1)
    energies = x @ w[f"{layer}.matrix"][:, 0] + w[f"{layer}.bias"] + w["fitting_net.bias_atom_e"][types, 0]
    energies += w["out_bias"][0, types, 0]
    np.testing.assert_allclose(loaded.evaluate(coords, types).atom_energy, energies, rtol=1e-12, atol=1e-12)


def test_the_last_layer_of_a_fitting_net_without_hidden_layers(tmp_path: Path) -> None:
    """Its input, as in deepmd-kit."""
    from dpa2.deepmd import DeepPot

    path = mf.write_pth(tmp_path / "m.pth", make(fitting={"neuron": []}))
    coords = np.array([[[0.0, 0.0, 0.0], [1.1, 0.2, 0.0]]])
    pot = DeepPot(path)
    np.testing.assert_array_equal(
        pot.eval_fitting_last_layer(coords, None, [0, 1]), pot.eval_descriptor(coords, None, [0, 1])
    )


UNUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "repinit": ({"use_three_body": False}, {
        "three_body_neuron": [], "three_body_sel": 0, "three_body_rcut": 0.0, "three_body_rcut_smth": None,
    }),
    "repformer": ({"update_g1_has_attn": False, "update_g2_has_attn": False, "update_h2": False}, {
        "attn1_hidden": 0, "attn1_nhead": 0, "attn2_hidden": -1, "attn2_nhead": "none",
    }),
}  # fmt: skip


@pytest.mark.parametrize("section", UNUSED)
def test_options_that_others_switch_off_may_be_anything(section: str, tmp_path: Path) -> None:
    """deepmd-kit does not look at them; a native file then holds their defaults."""
    switches, odd = UNUSED[section]
    defaults = {
        "three_body_neuron": [2, 4, 8], "three_body_sel": 40, "three_body_rcut": 4.0, "three_body_rcut_smth": 0.5,
        "attn1_hidden": 64, "attn1_nhead": 4, "attn2_hidden": 16, "attn2_nhead": 4,
    }  # fmt: skip
    plain = make(**{section: {**switches, **{key: defaults[key] for key in odd}}})
    params = mf.definition(plain)
    params["descriptor"][section].update(odd)
    path = mf.write_pt(tmp_path / "m.pt", plain, params=params)
    assert_same(files.read(path), plain)
    dpa2.load(path).save(tmp_path / "m.safetensors")
    assert_same(files.read(tmp_path / "m.safetensors"), plain)
    for switch in switches:
        params["descriptor"][section][switch] = True
    with pytest.raises(ModelFileError, match=next(iter(odd))):
        files.read(mf.write_pt(tmp_path / "m.pt", plain, params=params))
