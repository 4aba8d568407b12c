"""Outputs are complete or not there, whoever writes them: the one safe writer, and the models that it saves."""

# ruff: noqa: PT012 (the errors come from within what is tested, and pass through it)

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import dpa2
import needs
import pytest
from api_models import make_model
from dpa2 import outputs
from dpa2.outputs import Blocks, check_writable, finish, replacing, replacing_folder

MODEL = make_model("cpu" if needs.HAS_NATIVE else "reference")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_old_output_stays_until_the_new_one_is_complete(here: Path) -> None:
    Path("out").write_text("old")
    with replacing("out") as part:
        Path(part).write_text("new")
        assert Path("out").read_text() == "old"
        assert part.startswith(str(here / ".out."))
    assert Path("out").read_text() == "new"
    with pytest.raises(ZeroDivisionError), replacing("out") as part:
        Path(part).write_text("half")
        raise ZeroDivisionError
    assert Path("out").read_text() == "new"
    assert os.listdir() == ["out"]


def test_what_is_kept_of_an_interrupted_output(here: Path) -> None:
    for text in ("", "whole\n"):
        with pytest.raises(KeyboardInterrupt), replacing("out", keep=KeyboardInterrupt) as part, Blocks(part) as blocks:
            if text:
                blocks.add(text)
                blocks._handle.write(b"hal")
            raise KeyboardInterrupt
        assert Path("out").exists() == bool(text)
    assert Path("out").read_text() == "whole\n"
    with pytest.raises(ZeroDivisionError), replacing("out", keep=KeyboardInterrupt) as part:
        Path(part).write_text("no")
        raise ZeroDivisionError
    assert Path("out").read_text() == "whole\n"


def test_interrupted_finish_is_done_again_or_spoilt() -> None:
    for interrupts, expected in ((0, ["done"]), (1, ["done"]), (2, ["spoilt"])):
        seen: list[str] = []
        left = [KeyboardInterrupt] * interrupts

        def action(left: list[type[BaseException]] = left, seen: list[str] = seen) -> None:
            if left:
                raise left.pop()
            seen.append("done")

        try:
            finish(action, lambda seen=seen: seen.append("spoilt"))  # type: ignore[misc]
        except KeyboardInterrupt:
            assert interrupts
        assert seen == expected


def test_folders(here: Path) -> None:
    Path("out").mkdir()
    with replacing_folder("out/") as part:
        Path(part, "a").write_text("1")
        assert os.listdir("out") == []
    assert Path("out/a").read_text() == "1"
    with replacing_folder("out") as part:  # whoever asks for it has looked at what is there
        Path(part, "b").write_text("2")
    assert os.listdir("out") == ["b"]
    with pytest.raises(ZeroDivisionError), replacing_folder("out", keep=KeyboardInterrupt):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), replacing_folder("new", keep=KeyboardInterrupt) as part:
        Path(part, "c").write_text("3")
        raise KeyboardInterrupt
    assert (os.listdir("out"), os.listdir("new")) == (["b"], ["c"])
    assert sorted(os.listdir()) == ["new", "out"]


def test_files_have_the_ordinary_mode(here: Path) -> None:
    old = os.umask(0o027)
    try:
        with replacing("out"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o640


def test_links_stay_links_and_devices_are_written_to(here: Path) -> None:
    Path("far").mkdir()
    os.symlink("far/real", "link")
    for text in ("1", "2"):
        with replacing("link") as part:
            Path(part).write_text(text)
        assert os.path.islink("link")
        assert Path("far/real").read_text() == text
    assert os.listdir("far") == ["real"]
    os.symlink(os.devnull, "null")
    check_writable("null")
    with replacing("null") as part:
        Path(part).write_text("gone")
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)


def test_blocks_go_into_pipes(here: Path) -> None:
    os.mkfifo("pipe.xyz")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe.xyz").read_text()))
    reader.start()
    with replacing("pipe.xyz") as part, Blocks(part) as blocks:
        blocks.add("first\n")
        blocks.add("second\n")
    reader.join()
    assert got == ["first\nsecond\n"]


