"""One repformer layer: (g1, g2, h2) -> (g1, g2, h2) (theory 8.1-8.11).

All terms use the layer's INPUT; the last layer updates g1 only.

S_i = phi(g1_i Wself + bself)                                             (g1_out_mlp)
cat = [ g1_i if not g1_out_mlp ; conv_i if update_g1_has_conv and not g1_out_conv ; grrg ; drrd ]
Y_i = phi(cat W1 + b1)

updates of g1:  [ S_i ; conv_i if g1_out_conv ; Y_i ; LA_i ]              (the present ones, in this order)
updates of g2:  [ phi(g2_e W2 + b2) ; (w_e * g1_i * g1_j) Wgg ; pair attention ]
updates of h2:  [ dh of the pair attention ]
"""

from __future__ import annotations

import numpy as np

from .activation import activation
from .common import Array, Config, Weights
from .conv import conv
from .g2_embed import RepformerEdges
from .linear import linear
from .local_attention import local_attention
from .pair_attention import pair_attention
from .residual_update import residual_update
from .symmetrization import symmetrization


def repformer_layer(
    g1: Array,
    g2: Array,
    h2: Array,
    geometry: RepformerEdges,
    config: Config,
    weights: Weights,
    name: str,
    last: bool,
) -> tuple[Array, Array, Array]:
    """The channels after the layer called ``name``: g1 (n, n1), g2 (ne, n2), h2 (ne, 3)."""
    option, edges = config["repformer"], geometry.edges
    phi = activation(option["activation_function"])
    style, axis = option["update_style"], option["axis_neuron"]

    updates = []
    cat = []
    if option["g1_out_mlp"]:
        updates.append(phi(linear(g1, weights, f"{name}.g1_self_mlp")))
    else:
        cat.append(g1)
    if option["update_g1_has_conv"]:
        target = updates if option["g1_out_conv"] else cat
        target.append(conv(g1, g2, geometry, option["g1_out_conv"], weights, name))
    if option["update_g1_has_grrg"]:
        cat.append(symmetrization(g2, h2, geometry, axis))
    if option["update_g1_has_drrd"]:
        cat.append(symmetrization(g1[edges.j], h2, geometry, axis))
    updates.append(phi(linear(np.concatenate(cat, axis=1), weights, f"{name}.linear1")))
    if option["update_g1_has_attn"]:
        updates.append(local_attention(g1, geometry, config, weights, name))
    g1_new = residual_update(g1, updates, style, weights, f"{name}.g1_residual")
    if last:
        return g1_new, g2, h2

    updates = [phi(linear(g2, weights, f"{name}.linear2"))]
    if option["update_g2_has_g1g1"]:
        product = geometry.w[:, None] * g1[edges.i] * g1[edges.j]
        updates.append(linear(product, weights, f"{name}.proj_g1g1g2", bias=False))
    dg2, dh2 = pair_attention(g2, h2, geometry, config, weights, name)
    if dg2 is not None:
        updates.append(dg2)
    g2_new = residual_update(g2, updates, style, weights, f"{name}.g2_residual")
    h2_new = residual_update(h2, [] if dh2 is None else [dh2], style, weights, f"{name}.h2_residual")
    return g1_new, g2_new, h2_new
