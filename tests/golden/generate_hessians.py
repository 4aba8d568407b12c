"""Make `hessians/`: Hessians as deepmd-kit computes them, and model files in its hessian_mode.

Run by hand in an environment that has deepmd-kit, after generate.py:

    python tests/golden/generate_hessians.py

`trained.pt` comes from a training run of one step whose loss has a term of Hessians, without the state of the
optimiser; `parameters.pt` is a model with random weights saved as such a run saves it; `frozen.pth` is what `dp freeze`
makes of the first, which is a model without hessian_mode.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from pathlib import Path

import generate
import generate_files
import generate_training
import hessian_cases as cases
import numpy as np
import torch
from cases import FILE_MODELS, golden_cases, load_golden
from deepmd.infer import DeepPot
from deepmd.pt.train.wrapper import ModelWrapper


def train(path: Path) -> None:
    """A checkpoint of one step."""
    case = next(case for case in FILE_MODELS if case.name == "trained")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        generate_files.write_data(work / "data", np.random.default_rng(5))
        labels = np.random.default_rng(6).normal(size=(2, 15, 15))
        np.save(work / "data/set.000/hessian.npy", (labels + labels.transpose(0, 2, 1)).reshape(2, -1))
        jdata = generate_files.training_input(generate.deepmd_input(case.config), "data")
        jdata["loss"] |= {"start_pref_h": 1, "limit_pref_h": 1}
        del jdata["training"]["enable_ema"], jdata["training"]["ema_decay"]
        (work / "input.json").write_text(generate_files.json.dumps(jdata))
        assert generate_files.dp("--pt", "train", "input.json", cwd=work)
        state = torch.load(work / "model-1.pt", map_location="cpu", weights_only=True)["model"]
    assert state["_extra_state"]["model_params"]["hessian_mode"] is True
    torch.save({"model": state}, path)


def save_parameters(path: Path) -> None:
    """A model with frame and atomic parameters, excluded types and much else, with random weights."""
    case = next(case for case in FILE_MODELS if case.name == "strip")
    model = generate.build(case, np.random.default_rng(zlib.crc32(case.name.encode())))
    params = {**generate.deepmd_input(case.config), "hessian_mode": True}
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict()}, path)


def of_cases() -> dict[str, np.ndarray]:
    """The upper triangle of the Hessian of every case and system."""
    out = {}
    declared = {case.name: case for case in golden_cases()}
    for name, systems in cases.CASES.items():
        golden = load_golden(declared[name])
        model = generate_training.build(generate_training.training.TrainingCase(name, systems[0], ()), golden).eval()
        model.enable_hessian()
        for system in golden.systems:
            if system.name in systems:
                matrix = generate_training.answer(model, system)["hessian"][0].detach().numpy()
                asymmetry = np.abs(matrix - matrix.T).max() / np.abs(matrix).max()
                print(
                    f"{name:26s} {system.name:5s} {matrix.shape} {np.abs(matrix).max():9.3g} {asymmetry:.1e}",
                    flush=True,
                )
                assert np.isfinite(matrix).all()
                out[f"{name}/{system.name}"] = cases.packed(0.5 * (matrix + matrix.T))
    return out


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(cases.HESSIANS, ignore_errors=True)
    cases.HESSIANS.mkdir()
    paths = {name: cases.HESSIANS / f"{name}.pt" for name in cases.FILES}
    train(paths["trained"])
    save_parameters(paths["parameters"])
    frozen = cases.HESSIANS / "frozen.pth"
    assert generate_files.dp("--pt", "freeze", "-c", paths["trained"], "-o", frozen)
    assert not DeepPot(str(frozen)).has_hessian
    generate_files.without_code(frozen)
    out = of_cases()
    models = {name: DeepPot(str(path)) for name, path in paths.items()}
    for name, (file, structure, options) in cases.CALLS.items():
        assert models[file].has_hessian
        for k, value in enumerate(models[file].eval(*structure, **options)):
            out[f"call/{name}/{k}"] = value
    np.savez_compressed(cases.HESSIANS / "answers.npz", **out)
    for path in sorted(cases.HESSIANS.iterdir()):
        print(f"{path.name:16s} {path.stat().st_size / 1024:6.1f} kB")


if __name__ == "__main__":
    main()
