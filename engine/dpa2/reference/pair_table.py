"""Energies of pairs by their distance, from a table of cubic polynomials (theory 9.7).

    q = (r - rmin) / step,   k = floor(q),   f = q - k,   (a3, a2, a1, a0) = tab_data[t_i, t_j, min(k, nspline - 1)]
    u(r) = ((a3 f + a2) f + a1) f + a0         0 if k > nspline, r >= rcut or r >= rmin + nspline step
    E_i = 1/2 sum_e u(r_e)

A pair nearer than rmin is an error. A table that does not end at 0 ends with a jump.
"""

from __future__ import annotations

import numpy as np

from dpa2.errors import InputError

from .common import Array, Config, EdgeList, IntArray, segment_sum


def pair_table(edges: EdgeList, types: IntArray, option: Config, table: Array) -> Array:
    """(n) atomic energies (eV); option is the configuration of the table, table (ntypes, ntypes, nspline, 4) eV."""
    r = edges.r
    near = r.real < option["rmin"]
    if near.any():
        e = int(np.argmax(near))
        raise InputError(
            f"atoms {edges.i[e]} and {edges.j[e]} are {r[e].real:g} angstrom from each other, nearer than the pair "
            f"table begins ({option['rmin']:g} angstrom)"
        )
    nspline, step = option["nspline"], option["step"]
    q = (r - option["rmin"]) / step
    k = np.floor(q.real).astype(np.int64)
    f = q - k
    a3, a2, a1, a0 = table[types[edges.i], types[edges.j], np.minimum(k, nspline - 1)].T
    u = ((a3 * f + a2) * f + a1) * f + a0
    ends = (k > nspline) | (r.real >= option["rcut"]) | (r.real >= option["rmin"] + nspline * step)
    return 0.5 * segment_sum(np.where(ends, 0.0, u), edges.start)
