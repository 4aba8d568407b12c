"""Training inputs: what deepmd-kit makes of them, what is refused and with which words, how files are read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cases import GOLDEN
from dpa2.errors import InputError
from dpa2.train.inputs import compatible, normalise, read_input, without_effect
from dpa2.train.prepare import from_file
from dpa2.train.tasks import SharedPart, expand
from training_inputs import BASE, CASES, SEVERAL, changed

RECORDED = json.loads((GOLDEN / "training" / "inputs.json").read_text(encoding="utf-8"))


def check_equal(found: Any, expected: Any, where: str = "") -> None:
    """Equal, and of the same type: 1 is not 1.0 in a file."""
    assert type(found) is type(expected), where
    if isinstance(found, dict):
        assert set(found) == set(expected), where
        for key, value in found.items():
            check_equal(value, expected[key], f"{where}.{key}")
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", CASES)
def test_inputs_become_what_deepmd_makes_of_them(name: str) -> None:
    given = copy.deepcopy(CASES[name])
    before = copy.deepcopy(given)
    found = normalise(given)
    assert given == before
    check_equal(found, RECORDED[name]["out"])
    assert normalise(found) == found
    shared: list[SharedPart] = []
    if "model_dict" in given["model"]:
        given["model"], shared = expand(given["model"])
    check_equal(compatible(given), RECORDED[name]["compatible"])
    assert {part.name: [list(link) for link in part.links] for part in shared} == RECORDED[name]["shared"]


DATA = "training.training_data"
REPINIT = "model.descriptor.repinit"
REFUSED: list[tuple[dict[str, Any], str]] = [
    # keys
    ({"modle": {}}, r"^modle is not a key of the input; did you mean model\?"),
    ({"training.numb_stps": 1}, r"training.numb_stps is not a key .* did you mean numb_step"),
    ({f"{REPINIT}.nsle": 1}, r"model.descriptor.repinit.nsle is not a key .* did you mean nsel"),
    ({"training.device": "cuda"}, r"training.device is not a key"),
    ({"training.a\x1b[2J": 1}, r"training.a\\x1b\[2J is not a key"),
    ({"model": ...}, r"^model is missing"),
    ({"training": ...}, r"^training is missing"),
    ({"loss": ...}, r"^loss is missing"),
    ({"learning_rate": ...}, r"^learning_rate is missing"),
    ({"learning_rate.start_lr": ...}, r"learning_rate.start_lr is missing; it must be a number, above 0"),
    ({DATA: ...}, r"training.training_data is missing"),
    ({f"{DATA}.systems": ...}, r"training.training_data.systems is missing"),
    ({f"{REPINIT}.rcut": ...}, r"model.descriptor.repinit.rcut is missing"),
    ({"model.descriptor": ...}, r"model.descriptor is missing"),
    ({"model.descriptor.type": ...}, r"model.descriptor.type is missing"),
    ({"model.type_map": ...}, r"model.type_map is missing"),
    ({"training.stop_batch": 5}, r"training.numb_steps is given twice, as (stop_batch|numb_steps) as well"),
    # values
    ({"model": 5}, r"^model is 5, expected a section of keys"),
    ({"training.numb_steps": 1e6}, r"training.numb_steps is 1000000.0, expected an integer, at least 0"),
    ({"training.numb_steps": True}, r"training.numb_steps is True, expected an integer"),
    ({"training.numb_steps": -1}, r"training.numb_steps is -1, expected an integer, at least 0"),
    ({"training.disp_freq": 0}, r"training.disp_freq is 0, expected an integer, at least 1"),
    ({"training.seed": -3}, r"training.seed is -3"),
    ({"training.enable_ema": 1}, r"training.enable_ema is 1, expected true or false"),
    ({"training.ema_decay": 1.0}, r"training.ema_decay is 1.0, expected a number, at least 0 and below 1"),
    ({"learning_rate.start_lr": "1e-3"}, r"learning_rate.start_lr is '1e-3', expected a number"),
    ({"learning_rate.start_lr": float("nan")}, r"learning_rate.start_lr is nan"),
    ({"learning_rate.decay_rate": 1.5}, r"learning_rate.decay_rate is 1.5"),
    ({"loss.start_pref_e": [1]}, r"loss.start_pref_e is \[1\], expected a number"),
    ({"model.type_map": ["O", 1]}, r"model.type_map is \['O', 1\], expected a list of texts"),
    ({f"{REPINIT}.neuron": [25, 0]}, r"repinit.neuron\[1\] is 0"),
    ({f"{REPINIT}.nsel": "many"}, r"repinit.nsel must be a positive integer, \"auto\" or .*, got 'many'"),
    ({f"{REPINIT}.rcut_smth": 7.0}, r"^model: .*rcut_smth"),
    ({"model.descriptor.repformer.rcut": 7.0}, r"^model: .*rcut"),
    ({"model.descriptor.exclude_types": [[0, 5]]}, r"^model: descriptor.exclude_types"),
    ({"model.fitting_net.precision": "bfloat16"}, r"model.fitting_net.precision is bfloat16; training is done in"),
    ({"model.fitting_net.activation_function": "swish"}, r"^model: fitting_net.activation_function is 'swish'"),
    ({"model.preset_out_bias": {"energy": [1.0]}}, r"preset_out_bias.energy must be a list with .* 2 types"),
    ({"model.preset_out_bias": {"energy": [1.0, "x"]}}, r"preset_out_bias.energy\[1\] is 'x'"),
    # what does not go together
    ({"learning_rate.stop_lr_ratio": 0.1}, r"stop_lr and stop_lr_ratio"),
    ({"learning_rate": {"type": "wsd", "start_lr": 1, "stop_lr_ratio": 0}}, r"learning_rate ends at 0, but type wsd"),
    ({"learning_rate.warmup_ratio": 0.1, "learning_rate.warmup_steps": 5}, r"warmup_steps and warmup_ratio"),
    ({"training.warmup_steps": 0, "learning_rate.warmup_steps": 0}, r"in training and in learning_rate"),
    ({"training.numb_epoch": 1}, r"one of numb_steps and numb_epoch"),
    ({"training.numb_steps": ...}, r"one of numb_steps and numb_epoch"),
    ({"training.stat_file_mode": "read"}, r"training.stat_file does not say which"),
    ({"loss.f_use_norm": True}, r"loss.f_use_norm needs use_huber"),
    ({"loss.huber_delta": [1, 2]}, r"loss.huber_delta"),
    ({"loss": {"type": "tensor", "pref": 1, "pref_atomic": 0}}, r"loss: a loss of type 'tensor' is for dipoles"),
    ({"loss.type": "energy"}, r"loss.type is 'energy', expected one of ener, dos"),
    # what is not there
    ({"optimizer": {"type": "LKF"}}, r"optimizer.type is LKF, which is not there"),
    ({"training.opt_type": "LKF", "training.kf_blocksize": 512}, r"optimizer.type is LKF"),
    ({"optimizer": {"type": "AdaMuon"}}, r"AdaMuon, which is not there: .*; there are Adam, AdamW"),
    ({"optimizer": {"type": "HybridMuon"}}, r"HybridMuon, which is not there"),
    ({"optimizer": {"type": "SGD"}}, r"optimizer.type is 'SGD', expected one of Adam, AdamW"),
    ({f"{DATA}.batch_size": "mixed:32"}, r'training.training_data.batch_size: "mixed:N" is not there'),
    ({f"{DATA}.batch_size": "auto:x"}, r"batch_size: auto: must be followed by .*, got 'auto:x'"),
    ({f"{DATA}.batch_size": 0}, r"batch_size is 0"),
    ({"validating": {"full_validation": True}}, r"validating.full_validation is not there"),
    ({"training.zero_stage": 1}, r"training.zero_stage must be 0"),
    ({"nvnmd": {}}, r"nvnmd cannot be trained with"),
    ({"model.spin": {}}, r"model.spin cannot be trained with"),
    ({"model.use_srtab": "table.txt"}, r"model.use_srtab cannot be trained with"),
    ({"model.type_embedding": {"neuron": [8]}}, r"model.type_embedding .*tebd_dim"),
    ({"model.bridging_method": "zbl"}, r"^model: .*bridging_method"),
    ({"model.type": "linear_ener"}, r"model.type is 'linear_ener'"),
    ({"model.descriptor.type": "hybrid"}, r"model.descriptor.type is hybrid: .*evaluated, but not trained"),
    ({"model.descriptor.type": "se_e2_a"}, r"^model: the descriptor is 'se_e2_a'; models are trained"),
    ({"model.fitting_net.type": "direct_force"}, r"^model: the fitting net is of type 'direct_force'"),
    ({"loss.type": "ener_spin"}, r"loss.type is ener_spin, which is not there"),
    ({"loss.start_pref_h": 1.0, "loss.limit_pref_h": 1.0}, r"loss.*[Hh]essian"),
    ({"training.systems": ["a"]}, r"training.systems is of an input for deepmd-kit 1.x"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_inputs_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalise(changed(BASE, changes))


TASKS = "model.model_dict"
REFUSED_TASKS: list[tuple[dict[str, Any], str]] = [
    ({f"{TASKS}.one.descriptor": "other"}, r"one.descriptor is 'other', which model.shared_dict does not have"),
    ({f"{TASKS}.one.descriptor": "shared:2"}, r"one.descriptor is 'shared:2', but a descriptor is shared at level 1"),
    ({f"{TASKS}.one.descriptor": "shared:x"}, r"one.descriptor is 'shared:x'"),
    ({f"{TASKS}.one.fitting_net": "shared"}, r"one.fitting_net is shared, which another task has for its descriptor$"),
    (
        {f"{TASKS}.one.type_map": ["O", "H"], f"{TASKS}.two.type_map": ["O", "H"], f"{TASKS}.three.type_map": ["O"]},
        r"must have one type_map",
    ),
    ({f"{TASKS}.RANDOM": {}}, r"model_dict.RANDOM: a task must not be named"),
    ({f"{TASKS}.one.fitting_net.dim_case_embd": 3}, r"dim_case_embd must be the same"),
    ({f"{TASKS}.one.fitting_net.nuron": []}, r"model.model_dict.one.fitting_net.nuron is not a key"),
    ({"model.model_dict": {}}, r"model.model_dict is empty"),
    ({"loss_dict.two": ...}, r"loss_dict.two is missing"),
    ({"loss_dict.two.start_pref_x": 1}, r"loss_dict.two.start_pref_x is not a key"),
    ({"loss_dict.three": {"type": "ener"}}, r"^loss_dict.three: a loss of type 'ener' is for energies"),
    ({"loss_dict.three.pref": 0}, r"^loss_dict.three.pref and loss_dict.three.pref_atomic are both zero"),
    ({"loss": {}}, r"^loss is not a key"),
    ({"training.data_dict.four": {"training_data": {"systems": []}}}, r"training.data_dict.four is for a task"),
    ({"training.data_dict.two.training_data.batch_size": "mixed:4"}, r"data_dict.two.training_data.batch_size"),
    ({"training.model_prob.four": 1}, r"training.model_prob.four is for a task"),
    ({"training.model_prob.one": "a"}, r"training.model_prob.one is 'a'"),
    ({"training.model_prob": {"one": 0}}, r"training.model_prob is 0 for every task"),
    ({"training.num_epoch_dict": {"one": 1}}, r"num_epoch_dict takes the place of numb_steps"),
    ({"training.stop_batch": ...}, r"numb_steps or num_epoch_dict"),
    ({"training.numb_epoch": 3}, r"numb_epoch is for one task"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_TASKS, ids=lambda value: str(value)[:40])
def test_inputs_of_several_tasks_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalise(changed(SEVERAL, changes))


def test_what_has_no_effect_is_said() -> None:
    assert without_effect(normalise(BASE)) == []
    said = {"training.tensorboard": True, "training.acc_freq": 4, "model.fitting_net.layer_name": ["a"]}
    assert sorted(without_effect(normalise(changed(BASE, said)))) == sorted(said)
    task = {f"{TASKS}.three.fitting_net.sel_type": [0]}
    assert without_effect(normalise(changed(SEVERAL, task))) == ["model.model_dict.three.fitting_net.sel_type"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"model": 1,}', r"a.json is not JSON: line 1, column 1[23]"),
        ("a.json", "model: 1", r"a.json is not JSON.*YAML must be in a file named"),
        ("a.json", '{"model": 1, "model": 2}', r"a.json: the key 'model' stands twice"),
        ("a.json", '{"model": NaN}', r"a.json: NaN is no number"),
        ("a.json", "[1]", r"a.json holds \[1\], expected"),
        ("a.json", '{"model": ' + "1" * 5000 + "}", r"a.json is not a training input"),
        ("a.json", "[" * 100_000, r"a.json is not a training input"),
        ("a.yaml", "model: [1", r"a.yaml: this is no training input"),
        ("a.yaml", "a: 1\na: 2", r"a.yaml: .*'a' occurs twice"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_input(tmp_path / name)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_input(tmp_path / "none.json")
    (tmp_path / "bits.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match=r"bits\.json is not a training input"):
        read_input(tmp_path / "bits.json")


def test_a_file_stands_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps(changed(BASE, {"training.seed": "x"})), encoding="utf-8")
    with pytest.raises(InputError, match=r"in\.json: training\.seed is 'x'"):
        from_file(str(tmp_path / "in.json"))


def test_yaml_holds_the_same(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "in.yaml").write_text(yaml.safe_dump(BASE), encoding="utf-8")
    (tmp_path / "in.json").write_text(json.dumps(BASE), encoding="utf-8")
    assert read_input(tmp_path / "in.yaml") == read_input(tmp_path / "in.json")
