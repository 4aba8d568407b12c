"""The weights that a model must have: canonical names and shapes, as a function of its configuration."""

from __future__ import annotations

from typing import Any

from dpa2.files import compression, econf

Shapes = dict[str, tuple[int, ...]]


def _net(shapes: Shapes, prefix: str, n_in: int, neurons: list[int], resnet_dt: bool) -> int:
    """Add the hidden layers of an embedding or fitting net; returns its output width."""
    for k, n in enumerate(neurons):
        layer = f"{prefix}.layers.{k}"
        shapes[f"{layer}.matrix"] = (n_in, n)
        shapes[f"{layer}.bias"] = (n,)
        if resnet_dt and n in (n_in, 2 * n_in):
            shapes[f"{layer}.idt"] = (n,)
        n_in = n
    return n_in


def descriptor_dim(config: dict[str, Any]) -> int:
    """Width of the descriptor."""
    d = config["descriptor"]
    tebd = d["repinit"]["tebd_dim"] if d["concat_output_tebd"] else 0
    return int(d["repformer"]["g1_dim"] + tebd)


def expected_shapes(config: dict[str, Any]) -> Shapes:
    """Canonical name -> shape of every weight of a model with this configuration, in a fixed order."""
    shapes: Shapes = {}
    _entry(shapes, config)
    _repformers(shapes, config["descriptor"]["repformer"], len(config["type_map"]))
    _fitting(shapes, config)
    ntypes = len(config["type_map"])
    shapes["out_bias"] = (1, ntypes, 1)
    shapes["out_std"] = (1, ntypes, 1)
    shapes.update(compression.expected_shapes(config))
    return shapes


def _entry(shapes: Shapes, config: dict[str, Any]) -> None:
    """Type embedding, repinit, three-body block and the way into the repformer."""
    d, ntypes = config["descriptor"], len(config["type_map"])
    ri, g1 = d["repinit"], d["repformer"]["g1_dim"]
    tebd, strip = ri["tebd_dim"], ri["tebd_input_mode"] == "strip"
    n_in = econf.NUM_INPUTS if d["use_econf_tebd"] else ntypes
    layer = "descriptor.type_embedding.embedding.embedding_net.layers.0"
    shapes[f"{layer}.matrix"] = (n_in, tebd)
    if d["use_tebd_bias"]:
        shapes[f"{layer}.bias"] = (tebd,)
    if d["use_econf_tebd"]:
        shapes["descriptor.econf_tebd"] = (ntypes, econf.NUM_INPUTS)

    blocks = [("repinit", ri["neuron"], tebd if ri["type_one_side"] else 2 * tebd)]
    if ri["use_three_body"]:
        blocks.append(("repinit_three_body", ri["three_body_neuron"], 2 * tebd))
    width = 0
    for block, neurons, types_in in blocks:
        for name in ("mean", "stddev"):
            shapes[f"descriptor.{block}.{name}"] = (ntypes, 4)
        net = f"descriptor.{block}.filter_layers"
        _net(shapes, f"{net}.networks.0", 1 if strip else 1 + types_in, neurons, ri["resnet_dt"])
        if strip:
            _net(shapes, f"{net}_strip.networks.0", types_in, neurons, ri["resnet_dt"])
        width += neurons[-1] * (ri["axis_neuron"] if block == "repinit" else 1)
    if width != g1:
        shapes["descriptor.g1_shape_tranform.matrix"] = (width, g1)
    if d["add_tebd_to_repinit_out"]:
        shapes["descriptor.tebd_transform.matrix"] = (tebd, g1)


def _linear(shapes: Shapes, name: str, n_in: int, n_out: int, bias: bool = True) -> None:
    shapes[f"{name}.matrix"] = (n_in, n_out)
    if bias:
        shapes[f"{name}.bias"] = (n_out,)


def _repformers(shapes: Shapes, rf: dict[str, Any], ntypes: int) -> None:
    block = "descriptor.repformers"
    shapes[f"{block}.mean"] = (ntypes, 4)
    shapes[f"{block}.stddev"] = (ntypes, 4)
    _linear(shapes, f"{block}.g2_embd", 1, rf["g2_dim"])
    for k in range(rf["nlayers"]):
        _repformer_layer(shapes, f"{block}.layers.{k}", rf, last=k == rf["nlayers"] - 1)


