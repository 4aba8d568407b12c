"""``dpa2 models``: the embedded model, those in folders of one's own, and where published ones are found."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Error, InputError
from . import common, document

if TYPE_CHECKING:
    from ..files import ModelData

EPILOG = """\
examples:
  dpa2 models                          the embedded model, and those in DPA2_MODELS
  dpa2 models --folder ~/models        a line for every model file in a folder and below it
  export DPA2_MODELS=~/models          from now on "dpa2 eval -m water" finds ~/models/water.pth

DPA2_MODELS may name several folders with ":" between them. Every command and dpa2.load() look there
for a model that is given by its name alone and is no file in the working directory; the suffix may
be left out. Nothing is downloaded.
"""
ERRORS = "0.11 eV/angstrom of forces and 1.1 meV per atom of energies"
#: where DPA-2 models are published: what, and where
PUBLISHED = (
    ("DPA-2.4-7M", "dp pretrained download DPA-2.4-7M (deepmd-kit 3.2.0; huggingface.co/deepmodelingcommunity)"),
    ("DPA-2.3.1-v3.0.0rc0", "AIS Square, https://www.aissquare.com/models?search=dpa"),
    ("the first DPA-2", "Zenodo, https://zenodo.org/records/10428497"),
)
ADVICE = """\
They are checkpoints for several tasks:
  dpa2 info DPA-2.4-7M.pt                                  lists the heads
  dpa2 convert DPA-2.4-7M.pt alloy.safetensors --head Domains_Alloy
What older versions of deepmd-kit wrote may have to be frozen by a version that reads it ("dp --pt
freeze"). Models named DPA-1, DPA-3 and DPA-4 are other architectures."""
_FORMATS = {
    "pt": "checkpoint (PyTorch)",
    "pth": "frozen (TorchScript)",
    "pt2": "frozen (PyTorch export)",
    "hdf5": "deepmd-kit's DP or JAX",
    "yaml": "deepmd-kit's YAML",
    "safetensors": "dpa2's own",
}


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "models",
        help="models that are there, and where published ones are found",
        description="List the embedded model and the model files of folders, and say where others are published.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("--folder", metavar="DIR", nargs="+", help="list these folders (default: those of DPA2_MODELS)")
    document.add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..embedded import default_model_path
    from ..files import folder

    folders = [Path(name) for name in args.folder] if args.folder else folder.folders()
    for place in folders:
        if not place.is_dir():
            where = "" if args.folder else f", which {folder.VARIABLE} names"
            raise InputError(f"there is no folder {place}{where}")
    with default_model_path() as path:
        embedded = _facts(path)
    embedded |= {"name": "embedded", "what": "liquid water near 300 K, a demonstration", "errors": ERRORS}
    found = [(place, [_facts(path, place) for path in folder.model_files(place)]) for place in folders]
    if args.json:
        listed = [{"folder": str(place), "models": models} for place, models in found]
        published = [{"name": name, "where": where} for name, where in PUBLISHED]
        document.dump({"embedded": embedded, "folders": listed, "published": published})
        return
    print(f"embedded    {_words(embedded)}")
    print(f"            {embedded['what']}; errors on frames that it has not seen:\n            {ERRORS}")
    for place, models in found:
        print(f"\n{place}: {len(models) or 'no'} model file{'' if len(models) == 1 else 's'}")
        width = max([len(facts["name"]) for facts in models], default=0)
        for facts in models:
            print(f"  {facts['name']:<{width}}  {_words(facts)}")
    if not folders:
        print(f"\nfolders     none: name some with --folder, or in {folder.VARIABLE}, where names are looked for")
    print("\npublished")
    for name, where in PUBLISHED:
        print(f"  {name:<20} {where}")
    print(ADVICE)


def _facts(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """What is worth knowing of a model file; an entry ``error`` where it cannot be read."""
    from ..files import detect, heads, read, schema

    facts: dict[str, Any] = {"name": str(path.relative_to(folder)) if folder else path.name, "path": str(path)}
    try:
        facts["bytes"] = os.path.getsize(path)
        facts["format"] = detect(path)
        facts["heads"] = heads(path)
        data: ModelData = read(path, facts["heads"][0] if facts["heads"] else None)
    except (Error, OSError) as error:
        return {**facts, "error": str(error).removeprefix(f"{path}: ")}
    return {
        **facts,
        "kind": schema.kind(data.config),
        "type_map": list(data.config["type_map"]),
        "rcut": schema.rcut(data.config),
        "precision": str(data.config["precision"]),
        "parameters": sum(int(array.size) for array in data.weights.values()),
    }


def _words(facts: dict[str, Any]) -> str:
    if "error" in facts:
        return f"not read: {facts['error']}"
    names = facts["type_map"]
    types = " ".join(names[:8]) + (f" ... ({len(names)} types)" if len(names) > 8 else "")
    parts = [
        facts["kind"] + (f" ({len(facts['heads'])} heads)" if facts["heads"] else ""),
        types,
        f"rcut {facts['rcut']:g}",
        facts["precision"],
        f"{facts['parameters']:,} parameters",
        f"{facts['bytes'] / 1e6:.1f} MB" if facts["bytes"] >= 1e6 else f"{facts['bytes'] / 1e3:.0f} kB",
        _FORMATS[facts["format"]],
    ]
    return ", ".join(parts)
