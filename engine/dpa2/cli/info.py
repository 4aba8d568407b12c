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
    descriptor, fitting = config["descriptor"], config["fitting_net"]
    repinit, repformer = descriptor["repinit"], descriptor["repformer"]
    type_map = config["type_map"]
    shown = " ".join(type_map[:20]) + (f" ... ({len(type_map)} types)" if len(type_map) > 20 else "")
    size = "" if facts["bytes"] is None else f", {facts['bytes'] / 1e6:.2f} MB"
    tebd = repinit["tebd_dim"] if descriptor["concat_output_tebd"] else 0
    lines = [
        ("model", f"{facts['model']} ({facts['format']}{size})"),
        ("types", shown),
        ("precision", f"{config['precision']}, {facts['parameters']:,} parameters"),
        ("descriptor", f"{repformer['g1_dim'] + tebd} numbers per atom"),
        ("repinit", f"rcut {repinit['rcut']:g} angstrom, {repinit['nsel']} neighbours, {repinit['tebd_input_mode']}"),
    ]
    if facts["head"] is not None:
        lines.insert(1, ("head", facts["head"]))
    if repinit["use_three_body"]:
        text = f"rcut {repinit['three_body_rcut']:g} angstrom, {repinit['three_body_sel']} neighbours"
        lines.append(("three-body", text))
    terms = [key.removeprefix("update_") for key, on in repformer.items() if key.startswith("update_g") and on is True]
    text = f"rcut {repformer['rcut']:g} angstrom, {repformer['nsel']} neighbours, {repformer['nlayers']} layers"
    lines.append(("repformer", f"{text}, g1 {repformer['g1_dim']}, g2 {repformer['g2_dim']}"))
    lines.append(("", " ".join(terms)))
    lines.append(("fitting", f"{'-'.join(map(str, fitting['neuron']))} {fitting['activation_function']}"))
    for key, what in (("numb_fparam", "frame parameters"), ("numb_aparam", "atomic parameters")):
        if fitting[key]:
            default = fitting["default_fparam"] if key == "numb_fparam" else None
            lines.append(
                (what.replace("parameters", "params"), f"{fitting[key]}" + (f", default {default}" if default else ""))
            )
    if config.get("compression"):
        lines.append(("compressed", tables(config["compression"])))
    if config["min_nbor_dist"] is not None:
        lines.append(("min distance", f"{config['min_nbor_dist']:.3f} angstrom in the training data"))
    return lines
