import pickle

import numpy as np
import pytest
import reference as ref
from helpers import (
    GEOMETRIES,
    Geometry,
    assert_close,
    assert_tensor,
    get,
    put,
    random_indices,
    random_tensor,
    random_weight,
)

import spcy
from spcy.pointwise import activate, activation_of

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.emulated(dtype=["float32", "float64", "float16"]),  # bfloat16: test_cuda_conv
]

geometries = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
LAYERS = {
    "subm": lambda x, w, b=None, **more: spcy.subm_conv(x, w, b, **more),
    "conv": lambda x, w, b=None, **more: spcy.conv(x, w, b, stride=2, padding=1, **more),
    "inverse": lambda x, w, b=None, **more: spcy.inverse_conv(spcy.max_pool(x, 3, 2, 1), w, b, **more),
    "transpose": lambda x, w, b=None, **more: spcy.conv_transpose(x, w, b, stride=2, padding=1, **more),
}
layers = pytest.mark.parametrize("layer", LAYERS)


@pytest.mark.paired("geometry", "dtype")
@geometries
def test_conv_and_back_is_the_reference(geometry, dtype, simd, rng):
    x = geometry.tensor(rng, 5, dtype)
    weight, bias = random_weight(rng, geometry.kernel_size, 5, 3, dtype)
    y = spcy.conv(x, weight, bias, **geometry.args)
    rows, sites, shape = geometry.table(x)
    assert_tensor(y, sites, ref.conv(get(x.features), get(weight), get(bias), rows), shape, dtype)
    weight, bias = random_weight(rng, geometry.kernel_size, 3, 4, dtype)
    z = spcy.inverse_conv(y, weight, bias)
    assert z.coords is x.coords
    assert_close(
        z.features, ref.conv(get(y.features), get(weight), get(bias), ref.swap(rows, x.num_sites)), dtype
    )


@pytest.mark.paired("geometry", "dtype")
@geometries
def test_conv_transpose_and_back_is_the_reference(geometry, dtype, simd, rng):
    x = geometry.tensor(rng, 5, dtype)
    more = tuple(int(s > 1) for s in geometry.axes(geometry.stride))
    weight, bias = random_weight(rng, geometry.kernel_size, 5, 3, dtype)
    y = spcy.conv_transpose(x, weight, bias, output_padding=more, **geometry.args)
    rows, sites, shape = geometry.table(x, np.array(more))
    assert_tensor(y, sites, ref.conv(get(x.features), get(weight), get(bias), rows), shape, dtype)
    weight, bias = random_weight(rng, geometry.kernel_size, 3, 4, dtype)
    z = spcy.inverse_conv(y, weight, bias, to=x)
    assert z.coords is x.coords
    assert_close(
        z.features, ref.conv(get(y.features), get(weight), get(bias), ref.swap(rows, x.num_sites)), dtype
    )


@pytest.mark.paired("geometry", "dtype")
@geometries
def test_subm_conv_is_the_reference(geometry, dtype, simd, rng):
    kernel = tuple(k - 1 + k % 2 for k in geometry.kernel_size)
    x = geometry.tensor(rng, 5, dtype)
    weight, bias = random_weight(rng, kernel, 5, 3, dtype)
    y = spcy.subm_conv(x, weight, bias, dilation=geometry.dilation)
    rows = ref.subm_table(get(x.indices), ref.box(kernel, geometry.axes(geometry.dilation), centred=True))
    assert y.coords is x.coords
    assert_tensor(y, get(x.indices), ref.conv(get(x.features), get(weight), get(bias), rows), x.shape, dtype)


def dense_conv(array, weight, stride, padding, dilation):
    """The dense convolution, by slices of the padded array."""
    array = np.pad(array, [(0, 0), *((p, p) for p in padding), (0, 0)])
    steps = list(zip(weight.shape, stride, dilation, strict=False))
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, (k, s, d) in zip(array.shape[1:], steps, strict=False)]
    out = np.zeros((len(array), *sizes, weight.shape[-1]))
    for cell in np.ndindex(*weight.shape[:-2]):
        axes = (
            slice(r * d, r * d + (m - 1) * s + 1, s)
            for r, m, (_, s, d) in zip(cell, sizes, steps, strict=True)
        )
        out += array[(slice(None), *axes)] @ weight[cell]
    return out


