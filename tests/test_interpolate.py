"""Linear interpolation at every SIMD level, dtype and number of threads, beside NumPy in float64."""

import numpy as np
import pytest
import reference as ref
from helpers import assert_close, get, put

import spcy

pytestmark = pytest.mark.usefixtures("backend")
axes = pytest.mark.parametrize("ndim", [1, 2, 3, 4])


def cloud(rng, ndim, channels, dtype, num):
    """Return a tensor that has half of a box's cells, and points in and around it, in cells."""
    box = (40, 12, 6, 4)[ndim - 1]
    cells = np.stack(np.unravel_index(np.arange(2 * box**ndim), (2, *[box] * ndim)), axis=1)
    cells = rng.permutation(cells[rng.random(len(cells)) < 0.5]).astype(np.int32)
    features = rng.standard_normal((len(cells), channels)).astype(dtype)
    points = rng.uniform(-1, box + 1, (num, ndim))
    points[::5] = points[0]  # of one cell, more than are taken at a time
    return spcy.SparseTensor(put(cells), put(features)), points, rng.integers(0, 2, num)


@pytest.mark.paired("channels", "ndim", "dtype")
@pytest.mark.emulated(channels=[3, 33])
@pytest.mark.parametrize("channels", [1, 3, 8, 33, 64, 300])
@axes
def test_interpolation_is_the_reference(ndim, channels, dtype, simd, threads, rng):
    x, points, batch = cloud(rng, ndim, channels, dtype, 700)
    features = get(x.features).astype(np.float64)
    for renormalize in (True, False):
        expected = ref.devoxelize(features, get(x.indices), batch, points, "linear", renormalize)
        actual = spcy.devoxelize(x, put(points), "linear", batch=put(batch), renormalize=renormalize)
        assert_close(actual, expected, dtype)


@pytest.mark.paired("ndim", "dtype", backend="cuda-emulated")
@axes
def test_what_is_no_number_goes_where_it_has_a_share(ndim, dtype, simd, rng):
    """Points in the middle of cells have shares of 0 and 1: 0 takes no inf along."""
    x, points, batch = cloud(rng, ndim, 5, dtype, 300)
    points[:150] = np.floor(points[:150]) + 0.5
    features = get(x.features).copy()
    features[::3, 1], features[1::3, 2], features[2::7, 3] = np.inf, np.nan, -np.inf
    x = x.replace(put(features))
    with np.errstate(invalid="ignore"):
        expected = one_by_one(features, get(x.indices), batch, points)
    actual = get(spcy.devoxelize(x, put(points), "linear", batch=put(batch))).astype(np.float64)
    for odd in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(odd(actual), odd(expected))
    assert (~np.isfinite(expected)).any(axis=0).tolist() == [False, True, True, True, False]
    np.testing.assert_array_equal(actual[:150], expected[:150])


def one_by_one(features, indices, batch, points):
    """Return means of the rows that have a share."""
    out = np.zeros((len(points), features.shape[1]))
    for i, (b, point) in enumerate(zip(batch, points, strict=True)):
        weights = np.prod(1 - np.abs(point - 0.5 - indices[:, 1:]).clip(max=1), axis=1) * (indices[:, 0] == b)
        rows = np.flatnonzero(weights)
        if len(rows):
            out[i] = (features[rows] * weights[rows, None]).sum(axis=0) / weights[rows].sum()
    return out


def test_zeros_are_positive_and_small_numbers_stay(simd, rng):
    """Sums begin with a positive zero, whichever corners there are; numbers below the normal ones count."""
    x, points, batch = cloud(rng, 3, 9, np.float32, 300)
    minus = x.replace(put(np.full((x.num_sites, 9), -0.0, np.float32)))
    zero = get(spcy.devoxelize(minus, put(points), "linear", batch=put(batch)))
    assert not np.signbit(zero).any()
    tiny = x.replace(x.features * 0 + np.float32(1e-42))
    mean = get(spcy.devoxelize(tiny, put(points), "linear", batch=put(batch)))
    there = ref.devoxelize(np.ones((len(x.indices), 1)), get(x.indices), batch, points, "linear")[:, 0] > 0.5
    np.testing.assert_allclose(mean[there], 1e-42, rtol=0, atol=1e-44)
    np.testing.assert_array_equal(mean[~there], 0)


@pytest.mark.parametrize("channels", [16, 32, 48, 320])
def test_large_outputs_have_the_bits_of_small_ones(channels, simd, threads, rng):
    """An output of 16 MB and more, which is written past the cache."""
    if spcy.get_backend() != "cpu":
        pytest.skip("no GPU writes past its cache")
    x, _, _ = cloud(rng, 3, channels, np.float32, 10)
    points = rng.uniform(-1, 7, ((1 << 24) // (4 * channels) + 200, 3))
    batch = rng.integers(0, 2, len(points))
    whole = spcy.devoxelize(x, points, "linear", batch=batch)
    parts = zip(np.array_split(points, 3), np.array_split(batch, 3), strict=True)
    parts = [spcy.devoxelize(x, part, "linear", batch=own) for part, own in parts]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("shape", [(0, 1), (4, 0)], ids=["no points", "no sites"])
def test_nothing(shape, dtype):
    num, sites = shape
    x = spcy.SparseTensor(put(np.zeros((sites, 4), np.int32)), put(np.ones((sites, 2), dtype)))
    y = spcy.devoxelize(x, put(np.full((num, 3), 0.5)), "linear")
    assert_close(y, np.zeros((num, 2)), dtype)
