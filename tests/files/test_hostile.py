"""Damaged and hostile files: each is refused with a message, nothing in it runs, and no memory is taken for it."""

from __future__ import annotations

import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files as mf
import numpy as np
import pytest
from dpa2 import files
from dpa2.errors import ModelFileError
from dpa2.files import torch_zip
from dpa2.files.pickle_reader import Reader
from model_files import WRITERS, assert_refused, make, peak_growth

GLOBAL, STACK_GLOBAL = mf.name_of("os", "system"), mf.text("os") + mf.text("system") + b"\x93"
EMPTY = mf.name_of("collections", "OrderedDict") + b")R"
REBUILD = mf.name_of("torch._utils", "_rebuild_tensor_v2")


def command(marker: Path) -> bytes:
    return mf.text(f"touch {marker}")


def load(stream: bytes) -> Any:
    return Reader(stream, torch_zip._CONSTRUCTORS, torch_zip._NAMES).load()


# ------------------------------------------------------------------------------------------------------- pickles

CALLS: dict[str, Callable[[bytes], bytes]] = {
    "GLOBAL": lambda run: b"\x80\x02" + GLOBAL + b"(" + run + b"tR.",
    "STACK_GLOBAL": lambda run: b"\x80\x04" + STACK_GLOBAL + b"(" + run + b"tR.",
    "GLOBAL by memo": lambda run: b"\x80\x02" + GLOBAL + b"q\x000h\x00(" + run + b"tR.",
    "INST": lambda run: b"(" + run + b"ios\nsystem\n.",
    "OBJ": lambda run: b"\x80\x02(" + GLOBAL + run + b"o.",
    "NEWOBJ": lambda run: b"\x80\x02" + GLOBAL + b"(" + run + b"t\x81.",
    "NEWOBJ_EX": lambda run: b"\x80\x04" + GLOBAL + b"(" + run + b"t}\x92.",
    "builtins": lambda run: b"\x80\x02" + mf.name_of("builtins", "eval") + b"(" + run + b"tR.",
    "dotted": lambda run: (
        b"\x80\x04" + mf.text("collections") + mf.text("OrderedDict.__init__") + b"\x93(" + run + b"tR."
    ),
    "dotted module": lambda run: b"\x80\x02" + mf.name_of("collections.abc", "os.system") + b"(" + run + b"tR.",
    "torch.load": lambda run: b"\x80\x02" + mf.name_of("torch.serialization", "load") + b"(" + run + b"tR.",
    "dispatch": lambda run: b"\x80\x02" + mf.name_of("torch.utils.data", "x") + b"(" + run + b"tR.",
    "called storage": lambda run: b"\x80\x02" + mf.name_of("torch", "DoubleStorage") + b"(" + run + b"tR.",
    "called string": lambda run: b"\x80\x02" + run + b"(" + run + b"tR.",
    "called tensor": lambda run: b"\x80\x02" + EMPTY + b"(" + run + b"tR.",
    "EXT1": lambda run: b"\x80\x02\x82\x01(" + run + b"tR.",
    "EXT4": lambda run: b"\x80\x02\x84\x01\x00\x00\x00(" + run + b"tR.",
    "BUILD on a class": lambda run: b"\x80\x02" + mf.name_of("collections", "OrderedDict") + b"}" + run + b"Nsb.",
    "BUILD on a list": lambda run: b"\x80\x02]}" + run + b"Nsb.",
    "BUILD slots": lambda run: b"\x80\x02" + mf.name_of("torch", "Size") + b"N}" + run + b"Ns\x86b.",
    "reduce by a list": lambda run: b"\x80\x02" + mf.name_of("collections", "OrderedDict") + b"]" + run + b"aR.",
    "PERSID": lambda run: b"Pos.system\n.",
    "inert class elsewhere": lambda run: b"\x80\x02" + mf.name_of("__torch__x", "A") + b")\x81.",
    "STRING": lambda run: b"S'x'\n.",
    "NEXT_BUFFER": lambda run: b"\x80\x05\x97.",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_in_a_pickle_is_called(call: str, frozen: bool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    stream = CALLS[call](command(marker))
    extra = {"constants.pkl": b"\x80\x02)."} if frozen else None
    path = mf.write_stream(tmp_path / "m.pt", stream, extra=extra)
    with pytest.raises(ModelFileError):
        files.read(path)
    assert not marker.exists()


def test_the_marker_would_be_made() -> None:
    """The hostile streams are real ones: Python's own reader takes them as a call of os.system."""
    seen = []

    class Spy(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            seen.append((module, name))
            return lambda *args: args

    import io

    for kind in ("GLOBAL", "STACK_GLOBAL", "GLOBAL by memo", "OBJ"):
        assert Spy(io.BytesIO(CALLS[kind](mf.text("true")))).load() == ("true",)
    assert seen == [("os", "system")] * 4


@pytest.mark.parametrize("where", ["model", "optimizer", "constructor argument", "module attribute"])
def test_hidden_calls(where: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    call = mf.Raw(GLOBAL + b"(" + command(marker) + b"tR")
    content: dict[str, Any] = {"model": {"_extra_state": {"model_params": mf.definition(make())}}, "optimizer": {}}
    extra = None
    if where == "constructor argument":
        call = mf.Raw(mf.name_of("torch", "device") + b"(" + call + b"tR")
        content["optimizer"]["device"] = call
    elif where == "module attribute":
        content = mf.Module({"x": mf.Module({"y": call})})  # type: ignore[assignment]
        extra = {"constants.pkl": b"\x80\x02)."}
    else:
        content[where]["x"] = call
    with pytest.raises(ModelFileError, match=r"os\.system"):
        files.read(mf.write_zip(tmp_path / "m.pt", content, extra))
    assert not marker.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b".",
        b"\x80\x09N.",
        b"\x80\x02N",
        b"\x80\x02NN.",
        b"\x80\x02(N.",
        b"\x80\x020.",
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02X\xff\xff\xff\x7fab.",
        b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        b"\x80\x04\x8d" + b"\xff" * 8 + b".",
        b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
        b"\x80\x02\x8b\xff\xff\xff\xffab.",
        b"\x80\x02\x8b\xff\xff\xff\x7fab.",
        b"\x80\x02\x8b\x00\x10\x00\x00" + b"\x11" * 4096 + b".",
        b"I99x\n.",
        b"I" + b"9" * 5000 + b"\n.",
        b"I-\n.",
        b"Fnumber\n.",
        b"cos",
        b"V\\ud800\\",
        b"\x80\x02Na.",
        b"\x80\x02]Ne.",
        b"\x80\x02]NNs.",
        b"\x80\x02}(Nu.",
        b"\x80\x02}N(NNtNs.",
        b"\x80\x02}]Ns.",
        b"\x80\x02}\x8a\x09" + b"\x7f" * 9 + b"Ns.",
        b"\x80\x02}G\x00\x00\x00\x00\x00\x00\x00\x00Ns.",
        b"\x80\x02\x85.",
        b"\x80\x02(\x85.",
        b"\x80\x04NN\x93.",
        b"\x80\x02NQ.",
        b"\x80\x02r\xff\xff\xff\xff.",
    ],
)
def test_malformed_pickles(stream: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"pickle|checkpoint"):
        files.read(mf.write_stream(tmp_path / "m.pt", stream))


def test_shared_objects_stay_shared() -> None:
    """A graph of two to the hundredth paths is a hundred objects, unless something walks or copies it."""
    stream = b"\x80\x02]" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(100)) + b"."
    value = load(stream)
    for _ in range(99):
        assert isinstance(value, tuple)
        assert value[0] is value[1]
        value = value[0]


def test_deep_tuples_are_no_keys() -> None:
    stream = b"\x80\x02]" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(100))
    with pytest.raises(ModelFileError, match="key"):
        load(b"\x80\x02}" + stream[2:] + b"Ns.")