def dense_conv_transpose(array, weight, stride, padding, output_padding, dilation):
    """The dense transposed convolution: every cell paints its window, then the padding is cut off."""
    steps = list(zip(array.shape[1:], weight.shape, stride, padding, output_padding, dilation, strict=False))
    full = [(n - 1) * s + d * (k - 1) + 1 + p + o for n, k, s, p, o, d in steps]
    out = np.zeros((len(array), *full, weight.shape[-1]))
    for cell in np.ndindex(*weight.shape[:-2]):
        axes = (
            slice(r * d, r * d + (n - 1) * s + 1, s)
            for r, (n, _, s, _, _, d) in zip(cell, steps, strict=True)
        )
        out[(slice(None), *axes)] += array @ weight[cell]
    ends = [(n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, o, d in steps]
    return out[(slice(None), *(slice(p, p + n) for p, n in zip(padding, ends, strict=True)))]


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g.bounded], ids=str)
def test_equal_to_the_dense_convolution(geometry, rng):
    x = geometry.tensor(rng, 2, np.float64)
    weight, _ = random_weight(rng, geometry.kernel_size, 2, 3, np.float64)
    stride, padding, dilation = map(geometry.axes, geometry.args.values())
    expected = dense_conv(get(x.to_dense()), get(weight), stride, padding, dilation)
    assert_close(spcy.conv(x, weight, **geometry.args).to_dense(), expected, np.float64)
    more = tuple(s - 1 for s in stride)
    expected = dense_conv_transpose(get(x.to_dense()), get(weight), stride, padding, more, dilation)
    y = spcy.conv_transpose(x, weight, output_padding=more, **geometry.args)
    assert_close(y.to_dense(), expected, np.float64)


CHANNELS = [
    (1, 1),
    (1, 7),
    (7, 17),
    (17, 1),
    (16, 16),
    (33, 65),
    (65, 33),
    (4, 32),
    (32, 64),
    (2, 130),
    (200, 3),
]


@pytest.mark.paired("channels", "layer")
@pytest.mark.parametrize("channels", CHANNELS, ids="{0[0]}to{0[1]}".format)
@layers
@pytest.mark.emulated(channels=[(3, 16), (33, 65), (2, 130)])  # its kernels have all in test_cuda_conv
def test_numbers_of_channels(layer, channels, dtype, simd, rng):
    x = random_tensor(rng, 90, (5, 6, 7), channels[0], dtype, batch_size=2)
    weight, bias = random_weight(rng, (3, 3, 3), *channels, dtype)
    y = LAYERS[layer](x, weight, bias)
    g = Geometry((5, 6, 7), (3, 3, 3), 2, 1)
    features = get(x.features)
    if layer == "subm":
        rows = ref.subm_table(get(x.indices), g.offsets - 1)
    elif layer == "transpose":
        rows, _, _ = g.table(x, np.zeros(3, int))
    else:
        rows, _, _ = g.table(x)
    if layer == "inverse":
        features, rows = ref.pool(features, rows, "max"), ref.swap(rows, x.num_sites)
    assert_close(y.features, ref.conv(features, get(weight), get(bias), rows), dtype)
    assert y.num_channels == channels[1]
    assert_close(LAYERS[layer](x, weight).features, ref.conv(features, get(weight), None, rows), dtype)


@pytest.mark.paired("num_sites", "dtype", backend="cuda-emulated")
@pytest.mark.parametrize("num_sites", [1, 2, 5, 6, 11, 12, 13, 23, 25, 64, 125])
def test_numbers_of_sites(num_sites, dtype, simd, rng):
    """Up to a full grid: groups of rows of every length, and a last one that is not full."""
    x = random_tensor(rng, num_sites, (5, 5, 5), 9, dtype)
    weight, bias = random_weight(rng, (3, 3, 3), 9, 20, dtype)
    rows = ref.subm_table(get(x.indices), ref.box((3, 3, 3), (1, 1, 1), centred=True))
    expected = ref.conv(get(x.features), get(weight), get(bias), rows)
    assert_close(spcy.subm_conv(x, weight, bias).features, expected, dtype)


@pytest.mark.paired("layer", "dtype", backend="cuda-emulated")
@layers
def test_order_of_the_rows_changes_no_bit(layer, dtype, rng):
    indices = np.unique(random_indices(rng, 150, (6, 7, 8), 2), axis=0)
    features = rng.standard_normal((150, 6)).astype(dtype)
    weight, bias = random_weight(rng, (3, 3, 3), 6, 10, dtype)
    expected = None
    for order in (np.arange(150), np.arange(150)[::-1], rng.permutation(150)):
        x = spcy.SparseTensor(put(indices[order]), put(features[order]), shape=(6, 7, 8))
        y = LAYERS[layer](x, weight, bias)
        out = get(y.features)
        if y.coords is x.coords:
            out = out[np.argsort(order)]
        expected = out if expected is None else expected
        np.testing.assert_array_equal(out, expected)


