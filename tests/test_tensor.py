import copy
import pickle

import numpy as np
import pytest
import reference as ref
from helpers import assert_close, assert_tensor, get, put, random_indices, random_tensor, random_weight

import spcy
from spcy.rows import join_rows

pytestmark = pytest.mark.usefixtures("backend")

BOXES = [(9,), (8, 7), (6, 7, 8), (4, 5, 3, 4)]
boxes = pytest.mark.parametrize("box", BOXES, ids=len)


@boxes
def test_attributes(box, dtype, rng):
    indices = random_indices(rng, 20, box, 3)
    features = rng.standard_normal((len(indices), 7)).astype(dtype)
    coords = spcy.Coords(put(indices), box, 3)
    for x in (
        spcy.SparseTensor(coords, put(features)),
        spcy.SparseTensor(put(indices), put(features), shape=box, batch_size=3),
    ):
        assert_tensor(x, indices, features, box, dtype)
        assert (x.num_sites, x.num_channels, x.ndim, x.batch_size) == (len(indices), 7, len(box), 3)
        assert x.dtype == dtype
        assert x.backend == spcy.get_backend()
        for word in (f"{len(indices)} sites", "7 channels", str(box), str(dtype), "density"):
            assert word in repr(x)
    assert spcy.SparseTensor(coords, put(features)).coords is coords
    unbounded = repr(spcy.SparseTensor(put(indices), put(features)))
    assert "None" in unbounded


def test_rows_of(rng):
    x = random_tensor(rng, 30, (6, 7), 1, batch_size=2)
    queries = random_indices(rng, 84, (6, 7), 2)
    np.testing.assert_array_equal(get(x.rows_of(put(queries))), ref.rows_of(get(x.indices), queries))


@boxes
@pytest.mark.parametrize("channels_first", [False, True], ids=["channels_last", "channels_first"])
def test_dense_and_back(box, channels_first, dtype, rng):
    x = random_tensor(rng, 25, box, 3, dtype, batch_size=3)
    dense = np.zeros((3, *box, 3))
    for site, value in zip(get(x.indices), get(x.features), strict=True):
        dense[tuple(site)] = value
    if channels_first:
        dense = np.moveaxis(dense, -1, 1)
    assert_close(x.to_dense(channels_first=channels_first), dense, dtype)
    y = spcy.SparseTensor.from_dense(put(dense.astype(dtype)), channels_first=channels_first)
    order = np.lexsort(get(x.indices).T[::-1])
    assert_tensor(y, get(x.indices)[order], get(x.features)[order], box, dtype)
    assert y.batch_size == 3


@pytest.mark.parametrize("channels_first", [False, True])
def test_from_dense_takes_all_but_zeros(channels_first, dtype):
    tiny = 2.0**-24 if dtype == np.float16 else 2.0**-126
    values = np.array([0, -0.0, tiny, -tiny, np.nan, np.inf, 1], dtype)
    for native in (values, values.astype(values.dtype.newbyteorder())):
        x = spcy.SparseTensor.from_dense(
            put(native.reshape(1, 1, 7) if channels_first else native.reshape(1, 7, 1)), channels_first
        )
        np.testing.assert_array_equal(get(x.indices)[:, 1], range(2, 7))
        got, given = get(x.features)[:, 0], values[2:]
        np.testing.assert_array_equal(got.astype(np.float32), given.astype(np.float32))


def test_from_dense_keeps_a_site_where_any_channel_is_set():
    array = np.zeros((2, 4, 2), np.float32)
    array[0, 1] = [0, 5]
    array[1, 3] = [np.nan, 0]
    x = spcy.SparseTensor.from_dense(put(array))
    np.testing.assert_array_equal(get(x.indices), [[0, 1], [1, 3]])
    np.testing.assert_array_equal(get(x.features), [[0, 5], [np.nan, 0]])
    empty = spcy.SparseTensor.from_dense(put(np.zeros((2, 4, 1))))
    assert (empty.num_sites, empty.shape, empty.batch_size, empty.num_channels) == (0, (4,), 2, 1)
    np.testing.assert_array_equal(get(empty.to_dense()), np.zeros((2, 4, 1)))


