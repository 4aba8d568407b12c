"""The type embedding: one vector per element of the type map (theory 3).

    X = identity(ntypes), or the (ntypes, 118) table of electron configurations with use_econf_tebd
    T = X W (+ b with use_tebd_bias) ;   T += X if tebd_dim == in ;   T += [X, X] if tebd_dim == 2 in

No activation. The skip appears whenever the widths happen to match, also with one-hot input.
"""

from __future__ import annotations

import numpy as np

from .common import Array, Config, Weights
from .embedding_net import skip
from .linear import linear


def type_embedding(config: Config, weights: Weights) -> Array:
    """(ntypes, tebd_dim) the embedding table."""
    descriptor = config["descriptor"]
    name = "descriptor.type_embedding.embedding.embedding_net.layers.0"
    x = weights["descriptor.econf_tebd"] if descriptor["use_econf_tebd"] else np.eye(len(config["type_map"]))
    return skip(linear(x, weights, name, bias=descriptor["use_tebd_bias"]), x)
