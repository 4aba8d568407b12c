"""The fitting net: coefficients of every atom from its descriptor (theory 9.1, 9.5).

    x = [ desc_i ; (fparam - fparam_avg) * fparam_inv_std ; (aparam_i - aparam_avg) * aparam_inv_std ; case_embd ]

Absent parts are skipped, aparam also with use_aparam_as_mask. One net for all types: hidden layers with skips and idt
(embedding_net), then a linear layer of as many columns as the type of the net needs.

    y_i = net(x) - [ net(x with desc_i = 0) if any entry of atom_ener is set ] + bias_atom_e[t_i]
    z_i = y_i + out_bias[t_i]                              ener, dos
    z_i = y_i * out_std[q_i] + out_bias[q_i]               property, q_i = t_i with distinguish_types, else 0
    z_i = y_i * scale[t_i]                                 polar
    z_i = y_i                                              dipole, population

times 0 for virtual atoms and for atom_exclude_types, which still act as neighbours.
"""

from __future__ import annotations

import numpy as np

from .activation import activation
from .common import Array, Config, IntArray, Weights
from .embedding_net import embedding_net
from .linear import linear

_NET = "fitting_net.filter_layers.networks.0"


def fitting_input(
    descriptor: Array, fparam: Array | None, aparam: Array | None, option: Config, weights: Weights
) -> Array:
    """(n, in) the complete input x of the net. Arguments as for `fitting`; option is config["fitting_net"]."""
    n = len(descriptor)
    parts = [descriptor]
    if option["numb_fparam"]:
        frame = (fparam - weights["fitting_net.fparam_avg"]) * weights["fitting_net.fparam_inv_std"]
        parts.append(np.broadcast_to(frame, (n, option["numb_fparam"])))
    if option["numb_aparam"] and not option["use_aparam_as_mask"]:
        parts.append((aparam - weights["fitting_net.aparam_avg"]) * weights["fitting_net.aparam_inv_std"])
    if option["dim_case_embd"]:
        parts.append(np.broadcast_to(weights["fitting_net.case_embd"], (n, option["dim_case_embd"])))
    return np.concatenate(parts, axis=1)


def last_hidden(x: Array, option: Config, weights: Weights) -> Array:
    """(n, neuron[-1]) what the last hidden layer makes of x (n, in); x itself if there is none."""
    phi = activation(option["activation_function"])
    return embedding_net(x, weights, _NET, len(option["neuron"]), phi, option["resnet_dt"])


def fitting_net(x: Array, option: Config, weights: Weights) -> Array:
    """(n, width) the net on its complete input x (n, in)."""
    return linear(last_hidden(x, option, weights), weights, f"{_NET}.layers.{len(option['neuron'])}")


def fitting(
    descriptor: Array,
    types: IntArray,
    active: Array,
    fparam: Array | None,
    aparam: Array | None,
    config: Config,
    weights: Weights,
) -> Array:
    """(n, width) coefficients z; of energy models (n, 1) atomic energies, eV.

    descriptor (n, dim); types (n); active (n) 1 or 0; fparam (numb_fparam) and aparam (n, numb_aparam), as the model
    wants them; config is that of the whole model.
    """
    option = config["fitting_net"]
    x = fitting_input(descriptor, fparam, aparam, option, weights)
    y = fitting_net(x, option, weights)
    if any(value is not None for value in option["atom_ener"]):
        vacuum = x.copy()
        vacuum[:, : descriptor.shape[1]] = 0.0
        y = y - fitting_net(vacuum, option, weights)
    y = y + weights["fitting_net.bias_atom_e"][types]
    out: Array = of_type(y, types, option, weights) * active[:, None]
    return out


def of_type(y: Array, types: IntArray, option: Config, weights: Weights) -> Array:
    """(n, width) z of y: what the type of the net adds, by the types (n) of the atoms."""
    kind, z = option["type"], y
    if kind in ("ener", "dos"):
        z = y + weights["out_bias"][0, types]
    elif kind == "property":
        row = types if option["distinguish_types"] else np.zeros_like(types)
        z = y * weights["out_std"][0, row] + weights["out_bias"][0, row]
    elif kind == "polar":
        z = y * np.asarray(option["scale"])[types, None]
    return z
