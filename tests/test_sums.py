"""Sums over segments are exact: the same bits in any order, and however they are joined."""

import itertools
import math

import numpy as np
import pytest
from helpers import get, put

import spcy
from spcy.sums import partial_sums, sum_segments

pytestmark = pytest.mark.usefixtures("backend", "threads")
REALS = [np.float32, np.float64]


def shuffled(rng, segment_ptr):
    """An order of the rows that leaves each in its segment."""
    pieces = [rng.permutation(np.arange(a, b)) for a, b in itertools.pairwise(segment_ptr)]
    return np.concatenate(pieces).astype(np.int32)


def exact_sums(values, order, segment_ptr):
    rows = [order[a:b] for a, b in itertools.pairwise(segment_ptr)]
    return np.array([[math.fsum(column) for column in values[at].astype(float).T] for at in rows])


@pytest.mark.parametrize("far", [1, 1e-15], ids="far{}".format)
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("real", REALS)
def test_sums_are_exact(real, channels, far, rng):
    rows = 300
    segment_ptr = np.concatenate([[0], np.sort(rng.integers(0, rows, 40)), [rows]])
    values = rng.standard_normal((rows, channels)) * float(far) ** rng.integers(0, 3, (rows, channels))
    values = values.astype(real)
    order = rng.permutation(rows).astype(np.int32)
    expected = exact_sums(values, order, segment_ptr)
    counts = np.maximum(np.diff(segment_ptr), 1)[:, None]
    for within in (np.arange(rows), shuffled(rng, segment_ptr)):
        given = put(values), put(order[within]), put(segment_ptr)
        for dtype in REALS:
            np.testing.assert_array_equal(get(sum_segments(*given, np.dtype(dtype))), expected.astype(dtype))
        means = get(sum_segments(*given, np.dtype(real), mean=True))
        np.testing.assert_array_equal(means, (expected / counts).astype(real))
        high, low, loose = map(get, partial_sums(*given))
        np.testing.assert_array_equal((high + low)[~loose], expected[~loose])
        assert loose.any() == (far < 1)


def test_sums_that_overflow_are_infinite_and_parts_may():
    large = 1.7e308
    values = np.array([[large, large], [large, -large], [-large, -large], [large, -large], [large, -large]])
    sums = get(sum_segments(put(values), None, put(np.array([0, 3, 5])), np.dtype(float)))
    np.testing.assert_array_equal(sums, [[large, -large], [np.inf, -np.inf]])


@pytest.mark.parametrize("channels", [2, 7])
@pytest.mark.parametrize("real", REALS)
def test_sums_of_one_row_are_the_row(real, channels):
    values = np.array([-0.0, np.nan, np.inf, -np.inf, np.finfo(real).tiny / 4, 1.5], real).repeat(channels)
    values = values.reshape(-1, channels)
    sums = get(sum_segments(put(values), None, put(np.arange(len(values) + 1)), np.dtype(real), mean=True))
    np.testing.assert_array_equal(sums, values)
    assert not np.signbit(sums[0]).any()  # as of longer sums


@pytest.mark.parametrize("real", REALS)
def test_parts_add_up_to_the_whole(real, rng):
    rows, channels = 600, 3
    values = (rng.standard_normal((rows, channels)) * 1e-9 ** rng.integers(0, 2, (rows, channels))).astype(
        real
    )
    segment_ptr = np.concatenate([[0], np.sort(rng.integers(0, rows, 30)), [rows]])
    expected = exact_sums(values, np.arange(rows), segment_ptr)
    cuts = np.union1d(segment_ptr, rng.integers(0, rows, 100))
    parts = partial_sums(put(values), None, put(cuts))
    assert not get(parts.loose).any()
    ptr = np.searchsorted(cuts, segment_ptr)
    for order in (None, shuffled(rng, ptr)):
        whole = sum_segments(
            parts.high, None if order is None else put(order), put(ptr), np.dtype(np.float64), lows=parts.low
        )
        np.testing.assert_array_equal(get(whole), expected)


def test_numbers_that_are_not_finite(rng):
    values = np.float32([[1, np.inf, np.nan], [2, -np.inf, 1], [3, np.inf, 1]])
    for mean in (False, True):
        out = get(sum_segments(put(values), None, put(np.array([0, 1, 3])), np.dtype(np.float32), mean=mean))
        np.testing.assert_array_equal(
            out, [[1, np.inf, np.nan], [2.5 if mean else 5, np.nan, 1 if mean else 2]]
        )


def test_no_rows():
    empty = put(np.zeros((0, 2), np.float32))
    for ptr in ([0], [0, 0, 0]):
        out = get(sum_segments(empty, None, put(np.array(ptr)), np.dtype(np.float32), mean=True))
        np.testing.assert_array_equal(out, np.zeros((len(ptr) - 1, 2)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_voxels_do_not_depend_on_the_order_of_points(dtype, rng):
    points = rng.uniform(-3, 3, (500, 3))
    features = (rng.standard_normal((500, 4)) * 1e-4 ** rng.integers(0, 2, (500, 4))).astype(dtype)
    order = rng.permutation(500)
    for reduce in ("mean", "sum"):
        a = spcy.voxelize(put(points), 1.5, features=put(features), reduce=reduce)
        b = spcy.voxelize(put(points[order]), 1.5, features=put(features[order]), reduce=reduce)
        np.testing.assert_array_equal(get(a.tensor.features), get(b.tensor.features))
        np.testing.assert_array_equal(get(a.rows)[order], get(b.rows))
