"""Norms, over all rows and of each row, beside NumPy in float64."""

import numpy as np
import pytest
from helpers import get, put

import spcy
from spcy import _threads, nn
from spcy.norm import Norm, RowNorm, column_moments
from spcy.pointwise import activate, activation_gradient, activation_of

pytestmark = pytest.mark.usefixtures("backend")
shapes = pytest.mark.parametrize("shape", [(1, 3), (5, 1), (255, 16), (700, 33), (2000, 20)], ids=str)


def wide(array):
    return get(array).astype(np.float64)


def number(dtype):
    """The type that features are computed in."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def parameters(rng, channels, dtype):
    return [rng.standard_normal(channels).astype(number(dtype)) for _ in range(5)]


def epsilon(dtype):
    return 2.0**-8 if dtype.itemsize == 2 else np.finfo(dtype).eps


@pytest.mark.paired("shape", "dtype", backend="cuda-emulated")
@pytest.mark.paired("shape", "threads")
@shapes
def test_moments(shape, dtype, simd, threads, rng):
    x = (rng.standard_normal(shape) * rng.uniform(0.1, 10, shape[1]) + rng.uniform(-50, 50, shape[1])).astype(
        dtype
    )
    mean, variance = column_moments(put(x))
    assert mean.dtype == variance.dtype == np.float64
    np.testing.assert_allclose(get(mean), x.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(get(variance), x.astype(np.float64).var(axis=0), rtol=1e-10, atol=1e-18)


def test_moments_far_from_zero(simd, rng):
    """No difference of large numbers: columns at 1e6 and more keep all digits of their spread."""
    x = rng.standard_normal((3000, 5)) + np.array([0, 1e3, 1e6, 1e9, -1e9])
    mean, variance = column_moments(put(x))
    np.testing.assert_allclose(get(mean), x.mean(axis=0), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(get(variance), x.var(axis=0), rtol=1e-8)


@pytest.mark.paired("shape", "dtype", backend="cuda-emulated")
@pytest.mark.paired("shape", "threads")
@shapes
def test_norm_and_gradient(shape, dtype, simd, threads, rng):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    centre, scale, shift, level, slope = parameters(rng, shape[1], dtype)
    norm = Norm(put(centre), put(scale), put(shift))
    beyond = x.astype(np.float64) - centre
    expected = beyond * scale + shift
    bound = 4 * epsilon(dtype) * (np.abs(beyond * scale) + np.abs(shift))
    y = norm.apply(put(x))
    assert y.dtype == dtype
    assert (np.abs(wide(y) - expected) <= bound).all()
    for found, terms in zip(
        norm.gradient_sums(put(x), put(dy))[:2],
        (dy.astype(np.float64), dy.astype(np.float64) * beyond),
        strict=True,
    ):
        np.testing.assert_allclose(get(found), terms.sum(axis=0), rtol=1e-12, atol=1e-12 * len(x))
    dx = norm.gradient(put(x), put(dy), put(level), put(slope))
    expected = (dy.astype(np.float64) - level - beyond * slope) * scale
    size = (np.abs(dy.astype(np.float64)) + np.abs(level) + np.abs(beyond * slope)) * np.abs(scale)
    assert (np.abs(wide(dx) - expected) <= 4 * epsilon(dtype) * size).all()


@pytest.mark.paired("shape", "activation", "dtype")
@pytest.mark.parametrize("activation", ["relu", ("leaky_relu", 0.1), "gelu", "gelu_tanh", "silu"], ids=str)
@shapes
def test_activation_after_a_norm(shape, activation, dtype, simd, threads, rng):
    """The same bits as in steps of their own."""
    x, dy = (put(array) for array in rng.standard_normal((2, *shape)).astype(dtype))
    *columns, level, slope = (put(array) for array in parameters(rng, shape[1], dtype))
    after = activation_of(activation)
    alone, together = Norm(*columns), Norm(*columns, after)
    y = alone.apply(x)
    before = activation_gradient(y, dy, after)
    for found, expected in (
        (together.apply(x), activate(y, after)),
        *zip(together.gradient_sums(x, dy), alone.gradient_sums(x, before), strict=True),
        (
            together.gradient(x, together.gradient_sums(x, dy)[2], level, slope),
            alone.gradient(x, before, level, slope),
        ),
    ):
        assert found.dtype == expected.dtype
        assert get(found).tobytes() == get(expected).tobytes()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", [nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.GELU, nn.SiLU])
def test_batch_norm_and_activation_run_as_one(layer, training, dtype, rng):
    """What they give, in bits, and what they leave behind, is what they do one by one."""
    x = put((rng.standard_normal((600, 5)) * 3 + 1).astype(dtype))
    dy = put(rng.standard_normal((600, 5)).astype(dtype))

    def made():
        norm, state = nn.BatchNorm(5).astype(dtype), np.random.default_rng(1)
        for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            part.data = put(state.uniform(0.5, 2, 5).astype(part.data.dtype))
        return norm.train(training)

    alone, together = made(), made()
    net = nn.Sequential(together, layer()).train(training)
    y, pull_norm = alone.vjp(x)
    y, pull = layer().vjp(y)
    (expected,) = pull_norm(pull(dy)[0])
    found, pull = net.vjp(x)
    assert get(found).tobytes() == get(y).tobytes()
    (dx,) = pull(dy)
    assert get(dx).tobytes() == get(expected).tobytes()
    for one, other in ((alone.weight, together.weight), (alone.bias, together.bias)):
        np.testing.assert_array_equal(get(one.grad), get(other.grad))
    np.testing.assert_array_equal(get(alone.running_var.data), get(together.running_var.data))
    np.testing.assert_array_equal(get(net.forward(x)), get(y))


@pytest.mark.paired("shape", "dtype", backend="cuda-emulated")
@pytest.mark.paired("shape", "threads")
@shapes
def test_layer_norm_and_gradient(shape, dtype, simd, threads, rng):
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    weight, bias = parameters(rng, shape[1], dtype)[:2]
    norm = RowNorm(put(weight), put(bias), 1e-5)
    y, moments = norm.apply(put(x))
    x, g = x.astype(np.float64), dy.astype(np.float64) * weight
    mean, inverse = x.mean(axis=1, keepdims=True), 1 / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    tiny = np.finfo(number(dtype)).eps
    np.testing.assert_allclose(get(moments), np.hstack([mean, inverse]), rtol=8 * tiny, atol=8 * tiny)
    normal = (x - mean) * inverse
    assert y.dtype == dtype
    # What x - mean is made from: the mean is that of what lies beyond the row's first number.
    unsure = (np.abs(x) + np.abs(mean) + np.abs(x - x[:, :1]).mean(axis=1, keepdims=True)) * inverse
    size = np.abs(normal * weight) + np.abs(bias) + unsure * np.abs(weight)
    assert (np.abs(wide(y) - (normal * weight + bias)) <= 8 * epsilon(dtype) * size).all()
    dx, dweight, dbias = norm.gradient(put(x.astype(dtype)), put(dy), moments)
    level, slope = g.mean(axis=1, keepdims=True), (g * normal).mean(axis=1, keepdims=True)
    size = np.abs(g) + np.abs(g).mean(axis=1, keepdims=True)
    along = np.abs(g * (1 + np.abs(normal))).mean(axis=1, keepdims=True)
    size = (size + (1 + np.abs(normal) + unsure) * along) * inverse
    assert dx.dtype == dtype
    assert (np.abs(wide(dx) - (g - level - normal * slope) * inverse) <= 16 * epsilon(dtype) * size).all()
    terms = dy.astype(np.float64) * normal
    size = np.abs(terms) + np.abs(dy.astype(np.float64)) * unsure
    bound = 8 * tiny * size.sum(axis=0)
    assert (np.abs(get(dweight) - terms.sum(axis=0)) <= bound).all()
    np.testing.assert_allclose(get(dbias), dy.astype(np.float64).sum(axis=0), rtol=1e-12, atol=1e-12 * len(x))


def test_layer_norm_keeps_what_is_no_number_in_its_row(dtype, simd, rng):
    x = rng.standard_normal((600, 18)).astype(dtype)
    x[300, 2], x[0, 5] = np.nan, np.inf
    norm = nn.LayerNorm(18).astype(number(dtype))
    y, vjp = norm.vjp(put(x))
    dx = wide(vjp(put(np.ones_like(x)))[0])
    others = np.delete(np.arange(600), [300, 0])
    assert np.isnan(wide(y)[[300, 0]]).any(axis=1).all()
    assert np.isfinite(wide(y)[others]).all()
    assert np.isfinite(dx[others]).all()


def test_layer_norm_of_no_rows():
    norm = nn.LayerNorm(3)
    y, vjp = norm.vjp(put(np.empty((0, 3), np.float32)))
    assert y.shape == vjp(y)[0].shape == (0, 3)
    np.testing.assert_array_equal(get(norm.weight.grad), 0)


def test_any_number_of_threads_gives_the_same_bits(dtype, simd, rng, monkeypatch):
    if spcy.get_backend() != "cpu":
        pytest.skip("a GPU has no threads of the host")
    monkeypatch.setattr(_threads, "GRAIN", 1)
    x, dy = rng.standard_normal((2, 5000, 19)).astype(dtype)
    results = []
    for threads in (1, 2, 4):
        spcy.set_num_threads(threads)
        norm = Norm(*parameters(np.random.default_rng(0), 19, dtype)[:3])
        more = parameters(np.random.default_rng(1), 19, dtype)[:2]
        rows = RowNorm(*more, 1e-5)
        y, moments = rows.apply(x)
        results.append(
            [
                *column_moments(x),
                norm.apply(x).view(np.uint8),
                *norm.gradient_sums(x, dy)[:2],
                norm.gradient(x, dy, *more).view(np.uint8),
                y.view(np.uint8),
                *(part.view(np.uint8) for part in rows.gradient(x, dy, moments)),
            ]
        )
    spcy.set_num_threads(None)
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_what_is_no_number_stays_in_its_column(dtype, simd, rng):
    x = rng.standard_normal((600, 18)).astype(dtype)
    x[300, 2], x[0, 5] = np.nan, np.inf
    mean, variance = map(get, column_moments(put(x)))
    others = np.delete(np.arange(18), [2, 5])
    assert np.isnan(mean[2])
    assert np.isnan(variance[[2, 5]]).all()
    np.testing.assert_allclose(mean[others], x.astype(np.float64).mean(axis=0)[others], atol=1e-12)
    y = wide(nn.BatchNorm(18).astype(number(dtype))(put(x)))
    assert np.isfinite(y[:, others]).all()


def test_batch_norm_of_no_rows():
    norm = nn.BatchNorm(3)
    y, vjp = norm.vjp(put(np.empty((0, 3), np.float32)))
    assert y.shape == vjp(y)[0].shape == (0, 3)
    np.testing.assert_array_equal(get(norm.weight.grad), 0)
    np.testing.assert_array_equal(get(norm.running_mean.data), 0)


@pytest.mark.parametrize("channels", [16, 19])
def test_outputs_larger_than_caches_have_the_bits_of_their_parts(channels, dtype, rng):
    """They are written past the caches, from other memory than smaller ones."""
    if spcy.get_backend() != "cpu":
        pytest.skip("a GPU has one way to write")
    rows, part = (
        (3 << 22) // (channels * dtype.itemsize) + 1000,
        51200,
    )  # blocks of moments do not straddle parts
    x, dy = rng.standard_normal((2, rows, channels), np.float32).astype(dtype)
    norm = Norm(*parameters(rng, channels, dtype)[:3], activation_of("relu"))
    plain, rest = norm._replace(activation=None), parameters(rng, channels, dtype)[:2]
    by_row = RowNorm(*rest, 1e-5)

    def made(x, dy):
        y, moments = by_row.apply(x)
        g = norm.gradient_sums(x, dy)[2]
        return (
            norm.apply(x), plain.apply(x), g.copy(), norm.gradient(x, g, *rest), plain.gradient(x, dy, *rest),
            y, moments, by_row.gradient(x, dy, moments)[0],
        )  # fmt: skip

    parts = [made(x[first : first + part], dy[first : first + part]) for first in range(0, rows, part)]
    for whole, *pieces in zip(made(x, dy), *parts, strict=True):
        np.testing.assert_array_equal(whole.view(np.uint8), np.concatenate(pieces).view(np.uint8))
