"""What the commands share: options, loading, walking through structures with a progress bar, writing results."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import Error, InputError

if TYPE_CHECKING:
    from ..data import Frame, Structures
    from ..inputs import Float, Int
    from ..model import Model

P = ParamSpec("P")
T = TypeVar("T")

STRUCTURE_HELP = (
    "structures: extended or plain XYZ (.xyz, .extxyz), deepmd/npy systems or folders of them, "
    "any other format through ASE if it is installed"
)


class EvaluationError(Error):
    """A structure was read, but could not be evaluated."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written, and gives option names a wide column."""

    def __init__(self, prog: str, **keywords: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30, **keywords})


def positive(text: str) -> int:
    """An argument that must be a positive integer."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def numbers(text: str) -> list[float]:
    """An argument of numbers, separated by commas or blanks."""
    return [float(word) for word in text.replace(",", " ").split()]


# argparse names the type in its message: "invalid positive integer value: '0'"
positive.__name__ = "positive integer"
numbers.__name__ = "list of numbers"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``-m`` and how to run the model."""
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", metavar="MODEL", help="model file (default: the embedded model of water: O, H)")
    group.add_argument("--head", help="which model of a multi-task file ('dpa2 info' lists them)")
    group.add_argument("--precision", choices=("float64", "float32"), help="default: the model's own")
    group.add_argument(
        "--threads", type=positive, metavar="N", help="default: OMP_NUM_THREADS, else the available cores"
    )
    group.add_argument(
        "--device", default="cpu", choices=("cpu", "reference"), help="reference: NumPy, slow (default: cpu)"
    )


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Frame and atomic parameters for every structure."""
    group = parser.add_argument_group("parameters, for models that take them")
    group.add_argument(
        "--fparam", type=numbers, metavar="X,Y,..", help="frame parameters (default: the file's or model's own)"
    )
    group.add_argument(
        "--aparam",
        type=numbers,
        metavar="X,Y,..",
        help="atomic parameters, the same for all atoms (default: the file's)",
    )


def load_model(args: argparse.Namespace) -> Model:
    """The model that the options ask for."""
    from ..embedded import default_model_path
    from ..model import load

    if args.model is not None:
        return load(args.model, args.head, args.precision, args.threads, args.device)
    with default_model_path() as path:
        return load(path, args.head, args.precision, args.threads, args.device)


def model_name(args: argparse.Namespace) -> str:
    """The model for people."""
    return "embedded water model" if args.model is None else str(args.model)


def check_output(path: str | None, suffixes: Sequence[str], inputs: Sequence[str]) -> None:
    """Refuse an output that could not be written, before hours of work.

    Raises:
        InputError: an unknown suffix, a missing folder, or a file that is an input as well.
    """
    if path is None:
        return
    if not path.endswith(tuple(suffixes)):
        raise InputError(f"the output's name must end in {' or '.join(suffixes)}, got {path!r}")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise InputError(f"the folder of the output does not exist: {folder}")
    if os.path.isdir(path):
        raise InputError(f"the output is a folder: {path}")
    for name in inputs:
        if os.path.exists(path) and os.path.exists(name) and os.path.samefile(path, name):
            raise InputError(f"the output would overwrite the input {name}")


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """A name to write to; the file moves to ``path`` when all went well, and vanishes otherwise."""
    part = f"{path}.{os.getpid()}.part"
    try:
        yield part
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


class Walk:
    """All frames of the structures on the command line, with a progress bar on a terminal."""

    def __init__(self, paths: Sequence[str]) -> None:
        from ..data import read_structures

        self.sources: list[Structures] = [source for path in paths for source in read_structures(path)]
        counts = [source.count() for source in self.sources]
        self.total = None if None in counts else sum(count or 0 for count in counts)
        self.bar: Any = None

    def __iter__(self) -> Iterator[Frame]:
        from tqdm import tqdm

        # disable=None: only on a terminal
        hidden = True if self.total is not None and self.total < 2 else None
        with tqdm(total=self.total, unit="frame", disable=hidden, leave=False) as self.bar:
            for source in self.sources:
                for frame in source:
                    yield frame
                    self.bar.update()

    def print(self, line: str) -> None:
        """A line on stdout that does not tear the progress bar."""
        if self.bar is None or self.bar.disable:
            print(line)
        else:
            self.bar.write(line, file=sys.stdout)


def attempt(frame: Frame, action: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
    """``action(*args, **keywords)``, with the frame named in the error."""
    try:
        return action(*args, **keywords)
    except Error as error:
        text = str(error)
        raise EvaluationError(text if text.startswith(frame.where) else f"{frame.where}: {text}") from error


@dataclass
class Parameters:
    """Which fparam and aparam a frame is evaluated with: the command line's, else the file's if the model takes any."""

    fparam: list[float] | None
    aparam: list[float] | None
    takes_fparam: bool
    takes_aparam: bool

    @classmethod
    def of(cls, args: argparse.Namespace, model: Model) -> Parameters:
        fitting = model.config["fitting_net"]
        return cls(args.fparam, args.aparam, fitting["numb_fparam"] > 0, fitting["numb_aparam"] > 0)

    def keywords(self, frame: Frame) -> dict[str, Any]:
        """The arguments of ``Model.evaluate``."""
        fparam: Any = self.fparam if self.fparam is not None else frame.fparam if self.takes_fparam else None
        aparam: Any = self.aparam if self.aparam is not None else frame.aparam if self.takes_aparam else None
        return {"fparam": fparam, "aparam": aparam}


def stack(arrays: list[Float] | list[Int], natoms: Sequence[int]) -> Any:
    """Per-atom arrays of many frames: stacked if all have as many atoms, else one after the other."""
    import numpy as np

    return np.stack(arrays) if len(set(natoms)) == 1 else np.concatenate(arrays)
