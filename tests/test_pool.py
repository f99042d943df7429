import numpy as np
import pytest
import reference as ref
from helpers import GEOMETRIES, Geometry, assert_close, assert_tensor, get, put, random_tensor

import spcy
from spcy.pool import MAX, SUM, segment_reduce

pytestmark = pytest.mark.usefixtures("backend")

geometries = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
POOLS = {
    "max": spcy.max_pool,
    "sum": spcy.sum_pool,
    "sites": lambda *args, **kwargs: spcy.avg_pool(*args, count="sites", **kwargs),
    "window": lambda *args, **kwargs: spcy.avg_pool(*args, count="window", **kwargs),
}
pools = pytest.mark.parametrize("kind", POOLS)
GLOBAL = {"max": spcy.global_max_pool, "sum": spcy.global_sum_pool, "sites": spcy.global_avg_pool}


@pytest.mark.paired("geometry", "dtype", backend="cpu")
@pytest.mark.paired("geometry", "kind", "dtype", backend="cuda-emulated")
@pools
@geometries
def test_pool_is_the_reference(kind, geometry, dtype, rng):
    x = geometry.tensor(rng, 5, dtype).map(lambda features: features - 2)
    rows, sites, shape = geometry.table(x)
    y = POOLS[kind](x, **geometry.pool_args)
    assert_tensor(y, sites, ref.pool(get(x.features), rows, kind), shape, dtype)


@pytest.mark.paired("geometry", "kind", backend="cuda-emulated")
@pools
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if {*g.axes(g.stride)} != {1}], ids=str)
def test_pool_on_floor_sites_is_the_reference(kind, geometry, rng):
    x = geometry.tensor(rng, 5, np.float32)
    stride, padding = geometry.axes(geometry.stride), geometry.axes(geometry.padding)
    rows, sites = ref.floor_table(get(x.indices), geometry.offsets, stride, padding)
    y = POOLS[kind](x, **geometry.pool_args, sites="floor")
    expected = ref.pool(get(x.features), rows, kind, empty=-np.inf if kind == "max" else 0.0)
    assert_tensor(y, sites, expected, y.shape, np.float32)
    weight = put(np.ones((*geometry.kernel_size, 5, 1), np.float32))
    assert spcy.conv(x, weight, **geometry.args, sites="floor").coords is y.coords


@pytest.mark.parametrize("sites", ["reached", "floor"])
def test_max_pool_from_zero(sites, dtype, rng):
    x = random_tensor(rng, 60, (8, 8), 3, dtype).map(lambda features: features - 1)
    spoiled = get(x.features).copy()
    spoiled[3] = np.nan
    x = x.replace(put(spoiled))
    args = {"kernel_size": 1, "stride": 2, "padding": 1, "sites": sites}
    y = spcy.max_pool(x, empty="zero", **args)
    expected = np.maximum(np.float64(get(spcy.max_pool(x, **args).features)), 0)
    assert_close(y.features, expected, dtype)
    assert (np.float64(get(y.features)) == 0).any()
    assert y.coords is spcy.max_pool(x, **args).coords


@pytest.mark.paired("geometry", "dtype")
@geometries
def test_unpool_is_the_reference(geometry, dtype, rng):
    x = geometry.tensor(rng, 5, dtype)
    rows, _, _ = geometry.table(x)
    y = spcy.sum_pool(x, **geometry.pool_args)
    z = spcy.unpool(y, to=x)
    assert z.coords is x.coords
    assert_close(z.features, ref.pool(get(y.features), ref.swap(rows, x.num_sites), "sites"), dtype)


@pytest.mark.paired("channels", "kind", "dtype")
@pools
@pytest.mark.parametrize("channels", [1, 7, 16, 17, 33, 65])
def test_numbers_of_channels(kind, channels, dtype, simd, threads, rng):
    x = random_tensor(rng, 100, (6, 6, 6), channels, dtype, batch_size=2)
    rows, sites, shape = Geometry((6, 6, 6), (3, 3, 3), 2, 1).table(x)
    y = POOLS[kind](x, 3, 2, 1)
    assert_tensor(y, sites, ref.pool(get(x.features), rows, kind), shape, dtype)


