"""``dpa2 train``: train a model on data sets, from an input as deepmd-kit takes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import common

if TYPE_CHECKING:
    from ..train.processes import Alone
    from ..train.trainer import Trainer

EPILOG = """\
examples:
  dpa2 train input.json                            from random weights, statistics of the data first
  dpa2 train input.json --restart model.ckpt.pt    go on as if it had not stopped
  dpa2 train input.json --init-model old.pt        another run that begins with these weights
  dpa2 train input.json --finetune multi.pt --model-branch water
                                                   the same with the bias fitted to these data, for other types
  mpirun -n 4 dpa2 train input.json                four processes, each with batches of its own, train together

The input is that of "dp --pt train": JSON or YAML, old spellings included, unknown keys refused. Paths
in it are relative to this folder, into which lcurve.out, out.json, input_v2_compat.json and checkpoints
are written, unless the input says otherwise.

Checkpoints model.ckpt-N.pt are those of deepmd-kit: "dp --pt freeze", "test" and "train" take them as
their own, with --restart, --init-model or --finetune. With "enable_ema" there are model_ema.ckpt-N.pt
of the averages. Beside each lies a native model for dpa2, model.ckpt-N.safetensors, with several tasks
model.ckpt-N.TASK.safetensors for each. The links model.ckpt.pt, model_ema.ckpt.pt and those of native
models lead to the newest, whose path is in the text file "checkpoint".

--restart goes on to the last bit from checkpoints of dpa2. From one of deepmd-kit it does the last step
again, and the order of data begins anew.

Processes that mpirun started train one model: the batch of a step is the batches of all of them
together. The first one writes the files.

