"""What several GPUs would take for a step, on paper: the tables of docs/scaling.md. Nothing is measured here.

    python bench/gpu_scaling.py
    python bench/gpu_scaling.py --update

The time of one GPU was measured (bench/results). The bytes that ghosts cost are counted, from the model's widths and
the volume of the shell around a box. Bandwidths are nominal ones times a share that is assumed, latencies are assumed.
Space is divided into equal cubes of a homogeneous liquid.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT
from gpu_cases import DENSITY, MODELS

PAGE = ROOT / "docs" / "scaling.md"
MEASURED = Path(__file__).resolve().parent / "results" / "h200-second-steps.csv"
COMMIT, PRECISION, BYTES = "a3cb0dc", "float32", 4  # of the row that is taken; bytes of a number
BEGIN, END = "<!-- bench/gpu_scaling.py: begin {} -->", "<!-- end -->"

SKIN = 1.0  # angstrom, of the program that moves the atoms
SHARE = 0.5  # of a nominal bandwidth that messages of megabytes reach: assumed
CARD = 80e9  # bytes of an H100
SIZES = (10**6, 10**8)


@dataclass(frozen=True)
class Machine:
    """GPUs, and what is between them."""

    name: str
    gpus: int
    nominal: float  # bytes per second that a GPU sends, and receives at the same time
    latency: float  # seconds of an exchange: packing, 26 messages, waiting; assumed


#: NVLink 4: 900 GB/s of an H100 in both directions together. One ConnectX-7 of 400 Gb/s for each GPU of a DGX H100.
NODE = Machine("8 in a node", 8, 450e9, 20e-6)
NETWORK = Machine("64 over a network", 64, 50e9, 40e-6)
#: PCI Express 5, 16 lanes, in one direction: where messages go through the host
HOST = 64e9


def model() -> dict[str, Any]:
    """The published medium model: what the page is about."""
    config: dict[str, Any] = MODELS["medium"].make().config["descriptor"]
    return config


def cutoffs(descriptor: dict[str, Any]) -> dict[str, float]:
    """How far ghosts reach: all that the plugin has, and those whose rows a layer reads."""
    return {name: float(descriptor[name]["rcut"]) for name in ("repinit", "repformer")}


def row_bytes(descriptor: dict[str, Any], size: int = BYTES) -> int:
    """Of one ghost in one exchange."""
    return int(descriptor["repformer"]["g1_dim"]) * size


def exchanges(descriptor: dict[str, Any]) -> int:
    """Of a step: one before each layer, and one after each layer of the backward pass."""
    return 2 * int(descriptor["repformer"]["nlayers"])


def step_bytes(descriptor: dict[str, Any], size: int = BYTES) -> int:
    """Of one ghost in a step, energies and forces."""
    return row_bytes(descriptor, size) * exchanges(descriptor)


def kept_bytes(descriptor: dict[str, Any], size: int = BYTES) -> int:
    """Of the device's memory for one ghost: g1 of every layer and of the last, two gradients, one projection."""
    return row_bytes(descriptor, size) * (int(descriptor["repformer"]["nlayers"]) + 4)


def ghosts(atoms: float, reach: float) -> float:
    """Around a cube of so many atoms."""
    side = (atoms / DENSITY) ** (1 / 3)
    return DENSITY * ((side + 2 * reach) ** 3 - side**3)


def measured() -> list[tuple[int, float, float]]:
    """(atoms, microseconds per atom, kB per atom), by size."""
    with open(MEASURED, encoding="utf-8", newline="") as file:
        rows = [
            (int(row["atoms"]), float(row["us_per_atom"]), float(row["kb_per_atom"]))
            for row in csv.DictReader(file)
            if (row["commit"], row["precision"], row["variant"]) == (COMMIT, PRECISION, "")
        ]
    return sorted(rows)


def compute(atoms: float) -> float:
    """Seconds of one GPU, between the sizes that were measured by the logarithm; beyond them as the last one."""
    rows = measured()
    each = np.interp(math.log(atoms), [math.log(n) for n, _, _ in rows], [time for _, time, _ in rows])
    return atoms * float(each) * 1e-6


@dataclass(frozen=True)
class Row:
    """A step of a system on a machine."""

    machine: Machine
    atoms: int
    own: float  # atoms of a GPU
    ghosts: float  # and ghosts
    memory: float  # bytes of a GPU
    compute: float  # seconds
    exchange: float  # seconds, all exchanges of a step
    through_host: float  # the same by way of the host's memory

    @property
    def fits(self) -> bool:
        return self.memory <= CARD

    def efficiency(self, exchange: float) -> float:
        """Of the time that the same atoms take without any ghosts, if nothing overlaps."""
        return self.compute / (self.compute + exchange)