def test_replace_and_map(dtype, rng):
    x = random_tensor(rng, 20, (5, 6), 4, dtype)
    y = x.replace(put(np.ones((20, 2), dtype)))
    assert y.coords is x.coords
    assert y.num_channels == 2
    z = x.map(lambda features: features * features)
    assert z.coords is x.coords
    assert_close(z.features, np.square(np.float64(get(x.features))), dtype)
    other = np.float32 if dtype == np.float64 else np.float64
    assert x.map(lambda features: features.astype(other)).dtype == other


def test_to_the_same_backend_keeps_the_values(rng):
    x = random_tensor(rng, 20, (5, 6), 4)
    y = x.to(spcy.get_backend()).to("cpu")
    np.testing.assert_array_equal(get(y.features), get(x.features))
    np.testing.assert_array_equal(get(y.indices), get(x.indices))
    assert y.backend == "cpu"


def test_arithmetic_of_equal_coords(dtype, rng):
    x = random_tensor(rng, 20, (5, 6), 4, dtype)
    f = get(x.features)
    same = x.replace(put(rng.standard_normal((20, 4)).astype(dtype)))
    equal = spcy.SparseTensor(put(get(x.indices)), same.features, shape=(5, 6))
    for y in (same, equal):
        assert_tensor(x + y, get(x.indices), f + get(y.features), (5, 6), dtype)
        assert_tensor(x * y, get(x.indices), f * get(y.features), (5, 6), dtype)
        assert (x + y).coords is x.coords
    for scalar in (2, 0.5, np.float32(3), np.int64(-1), dtype.type(-2)):
        for result, expected in (
            (x + scalar, f + float(scalar)),
            (x * scalar, f * float(scalar)),
            (scalar + x, f + float(scalar)),
            (scalar * x, f * float(scalar)),
        ):
            assert result.coords is x.coords
            assert_close(result.features, expected, dtype)
    np.testing.assert_array_equal(get(x.features), f)


@pytest.mark.parametrize("shape", [(6, 7), None])
def test_add_is_the_reference(shape, dtype, rng):
    x = random_tensor(rng, 25, (6, 7), 3, dtype, 2, shape)
    y = random_tensor(rng, 30, (6, 7), 3, dtype, 3, shape)
    z = spcy.add(x, y)
    a, b = get(x.indices), get(y.indices)
    sites = np.unique(np.concatenate([a, b]), axis=0)
    in_b = ref.rows_of(b, sites)
    rows = np.stack([ref.rows_of(a, sites), np.where(in_b < 0, -1, in_b + len(a))])
    features = np.concatenate([get(x.features), get(y.features)])
    assert_tensor(z, sites, ref.pool(features, rows, "sum"), shape, dtype)
    assert 0 < (rows.min(0) >= 0).sum() < len(sites)
    assert z.batch_size == 3
    nothing = spcy.prune(y, put(np.zeros(30, bool)))
    same = spcy.add(x, nothing)
    order = np.lexsort(a.T[::-1])
    assert_tensor(same, a[order], get(x.features)[order], shape, dtype)


def test_add_of_the_same_sites_in_another_order(rng):
    x = random_tensor(rng, 25, (6, 7), 3, batch_size=2)
    order = rng.permutation(25)
    y = spcy.SparseTensor(put(get(x.indices)[order]), put(get(x.features)[order]), shape=(6, 7), batch_size=4)
    z = spcy.add(x, y)
    np.testing.assert_array_equal(get(z.features)[get(z.rows_of(x.indices))], 2 * get(x.features))
    assert z.batch_size == 4