def test_zeros_small_numbers_and_ties(dtype, simd, rng):
    """Sums of negative zeros are 0, means and maxima are -0; numbers below the normal ones stay."""
    cells = np.stack([np.zeros(40, int), np.arange(40)], axis=1)
    minus = spcy.SparseTensor(put(cells), put(np.full((40, 19), -0.0).astype(dtype)))
    for kind, negative in (("max", True), ("sum", False), ("sites", True)):
        pooled = get(POOLS[kind](minus, 2).features).astype(np.float64)
        assert (pooled == 0).all()
        assert (np.signbit(pooled) == negative).all()
    least = np.nextafter(dtype.type(0), dtype.type(1))
    tiny = minus.replace(put(np.tile(np.array([[least], [-least]], dtype), (20, 19))))
    pooled = get(spcy.max_pool(tiny, 2).features)
    assert (pooled == least).all()
    assert (get(spcy.sum_pool(tiny.replace(tiny.features * 0 + least), 2).features) == 2 * least).all()


@pools
def test_stride_is_the_kernel_size_unless_given(kind, rng):
    x = random_tensor(rng, 60, (8, 9, 7), 2)
    for kernel in (2, (2, 3, 1)):
        assert POOLS[kind](x, kernel).coords is POOLS[kind](x, kernel, kernel).coords
    assert POOLS[kind](x, 2).shape == (4, 4, 3)
    np.testing.assert_array_equal(get(spcy.avg_pool(x, 2).features), get(POOLS["sites"](x, 2).features))


def test_max_of_negative_features_is_negative():
    x = spcy.SparseTensor(put(np.array([[0, 0], [0, 1]])), put(np.float32([[-3], [-2]])), shape=(4,))
    np.testing.assert_array_equal(get(spcy.max_pool(x, 2).features), [[-2]])


@pytest.mark.paired("bad", "kind", backend="cuda-emulated")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pools
def test_nan_and_inf_stay_where_they_are(kind, bad, dtype, simd, rng):
    x = random_tensor(rng, 60, (5, 6, 7), 18, dtype)
    features = get(x.features).copy()
    features[::7, 4] = bad
    features[3, 17] = bad
    x = x.replace(put(features))
    rows, sites, shape = Geometry((5, 6, 7), (2, 2, 2), 2).table(x)
    with np.errstate(invalid="ignore"):
        expected = ref.pool(features, rows, kind)
    assert_tensor(POOLS[kind](x, 2), sites, expected, shape, dtype)


@pytest.mark.parametrize("channels", [1, 7, 33])
@pytest.mark.parametrize("kind", GLOBAL)
def test_global_pool_is_the_reference(kind, channels, dtype, rng):
    x = random_tensor(rng, 70, (6, 7), channels, dtype, batch_size=3)
    batch = get(x.indices)[:, 0]
    keep = batch != 1
    x = spcy.prune(x, put(keep))  # a batch with no site
    rows = np.where(batch[keep][:, None] == np.arange(3), np.arange(keep.sum())[:, None], -1)
    expected = ref.pool(get(x.features), rows, kind, empty=-np.inf if kind == "max" else 0.0)
    assert_close(GLOBAL[kind](x), expected, dtype)


@pytest.mark.parametrize("kind", GLOBAL)
def test_global_pool_of_many_sites(kind, dtype, threads, rng):
    x = random_tensor(rng, 9000, (30, 30, 30), 5, dtype, batch_size=2)
    batch = get(x.indices)[:, 0]
    parts = [np.float64(get(x.features))[batch == b] for b in range(2)]
    expected = np.stack(
        [{"max": np.max, "sum": np.sum, "sites": np.mean}[kind](part, axis=0) for part in parts]
    )
    assert_close(GLOBAL[kind](x), expected, dtype)


@pytest.mark.parametrize("operation", [SUM, MAX], ids=["sum", "max"])
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8, 21, 33, 64])
def test_segments_of_any_rows(operation, channels, dtype, simd, threads, rng):
    """What global pools, biases' gradients and voxels' maxima are made by."""
    x = rng.standard_normal((300, channels)).astype(dtype)
    x[7, -1], x[8, 0] = np.nan, -np.inf
    order = rng.permutation(300)[:280].astype(np.int32)
    starts = np.concatenate([[0, 0], np.sort(rng.integers(0, 280, 90)), [280, 280]])
    for rows in (order, None):
        taken = x.astype(np.float64)[slice(None) if rows is None else rows]
        expected = np.full((len(starts) - 1, channels), -np.inf if operation == MAX else 0.0)
        for out, begin, end in zip(expected, starts[:-1], starts[1:], strict=True):
            if begin < end:
                out[:] = (
                    taken[begin:end].max(axis=0) if operation == MAX else taken[begin:end].cumsum(axis=0)[-1]
                )
        for made in (dtype, np.dtype(np.float32), np.dtype(np.float64)):
            y = segment_reduce(put(x), None if rows is None else put(rows), put(starts), operation, made)
            assert y.dtype == made
            np.testing.assert_array_equal(get(y).astype(np.float64), expected.astype(made).astype(np.float64))