def row(machine: Machine, atoms: int, block: str = "repinit") -> Row:
    """`block`: whose cutoff the exchanged ghosts reach to."""
    descriptor = model()
    own, reach = atoms / machine.gpus, cutoffs(descriptor)
    around, sent = ghosts(own, reach["repinit"] + SKIN), ghosts(own, reach[block] + SKIN)
    load = sent * step_bytes(descriptor)
    fixed = exchanges(descriptor) * machine.latency
    _, _, kb = measured()[-1]
    memory = own * kb * 1e3 + around * kept_bytes(descriptor)
    exchange = fixed + load / (SHARE * machine.nominal)
    host = fixed + load / (SHARE * min(machine.nominal, HOST)) + 2 * load / (SHARE * HOST)  # down, across, up
    return Row(machine, atoms, own, sent, memory, compute(own), exchange, host)


def power(atoms: int) -> str:
    """10^6"""
    return f"10^{round(math.log10(atoms))}"


def steps() -> str:
    """The table of times."""
    lines = [
        "| H100 | atoms | atoms of one | GB of one | ghosts of one | exchanged, MB | compute, ms | exchange, ms "
        "| efficiency | through the host, ms | efficiency | steps per second |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for atoms in SIZES:
        for machine in (NODE, NETWORK):
            one = row(machine, atoms)
            load = one.ghosts * step_bytes(model()) / 1e6
            fits = "" if one.fits else ": **too many**"
            speed = f"{1 / (one.compute + one.exchange):.2g}" if one.fits else ""
            cells = [machine.name, power(atoms), f"{one.own:,.0f}", f"{one.memory / 1e9:.1f}{fits}"]
            cells += [f"{one.ghosts:,.0f}", f"{load:,.0f}", f"{one.compute * 1e3:,.1f}"]
            for exchange in (one.exchange, one.through_host):
                cells += [f"{exchange * 1e3:,.2f}", f"{one.efficiency(exchange):.1%}"]
            lines.append("| " + " | ".join([*cells, speed]) + " |")
    return "\n".join(lines)


def halves() -> str:
    """The table of ghosts by cutoff."""
    reach = cutoffs(model())
    heads = [f"ghosts to {reach[name] + SKIN:g} angstrom, MB, exchange in ms" for name in reach]
    lines = ["| H100 | atoms | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(reach)]
    for atoms in SIZES:
        for machine in (NODE, NETWORK):
            found = [row(machine, atoms, name) for name in reach]
            cells = [
                f"{one.ghosts:,.0f}, {one.ghosts * step_bytes(model()) / 1e6:,.0f}, {one.exchange * 1e3:,.2f}"
                for one in found
            ]
            lines.append(f"| {machine.name} | {power(atoms)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fewest(atoms: int) -> int:
    """Nodes of eight GPUs that have the memory."""
    nodes = 1
    while not row(Machine("", 8 * nodes, 1.0, 0.0), atoms).fits:
        nodes += 1
    return nodes


def counted() -> str:
    """Sentences with the numbers that the tables come from."""
    descriptor = model()
    reach = cutoffs(descriptor)
    rows = measured()
    times = ", ".join(f"{time:.2f} at {n:,}" for n, time, _ in rows[1:])
    return (
        f"- A ghost costs {row_bytes(descriptor)} bytes per layer and direction: a row of g1 with "
        f"{descriptor['repformer']['g1_dim']} numbers in single precision. With {descriptor['repformer']['nlayers']} "
        f"layers, forward and backward, that is {exchanges(descriptor)} exchanges and {step_bytes(descriptor):,} bytes "
        f"in a step.\n"
        f"- Ghosts reach {reach['repinit']:g} angstrom (repinit) and a skin of {SKIN:g} beyond the box, at {DENSITY} "
        f"atoms per cubic angstrom. Layers read those to {reach['repformer']:g} angstrom alone (repformer).\n"
        f"- One GPU takes {times} atoms, in microseconds per atom, and {rows[-1][2]:.1f} kB per atom. A ghost takes "
        f"{kept_bytes(descriptor):,} bytes more.\n"
        f"- {power(SIZES[1])} atoms need {fewest(SIZES[1])} nodes of eight cards with {CARD / 1e9:g} GB."
    )


TABLES = {"counted": counted, "steps": steps, "cutoffs": halves}


def written(page: str) -> str:
    """The page with the tables as they are computed now."""
    for name, make in TABLES.items():
        begin = BEGIN.format(name)
        head, rest = page.split(begin)
        _, tail = rest.split(END, 1)
        page = f"{head}{begin}\n{make()}\n{END}{tail}"
    return page


def main(arguments: list[str] | None = None) -> None:
    """Print the tables or write them into the page."""
    parser = argparse.ArgumentParser(description="A step on several GPUs, on paper.")
    parser.add_argument("--update", action="store_true", help=f"write them into {PAGE.relative_to(ROOT)}")
    if parser.parse_args(arguments).update:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(make() for make in TABLES.values()))


if __name__ == "__main__":
    main()
