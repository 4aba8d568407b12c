"""What the commands share: options, loading, walking through structures with a progress bar, writing results."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import Error, EvaluationError, InputError, WorkFailedError
from . import log

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import numpy as np

    from ..data import Frame, Structures
    from ..inputs import Float, Int
    from ..model import Model

P = ParamSpec("P")
T = TypeVar("T")

STRUCTURE_HELP = (
    "structures: deepmd systems (npy, raw, file.hdf5#/group) or folders of them, LMDB data sets, XYZ (extended, plain, "
    "i-PI's), LAMMPS dumps and data files, PDB, .gro, any other format through ASE if it is installed"
)


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


def natural(text: str) -> int:
    """An argument that must be an integer and not negative."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def amount(text: str) -> float:
    """An argument that must be a finite number and not negative."""
    number = float(text)
    if not 0.0 <= number < float("inf"):
        raise ValueError
    return number


def numbers(text: str) -> list[float]:
    """An argument of numbers, separated by commas or blanks."""
    return [float(word) for word in text.replace(",", " ").split()]


def frame_slice(text: str) -> int | slice:
    """An index of a frame, or a slice ``start:stop:step`` of them."""
    if ":" not in text:
        return int(text)
    parts = [int(word) if word.strip() else None for word in text.split(":")]
    if len(parts) > 3 or (len(parts) == 3 and parts[2] is not None and parts[2] < 1):
        raise ValueError
    return slice(*parts)


def device(text: str) -> str:
    """The name of a device."""
    from ..options import checked_device

    try:
        return checked_device(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def real(text: str) -> float:
    """An argument that must be a finite number."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def above_zero(text: str) -> float:
    """An argument that must be a finite number above zero."""
    number = real(text)
    if number <= 0.0:
        raise ValueError
    return number


# argparse names the type in its message: "invalid positive integer value: '0'"
positive.__name__ = "positive integer"
natural.__name__ = "integer of at least 0"
amount.__name__ = "number of at least 0"
numbers.__name__ = "list of numbers"
real.__name__ = "finite number"
above_zero.__name__ = "positive number"
frame_slice.__name__ = "index or slice with a positive step"


def add_model_options(
    parser: argparse.ArgumentParser, several: bool = False, needed: bool = True, precision: str | None = None
) -> None:
    """``-m`` and how to run the model, or several models, of which one at least is ``needed``.

    ``precision``: a default that is not the model's own.
    """
    group = parser.add_argument_group("model")
    default = "(default: the embedded model of water: O, H)"
    if several:
        text = "model files" if needed else f"model file, or several to compare {default}"
        group.add_argument("-m", "--model", "--models", metavar="MODEL", nargs="+", required=needed, help=text)
    else:
        group.add_argument("-m", "--model", metavar="MODEL", help=f"model file {default}")
    group.add_argument(
        "--head", "--model-branch", metavar="HEAD", help="which model of a multi-task file ('dpa2 info' lists them)"
    )
    own = "default: " + (precision or "the model's own")
    group.add_argument("--precision", choices=("float64", "float32"), default=precision, help=own)
    group.add_argument(
        "--threads", type=positive, metavar="N", help="default: OMP_NUM_THREADS, else the available cores"
    )
    group.add_argument(
        "--device",
        default="cpu",
        type=device,
        metavar="cpu|cuda|cuda:N|reference",
        help="cuda: an NVIDIA GPU, or that of number N; reference: NumPy, slow (default: cpu)",
    )


def add_system_options(parser: argparse.ArgumentParser, short_list: bool = True, inputs: bool = False) -> None:
    """Data sets, named as ``dp test`` has them named; ``-f`` means something else to some of its commands.

    With ``inputs`` also those that a training input names.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-s", "--system", metavar="SYSTEM", nargs="+", default=["."], help=f"{STRUCTURE_HELP} (default: this folder)"
    )
    flags = ["-f", "--datafile"] if short_list else ["--datafile"]
    group.add_argument(*flags, metavar="LIST", help="a text file with the path of a system on each line")
    if inputs:
        for name, words in (("train", "training"), ("valid", "validation")):
            group.add_argument(
                f"--{name}-data", metavar="INPUT", help=f"the {words} data of this input; paths begin in its folder"
            )


def add_frames_option(parser: argparse.ArgumentParser, *flags: str) -> None:
    """``--frames``, perhaps with a short name."""
    parser.add_argument(
        *flags,
        "--frames",
        type=frame_slice,
        metavar="CHOICE",
        help="of each file or system: an index (0, -1), or a slice as ASE has it (::10, 5:20; --frames=-5:)",
    )


