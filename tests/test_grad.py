import itertools

import numpy as np
import pytest
from helpers import GEOMETRIES, accumulate, assert_close, get, put, random_tensor, random_weight

import spcy
from spcy.grad import column_sums

pytestmark = pytest.mark.usefixtures("backend")

STRIDED = {"stride": 2, "padding": 1}
GEOMETRY = [g for g in GEOMETRIES if len(g.box) < 4 and np.prod(g.kernel_size) < 30]


def call(function, *args, **kwargs):
    return function(*args, **kwargs)


def array_of(y):
    """Return the array that a result's gradient belongs to."""
    y = y.tensor if isinstance(y, spcy.Voxels) else y
    return get(y.features if isinstance(y, spcy.SparseTensor) else y)


def with_array(value, array):
    """Return a tensor with other features, or another array."""
    return value.replace(put(array)) if isinstance(value, spcy.SparseTensor) else put(array)


def assert_gradients(run, inputs, rng):
    """Compare with central differences: ``run(op, *inputs)`` calls ``op(function, ...)``."""
    y, vjp = run(spcy.vjp, *inputs)
    expected = run(call, *inputs)
    np.testing.assert_array_equal(array_of(y), array_of(expected))
    dy = rng.standard_normal(array_of(y).shape)
    gradients = vjp(put(dy))
    assert isinstance(gradients, tuple)
    assert len(gradients) == len(inputs)
    for place, gradient in enumerate(gradients):
        array = array_of(inputs[place]).copy()
        assert (gradient.shape, gradient.dtype) == (array.shape, array.dtype)
        expected = np.empty_like(array)
        entries = list(np.ndindex(array.shape))
        if spcy.get_backend() == "cuda":  # emulated, each takes long
            entries = [entries[i] for i in rng.permutation(len(entries))[:6]]
        for i in entries:
            values = []
            for step in (1e-5, -1e-5):
                moved = array.copy()
                moved[i] += step
                values.append(
                    run(call, *inputs[:place], with_array(inputs[place], moved), *inputs[place + 1 :])
                )
            expected[i] = ((array_of(values[0]) - array_of(values[1])) * dy).sum() / 2e-5
            actual = get(gradient)[i]
            np.testing.assert_allclose(actual, expected[i], rtol=0, atol=1e-7 * max(1, abs(dy).max()))


def conv_inputs(x, kernel_size, c_out, rng):
    return x, *random_weight(rng, kernel_size, x.num_channels, c_out, np.float64)


CONVS = {
    "subm_conv": (spcy.subm_conv, {}),
    "subm_conv_dilation": (spcy.subm_conv, {"dilation": (1, 2)}),
    "conv": (spcy.conv, STRIDED),
    "conv_dilation": (spcy.conv, {"dilation": 2, "padding": (2, 1)}),
    "conv_transpose": (spcy.conv_transpose, {"stride": 2, "output_padding": 1}),
    "inverse_conv": (spcy.inverse_conv, {}),
    "conv_floor": (spcy.conv, {"stride": 2, "padding": 1, "sites": "floor"}),
}


def conv_case(name, rng):
    """Return (function, options, x, weight, bias) on a few sites of a 2D grid."""
    function, options = CONVS[name]
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    if function is spcy.inverse_conv:
        x = spcy.max_pool(x, 3, **STRIDED)
    return function, options, *conv_inputs(x, (3, 3), 2, rng)


@pytest.mark.parametrize("name", CONVS)
def test_conv(name, rng):
    function, options, *inputs = conv_case(name, rng)
    assert_gradients(lambda op, x, w, b: op(function, x, w, b, **options), inputs, rng)
    _, vjp = spcy.vjp(function, *inputs[:2], **options)
    assert vjp(put(rng.standard_normal(array_of(function(*inputs[:2], **options)).shape)))[2] is None


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_epilogue(name, activation, rng):
    function, options, *inputs = conv_case(name, rng)
    y = function(*inputs, **options)
    inputs.append(y.replace(put(rng.standard_normal(y.features.shape))))
    options = {**options, "activation": activation}
    assert_gradients(lambda op, x, w, b, r: op(function, x, w, b, residual=r, **options), inputs, rng)


