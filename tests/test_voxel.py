import numpy as np
import pytest
import reference as ref
from helpers import assert_close, assert_tensor, get, put, random_tensor, random_weight

import spcy


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """What points can be."""
    return np.dtype(request.param)


REDUCE = ["mean", "sum", "max", "first"]
BOUNDS = {"unbounded": None, "bounds": ([-0.5, -1.0, 0.0, -1.0], [1.0, 1.0, 1.5, 0.5])}


@pytest.fixture(autouse=True)
def _on_every_backend(backend):
    pass


@pytest.mark.paired("reduce", "max_points", backend="cuda-emulated")
@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize("max_points", [None, 1, 3])
@pytest.mark.parametrize(
    ("ndim", "where"), [(1, "bounds"), (2, "unbounded"), (3, "bounds"), (3, "unbounded"), (4, "bounds")]
)
def test_voxelize_is_the_reference(ndim, where, reduce, max_points, dtype, rng):
    points = rng.uniform(-1.3, 1.7, (150, ndim)).astype(dtype)
    points[:20] = np.round(points[:20] * 4) / 4  # on the borders of cells
    features = rng.standard_normal((150, 5)).astype(dtype)
    batch = rng.integers(0, 3, 150)
    size = np.array([0.5, 0.25, 0.75, 0.5])[:ndim]
    bounds = BOUNDS[where] and tuple(np.array(b)[:ndim] for b in BOUNDS[where])
    origin, shape = np.zeros(ndim), None
    if bounds:
        origin, shape = bounds[0], tuple(np.round((bounds[1] - bounds[0]) / size).astype(int).tolist())
    sites, reduced, rows, counts = ref.voxelize(
        points, batch, features, origin, size, shape, reduce, max_points
    )
    options = {"reduce": reduce, "max_points": max_points, "bounds": bounds}
    out = spcy.voxelize(put(points), size, features=put(features), batch=put(batch), **options)
    assert_tensor(out.tensor, sites, reduced, shape, dtype)
    for actual, expected in ((out.rows, rows), (out.counts, counts)):
        assert actual.dtype == np.int32
        np.testing.assert_array_equal(get(actual), expected)
    np.testing.assert_allclose(out.tensor.coords.origin, origin)
    np.testing.assert_allclose(out.tensor.coords.voxel_size, size)
    assert out.tensor.batch_size == 3
    assert where == "unbounded" or (rows < 0).any()


def test_defaults(dtype, rng):
    """One batch, the mean of the points themselves, one voxel size for all axes."""
    points = rng.uniform(-3, 3, (80, 3)).astype(dtype)
    tensor, rows, counts = spcy.voxelize(put(points), 1.5)
    expected = ref.voxelize(points, np.zeros(80, int), points, 0, 1.5, None, "mean", None)
    assert_tensor(tensor, expected[0], expected[1], None, dtype)
    np.testing.assert_array_equal(get(rows), expected[2])
    np.testing.assert_array_equal(get(counts), expected[3])
    assert tensor.batch_size == 1


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_features_keep_their_own_dtype(name, rng):
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name, name))
    points = rng.uniform(0, 3, (20, 2))
    features = rng.standard_normal((20, 1)).astype(dtype)
    x = spcy.voxelize(put(points), 1, features=put(features)).tensor
    expected = ref.voxelize(points, np.zeros(20, int), np.float64(features), 0, 1, None, "mean", None)
    assert_close(x.features, expected[1], dtype)
    for mode in ("nearest", "linear"):
        sites, batch = get(x.indices), np.zeros(20, int)
        expected = ref.devoxelize(np.float64(get(x.features)), sites, batch, points, mode)
        assert_close(spcy.devoxelize(x, put(points), mode), expected, dtype)


def test_order_of_the_points_decides_the_first():
    for values in ([0.9, 0.1, 0.5, 1.5], [0.5, 0.1, 0.9, 1.5]):
        points = np.array(values)[:, None]
        out = spcy.voxelize(put(points), 1, reduce="first")
        np.testing.assert_array_equal(get(out.tensor.features)[0], points[0])
        out = spcy.voxelize(put(points), 1, reduce="sum", max_points=2)
        np.testing.assert_allclose(get(out.tensor.features)[0], points[0] + points[1])
        np.testing.assert_array_equal(get(out.rows), [0, 0, 0, 1])
        np.testing.assert_array_equal(get(out.counts), [2, 1])


