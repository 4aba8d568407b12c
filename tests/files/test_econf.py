"""Electron configurations: sums, Hund's rule, and the known exceptions to the filling rule."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2.errors import ModelFileError
from dpa2.files import econf


def test_every_element_has_its_electrons() -> None:
    assert len(econf.SYMBOLS) == len(set(econf.SYMBOLS)) == 118
    for number, symbol in enumerate(econf.SYMBOLS, 1):
        assert sum(econf.electrons(symbol).values()) == number


@pytest.mark.parametrize(
    ("symbol", "outer"),
    [
        ("H", {"1s": 1}),
        ("O", {"2s": 2, "2p": 4}),
        ("K", {"3d": 0, "4s": 1}),
        ("Cr", {"3d": 5, "4s": 1}),
        ("Fe", {"3d": 6, "4s": 2}),
        ("Cu", {"3d": 10, "4s": 1}),
        ("Nb", {"4d": 4, "5s": 1}),
        ("Tc", {"4d": 5, "5s": 2}),
        ("Pd", {"4d": 10, "5s": 0}),
        ("La", {"4f": 0, "5d": 1, "6s": 2}),
        ("Pr", {"4f": 3, "5d": 0, "6s": 2}),
        ("Gd", {"4f": 7, "5d": 1}),
        ("Lu", {"4f": 14, "5d": 1}),
        ("W", {"5d": 4, "6s": 2}),
        ("Pt", {"5d": 9, "6s": 1}),
        ("Au", {"5d": 10, "6s": 1}),
        ("Th", {"5f": 0, "6d": 2, "7s": 2}),
        ("U", {"5f": 3, "6d": 1, "7s": 2}),
        ("Pu", {"5f": 6, "6d": 0}),
        ("Cm", {"5f": 7, "6d": 1}),
        ("Lr", {"5f": 14, "6d": 1, "7s": 2, "7p": 0}),
        ("Og", {"7s": 2, "7p": 6}),
    ],
)
def test_ground_states(symbol: str, outer: dict[str, int]) -> None:
    found = econf.electrons(symbol)
    assert {shell: found[shell] for shell in outer} == outer


def test_rows_of_the_table() -> None:
    rows = econf.table(["N", "H"]) * np.sqrt(118)
    assert rows.shape == (2, 118)
    paired, single, empty = [1, 1], [-1, 1], [-1, -1]
    np.testing.assert_allclose(rows[0], [*paired, *paired, *(3 * single), *(54 * empty)], rtol=0, atol=1e-14)
    np.testing.assert_allclose(rows[1], [*single, *(58 * empty)], rtol=0, atol=1e-14)


def test_rows_are_in_the_order_of_the_type_map() -> None:
    whole = econf.table(econf.SYMBOLS)
    assert len({row.tobytes() for row in whole}) == 118
    np.testing.assert_array_equal(econf.table(["Fe", "C"]), whole[[25, 5]])
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, rtol=1e-14)


def test_names_that_are_no_elements() -> None:
    with pytest.raises(ModelFileError, match="'X'"):
        econf.table(["O", "X"])
