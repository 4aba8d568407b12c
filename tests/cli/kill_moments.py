"""Commands that are ended at many moments: nothing broken is visible, nothing finished is lost, every rerun ends well.

By hand: ``python tests/cli/kill_moments.py --moments 20``; as root with file systems in memory that fill up. It prints
how often what was found; the status is 0 if nothing was wrong. ``test_kill_moments.py`` runs a short slice of it.

A moment is an event of the file system that Python's audit hooks tell of (opening for writing, renaming, removing,
making folders), an fsync, or a number of bytes in a file at which writing ends.

kill: SIGKILL. term: SIGTERM. write: the kernel ends the process in the middle of a write. large: a write fails there.
full: the file system has no room left.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import h5py  # noqa: F401  (once, before the process is copied)
import needs
import numpy as np
import safetensors.numpy  # noqa: F401
import tqdm  # noqa: F401
from api_models import BOX, COORDS, SYMBOLS, frames, model_data
from dpa2 import accuracy, compress, streams  # noqa: F401
from dpa2.cli import evaluate, main
from dpa2.data import read_structures, write_frame
from dpa2.files import write_safetensors

MODES = ("kill", "term", "write", "large", "full")
FRAMES = 12
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Case:
    """A command, the output that it makes, and whether it goes on where it was ended."""

    args: list[str]
    outputs: tuple[str, ...]
    resumes: bool = False
    replaces: bool = True  # an output that is there already

    def frames(self, output: Path) -> int | None:
        """How many frames a visible output has; raises when it is broken."""
        if output.is_dir():
            return sum(len(list(source)) for source in read_structures(output))
        if output.suffix == ".npz":
            with np.load(output) as npz:
                return min(len(npz["natoms"]), *(len(npz[name]) for name in npz.files if name not in _ONCE))
        if output.suffix == ".xyz":
            return sum(1 for source in read_structures(output) for _ in source)
        if output.name == "devi.out" or output.name.endswith(".e.out"):
            return len(np.loadtxt(output, ndmin=2))
        if output.name.endswith(".f.out"):
            rows = len(np.loadtxt(output, ndmin=2))
            assert rows % len(COORDS) == 0
            return rows // len(COORDS)
        return None


_ONCE = ("type_map", "sources")
_MODEL = ["-m", "../model.safetensors", "--device", "cpu" if needs.HAS_NATIVE else "reference", "--threads", "1"]
CASES = {
    **{
        f"descriptor {kind}": Case(["descriptor", *_MODEL, "../long.xyz", "-o", f"o.{kind}"], (f"o.{kind}",), True)
        for kind in ("npy", "npz", "h5")
    },
    **{
        f"eval {kind}": Case(["eval", *_MODEL, "../long.xyz", "-o", f"o.{kind}"], (f"o.{kind}",), True)
        for kind in ("xyz", "npz")
    },
    "eval folder": Case(["eval", *_MODEL, "../long.xyz", "--save-deepmd", "saved"], ("saved",), True, False),
    "eval both": Case(
        ["eval", *_MODEL, "../long.xyz", "-o", "o.npz", "--save-deepmd", "saved"], ("o.npz", "saved"), True, False
    ),
    "test": Case(["test", *_MODEL, "-s", "../long.xyz", "-d", "d"], ("d.e.out", "d.f.out")),
    "model-devi": Case(
        [
            "model-devi",
            *_MODEL,
            "-m",
            "../model.safetensors",
            "../model.safetensors",
            "-s",
            "../long.xyz",
            "-o",
            "devi.out",
        ],
        ("devi.out",),
    ),
    "convert": Case(["convert", "../model.safetensors", "o.safetensors"], ("o.safetensors",)),
    "compress": Case(["compress", "../model.safetensors", "-o", "o.safetensors"], ("o.safetensors",)),
}


def contents(path: Path) -> object:
    """What tells a finished output from every other."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return path.read_bytes() if path.exists() else None


