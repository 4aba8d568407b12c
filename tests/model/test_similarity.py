"""Distances, nearest frames and farthest points of `dpa2.similarity` against dense arrays."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2 import InputError, similarity
from dpa2.similarity import FrameVectors, farthest_points, frame_vector, nearest
from hypothesis import given, settings
from hypothesis import strategies as st

DIM = 3


def random_frames(seed: int, count: int, types: int) -> tuple[FrameVectors, np.ndarray]:
    """Vectors of frames that have some of the types each, and the same side by side, (count, types * DIM)."""
    rng = np.random.default_rng(seed)
    present = rng.random((count, types)) < 0.6
    present[np.arange(count), rng.integers(types, size=count)] = True
    dense = rng.normal(size=(count, types, DIM)) * present[:, :, None]
    frames = FrameVectors(dense[present], np.nonzero(present)[1].astype(np.int32), present.sum(axis=1))
    return frames, dense.reshape(count, -1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), one=st.integers(1, 12), two=st.integers(1, 12), types=st.integers(1, 4))
def test_distances(seed: int, one: int, two: int, types: int) -> None:
    frames, dense = random_frames(seed, one, types)
    others, other_dense = random_frames(seed + 1, two, types)
    expected = np.linalg.norm(dense[:, None] - other_dense[None], axis=-1)
    found = np.stack([frames.distances_to(*others.vector(k)) for k in range(two)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    index, distances = nearest(frames, others)
    np.testing.assert_array_equal(index, expected.argmin(axis=1))
    np.testing.assert_allclose(distances, expected.min(axis=1), rtol=1e-12, atol=1e-14)
    own = np.linalg.norm(dense[:, None] - dense[None], axis=-1) + np.diag(np.full(one, np.inf))
    index, distances = nearest(frames, frames, but_itself=True)
    np.testing.assert_allclose(distances, own.min(axis=1), rtol=1e-12)
    assert (index == np.where(one > 1, own.argmin(axis=1), -1)).all()
    rows, kinds = frames.center()
    mean = np.zeros((types, DIM))
    mean[kinds] = rows
    np.testing.assert_allclose(mean.ravel(), dense.mean(axis=0), atol=1e-14)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = random_frames(3, 40, 3)
    others, _ = random_frames(4, 50, 3)
    whole = nearest(frames, others), nearest(frames, frames, but_itself=True), list(farthest_points(frames))
    monkeypatch.setattr(similarity, "_ROWS", 3)
    monkeypatch.setattr(similarity, "_PAIRS", 5)
    parts = nearest(frames, others), nearest(frames, frames, but_itself=True), list(farthest_points(frames))
    for one, two in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_allclose(one[1], two[1], rtol=1e-14)
    assert [k for k, _ in whole[2]] == [k for k, _ in parts[2]]
    assert sorted(k for k, _ in whole[2]) == list(range(40))


def test_copies_have_no_distance() -> None:
    frames, dense = random_frames(5, 6, 2)
    rows = np.concatenate([frames.rows, frames.rows]) * 1e3
    twice = FrameVectors(rows, np.tile(frames.kinds, 2), np.tile(np.diff(frames.starts), 2))
    index, distances = nearest(twice, twice, but_itself=True)
    assert distances.max() == 0.0
    assert index.tolist() == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]
    assert len(list(farthest_points(twice))) == len(dense)


def test_vectors_of_frames() -> None:
    descriptor, types = np.arange(12.0).reshape(4, 3), np.array([2, 0, -1, 2])
    rows, kinds = frame_vector(descriptor, types)
    assert (rows.tolist(), kinds.tolist()) == ([[3.0, 4.0, 5.0], [4.5, 5.5, 6.5]], [0, 2])
    rows, kinds = frame_vector(descriptor, types, "mean")
    assert (rows.tolist(), kinds.tolist()) == ([[4.0, 5.0, 6.0]], [0])
    with pytest.raises(InputError, match="there are no atoms"):
        frame_vector(descriptor, np.full(4, -1))