def test_copying_constructors_are_charged() -> None:
    pairs = b"](" + b"(NNt" * 100_000 + b"e"
    call = mf.name_of("torch", "device") + b"h\x00\x85R0"
    with pytest.raises(ModelFileError, match="without bound"):
        load(b"\x80\x02" + pairs + b"q\x000" + call * 200 + b"N.")


def module_graph(cycle: bool) -> bytes:
    """A frozen module that is its own attribute, or whose attributes lead over 2**40 paths to the same module."""
    module = mf.name_of("__torch__", "M") + b")\x81"
    script = mf.text("model_def_script") + mf.text("{}")
    first = module + b"q\x000"
    if cycle:
        return b"\x80\x02" + first + b"h\x00}(" + mf.text("a") + b"h\x00" + script + b"ub."
    for k in range(40):
        below = b"h" + bytes([k])
        first += module + b"}(" + mf.text("a") + below + mf.text("b") + below + b"ubq" + bytes([k + 1]) + b"0"
    return b"\x80\x02" + first + module + b"}(" + mf.text("a") + b"h\x28" + script + b"ub."


@pytest.mark.parametrize("cycle", [True, False])
def test_cyclic_and_exponential_modules(cycle: bool, tmp_path: Path) -> None:
    path = mf.write_stream(tmp_path / "m.pth", module_graph(cycle), extra={"constants.pkl": b"\x80\x02)."})
    assert_refused(path, "cycles")