@needs.standard_output
def test_the_standard_output_is_not_replaced(here: Path) -> None:
    code = "from dpa2.outputs import *\nwith replacing('/dev/stdout') as part, Blocks(part) as blocks: blocks.add('it')"
    with open("log", "w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
        assert outputs.same_file("log", log.fileno())
    assert Path("log").read_text() == "it"


def test_left_over_files_are_removed_unless_somebody_is_at_work_on_them(here: Path) -> None:
    names = [".out.0123456789abcdef.part", ".out.0123456789abcde0.part", ".other.0123456789abcdef.part", ".out.part"]
    for name in names[1:]:
        Path(name).write_text("left")
    Path(names[0]).mkdir()
    Path(names[0], "inside").write_text("left")
    with replacing("out"):
        assert sorted(set(os.listdir()) & set(names)) == sorted(names[2:])
        with replacing("out") as second:  # while the first is at work
            Path(second).write_text("2")
        assert Path("out").read_text() == "2"
    assert Path("out").read_text() == ""


def test_long_names(here: Path) -> None:
    name = "é" * 125 + "x.npz"  # 255 bytes
    with replacing(name) as part:
        Path(part).write_text("1")
    assert Path(name).read_text() == "1"
    with pytest.raises(OSError, match="File name too long") as caught:
        check_writable(f"{name}x")
    assert caught.value.filename == f"{name}x"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_errors_name_the_output(number: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    Path("out").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        for write in (replacing, replacing_folder):
            with (
                pytest.raises(OSError, match=os.strerror(number)) as caught,
                write("out" if write is replacing else "d") as part,
            ):
                if write is replacing_folder:
                    Path(part, "a").write_text("1")
            assert caught.value.filename in ("out", "d")
            assert caught.value.errno == number
    assert Path("out").read_text() == "old"
    assert os.listdir() == ["out"]


def test_outputs_that_cannot_be_written_are_found_before(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable("out")
    assert os.listdir() == []
    with pytest.raises(IsADirectoryError):
        check_writable(".")
    with pytest.raises(FileNotFoundError) as caught:
        check_writable("no/out")
    assert caught.value.filename == "no/out"

    def refused(path: str, *_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError) as denied:
        check_writable("out")
    assert denied.value.filename == "out"


def test_a_folder_that_vanishes(here: Path) -> None:
    Path("d").mkdir()
    with pytest.raises(FileNotFoundError) as caught, replacing("d/out") as part:
        os.unlink(part)
        os.rmdir("d")
    assert caught.value.filename == "d/out"


def test_models_are_saved_by_many_threads_at_once(here: Path) -> None:
    expected = MODEL.config
    MODEL.save("m.safetensors")
    errors: list[BaseException] = []

    def attempt(action: object, times: int) -> None:
        for _ in range(times):
            try:
                action()  # type: ignore[operator]
            except BaseException as error:
                errors.append(error)

    def load() -> None:
        assert dpa2.load("m.safetensors", threads=1, device="reference").config == expected

    threads = [threading.Thread(target=attempt, args=(lambda: MODEL.save("m.safetensors"), 20)) for _ in range(4)]
    threads.append(threading.Thread(target=attempt, args=(load, 20)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir() == ["m.safetensors"]


def test_a_killed_process_is_not_in_the_way(here: Path) -> None:
    """Nor is one of the same number, as in another container."""
    script = """
import os, signal, sys
from dpa2.outputs import replacing_folder
with replacing_folder("out") as part:
    print(part, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert os.listdir() == [os.path.basename(done.stdout.strip())]
    with replacing_folder("out") as part:
        Path(part, "a").write_text("1")
    assert os.listdir() == ["out"]


def test_reserved_room(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").write_text("old")
    outputs.reserve("out", 10**6)
    assert os.path.getsize("out") == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        outputs.reserve("out", 10**6)
