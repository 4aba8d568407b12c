"""`dpa2.sklearn.DescriptorTransformer`: pooled descriptors, and the manners of a transformer of scikit-learn."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, TYPES, frames, make_model, model_data
from cases import SAME
from dpa2.data import read_structures
from dpa2.embedded import default_model
from dpa2.files import write_safetensors

pytest.importorskip("sklearn", reason=needs.reason("sklearn"))

from dpa2.sklearn import DescriptorTransformer
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

WATER = Path(__file__).resolve().parents[2] / "examples" / "training" / "water_48.extxyz"
STRUCTURES = [
    (COORDS, SYMBOLS, BOX),
    (COORDS[:3], SYMBOLS[:3]),
    (COORDS[:4], TYPES[:4], BOX, (True, False, True)),
    (frames(1)[0], SYMBOLS, BOX),
]
NUMPY = {"mean": np.mean, "sum": np.sum, "std": np.std, "min": np.min, "max": np.max}


def make(**options: Any) -> DescriptorTransformer:
    return DescriptorTransformer(make_model("cpu"), **options)


@functools.cache
def water() -> tuple[list[tuple[np.ndarray, list[str], np.ndarray]], np.ndarray, np.ndarray]:
    """Sixteen molecules with bonds stretched by up to a tenth, and shaken: structures, energies per atom, the mean
    length of the bonds. The energies are the embedded model's, as in the examples' data sets."""
    (frame,) = next(iter(read_structures(str(WATER))))
    assert frame.names is not None
    assert frame.box is not None
    symbols, rng = [frame.names[t] for t in frame.types], np.random.default_rng(4)
    oxygen = np.array([symbol == "O" for symbol in symbols])
    fractional = np.linalg.inv(frame.box)

    def bonds(coords: np.ndarray) -> np.ndarray:
        """(hydrogens, 3) from the nearest oxygen."""
        pairs = coords[~oxygen][:, None] - coords[oxygen][None]
        pairs -= np.rint(pairs @ fractional) @ frame.box
        nearest = np.linalg.norm(pairs, axis=-1).argmin(axis=1)
        return np.asarray(pairs[np.arange(len(pairs)), nearest])

    structures, lengths = [], []
    for stretch in rng.uniform(-0.1, 0.1, size=24):
        coords = frame.coords.copy()
        coords[~oxygen] += stretch * bonds(coords)
        coords += 0.02 * rng.normal(size=coords.shape)
        structures.append((coords, symbols, frame.box))
        lengths.append(np.linalg.norm(bonds(coords), axis=1).mean())
    found = default_model().evaluate(
        np.stack([coords for coords, _, _ in structures]), symbols, frame.box, forces=False
    )
    return structures, found.energy / len(symbols), np.array(lengths)


# ------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("pooling", ["mean", "sum", "mean+std", ["max", "min"]])
@pytest.mark.parametrize("per_type", [False, True])
def test_rows_are_pooled_descriptors(pooling: Any, per_type: bool) -> None:
    found = make(pooling=pooling, per_type=per_type).fit_transform(STRUCTURES)
    names = pooling.split("+") if isinstance(pooling, str) else pooling
    for row, (coords, types, *box) in zip(found, STRUCTURES, strict=True):
        descriptor = make_model("cpu").descriptor(coords, types, *box)
        kinds = np.array([t if isinstance(t, str) else make_model("cpu").type_map[t] for t in types])
        expected = []
        for kind in ["O", "H", "C"] if per_type else [None]:
            rows = descriptor if kind is None else descriptor[kinds == kind]
            for name in names:
                expected.append(NUMPY[name](rows, axis=0) if len(rows) else np.zeros(descriptor.shape[1]))
        np.testing.assert_allclose(row, np.concatenate(expected), rtol=SAME, atol=SAME)


def test_atoms_of_ase_and_tuples_are_the_same() -> None:
    atoms_of = needs.package("ase").Atoms
    atoms = [
        atoms_of(SYMBOLS, COORDS, cell=BOX, pbc=True),
        atoms_of(SYMBOLS[:3], COORDS[:3], cell=BOX, pbc=False),
        atoms_of(SYMBOLS[:4], COORDS[:4], cell=BOX, pbc=(True, False, True)),
        atoms_of(SYMBOLS, frames(1)[0], cell=BOX, pbc=True),
    ]
    np.testing.assert_array_equal(make().fit_transform(atoms), make().fit_transform(STRUCTURES))


@pytest.mark.parametrize("per_type", [False, True])
def test_permutation_wrapping_and_rotation_do_not_matter(per_type: bool) -> None:
    """Of the embedded model: in random ones the scale of a vector differs from axis to axis."""
    rng, (coords, symbols, box) = np.random.default_rng(2), water()[0][0]
    order = rng.permutation(len(coords))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    variants = [
        (coords, symbols, box),
        (coords[order], [symbols[k] for k in order], box),
        (coords + rng.integers(-2, 3, size=coords.shape) @ box, symbols, box),
        (coords @ rotation, symbols, box @ rotation),
    ]
    transformer = DescriptorTransformer(pooling="mean+sum+std+min+max", per_type=per_type, precision="float64")
    rows = transformer.fit_transform(variants)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), rtol=1e-9, atol=1e-9)


def test_periodic_images() -> None:
    """Two cells side by side: the same mean, twice the sum."""
    twice = np.concatenate([COORDS, COORDS + BOX[0]])
    structures = [(COORDS, SYMBOLS, BOX), (twice, SYMBOLS * 2, BOX * [[2], [1], [1]])]
    one, two = make(pooling="mean+std+min+max").fit_transform(structures)
    np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-10)
    one, two = make(pooling="sum", per_type=True).fit_transform(structures)
    np.testing.assert_allclose(two, 2.0 * one, rtol=1e-10, atol=1e-10)


def test_threads_do_not_matter_and_virtual_atoms_do_not_count(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", model_data())
    path = tmp_path / "model.safetensors"
    many = [(coords, SYMBOLS, BOX) for coords in frames(5)]
    one = DescriptorTransformer(path, threads=1).fit_transform(many)
    np.testing.assert_allclose(DescriptorTransformer(path, threads=2).fit_transform(many), one, rtol=SAME, atol=SAME)
    padded = [(np.concatenate([coords, [[0.0, 0.0, 0.0]]]), [*TYPES, -1], BOX) for coords in frames(5)]
    for per_type in (False, True):
        options = {"threads": 1, "per_type": per_type, "pooling": "min+mean"}
        rows = [DescriptorTransformer(path, **options).fit_transform(each) for each in (many, padded)]
        np.testing.assert_allclose(rows[1], rows[0], rtol=SAME, atol=SAME)


@pytest.mark.slow
def test_processes_do_not_matter() -> None:
    many = [(coords, SYMBOLS, BOX) for coords in frames(4)]
    np.testing.assert_array_equal(make(n_jobs=2).fit_transform(many), make().fit_transform(many))


# ------------------------------------------------------------------------------------------ with scikit-learn


@pytest.mark.slow
def test_regression_of_water() -> None:
    """Energies per atom, and a number that no model has to do with: the mean length of the bonds."""
    structures, energies, lengths = water()
    for target in (energies, lengths):
        pipeline = make_pipeline(DescriptorTransformer(pooling="mean+std"), StandardScaler(), Ridge(1e-2))
        assert cross_val_score(pipeline, structures, target, cv=4).min() > 0.8
        assert cross_val_score(DummyRegressor(), np.zeros((len(target), 1)), target, cv=4).max() <= 0.0


@pytest.mark.slow
def test_classification_of_water() -> None:
    structures, _, lengths = water()
    stretched = lengths > np.median(lengths)
    pipeline = make_pipeline(DescriptorTransformer(per_type=True), StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, structures, stretched, cv=3).mean() > 0.8


@pytest.mark.slow
def test_search_over_poolings() -> None:
    structures, energies, _ = water()
    pipeline = make_pipeline(DescriptorTransformer(), StandardScaler(), Ridge(1e-2))
    search = GridSearchCV(pipeline, {"descriptortransformer__pooling": ["min", "mean"]}, cv=2, refit=False)
    search.fit(structures[:8], energies[:8])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_names_of_features() -> None:
    dim = make_model("cpu").descriptor_dim
    names = make(pooling="mean+std").fit(STRUCTURES).get_feature_names_out()
    assert names.tolist() == [f"{pooling}_{k}" for pooling in ("mean", "std") for k in range(dim)]
    transformer = make(per_type=True).fit(STRUCTURES)
    assert transformer.types_ == ("O", "H", "C")
    names = transformer.get_feature_names_out().tolist()
    assert names == [f"{kind}_mean_{k}" for kind in ("O", "H", "C") for k in range(dim)]
    pipeline = make_pipeline(transformer, StandardScaler()).fit(STRUCTURES)
    assert pipeline.get_feature_names_out().tolist() == names


def test_output_as_a_table() -> None:
    pandas = needs.package("pandas")
    transformer = make().set_output(transform="pandas").fit(STRUCTURES)
    table = transformer.transform(STRUCTURES)
    assert isinstance(table, pandas.DataFrame)
    assert table.columns.tolist() == transformer.get_feature_names_out().tolist()
    np.testing.assert_array_equal(table.to_numpy(), make().fit_transform(STRUCTURES))


def test_clone_and_pickle(tmp_path: Path) -> None:
    transformer = make(pooling="max", per_type=True).fit(STRUCTURES)
    again = clone(transformer)
    assert again.get_params() == transformer.get_params()
    assert again.model is transformer.model  # immutable
    with pytest.raises(NotFittedError):
        again.transform(STRUCTURES)
    loaded = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(loaded.transform(STRUCTURES), transformer.transform(STRUCTURES))


@pytest.mark.parametrize(
    "name",
    [
        "check_do_not_raise_errors_in_init_or_set_param",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_checks_of_estimators_that_need_no_arrays(name: str) -> None:
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this scikit-learn has no {name}")
    assert check("DescriptorTransformer", DescriptorTransformer()) is None


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("structures", "match"),
    [
        ([], "there are no structures"),
        (3, "structures must be a list of them"),
        ("water", "structures must be a list of them; put a single one into a list"),
        ((COORDS, SYMBOLS), "got what looks like one"),
        ([COORDS], r"structure 0 must be ase.Atoms or a tuple .*, got ndarray"),
        ([STRUCTURES[0], (COORDS,)], r"structure 1 must be ase.Atoms or a tuple"),
        ([(COORDS, ["O", "H", "H", "C", "Cu"])], "structure 0: types: atom 4 is 'Cu', which the model does not know"),
        ([(COORDS, TYPES[:4])], r"structure 0: types must have shape \(5,\)"),
        ([STRUCTURES[0], (COORDS * np.nan, TYPES)], "structure 1: coords of atom 0: x = nan is not finite"),
        ([(COORDS, TYPES, np.zeros((3, 3)))], "structure 0: box is singular"),
        ([(COORDS[:0], [])], "structure 0 has no atoms"),
        ([(COORDS[None], TYPES)], r"structure 0: coords must have shape \(natoms, 3\)"),
    ],
)
def test_bad_structures(structures: Any, match: str) -> None:
    with pytest.raises(dpa2.InputError, match=match):
        make().fit(structures)
    with pytest.raises(dpa2.InputError, match=match):
        make().fit(STRUCTURES).transform(structures)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pooling": "median"}, "pooling must be one of mean, sum, std, min, max"),
        ({"pooling": []}, "pooling must be one of"),
        ({"pooling": "mean+mean"}, "pooling must be one of"),
        ({"pooling": 3}, "pooling must be one of"),
        ({"per_type": "O"}, "per_type must be True or False, got 'O'"),
        ({"n_jobs": 0}, "n_jobs must be None, a positive integer, or -1"),
        ({"threads": 2}, r"threads: a dpa2\.Model has its own"),
    ],
)
def test_bad_parameters_are_refused_when_fitting(options: dict[str, Any], match: str) -> None:
    transformer = make(**options)
    with pytest.raises(dpa2.InputError, match=match):
        transformer.fit(STRUCTURES)


def test_a_type_that_was_not_there_in_fit() -> None:
    transformer = make(per_type=True).fit(STRUCTURES[1:2])
    assert transformer.types_ == ("O", "H")
    with pytest.raises(dpa2.InputError, match=r"structure 0 has atoms of 'C', which no structure had in fit; .* O, H"):
        transformer.transform(STRUCTURES)