def test_cyclic_lists_in_the_definition(tmp_path: Path) -> None:
    model = make()
    params = mf.definition(model)
    params["descriptor"]["exclude_types"] = mf.Raw(b"]q\x00h\x00ah\x00a")
    with pytest.raises(ModelFileError, match="exclude_types"):
        files.read(mf.write_pt(tmp_path / "m.pt", model, params=params))


# ------------------------------------------------------------------------------------------------------- tensors

HUGE = 2**62 - 1


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (4, 3), (3, 1)),
        (12, (1,), (1,)),
        (0, (3,), (6,)),
        (2**40, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2**31, 2**31), (0, 0)),
        (0, (HUGE, HUGE), (0, 0)),
        (0, (2,), (HUGE,)),
        (0, (1,) * 20, (1,) * 20),
        (0, (2.5,), (1,)),
        (0, (True,), (1,)),
        (0, "ab", (1, 1)),
        (None, (2,), (1,)),
        (0, None, (1,)),
    ],
)
def test_tensors_out_of_bounds(offset: Any, shape: Any, stride: Any, tmp_path: Path) -> None:
    model = make()
    maker = mf.Pickle()
    maker.storages.append(np.zeros(11).tobytes())
    args = maker.storage("DoubleStorage", "0", 11) + maker.save(offset) + maker.save(shape) + maker.save(stride)
    tensor = mf.Raw(REBUILD + b"(" + args + b"\x89" + EMPTY + b"tR")
    name = "model.Default.atomic_model.descriptor.repformers.layers.0.linear1.bias"
    tensors = {**mf.state(model, "model.Default.atomic_model."), name: tensor}
    content = {"model": {"_extra_state": {"model_params": mf.definition(model)}, **tensors}}
    with pytest.raises(ModelFileError, match=r"tensor|shape"):
        files.read(mf.write_stream(tmp_path / "m.pt", maker.dump(content), maker.storages))


@pytest.mark.parametrize(
    "pid",
    [
        b"N",
        b")",
        mf.Pickle().save(("storage", 1, 2, 3, 4)),
        b"(" + mf.text("module") + mf.name_of("torch", "DoubleStorage") + mf.text("0") + b"NK\x01t",
        b"(" + mf.text("storage") + mf.name_of("torch", "DoubleStorage") + mf.text("9") + b"NK\x01t",
        b"(" + mf.text("storage") + mf.name_of("torch", "DoubleStorage") + mf.text("../data.pkl") + b"NK\x01t",
        b"(" + mf.text("storage") + mf.name_of("torch", "DoubleStorage") + mf.text("0") + b"NK\x02t",
        b"(" + mf.text("storage") + mf.name_of("torch", "FloatStorage") + mf.text("0") + b"NK\x01t",
        b"(" + mf.text("storage") + mf.name_of("collections", "OrderedDict") + mf.text("0") + b"NK\x01t",
        b"(" + mf.text("storage") + mf.name_of("torch", "DoubleStorage") + mf.text("0") + b"NG" + b"\0" * 8 + b"t",
    ],
)
def test_malformed_storages(pid: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"pickle|storage"):
        files.read(mf.write_stream(tmp_path / "m.pt", b"\x80\x02" + pid + b"Q.", [b"\0" * 8]))