@pytest.mark.parametrize("kind", GLOBAL)
def test_global_pool_passes_nan(kind, rng):
    x = random_tensor(rng, 30, (6, 7), 3, batch_size=2)
    features, batch = get(x.features).copy(), get(x.indices)[:, 0]
    features[4, 1] = np.nan
    out = get(GLOBAL[kind](x.replace(put(features))))
    assert np.argwhere(np.isnan(out)).tolist() == [[batch[4], 1]]


def test_global_mean_of_many_sites_keeps_its_digits():
    indices = np.stack([np.zeros(200_000, int), np.arange(200_000)], axis=1)
    x = spcy.SparseTensor(put(indices), put(np.full((200_000, 1), 0.1, np.float32)))
    np.testing.assert_allclose(get(spcy.global_avg_pool(x)), [[0.1]], rtol=1e-6)


@pools
@pytest.mark.parametrize("shape", [(5, 6), None])
def test_no_sites(kind, shape, dtype):
    x = spcy.SparseTensor(put(np.zeros((0, 3), int)), put(np.zeros((0, 4), dtype)), shape=shape, batch_size=2)
    y = POOLS[kind](x, 2)
    assert (y.features.shape, y.dtype, y.shape) == ((0, 4), dtype, shape and (2, 3))
    assert spcy.unpool(y).features.shape == (0, 4)
    if kind in GLOBAL:
        expected = np.full((2, 4), -np.inf if kind == "max" else 0)
        assert_close(GLOBAL[kind](x), expected, dtype)


def test_unpool_without_overlap_copies(rng):
    x = random_tensor(rng, 60, (7, 8, 6), 3)
    y = spcy.max_pool(x, 2)
    z = get(spcy.unpool(y).features)
    cells = get(x.indices) // [1, 2, 2, 2]
    held = (cells[:, 1:] < y.shape).all(1)  # 7 is odd: its last plane is in no window
    assert 0 < held.sum() < 60
    np.testing.assert_array_equal(z[held], get(y.features)[get(y.rows_of(put(cells[held])))])
    assert not z[~held].any()


def test_pool_of_single_cells_keeps_the_coords_as_conv_does(rng):
    x = random_tensor(rng, 20, (6, 6), 2, np.float64)
    assert spcy.max_pool(x, 1, 1).coords is x.coords
    assert spcy.conv(x, put(np.ones((1, 1, 2, 2)))).coords is x.coords


def test_global_average_does_not_overflow_on_the_way():
    x = spcy.SparseTensor([[0, 1], [0, 2], [0, 3]], np.full((3, 1), 3e38, np.float32))
    np.testing.assert_allclose(get(spcy.global_avg_pool(x)), [[3e38]], rtol=1e-6)


@pytest.mark.parametrize("more", [[], [[0, 1000], [0, 1001]]], ids=["alone", "beside others"])
def test_the_mean_of_one_site_is_itself_to_the_bit(more):
    """Whatever other windows have: tiles see only some of them."""
    indices = np.int32([[0, 0], [0, 4], *more])
    features = np.ones((len(indices), 2), np.float32)
    features[:2] = [[-0.0, 0.0], [0.0, -0.0]]
    x = spcy.SparseTensor(put(indices), put(features))
    y = spcy.avg_pool(x, 2)
    for found in (y, spcy.unpool(y)):
        np.testing.assert_array_equal(np.signbit(get(found.features)[:2]), [[True, False], [False, True]])
    z = spcy.avg_pool(x, 2, 1, 1)  # windows that overlap: two of each site, and back their mean
    np.testing.assert_array_equal(
        np.signbit(get(spcy.unpool(z).features)[:2]), [[True, False], [False, True]]
    )