def views(array):
    """The same values in other layouts."""
    strided = np.zeros([2 * n for n in array.shape], array.dtype)[(slice(None, None, 2),) * array.ndim]
    strided[:] = array
    raw = bytearray(array.nbytes + 1)
    unaligned = np.frombuffer(raw, array.dtype, array.size, offset=1).reshape(array.shape)
    unaligned[:] = array
    assert not unaligned.flags.aligned
    readonly = array.copy()
    readonly.setflags(write=False)
    return {
        "fortran": np.asfortranarray(array),
        "strided": strided,
        "backwards": array[::-1].copy()[::-1],
        "swapped": array.astype(array.dtype.newbyteorder()),
        "unaligned": unaligned,
        "readonly": readonly,
    }


@pytest.mark.paired("view", "layer")
@pytest.mark.emulated(view=["fortran", "strided"])  # what reaches the device is contiguous
@pytest.mark.parametrize("view", views(np.zeros(1)))
@layers
def test_any_layout_of_the_inputs(layer, view, dtype, rng):
    indices = random_indices(rng, 40, (5, 6, 7))
    features = rng.standard_normal((40, 4)).astype(dtype)
    weight = rng.standard_normal((3, 3, 3, 4, 5)).astype(dtype)
    bias = rng.standard_normal(5).astype(dtype)
    out = []
    for look in (np.copy, lambda array: views(array)[view]):
        x = spcy.SparseTensor(put(look(indices)), put(look(features)), shape=(5, 6, 7))
        assert x.dtype == dtype
        assert x.dtype.isnative
        assert x.backend == "cuda" or x.features.flags.aligned
        y = LAYERS[layer](x, put(look(weight)), put(look(bias)))
        assert y.dtype == dtype
        assert y.dtype.isnative
        out.append(get(y.features))
    np.testing.assert_array_equal(*out)


def test_pointwise_conv_keeps_the_coordinates(dtype, simd, rng):
    x = random_tensor(rng, 50, (5, 6, 7), 7, dtype, batch_size=2)
    weight, bias = random_weight(rng, (1, 1, 1), 7, 9, dtype)
    expected = np.float64(get(x.features)) @ get(weight)[0, 0, 0] + get(bias)
    for y in (
        spcy.conv(x, weight, bias),
        spcy.subm_conv(x, weight, bias),
        spcy.conv(x, weight, bias, dilation=3),
    ):
        assert y.coords is x.coords
        assert_close(y.features, expected, dtype)
    for padding in (1, 2):
        y = spcy.conv(x, weight, bias, padding=padding)
        assert y.shape == tuple(n + 2 * padding for n in x.shape)
        np.testing.assert_array_equal(get(y.rows_of(y.indices)), np.arange(50))


@pytest.mark.paired("layer", "dtype", backend="cuda-emulated")
@layers
def test_nan_and_inf_stay_where_they_are(layer, dtype, simd, rng):
    """A NaN reaches the outputs that read it and no other, whatever tile or group they share."""
    x = random_tensor(rng, 60, (5, 6, 7), 3, dtype)
    weight, bias = random_weight(rng, (3, 3, 3), 3, 20, dtype)
    clean = get(LAYERS[layer](x, weight, bias).features)
    for bad in (np.nan, np.inf):
        features = get(x.features).copy()
        features[17, 1] = bad
        if layer == "inverse":  # the layer under test reads pooled features
            features[17, 1] = 0
            pooled = spcy.max_pool(x.replace(put(features)), 3, 2, 1)
            spoiled = get(pooled.features).copy()
            spoiled[5, 1] = bad
            out = get(spcy.inverse_conv(pooled.replace(put(spoiled)), weight, bias).features)
            rows = ref.swap(Geometry((5, 6, 7), (3, 3, 3), 2, 1).table(x)[0], 60)
            clean = get(spcy.inverse_conv(pooled, weight, bias).features)
            reached = (rows == 5).any(0)
        else:
            out = get(LAYERS[layer](x.replace(put(features)), weight, bias).features)
            g = Geometry((5, 6, 7), (3, 3, 3), 2, 1)
            if layer == "subm":
                rows = ref.subm_table(get(x.indices), g.offsets - 1)
            else:
                rows = g.table(x, np.zeros(3, int) if layer == "transpose" else None)[0]
            reached = (rows == 17).any(0)
        assert reached.any()
        assert not np.isfinite(out[reached]).any()
        np.testing.assert_array_equal(out[~reached], clean[~reached])


def residual_of(y, rng):
    return y.replace(put(rng.standard_normal(get(y.features).shape).astype(y.dtype)))