# ---------------------------------------------------------------------------------------------------------- zips


@pytest.mark.parametrize("entry", ["data.pkl", "data/0", "extra/model.json"])
def test_zip_bombs(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if entry != "data.pkl" and entry != "extra/model.json":
            maker = mf.Pickle()
            storage = maker.storage("DoubleStorage", "0", 2**24)
            args = storage + maker.save(0) + maker.save((2**24,)) + maker.save((1,))
            tensor = mf.Raw(REBUILD + b"(" + args + b"\x89}tR")
            state = {
                "_extra_state": {"model_params": mf.definition(make())},
                "model.Default.atomic_model.out_bias": tensor,
            }
            archive.writestr("a/data.pkl", maker.dump({"model": state}), zipfile.ZIP_STORED)
        with archive.open(f"a/{entry}", "w") as out:
            for _ in range(128):
                out.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    assert peak_growth(lambda: assert_refused(path)) < 64


def test_entries_that_claim_more_than_there_is(tmp_path: Path) -> None:
    path = mf.write_pt(tmp_path / "m.pt", make())
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/0") + 1)
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    assert peak_growth(lambda: assert_refused(path)) < 64


def test_a_changed_byte_of_a_weight_is_found(tmp_path: Path) -> None:
    path = mf.write_pt(tmp_path / "m.pt", make())
    data = bytearray(path.read_bytes())
    data[data.index(b"archive/data/3") + 20] ^= 1
    path.write_bytes(data)
    assert_refused(path, "corrupt")


def test_an_encrypted_or_strangely_packed_entry(tmp_path: Path) -> None:
    path = mf.write_pt(tmp_path / "m.pt", make())
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # encrypted
    path.write_bytes(data)
    assert_refused(path)
    data[at + 8] &= 0xFE
    data[at + 10] = 99  # unknown method
    path.write_bytes(data)
    assert_refused(path)


# ---------------------------------------------------------------------------------------- truncation and bit flips


@pytest.mark.parametrize("kind", ["pt", "pth", "dp", "yaml", "pt2", "safetensors"])
def test_truncated_files(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / f"m.{kind}", make())
    data = path.read_bytes()
    if kind == "yaml":  # what follows is not needed, so nobody can miss it
        data = data[: data.index(b"software: ")]
    for stop in sorted({0, 1, 7, 8, 9, 64, 512, len(data) - 9, *(len(data) * k // 40 for k in range(40))}):
        path.write_bytes(data[:stop])
        with pytest.raises(ModelFileError) as caught:
            files.read(path)
        assert len(str(caught.value)) > len(str(path)) + 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pt", "pth", "dp", "yaml", "pt2", "safetensors"])
def test_flipped_bits_never_do_harm(kind: str, tmp_path: Path) -> None:
    """A flip that no checksum covers may go unnoticed; it must never raise anything else."""
    path = WRITERS[kind](tmp_path / f"m.{kind}", make())
    data = path.read_bytes()
    draw = random.Random(kind)
    refusals = 0
    for _ in range(120):
        changed = bytearray(data)
        places = (draw.randrange(len(data)), draw.randrange(2000), len(data) - 1 - draw.randrange(2000))
        changed[draw.choice(places)] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            files.read(path)
        except ModelFileError:
            refusals += 1
    assert refusals > 10


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"PK", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", bytes(range(256)), b"\x80\x02N."]
)
def test_files_that_are_no_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    assert_refused(path)