def _repformer_layer(shapes: Shapes, layer: str, rf: dict[str, Any], last: bool) -> None:
    n1, n2, axis = rf["g1_dim"], rf["g2_dim"], rf["axis_neuron"]
    conv, out_conv, out_mlp = rf["update_g1_has_conv"], rf["g1_out_conv"], rf["g1_out_mlp"]
    width = (0 if out_mlp else n1) + (n2 if conv and not out_conv else 0)
    width += (axis * n2 if rf["update_g1_has_grrg"] else 0) + (axis * n1 if rf["update_g1_has_drrd"] else 0)
    _linear(shapes, f"{layer}.linear1", width, n1)
    residuals = {"g1": 1 + bool(out_mlp) + bool(conv and out_conv) + bool(rf["update_g1_has_attn"]), "g2": 0, "h2": 0}
    if not last:
        _linear(shapes, f"{layer}.linear2", n2, n2)
        residuals["g2"] = 1 + bool(rf["update_g2_has_g1g1"]) + bool(rf["update_g2_has_attn"])
        residuals["h2"] = int(rf["update_h2"])
    if out_mlp:
        _linear(shapes, f"{layer}.g1_self_mlp", n1, n1)
    if conv:
        _linear(shapes, f"{layer}.proj_g1g2", *((n2, n1) if out_conv else (n1, n2)), bias=False)
    if not last and rf["update_g2_has_g1g1"]:
        _linear(shapes, f"{layer}.proj_g1g1g2", n1, n2, bias=False)
    if not last and (rf["update_g2_has_attn"] or rf["update_h2"]):
        nd, nh = rf["attn2_hidden"], rf["attn2_nhead"]
        _linear(shapes, f"{layer}.attn2g_map.mapqk", n2, 2 * nd * nh, bias=False)
        if rf["update_g2_has_attn"]:
            _linear(shapes, f"{layer}.attn2_mh_apply.mapv", n2, n2 * nh, bias=False)
            _linear(shapes, f"{layer}.attn2_mh_apply.head_map", n2 * nh, n2)
            shapes[f"{layer}.attn2_lm.matrix"] = (n2,)
            shapes[f"{layer}.attn2_lm.bias"] = (n2,)
        if rf["update_h2"]:
            _linear(shapes, f"{layer}.attn2_ev_apply.head_map", nh, 1, bias=False)
    if rf["update_g1_has_attn"]:
        nd, nh = rf["attn1_hidden"], rf["attn1_nhead"]
        _linear(shapes, f"{layer}.loc_attn.mapq", n1, nd * nh, bias=False)
        _linear(shapes, f"{layer}.loc_attn.mapkv", n1, (nd + n1) * nh, bias=False)
        _linear(shapes, f"{layer}.loc_attn.head_map", n1 * nh, n1)
    if rf["update_style"] == "res_residual":
        for which, width in (("g1", n1), ("g2", n2), ("h2", 1)):
            for k in range(residuals[which]):
                shapes[f"{layer}.{which}_residual.{k}"] = (width,)


def _fitting(shapes: Shapes, config: dict[str, Any]) -> None:
    fit, ntypes = config["fitting_net"], len(config["type_map"])
    nf, na, nc = fit["numb_fparam"], fit["numb_aparam"], fit["dim_case_embd"]
    width = descriptor_dim(config) + nf + nc + (0 if fit["use_aparam_as_mask"] else na)
    net = "fitting_net.filter_layers.networks.0"
    width = _net(shapes, net, width, fit["neuron"], fit["resnet_dt"])
    _linear(shapes, f"{net}.layers.{len(fit['neuron'])}", width, 1)
    shapes["fitting_net.bias_atom_e"] = (ntypes, 1)
    for name, n in (("fparam", nf), ("aparam", na)):
        if n:
            shapes[f"fitting_net.{name}_avg"] = (n,)
            shapes[f"fitting_net.{name}_inv_std"] = (n,)
    if nc:
        shapes["fitting_net.case_embd"] = (nc,)
    if fit["default_fparam"] is not None:
        shapes["fitting_net.default_fparam_tensor"] = (nf,)
