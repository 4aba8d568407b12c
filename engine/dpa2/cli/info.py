"""``dpa2 info``: what a model file holds, and which kernels of a GPU this installation brings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import common
from .document import add_json_option, dump

EPILOG = """\
examples:
  dpa2 info                            the embedded model
  dpa2 info model.pth
  dpa2 info multitask.pt               lists the heads
  dpa2 info multitask.pt --head water
  dpa2 info model.dp --json            everything, for programs
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "info",
        help="what a model file holds",
        description="Print what a model file holds: types, cutoffs, architecture. Nothing in it is executed.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="model file (default: the embedded model of water)")
    parser.add_argument("--head", help="which model of a multi-task file")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..embedded import default_model_path
    from ..files import folder

    if args.model is not None:
        _show(str(folder.found(Path(args.model))), args.model, args)
    else:
        with default_model_path() as path:
            _show(str(path), "embedded water model", args)


def _show(path: str, name: str, args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ..cuda.packaged import packaged_kernels
    from ..files import detect, heads, read
    from ..files.schema import kind

    try:
        data = read(path, args.head)
    except InputError:
        found = heads(path) if args.head is None else []
        if not found:
            raise
        if args.json:
            dump({"path": path, "heads": found})
        else:
            print(f"{name}: a multi-task file with {len(found)} heads: {', '.join(found)}")
            print(f"choose one: dpa2 info {path} --head {found[0]}")
        return
    facts: dict[str, Any] = {
        "model": name,
        "path": path,
        "format": detect(Path(path)),
        "bytes": os.path.getsize(path) if os.path.isfile(path) else None,
        "head": data.config["head"],
        "kind": kind(data.config),
        "parameters": sum(int(array.size) for array in data.weights.values()),
        "config": data.config,
        "gpu_kernels": asdict(packaged_kernels()),
    }
    if args.json:
        dump(facts)
        return
    for key, value in describe(data.config, facts):
        print(f"{key:<14} {value}")
    print(f"{'GPU kernels':<14} {packaged_kernels()}")


def tables(compression: dict[str, Any]) -> str:
    """The tables of a compressed model, for people."""
    from ..files.compression import BLOCKS, intervals

    parts = [
        f"{name.replace('_', '-')} in {intervals(compression[name])} intervals"
        for name in BLOCKS
        if name in compression
    ]
    bound = compression["max_error"]
    return ", ".join(parts) + ("; made by deepmd-kit" if bound is None else f"; errors of at most {bound:g}")


def describe(config: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of the summary."""
    from ..files import schema

    type_map = config["type_map"]
    shown = " ".join(type_map[:20]) + (f" ... ({len(type_map)} types)" if len(type_map) > 20 else "")
    size = "" if facts["bytes"] is None else f", {facts['bytes'] / 1e6:.2f} MB"
    lines = [("model", f"{facts['model']} ({facts['format']}{size})")]
    if facts["head"] is not None:
        lines.append(("head", facts["head"]))
    kind = schema.kind(config)
    lines += [
        ("types", shown),
        ("kind", kind + _what(config)),
        *_outputs(config),
        ("precision", f"{config['precision']}, {facts['parameters']:,} parameters"),
    ]
    for key, what in (("atom_exclude_types", "atoms left out"), ("pair_exclude_types", "pairs left out")):
        if config[key]:
            lines.append((what, ", ".join(_names(entry, type_map) for entry in config[key])))
    if "models" not in config:
        lines += _network(config)
    for k, part in enumerate(config.get("models", [])):
        factor = f", times {config['weights'][k]:g}" if "weights" in config else ""
        doubled = config.get("type") == "spin"
        own = "" if doubled or part["type_map"] == type_map else f" of the types {' '.join(part['type_map'])}"
        if "descriptor" in part:
            seen = " of atoms and virtual atoms, sel is for both" if doubled else ""
            lines += [(f"models[{k}]", f"network{own}{factor}{seen}"), *_network(part)]
        else:
            lines += [(f"models[{k}]", f"table of pairs{own}{factor}"), *_pair_table(part)]
    lines += _needed(schema.base(config)["fitting_net"])
    if config["min_nbor_dist"] is not None:
        lines.append(("min distance", f"{config['min_nbor_dist']:.3f} angstrom in the training data"))
    return lines


def _outputs(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about what an evaluation computes, with its unit, or "" for that of the training data."""
    import json

    from .._native import outputs
    from ..results import Output

    found = [Output(*output) for output in outputs(json.dumps(config))]
    lines = []
    for what, per_atom in (("outputs", False), ("of atoms", True)):
        texts = []
        for output in found:
            if output.per_atom == per_atom and output.name not in ("descriptor", "rot_mat"):
                shape = " x ".join(map(str, output.shape)) if output.shape != (1,) else ""
                texts.append(" ".join(text for text in (output.name, shape, output.unit) if text))
        if texts:
            lines.append((what, ", ".join(texts)))
    if config.get("hessian_mode"):
        lines.append(("hessian", "3 natoms x 3 natoms eV/angstrom^2, on the CPU"))
    if not any(output.unit for output in found if output.name not in ("force", "descriptor", "rot_mat")):
        lines.append(("units", "those of the data that the model was trained on"))
    return lines


def _what(config: dict[str, Any]) -> str:
    if config.get("type") == "zbl":
        return (
            f": a network, and below {config['sw_rmax']:g} angstrom more and more the table, from "
            f"{config['sw_rmin']:g} down nothing else (softmin of the distances, {config['smin_alpha']:g} angstrom)"
        )
    if config.get("type") == "linear_ener":
        return f": a linear combination of {len(config['models'])} models"
    if config.get("type") == "spin":
        scales = [f"{config['type_map'][k]} {config['virtual_scale'][k]:g}" for k in config["use_spin"]]
        return ": energies that depend on spins, of virtual atoms at " + (
            f"{', '.join(scales)} angstrom per unit of spin" if scales else "their atoms: no type has spins"
        )
    option = config["fitting_net"]
    if option["type"] == "property":
        return f" {option['property_name']}, " + ("the mean of the atoms" if option["intensive"] else "a sum of atoms")
    if option["type"] == "polar":
        parts = ["diagonal" if option["fit_diag"] else "full matrix"]
        parts += ["shifted by the mean of each type"] if option["shift_diag"] else []
        if any(factor != 1.0 for factor in option["scale"]):
            parts.append("scaled by " + " ".join(f"{factor:g}" for factor in option["scale"]))
        return ": " + ", ".join(parts)
    return ""


def _names(entry: Any, type_map: list[str]) -> str:
    return "-".join(type_map[k] for k in entry) if isinstance(entry, list) else type_map[entry]


def _network(part: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about a descriptor and a fitting net."""
    from ..files import schema

    fitting, parts = part["fitting_net"], schema.descriptors(part)
    lines = []
    if schema.is_hybrid(part):
        kinds = ", ".join(one["type"] for one in parts)
        lines.append(("hybrid of", f"{kinds}: {sum(map(_width, parts))} numbers per atom"))
    for one in parts:
        lines += _dpa2(one) if one["type"] == "dpa2" else _block(one)
    hidden = "-".join(map(str, fitting["neuron"]))
    lines.append(("fitting", f"{hidden} {fitting['activation_function']}" if hidden else "linear: no hidden layers"))
    if part.get("compression"):
        lines.append(("compressed", tables(part["compression"])))
    return lines


def _width(descriptor: dict[str, Any]) -> int:
    """Numbers of an atom, of a descriptor that is no hybrid one."""
    if descriptor["type"] == "dpa2":
        types, own = descriptor["repinit"]["tebd_dim"], descriptor["repformer"]["g1_dim"]
    else:
        types, own = descriptor.get("tebd_dim", 0), descriptor["neuron"][-1] * descriptor["axis_neuron"]
    return int(own + (types if descriptor.get("concat_output_tebd") else 0))


def _block(descriptor: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about se_e2_a or dpa1."""
    slots = descriptor["sel"] if isinstance(descriptor["sel"], int) else "+".join(map(str, descriptor["sel"]))
    mode = descriptor.get("tebd_input_mode", "one network per type" if descriptor["type_one_side"] else "one per pair")
    return [
        ("descriptor", f"{descriptor['type']}, {_width(descriptor)} numbers per atom"),
        ("", f"rcut {descriptor['rcut']:g} angstrom, {slots} neighbours, {mode}"),
    ]


def _dpa2(descriptor: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about dpa2."""
    repinit, repformer = descriptor["repinit"], descriptor["repformer"]
    lines = [
        ("descriptor", f"{_width(descriptor)} numbers per atom"),
        ("repinit", f"rcut {repinit['rcut']:g} angstrom, {repinit['nsel']} neighbours, {repinit['tebd_input_mode']}"),
    ]
    if repinit["use_three_body"]:
        text = f"rcut {repinit['three_body_rcut']:g} angstrom, {repinit['three_body_sel']} neighbours"
        lines.append(("three-body", text))
    terms = [key.removeprefix("update_") for key, on in repformer.items() if key.startswith("update_g") and on is True]
    text = f"rcut {repformer['rcut']:g} angstrom, {repformer['nsel']} neighbours, {repformer['nlayers']} layers"
    lines.append(("repformer", f"{text}, g1 {repformer['g1_dim']}, g2 {repformer['g2_dim']}"))
    lines.append(("", " ".join(terms)))
    return lines


def _pair_table(part: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about a table of pairs."""
    end = part["rmin"] + part["nspline"] * part["step"]
    return [
        ("range", f"{part['rmin']:g} to {end:g} angstrom in {part['nspline']} pieces; closer pairs are an error"),
        ("cutoff", f"rcut {part['rcut']:g} angstrom, {part['sel']} neighbours"),
    ]


def _needed(fitting: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about what an evaluation needs beside the structure."""
    lines = []
    for key, what in (("numb_fparam", "frame params"), ("numb_aparam", "atomic params")):
        if fitting[key]:
            default = fitting["default_fparam"] if key == "numb_fparam" else None
            lines.append((what, f"{fitting[key]}" + (f", default {default}" if default else "")))
    return lines
