"""Linear interpolation at every SIMD level, dtype and number of threads, beside NumPy in float64."""

import numpy as np
import pytest
import reference as ref
from helpers import assert_close, get, put

import spcy
from spcy import _threads

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


@pytest.mark.paired("channels", "ndim", "dtype")
@pytest.mark.emulated(channels=[3, 33])
@pytest.mark.parametrize("channels", [1, 3, 8, 33, 64, 300])
@axes
def test_the_gradient_is_the_transpose(ndim, channels, dtype, simd, threads, rng):
    x, points, batch = cloud(rng, ndim, channels, dtype, 700)
    dy = rng.standard_normal((len(points), channels)).astype(dtype)
    for renormalize in (True, False):
        matrix = ref.devoxelize(np.eye(x.num_sites), get(x.indices), batch, points, "linear", renormalize)
        args = put(points), "linear"
        _, vjp = spcy.vjp(spcy.devoxelize, x, *args, batch=put(batch), renormalize=renormalize)
        (dx,) = vjp(put(dy))
        assert dx.dtype == x.dtype
        assert_close(dx, matrix.T @ dy.astype(np.float64), dtype)


@pytest.mark.paired("ndim", "dtype", backend="cuda-emulated")
@axes
def test_what_is_no_number_goes_back_where_it_has_a_share(ndim, dtype, simd, rng):
    x, points, batch = cloud(rng, ndim, 5, dtype, 300)
    points[:150] = np.floor(points[:150]) + 0.5
    dy = rng.standard_normal((300, 5)).astype(dtype)
    dy[::3, 1], dy[1::3, 2], dy[2::7, 3] = np.inf, np.nan, -np.inf
    _, vjp = spcy.vjp(spcy.devoxelize, x, put(points), "linear", batch=put(batch))
    (dx,) = vjp(put(dy))
    matrix = ref.devoxelize(np.eye(x.num_sites), get(x.indices), batch, points, "linear")
    with np.errstate(invalid="ignore"):
        parts = np.where(matrix[:, :, None] == 0, 0, matrix[:, :, None] * dy[:, None].astype(np.float64))
        expected = parts.sum(axis=0)
    for odd in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(odd(get(dx).astype(np.float64)), odd(expected))
    assert (~np.isfinite(expected)).any(axis=0).tolist() == [False, True, True, True, False]


def test_sums_of_many_points_do_not_lose_what_they_add(simd, threads, rng):
    """100,000 points in a cell: adding one after the other in float32 would be off by 1e-4 and more.

    What is added are 782 sums, each time rounded by up to half a unit: as a rule they are off by 4e-7.
    """
    if spcy.get_backend() != "cpu":
        pytest.skip("the emulated GPU would take minutes")
    x = spcy.SparseTensor(np.int32([[0, 3, 3, 3], [0, 3, 3, 4]]), np.ones((2, 8), np.float32))
    points = rng.uniform(3.4, 3.6, (100_000, 3))
    dy = rng.uniform(0, 1, (len(points), 8)).astype(np.float32)
    _, vjp = spcy.vjp(spcy.devoxelize, x, points, "linear")
    weights = ref.devoxelize(np.eye(2), x.indices, np.zeros(len(points), int), points, "linear")
    np.testing.assert_allclose(vjp(dy)[0], weights.T @ dy.astype(np.float64), rtol=2e-6)


@pytest.mark.parametrize("ordered", [True, False])
def test_gradients_have_the_same_bits_for_any_threads(ordered, rng, monkeypatch):
    """Threads share sites, some of whose points are those of other threads' sites too."""
    if spcy.get_backend() != "cpu":
        pytest.skip("a GPU has no such threads")
    x, _, _ = cloud(rng, 3, 19, np.float32, 10)
    if ordered:
        x = spcy.SparseTensor(x.indices[np.lexsort(x.indices.T[::-1])], x.features)
    points, batch = rng.uniform(-3, 9, (5000, 3)), rng.integers(0, 2, 5000)
    dy = rng.standard_normal((5000, 19)).astype(np.float32)
    monkeypatch.setattr(_threads, "GRAIN", 1)  # so many threads, however small the work is
    results = []
    for count in (1, 2, 3, 7):
        spcy.set_num_threads(count)
        results.append(spcy.vjp(spcy.devoxelize, x, points, "linear", batch=batch)[1](dy)[0])
    spcy.set_num_threads(None)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


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
