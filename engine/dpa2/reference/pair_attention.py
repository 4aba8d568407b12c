"""Attention between the edges of a centre, and what it updates: g2 and h2 (theory 8.5-8.7).

nh = attn2_nhead, nd = attn2_hidden.

The map: y = g2 Wqk viewed as (nd, 2 nh), last axis fastest: q_h[d] = y[d * 2nh + h], k_h[d] = y[d * 2nh + nh + h].

    S_hjk = q_hj . k_hk / sqrt(nd) ;   u = S * (h2_j . h2_k) with attn2_has_gate, else S
    smooth:      b = (u + 20) sw_j sw_k ;   P_hjk = exp(b_hjk) / (sum_k' exp(b_hjk') + p) ;   A = P sw_j sw_k
    non-smooth:  A = P = softmax over the edges k of u
    Rt_hjk = A_hjk (h2_j . h2_k) / sqrt(3)

p is the number of padded slots of the centre: each has the logit 0 in these units.

The multi-head apply: v_h[c] = (g2 Wv)[c * nh + h] ;   o_j[c * nh + h] = sum_k Rt_hjk v_hk[c] ;   z_j = o_j Wo + bo ;
then LayerNorm: zh = (z - <z>) / sqrt(<(z - <z>)^2> + ln_eps) ;   out = zh * gain + shift.

The update of h2: dh_j = sum_h wev[h] sum_k Rt_hjk h2_k.
"""

from __future__ import annotations

import math

import numpy as np

from .common import Array, Config, Weights
from .g2_embed import RepformerEdges
from .linear import linear

SHIFT = 20.0


def softmax(logits: Array, pad: int) -> Array:
    """Softmax over the last axis, with ``pad`` further entries of logit 0 in the denominator."""
    top = logits.real.max(axis=-1, keepdims=True)
    if pad > 0:
        top = np.maximum(top, 0.0)
    exp = np.exp(logits - top)
    total = exp.sum(axis=-1, keepdims=True)
    if pad > 0:
        total = total + pad * np.exp(-top)
    out: Array = exp / total
    return out


def attention_map(
    g2: Array, h2: Array, sw: Array, pad: int, smooth: bool, option: Config, weights: Weights, name: str
) -> Array:
    """(nh, m, m) Rt of the m edges of one centre: g2 (m, n2), h2 (m, 3), sw (m)."""
    nh, nd = option["attn2_nhead"], option["attn2_hidden"]
    y = linear(g2, weights, f"{name}.attn2g_map.mapqk", bias=False).reshape(-1, nd, 2 * nh)
    q, k = y[:, :, :nh].transpose(2, 0, 1), y[:, :, nh:].transpose(2, 0, 1)
    product = h2 @ h2.T
    u = q @ k.transpose(0, 2, 1) / math.sqrt(nd)
    if option["attn2_has_gate"]:
        u = u * product
    if smooth:
        switches = sw[:, None] * sw[None, :]
        a = softmax((u + SHIFT) * switches, pad) * switches
    else:
        a = softmax(u, 0)
    rt: Array = a * product / math.sqrt(3.0)
    return rt


def layer_norm(z: Array, gain: Array, shift: Array, eps: float) -> Array:
    """LayerNorm over the last axis, with the biased variance."""
    centred = z - z.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    out: Array = centred / np.sqrt(variance + eps) * gain + shift
    return out


def multi_head_apply(rt: Array, g2: Array, option: Config, weights: Weights, name: str) -> Array:
    """(m, n2) the update of g2 for the edges of one centre, from rt (nh, m, m)."""
    m, n2 = g2.shape
    nh = option["attn2_nhead"]
    v = linear(g2, weights, f"{name}.attn2_mh_apply.mapv", bias=False).reshape(m, n2, nh).transpose(2, 0, 1)
    o = (rt @ v).transpose(1, 2, 0).reshape(m, n2 * nh)
    z = linear(o, weights, f"{name}.attn2_mh_apply.head_map")
    return layer_norm(z, weights[f"{name}.attn2_lm.matrix"], weights[f"{name}.attn2_lm.bias"], option["ln_eps"])


def equivariant_apply(rt: Array, h2: Array, weights: Weights, name: str) -> Array:
    """(m, 3) the update of h2 for the edges of one centre, from rt (nh, m, m)."""
    wev = weights[f"{name}.attn2_ev_apply.head_map.matrix"][:, 0]
    return np.tensordot(wev, rt, axes=1) @ h2


def pair_attention(
    g2: Array, h2: Array, geometry: RepformerEdges, config: Config, weights: Weights, name: str
) -> tuple[Array | None, Array | None]:
    """Updates of g2 (ne, n2) and of h2 (ne, 3), each None where the model does not have it; ``name``: the layer."""
    option = config["repformer"]
    with_g2, with_h2 = option["update_g2_has_attn"], option["update_h2"]
    if not (with_g2 or with_h2):
        return None, None
    dg2, dh2 = np.empty_like(g2, dtype=np.result_type(g2, h2)), np.empty_like(h2, dtype=np.result_type(g2, h2))
    for i in range(geometry.edges.natoms):
        own = geometry.edges.of(i)
        if own.start == own.stop:
            continue
        pad = int(geometry.pad[i])
        rt = attention_map(g2[own], h2[own], geometry.sw[own], pad, config["smooth"], option, weights, name)
        if with_g2:
            dg2[own] = multi_head_apply(rt, g2[own], option, weights, name)
        if with_h2:
            dh2[own] = equivariant_apply(rt, h2[own], weights, name)
    return (dg2 if with_g2 else None), (dh2 if with_h2 else None)
