"""Elements from what files say in their place: atomic numbers, masses, labels; and what users say of type numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import InputError
from ..files.econf import SYMBOLS

_MASSES = """
1.008 4.0026 6.94 9.01218 10.81 12.011 14.007 15.999 18.9984 20.1797 22.9898 24.305 26.9815 28.085 30.9738 32.06
35.45 39.948 39.0983 40.078 44.9559 47.867 50.9415 51.9961 54.938 55.845 58.9332 58.6934 63.546 65.38 69.723 72.63
74.9216 78.971 79.904 83.798 85.4678 87.62 88.9058 91.224 92.9064 95.95 97.9072 101.07 102.906 106.42 107.868
112.414 114.818 118.71 121.76 127.6 126.904 131.293 132.905 137.327 138.905 140.116 140.908 144.242 144.913 150.36
151.964 157.25 158.925 162.5 164.93 167.259 168.934 173.054 174.967 178.49 180.948 183.84 186.207 190.23 192.217
195.084 196.967 200.592 204.38 207.2 208.98 208.982 209.987 222.018 223.02 226.025 227.028 232.038 231.036 238.029
237.048 244.064 243.061 247.07 247.07 251.08 252.083 257.095 258.098 259.101 262.11 267.122 268.126 271.134 270.133
269.134 278.156 281.165 281.166 285.177 286.182 289.19 289.194 293.204 293.208 294.214
"""
#: standard atomic weights, or the mass of the longest-lived isotope, in the order of ``SYMBOLS``
MASSES: list[float] = [float(word) for word in _MASSES.split()]
_KNOWN = frozenset(SYMBOLS)

#: a mass is an element's if it differs by this fraction at most, and if no other element is nearly as near
_NEAR = 0.03

HINT = "name the elements of types 1, 2, ... with --types (in Python: types=), such as --types O H"


def is_element(symbol: str) -> bool:
    """Whether it is the symbol of an element, in its usual spelling."""
    return symbol in _KNOWN


def atomic_number(symbol: str) -> int | None:
    """The atomic number of an element by its symbol; None for any other name."""
    return SYMBOLS.index(symbol) + 1 if symbol in _KNOWN else None


def mass_of(symbol: str) -> float:
    """The mass of an element."""
    return MASSES[SYMBOLS.index(symbol)]


def of_number(number: int, where: str) -> str:
    """The element of an atomic number."""
    if not 1 <= number <= len(SYMBOLS):
        raise InputError(f"{where}: an atomic number from 1 to {len(SYMBOLS)} expected, found {number}")
    return SYMBOLS[number - 1]


def of_mass(mass: float) -> str | None:
    """The element of a mass; None where none is near, or two are."""
    ranked = sorted(range(len(MASSES)), key=lambda k: abs(MASSES[k] - mass))[:2]
    first, second = (abs(MASSES[k] - mass) for k in ranked)
    if not first <= _NEAR * MASSES[ranked[0]] or second < 2.0 * first:
        return None
    return SYMBOLS[ranked[0]]


def of_masses(masses: Mapping[int, float], where: str) -> dict[int, str]:
    """The elements of types by their masses.

    Raises:
        InputError: a mass of no element, or of two.
    """
    found = {}
    for number, mass in sorted(masses.items()):
        symbol = of_mass(mass)
        if symbol is None:
            raise InputError(f"{where}: the mass {mass:g} of type {number} does not tell its element; {HINT}")
        found[number] = symbol
    return found


def of_types(numbers: Sequence[int], types: Sequence[str], where: str) -> list[str]:
    """The names that a user gave to type numbers, which count from 1."""
    for number in numbers:
        if not 1 <= number <= len(types):
            count = f"{len(types)} name{'' if len(types) == 1 else 's'} ({' '.join(types)})"
            raise InputError(f"{where}: there is an atom of type {number}, but --types has {count}")
    return [types[number - 1] for number in numbers]


# residues in whose atom names letters after the first say where an atom is, not what it is: CA is a carbon
_POLYMERS = """
ALA ARG ASN ASP CYS CYX GLN GLU GLY HIS HID HIE HIP HSD HSE HSP ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL ACE NME NH2
A C G U T DA DC DG DT DU RA RC RG RU ADE CYT GUA URA THY SOL WAT HOH TIP TIP3 TIP4 TP3 SPC
"""
_RESIDUES = frozenset(_POLYMERS.split())


def of_label(label: str, residue: str) -> str | None:
    """The element of an atom's name in a file for biomolecules, such as OW, HW1, CA; None where it is not certain."""
    letters = re.sub(r"[^A-Za-z]", "", label)
    if not letters:
        return None
    two = letters[:2].capitalize()
    if residue.strip().upper() in _RESIDUES:
        return letters[0].upper() if letters[0].upper() in "HCNOSP" else None
    if residue.strip("0123456789+- ").capitalize() == two and two in _KNOWN:  # an ion is a residue of its own
        return two
    if letters[:2] == two and len(two) == 2 and two in _KNOWN:
        return two
    one = letters[0].upper()
    ambiguous = len(letters) > 1 and two in _KNOWN
    return one if one in _KNOWN and not ambiguous else None
