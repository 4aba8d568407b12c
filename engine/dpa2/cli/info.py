"""``dpa2 info``: what a model file holds."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import common

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
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..embedded import default_model_path

    if args.model is not None:
        _show(args.model, args.model, args)
    else:
        with default_model_path() as path:
            _show(str(path), "embedded water model", args)


def _show(path: str, name: str, args: argparse.Namespace) -> None:
    import json

    from ..files import detect, heads, read
    from ..files.schema import kind

    try:
        data = read(path, args.head)
    except InputError:
        found = heads(path) if args.head is None else []
        if not found:
            raise
        if args.json:
            print(json.dumps({"path": path, "heads": found}, indent=2))
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
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for key, value in describe(data.config, facts):
        print(f"{key:<14} {value}")


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
        own = "" if part["type_map"] == type_map else f" of the types {' '.join(part['type_map'])}"
        if "descriptor" in part:
            lines += [(f"models[{k}]", f"network{own}{factor}"), *_network(part)]
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
    descriptor, fitting = part["descriptor"], part["fitting_net"]
    repinit, repformer = descriptor["repinit"], descriptor["repformer"]
    tebd = repinit["tebd_dim"] if descriptor["concat_output_tebd"] else 0
    lines = [
        ("descriptor", f"{repformer['g1_dim'] + tebd} numbers per atom"),
        ("repinit", f"rcut {repinit['rcut']:g} angstrom, {repinit['nsel']} neighbours, {repinit['tebd_input_mode']}"),
    ]
    if repinit["use_three_body"]:
        text = f"rcut {repinit['three_body_rcut']:g} angstrom, {repinit['three_body_sel']} neighbours"
        lines.append(("three-body", text))
    terms = [key.removeprefix("update_") for key, on in repformer.items() if key.startswith("update_g") and on is True]
    text = f"rcut {repformer['rcut']:g} angstrom, {repformer['nsel']} neighbours, {repformer['nlayers']} layers"
    lines.append(("repformer", f"{text}, g1 {repformer['g1_dim']}, g2 {repformer['g2_dim']}"))
    lines.append(("", " ".join(terms)))
    lines.append(("fitting", f"{'-'.join(map(str, fitting['neuron']))} {fitting['activation_function']}"))
    if part.get("compression"):
        lines.append(("compressed", tables(part["compression"])))
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
