"""From the environments of the atoms to the first g1 and g2, and back to the gradients of the edge vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .device import Array
from .geometry import BlockList, Geometry
from .launcher import BLOCK, Launcher
from .prepared import Prepared, Statistics


@dataclass
class EntryState:
    """What the forward leaves for the layers and for the backward."""

    R_repinit: Array
    sw_repinit: Array
    M: Array
    x: Array
    w: Array  # (edges of the repformer) weight of an edge in sums
    kappa_n: Array  # (n) normalisation of the convolution
    kappa_h: Array  # (n) normalisation of the symmetrisation
    dphi: Array | None
    g1: Array
    g2: Array
    h2: Array
    R_three: Array = None
    sw_three: Array = None


def _env_mat(
    run: Launcher, name: str, geometry: Geometry, block: BlockList | None, stats: Statistics
) -> tuple[Array, Array]:
    count = geometry.nedge if block is None else block.count
    R, sw = run.array(f"R_{name}", count, 4), run.array(f"sw_{name}", count)
    run.run(
        *("env_mat.cu", "env_mat", -(-count // BLOCK), count, R, sw, geometry.lists.d, geometry.lists.r),
        *(None if block is None else block.edge, geometry.lists.centre, geometry.types, stats.mean, stats.inv_std),
        *(stats.rcut_smth, stats.inv_width, stats.protection),
    )
    return R, sw


def _env_mat_backward(
    run: Launcher,
    gamma: Array,
    geometry: Geometry,
    block: BlockList | None,
    stats: Statistics,
    dR: Array,
    dsw: Array | None,
    direct: float = 0.0,
) -> None:
    count = geometry.nedge if block is None else block.count
    run.run(
        *("env_mat.cu", "env_mat_backward", -(-count // BLOCK), count, gamma, int(block is not None), dR, dsw),
        *(geometry.lists.d, geometry.lists.r, None if block is None else block.edge, geometry.lists.centre),
        *(geometry.types, stats.inv_std, stats.rcut_smth, stats.inv_width, stats.protection, direct),
    )


def _normalisations(model: Prepared, run: Launcher, geometry: Geometry) -> tuple[Array, Array]:
    """kappa_n and kappa_h of every atom."""
    xp, nsel, sqrt = run.device.xp, float(model.option["nsel"]), bool(model.option["use_sqrt_nnei"])
    kappa_n, kappa_h = run.array("kappa_n", geometry.natoms), run.array("kappa_h", geometry.natoms)
    if model.smooth:
        kappa_n.fill(1.0 / nsel)
        kappa_h.fill(nsel**-0.5 if sqrt else 1.0 / nsel)
    else:
        count = geometry.lists.n_repformer.astype(np.float64)
        kappa_n[...] = 1.0 / (1e-4 + count)
        kappa_h[...] = 1.0 / (1e-4 + (xp.sqrt(count) if sqrt else count))
    return kappa_n, kappa_h


def _repinit_shared(model: Prepared, run: Launcher, copies: int) -> int:
    return run.numbers(4 * model.ng + 5 * run.lanes + copies * model.net_repinit.shared(run.lane_row))


def _three_shared(model: Prepared, run: Launcher, most: int, copies: int) -> int:
    numbers = (4 if copies == 1 else 8) * (most + 1) + (3 if copies == 1 else 5) * run.lanes + model.n3
    return run.numbers(numbers + copies * model.net_three.shared(run.lane_row), run.lanes + most + 1)


def forward_entry(model: Prepared, run: Launcher, geometry: Geometry, gradient: bool) -> EntryState:
    """Environment matrices, descriptor of the moments, g1, and the repformer's edges."""
    n, lists, types = geometry.natoms, geometry.lists, geometry.types
    R_repinit, sw_repinit = _env_mat(run, "repinit", geometry, None, model.stats_repinit)
    D, M = run.array("D", n, model.nd), run.array("M", n, 4, model.ng)
    gate_switch = int(model.smooth)
    run.run(
        *("repinit.cu", "repinit", n, model.ng, model.axis_repinit, model.ntypes, int(model.one_side), gate_switch),
        *(model.inv_nsel, model.nd, D, M, R_repinit, sw_repinit, lists.start, lists.j, types),
        *(*model.net_repinit.arrays, model.net_repinit.gate, lists.pad_repinit, model.pad_R, model.pad_G),
        shared=_repinit_shared(model, run, 1),
        defines=model.net_repinit.defines,
    )
    R_three = sw_three = None
    if geometry.three is not None:
        three = geometry.three
        R_three, sw_three = _env_mat(run, "three", geometry, three, model.stats_three)
        run.run(
            *("three_body.cu", "three_body", n, model.n3, model.ntypes, gate_switch, model.inv_nsel_squared, model.nd),
            *(model.nd - model.n3, three.most, D, R_three, sw_three, three.start, three.edge, lists.j, types),
            *(*model.net_three.arrays, model.net_three.gate, lists.pad_three, model.pad_v),
            shared=_three_shared(model, run, three.most, 1),
            defines=model.net_three.defines,
        )
    g1 = run.array("g1_0", n, model.n1)
    z = D
    if model.shape is not None:
        z = run.array("entry_z", n, model.n1)
        run.gemm(D, model.shape, z)
    dphi = run.array("entry_dphi", n, model.n1) if gradient else None
    run.each(
        *("linear.cu", "entry_activation", n * model.n1, model.n1, g1, dphi, z, model.tebd_term, types),
        defines=model.act,
    )
    rep = geometry.rep
    R, sw = _env_mat(run, "repformer", geometry, rep, model.stats_repformer)
    g2, h2 = run.array("g2_0", rep.count, model.n2), run.array("h2_0", rep.count, 3)
    x, w = run.array("x", rep.count), run.array("w", rep.count)
    run.run(
        *("g2_embed.cu", "g2_embed", -(-rep.count * model.n2 // BLOCK), rep.count, model.n2, int(model.smooth)),
        *(model.direct, g2, h2, x, w, R, sw, lists.d, lists.r, rep.edge, model.g2_w, model.g2_b),
        defines=model.act,
    )
    kappa_n, kappa_h = _normalisations(model, run, geometry)
    return EntryState(R_repinit, sw_repinit, M, x, w, kappa_n, kappa_h, dphi, g1, g2, h2, R_three, sw_three)


def backward_entry(
    model: Prepared,
    run: Launcher,
    geometry: Geometry,
    state: EntryState,
    dg1: Array,
    dg2: Array,
    dh2: Array,
    dw: Array,
    name: str,
) -> Array:
    """gamma (ne, 3): the gradient of every edge vector, given those of the first g1 (n, n1), g2, h2 and w."""
    n, lists, types, rep = geometry.natoms, geometry.lists, geometry.types, geometry.rep
    gamma = run.array(name, geometry.nedge, 3)
    dy = run.array("entry_dy", n, model.n1)
    run.each("linear.cu", "entry_activation_backward", n * model.n1, dy, dg1, state.dphi, defines=model.act)
    dD = dy
    if model.shape is not None:
        dD = run.array("dD", n, model.nd)
        run.gemm(dy, model.shape, dD, transpose_b=True)
    gate_switch = int(model.smooth)
    dR, dsw = run.array("dR", geometry.nedge, 4), run.array("dsw", geometry.nedge)
    run.run(
        *("repinit.cu", "repinit_backward", n, model.ng, model.axis_repinit, model.ntypes, int(model.one_side)),
        gate_switch,
        *(model.inv_nsel, model.nd, dR, dsw, dD, state.M, state.R_repinit, state.sw_repinit),
        *(lists.start, lists.j, types, *model.net_repinit.arrays, model.net_repinit.gate),
        shared=_repinit_shared(model, run, 2),
        defines=model.net_repinit.defines,
    )
    _env_mat_backward(run, gamma, geometry, None, model.stats_repinit, dR, dsw)
    if geometry.three is not None:
        three = geometry.three
        dR, dsw = run.array("dR", three.count, 4), run.array("dsw", three.count)
        run.run(
            *("three_body.cu", "three_body_backward", n, model.n3, model.ntypes, gate_switch, model.inv_nsel_squared),
            *(model.nd, model.nd - model.n3, three.most, dR, dsw, dD, state.R_three, state.sw_three),
            *(three.start, three.edge, lists.j, types, *model.net_three.arrays, model.net_three.gate),
            *(lists.pad_three, model.pad_v),
            shared=_three_shared(model, run, three.most, 2),
            defines=model.net_three.defines,
        )
        _env_mat_backward(run, gamma, geometry, three, model.stats_three, dR, dsw)
    dR = run.array("dR", rep.count, 4)
    run.warps(
        *("g2_embed.cu", "g2_embed_backward", rep.count, model.n2, dR, dg2, dh2, state.x, model.g2_w, model.g2_b),
        defines=model.act,
    )
    _env_mat_backward(run, gamma, geometry, rep, model.stats_repformer, dR, dw if model.smooth else None, model.direct)
    return gamma