Ctrl-C and SIGTERM end the run after the step that is on, with a checkpoint. After anything worse, the
newest checkpoint is whole.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train a model from an input of deepmd-kit",
        description="Train a DPA-2 model on data sets, as an input of deepmd-kit says.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", help="the input: JSON, or YAML in a file .yaml or .yml")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("-i", "--init-model", metavar="CHECKPOINT", help="begin with the weights of this checkpoint")
    start.add_argument("-r", "--restart", metavar="CHECKPOINT", help="go on from this checkpoint")
    start.add_argument("-f", "--init-frz-model", metavar="FROZEN", help="begin with the weights of this frozen model")
    start.add_argument("-t", "--finetune", metavar="CHECKPOINT", help="fine-tune the model of this checkpoint")
    parser.add_argument(
        "--model-branch",
        metavar="BRANCH",
        help="which model of --finetune, by name or alias; RANDOM: its descriptor with a new fitting net",
    )
    parser.add_argument(
        "--use-pretrain-script",
        action="store_true",
        help="take the model section from the file that the run begins with, not from the input; with --finetune its\n"
        "descriptor and the fitting net",
    )
    parser.add_argument(
        "--force-load",
        action="store_true",
        help="weights that the checkpoint of --init-model or --restart lacks begin as they are drawn",
    )
    parser.add_argument(
        "--skip-neighbor-stat", action="store_true", help="do not look at all frames for neighbours and close atoms"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", default="out.json", help="the input with all defaults (default: out.json)"
    )
    parser.add_argument("--plot", metavar="PNG", help="the learning curve as a picture: .png, .pdf or .svg")
    parser.add_argument("--precision", choices=("float64", "float32"), help="default: the model's own")
    parser.add_argument(
        "--threads", type=common.positive, metavar="N", help="default: OMP_NUM_THREADS, else the available cores"
    )
    parser.add_argument(
        "--mpi",
        action=argparse.BooleanOptionalAction,
        help="train together with the other processes of MPI, or do not (default: where mpirun started several)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..train.processes import join, launched

    place = launched()
    if args.mpi is not False and place is not None and place[0] > 0:
        common.silence()
    processes = join(args.mpi)
    try:
        with processes.together():
            _run(args, processes)
    except common.EXPECTED as error:
        if processes.size == 1:
            raise
        status = common.say_error(error)
        processes.wait()  # some launchers end all as soon as one ends
        raise SystemExit(status) from None


def _run(args: argparse.Namespace, processes: Alone) -> None:
    from ..train import prepare
    from ..train.checkpoint import Checkpoint
    from ..train.finetune import FineTuning
    from ..train.frozen import Frozen

    say = _say if processes.is_first else _say_nothing
    first: Checkpoint | Frozen | FineTuning | None = None
    tuning = None
    if args.init_model is not None:
        first = Checkpoint(_with_suffix(args.init_model), args.force_load)
    elif args.init_frz_model is not None:
        first = Frozen(args.init_frz_model, say)
    elif args.finetune is not None:
        first = tuning = FineTuning(_with_suffix(args.finetune), args.model_branch, args.use_pretrain_script, say)
    if args.model_branch is not None and tuning is None:
        raise InputError("--model-branch chooses a model of the file of --finetune: give this option too")
    if args.force_load and args.init_model is None and args.restart is None:
        raise InputError(
            "--force-load is for weights that the checkpoint of --init-model or --restart lacks: give one of these "
            "options, or leave it out"
        )
    restart = None if args.restart is None else Checkpoint(_with_suffix(args.restart), args.force_load)
    if args.plot is not None and processes.is_first:
        from ..plots import require_matplotlib

        common.check_output(args.plot, (".png", ".pdf", ".svg"), [args.input])
        require_matplotlib()
    if args.use_pretrain_script and first is None:
        raise InputError(
            "--use-pretrain-script takes the model section from --init-model or --init-frz-model: give one of them, "
            "or --finetune"
        )
    definition = None
    if args.use_pretrain_script and first is not None and not isinstance(first, FineTuning):
        definition = first.definition
    preparation = prepare.from_file(args.input, definition, say, tuning, processes)
    processes.once(lambda: _check_outputs(args, preparation.config["training"]))
    if not args.skip_neighbor_stat:
        preparation.count_neighbors()
    preparation.write(args.output)
    trainer = preparation.trainer(first, restart, args.precision, args.threads)
    try:
        train(trainer)
    finally:
        if args.plot is not None and processes.is_first:
            _plot(args.plot, preparation.config["training"]["disp_file"])


def _check_outputs(args: argparse.Namespace, training: Mapping[str, Any]) -> None:
    """Find out what cannot be written before all frames are looked at."""
    from ..train.prepare import COMPATIBLE
    from ..train.store import stores

    for path in (args.output, COMPATIBLE):  # the input may be what an earlier run wrote there
        common.check_output(path, ("",), [])
    common.check_output(training["disp_file"], ("",), [args.input])
    for store in stores(training, 0):
        store.prepare()


def _plot(path: str, curve: str) -> None:
    """Draw the learning curve, also of a run that was ended, if it has rows."""
    from pathlib import Path

    from ..plots import draw_curve
    from ..train.display import read_curve

    try:
        columns = read_curve(Path(curve))
    except (InputError, OSError):
        return
    draw_curve(path, columns)


def train(trainer: Trainer) -> None:
    """Run a training with a progress bar on a terminal."""
    from tqdm import tqdm

    silent = sys.stderr is None or not trainer.processes.is_first
    hidden = True if silent else None  # None: only on a terminal
    with tqdm(total=trainer.steps, initial=trainer.done, unit="step", disable=hidden, dynamic_ncols=True) as bar:

        def progress(step: Mapping[str, Any]) -> None:
            parts = [f"{name} {value:.2e}" for name, value in step["parts"].items() if name.endswith(("_e", "_f"))]
            bar.set_postfix_str(", ".join([f"loss {step['value']:.2e}", *parts]), refresh=False)
            bar.update()

        trainer.run(progress)


def _with_suffix(path: str) -> str:
    """A checkpoint, whose ``.pt`` may be left out."""
    return path if path.endswith(".pt") else f"{path}.pt"


def _say_nothing(line: str) -> None:
    """Another process says it."""


def _say(line: str) -> None:
    """A line on stdout that does not tear the progress bar."""
    from tqdm import tqdm

    with common.stdout_named():
        if sys.stdout is not None:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
