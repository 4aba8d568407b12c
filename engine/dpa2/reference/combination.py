"""Energies of several models on one structure: linear_ener and zbl (theory 9.8).

    linear_ener:   E_i = m_i { sum_k weights[k] E_i(k) + out_bias[t_i] }
    zbl:           E_i = m_i { (1 - w_i) E_i(0) + w_i E_i(1) + out_bias[t_i] }          (zbl.py)

E_i(k) are whole atomic energies of the children, with their own biases. m_i is 0 for virtual atoms and for
atom_exclude_types of the whole. Children know no exclusions but those of their descriptors; pair_exclude_types of the
whole take pairs from all lists. Every child has its own types, found by their names, and its own list, cut from those
of the children with larger cutoffs (neighbors.py).
"""

from __future__ import annotations

import numpy as np

from .common import Array, Config, EdgeList
from .zbl import interpolated


def combined(energies: list[Array], lists: list[EdgeList], config: Config) -> Array:
    """(n) the energies (eV) of atoms from those of the children; lists, of zbl: their whole neighbour lists."""
    if config["type"] == "zbl":
        return interpolated(energies[0], energies[1], lists[1], config)
    total: Array = np.sum([w * e for w, e in zip(config["weights"], energies, strict=True)], axis=0)
    return total