def test_borders_are_half_open():
    points = np.array([[0.0], [0.5], [1.0], [1.4999], [1.5], [-1e-9]])
    out = spcy.voxelize(put(points), 0.5, bounds=(0, 1.5))
    np.testing.assert_array_equal(get(out.rows), [0, 1, 2, 2, -1, -1])
    assert out.tensor.shape == (3,)


@pytest.mark.parametrize("layout", ["fortran", "columns", "swapped", "readonly"])
def test_any_layout_of_the_points(layout, rng):
    wide = rng.uniform(-3, 3, (50, 4)).astype(np.float32)
    points = wide[:, :3].copy()
    given = {"fortran": np.asfortranarray(points), "columns": wide[:, :3], "swapped": points.astype(">f4")}
    given = given.get(layout, points)
    given.setflags(write=False)
    a, b = spcy.voxelize(put(points.copy()), 0.7), spcy.voxelize(put(given), 0.7)
    np.testing.assert_array_equal(get(a.tensor.features), get(b.tensor.features))
    np.testing.assert_array_equal(get(a.rows), get(b.rows))
    linear = [get(spcy.devoxelize(a.tensor, put(p), "linear")) for p in (points.copy(), given)]
    np.testing.assert_array_equal(*linear)


@pytest.mark.parametrize("bounds", [None, (0, 3)])
def test_no_points(bounds, dtype):
    out = spcy.voxelize(put(np.zeros((0, 3), dtype)), 0.5, bounds=bounds)
    assert (out.tensor.num_sites, out.tensor.num_channels, out.tensor.dtype) == (0, 3, dtype)
    assert (out.rows.shape, out.counts.shape) == ((0,), (0,))
    for mode in ("nearest", "linear"):
        assert spcy.devoxelize(out.tensor, put(np.zeros((0, 3), dtype)), mode).shape == (0, 3)
        np.testing.assert_array_equal(
            get(spcy.devoxelize(out.tensor, put(np.ones((2, 3), dtype)), mode)), np.zeros((2, 3))
        )


