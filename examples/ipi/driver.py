"""Forces for i-PI: connects to a running ``i-pi`` and evaluates a DPA-2 model for it until i-PI ends.

    python driver.py                                  the embedded model of water, the socket named in input.xml
    python driver.py --model my.pth --structure start.extxyz --address name
    python driver.py --device cuda                    on a GPU

Several drivers may serve one i-PI, each some of the beads. Needs ASE: pip install 'dpa2[ase]'.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import ase.io
from ase.calculators.socketio import SocketClient
from dpa2.ase import DPA2Calculator

STRUCTURE = Path(__file__).parent.parent / "water_192.extxyz"


def connect(address: str, patience: float) -> SocketClient:
    """The socket of i-PI, which may still have to be opened."""
    until = time.monotonic() + patience
    while True:
        try:
            return SocketClient(unixsocket=address)
        except OSError:
            if time.monotonic() > until:
                raise SystemExit(f"no i-PI is listening at the UNIX socket {address!r}: start i-pi first") from None
            time.sleep(0.1)


def main() -> None:
    """Read the atoms, attach the calculator, serve."""
    parser = argparse.ArgumentParser(description="Forces of a DPA-2 model for i-PI.")
    parser.add_argument("--structure", default=str(STRUCTURE), help="the atoms that i-PI has (default: the water box)")
    parser.add_argument("--model", help="model file (default: the embedded model of water)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--address", default="dpa2", help="of the UNIX socket, as in input.xml (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to wait for i-PI (default: %(default)s)")
    args = parser.parse_args()

    atoms = ase.io.read(args.structure)
    atoms.calc = DPA2Calculator(args.model, device=args.device)
    connect(args.address, args.patience).run(atoms, use_stress=True)


if __name__ == "__main__":
    main()