@pytest.mark.paired("layer", "channels")
@pytest.mark.parametrize("channels", [(3, 20), (16, 33), (7, 1)], ids="{0[0]}to{0[1]}".format)
@layers
def test_epilogue(layer, channels, dtype, simd, rng):
    """Bias, residual and activation are what separate passes would give, in one rounding."""
    x = random_tensor(rng, 90, (5, 6, 7), channels[0], dtype, batch_size=2)
    weight, bias = random_weight(rng, (3, 3, 3), *channels, dtype)
    residual = residual_of(LAYERS[layer](x, weight), rng)
    sums = LAYERS[layer](
        x.map(lambda f: f.astype(np.float64)),
        put(get(weight).astype(np.float64)),
        put(get(bias).astype(np.float64)),
    )
    for more in (None, residual):
        expected = get(sums.features) + (0 if more is None else np.float64(get(more.features)))
        assert (expected < 0).any()
        assert_close(LAYERS[layer](x, weight, bias, residual=more).features, expected, dtype)
        y = LAYERS[layer](x, weight, bias, residual=more, activation="relu")
        assert_close(y.features, np.maximum(expected, 0), dtype)


ACTIVATIONS = ["relu", ("leaky_relu", 0.2), "gelu", "gelu_tanh", "silu"]


@pytest.mark.paired("layer", "activation")
@pytest.mark.parametrize("activation", ACTIVATIONS[1:], ids=str)
@layers
def test_activations_as_rows_are_written(layer, activation, dtype, simd, rng):
    """They have the bits of a pass of their own, in rows of any order."""
    x = random_tensor(rng, 90, (5, 6, 7), 7, dtype, batch_size=2)
    weight, bias = random_weight(rng, (3, 3, 3), 7, 19, dtype)
    residual = residual_of(LAYERS[layer](x, weight), rng)
    before = LAYERS[layer](x, weight, bias, residual=residual)
    expected = activate(before.features, activation_of(activation))
    y = LAYERS[layer](x, weight, bias, residual=residual, activation=activation)
    np.testing.assert_array_equal(np.float64(get(y.features)), np.float64(get(expected)))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations_of_depthwise_convolutions(activation, dtype, simd, rng):
    x = random_tensor(rng, 90, (5, 6, 7), 6, dtype, batch_size=2)
    weight, bias = random_weight(rng, (3, 3, 3), 1, 6, dtype)
    expected = activate(spcy.subm_conv(x, weight, bias, groups=6).features, activation_of(activation))
    y = spcy.subm_conv(x, weight, bias, groups=6, activation=activation)
    np.testing.assert_array_equal(np.float64(get(y.features)), np.float64(get(expected)))


def test_relu_keeps_nan(dtype, simd, rng):
    x = random_tensor(rng, 20, (5, 6, 7), 1, dtype)
    features = get(x.features).copy()
    features[3:5] = [[np.nan], [-np.inf]]
    x = x.replace(put(features))
    y = get(spcy.subm_conv(x, put(np.ones((1, 1, 1, 1, 17), dtype)), activation="relu").features)
    assert np.isnan(np.float64(y[3])).all()
    np.testing.assert_array_equal(np.float64(y[4]), 0)


@pytest.mark.parametrize(("name", "unit"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_numbers_of_16_bits_are_summed_in_float32(name, unit, simd, rng):
    """Sums are those of float32 features, rounded once, to nearest even."""
    half = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name, name))
    x = random_tensor(rng, 90, (5, 6, 7), 65, half)
    weight, bias = random_weight(rng, (3, 3, 3), 65, 20, half)
    y = get(spcy.subm_conv(x, weight, bias).features)
    args = (
        x.map(lambda f: f.astype(np.float32)),
        put(get(weight).astype(np.float32)),
        put(get(bias).astype(np.float32)),
    )
    expected = get(spcy.subm_conv(*args).features)
    scale = np.abs(expected).max()
    error = np.abs(y.astype(np.float32) - expected)
    assert (error <= np.abs(expected) * unit + scale * 1e-5).all()
    # A sum whose rounding is known: 1 + unit lies in the middle, and goes to the even 1.
    terms = put(np.array([[1, unit], [1, 3 * unit], [-1, -unit]]).astype(half))
    x = spcy.SparseTensor(put(np.array([[0, 0], [0, 1], [0, 2]])), terms)
    y = get(spcy.subm_conv(x, put(np.ones((1, 2, 1), half))).features)[:, 0]
    np.testing.assert_array_equal(y.astype(float), [1, 1 + 4 * unit, -1])