def system_paths(args: argparse.Namespace) -> list[str]:
    """The paths that the options of :func:`add_system_options` name."""
    from ..data import read_list

    for name, section in (("train_data", "training_data"), ("valid_data", "validation_data")):
        if getattr(args, name, None) is not None:
            from ..train.systems import systems_of_input

            return systems_of_input(getattr(args, name), section)
    return list(args.system) if args.datafile is None else read_list(args.datafile)


def add_worker_option(parser: argparse.ArgumentParser) -> None:
    """``--workers``."""
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="processes to share the work (default: this one alone)"
    )


def worker_pool(args: argparse.Namespace, stack: ExitStack) -> Executor | None:
    """The executor that ``--workers`` asks for; ``stack`` ends it."""
    if args.workers is None:
        return None
    from ..streams import process_pool

    pool = process_pool(args.workers)
    stack.callback(pool.kill_workers)
    return pool


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


def load_model(args: argparse.Namespace, skin: float = 0.0) -> Model:
    """The model that the options ask for; ``skin`` as for :func:`dpa2.load`."""
    from ..model import load

    options = {name: getattr(args, name) for name in ("head", "precision", "threads", "device")}
    options["skin"] = skin
    return load(**options) if args.model is None else load(args.model, **options)


def load_models(args: argparse.Namespace, energies: str | None = None) -> list[Model]:
    """The models that the options ask for, where there may be several.

    Raises:
        InputError: one is no energy model, and ``energies`` says why it has to be.
    """
    paths = args.model or [None]
    models = [load_model(argparse.Namespace(**{**vars(args), "model": path})) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if energies is not None and model.kind != "energy":
            raise InputError(f"{path}: this is a {model.kind} model; {energies}: give energy models")
    return models


def model_name(args: argparse.Namespace) -> str:
    """The model for people."""
    return "embedded water model" if args.model is None else str(args.model)


def check_output(path: str | None, suffixes: Sequence[str], inputs: Sequence[str]) -> None:
    """Refuse an output that could not be written, before hours of work.

    Raises:
        InputError: an unknown suffix, a missing folder, or a file that is an input as well. OSError: it cannot be
            written.
    """
    from ..outputs import check_writable

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
    check_writable(path)


def check_folder(path: str | None, output: str) -> None:
    """Refuse a folder that cannot be made, or has something in it that is not of an interrupted run.

    Args:
        path: of the folder. output: whose unfinished work would show that run.
    """
    from ..data.unfinished import was_delivered
    from ..outputs import check_writable

    if path is None:
        return
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"the folder to save to is a file: {path}")
    if os.path.isdir(path) and os.listdir(path) and not was_delivered(output):
        raise InputError(f"the folder to save to exists and is not empty: {path}")
    if not os.path.isdir(os.path.dirname(os.path.normpath(path)) or "."):
        raise InputError(f"the folder of the output does not exist: {os.path.dirname(os.path.normpath(path))}")
    if not os.path.isdir(path):
        check_writable(path)


def digest_of(model: Model) -> str:
    """A hash of what a model computes."""
    import hashlib
    import json

    data = model._data
    digest = hashlib.sha256(json.dumps(data.config, sort_keys=True).encode())
    for name in sorted(data.weights):
        digest.update(name.encode() + data.weights[name].tobytes())
    return digest.hexdigest()


def job_of(command: str, model: Model, walk: Walk) -> dict[str, Any]:
    """What the results of a command depend on, but for its own options."""
    from ..data.unfinished import fingerprint

    return {
        "command": command,
        "model": digest_of(model),
        "precision": model.precision,
        "device": model.device,
        "reading": walk.reading,
        "frames": [str(walk.chosen), walk.most],
        "structures": [fingerprint(source.path) for source in walk.sources],
    }


@contextmanager
def stdout_named() -> Iterator[None]:
    """Errors of printing say that they are about stdout."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


#: whether another process says the same lines
_silent = False


def silence() -> None:
    """Say nothing from now on, since another process says the same."""
    global _silent
    _silent = True


def tell(text: str) -> None:
    """A line on stdout, if such lines are wanted."""
    if log.shown(log.INFO):
        log.keep(text)
        with stdout_named():
            print(text, flush=True)


def say(text: str) -> None:
    """A line on stderr, if there is one."""
    log.keep(text)
    if sys.stderr is not None and not _silent:
        with suppress(OSError, ValueError):
            print(f"dpa2: {text}", file=sys.stderr, flush=True)


class Ended(KeyboardInterrupt):
    """A signal that asks the process to end: what Ctrl-C finishes, it finishes too."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


