"""Attention of a centre over the g1 of its neighbours (theory 8.10). nh = attn1_nhead, nd = attn1_hidden.

    q_h[d] = (g1_i Wq)[d * nh + h] ;   kv = g1_j Wkv :   k_h[d] = kv[d * nh + h],   v_h[c] = kv[(nd + c) * nh + h]
    S_he = q_h . k_he / sqrt(nd)
    smooth:      b = (S + 20) sw_e ;   P = exp(b) / (sum_e' exp(b) + p) ;   A = P sw_e
    non-smooth:  A = softmax over the edges e of S
    o[h * n1 + c] = sum_e A_he v_he[c]        (HEAD-major, unlike the pair attention) ;   LA_i = o Wo + bo

p is the number of padded slots of the centre. An atom without neighbours gets LA_i = bo.
"""

from __future__ import annotations

import math

import numpy as np

from .common import Array, Config, Weights
from .g2_embed import RepformerEdges
from .linear import linear
from .pair_attention import SHIFT, softmax


def local_attention(g1: Array, geometry: RepformerEdges, config: Config, weights: Weights, name: str) -> Array:
    """(n, n1) LA of every atom; ``name`` is the prefix of the layer."""
    option, smooth, edges = config["repformer"], config["smooth"], geometry.edges
    nh, nd = option["attn1_nhead"], option["attn1_hidden"]
    n, n1 = g1.shape
    q = linear(g1, weights, f"{name}.loc_attn.mapq", bias=False).reshape(n, nd, nh).transpose(0, 2, 1)
    # Keys and values are functions of the neighbour alone: computed per atom, not per edge.
    kv = linear(g1, weights, f"{name}.loc_attn.mapkv", bias=False).reshape(n, nd + n1, nh).transpose(0, 2, 1)
    k, v = kv[:, :, :nd], kv[:, :, nd:]
    o = np.zeros((n, nh, n1), dtype=np.result_type(g1, geometry.sw))
    for i in range(n):
        own = edges.of(i)
        if own.start == own.stop:
            continue
        j, sw = edges.j[own], geometry.sw[own]
        s = np.einsum("hd,ehd->he", q[i], k[j]) / math.sqrt(nd)
        a = softmax((s + SHIFT) * sw, int(geometry.pad[i])) * sw if smooth else softmax(s, 0)
        o[i] = np.einsum("he,ehc->hc", a, v[j])
    return linear(o.reshape(n, nh * n1), weights, f"{name}.loc_attn.head_map")