def test_concat(dtype, rng):
    x = random_tensor(rng, 20, (5, 6), 4, dtype)
    y = x.replace(put(rng.standard_normal((20, 3)).astype(dtype)))
    z = spcy.concat([x, y, x])
    assert z.coords is x.coords
    expected = np.concatenate([get(x.features), get(y.features), get(x.features)], axis=1)
    assert_close(z.features, expected, dtype)
    np.testing.assert_array_equal(get(spcy.concat([x]).features), get(x.features))


@pytest.mark.parametrize("shape", [(6, 7), None])
def test_concat_over_the_union(shape, dtype, rng):
    tensors = [random_tensor(rng, n, (6, 7), c, dtype, 2, shape) for n, c in ((25, 3), (30, 1), (4, 2))]
    z = spcy.concat(tensors)
    sites = np.unique(np.concatenate([get(t.indices) for t in tensors]), axis=0)
    parts = [ref.pool(get(t.features), ref.rows_of(get(t.indices), sites)[None], "sum") for t in tensors]
    assert_tensor(z, sites, np.hstack(parts), shape, dtype)
    nothing = spcy.prune(tensors[1], put(np.zeros(30, bool)))
    assert spcy.concat([nothing, nothing]).features.shape == (0, 2)


def test_prune(dtype, rng):
    x = random_tensor(rng, 30, (5, 6), 4, dtype, batch_size=2)
    mask = rng.random(30) < 0.5
    y = spcy.prune(x, put(mask))
    assert_tensor(y, get(x.indices)[mask], get(x.features)[mask], (5, 6), dtype)
    assert y.batch_size == 2
    np.testing.assert_array_equal(get(y.rows_of(x.indices)), np.where(mask, np.cumsum(mask) - 1, -1))
    for value in (False, True):
        assert spcy.prune(x, put(np.full(30, value))).num_sites == 30 * value


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(duplicate, dtype, rng):
    x = random_tensor(rng, 30, (5, 6), 4, dtype, batch_size=2)
    weight, _ = random_weight(rng, (3, 3), 4, 4, dtype)
    y = spcy.conv(x, weight, stride=2)
    for tensor in (x, y):
        z = duplicate(tensor)
        assert_tensor(z, get(tensor.indices), get(tensor.features), tensor.shape, dtype)
        assert z.batch_size == 2
        np.testing.assert_array_equal(z.coords.voxel_size, tensor.coords.voxel_size)
        again = spcy.subm_conv(z, weight).features
        np.testing.assert_array_equal(get(again), get(spcy.subm_conv(tensor, weight).features))


def test_no_sites(dtype):
    x = spcy.SparseTensor(
        put(np.zeros((0, 3), int)), put(np.zeros((0, 2), dtype)), shape=(3, 4), batch_size=2
    )
    assert_close(x.to_dense(), np.zeros((2, 3, 4, 2)), dtype)
    for y in (x + x, x * 2, spcy.add(x, x), spcy.prune(x, put(np.zeros(0, bool))), x.map(lambda f: f)):
        assert y.features.shape == (0, 2)
        assert (y.dtype, y.shape, y.batch_size) == (dtype, (3, 4), 2)
    assert spcy.concat([x, x]).features.shape == (0, 4)
    assert "0 sites" in repr(x)


@pytest.mark.parametrize("channels", [(16, 48), (3, 5)], ids=str)
def test_rows_side_by_side_take_any_amount_of_memory(channels, dtype, rng):
    """Large results are written past the caches, where whole lines of them can be."""
    rows = (3 << 22) // (sum(channels) * dtype.itemsize) + 3 if spcy.get_backend() == "cpu" else 100
    parts = [rng.standard_normal((rows, c), np.float32).astype(dtype) for c in channels]
    joined = get(join_rows([put(part) for part in parts], [None] * 2, rows))
    np.testing.assert_array_equal(joined.view(np.uint8), np.concatenate(parts, axis=1).view(np.uint8))
