"""Electron configurations of the elements and the type-embedding input made from them (theory 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError

_SYMBOLS = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
_TABLE_ORDER = "1s 2s 2p 3s 3p 3d 4s 4p 4d 4f 5s 5p 5d 5f 6s 6p 6d 7s 7p"
_FILLING_ORDER = "1s 2s 2p 3s 3p 4s 3d 4p 5s 4d 5p 6s 4f 5d 6p 7s 5f 6d 7p"

SYMBOLS: list[str] = _SYMBOLS.split()
"""The elements in the order of their atomic numbers."""

SUBSHELLS: list[str] = _TABLE_ORDER.split()
"""The order of the subshells in the table."""

_ORBITALS = {"s": 1, "p": 3, "d": 5, "f": 7}

# Ground states of the neutral atoms that differ from the filling rule: electrons moved (subshell: change). Where the
# literature disagrees (Lr, Ds, Rg) this is the choice that models were trained with.
_EXCEPTIONS: dict[str, dict[str, int]] = {
    **{symbol: {"4s": -1, "3d": 1} for symbol in ("Cr", "Cu")},
    **{symbol: {"5s": -1, "4d": 1} for symbol in ("Nb", "Mo", "Ru", "Rh", "Ag")},
    **{symbol: {"4f": -1, "5d": 1} for symbol in ("La", "Ce", "Gd")},
    **{symbol: {"6s": -1, "5d": 1} for symbol in ("Pt", "Au")},
    **{symbol: {"5f": -1, "6d": 1} for symbol in ("Ac", "Pa", "U", "Np", "Cm")},
    "Pd": {"5s": -2, "4d": 2},
    "Th": {"5f": -2, "6d": 2},
    **{symbol: {"7s": -1, "6d": 1} for symbol in ("Ds", "Rg")},
}

NUM_INPUTS = 2 * sum(_ORBITALS[s[1]] for s in SUBSHELLS)


def electrons(symbol: str) -> dict[str, int]:
    """Electrons per subshell of the neutral atom in its ground state. Raises for a name that is no element."""
    if symbol not in SYMBOLS:
        raise ModelFileError(
            f"the model embeds types by electron configuration, but its type {symbol[:40]!r} is no element"
        )
    left = SYMBOLS.index(symbol) + 1
    occupation = dict.fromkeys(SUBSHELLS, 0)
    for shell in _FILLING_ORDER.split():
        occupation[shell] = min(left, 2 * _ORBITALS[shell[1]])
        left -= occupation[shell]
    for shell, change in _EXCEPTIONS.get(symbol, {}).items():
        occupation[shell] += change
    return occupation


def table(type_map: list[str]) -> NDArray[np.float64]:
    """The inputs of the type embedding, (ntypes, 118), one row per type in the order of ``type_map``."""
    pairs_of_signs = {0: (-1.0, -1.0), 1: (-1.0, 1.0), 2: (1.0, 1.0)}
    rows = []
    for symbol in type_map:
        row: list[float] = []
        for shell, n in electrons(symbol).items():
            orbitals = _ORBITALS[shell[1]]
            paired = max(0, n - orbitals)  # Hund: every orbital gets one electron before any gets two
            for k in range(orbitals):
                row += pairs_of_signs[2 if k < paired else 1 if k < n else 0]
        rows.append(row)
    signs: NDArray[np.float64] = np.array(rows, dtype=np.float64).reshape(len(type_map), NUM_INPUTS)
    signs /= np.sqrt(NUM_INPUTS)
    return signs