#: what a command may end with
EXPECTED = (KeyboardInterrupt, Error, MemoryError, OSError, ImportError)


def words_of(error: BaseException, options: Container[str] = ()) -> str:
    """Why a command ends; ``options`` are the names of what it takes."""
    if isinstance(error, Ended):
        return f"ended by {signal.Signals(error.number).name}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return f"error: {error or 'out of memory'}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"error: {os.fsdecode(error.filename)}: {error.strerror}"
    from .words import of_commands

    return f"error: {of_commands(str(error), options)}"


def say_error(error: BaseException, options: Container[str] = ()) -> int:
    """Say why a command ends; the exit status."""
    if not isinstance(error, BrokenPipeError):
        say(words_of(error, options))
    if isinstance(error, Ended):
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):  # the reader of a pipe (head, less) went away
        return 141
    return 1 if isinstance(error, (WorkFailedError, MemoryError)) else 2


def source_name(path: str) -> str:
    """The path of a file, system or HDF5 group for people."""
    file, hash_sign, group = path.partition("#")
    return os.path.normpath(file) + hash_sign + group


def place_of(frame: Frame) -> tuple[str, int]:
    """The path of a frame's file or system, and its index there."""
    path, _, index = frame.where.rpartition(", frame ")
    return path, int(index)


class Walk:
    """All frames of the structures on the command line, with a progress bar on a terminal.

    Args:
        paths: as :func:`dpa2.data.read_structures` takes them.
        most: frames of each file or system; None: all.
        skip: frames, from the first one on, that are only counted.
        reading: further keywords of :func:`dpa2.data.read_structures`.
        generator: draws the order of the frames of each; None: as they stand.
        chosen: an index or a slice of the frames of each, before ``most`` counts them.
    """

    def __init__(
        self,
        paths: Sequence[str],
        most: int | None = None,
        skip: int = 0,
        reading: Mapping[str, Any] | None = None,
        generator: np.random.RandomState | None = None,
        chosen: int | slice | None = None,
    ) -> None:
        from ..data import read_structures
        from ..data.shuffled import Shuffled
        from ..data.sliced import Sliced

        self.reading = dict(reading or {})
        self.sources: list[Structures] = [source for path in paths for source in read_structures(path, **self.reading)]
        self.chosen = chosen
        if chosen is not None:
            self.sources = [Sliced(source, chosen) for source in self.sources]
        if generator is not None:
            self.sources = [Shuffled(source, generator, most) for source in self.sources]
        self.most = most
        self.skip = skip
        counts = [source.count() for source in self.sources]
        self.counts = [count if count is None or most is None else min(count, most) for count in counts]
        self.total = None if None in self.counts else sum(count or 0 for count in self.counts)
        self.bar: Any = None

    def __iter__(self) -> Iterator[Frame]:
        for _, frames in self.by_source():
            yield from frames

    def by_source(self) -> Iterator[tuple[str, Iterator[Frame]]]:
        """The files or systems one after the other, by name, each with its frames."""
        from itertools import islice

        from tqdm import tqdm

        # disable=None: only on a terminal
        hidden = True if sys.stderr is None or (self.total is not None and self.total < 2) else None
        with tqdm(total=self.total, unit="frame", disable=hidden, leave=False, initial=self.skip) as self.bar:
            left = self.skip
            for source in self.sources:
                frames = islice(source, self.most)
                while left and next(frames, None) is not None:
                    left -= 1
                yield source_name(source.path), self._counted(frames)

    def _counted(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            yield frame
            self.bar.update()

    def print(self, line: str) -> None:
        """A line on stdout that does not tear the progress bar."""
        if self.bar is None or self.bar.disable:
            tell(line)
        elif log.shown(log.INFO):
            log.keep(line)
            with stdout_named():
                self.bar.write(line, file=sys.stdout)


def attempt(frame: Frame, action: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
    """``action(*args, **keywords)``, with the frame named in the error."""
    try:
        return action(*args, **keywords)
    except Error as error:
        text = str(error)
        kind = WorkFailedError if isinstance(error, WorkFailedError) else EvaluationError
        raise kind(text if text.startswith(frame.where) else f"{frame.where}: {text}") from error


def stack(arrays: list[Float] | list[Int], natoms: Sequence[int]) -> Any:
    """Per-atom arrays of many frames: stacked if all have as many atoms, else one after the other."""
    import numpy as np

    return np.stack(arrays) if len(set(natoms)) == 1 else np.concatenate(arrays)
