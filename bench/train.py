"""A training step of dpa2 against deepmd-kit's: two long-lived processes, called in turn on the same batches.

    python bench/train.py --peer-python ENV/bin/python -m init.pt batch.npz
    python bench/train.py ... --precision float32 --threads 2 --runs 7 --csv train.csv

A step is forward, forces, loss and the gradient of every parameter, without an optimizer. The checkpoint is a .pt of
deepmd-kit's; it is read in the precision that is asked for by both. The batch has coord (nframes, natoms, 3), box
(nframes, 3, 3), atype (nframes, natoms), energy, force and, if there is one, virial. Without a batch: one frame of 192
atoms of water with made-up labels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
from common import Service, machine, read_structure, write_csv
from peer import PAUSE, label

LOSS = {"type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1}
VIRIAL = {"start_pref_v": 0.02, "limit_pref_v": 1}


def water(type_map: tuple[str, ...], times: int) -> dict[str, Any]:
    """One frame of water with labels that no model would give."""
    structure, rng = read_structure(None, (times, 1, 1), type_map), np.random.default_rng(1)
    natoms = len(structure.types)
    return {
        "coord": structure.coords[None],
        "box": np.asarray(structure.box)[None],
        "atype": structure.types[None],
        "energy": np.array([-5.0 * natoms]),
        "force": rng.normal(size=(1, natoms, 3)),
        "virial": rng.normal(size=(1, 9)),
    }


def read_batch(path: str) -> dict[str, Any]:
    """A batch in the shapes of the workers."""
    with np.load(path, allow_pickle=False) as z:
        batch = {key: z[key] for key in ("coord", "box", "atype", "energy", "force", "virial") if key in z.files}
    types = np.atleast_2d(batch["atype"])
    frames, natoms = len(batch["energy"].reshape(-1)), types.shape[1]
    shapes = {"coord": (natoms, 3), "box": (3, 3), "force": (natoms, 3), "virial": (9,), "energy": ()}
    batch = {key: np.asarray(v, float).reshape(frames, *shapes[key]) for key, v in batch.items() if key != "atype"}
    return {**batch, "atype": np.broadcast_to(types, (frames, natoms)).astype(np.int32)}


def distance(folder: Path) -> float:
    """How far the gradients are apart: the norm of the difference by the norm."""
    with np.load(folder / "batch.dpa2.npz") as ours, np.load(folder / "batch.deepmd.npz") as peer:
        pairs = [(ours[key], peer[key]) for key in peer.files if peer[key].size > 0]
    apart = sum(float(np.sum((a - b.astype(float)) ** 2)) for a, b in pairs)
    return float(np.sqrt(apart / sum(float(np.sum(b.astype(float) ** 2)) for _, b in pairs)))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="A training step of dpa2 against deepmd-kit's, interleaved.")
    parser.add_argument("-m", "--model", required=True, help="checkpoint of deepmd-kit, .pt")
    parser.add_argument("batch", nargs="?", help=".npz; default: 192 atoms of water")
    parser.add_argument("--peer-python", help="interpreter that has deepmd-kit; without it dpa2 runs alone")
    parser.add_argument("--replicate", type=int, default=1, help="copies of the water")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="timed steps of each, one per turn (default: 5)")
    parser.add_argument("--warmup", type=int, default=1, help="turns before the first timed one (default: 1)")
    parser.add_argument("--csv", help="append a row to this file")
    args = parser.parse_args()
    batch = read_batch(args.batch) if args.batch else water(tuple(dpa2.load(args.model).type_map), args.replicate)
    loss = {**LOSS, **(VIRIAL if "virial" in batch else {})}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "batch.npz", **batch)
        (folder / "loss.json").write_text(json.dumps(loss))
        worker = str(Path(__file__).with_name("train_worker.py"))
        tail = [args.model, str(folder / "batch.npz"), str(folder / "loss.json"), args.precision, str(args.threads)]
        environment = {"OMP_NUM_THREADS": str(args.threads)}
        services = {}
        if args.peer_python:
            services["peer"] = Service("deepmd-kit", [args.peer_python, worker, "deepmd", *tail], environment)
            services["peer"].answer()
        services["ours"] = Service("dpa2", [sys.executable, worker, "dpa2", *tail], environment)
        services["ours"].answer()
        answers: dict[str, list[dict[str, Any]]] = {side: [] for side in services}
        for turn in range(args.warmup + args.runs):
            for side, service in services.items():
                time.sleep(PAUSE)
                found = service.ask()
                if turn >= args.warmup:
                    answers[side].append(found)
        for service in services.values():
            service.close()
        apart = distance(folder) if "peer" in services else float("nan")
    seconds = {side: statistics.median(a["seconds"] for a in found) for side, found in answers.items()}
    memory = {side: found[-1]["memory"] for side, found in answers.items()}
    frames, natoms = batch["atype"].shape
    row = {
        **machine(),
        "model": label(args.model),
        "frames": frames,
        "atoms": natoms,
        "precision": args.precision,
        "threads": args.threads,
        "runs": args.runs,
        "ours_s": round(seconds["ours"], 5),
        "ours_mb": round(memory["ours"], 1),
        "peer_s": "",
        "peer_mb": "",
        "ratio": "",
        "gradient_apart": "",
    }
    print(f"{row['model']}, {frames} frames of {natoms} atoms, {args.precision}, {args.threads} threads")
    print(f"dpa2        {seconds['ours']:9.4f} s per step, peak {memory['ours']:8.1f} MB")
    if "peer" in services:
        pairs = zip(answers["peer"], answers["ours"], strict=True)
        ratio = statistics.median(peer["seconds"] / ours["seconds"] for peer, ours in pairs)
        row |= {"peer_s": round(seconds["peer"], 5), "peer_mb": round(memory["peer"], 1)}
        row |= {"ratio": round(ratio, 2), "gradient_apart": f"{apart:.1e}"}
        print(f"deepmd-kit  {seconds['peer']:9.4f} s per step, peak {memory['peer']:8.1f} MB")
        print(f"ratio {ratio:.2f}, memory {memory['peer'] / memory['ours']:.1f}")
        print(f"the gradients are apart by {apart:.1e} of their norm")
    if args.csv:
        write_csv(args.csv, [row])


if __name__ == "__main__":
    main()
