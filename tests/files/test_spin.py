"""Files of spin models: those of deepmd-kit 3.2.0, native ones, what a section `spin` may say, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cli_runs import run_command
from dpa2 import files
from dpa2.cli.convert import with_precision
from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import ModelData, _data, assembly, heads, read, spin, write_safetensors
from helpers import model_of, relative
from spin_cases import CASES, FILES, SPIN_CASES, spin_frames, spin_golden

#: (file, head to ask for, case)
EXPECTED = [(f"{case.name}/model.{suffix}", None, case.name) for case in SPIN_CASES for suffix in case.formats] + [
    ("spin_parameters/heads.pt", "mag", "spin_parameters")
]
each_file = pytest.mark.parametrize(("file", "head", "name"), EXPECTED)


def test_every_file_is_read() -> None:
    assert {str(path.relative_to(FILES)) for path in FILES.rglob("*.*")} == {file for file, _, _ in EXPECTED}
    assert {Path(file).suffix for file, _, _ in EXPECTED} == {".pt", ".pth", ".dp", ".yaml"}
    assert sorted(heads(FILES / "spin_parameters/heads.pt")) == ["mag", "plain"]
    assert dpa2.load(FILES / "spin_parameters/heads.pt", head="plain").kind == "energy"


@each_file
def test_configuration_and_weights(file: str, head: str | None, name: str, tmp_path: Path) -> None:
    """Those of the case, of the file and of the native file that is made of it."""
    data, expected = read(FILES / file, head), spin_golden(name)
    write_safetensors(tmp_path / "model.safetensors", data)
    for found in (data, read(tmp_path / "model.safetensors")):
        assert {**found.config, "head": None} == {**expected.config, "head": None}
        assert found.config["head"] == head
        assert found.weights.keys() == expected.weights.keys()
        for key, value in found.weights.items():
            assert value.dtype == expected.weights[key].dtype, key
            assert np.array_equal(value, expected.weights[key]), key


@each_file
def test_answers(file: str, head: str | None, name: str) -> None:
    model = dpa2.load(FILES / file, head=head, threads=1)
    system = spin_golden(name).systems[1]
    result = model.evaluate(**spin_frames(name, system.name)[0]).outputs
    for key in ("energy", "force", "force_mag", "virial"):
        assert relative(result[key], system.expected[key][0]) <= CASES[name].tolerance, key


def test_golden_files_hold_no_code() -> None:
    import zipfile

    for path in FILES.rglob("*.pth"):
        with zipfile.ZipFile(path) as archive:
            assert not [name for name in archive.namelist() if "/code/" in name]


def test_the_native_file_says_what_a_reader_needs(tmp_path: Path) -> None:
    """Virtual atoms and what they exclude follow from the types that have spins, and are not written out."""
    data = spin_golden("spin")
    config = json.loads(json.dumps(data.config))
    assert config["use_spin"] == [0, 2]
    assert config["virtual_scale"] == [0.3, 0.0, 0.5]
    assert config["models"][0]["type_map"] == ["O", "H", "Cu", "O_spin", "H_spin", "Cu_spin"]
    assert config["pair_exclude_types"] == []
    assert "pair_exclude_types" not in config["models"][0]


def test_a_conversion_to_single_precision(tmp_path: Path) -> None:
    data = spin_golden("spin")
    single = with_precision(ModelData(data.config, data.weights), "float32")
    write_safetensors(tmp_path / "m.safetensors", single)
    model, frame = dpa2.load(tmp_path / "m.safetensors"), spin_frames("spin", "open")[0]
    assert model.precision == "float32"
    assert relative(model.evaluate(**frame).energy, model_of(data).evaluate(**frame).energy) <= 2e-4


# ------------------------------------------------------------------------------------------------- the section


def definition(**changes: Any) -> dict[str, Any]:
    """A definition as a checkpoint has it, with another section `spin`."""
    case = CASES["spin"]
    params = {key: value for key, value in case.plain.items() if key not in ("format_version", "precision", "head")}
    section = {key: value for key, value in {**case.section, **changes}.items() if value is not KeyError}
    return {**params, "spin": section}


def config_of(params: dict[str, Any]) -> dict[str, Any]:
    return assembly.assemble(_data.RawModel(params, dict(spin_golden("spin").weights), 0.75)).config


@pytest.mark.parametrize(
    "changes",
    [
        {"use_spin": [0, 2]},
        {"use_spin": [2, 0]},
        {"use_spin": ["Cu", "O"]},
        {"virtual_scale": [0.3, 7.0, 0.5]},
        {"scheme": "native"},
        {"scheme": "deepspin", "allow_missing_label": False},
    ],
)
def test_what_a_section_may_say(changes: dict[str, Any]) -> None:
    assert config_of(definition(**changes)) == CASES["spin"].config


def test_one_scale_for_all_and_no_spins_at_all() -> None:
    assert config_of(definition(virtual_scale=0.25))["virtual_scale"] == [0.25, 0.0, 0.25]
    none = config_of(definition(use_spin=[], virtual_scale=[]))
    assert (none["use_spin"], none["virtual_scale"]) == ([], [0.0, 0.0, 0.0])
    assert config_of(definition(use_spin=[False] * 3, virtual_scale=0.5)) == none


def test_what_deepmd_kit_puts_into_the_network() -> None:
    """A protection where there is none, and the pairs of the model in place of those of the descriptor."""
    params = definition()
    params["descriptor"] |= {"exclude_types": [[0, 1]], "env_protection": 0}
    assert config_of(params) == CASES["spin"].config
    params["descriptor"]["env_protection"] = 0.3
    assert config_of(params)["models"][0]["descriptor"]["env_protection"] == 0.3
    params = {**definition(), "use_srtab": "table.txt", "sw_rmin": 0.5}  # not looked at
    assert config_of(params) == CASES["spin"].config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_spin": KeyError}, "spin.use_spin is missing"),
        ({"use_spin": 1}, "spin.use_spin is 1, expected 3 booleans, or indices or names of types"),
        ({"use_spin": "O"}, "spin.use_spin is 'O'"),
        ({"use_spin": [True, False]}, "spin.use_spin is a list of 2, expected 3 booleans"),
        ({"use_spin": [True] * 4}, "spin.use_spin is a list of 4"),
        ({"use_spin": ["Fe"]}, r"spin.use_spin\[0\] is 'Fe'"),
        ({"use_spin": [0, 3]}, r"spin.use_spin\[1\] is 3"),
        ({"use_spin": [-1]}, r"spin.use_spin\[0\] is -1"),
        ({"use_spin": [0, True]}, r"spin.use_spin\[1\] is True"),
        ({"use_spin": [0.0]}, r"spin.use_spin\[0\] is 0.0"),
        ({"virtual_scale": KeyError}, "spin.virtual_scale is missing"),
        ({"virtual_scale": None}, "spin.virtual_scale is missing"),
        ({"virtual_scale": 1}, "spin.virtual_scale is 1, expected a list of 3 .* one number with a decimal point"),
        ({"virtual_scale": [0.3]}, "spin.virtual_scale is a list of 1, expected a list of 3 numbers.*or of 2"),
        ({"virtual_scale": [0.3] * 4}, "spin.virtual_scale is a list of 4"),
        ({"virtual_scale": [0.3, "x"]}, r"virtual_scale\[2\] is 'x', expected a finite number"),
        ({"virtual_scale": [float("nan"), 0.3]}, r"virtual_scale\[0\] is nan"),
        ({"virtual_scale": float("inf")}, r"virtual_scale\[0\] is inf"),
        ({"norm": 1.0}, "the option spin.norm is unknown"),
        ({"allow_missing_label": True}, "spin.allow_missing_label is set, which deepmd-kit has for DPA-4 only"),
    ],
)
def test_bad_sections(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        config_of(definition(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spin": 3}, "spin is 3, expected a dictionary of options"),
        ({"spin": []}, "spin is list, expected a dictionary of options"),
        ({"spin": {}}, "spin.use_spin is missing"),
        (
            {"fitting_net": {"type": "dipole"}},
            "a spin model has the fitting net 'dipole', and only energies can depend",
        ),
        ({"descriptor": {"type": "se_e2_a"}}, "se_e2_a"),
        ({"type_map": ["O", "O_spin", "Cu"]}, "a type occurs twice"),
        ({"pair_exclude_types": [[0, 3]]}, r"pair_exclude_types\[0\] is 3"),
        ({"atom_exclude_types": [4]}, r"atom_exclude_types\[0\] is 4"),
        ({"type": "linear_ener"}, "models is None, expected a list"),
    ],
)
def test_bad_definitions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        config_of({**definition(), **changes})


# ------------------------------------------------------------------------------------------------- native files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_spin": [0, 0]}, "a type occurs twice in use_spin"),
        ({"use_spin": [3]}, r"use_spin\[0\] is 3"),
        ({"virtual_scale": [0.3]}, "virtual_scale has 1 entries, but there are 3 types"),
        ({"virtual_scale": KeyError}, "virtual_scale is missing"),
        ({"models": []}, "models is a list of 0"),
        ({"type_map": ["O", "H", "Ni"]}, "must have its types, and each again with _spin|does not have the type 'Ni'"),
        ({"env_protection": 0.0}, "env_protection of a spin model must be above 0"),
        ({"twice": True}, "models must be one network"),
    ],
)
def test_bad_native_configurations(change: dict[str, Any], message: str) -> None:
    data = spin_golden("spin")
    config, weights = copy.deepcopy(data.config), dict(data.weights)
    for key, value in change.items():
        if key == "env_protection":
            config["models"][0]["descriptor"][key] = value
        elif key == "twice":
            config["models"] *= 2
            weights |= {name.replace("models.0.", "models.1."): value for name, value in data.weights.items()}
        elif value is KeyError:
            del config[key]
        else:
            config[key] = value
    with pytest.raises(ModelFileError, match=message):
        assembly.assemble(_data.RawModel(config, weights, 0.75))


# ------------------------------------------------------------------------------------------------- what files expand


def network() -> dict[str, Any]:
    """The definition of the network as deepmd-kit writes it into frozen files and trees."""
    part = CASES["spin"].config["models"][0]
    pairs = [[4, t] for t in range(6)]
    descriptor = {**part["descriptor"], "exclude_types": pairs}
    return {**part, "descriptor": descriptor, "pair_exclude_types": pairs, "atom_exclude_types": [3, 4, 5]}


def test_what_the_network_says_is_taken_back() -> None:
    found = spin.from_network(network(), [True, False, True], [0.3, 9.0, 0.5])
    assert config_of(found) == CASES["spin"].config
    own = network()
    own["pair_exclude_types"] = [*own["pair_exclude_types"], [2, 0]]
    own["atom_exclude_types"] = [3, 1, 4, 5]
    found = spin.from_network(own, [True, False, True], [0.3, 9.0, 0.5])
    assert (found["pair_exclude_types"], found["atom_exclude_types"]) == ([[0, 2]], [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type_map": ["O", "H", "Cu", "O_spin", "Cu_spin", "H_spin"]}, "expected each twice"),
        ({"type_map": ["O", "H", "Cu"]}, "expected each twice"),
        ({"pair_exclude_types": [[4, 0]]}, "excludes other types"),
        ({"pair_exclude_types": [[4, t] for t in range(6)] + [[3, 0]]}, "excludes other types"),
        ({"atom_exclude_types": [3, 4]}, "excludes other types"),
        ({"atom_exclude_types": "x"}, "atom_exclude_types is no list of types"),
        ({"pair_exclude_types": [[4]]}, "pair_exclude_types is no list of pairs"),
        ({"pair_exclude_types": 4}, "pair_exclude_types is no list of pairs"),
        ({"pair_exclude_types": [[4, "x"]]}, "pair_exclude_types is no list of types"),
        ({"descriptor": {"exclude_types": [[0, 1]]}}, "excludes other types"),
    ],
)
def test_networks_that_are_none_of_a_spin_model(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        spin.from_network({**network(), **change}, [True, False, True], [0.3, 0.0, 0.5])
    with pytest.raises(ModelFileError, match="virtual_scale has 1 entries"):
        spin.from_network(network(), [True, False, True], [0.3])


def test_what_cannot_be_done_with_them(tmp_path: Path) -> None:
    from dpa2.compress import compress
    from dpa2.train import gradient

    data = read(FILES / "spin/model.pt")
    with pytest.raises(UnsupportedModelError, match="spin models are not compressed"):
        compress(data)
    with pytest.raises(UnsupportedModelError, match="spin models are not trained"):
        gradient(data, {}, {}, 1.0)
    assert files.detect(FILES / "spin/model.pt") == "pt"


def test_what_the_commands_say_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_command(capsys, "info", str(FILES / "spin_parameters/model.pth"))
    scales = "of virtual atoms at O 0.35, H -0.2, Cu 0.4 angstrom per unit of spin"
    assert f"kind           spin: energies that depend on spins, {scales}\n" in text
    assert "force_mag 3 eV per unit of spin" in text
    assert "models[0]      network of atoms and virtual atoms, sel is for both\n" in text
    native = tmp_path / "native.safetensors"
    text = run_command(capsys, "convert", str(FILES / "spin_parameters/heads.pt"), str(native), "--head", "mag")
    assert text.startswith(f"{native}: spin of O H Cu, float64")
    assert dpa2.load(native).use_spin == (True, True, True)


def test_sel_holds_virtual_atoms_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is enough for atoms is what evaluations do not remark on."""
    from dpa2.data import write_frame

    frame, path = spin_frames("spin", "bulk")[0], tmp_path / "frame.extxyz"
    with path.open("w") as handle:
        write_frame(handle, frame["coords"], [("O", "H", "Cu")[t] for t in frame["types"]], frame["box"].reshape(3, 3))
    text = run_command(capsys, "neighbor-stat", "-s", str(path), "-m", str(FILES / "spin/model.pt"))
    assert "repinit        rcut 3 angstrom, sel 29 for atoms, beside as many virtual ones\n" in text
    assert "repformer      rcut 2.6 angstrom, sel 21 for atoms" in text
    assert text.count("sel            enough") == 3
