"""Spin models: from definitions to an energy network that has every type a second time, for virtual atoms.

deepmd-kit implies much of that network: which pairs of its types are excluded, that virtual atoms have no energies, and
a protection of distances, for virtual atoms may stand on atoms. A checkpoint says what the user wrote, a frozen file
and a tree say what the network is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import config
from dpa2.files.kinds import SUPPORTED, mapping, shown

#: angstrom: where a definition gives none
PROTECTION = 0.01
_SECTION = {"use_spin", "virtual_scale"}
#: not looked at by those models of deepmd-kit that have virtual atoms
_IGNORED = {"scheme", "spin_norm", "virtual_len"}
_INCONSISTENT = "the model definition is inconsistent"


def as_parts(params: Mapping[str, Any]) -> dict[str, Any]:
    """A definition with a section `spin` in the form of one with `models`: the network and what is made of it."""
    types = config.types_of(params.get("type_map"), "type_map")
    section = mapping(params["spin"], "spin")
    if section.get("allow_missing_label"):
        raise UnsupportedModelError(
            f"spin.allow_missing_label is set, which deepmd-kit has for DPA-4 only; {SUPPORTED}"
        )
    config.refuse_unknown(section, _SECTION | _IGNORED | {"allow_missing_label"}, "spin")
    magnetic = _magnetic(section, types)
    descriptor = mapping(params.get("descriptor", {}), "descriptor")
    if descriptor.get("type") == "hybrid":
        raise UnsupportedModelError(f"a spin model of a hybrid descriptor (descriptor.type 'hybrid'); {SUPPORTED}")
    descriptor.pop("exclude_types", None)  # deepmd-kit puts those of the model in their place
    if descriptor.get("env_protection", 0) == 0:
        descriptor["env_protection"] = PROTECTION
    part = {**params, "type_map": doubled(types), "descriptor": descriptor}
    keys = ("type_map", "pair_exclude_types", "atom_exclude_types", "shared_dict")
    return {
        **{key: params[key] for key in keys if key in params},
        "type": "spin",
        "use_spin": magnetic,
        "virtual_scale": _scales(section, magnetic, len(types)),
        "models": [{key: part[key] for key in ("type_map", "descriptor", "fitting_net") if key in part}],
    }


def doubled(types: Sequence[str]) -> list[str]:
    """The types of the network."""
    return [*types, *(f"{name}_spin" for name in types)]


def _magnetic(section: Mapping[str, Any], types: list[str]) -> list[int]:
    """The types that have spins, from a flag per type, their indices, or their names."""
    if "use_spin" not in section:
        raise ModelFileError("the model definition is incomplete: spin.use_spin is missing")
    given, known = section["use_spin"], range(len(types))
    wanted = f"{len(types)} booleans, or indices or names of types"
    if not isinstance(given, list) or len(given) > len(types):
        found = f"a list of {len(given)}" if isinstance(given, list) else shown(given)
        raise ModelFileError(f"{_INCONSISTENT}: spin.use_spin is {found}, expected {wanted}")
    if all(isinstance(entry, bool) for entry in given) and given:
        if len(given) != len(types):
            raise ModelFileError(f"{_INCONSISTENT}: spin.use_spin is a list of {len(given)}, expected {wanted}")
        return [k for k in known if given[k]]
    found_types = []
    for k, entry in enumerate(given):
        index = types.index(entry) if isinstance(entry, str) and entry in types else entry
        if isinstance(index, bool) or not isinstance(index, int) or index not in known:
            raise ModelFileError(f"{_INCONSISTENT}: spin.use_spin[{k}] is {shown(entry)}, expected {wanted}")
        found_types.append(index)
    return sorted(set(found_types))


def _scales(section: Mapping[str, Any], magnetic: list[int], ntypes: int) -> list[Any]:
    """Of every type, 0 without spins: from one number for all, a list per type, or one per type with spins."""
    if section.get("virtual_scale") is None:
        raise ModelFileError("the model definition is incomplete: spin.virtual_scale is missing")
    given = section["virtual_scale"]
    if isinstance(given, float):
        given = [given] * ntypes
    if not isinstance(given, list) or len(given) not in (ntypes, len(magnetic)):
        found = f"a list of {len(given)}" if isinstance(given, list) else shown(given)
        raise ModelFileError(
            f"{_INCONSISTENT}: spin.virtual_scale is {found}, expected a list of {ntypes} numbers, one per type, or of "
            f"{len(magnetic)}, one per type with spins, or one number with a decimal point"
        )
    own = {t: given[t if len(given) == ntypes else k] for k, t in enumerate(magnetic)}
    return [own.get(t, 0.0) for t in range(ntypes)]


def from_network(definition: Mapping[str, Any], use_spin: Sequence[bool], scales: Sequence[float]) -> dict[str, Any]:
    """A definition with a section `spin`, from that of the network, which says all that is implied.

    Args:
        definition: of the network.
        use_spin: whether types have spins.
        scales: of every type; those of types without spins do not matter.
    """
    ntypes = len(use_spin)
    types = config.types_of(definition.get("type_map"), "type_map")
    if types != doubled(types[:ntypes]):
        raise ModelFileError(
            f"corrupt or inconsistent file: a spin model of {ntypes} types has a network of the types "
            f"{' '.join(types)[:100]}, expected each twice, the second time with _spin behind its name"
        )
    if len(scales) != ntypes:
        raise ModelFileError(f"corrupt file: spin.virtual_scale has {len(scales)} entries, expected {ntypes}")
    without = [ntypes + t for t in range(ntypes) if not use_spin[t]]
    implied_pairs = {(min(p, t), max(p, t)) for p in without for t in range(2 * ntypes)}
    pairs = _pairs(definition.get("pair_exclude_types"), "pair_exclude_types")
    atoms = set(_entries(definition.get("atom_exclude_types"), "atom_exclude_types"))
    own_pairs = {pair for pair in pairs if pair[1] < ntypes}
    own_atoms = {t for t in atoms if t < ntypes}
    descriptor = mapping(definition.get("descriptor", {}), "descriptor")
    by_descriptor = _pairs(descriptor.pop("exclude_types", None), "descriptor.exclude_types")
    if (
        pairs - own_pairs != implied_pairs
        or not by_descriptor <= pairs
        or atoms - own_atoms != {*range(ntypes, 2 * ntypes)}
    ):
        raise UnsupportedModelError(
            "the network of this spin model excludes other types than deepmd-kit's builder makes it exclude"
        )
    return {
        "type_map": types[:ntypes],
        "pair_exclude_types": [list(pair) for pair in sorted(own_pairs)],
        "atom_exclude_types": sorted(own_atoms),
        "descriptor": descriptor,
        "fitting_net": definition.get("fitting_net", {}),
        "spin": {"use_spin": list(use_spin), "virtual_scale": list(scales)},
    }


def _entries(value: Any, where: str) -> list[int]:
    entries = [] if value is None else value
    if not isinstance(entries, (list, tuple)) or not all(type(entry) is int for entry in entries):
        raise ModelFileError(f"corrupt file: {where} is no list of types")
    return list(entries)


def _pairs(value: Any, where: str) -> set[tuple[int, int]]:
    rows = [] if value is None else value
    if not isinstance(rows, (list, tuple)):
        raise ModelFileError(f"corrupt file: {where} is no list of pairs of types")
    pairs = [_entries(row, where) for row in rows]
    if not all(len(pair) == 2 for pair in pairs):
        raise ModelFileError(f"corrupt file: {where} is no list of pairs of types")
    return {(min(pair), max(pair)) for pair in pairs}