class Trials:
    """All trials of one command in a folder below ``top``, where the model and the structures lie."""

    def __init__(self, top: Path, case: Case) -> None:
        self.top, self.case = top, case
        self.folder = top / "work"
        self.found: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._fresh()
        status, text = self._run(lambda: self._watch(None, 0, top / "events"))
        assert status == 0, text
        self.events, self.peak = map(int, (top / "events").read_text().split())
        self.expected = {name: contents(self.folder / name) for name in case.outputs}
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        self.largest = max(path.stat().st_size for path in files)

    def moments(self, mode: str, count: int) -> list[int]:
        """``count`` moments, spread over all that there are."""
        last = {"kill": self.events, "term": self.events, "full": self.peak}.get(mode, self.largest)
        if mode == "full":
            return [max(4096, int(k)) for k in np.linspace(4096, last + 8192, count)]
        return sorted({int(k) for k in np.linspace(1, last, count)})

    def trial(self, mode: str, at: int, old: bool) -> None:
        """End the command at a moment, look at what there is, and run it again."""
        self._fresh(at if mode == "full" else 0)
        before = b"an older output"
        if old and self.case.replaces:
            for name in self.case.outputs:
                (self.folder / name).write_bytes(before)
        status, text = self._run(lambda: self._prepare(mode, at))
        where = f"{' '.join(self.case.args[:1])} {self.case.outputs[0]} {mode} at {at}"

        def check(good: bool, what: str) -> None:
            if not good:
                self.wrong.append(f"{where}: {what} (status {status}) {text.strip()[-400:]}")

        ended = {"kill": {-9}, "term": {143, -15}, "write": {-25}, "large": {2}, "full": {2}}[mode]
        check(status == 0 or status in ended, "unexpected status")
        check("Traceback" not in text and "Exception ignored" not in text and ".part:" not in text, "words")
        self.found["ended" if status else "done"] += 1
        partial = False
        for name in self.case.outputs:
            is_now = contents(self.folder / name)
            if is_now in (None, {}, before) or is_now == self.expected[name]:
                continue
            try:
                count = self.case.frames(self.folder / name)
                check(mode == "term" and count is not None and 0 < count <= FRAMES, f"{name} is visible, not whole")
                partial = True
            except Exception as error:
                check(False, f"{name} is broken: {error!r}")
        whole = all(contents(self.folder / name) == self.expected[name] for name in self.case.outputs)
        check(status != 0 or whole, "status 0, other output")
        names = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        own = [name for name in names if name.startswith(self.case.outputs[0].partition(".")[0])]
        store = self.folder / f"{self.case.outputs[0]}.part"
        check(names == set(own) | (names & set(self.case.outputs)), f"other names: {names}")
        committed = self._committed(store)
        self.found["partial outputs"] += partial
        self.found["with finished frames"] += committed > 0
        self._make_room(mode)
        if whole and not store.exists():
            self.found["nothing to do"] += 1
        if not (whole and not store.exists() and not self.case.replaces):
            again, text = self._run(lambda: None)
            check(again == 0, f"the rerun is refused with {again}: {text}")
            check(f"going on after {committed} frames" in text or not committed, "finished frames are computed again")
            self.found["went on"] += "going on after" in text
        whole = all(contents(self.folder / name) == self.expected[name] for name in self.case.outputs)
        check(whole, "the rerun ends with another output")
        left = [path.name for path in self.folder.iterdir() if path.name.endswith(".part")]
        if not (status == -9 and committed == 0):
            check(not left or not self.case.replaces, f"left behind: {left}")

    @staticmethod
    def _committed(store: Path) -> int:
        journal = store / "journal"
        if not (store / "job.json").exists() or not journal.exists():
            return 0
        lines = journal.read_bytes().split(b"\n")[:-1]
        return int(json.loads(lines[-1])["frames"]) if lines else 0

    def _fresh(self, size: int = 0) -> None:
        if os.path.ismount(self.folder):
            subprocess.run(["umount", str(self.folder)], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if size:
            options = ["-t", "tmpfs", "-o", f"size={-(-size // 4096) * 4096}", "tmpfs", str(self.folder)]
            subprocess.run(["mount", *options], check=True)

    def _make_room(self, mode: str) -> None:
        if mode == "full":
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)

    def close(self) -> None:
        """Remove what the trials have left."""
        self._fresh()
        shutil.rmtree(self.folder)

    def _run(self, prepare: Callable[[], None]) -> tuple[int, str]:
        """The command in a copy of this process; the status, negative for a signal, and its words."""
        sys.stdout.flush()
        log = self.top / "log"
        child = os.fork()
        if child == 0:
            status = 70
            try:
                handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(handle, 1)
                os.dup2(handle, 2)
                os.chdir(self.folder)
                streams.TASK_ATOMS, evaluate.SECONDS = 20, 0.0
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                prepare()
                status = main(self.case.args)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")

    def _prepare(self, mode: str, at: int) -> None:
        if mode in ("kill", "term"):
            self._watch(signal.SIGKILL if mode == "kill" else signal.SIGTERM, at, None)
        elif mode in ("write", "large"):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if mode == "write" else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))

    def _watch(self, number: signal.Signals | None, at: int, report: Path | None) -> None:
        """Count the events of this process, and end it at one of them, or write down how many there were."""
        seen = peak = 0

        def used() -> int:
            """Bytes on a file system that counts pages."""
            total = 0
            for where, folders, files in os.walk("."):
                sizes = (os.lstat(os.path.join(where, name)).st_size for name in files)
                total += sum(-(-size // 4096) * 4096 for size in sizes) + 4096 * len(folders)
            return total

        def event() -> None:
            nonlocal seen, peak
            seen += 1
            if report is not None:
                with contextless():
                    peak = max(peak, used())
                    report.write_text(f"{seen} {peak}")
            if seen == at and number is not None:
                os.kill(os.getpid(), number)

        busy = False

        class contextless:
            """What is done inside is no event."""

            def __enter__(self) -> None:
                nonlocal busy
                busy = True

            def __exit__(self, *_: object) -> None:
                nonlocal busy
                busy = False

        def hook(name: str, args: tuple[object, ...]) -> None:
            if busy:
                return
            if name == "open":
                if isinstance(args[2], int) and args[2] & _WRITING and str(args[0]) != os.devnull:
                    event()
            elif name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock"):
                event()

        fsync = os.fsync

        def watched(handle: int) -> None:
            event()
            fsync(handle)
            event()

        os.fsync = watched
        sys.addaudithook(hook)


def prepare(top: Path) -> None:
    """The inputs of the commands."""
    write_safetensors(top / "model.safetensors", model_data())
    with open(top / "long.xyz", "w") as handle:
        for coords in frames(FRAMES):
            info = {"energy": float(coords[0, 0])}
            write_frame(handle, coords, SYMBOLS, BOX, arrays={"forces": coords}, info=info)


def run(names: list[str], modes: list[str], count: int) -> int:
    """All trials; prints a line for every command and way to end it."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        prepare(top)
        for name in names:
            trials = Trials(top, CASES[name])
            for mode in modes:
                trials.found, trials.wrong = Counter(), []
                moments = trials.moments(mode, count)
                for k, at in enumerate(moments):
                    trials.trial(mode, at, old=k % 2 == 1)
                words = ", ".join(f"{what} {number}" for what, number in sorted(trials.found.items()) if number)
                print(f"{name:15} {mode:6} {len(moments)} moments: {words}, wrong {len(trials.wrong)}", flush=True)
                wrong += trials.wrong
            trials.close()
    print("\n".join(wrong[:40]))
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES[: 5 if os.geteuid() == 0 else 4]))
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    chosen = parser.parse_args()
    sys.exit(run(chosen.cases, chosen.modes, chosen.moments))