@pytest.mark.paired("name", "groups", backend="cuda-emulated")
@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize(("groups", "c_in", "c_out"), [(2, 4, 6), (3, 3, 3), (3, 3, 6), (4, 8, 4)])
def test_groups(name, groups, c_in, c_out, rng):
    function, options = CONVS[name]
    x = random_tensor(rng, 8, (5, 4), c_in, np.float64, batch_size=2)
    if function is spcy.inverse_conv:
        x = spcy.max_pool(x, 3, **STRIDED)
    weight, bias = random_weight(rng, (3, 3), c_in // groups, c_out, np.float64)
    options = {**options, "groups": groups}
    assert_gradients(lambda op, x, w, b: op(function, x, w, b, **options), [x, weight, bias], rng)


OFFSETS = [[0, 0], [1, -2], [0, 1]]


@pytest.mark.parametrize("function", [spcy.subm_conv, spcy.conv, spcy.conv_transpose])
def test_offsets(function, rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    weight, bias = random_weight(rng, (3,), 3, 2, np.float64)
    assert_gradients(lambda op, x, w, b: op(function, x, w, b, offsets=OFFSETS), [x, weight, bias], rng)
    if function is spcy.conv:
        y = spcy.conv(x, weight, offsets=OFFSETS)
        weight, bias = random_weight(rng, (3,), 2, 3, np.float64)
        assert_gradients(lambda op, x, w, b: op(spcy.inverse_conv, x, w, b), [y, weight, bias], rng)


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
def test_geometries(geometry, rng):
    """Of a linear operation: its gradient with respect to x or the weight is the transposed operator."""
    x = geometry.tensor(rng, 3, np.float64)
    weight, _ = random_weight(rng, geometry.kernel_size, 3, 4, np.float64)
    for function in (spcy.conv, spcy.conv_transpose):
        y, vjp = spcy.vjp(function, x, weight, **geometry.args)
        dy = rng.standard_normal(y.features.shape)
        dx, dweight = map(get, vjp(put(dy))[:2])
        total = (get(y.features) * dy).sum()
        np.testing.assert_allclose([(get(x.features) * dx).sum(), (get(weight) * dweight).sum()], total)


def test_bad_arguments(rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float32)
    weight, _ = random_weight(rng, (3, 3), 3, 2)
    _, vjp = spcy.vjp(spcy.subm_conv, x, weight)
    with pytest.raises(ValueError, match=r"dy must have shape \(11, 2\), .* got \(11, 3\)"):
        vjp(x.features)
    with pytest.raises(TypeError, match="dy must have dtype float32"):
        vjp(put(np.zeros((11, 2))))
    for wrong in (np.add, [], spcy.Coords):
        with pytest.raises(TypeError, match="function must be an operation of spcy with a gradient"):
            spcy.vjp(wrong, x)


def test_an_object_with_a_vjp():
    class Twice:
        def vjp(self, x, *, times):
            return times * x, lambda dy: (times * dy,)

    y, vjp = spcy.vjp(Twice(), 3, times=2)
    assert (y, vjp(5)) == (6, (10,))


POOLS = {
    "max": (spcy.max_pool, {}),
    "max_zero": (spcy.max_pool, {"empty": "zero"}),
    "max_floor": (spcy.max_pool, {"sites": "floor", "empty": "zero"}),
    "avg_floor": (spcy.avg_pool, {"sites": "floor"}),
    "sum": (spcy.sum_pool, {}),
    "avg": (spcy.avg_pool, {}),
    "avg_window": (spcy.avg_pool, {"count": "window"}),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("geometry", GEOMETRY[3:8], ids=str)
def test_pool(name, geometry, rng):
    function, options = POOLS[name]
    x = geometry.tensor(rng, 2, np.float64)
    assert_gradients(lambda op, x: op(function, x, **geometry.pool_args, **options), [x], rng)


def test_pool_by_position(rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    for function, options in POOLS.values():
        assert_gradients(lambda op, x, f=function, o=options: op(f, x, 3, 2, 1, **o), [x], rng)
        assert_gradients(lambda op, x, f=function, o=options: op(f, x, 2, **o), [x], rng)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_unpool(stride, rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    x = spcy.sum_pool(x, 2, stride)  # with a stride of 3 some sites are in no window
    assert_gradients(lambda op, x: op(spcy.unpool, x), [x], rng)


@pytest.mark.parametrize("name", ["global_max_pool", "global_sum_pool", "global_avg_pool"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_global_pool(name, batch_size, rng):
    x = random_tensor(rng, 14, (5, 4), 3, np.float64, batch_size)
    assert_gradients(lambda op, x: op(getattr(spcy, name), x), [x], rng)
    empty = spcy.SparseTensor(x.indices[:0], x.features[:0], batch_size=batch_size)
    _, vjp = spcy.vjp(getattr(spcy, name), empty)
    assert vjp(put(np.ones((batch_size, 3))))[0].shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_of_equal_maxima_gets_the_gradient(dtype):
    indices, features = [[0, 5], [0, 4], [0, 1], [0, 0], [1, 2]], [[2, 1], [2, 3], [7, 7], [7, 7], [1, 1]]
    x = spcy.SparseTensor(put(np.int32(indices)), put(np.array(features, dtype)))
    _, vjp = spcy.vjp(spcy.max_pool, x, 2)
    dy = np.array([[10, 20], [30, 40], [50, 60]], dtype)
    expected = [[0, 0], [30, 40], [0, 0], [10, 20], [50, 60]]
    np.testing.assert_array_equal(get(vjp(put(dy))[0]), expected)
    _, vjp = spcy.vjp(spcy.global_max_pool, x)
    expected = [[0, 0], [0, 0], [0, 0], [10, 20], [30, 40]]
    np.testing.assert_array_equal(get(vjp(put(dy[:2]))[0]), expected)
    features = np.array(features, dtype)
    points = np.zeros((5, 1)) + [[0], [0], [1], [1], [0]]
    _, vjp = spcy.vjp(spcy.voxelize, put(points), 1, features=put(features), reduce="max")
    expected = [[10, 0], [0, 20], [30, 40], [0, 0], [0, 0]]
    np.testing.assert_array_equal(get(vjp(put(dy[:2]))[0]), expected)


@pytest.mark.paired("geometry", "channels", "threads", "simd", "dtype")
@pytest.mark.parametrize("geometry", [(2,), ((1, 2, 3), 3), (2, 3, 0, 2), (3, 2), (3, 1, 1), (2, 1)], ids=str)
@pytest.mark.parametrize("channels", [5, 16, 32, 71])
def test_max_pool_gradient_goes_to_the_first_pair(geometry, channels, dtype, simd, threads, rng, monkeypatch):
    """Equal maxima, NaN and sites in no window included, shared by windows or not."""
    monkeypatch.setattr(spcy._threads, "GRAIN", 1)
    x = random_tensor(rng, 300, (11, 12, 13), channels, np.float64, batch_size=2)
    features = rng.integers(-2, 3, x.features.shape).astype(dtype)
    features[rng.random(features.shape) < 0.05] = np.nan
    x = x.replace(put(features))
    y, vjp = spcy.vjp(spcy.max_pool, x, *geometry)
    dy = put(rng.integers(1, 9, y.features.shape).astype(dtype))
    maxima, left = get(y.features), get(dy).copy()
    expected = np.zeros_like(features)
    rulebook, _ = spcy.pool.pool_plan(x, *geometry)
    for k in range(rulebook.num_offsets):
        i, o = (get(rows) for rows in rulebook.pairs(k))
        first = (features[i] == maxima[o]) | (np.isnan(features[i]) & np.isnan(maxima[o]))
        expected[i] += np.where(first, left[o], 0)
        left[o] = np.where(first, 0, left[o])
    before = get(dy).copy()
    dx = get(vjp(dy)[0])
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, expected)
    np.testing.assert_array_equal(get(dy), before)
    assert dx.astype(np.float64).sum() == before.astype(np.float64).sum()


@pytest.mark.paired("channels", "ordered")
@pytest.mark.parametrize("channels", [1, 3, 4, 14, 16, 32, 59])
@pytest.mark.parametrize("ordered", [True, False])
def test_gradients_of_maxima_of_any_segments(channels, ordered, dtype, simd, threads, rng):
    """Equal maxima, zeros of both signs, infinities, NaN and segments without rows included."""
    x = rng.integers(-2, 2, (300, channels)).astype(dtype)
    for value in (np.nan, np.inf, -np.inf, -0.0):
        x[rng.random(x.shape) < 0.05] = value
    order = rng.permutation(300)[:260].astype(np.int32) if ordered else None
    starts = np.concatenate([[0, 0], np.sort(rng.integers(0, 260, 50)), [260 if ordered else 300]])
    rows = np.arange(300) if order is None else order
    y = np.full((len(starts) - 1, channels), -np.inf).astype(dtype)
    dy, expected = rng.standard_normal(y.shape).astype(dtype), np.zeros_like(x)
    for s, (begin, end) in enumerate(itertools.pairwise(starts)):
        some = x[rows[begin:end]]
        if not len(some):
            continue
        y[s] = some.astype(np.float64).max(axis=0)
        first = ((some == y[s]) | np.isnan(some)).argmax(axis=0)
        expected[rows[begin:end][first], np.arange(channels)] = dy[s]
    given = [put(a) if a is not None else None for a in (x, y, dy, order, starts.astype(np.int64))]
    dx = get(spcy.grad.return_maxima(*given))
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx.astype(np.float64), expected.astype(np.float64))


def test_the_zero_of_empty_cells_comes_before_equal_maxima():
    x = spcy.SparseTensor(put(np.int32([[0, 0], [0, 2], [0, 5]])), put(np.array([[0.0], [-1.0], [2.0]])))
    _, vjp = spcy.vjp(spcy.max_pool, x, 2, empty="zero")
    np.testing.assert_array_equal(get(vjp(put(np.ones((3, 1))))[0]), [[0], [0], [1]])


def test_a_maximum_that_is_nan_returns_its_gradient():
    x = spcy.SparseTensor(put(np.int32([[0, 0], [0, 1]])), put(np.array([[1.0], [np.nan]])))
    _, vjp = spcy.vjp(spcy.max_pool, x, 2)
    np.testing.assert_array_equal(get(vjp(put(np.array([[5.0]])))[0]), [[0], [5]])


@pytest.mark.parametrize("same", [True, False])
def test_add_and_concat(same, rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    y = random_tensor(rng, 9, (5, 4), 3, np.float64, batch_size=2)
    y = x.replace(put(rng.standard_normal((11, 3)))) if same else y
    assert_gradients(lambda op, x, y: op(spcy.add, x, y), [x, y], rng)
    assert_gradients(lambda op, x, y: op(spcy.concat, [x, y]), [x, y], rng)


def test_prune(rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    mask = put(rng.random(11) < 0.5)
    assert_gradients(lambda op, x: op(spcy.prune, x, mask), [x], rng)


@pytest.mark.parametrize("channels_first", [False, True])
def test_dense(channels_first, rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    assert_gradients(lambda op, x: op(spcy.SparseTensor.to_dense, x, channels_first), [x], rng)
    dense = x.to_dense(channels_first)
    y, vjp = spcy.vjp(spcy.SparseTensor.from_dense, dense, channels_first)
    dy = rng.standard_normal(y.features.shape)
    expected = spcy.SparseTensor(y.coords, put(dy)).to_dense(channels_first)
    np.testing.assert_array_equal(get(vjp(put(dy))[0]), get(expected))


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "first"])
@pytest.mark.parametrize("max_points", [None, 2])
def test_voxelize(reduce, max_points, rng):
    points, batch = put(rng.uniform(0, 3, (30, 2))), put(rng.integers(0, 2, 30))
    more = {"batch": batch, "bounds": (0.3, 2.7), "reduce": reduce, "max_points": max_points}
    features = put(rng.standard_normal((30, 3)))
    assert_gradients(lambda op, f: op(spcy.voxelize, points, 0.8, features=f, **more), [features], rng)
    _, vjp = spcy.vjp(spcy.voxelize, points, 0.8, **more)  # its points are features as well
    dy = put(rng.standard_normal((len(spcy.voxelize(points, 0.8, **more).counts), 2)))
    expected = spcy.vjp(spcy.voxelize, points, 0.8, features=points, **more)[1](dy)[0]
    np.testing.assert_array_equal(get(vjp(dy)[0]), get(expected))


def first_maxima(features, groups, dy):
    """Return zeros, and each group's gradient at the first of its rows as listed that has the maximum."""
    dx = np.zeros_like(features)
    for rows, of_group in zip(groups, dy, strict=True):
        for channel, value in enumerate(of_group[: features.shape[1]] if len(rows) else ()):
            column = features[rows, channel]
            place = np.isnan(column).argmax() if np.isnan(column).any() else column.argmax()
            dx[rows[place], channel] = value
    return dx


@pytest.mark.parametrize("channels", [1, 7, 33, 64])
@pytest.mark.parametrize("shuffled", [False, True])
def test_of_equal_maxima_the_first_has_the_gradient(channels, shuffled, dtype, rng, monkeypatch):
    """Of a batch the first in key order, whichever block it is in; of a cell the first point."""
    monkeypatch.setattr(spcy.pool, "_BLOCK", 4)
    indices = np.unique(rng.integers(0, [3, 6, 6], (50, 3)), axis=0)
    indices[:, 0] += indices[:, 0] > 0  # nothing in batch 1
    if shuffled:
        indices = rng.permutation(indices)
    features = rng.integers(0, 3, (len(indices), channels)).astype(dtype)
    features[rng.random(features.shape) < 0.02] = np.nan
    features[indices[:, 0] == 3] = -np.inf
    x = spcy.SparseTensor(put(indices), put(features), batch_size=4)
    y, vjp = spcy.vjp(spcy.global_max_pool, x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    order = np.lexsort(indices.T[::-1])
    groups = [order[indices[order, 0] == batch] for batch in range(4)]
    np.testing.assert_array_equal(get(vjp(put(dy))[0]), first_maxima(features, groups, dy))

    points, cells = indices[:, 1:] / 2, indices[:, 1:] // 4
    voxels, vjp = spcy.vjp(spcy.voxelize, put(points), 2.0, features=put(features), reduce="max")
    dy = rng.standard_normal(voxels.tensor.features.shape).astype(dtype)
    groups = [np.flatnonzero((cells == cell).all(axis=1)) for cell in get(voxels.tensor.indices)[:, 1:]]
    np.testing.assert_array_equal(get(vjp(put(dy))[0]), first_maxima(features, groups, dy))


def test_sums_of_biases_are_rounded_once(dtype):
    """What a block of rows adds up to is kept in double precision until all are."""
    large = 2.0**11 if dtype == np.float16 else 2.0**24
    dy = np.zeros((5000, 2))
    dy[[0, 1, 3000], 0] = large, 1, -large
    dy[:, 1] = 0.25
    total = get(column_sums(put(dy.astype(dtype))))
    assert total.dtype == dtype
    np.testing.assert_array_equal(total, np.array([1, 1250], dtype))


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_devoxelize(mode, renormalize, rng):
    x = random_tensor(rng, 11, (5, 4), 3, np.float64, batch_size=2)
    points, batch = put(rng.uniform(-1, 6, (40, 2))), put(rng.integers(0, 2, 40))
    more = {"batch": batch, "renormalize": renormalize}
    assert_gradients(lambda op, x: op(spcy.devoxelize, x, points, mode, **more), [x], rng)
    _, vjp = spcy.vjp(spcy.devoxelize, x, points[:0], mode, batch=batch[:0])
    assert not get(vjp(put(np.zeros((0, 3))))[0]).any()


@pytest.mark.parametrize("reduce", ["mean", "max", "first"])
def test_voxelize_takes_views(reduce, rng):
    scan = rng.standard_normal((20, 6)).astype(np.float32)
    whole = put(scan[:, :3].copy()), put(scan[:, 3:].copy())
    scan = put(scan)
    for points, features in [(scan[:, :3], scan[:, 3:]), (scan[:, :3], None)]:
        y, vjp = spcy.vjp(spcy.voxelize, points, 0.5, features=features, reduce=reduce)
        other = whole[0], 0.5
        _, expected = spcy.vjp(
            spcy.voxelize, *other, features=None if features is None else whole[1], reduce=reduce
        )
        dy = put(rng.standard_normal((y.tensor.num_sites, 3)).astype(np.float32))
        np.testing.assert_array_equal(get(vjp(dy)[0]), get(expected(dy)[0]))


def test_infinite_gradients_stay_where_they_have_a_weight():
    x = spcy.SparseTensor(np.array([[0, 0], [0, 1]]), np.ones((2, 2)))
    _, vjp = spcy.vjp(spcy.devoxelize, x, put(np.array([[0.5]])), "linear")  # the centre of the first cell
    np.testing.assert_array_equal(get(vjp(put(np.array([[np.inf, 1.0]])))[0]), [[np.inf, 1], [0, 0]])


def test_prune_keeps_its_mask():
    mask = np.array([True, False])
    x = spcy.SparseTensor(np.array([[0, 0], [0, 1]]), np.ones((2, 1)))
    kept = put(mask.copy())
    _, vjp = spcy.vjp(spcy.prune, x, kept)
    kept[:] = ~kept
    np.testing.assert_array_equal(get(vjp(put(np.ones((1, 1))))[0]), [[1], [0]])


OPERATIONS = {
    "max_pool": lambda x: (spcy.max_pool, x, 3, 2, 1),
    "avg_pool": lambda x: (spcy.avg_pool, x, 3, 2, 1),
    "unpool": lambda x: (spcy.unpool, spcy.sum_pool(x, 2)),
    "global_max_pool": lambda x: (spcy.global_max_pool, x),
    "global_avg_pool": lambda x: (spcy.global_avg_pool, x),
    "add": lambda x: (spcy.add, x, x),
    "concat": lambda x: (spcy.concat, [x, x]),
    "prune": lambda x: (spcy.prune, x, put(np.arange(x.num_sites) % 2 == 0)),
    "devoxelize": lambda x: (spcy.devoxelize, x, put(get(x.indices)[:, 1:] + 0.3), "linear"),
}


@pytest.mark.paired("dtype", "threads")
@pytest.mark.paired("name", "dtype", backend="cuda-emulated")
@pytest.mark.parametrize("name", OPERATIONS)
def test_dtypes_threads_and_empty_inputs(name, dtype, threads, rng):
    """What threads and dtypes change is their gradient's rounding only, and bits not at all."""
    for sites in (60, 0):
        x = random_tensor(rng, sites, (5, 4, 6), 3, dtype)
        wide = x.replace(put(np.float64(get(x.features))))
        y, vjp = spcy.vjp(*OPERATIONS[name](x))
        y_wide, vjp_wide = spcy.vjp(*OPERATIONS[name](wide))
        dy = rng.standard_normal(array_of(y).shape).astype(dtype)
        dx, expected = vjp(put(dy))[0], vjp_wide(put(dy.astype(array_of(y_wide).dtype)))[0]
        assert_close(dx, get(expected), dtype)
        spcy.set_num_threads(1)
        np.testing.assert_array_equal(get(dx), get(vjp(put(dy))[0]))


CHANNELS = [(1, 1), (3, 17), (16, 16), (33, 65), (40, 5), (64, 64), (7, 130)]


def exact_weight_gradient(x, dy, book):
    """Sum in float64, one offset after the other."""
    x, dy = np.float64(get(x)), np.float64(get(dy))
    pairs = (map(get, book.pairs(k)) for k in range(book.num_offsets))
    return np.stack([x[i].T @ dy[o] for i, o in pairs])


@pytest.mark.paired("channels", "dtype", backend="cuda-emulated")
@pytest.mark.parametrize("channels", CHANNELS, ids="{0[0]}to{0[1]}".format)
def test_weight_gradient_of_numbers_of_channels(channels, dtype, simd, rng):
    sites, box = (
        (60, (5, 5, 3)) if spcy.get_backend() == "cuda" else (300, (9, 8, 7))
    )  # emulated, it takes long
    x = random_tensor(rng, sites, box, channels[0], dtype, batch_size=2)
    weight, bias = random_weight(rng, (3, 3, 3), *channels, dtype)
    y, vjp = spcy.vjp(spcy.subm_conv, x, weight, bias)
    dy = rng.standard_normal(y.features.shape).astype(dtype)
    dx, dweight, dbias = vjp(put(dy))
    book = spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)
    expected = exact_weight_gradient(x.features, dy, book).reshape(weight.shape)
    assert_close(dweight, expected, dtype)
    assert_close(dbias, np.float64(dy).sum(axis=0), dtype)
    transposed = np.swapaxes(get(weight), -1, -2)
    assert_close(dx, accumulate(dy, transposed, book.transposed()), dtype)


GROUPS = [(2, 3, 4), (17, 1, 1), (16, 1, 1), (8, 1, 2), (3, 16, 16), (2, 33, 20), (4, 2, 1)]


@pytest.mark.paired("groups", "dtype", backend="cuda-emulated")
@pytest.mark.parametrize("groups", GROUPS, ids="{0[0]}x{0[1]}to{0[2]}".format)
def test_weight_gradient_of_groups(groups, dtype, simd, rng):
    groups, c_in, c_out = groups
    sites = 40 if spcy.get_backend() == "cuda" else 90  # emulated, each group takes long
    x = random_tensor(rng, sites, (6, 5, 4), groups * c_in, dtype, batch_size=2)
    weight, _ = random_weight(rng, (3, 3, 3), c_in, groups * c_out, dtype)
    y, vjp = spcy.vjp(spcy.subm_conv, x, weight, groups=groups)
    dy = rng.standard_normal(y.features.shape).astype(dtype)
    book = spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)
    parts = zip(np.split(get(x.features), groups, 1), np.split(dy, groups, 1), strict=True)
    expected = np.concatenate([exact_weight_gradient(*part, book) for part in parts], axis=-1)
    assert_close(vjp(put(dy))[1], expected.reshape(weight.shape), dtype)


def many_sites(rng, channels, dtype):
    """A tensor of so many sites that its pairs are cut into chunks, in any order of rows."""
    return random_tensor(rng, 9_000, (22, 22, 22), channels, dtype)


@pytest.mark.emulated(channels=[(9, 20)])
@pytest.mark.paired("channels", "dtype", backend="cpu")
@pytest.mark.parametrize("channels", [(9, 20), (64, 72), (130, 16)], ids=str)
def test_chunks(dtype, rng, channels):
    x = many_sites(rng, channels[0], dtype)
    if x.backend == "cuda":  # emulated, many sites take long
        x = random_tensor(rng, 250, (7, 7, 7), channels[0], dtype)
    weight, _ = random_weight(rng, (3, 3, 3), *channels, dtype)
    y, vjp = spcy.vjp(spcy.subm_conv, x, weight)
    dy = rng.standard_normal(y.features.shape).astype(dtype)
    book = spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)
    expected = exact_weight_gradient(x.features, dy, book).reshape(weight.shape)
    assert_close(vjp(put(dy))[1], expected, dtype)


def test_same_bits_for_any_number_of_threads(dtype, simd, rng, monkeypatch):
    if spcy.get_backend() == "cuda":
        pytest.skip("a GPU has no threads of the host")
    monkeypatch.setattr(spcy._threads, "GRAIN", 1)
    x = many_sites(rng, 20, dtype)
    weight, bias = random_weight(rng, (3, 3, 3), 20, 33, dtype)
    y, vjp = spcy.vjp(spcy.subm_conv, x, weight, bias, activation="relu")
    dy = put(rng.standard_normal(y.features.shape).astype(dtype))
    results = []
    try:
        for threads in (1, 2, 3, 4):
            spcy.set_num_threads(threads)
            results.append([get(gradient).tobytes() for gradient in vjp(dy)])
    finally:
        spcy.set_num_threads(None)
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("name", CONVS)
def test_conv_without_sites(name, dtype):
    function, options = CONVS[name]
    x = spcy.SparseTensor(put(np.empty((0, 3), np.int32)), put(np.empty((0, 3), dtype)))
    if function is spcy.inverse_conv:
        x = spcy.max_pool(x, 3, **STRIDED)
    weight, bias = put(np.ones((3, 3, 3, 2), dtype)), put(np.ones(2, dtype))
    y, vjp = spcy.vjp(function, x, weight, bias, **options)
    dx, dweight, dbias = map(get, vjp(y.features))
    assert dx.shape == (0, 3)
    assert not dweight.any()
    assert dweight.shape == weight.shape
    assert not dbias.any()
    assert dbias.shape == (2,)


@pytest.mark.parametrize("name", ["subm_conv", "conv", "conv_transpose"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_dense_pytorch_gives_the_same_gradients(name, ndim, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = random_tensor(rng, 20, (7, 6, 5)[:ndim], 3, np.float64, batch_size=2)
    weight, bias = random_weight(rng, (3,) * ndim, 3, 4, np.float64)
    options = {"subm_conv": {"dilation": 2}, "conv": {**STRIDED}, "conv_transpose": {**STRIDED}}[name]
    y, vjp = spcy.vjp(getattr(spcy, name), x, weight, bias, **options, activation="relu")
    dy = rng.standard_normal(y.features.shape)
    dense, kernel, b = (
        torch.tensor(get(a)).requires_grad_()
        for a in (x.to_dense(channels_first=True), np.moveaxis(get(weight), (-2, -1), (1, 0)), bias)
    )
    if name == "subm_conv":
        options["padding"] = 2
    if name == "conv_transpose":
        kernel = torch.tensor(np.moveaxis(get(weight), (-2, -1), (0, 1))).requires_grad_()
    op = getattr(torch.nn.functional, f"conv{'_transpose' * (name == 'conv_transpose')}{ndim}d")
    out = torch.relu(torch.movedim(op(dense, kernel, b, **options), 1, -1)[tuple(get(y.indices).T.copy())])
    np.testing.assert_allclose(get(y.features), out.detach().numpy(), atol=1e-12)
    out.backward(torch.tensor(dy))
    dx, dweight, dbias = map(get, vjp(put(dy)))
    places = get(x.indices).T
    np.testing.assert_allclose(dx, np.moveaxis(dense.grad.numpy(), 1, -1)[tuple(places)], atol=1e-12)
    axes = (0, 1) if name == "conv_transpose" else (1, 0)
    np.testing.assert_allclose(dweight, np.moveaxis(kernel.grad.numpy(), axes, (-2, -1)), atol=1e-12)
    np.testing.assert_allclose(dbias, b.grad.numpy(), atol=1e-12)