@pytest.mark.emulated(lanes=[2, 8])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16, 40])
def test_float16_is_widened_and_rounded_as_numpy_does(lanes, simd, rng):
    """All its numbers, and sums of any two, in rows of every width that has code of its own."""

    def tensor(features):
        sites = np.stack([np.zeros(len(features), int), np.arange(len(features))], axis=1)
        return spcy.SparseTensor(put(sites), put(features))

    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    x = np.resize(halves, (-(-len(halves) // lanes), lanes))
    y = spcy.subm_conv(tensor(x), put(np.ones((1, 1, lanes), np.float16)), groups=lanes)
    np.testing.assert_array_equal(get(y.features), x)
    finite = halves[np.isfinite(halves)]
    x = np.stack([finite, rng.permutation(finite)], axis=1)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float32).sum(axis=1).astype(np.float16)
    y = spcy.subm_conv(tensor(x), put(np.ones((1, 2, lanes), np.float16)))
    np.testing.assert_array_equal(get(y.features), np.repeat(expected[:, None], lanes, axis=1))


@layers
@pytest.mark.parametrize("shape", [(5, 6, 7), None])
def test_no_sites(layer, shape, dtype):
    x = spcy.SparseTensor(
        put(np.zeros((0, 4), np.int32)), put(np.zeros((0, 3), dtype)), shape=shape, batch_size=2
    )
    y = LAYERS[layer](x, put(np.ones((3, 3, 3, 3, 5), dtype)), put(np.ones(5, dtype)))
    assert (y.num_sites, y.num_channels, y.coords.batch_size, y.dtype) == (0, 5, 2, dtype)
    assert y.features.shape == (0, 5)
    if shape:
        assert y.shape == {"conv": (3, 3, 4), "transpose": (9, 11, 13)}.get(layer, shape)


def test_one_site_paints_the_kernel():
    x = spcy.SparseTensor(put(np.array([[0, 2, 2]])), put(np.ones((1, 1), np.float32)), shape=(5, 5))
    weight = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1, 1)
    painted = get(spcy.conv_transpose(x, put(weight), padding=1).to_dense())[0, 1:4, 1:4]
    np.testing.assert_array_equal(painted, weight[..., 0])
    seen = get(spcy.conv(x, put(weight), padding=1).to_dense())[0, 1:4, 1:4]
    np.testing.assert_array_equal(seen, weight[::-1, ::-1, :, 0])
    np.testing.assert_array_equal(get(spcy.subm_conv(x, put(weight)).features), [[5]])


VIEWS = {
    "channels first": lambda w: np.moveaxis(np.moveaxis(w, -1, 0).copy(), 0, -1),
    "transposed": lambda w: w.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "every second": lambda w: np.repeat(w, 2, -1)[..., ::2],
    "backwards": lambda w: w[::-1, :, ::-1, ::-1].copy()[::-1, :, ::-1, ::-1],
    "one of a record": lambda w: np.rec.fromarrays([w.view(np.int8).reshape(*w.shape, -1)[..., 0], w]).f1,
}


@pytest.mark.paired("view", "channels")
@pytest.mark.paired("channels", "dtype", backend="cuda-emulated")
@pytest.mark.emulated(view=["channels first"])
@pytest.mark.parametrize("channels", [(17, 21, 1), (40, 24, 1), (6, 4, 2), (4, 4, 4)], ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_weights_may_be_views_of_any_layout(view, channels, dtype, simd, rng):
    c_in, c_out, groups = channels
    x = random_tensor(rng, 40, (5, 6), c_in, dtype)
    weight, bias = random_weight(rng, (3, 3), c_in // groups, c_out, dtype)
    other = put(VIEWS[view](get(weight)))
    assert not isinstance(other, np.ndarray) or c_in == groups or not other.flags.c_contiguous
    for rule in (spcy.subm_conv, spcy.conv, spcy.conv_transpose):
        y, vjp = spcy.vjp(rule, x, weight, bias, groups=groups)
        z, pull = spcy.vjp(rule, x, other, bias, groups=groups)
        np.testing.assert_array_equal(get(z.features), get(y.features))
        for ours, expected in zip(pull(z.features), vjp(y.features), strict=True):
            np.testing.assert_array_equal(get(ours), get(expected))


@pytest.mark.parametrize(
    ("kernel", "args", "shape"),
    [((9, 3), {"padding": 2}, (1, 6)), ((3, 3), {"dilation": (2, 1), "padding": (0, 0)}, (1, 2))],
)
def test_kernel_larger_than_the_shape_fits_with_padding(kernel, args, shape, rng):
    x = random_tensor(rng, 20, (5, 4), 2, np.float64)
    weight, bias = random_weight(rng, kernel, 2, 3, np.float64)
    y = spcy.conv(x, weight, bias, **args)
    assert y.shape == shape
    rows, sites, _ = Geometry((5, 4), kernel, 1, **{"padding": 0, **args}).table(x)
    assert_tensor(y, sites, ref.conv(get(x.features), get(weight), get(bias), rows), shape, np.float64)


def test_inverse_conv_leaves_sites_that_no_window_holds(rng):
    """Stride beyond the kernel: the sites between the windows get the bias alone."""
    x = random_tensor(rng, 30, (9, 9), 2)
    weight, bias = random_weight(rng, (1, 1), 2, 3)
    y = spcy.inverse_conv(spcy.conv(x, put(np.ones((1, 1, 2, 2), np.float32)), stride=3), weight, bias)
    between = (get(x.indices)[:, 1:] % 3 > 0).any(1)
    assert 0 < between.sum() < 30
    np.testing.assert_array_equal(get(y.features)[between], np.tile(get(bias), (between.sum(), 1)))
    y = spcy.inverse_conv(spcy.conv(x, put(np.ones((1, 1, 2, 2), np.float32)), stride=3), weight)
    assert not get(y.features)[between].any()


def test_network_of_three_levels_comes_back(dtype, rng):
    x = random_tensor(rng, 120, (9, 9, 9), 2, dtype, batch_size=2)
    shapes = [((3, 3, 3), 2, 1), ((2, 2, 2), 2, 0), ((3, 1, 1), (2, 1, 1), (1, 0, 0))]
    levels, expected, tables = [x], np.float64(get(x.features)), []
    for kernel, stride, padding in shapes:
        weight, _ = random_weight(rng, kernel, 2, 2, dtype)
        rows, sites, _ = Geometry((9,) * 3, kernel, stride, padding).table(levels[-1])
        tables.append((rows, levels[-1].num_sites))
        levels.append(spcy.conv(levels[-1], weight, stride=stride, padding=padding))
        expected = ref.conv(expected, get(weight), None, rows)
        assert_tensor(levels[-1], sites, expected, levels[-1].shape, dtype)
        expected = np.float64(get(levels[-1].features))
    y = levels[-1]
    for parent, (kernel, _, _), (rows, num_sites) in zip(
        levels[-2::-1], shapes[::-1], tables[::-1], strict=True
    ):
        weight, _ = random_weight(rng, kernel, 2, 2, dtype)
        y = spcy.inverse_conv(y, weight, to=parent.coords)
        expected = ref.conv(expected, get(weight), None, ref.swap(rows, num_sites))
        assert y.coords is parent.coords
        assert_close(y.features, expected, dtype)
        expected = np.float64(get(y.features))


GROUPED = [
    (8, 12, 4),
    (32, 64, 2),
    (33, 66, 3),
    (7, 21, 7),
    (12, 6, 6),
    (5, 5, 5),
    (20, 20, 20),
    (150, 150, 150),
    (6, 6, 3),
    (70, 70, 35),
    (12, 12, 3),
    (148, 148, 37),
]


def grouped_weight(rng, kernel_size, c_in, c_out, groups, dtype=np.float32):
    return random_weight(rng, kernel_size, c_in // groups, c_out, dtype)


@pytest.mark.paired("channels", "dtype", backend="cuda-emulated")
@pytest.mark.parametrize("channels", GROUPED, ids="{0[0]}to{0[1]}by{0[2]}".format)
@pytest.mark.emulated(channels=[c for c in GROUPED if c[0] < 50])
def test_groups_are_the_reference(channels, dtype, simd, rng):
    x = random_tensor(rng, 90, (5, 6, 7), channels[0], dtype, batch_size=2)
    weight, bias = grouped_weight(rng, (3, 3, 3), *channels, dtype)
    rows = ref.subm_table(get(x.indices), ref.box((3, 3, 3), (1, 1, 1), centred=True))
    expected = ref.conv(get(x.features), get(weight), get(bias), rows, channels[2])
    y = spcy.subm_conv(x, weight, bias, groups=channels[2])
    assert_close(y.features, expected, dtype)
    residual = residual_of(y, rng)
    expected = np.maximum(expected + np.float64(get(residual.features)), 0)
    y = spcy.subm_conv(x, weight, bias, groups=channels[2], residual=residual, activation="relu")
    assert_close(y.features, expected, dtype)


@pytest.mark.emulated(channels=[(6, 9, 3)])
@pytest.mark.parametrize("channels", [(6, 9, 3), (17, 17, 17)], ids="{0[0]}to{0[1]}by{0[2]}".format)
@layers
def test_groups_of_every_layer(layer, channels, dtype, rng):
    """Each group alone gives the same as all of them together."""
    c_in, c_out, groups = channels
    x = random_tensor(rng, 90, (5, 6, 7), c_in, dtype, batch_size=2)
    weight, bias = grouped_weight(rng, (3, 3, 3), *channels, dtype)
    y = LAYERS[layer](x, weight, bias, groups=groups)
    for g in range(groups):
        part = x.map(lambda f, g=g: f[:, g * c_in // groups : (g + 1) * c_in // groups])
        of = slice(g * c_out // groups, (g + 1) * c_out // groups)
        one = LAYERS[layer](part, weight[..., of], bias[of])
        assert_close(get(y.features)[:, of].copy(), get(one.features), dtype)


@pytest.mark.parametrize(
    "channels", [(6, 9, 3), (17, 17, 17), (20, 20, 5)], ids="{0[0]}to{0[1]}by{0[2]}".format
)
def test_nan_stays_in_its_group(channels, dtype, simd, rng):
    c_in, c_out, groups = channels
    x = random_tensor(rng, 60, (5, 6, 7), c_in, dtype)
    weight, bias = grouped_weight(rng, (3, 3, 3), *channels, dtype)
    clean = get(spcy.subm_conv(x, weight, bias, groups=groups).features)
    features = get(x.features).copy()
    features[17, 4] = np.nan
    out = get(spcy.subm_conv(x.replace(put(features)), weight, bias, groups=groups).features)
    rows = ref.subm_table(get(x.indices), ref.box((3, 3, 3), (1, 1, 1), centred=True))
    spoiled = np.zeros(out.shape, bool)
    group = 4 // (c_in // groups)
    spoiled[:, group * c_out // groups : (group + 1) * c_out // groups] = (rows == 17).any(0)[:, None]
    np.testing.assert_array_equal(np.isnan(np.float64(out)), spoiled)
    np.testing.assert_array_equal(out[~spoiled], clean[~spoiled])


STENCILS = {
    "cross": [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]],
    "corner": [[0, 0], [0, 1], [1, 0], [1, 1]],
    "one-sided": [[0, -2], [-1, 0], [0, 0]],
    "single": [[1, -1]],
}


@pytest.mark.paired("stencil", "dtype")
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("stencil", STENCILS)
def test_offsets_are_the_reference(stencil, bounded, dtype, rng):
    offsets = np.array(STENCILS[stencil])
    x = random_tensor(rng, 30, (8, 7), 4, dtype, 2, (8, 7) if bounded else None, low=0 if bounded else -3)
    weight, bias = random_weight(rng, (len(offsets),), 2, 6, dtype)
    more = {"offsets": offsets, "groups": 2}
    values = get(x.features), get(weight), get(bias)
    y = spcy.subm_conv(x, weight, bias, **more)
    assert y.coords is x.coords
    assert_close(y.features, ref.conv(*values, ref.subm_table(get(x.indices), offsets), 2), dtype)

    back, _ = random_weight(rng, (len(offsets),), 3, 4, dtype)
    for layer, output_padding in ((spcy.conv, None), (spcy.conv_transpose, np.zeros(2, int))):
        y = layer(x, weight, bias, stride=2, padding=1, **more)
        table = get(x.indices), x.shape, 2, offsets, (2, 2), (1, 1), output_padding
        rows, sites, shape = ref.conv_table(*table)
        assert_tensor(y, sites, ref.conv(*values, rows, 2), shape, dtype)
        z = spcy.inverse_conv(y, back, groups=2)
        expected = ref.conv(get(y.features), get(back), None, ref.swap(rows, x.num_sites), 2)
        assert z.coords is x.coords
        assert_close(z.features, expected, dtype)


def test_offsets_of_a_box_are_the_box(rng):
    x = random_tensor(rng, 60, (8, 9, 7), 3)
    weight, bias = random_weight(rng, (3, 2, 1), 3, 5)
    listed = weight.reshape(6, 3, 5)
    offsets = spcy.kernel_offsets((3, 2, 1), 2)
    y = spcy.conv(x, weight, bias, stride=2, padding=1, dilation=2)
    z = spcy.conv(x, listed, bias, stride=2, padding=1, offsets=offsets)
    assert z.coords is y.coords
    np.testing.assert_array_equal(get(z.features), get(y.features))
    back = weight.swapaxes(-1, -2)
    boxed, in_a_list = spcy.inverse_conv(y, back), spcy.inverse_conv(y, back.reshape(6, 5, 3))
    np.testing.assert_array_equal(get(boxed.features), get(in_a_list.features))


strided_geometries = pytest.mark.parametrize(
    "geometry", [g for g in GEOMETRIES if {*g.axes(g.stride)} != {1}], ids=str
)


@pytest.mark.paired("geometry", "dtype")
@strided_geometries
def test_floor_sites_are_the_reference(geometry, dtype, rng):
    x = geometry.tensor(rng, 5, dtype)
    weight, bias = random_weight(rng, geometry.kernel_size, 5, 3, dtype)
    y = spcy.conv(x, weight, bias, sites="floor", **geometry.args)
    stride = geometry.axes(geometry.stride)
    rows, sites = ref.floor_table(get(x.indices), geometry.offsets, stride, geometry.axes(geometry.padding))
    shape = tuple(-(-n // s) for n, s in zip(geometry.box, stride, strict=True)) if geometry.bounded else None
    assert_tensor(y, sites, ref.conv(get(x.features), get(weight), get(bias), rows), shape, dtype)
    assert y.coords is spcy.conv(x, weight, sites="floor", **geometry.args).coords
    weight, bias = random_weight(rng, geometry.kernel_size, 3, 4, dtype)
    z = spcy.inverse_conv(y, weight, bias)
    assert z.coords is x.coords
    expected = ref.conv(get(y.features), get(weight), get(bias), ref.swap(rows, x.num_sites))
    assert_close(z.features, expected, dtype)


@pytest.mark.parametrize("bounded", [True, False])
def test_floor_cells_of_the_kernel_are_what_it_reaches(bounded, rng):
    x = random_tensor(rng, 60, (8, 6), 3, shape=(8, 6) if bounded else None, low=0 if bounded else -5)
    weight, bias = random_weight(rng, (2, 3), 3, 5)
    y = spcy.conv(x, weight, bias, stride=(2, 3))
    assert spcy.conv(x, weight, bias, stride=(2, 3), sites="floor").coords is y.coords
    assert spcy.max_pool(x, (2, 3), sites="floor").coords is y.coords


def test_floor_sites_of_other_kernels_are_the_same():
    """As a residual block needs them: its shortcut has a kernel of one cell."""
    x = spcy.SparseTensor(put(np.array([[0, 5], [0, -3], [0, 8]])), put(np.float32([[1], [2], [4]])))
    ones = put(np.ones((3, 1, 1), np.float32))
    y = spcy.conv(x, ones, stride=2, padding=1, sites="floor")
    z = spcy.conv(x, ones[1:2], stride=2, sites="floor")
    np.testing.assert_array_equal(get(y.indices)[:, 1], [-2, 2, 4])
    np.testing.assert_array_equal(get((y + z).features)[:, 0], [2, 1, 8])
    assert z.coords.parent is y.coords.parent is x.coords
    assert z.coords is not y.coords
    first, second = (spcy.max_pool(level, 2) for level in (y, z))
    assert first.coords.parent is y.coords
    assert second.coords.parent is z.coords


def test_floor_sites_of_stride_1_are_the_coords(dtype, rng):
    x = random_tensor(rng, 40, (6, 7), 3, dtype, shape=None, low=-3)
    weight, bias = random_weight(rng, (3, 2), 3, 5, dtype)
    y = spcy.conv(x, weight, bias, padding=(1, 0), dilation=2, sites="floor")
    assert y.coords is x.coords
    rows = ref.subm_table(get(x.indices), ref.box((3, 2), (2, 2)) - (1, 0))
    assert_close(y.features, ref.conv(get(x.features), get(weight), get(bias), rows), dtype)


def test_an_empty_window_gives_the_bias():
    x = spcy.SparseTensor(put(np.array([[0, 3]])), put(np.ones((1, 1), np.float32)))
    y = spcy.conv(
        x, put(np.ones((3, 1, 1), np.float32)), put(np.float32([7])), stride=4, padding=1, sites="floor"
    )
    np.testing.assert_array_equal(get(y.indices), [[0, 0]])
    np.testing.assert_array_equal(get(y.features), [[7]])


@pytest.mark.parametrize("shape", [(5, 6, 7), None])
def test_no_floor_sites(shape, dtype):
    x = spcy.SparseTensor(
        put(np.zeros((0, 4), np.int32)), put(np.zeros((0, 3), dtype)), shape=shape, batch_size=2
    )
    y = spcy.conv(x, put(np.ones((3, 3, 3, 3, 5), dtype)), stride=2, padding=1, sites="floor")
    assert (y.features.shape, y.coords.batch_size, y.shape) == ((0, 5), 2, shape and (3, 3, 4))


def test_a_floor_level_is_restored_by_pickle(rng):
    x = random_tensor(rng, 40, (7, 7), 3)
    y = spcy.conv(x, *random_weight(rng, (3, 3), 3, 3), stride=2, padding=1, sites="floor")
    z = pickle.loads(pickle.dumps(y))
    np.testing.assert_array_equal(get(z.indices), get(y.indices))
    assert spcy.inverse_conv(z, random_weight(rng, (3, 3), 3, 3)[0]).num_sites == 40


def test_floor_sites_of_long_strides_cost_no_more(backend):
    x = spcy.SparseTensor(np.array([[0, -(2**31)], [0, 9]]), np.ones((2, 2)))
    y = spcy.conv(x, put(np.ones((3, 2, 2))), stride=2**31 - 1, sites="floor")
    np.testing.assert_array_equal(get(y.indices), [[0, -2], [0, 0]])
    np.testing.assert_array_equal(get(y.features), [[0, 0], [0, 0]])