@pytest.mark.paired("value", "reduce")
@pytest.mark.parametrize("bounds", [None, (0, 4)])
@pytest.mark.parametrize("reduce", ["mean", "max", "first"])
@pytest.mark.parametrize("max_points", [None, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_dropped(value, bounds, reduce, max_points, dtype, rng):
    points = rng.uniform(0, 5, (300, 3)).astype(dtype)
    features, batch = rng.normal(size=(300, 2)).astype(dtype), rng.integers(0, 3, 300)
    points[::7, 1], points[3::11, 0], points[299] = value, value, value
    features[::7] = np.nan
    finite = np.isfinite(points).all(axis=1)
    options = {"bounds": bounds, "reduce": reduce, "max_points": max_points, "batch_size": 3}

    def call(rows, **more):
        values = {"features": put(features[rows]), "batch": put(batch[rows])}
        return spcy.voxelize(put(points[rows]), 1.0, **values, **options, **more)

    with pytest.raises(ValueError, match=r"points must be finite, got .* in row 0"):
        call(slice(None))
    found, wanted = call(slice(None), invalid="drop"), call(finite)
    for actual, expected in (
        (found.tensor.indices, wanted.tensor.indices),
        (found.tensor.features, wanted.tensor.features),
        (found.counts, wanted.counts),
    ):
        np.testing.assert_array_equal(get(actual), get(expected))
    rows = get(found.rows)
    np.testing.assert_array_equal(rows[finite], get(wanted.rows))
    assert (rows[~finite] == -1).all()
    assert rows.dtype == np.int32
    values = {"features": put(features), "batch": put(batch), "invalid": "drop", **options}
    y, vjp = spcy.vjp(spcy.voxelize, put(points), 1.0, **values)
    gradient = get(vjp(put(np.ones(y.tensor.features.shape, dtype)))[0])
    assert (gradient[~finite] == 0).all()
    assert np.isfinite(gradient).all()


def test_all_points_are_dropped(dtype):
    tensor, rows, counts = spcy.voxelize(put(np.full((4, 2), np.nan, dtype)), 1.0, invalid="drop")
    assert (tensor.num_sites, get(rows).tolist(), len(counts)) == (0, [-1] * 4, 0)
    with pytest.raises(ValueError, match="invalid must be"):
        spcy.voxelize(put(np.zeros((4, 2), dtype)), 1.0, invalid="ignore")


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_cells_of_points_at_every_level(ndim, dtype, simd, threads, rng):
    """Points in a box, on borders of cells, outside, and further away than whole numbers are told apart."""
    num, low, size = 5000, np.array([-2.0, 0.5, 1.0, -0.3])[:ndim], np.array([0.5, 0.1, 0.25, 0.7])[:ndim]
    points = (low + rng.uniform(-2, 12, (num, ndim)) * size).astype(dtype)
    points[:500] = np.round(points[:500] * 4) / 4
    far = np.array([2.0**49, -(2.0**50), 2.0**51, 2.0**53, -1e30, 3e38, -0.0, 5e-324])
    points[rng.integers(500, num, 200), rng.integers(0, ndim, 200)] = rng.choice(far, 200).astype(dtype)
    batch = rng.integers(0, 3, num)
    cells = np.floor((points.astype(np.float64) - low) / size)
    inside = ((cells >= 0) & (cells < 10)).all(axis=1)
    voxels = spcy.voxelize(put(points), size, batch=put(batch), bounds=(low, low + 10 * size))
    rows = get(voxels.rows)
    np.testing.assert_array_equal(rows >= 0, inside)
    expected = np.column_stack([batch, np.where(inside[:, None], cells, 0)])[inside]
    np.testing.assert_array_equal(get(voxels.tensor.indices)[rows[inside]], expected)
    points[num // 2 + 1, ndim - 1] = np.inf
    with pytest.raises(ValueError, match=f"points must be finite, got .* in row {num // 2 + 1}"):
        spcy.voxelize(put(points), size, bounds=(low, low + 10 * size))


def test_all_points_outside():
    out = spcy.voxelize(put(np.full((3, 2), 9.0)), 1, bounds=([0, 0], [4, 4]))
    assert out.tensor.num_sites == 0
    np.testing.assert_array_equal(get(out.rows), [-1, -1, -1])


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("bounded", [True, False], ids=["shape", "unbounded"])
def test_devoxelize_is_the_reference(bounded, ndim, mode, dtype, rng):
    box = (6, 5, 4, 3)[:ndim]
    size = np.array([0.5, 0.2, 1.0, 0.3])[:ndim]
    low = np.array([-1.0, 2.0, 0.5, 0.0])[:ndim] if bounded else np.zeros(ndim)
    cloud = low + rng.uniform(0, 1, (80, ndim)) * box * size
    bounds = (low, low + box * size) if bounded else None
    voxels = spcy.voxelize(put(cloud.astype(dtype)), size, batch=put(rng.integers(0, 2, 80)), bounds=bounds)
    x = voxels.tensor.map(lambda f: f * 0 + put(rng.standard_normal(f.shape).astype(dtype)))
    points = (low + rng.uniform(-0.3, 1.3, (120, ndim)) * box * size).astype(dtype)
    batch = rng.integers(0, 2, 120)
    v = (np.float64(points) - low) / size
    for scaled in (True, False):
        expected = ref.devoxelize(get(x.features), get(x.indices), batch, v, mode, scaled)
        actual = spcy.devoxelize(x, put(points), mode, batch=put(batch), renormalize=scaled)
        assert_close(actual, expected, dtype)
    assert (expected == 0).all(1).any()


def test_nearest_gives_every_point_its_voxel(dtype, rng):
    points = rng.uniform(-3, 3, (90, 3)).astype(dtype)
    tensor, rows, _ = spcy.voxelize(put(points), 0.8)
    np.testing.assert_array_equal(get(spcy.devoxelize(tensor, put(points))), get(tensor.features)[get(rows)])


def test_linear_reproduces_a_plane_inside_a_full_grid(dtype, rng):
    cells = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centres = (cells + 0.5) * 0.25
    tensor, _, _ = spcy.voxelize(put(centres.astype(dtype)), 0.25)
    points = rng.uniform(0.125, 1.125, (60, 3)).astype(dtype)
    assert_close(spcy.devoxelize(tensor, put(points), "linear"), points, dtype)


LEVELS = {  # layer, and the windows that make its cells
    "conv": (lambda x, w: spcy.conv(x, w, stride=2, padding=1), ((3, 3), 2, 1, 1)),
    "per_axis": (
        lambda x, w: spcy.conv(x, w[:, :2], stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
        ((3, 2), (2, 1), (0, 1), (1, 2)),
    ),
    "pool": (lambda x, w: spcy.max_pool(x, 2), ((2, 2), 2, 0, 1)),
    "grows": (lambda x, w: spcy.conv(x, w, padding=1), ((3, 3), 1, 1, 1)),
}


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("level", LEVELS)
def test_devoxelize_a_coarse_level(level, mode, dtype, rng):
    low, size = np.array([1.0, -2.0]), np.array([0.5, 0.25])
    cloud = low + rng.uniform(0, 1, (60, 2)) * size * (9, 8)
    x = spcy.voxelize(put(cloud.astype(dtype)), size, bounds=(low, low + size * (9, 8))).tensor
    layer, (kernel, stride, padding, dilation) = LEVELS[level]
    y = layer(x, random_weight(rng, (3, 3), 2, 2, dtype)[0])
    # The middle of a child's cell u is the mean of the middles of the input cells in its window.
    u = get(y.indices)[:, 1:]
    window = ref.box(kernel, (1, 1)).mean(0) * dilation
    middles = low + size * (u * stride - np.array(padding) + window + 0.5)
    np.testing.assert_allclose(y.coords.origin + y.coords.voxel_size * (u + 0.5), middles)
    np.testing.assert_array_equal(y.coords.voxel_size, size * stride)
    assert_close(spcy.devoxelize(y, put(middles.astype(dtype)), mode), get(y.features), dtype)
    points = low + rng.uniform(-0.2, 1.2, (70, 2)) * size * (9, 8)
    v = (points - middles[0]) / (size * stride) + u[0] + 0.5
    expected = ref.devoxelize(get(y.features), get(y.indices), np.zeros(70, int), v, mode)
    assert_close(spcy.devoxelize(y, put(points), mode), expected, dtype)


def test_the_finer_level_of_a_transposed_convolution(rng):
    x = random_tensor(rng, 20, (5, 5), 2)
    weight, _ = random_weight(rng, (2, 2), 2, 2)
    y = spcy.conv_transpose(x, weight, stride=2)
    np.testing.assert_array_equal(y.coords.voxel_size, [0.5, 0.5])
    np.testing.assert_array_equal(y.coords.origin, [0, 0])
    points = get(y.indices)[:, 1:] / 2 + 0.25
    np.testing.assert_array_equal(get(spcy.devoxelize(y, put(points))), get(y.features))


def test_the_metric_grid_goes_along(rng):
    points = rng.uniform(0, 4, (40, 2))
    x = spcy.voxelize(put(points), 0.5, bounds=([-1, 0], [4, 4])).tensor
    pruned = spcy.prune(x, put(np.arange(x.num_sites) % 2 == 0))
    for y in (pruned, spcy.add(x, pruned), spcy.subm_conv(x, random_weight(rng, (3, 3), 2, 1, float)[0])):
        np.testing.assert_array_equal(y.coords.origin, [-1, 0])
        np.testing.assert_array_equal(y.coords.voxel_size, [0.5, 0.5])


def test_devoxelize_passes_nan():
    x = spcy.SparseTensor(put(np.array([[0, 0], [0, 2]])), put(np.array([[np.nan], [1.0]])), shape=(4,))
    np.testing.assert_array_equal(
        get(spcy.devoxelize(x, put(np.array([[0.2], [2.2], [1.2]])))), [[np.nan], [1], [0]]
    )
    np.testing.assert_array_equal(
        get(spcy.devoxelize(x, put(np.array([[2.2], [0.7]])), "linear")), [[1], [np.nan]]
    )


def test_points_far_from_every_site(rng):
    x = random_tensor(rng, 5, (4, 4), 2, np.float64, shape=None)
    far = put(np.array([[1e9, -1e9], [2.0**31, 0], [-1e30, 1e300]]))
    for mode in ("nearest", "linear"):
        np.testing.assert_array_equal(get(spcy.devoxelize(x, far, mode)), np.zeros((3, 2)))


def test_batch_size_counts_empty_batches(rng):
    points, batch = rng.random((10, 2)), np.zeros(10, int)
    x = spcy.voxelize(points, 0.5, batch=batch, batch_size=3).tensor
    assert x.batch_size == 3
    assert spcy.global_sum_pool(x).shape == (3, 2)
