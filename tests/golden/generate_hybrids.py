"""Make `hybrids/`: models of hybrid descriptors with deepmd-kit's answers, and their files.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_hybrids.py                   # all cases, into tests/golden/hybrids
    python tests/golden/generate_hybrids.py hybrid_dipole     # these only

The cases are those of `hybrid_cases`; weights, systems and files are made as those of `generate_kinds`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import generate
import generate_kinds
import numpy as np
import torch
from generate_kinds import (
    canonical_weights,
    distances,
    evaluate,
    float32_errors,
    largest,
    make_systems,
    write_files,
)
from hybrid_cases import FILES, HYBRID_CASES, HybridCase
from kind_cases import networks


def lists(descriptor: dict[str, Any]) -> list[tuple[float, list[int]]]:
    """(rcut, slots, or slots of every type) of all lists, that of the whole first."""
    found: list[tuple[float, list[int]]] = []
    for member in descriptor["list"]:
        if member["type"] == "hybrid":
            found += lists(member)
        elif member["type"] == "dpa2":
            found += [
                (member[block][rcut], [member[block][nsel]])
                for block, rcut, nsel, _ in generate.BLOCKS
                if "three" not in rcut or member[block]["use_three_body"]
            ]
        else:
            found.append((member["rcut"], np.atleast_1d(member["sel"]).tolist()))
    return [(max(rcut for rcut, _ in found), [max(sum(slots) for _, slots in found)]), *found]


def check_neighbours(case: HybridCase, systems: dict[str, dict[str, np.ndarray]]) -> None:
    """A list is cut exactly where the case says so, and never between neighbours at the same distance."""
    everything = [child["descriptor"] for child in networks(case.config)]
    binds = False
    for descriptor in everything:
        binds |= binding(case, lists({"list": [descriptor]}), systems)
    assert binds == case.binding, f"{case.name}: a list {'is' if binds else 'is not'} cut"


def binding(case: HybridCase, found: list[tuple[float, list[int]]], systems: dict[str, dict[str, np.ndarray]]) -> bool:
    """Whether a list is cut; raises where that is between neighbours at the same distance."""
    binds = False
    for system in systems.values():
        for r, types in distances(system):
            for rcut, slots in found:
                for kind, most in enumerate(slots):
                    within = (r > 1e-9) & (r < found[0][0])
                    near = np.sort(r[within & (types == kind)] if len(slots) > 1 else r[within])
                    cut = bool((near < rcut).sum() > most)
                    binds |= cut
                    if cut or (case.davg and len(near) > most):  # with davg also slots beyond the cutoff count
                        assert near[most] - near[most - 1] > 1e-6, f"{case.name}: a tie"
    return binds


def generate_case(case: HybridCase) -> None:
    model = generate_kinds.build(case, None)
    systems = make_systems(case)
    check_neighbours(case, systems)
    weights = canonical_weights(model)
    for name, module in model.atomic_model.named_modules():  # these are no entries of the state
        if name.endswith("type_embedding.embedding") and module.econf_tebd is not None:
            place = name.removesuffix(".type_embedding.embedding")
            weights[f"{place}.econf_tebd"] = module.econf_tebd.detach().numpy()
    answers = {name: evaluate(model, case, system) for name, system in systems.items()}
    errors = float32_errors(case, {k: w for k, w in weights.items() if "econf" not in k}, systems, answers)
    np.savez_compressed(case.golden, **generate.content(case.config, weights, systems, answers, errors))
    print(f"{case.name:16s} {case.golden.stat().st_size / 1024:6.1f} kB  {largest(answers)}", flush=True)
    if case.formats:
        write_files([(case, model)], FILES / case.folder)


def main() -> None:
    torch.set_num_threads(1)
    FILES.mkdir(parents=True, exist_ok=True)
    for case in HYBRID_CASES:
        if len(sys.argv) == 1 or case.name in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as work, generate_kinds.working_directory(Path(work)):
                generate_case(case)


if __name__ == "__main__":
    main()
